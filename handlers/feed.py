"""The feed: what changed after a cursor, with what is stored now. Models: CouchDB's `_changes`, Zulip's events.

    rows of the log ──▶ changes that the filter lets through ──▶ the last one of each item ──▶ with values ──▶ page

Each command's row has its changes, so the feed is exactly as complete and as durable as the log, and needs no table of
its own. Values are read from the same snapshot. They may be newer than the change that they are told with; then a later
change tells of the item again, and until it is told `more` is true.

A cursor is the place of the next change to tell, and the end of the log that values were read as of, with its chain:
so a cursor fits a log exactly if that log has all that its holder has seen.
"""

import base64
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from backscroll.handlers import bans, media, messages, rooms, users
from backscroll.handlers.lists import OrderedRows
from backscroll.handlers.message_rows import ID_AT, ORDER, ROOM_AT
from backscroll.handlers.registry import handles
from backscroll.handlers.rooms import MEMBERS
from backscroll.handlers.shown import SHOWN_IN_ROOM
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Reads
from backscroll.schema import tables
from backscroll.schema.command_log import CHAIN_START, NOUNS_IN_ROOMS, Change, decode_facts
from backscroll.schema.errors import Invalid, TooLarge
from backscroll.schema.limits import PAGE_BYTES_MAX, REPLY_BYTES_MAX, Count, Id, Integer
from backscroll.schema.operations import GetChanges
from backscroll.schema.operations.feed import NOW
from backscroll.schema.positions import MemberPosition
from backscroll.schema.records import Record
from backscroll.schema.replies import ChangePage, ItemChange
from backscroll.schema.tables import Commands, Messages
from backscroll.schema.wire import JSON, MSGPACK

COMMANDS_MAX, CHANGES_MAX = 2_000, 10_000  # that are looked at for one page, whatever the filter lets through
VALUES_AT_ONCE = 50
ITEM_BYTES_MAX = REPLY_BYTES_MAX - 16 * 1024  # of a change with its value, so that it fits into a reply
FORMAT: Final = 1  # of cursors
CHAIN_BYTES = 12  # of the chain, in a cursor

SELECT_CHANGES = statement(
    Commands.select(Commands.seq, Commands.at, Commands.id, Commands.facts)
    .where(Commands.seq >= Named("from_seq"))
    .order_by(Commands.seq)
    .limit(Named("limit"))
)
SELECT_LOG = statement(
    tables.Sequence.select(
        tables.Sequence.log_from,
        Commands.select(Commands.chain).where(Commands.seq == Named("head")),
        Commands.select(Commands.chain).where(Commands.seq == Named("as_of")),
    )
)
MESSAGE_PLACES = OrderedRows(Messages.select(*ORDER).where(SHOWN_IN_ROOM), ORDER)


class ListPlace(NamedTuple):
    """The place after an item of a room's list: the columns that the list is ordered by."""

    time: Integer | None
    ordinal: Integer
    id: Id


class MessagePlace(Record, frozen=True, kw_only=True):
    """The place of a message in its room."""

    timestamp: int
    ordinal: int
    id: str


class Place(NamedTuple):
    """The next change to tell: its command, its number there, and how far the list that stands for it was told."""

    seq: Count
    number: Count = 0
    told: ListPlace | None = None


class Cursor(NamedTuple):
    """What a cursor has: the next change to tell, and until which command its holder may have seen values."""

    format: int
    place: Place
    as_of: Count
    chain: bytes


class Head(NamedTuple):
    """The end of a scope's log: its last seq, and the chain there."""

    seq: int
    chain: bytes


class Found(NamedTuple):
    """A change to tell, and where to begin in order to tell it again."""

    place: Place
    at: int
    request_id: str
    change: Change


class Walk(NamedTuple):
    """Changes to tell, in order, and the place after them."""

    found: list[Found]
    end: Place


@handles(GetChanges)
def get_changes(query: GetChanges, db: Reads) -> ChangePage:
    cursor = None if query.after in (None, NOW) else _read_cursor(query.after)
    as_of = 0 if cursor is None else cursor.as_of
    [(log_from, chain, chain_then)] = db.rows(SELECT_LOG, head=db.position.seq, as_of=as_of)
    head = Head(db.position.seq, chain or CHAIN_START)
    if query.after == NOW:
        return empty_page(cursor_at(head))
    if cursor is not None and not _fits(cursor, log_from, chain_then):
        return ChangePage(changes=[], cursor=cursor_at(head), more=False, gap=True)
    place = Place(log_from) if cursor is None else cursor.place
    walk = _walk(place, query, db)
    if query.values and walk.found and walk.found[0].change.kind == "replaced":
        walk = _list_of(walk.found[0], query.limit, db)
    changes, end = _tell(walk, query.values, db)
    return ChangePage(changes=changes, cursor=_write_cursor(end, head), more=end.seq <= head.seq)


