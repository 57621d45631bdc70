"""Reactions, in a table of their own."""

from collections import defaultdict
from collections.abc import Iterable

from backscroll.handlers import changes
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import JSON_BYTES_PER_CHAR, Named, RowMapper, one_of, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import Invalid
from backscroll.schema.limits import ID_BYTES_MAX, PAGE_REACTIONS_BYTES_MAX, PAGE_REACTIONS_MAX
from backscroll.schema.operations import GetReactionsForMessage, RemoveReaction, SaveReaction
from backscroll.schema.records import ERASED_EMOJI, Message, Reaction
from backscroll.schema.tables import Messages, Reactions

ROWS = RowMapper(Reaction, Reactions)
ROWS_SURE = PAGE_REACTIONS_BYTES_MAX // (len(ROWS.names) * ID_BYTES_MAX * JSON_BYTES_PER_CHAR)
"""So many reactions are never too large for one page."""

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
    .limit(Named("limit"))
)
SELECT_OF_MESSAGE = OrderedRows(
    Reactions.select(*ROWS.columns).where(Reactions.message_id == Named("message_id")),
    [Reactions.timestamp, Reactions.oder_id, Reactions.emoji],
)
SELECT_MESSAGE = statement(
    Messages.select(Messages.room_id, Messages.is_deleted).where(Messages.id == Named("message_id"))
)


@handles(SaveReaction)
def save_reaction(command: SaveReaction, db: Writes, context: CommandContext) -> None:
    reaction = command.reaction
    room_id, is_deleted = message_of(reaction.message_id, db)
    if is_deleted:
        context.redact_own(context.member)
        return
    if reaction.emoji == ERASED_EMOJI:
        return
    declare_message(reaction.message_id, room_id, context)
    changes.add_reference(changes.message(reaction.message_id), db, context)
    db.write(UPSERT, ROWS.to_row(reaction))


@handles(RemoveReaction)
def remove_reaction(command: RemoveReaction, db: Writes, context: CommandContext) -> None:
    room_id, is_deleted = message_of(command.message_id, db)
    if is_deleted:
        context.redact_own(context.member)
        return
    if command.emoji == ERASED_EMOJI:
        return
    changes.add_reference(changes.message(command.message_id), db, context)
    if db.run(DELETE, message_id=command.message_id, oder_id=command.oder_id, emoji=command.emoji):
        declare_message(command.message_id, room_id, context)


@handles(GetReactionsForMessage, cached=Cached.UNTIL_COMMIT)
def get_reactions_for_message(query: GetReactionsForMessage, db: Reads) -> Items[Reaction]:
    rows = SELECT_OF_MESSAGE.read(db, query.after, query.limit, message_id=query.message_id)
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)


def reactions_by_message(message_ids: Iterable[str], db: Reads) -> dict[str, list[Reaction]] | None:
    """The reactions of many messages, read with one statement; an empty list for a message without any.

    None if they are too many or too large for one page.
    """
    found: dict[str, list[Reaction]] = defaultdict(list)
    ids = to_json(list(message_ids)).decode()
    rows = db.rows(SELECT_OF_MESSAGES, message_ids=ids, limit=PAGE_REACTIONS_MAX + 1)
    if len(rows) > PAGE_REACTIONS_MAX:
        return None
    records = ROWS.to_records(rows)
    if len(rows) > ROWS_SURE and len(to_json(records)) > PAGE_REACTIONS_BYTES_MAX:
        return None
    for reaction in records:
        found[reaction.message_id].append(reaction)
    return found


def check_reactions(message: Message, reactions: list[Reaction], path: str) -> None:
    """Raise `Invalid` if a reaction belongs to another message; `path` is the path of the list."""
    for index, reaction in enumerate(reactions):
        if reaction.message_id != message.id:
            raise Invalid.at(f"{path}[{index}].messageId", "must be the id of the message that contains the reaction")


def replace_reactions(message_id: str, reactions: list[Reaction], db: Writes) -> None:
    """Replace the stored reactions of a message by these."""
    db.run(DELETE_OF_MESSAGE, message_id=message_id)
    db.write_all(UPSERT, [ROWS.to_row(reaction) for reaction in reactions if reaction.emoji != ERASED_EMOJI])


def message_of(message_id: str, db: Reads) -> tuple[str | None, bool]:
    """The room of a message, None if it is not stored, and whether it was deleted: then nothing is added to it."""
    found = db.row(SELECT_MESSAGE, message_id=message_id)
    return (None, False) if found is None else (found[0], bool(found[1]))


def declare_message(message_id: str, room_id: str | None, context: CommandContext) -> None:
    """Declare that something belonging to a message changed. Not visible, so not declared, while it is not stored."""
    if room_id is not None:
        changes.saved(context, "message", message_id, room_id)
