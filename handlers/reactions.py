"""Reactions, in rows of their own beside the messages they are shown with."""

from collections import defaultdict
from collections.abc import Iterable

from peewee import SQL

from backscroll.handlers import changes
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, RowMapper, one_of, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Target
from backscroll.schema.errors import Invalid
from backscroll.schema.operations import GetReactionsForMessage, RemoveReaction, SaveReaction
from backscroll.schema.records import Message, Reaction
from backscroll.schema.tables import LogReferences, Messages, Reactions

ROWS = RowMapper(Reaction, Reactions)

UPSERT = ROWS.upsert()
DELETE = statement(
    Reactions.delete().where(
        (Reactions.message_id == Named("message_id"))
        & (Reactions.oder_id == Named("oder_id"))
        & (Reactions.emoji == Named("emoji"))
    )
)
DELETE_OF_MESSAGE = statement(Reactions.delete().where(Reactions.message_id == Named("message_id")))
SELECT_OF_MESSAGES = statement(
    Reactions.select(*ROWS.columns)
    .where(one_of(Reactions.message_id, "message_ids"))
    .order_by(Reactions.message_id, Reactions.timestamp, Reactions.oder_id, Reactions.emoji)
)
SELECT_MESSAGE = statement(
    Messages.select(Messages.room_id, Messages.is_deleted).where(Messages.id == Named("message_id"))
)
SELECT_COMMANDS_ABOUT_MESSAGE = statement(
    Messages.select(Messages.origin_seq, Messages.origin_member)
    .where((Messages.id == Named("message_id")) & (Messages.origin_seq > SQL("0")))
    .union_all(
        LogReferences.select(LogReferences.seq, LogReferences.member).where(
            (LogReferences.noun == SQL("'message'"))
            & (LogReferences.parent == SQL("''"))
            & (LogReferences.subject == Named("message_id"))
        )
    )
)


@handles(SaveReaction)
def save_reaction(command: SaveReaction, db: Writes, context: CommandContext) -> None:
    reaction = command.reaction
    if not change_message(reaction.message_id, db, context):
        context.redact_own(context.member)
        return
    changes.mention(changes.reaction(reaction.message_id, reaction.oder_id, reaction.emoji), db, context)
    db.write(UPSERT, ROWS.to_row(reaction))


@handles(RemoveReaction)
def remove_reaction(command: RemoveReaction, db: Writes, context: CommandContext) -> None:
    context.redact_own(context.member)
    if not change_message(command.message_id, db, context):
        return
    db.run(DELETE, message_id=command.message_id, oder_id=command.oder_id, emoji=command.emoji)
    # Also where it was not there any more: a message was saved without it, and the log still says what it was.
    changes.erase(changes.reaction(command.message_id, command.oder_id, command.emoji), db, context)
    in_messages = db.rows(SELECT_COMMANDS_ABOUT_MESSAGE, message_id=command.message_id)
    target = Target("reaction", (command.message_id, command.oder_id, command.emoji))
    changes.redact(in_messages, db, context, target)


@handles(GetReactionsForMessage, cached=Cached.UNTIL_COMMIT)
def get_reactions_for_message(query: GetReactionsForMessage, db: Reads) -> list[Reaction]:
    return reactions_by_message([query.message_id], db)[query.message_id]


def reactions_by_message(message_ids: Iterable[str], db: Reads) -> dict[str, list[Reaction]]:
    """The reactions of many messages in one statement; an empty list for a message without any."""
    found: dict[str, list[Reaction]] = defaultdict(list)
    for row in db.rows(SELECT_OF_MESSAGES, message_ids=to_json(list(message_ids)).decode()):
        reaction = ROWS.to_record(row)
        found[reaction.message_id].append(reaction)
    return found


def check_reactions(message: Message, path: str) -> None:
    """Raise `Invalid` where a message carries the reaction of another; `path` is where the list is."""
    for index, reaction in enumerate(message.reactions or []):
        if reaction.message_id != message.id:
            raise Invalid.at(f"{path}[{index}].messageId", "a reaction inside a message must name that message")


def replace_reactions(message: Message, db: Writes) -> None:
    """Make the stored reactions of a message exactly those it carries; one that carries no list keeps them."""
    if message.reactions is None:
        return
    db.run(DELETE_OF_MESSAGE, message_id=message.id)
    db.write_all(UPSERT, [ROWS.to_row(reaction) for reaction in message.reactions])


def change_message(message_id: str, db: Reads, context: CommandContext) -> bool:
    """Declare that what belongs to a message changes; false when that is a tombstone, to which nothing is added."""
    found = db.row(SELECT_MESSAGE, message_id=message_id)
    if found is None:
        return True
    room_id, is_deleted = found
    if not is_deleted:
        changes.saved(context, "message", message_id, room_id)
    return not is_deleted
