"""Reactions, in a table of their own."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from backscroll.handlers import arrival, changes
from backscroll.handlers.aliases import Found, message_of, resolve
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import JSON_BYTES_PER_CHAR, Named, Row, RowMapper, insertion, one_of, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import Invalid
from backscroll.schema.limits import ID_BYTES_MAX, PAGE_REACTIONS_BYTES_MAX, PAGE_REACTIONS_MAX
from backscroll.schema.operations import GetReactionsForMessage, RemoveReaction, SaveReaction
from backscroll.schema.records import ERASED_EMOJI, Reaction
from backscroll.schema.tables import ReactionRemovals, Reactions, Table

ROWS = RowMapper(Reaction, Reactions)
ROWS_SURE = PAGE_REACTIONS_BYTES_MAX // (len(ROWS.names) * ID_BYTES_MAX * JSON_BYTES_PER_CHAR)
"""So many reactions are never too large for one page."""

KEY_COLUMNS = len(Reaction.KEY)
"""A row begins with its key."""
TIMESTAMP_AT = ROWS.names.index("timestamp")


def _is_one(table: type[Table]) -> Any:
    """The condition that a row is about one emoji of a user on a message."""
    fields = table._meta.fields
    message, user, emoji = (fields[name] == Named(name) for name in Reaction.KEY)
    return message & user & emoji


UPSERT = ROWS.upsert()
DELETE = statement(Reactions.delete().where(_is_one(Reactions)))
SELECT_ONE = statement(Reactions.select(*ROWS.columns).where(_is_one(Reactions)))
SELECT_REMOVAL = statement(ReactionRemovals.select(ReactionRemovals.timestamp).where(_is_one(ReactionRemovals)))
DELETE_REMOVAL = statement(ReactionRemovals.delete().where(_is_one(ReactionRemovals)))
UPSERT_REMOVAL = statement(
    insertion(ReactionRemovals).on_conflict(
        conflict_target=[ReactionRemovals.message_id, ReactionRemovals.oder_id, ReactionRemovals.emoji],
        preserve=[ReactionRemovals.timestamp],
    )
)
SELECT_ALL_OF_MESSAGE = statement(Reactions.select(*ROWS.columns).where(Reactions.message_id == Named("message_id")))
SELECT_REMOVALS_OF_MESSAGE = statement(
    ReactionRemovals.select(ReactionRemovals.oder_id, ReactionRemovals.emoji, ReactionRemovals.timestamp).where(
        ReactionRemovals.message_id == Named("message_id")
    )
)
DELETE_REMOVALS_OF_MESSAGE = statement(
    ReactionRemovals.delete().where(ReactionRemovals.message_id == Named("message_id"))
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


@handles(SaveReaction)
def save_reaction(command: SaveReaction, db: Writes, context: CommandContext) -> None:
    reaction = command.reaction
    found = message_of(reaction.message_id, db)
    if found.is_deleted:
        context.redact_own(context.member)
        return
    if reaction.emoji == ERASED_EMOJI:
        return
    changes.add_reference(changes.message(found.id), db, context)
    if found.id != reaction.message_id:
        reaction = replace(reaction, message_id=found.id)
    if command.arrival is None:
        db.write(UPSERT, ROWS.to_row(reaction))
    elif not join_saved(ROWS.to_row(reaction), db):
        return
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
    changes.add_reference(changes.message(found.id), db, context)
    if command.arrival is None or command.timestamp is None:
        removed = db.run(DELETE, message_id=found.id, oder_id=command.oder_id, emoji=command.emoji) > 0
    else:
        removed = join_removed((found.id, command.oder_id, command.emoji), command.timestamp, db)
    if removed:
        declare_message(found, context)


@handles(GetReactionsForMessage, cached=Cached.UNTIL_COMMIT)
def get_reactions_for_message(query: GetReactionsForMessage, db: Reads) -> Items[Reaction]:
    rows = SELECT_OF_MESSAGE.read(db, query.after, query.limit, message_id=resolve(query.message_id, db))
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


def check_reactions(message_id: str, reactions: list[Reaction], path: str) -> None:
    """Raise `Invalid` if a reaction belongs to another message; `path` is the path of the list."""
    for index, reaction in enumerate(reactions):
        if reaction.message_id != message_id:
            raise Invalid.at(f"{path}[{index}].messageId", "must be the id of the message that contains the reaction")


def replace_reactions(message_id: str, reactions: list[Reaction], db: Writes) -> None:
    """Replace the stored reactions of a message by these."""
    db.run(DELETE_OF_MESSAGE, message_id=message_id)
    db.write_all(UPSERT, [ROWS.to_row(reaction) for reaction in reactions if reaction.emoji != ERASED_EMOJI])


def join_saved(row: Row, db: Writes) -> bool:
    """Save a reaction unless something later is known about it. Returns whether it did."""
    key = dict(zip(Reaction.KEY, row, strict=False))
    known = _known(key, db)
    if known is not None and arrival.saved_reaction_order(row[TIMESTAMP_AT], row[KEY_COLUMNS:]) <= known:
        return False
    db.run(DELETE_REMOVAL, **key)
    db.write(UPSERT, row)
    return True


def join_removed(key: tuple[str, str, str], timestamp: int, db: Writes) -> bool:
    """Remove a reaction unless it is later, and store when. Returns whether there was one."""
    named = dict(zip(Reaction.KEY, key, strict=True))
    known = _known(named, db)
    if known is not None and arrival.removed_reaction_order(timestamp) <= known:
        return False
    db.write(UPSERT_REMOVAL, (*key, timestamp))
    return db.run(DELETE, **named) > 0


def join_listed(message_id: str, listed: Iterable[Reaction], db: Writes) -> bool:
    """Save the reactions that a message came with, unless something later is known. Returns whether any was saved."""
    rows = [ROWS.to_row(replace(each, message_id=message_id)) for each in listed if each.emoji != ERASED_EMOJI]
    return sum(join_saved(row, db) for row in rows) > 0


def join_lists(from_id: str, message_id: str, db: Writes) -> int:
    """Give everything that is known about the reactions to one message to another. Returns how much that is."""
    saved = db.rows(SELECT_ALL_OF_MESSAGE, message_id=from_id)
    removed = db.rows(SELECT_REMOVALS_OF_MESSAGE, message_id=from_id)
    db.run(DELETE_OF_MESSAGE, message_id=from_id)
    db.run(DELETE_REMOVALS_OF_MESSAGE, message_id=from_id)
    for row in saved:
        join_saved((message_id, *row[1:]), db)
    for oder_id, emoji, timestamp in removed:
        join_removed((message_id, oder_id, emoji), timestamp, db)
    return len(saved) + len(removed)


def _known(key: dict[str, Any], db: Reads) -> tuple[Any, ...] | None:
    """What is known about one emoji of a user, as it is compared; None if nothing is."""
    saved = db.row(SELECT_ONE, **key)
    if saved is not None:
        return arrival.saved_reaction_order(saved[TIMESTAMP_AT], saved[KEY_COLUMNS:])
    removed = db.row(SELECT_REMOVAL, **key)
    return None if removed is None else arrival.removed_reaction_order(removed[0])


def declare_message(found: Found, context: CommandContext) -> None:
    """Declare that something belonging to a message changed. Not visible, so not declared, while it is not stored."""
    if found.room_id is not None:
        changes.saved(context, "message", found.id, found.room_id)