# Cursors


def cursor_at(head: Head) -> str:
    """The cursor of whoever has seen everything up to the end of the log."""
    return _write_cursor(Place(head.seq + 1), head)


def empty_page(cursor: str, *, more: bool = False) -> ChangePage:
    """A page without changes."""
    return ChangePage(changes=[], cursor=cursor, more=more)


def is_nothing_new(query: GetChanges, page: ChangePage) -> bool:
    """Whether a query may wait instead of getting this page."""
    return not (page.changes or page.more or page.gap) and query.after != NOW


def seen_until(cursor: str | None) -> int | None:
    """The seq until which the holder of a cursor has seen everything; None if the cursor does not tell."""
    if cursor is None:
        return None
    try:
        _, place, as_of, _ = _read_cursor(cursor)
    except Invalid:
        return None
    return as_of if place == (as_of + 1, 0, None) else None


def _write_cursor(place: Place, head: Head) -> str:
    packed = MSGPACK.encode(Cursor(FORMAT, place, head.seq, head.chain[:CHAIN_BYTES]))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _read_cursor(text: str) -> Cursor:
    """The cursor in a text; raises `Invalid` if it is none."""
    cursor = None
    with suppress(ValueError, msgspec.MsgspecError):
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = MSGPACK.decode(packed, Cursor)
    if cursor is None or cursor.format != FORMAT or not 0 < cursor.place.seq <= cursor.as_of + 1:
        raise Invalid.at(
            "$.payload.after", "not a cursor; use one from an earlier reply, `now`, or none for the whole history"
        )
    return cursor


def _fits(cursor: Cursor, log_from: int, chain: bytes | None) -> bool:
    """Whether a cursor belongs to a log that begins with `log_from` and has this chain at the cursor's `as_of`."""
    if chain is None and cursor.as_of >= log_from:
        return False
    return cursor.place.seq >= log_from and cursor.chain == (chain or CHAIN_START)[:CHAIN_BYTES]


# Which changes


Pair = tuple[str, str | None]
"""A noun and a room, or None for no room."""


def pairs_of(changes: Iterable[Change]) -> frozenset[Pair]:
    """The nouns and rooms that changes are about. A noun of rooms without a room is about all of them."""
    return frozenset((change.noun, change.room_id) for change in changes)


def is_wanted(pair: Pair, nouns: Container[str] | None, rooms: Container[str] | None) -> bool:
    """Whether a filter lets a change through that is about this noun and room."""
    noun, room_id = pair
    if nouns is not None and noun not in nouns:
        return False
    return rooms is None or (noun in NOUNS_IN_ROOMS and (room_id is None or room_id in rooms))


def _walk(place: Place, query: GetChanges, db: Reads) -> Walk:
    """The changes from a place on that the filter lets through, as many as the query's limit allows.

    Of the changes of one item the last. A list whose items are to be told stands alone, for `_list_of`.
    """
    last: dict[tuple[str | None, ...], Found] = {}
    looked_at, seq = 0, place.seq - 1
    with closing(db.each(SELECT_CHANGES, from_seq=place.seq, limit=COMMANDS_MAX)) as rows:
        for seq, at, request_id, facts in rows:
            skipped = place.number if seq == place.seq else 0
            for number, change in enumerate(decode_facts(facts).changes[skipped:], skipped):
                here = place if (seq, number) == place[:2] else Place(seq, number)
                looked_at += 1
                if looked_at > CHANGES_MAX:
                    return Walk(list(last.values()), here)
                if not is_wanted((change.noun, change.room_id), query.nouns, query.rooms):
                    continue
                is_list = query.values and change.kind == "replaced"
                if last and (is_list or len(last) >= query.limit):
                    return Walk(list(last.values()), here)
                key = (change.noun, change.room_id, change.channel_id, change.id)
                last.pop(key, None)
                last[key] = Found(here, at, request_id, change)
                if is_list:
                    return Walk([last[key]], here)
    return Walk(list(last.values()), Place(seq + 1))


def _list_of(found: Found, limit: int, db: Reads) -> Walk:
    """What to tell of a list that replaced another: that this is gone, and then the items of the list as it is now."""
    place, change = found.place, found.change
    assert change.room_id is not None
    told = place.told
    listed = [] if told else [found._replace(change=replace(change, kind="cleared"))]
    places = _places_after(told, change.noun, change.room_id, limit, db)
    for each in places:
        item = Change(noun=change.noun, id=each.id, room_id=change.room_id)
        listed.append(found._replace(place=place._replace(told=told), change=item))
        told = each
    return Walk(listed, Place(place.seq, place.number + 1) if len(places) < limit else place._replace(told=told))


