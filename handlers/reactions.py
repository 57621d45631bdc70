"""Reactions, in rows of their own beside the messages they are shown with."""

from collections import defaultdict
from collections.abc import Iterable

from backscroll.handlers import command_log
from backscroll.handlers.sql import Named, RowMapper, one_of, statement, to_json
from backscroll.handlers.storage import Database
from backscroll.schema.errors import Invalid
from backscroll.schema.operations import GetReactionsForMessage, RemoveReaction, SaveReaction
from backscroll.schema.records import Message, Reaction
from backscroll.schema.tables import Messages, Reactions

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
SELECT_PLACE = statement(
    Messages.select(Messages.room_id, Messages.is_deleted).where(Messages.id == Named("message_id"))
)


def save_reaction(command: SaveReaction, db: Database) -> None:
    if begin_change(command.reaction.message_id, db):
        db.write(UPSERT, ROWS.to_row(command.reaction))


def remove_reaction(command: RemoveReaction, db: Database) -> None:
    if begin_change(command.message_id, db):
        db.run(DELETE, message_id=command.message_id, oder_id=command.oder_id, emoji=command.emoji)


def get_reactions_for_message(query: GetReactionsForMessage, db: Database) -> list[Reaction]:
    return reactions_by_message([query.message_id], db)[query.message_id]


def reactions_by_message(message_ids: Iterable[str], db: Database) -> dict[str, list[Reaction]]:
    """The reactions of many messages in one statement; an empty list for a message without any."""
    found: dict[str, list[Reaction]] = defaultdict(list)
    for row in db.rows(SELECT_OF_MESSAGES, message_ids=to_json(list(message_ids)).decode()):
        reaction = ROWS.to_record(row)
        found[reaction.message_id].append(reaction)
    return found


def check_reactions(message: Message, path: str) -> None:
    """Raise `Invalid` where a message carries the reaction of another; `path` is where the list stands."""
    for index, reaction in enumerate(message.reactions or []):
        if reaction.message_id != message.id:
            raise Invalid.at(f"{path}[{index}].messageId", "a reaction inside a message names that message")


def replace_reactions(message: Message, db: Database) -> None:
    """Make the stored reactions of a message exactly those it carries; one that carries no list keeps them."""
    if message.reactions is None:
        return
    db.run(DELETE_OF_MESSAGE, message_id=message.id)
    db.write_all(UPSERT, [ROWS.to_row(reaction) for reaction in message.reactions])


def begin_change(message_id: str, db: Database) -> bool:
    """Note that the command is about a message; false when that is a tombstone, which takes nothing any more."""
    command_log.mention("message", message_id, db)
    place = db.row(SELECT_PLACE, message_id=message_id)
    if place is None:
        return True
    room_id, is_deleted = place
    if is_deleted:
        command_log.forget("message", message_id, db)
    else:
        db.touch(room_id)
    return not is_deleted
