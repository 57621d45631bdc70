"""Reactions, in a table of their own."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice

from backscroll.handlers import changes
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import (
    JSON_BYTES_PER_CHAR,
    Named,
    Row,
    RowMapper,
    RowsWithin,
    Statement,
    one_of,
    statement,
    to_json,
)
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Fields, Target
from backscroll.schema.errors import Invalid, TooLarge
from backscroll.schema.limits import (
    ID_BYTES_MAX,
    PAGE_REACTIONS_BYTES_MAX,
    PAGE_REACTIONS_MAX,
    REACTION_METADATA_BYTES_MAX,
)
from backscroll.schema.operations import GetReactionsForMessage, RemoveReaction, SaveReaction
from backscroll.schema.records import ERASED_EMOJI, Message, Reaction
from backscroll.schema.tables import Messages, Reactions

ROWS = RowMapper(Reaction, Reactions)
IDS = 5  # of a reaction, its emoji included
NAMES_AND_NUMBERS_BYTES = 256  # in the JSON of a reaction
ROW_BYTES_MAX = IDS * ID_BYTES_MAX * JSON_BYTES_PER_CHAR + REACTION_METADATA_BYTES_MAX + NAMES_AND_NUMBERS_BYTES
ROWS_SURE = PAGE_REACTIONS_BYTES_MAX // ROW_BYTES_MAX
"""So many reactions are never too large for one page."""

OF_MESSAGE = Reactions.message_id == Named("message_id")
OF_ONE = OF_MESSAGE & (Reactions.oder_id == Named("oder_id")) & (Reactions.emoji == Named("emoji"))
NO_ORIGIN = (0, 0)
"""Otherwise a reaction has the command that has its metadata, so that this can be erased when it is replaced."""
METADATA: Fields = frozenset(["metadata"])

UPSERT = ROWS.upsert(internal=["origin_seq", "origin_member"])
DELETE = statement(Reactions.delete().where(OF_ONE))
DELETE_OF_MESSAGE = statement(Reactions.delete().where(OF_MESSAGE))
SELECT_METADATA_OF_ONE, SELECT_METADATA_OF_MESSAGE = (
    statement(
        Reactions.select(
            Reactions.message_id, Reactions.oder_id, Reactions.emoji, Reactions.origin_seq, Reactions.origin_member
        ).where(where & Reactions.metadata.is_null(False))
    )
    for where in (OF_ONE, OF_MESSAGE)
)
SELECT_OF_MESSAGES = statement(
    Reactions.select(*ROWS.columns)
    .where(one_of(Reactions.message_id, "message_ids"))
    .order_by(Reactions.message_id, Reactions.oder_id, Reactions.emoji)  # as they are stored
    .limit(Named("limit"))
)
SELECT_OF_MESSAGE = OrderedRows(
    Reactions.select(*ROWS.columns).where(OF_MESSAGE),
    [Reactions.timestamp, Reactions.oder_id, Reactions.emoji],
)
SELECT_MESSAGE = statement(
    Messages.select(Messages.room_id, Messages.is_deleted).where(Messages.id == Named("message_id"))
)


@handles(SaveReaction)
def save_reaction(command: SaveReaction, db: Writes, context: CommandContext) -> None:
    reaction = command.reaction
    check_reaction(reaction, "$.payload.reaction")
    room_id, is_deleted = message_of(reaction.message_id, db)
    if is_deleted:
        context.redact_own(context.member)
        return
    if reaction.emoji == ERASED_EMOJI:
        return
    declare_message(reaction.message_id, room_id, context)
    changes.add_reference(changes.message(reaction.message_id), db, context, changes.NO_TEXT)
    if db.retention.redact_replaced:
        _erase_metadata(SELECT_METADATA_OF_ONE, db, context, **_key(reaction))
    origin = NO_ORIGIN if reaction.metadata is None else (context.seq, context.member)
    db.write(UPSERT, ROWS.to_row(reaction) + origin)


@handles(RemoveReaction)
def remove_reaction(command: RemoveReaction, db: Writes, context: CommandContext) -> None:
    room_id, is_deleted = message_of(command.message_id, db)
    if is_deleted:
        context.redact_own(context.member)
        return
    if command.emoji == ERASED_EMOJI:
        return
    changes.add_reference(changes.message(command.message_id), db, context, changes.NO_TEXT)
    if db.retention.redact_replaced:
        _erase_metadata(SELECT_METADATA_OF_ONE, db, context, **_key(command))
    if db.run(DELETE, **_key(command)):
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
    bounds = {"message_ids": ids, "limit": PAGE_REACTIONS_MAX + 1}
    rows, _, complete = db.rows_within(PAGE_REACTIONS_BYTES_MAX, _take, SELECT_OF_MESSAGES, **bounds)
    if not complete or len(rows) > PAGE_REACTIONS_MAX:
        return None
    records = ROWS.to_records(rows)
    if len(rows) > ROWS_SURE and len(to_json(records)) > PAGE_REACTIONS_BYTES_MAX:
        return None
    for reaction in records:
        found[reaction.message_id].append(reaction)
    for own in found.values():
        if len(own) > 1:  # they are in the order of (oderId, emoji); those without a time come first
            own.sort(key=lambda each: -1 if each.timestamp is None else each.timestamp)
    return found


def _take(rows: Iterable[Row], size_max: int) -> RowsWithin:
    """Take rows, as many as have at most this size in metadata; the first ones unseen, because they never have more."""
    rows = iter(rows)
    first = list(islice(rows, ROWS_SURE))
    if len(first) < ROWS_SURE:
        return RowsWithin(first, 0, True)
    rest = ROWS.take_by_long_size(rows, size_max)
    return rest._replace(rows=first + rest.rows)


def check_reactions(message: Message, reactions: list[Reaction], path: str) -> None:
    """Raise `Invalid` if a reaction belongs to another message, or as `check_reaction`; `path` is that of the list."""
    for index, reaction in enumerate(reactions):
        if reaction.message_id != message.id:
            raise Invalid.at(f"{path}[{index}].messageId", "must be the id of the message that contains the reaction")
        if reaction.oder_id is None or reaction.count is not None or reaction.metadata is not None:
            check_reaction(reaction, f"{path}[{index}]")


def check_reaction(reaction: Reaction, path: str) -> None:
    """Raise `Invalid` unless a reaction has either an oderId or a count, `TooLarge` if its metadata is too large."""
    if (reaction.oder_id is None) == (reaction.count is None):
        raise Invalid.at(
            f"{path}.oderId", "give the oderId of the user who reacted, or the count of users whom nobody names"
        )
    size = 0 if reaction.metadata is None else len(to_json(reaction.metadata))
    if size > REACTION_METADATA_BYTES_MAX:
        problem = f"the metadata has {size} bytes in JSON; the limit for a reaction is {REACTION_METADATA_BYTES_MAX}"
        raise TooLarge.at(f"{path}.metadata", problem)


def replace_reactions(message_id: str, reactions: list[Reaction], db: Writes, context: CommandContext) -> None:
    """Replace the stored reactions of a message by these."""
    if db.retention.redact_replaced:
        _erase_metadata(SELECT_METADATA_OF_MESSAGE, db, context, message_id=message_id)
    db.run(DELETE_OF_MESSAGE, message_id=message_id)
    origin = (context.seq, context.member)
    rows = [
        ROWS.to_row(reaction) + (NO_ORIGIN if reaction.metadata is None else origin)
        for reaction in reactions
        if reaction.emoji != ERASED_EMOJI
    ]
    db.write_all(UPSERT, rows)


def _key(reaction: Reaction | RemoveReaction) -> dict[str, str]:
    """The key of a stored reaction, as it is bound in statements."""
    return {"message_id": reaction.message_id, "oder_id": reaction.oder_id or "", "emoji": reaction.emoji}


def _erase_metadata(select: Statement, db: Writes, context: CommandContext, **key: str) -> None:
    """Erase metadata that is about to be replaced or removed from the log."""
    for message_id, oder_id, emoji, seq, member in db.rows(select, **key):
        target = Target("reaction", (message_id, oder_id or None, emoji))
        changes.redact([(seq, member)], db, context, target, METADATA)


def message_of(message_id: str, db: Reads) -> tuple[str | None, bool]:
    """The room of a message, None if it is not stored, and whether it was deleted: then nothing is added to it."""
    found = db.row(SELECT_MESSAGE, message_id=message_id)
    return (None, False) if found is None else (found[0], bool(found[1]))


def declare_message(message_id: str, room_id: str | None, context: CommandContext) -> None:
    """Declare that something belonging to a message changed. Not visible, so not declared, while it is not stored."""
    if room_id is not None:
        changes.saved(context, "message", message_id, room_id)
