"""Reactions, in a table of their own."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from msgspec.structs import replace

from backscroll.handlers import arrival, changes
from backscroll.handlers.aliases import Found, message_of, shown_id
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import (
    JSON_BYTES_PER_CHAR,
    Named,
    Row,
    RowMapper,
    RowsWithin,
    Statement,
    insertion,
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
from backscroll.schema.records import ERASED_EMOJI, Reaction
from backscroll.schema.tables import ReactionRemovals, Reactions, Table

ROWS = RowMapper(Reaction, Reactions)
IDS = 5  # of a reaction, its emoji included
NAMES_AND_NUMBERS_BYTES = 256  # in the JSON of a reaction
ROW_BYTES_MAX = IDS * ID_BYTES_MAX * JSON_BYTES_PER_CHAR + REACTION_METADATA_BYTES_MAX + NAMES_AND_NUMBERS_BYTES
ROWS_SURE = PAGE_REACTIONS_BYTES_MAX // ROW_BYTES_MAX
"""So many reactions are never too large for one page."""

KEY_COLUMNS = len(Reaction.KEY)
"""A row begins with its key."""
ORIGIN = ("origin_seq", "origin_member")
ORIGIN_COLUMNS = len(ORIGIN)
"""A row that is written ends with its origin."""
TIMESTAMP_AT = ROWS.names.index("timestamp")
NO_ORIGIN = (0, 0)
"""Otherwise a reaction has the command that has its metadata, so that this can be erased when it is replaced."""
METADATA: Fields = frozenset(["metadata"])
METADATA_AT = ROWS.names.index("metadata")


def _is_one(table: type[Table]) -> Any:
    """The condition that a row is about one emoji of a user on a message."""
    fields = table._meta.fields
    message, user, emoji = (fields[name] == Named(name) for name in Reaction.KEY)
    return message & user & emoji


OF_MESSAGE = Reactions.message_id == Named("message_id")
COLUMNS = (*ROWS.columns, Reactions.origin_seq, Reactions.origin_member)

UPSERT = ROWS.upsert(*ORIGIN)
DELETE = statement(Reactions.delete().where(_is_one(Reactions)))
SELECT_ONE = statement(Reactions.select(*COLUMNS).where(_is_one(Reactions)))
SELECT_REMOVAL = statement(ReactionRemovals.select(ReactionRemovals.timestamp).where(_is_one(ReactionRemovals)))
DELETE_REMOVAL = statement(ReactionRemovals.delete().where(_is_one(ReactionRemovals)))
UPSERT_REMOVAL = statement(
    insertion(ReactionRemovals).on_conflict(
        conflict_target=[ReactionRemovals.message_id, ReactionRemovals.oder_id, ReactionRemovals.emoji],
        preserve=[ReactionRemovals.timestamp],
    )
)
SELECT_ALL_OF_MESSAGE = statement(Reactions.select(*COLUMNS).where(OF_MESSAGE))
SELECT_REMOVALS_OF_MESSAGE = statement(
    ReactionRemovals.select(ReactionRemovals.oder_id, ReactionRemovals.emoji, ReactionRemovals.timestamp).where(
        ReactionRemovals.message_id == Named("message_id")
    )
)
DELETE_REMOVALS_OF_MESSAGE = statement(
    ReactionRemovals.delete().where(ReactionRemovals.message_id == Named("message_id"))
)
DELETE_OF_MESSAGE = statement(Reactions.delete().where(OF_MESSAGE))
SELECT_METADATA_OF_ONE, SELECT_METADATA_OF_MESSAGE = (
    statement(
        Reactions.select(Reactions.oder_id, Reactions.emoji, Reactions.origin_seq, Reactions.origin_member).where(
            where & Reactions.metadata.is_null(False)
        )
    )
    for where in (_is_one(Reactions), OF_MESSAGE)
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


@handles(SaveReaction)
def save_reaction(command: SaveReaction, db: Writes, context: CommandContext) -> None:
    reaction = command.reaction
    check_reaction(reaction, "$.payload.reaction")
    found = message_of(reaction.message_id, db)
    if found.is_deleted:
        context.redact_own(context.member)
        return
    if reaction.emoji == ERASED_EMOJI:
        return
    changes.add_reference(changes.message(found.id), db, context, changes.NO_TEXT)
    if found.id != reaction.message_id:
        reaction = replace(reaction, message_id=found.id)
    if command.arrival is not None:
        if not join_saved(_row(reaction, context), db, context):
            return
    else:
        if db.retention.redact_replaced:
            _erase_metadata(SELECT_METADATA_OF_ONE, db, context, **_key(reaction))
        db.write(UPSERT, _row(reaction, context))
    declare_message(found, context)


@handles(RemoveReaction)
def remove_reaction(command: RemoveReaction, db: Writes, context: CommandContext) -> None:
    if command.arrival is not None and command.timestamp is None:
        raise Invalid.at("$.payload.timestamp", "a removal that arrives in any order needs its time")
    found = message_of(command.message_id, db)
    if found.is_deleted:
        context.redact_own(context.member)
        return
    if command.emoji == ERASED_EMOJI:
        return
    changes.add_reference(changes.message(found.id), db, context, changes.NO_TEXT)
    key = (found.id, command.oder_id or "", command.emoji)
    if command.arrival is None or command.timestamp is None:
        removed = _remove(key, db, context)
    else:
        removed = join_removed(key, command.timestamp, db, context)
    if removed:
        declare_message(found, context)


@handles(GetReactionsForMessage, cached=Cached.UNTIL_COMMIT)
def get_reactions_for_message(query: GetReactionsForMessage, db: Reads) -> Items[Reaction]:
    message_id = shown_id(query.message_id, db)
    rows = SELECT_OF_MESSAGE.read(db, query.after, query.limit, message_id=message_id)
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


def check_reactions(message_id: str, reactions: list[Reaction], path: str) -> None:
    """Raise `Invalid` if a reaction belongs to another message, or as `check_reaction`; `path` is that of the list."""
    for index, reaction in enumerate(reactions):
        if reaction.message_id != message_id:
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
        ROWS.to_row(each) + (NO_ORIGIN if each.metadata is None else origin)
        for each in reactions
        if each.emoji != ERASED_EMOJI
    ]
    db.write_all(UPSERT, rows)


def join_saved(row: Row, db: Writes, context: CommandContext) -> bool:
    """Save a reaction, given with its origin, unless something later is known about it. Returns whether it did."""
    key = _key_of(row)
    known = _known(key, db)
    if known is not None and _order(row) <= known:
        _erase_metadata_of(row, db, context)
        return False
    if db.retention.redact_replaced:
        _erase_metadata(SELECT_METADATA_OF_ONE, db, context, **key)
    db.run(DELETE_REMOVAL, **key)
    db.write(UPSERT, row)
    return True


def join_removed(key: tuple[str, str, str], timestamp: int, db: Writes, context: CommandContext) -> bool:
    """Remove a reaction unless it is later, and store when. Returns whether there was one."""
    known = _known(_key_of(key), db)
    if known is not None and arrival.removed_reaction_order(timestamp) <= known:
        return False
    db.write(UPSERT_REMOVAL, (*key, timestamp))
    return _remove(key, db, context)


def join_listed(message_id: str, listed: Iterable[Reaction], db: Writes, context: CommandContext) -> bool:
    """Save the reactions that a message came with, unless something later is known. Returns whether any was saved."""
    rows = [_row(replace(each, message_id=message_id), context) for each in listed if each.emoji != ERASED_EMOJI]
    return sum(join_saved(row, db, context) for row in _latest(rows)) > 0


def join_lists(from_id: str, message_id: str, db: Writes, context: CommandContext) -> None:
    """Give everything that is known about the reactions to one message to another."""
    saved = db.rows(SELECT_ALL_OF_MESSAGE, message_id=from_id)
    removed = db.rows(SELECT_REMOVALS_OF_MESSAGE, message_id=from_id)
    db.run(DELETE_OF_MESSAGE, message_id=from_id)
    db.run(DELETE_REMOVALS_OF_MESSAGE, message_id=from_id)
    for row in saved:
        join_saved((message_id, *row[1:]), db, context)
    for oder_id, emoji, timestamp in removed:
        join_removed((message_id, oder_id, emoji), timestamp, db, context)


def _row(reaction: Reaction, context: CommandContext) -> Row:
    """The row of a reaction in this command, with its origin."""
    origin = NO_ORIGIN if reaction.metadata is None else (context.seq, context.member)
    return ROWS.to_row(reaction) + origin


def _key(reaction: Reaction) -> dict[str, str]:
    """The key of a stored reaction, as it is bound in statements."""
    return {"message_id": reaction.message_id, "oder_id": reaction.oder_id or "", "emoji": reaction.emoji}


def _key_of(row: Sequence[Any]) -> dict[str, Any]:
    """The same of a row."""
    return dict(zip(Reaction.KEY, row, strict=False))


def _latest(rows: Iterable[Row]) -> Iterable[Row]:
    """Of rows with the same key the one that counts."""
    latest: dict[Row, Row] = {}
    for row in rows:
        key = row[:KEY_COLUMNS]
        latest[key] = max(latest.get(key, row), row, key=_order)
    return latest.values()


def _order(row: Row) -> tuple[Any, ...]:
    """The row of a reaction, as it is compared."""
    return arrival.saved_reaction_order(row[TIMESTAMP_AT], row[KEY_COLUMNS:-ORIGIN_COLUMNS])


def _known(key: dict[str, Any], db: Reads) -> tuple[Any, ...] | None:
    """What is known about one emoji of a user, as it is compared; None if nothing is."""
    saved = db.row(SELECT_ONE, **key)
    if saved is not None:
        return _order(saved)
    removed = db.row(SELECT_REMOVAL, **key)
    return None if removed is None else arrival.removed_reaction_order(removed[0])


def _remove(key: tuple[str, str, str], db: Writes, context: CommandContext) -> bool:
    """Remove a reaction; returns whether there was one."""
    named = _key_of(key)
    if db.retention.redact_replaced:
        _erase_metadata(SELECT_METADATA_OF_ONE, db, context, **named)
    return db.run(DELETE, **named) > 0


def _erase_metadata(select: Statement, db: Writes, context: CommandContext, **key: str) -> None:
    """Erase metadata that is about to be replaced or removed from the log."""
    for oder_id, emoji, seq, member in db.rows(select, **key):
        _erase_metadata_in((seq, member), oder_id, emoji, db, context)


def _erase_metadata_of(row: Row, db: Writes, context: CommandContext) -> None:
    """Erase the metadata of a row that is not written, if it has any, from the command that it came from; if so set."""
    if db.retention.redact_replaced and row[METADATA_AT] is not None:
        _, oder_id, emoji = row[:KEY_COLUMNS]
        _erase_metadata_in(row[-ORIGIN_COLUMNS:], oder_id, emoji, db, context)


def _erase_metadata_in(place: Sequence[int], oder_id: str, emoji: str, db: Writes, context: CommandContext) -> None:
    """Erase the metadata of a reaction from the command at this place, given as (seq, member).

    The id of the message is not compared: the command may have a former one, and has no reactions to other messages.
    """
    seq, member = place
    changes.redact([(seq, member)], db, context, Target("reaction", (oder_id or None, emoji)), METADATA)


def declare_message(found: Found, context: CommandContext) -> None:
    """Declare that something belonging to a message changed. Not visible, so not declared, while it is not stored."""
    if found.room_id is not None:
        changes.saved(context, "message", found.id, found.room_id)