def _places_after(told: ListPlace | None, noun: str, room_id: str, limit: int, db: Reads) -> list[ListPlace]:
    """The items after one in the list of a room's messages or members."""
    if noun == "message":
        message = told and MessagePlace(timestamp=told.time or 0, ordinal=told.ordinal, id=told.id)
        return [ListPlace(*row) for row in MESSAGE_PLACES.read(db, message, limit, room_id=room_id)]
    member = told and MemberPosition(joined_at=told.time, oder_id=told.id)
    rows = MEMBERS.ordered.read(db, member, limit, room_id=room_id)
    return [ListPlace(each.joined_at, 0, each.oder_id) for each in map(MEMBERS.rows.to_record, rows)]


# With values


def _tell(walk: Walk, values: bool, db: Reads) -> tuple[list[ItemChange], Place]:
    """What to tell of changes, as much as fits into a page, and the place after it."""
    if not values:
        return [_told(each) for each in walk.found], walk.end
    changes: list[ItemChange] = []
    size = 0
    for each, told in zip(walk.found, _with_values(walk.found, db), strict=False):
        own_size = _size(told)
        if own_size > ITEM_BYTES_MAX:  # it has to be read in parts
            told, own_size = replace(told, value=None), 0
        size += own_size
        if size > PAGE_BYTES_MAX and changes:
            return changes, each.place
        changes.append(told)
    return changes, walk.end


def _size(told: ItemChange) -> int:
    """The bytes of a change in a reply, in the longer encoding."""
    return max(len(JSON.encode(told)), len(MSGPACK.encode(told)))


def _with_values(found: list[Found], db: Reads) -> Iterator[ItemChange]:
    """What to tell of changes; their values are read as late as possible, because only some may fit into a page."""
    for start in range(0, len(found), VALUES_AT_ONCE):
        yield from _some_with_values(found[start : start + VALUES_AT_ONCE], db)


def _some_with_values(found: list[Found], db: Reads) -> Iterator[ItemChange]:
    """The same, with all messages read at once; half of them at a time if they are large."""
    ids = {each.change.id for each in found if each.change.noun == "message" and each.change.kind == "saved"}
    stored = messages.some(sorted(filter(None, ids)), db)
    listed = messages.with_lists(stored.rows, True, True, db) if stored.complete else None
    if listed is None and len(found) > 1:
        half = len(found) // 2
        yield from _some_with_values(found[:half], db)
        yield from _some_with_values(found[half:], db)
        return
    room_of = {row[ID_AT]: row[ROOM_AT] for row in stored.rows}
    by_id = {message.id: message for message in listed or ()}
    for each in found:
        change = each.change
        if change.noun != "message" or change.kind != "saved":
            yield _told_with_value(each, db)
        elif room_of.get(change.id or "") == change.room_id:
            yield _told(each, value=by_id.get(change.id or ""))
        else:
            yield _told(each, gone=True)


def _told_with_value(found: Found, db: Reads) -> ItemChange:
    """What to tell of a change, except that of a message."""
    change = found.change
    if change.kind != "saved":
        return _told(found)
    if change.noun == "current-user":
        user_id = users.current_user_id(db)
        return _told(found._replace(change=replace(change, id=user_id)), gone=user_id is None)
    try:
        value = READERS[change.noun](change, db)
    except TooLarge:  # it is there, and has to be read in parts
        return _told(found)
    return _told(found, value=value, gone=value is None)


READERS: dict[str, Callable[[Any, Reads], Any]] = {
    "room": lambda change, db: rooms.without_members(change.id, db),
    "member": lambda change, db: MEMBERS.find(change.room_id, change.id, db),
    "user": lambda change, db: users.find_by_oder_id(change.id, db),
    "ban": lambda change, db: bans.find(change.room_id, change.id, db),
    "media": lambda change, db: media.find(change.id, db),
}
"""How an item is read, by noun."""


def _told(found: Found, *, value: Any = None, gone: bool = False) -> ItemChange:
    change = found.change
    is_nobody = change.noun == "current-user" and change.id is None
    return ItemChange(
        seq=found.place.seq,
        at=found.at,
        request_id=found.request_id,
        noun=change.noun,
        id=change.id,
        room_id=change.room_id,
        channel_id=change.channel_id,
        gone=gone or is_nobody or change.kind in ("gone", "cleared") or None,
        value=value,
    )
