"""Pages of messages by cursor.

A cursor is a position in the order (timestamp, id) of a room or of one of its channels, not a row. So it stays valid
when messages are saved, edited or deleted, even the one it was made from. To callers it is opaque text.
"""

import base64
import operator
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import msgspec
from peewee import SQL, Ordering, Tuple

from backscroll.handlers.aliases import find_row
from backscroll.handlers.lists import PAGE_CHARS_SURE, page_of
from backscroll.handlers.message_rows import ID_AT, ROWS
from backscroll.handlers.messages import too_many_reactions, with_reactions
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, Statement, statement
from backscroll.handlers.storage import Reads
from backscroll.schema.errors import Invalid, NotFound
from backscroll.schema.limits import INTEGER_MAX, PAGE_BYTES_MAX, Millis
from backscroll.schema.operations import GetMessagePage, ListMessages
from backscroll.schema.records import Message
from backscroll.schema.replies import MessageList, MessagePage
from backscroll.schema.tables import Messages
from backscroll.schema.wire import MSGPACK


class Position(NamedTuple):
    """A position in the order of messages; there need not be a message."""

    timestamp: int
    id: str


END = Position(INTEGER_MAX + 1, "")


class Cursor(NamedTuple):
    """A position, and the room or channel that it belongs to."""

    room_id: str
    channel_id: str | None
    timestamp: Millis
    id: str


def _select(compare: Callable[[Any, Any], Any], of_channel: bool, include_deleted: bool) -> Statement:
    """Select the messages of a room or channel on one side of a position, nearest first."""
    where = Messages.room_id == Named("room_id")
    if of_channel:
        where &= Messages.channel_id == Named("channel_id")
    if not include_deleted:
        where &= Messages.is_deleted == SQL("0")
    where &= compare(Tuple(Messages.timestamp, Messages.id), Tuple(Named("timestamp"), Named("id")))
    direction = "DESC" if compare in (operator.lt, operator.le) else "ASC"
    order = [Ordering(column, direction) for column in (Messages.timestamp, Messages.id)]
    return statement(Messages.select(*ROWS.columns).where(where).order_by(*order).limit(Named("limit")))


COMPARISONS: tuple[Callable[[Any, Any], Any], ...] = (operator.lt, operator.le, operator.gt, operator.ge)
SELECTS = {key: _select(*key) for key in product(COMPARISONS, (False, True), (False, True))}
"""The statements by (comparison, of one channel, including deleted messages)."""


class Side(NamedTuple):
    """Rows on one side of a position, nearest first, their size, and whether there are more beyond them."""

    rows: list[Row]
    size: int
    more: bool


class Timeline(NamedTuple):
    """The messages of a room or of one of its channels in order, with or without deleted ones."""

    room_id: str
    channel_id: str | None
    include_deleted: bool

    def older(self, position: Position, limit: int, db: Reads, *, or_at: bool = False) -> Side:
        """At most `limit` rows before a position, fewer if they are large; with `or_at` also the row at it."""
        return self._side(operator.le if or_at else operator.lt, position, limit, db)

    def newer(self, position: Position, limit: int, db: Reads, *, or_at: bool = False) -> Side:
        """At most `limit` rows after a position, fewer if they are large; with `or_at` also the row at it."""
        return self._side(operator.ge if or_at else operator.gt, position, limit, db)

    def _side(self, compare: Callable[[Any, Any], Any], position: Position, limit: int, db: Reads) -> Side:
        select = SELECTS[compare, self.channel_id is not None, self.include_deleted]
        bound = {"room_id": self.room_id, "channel_id": self.channel_id, "limit": limit + 1}
        found = db.rows_within(
            PAGE_BYTES_MAX, ROWS.take_by_long_size, select, **bound, timestamp=position.timestamp, id=position.id
        )
        return Side(found.rows[:limit], found.size, not found.complete or len(found.rows) > limit)


SELECT_POSITION = statement(
    Messages.select(Messages.room_id, Messages.channel_id, Messages.timestamp).where(Messages.id == Named("message_id"))
)


@handles(GetMessagePage, cached=Cached.UNTIL_ROOM_CHANGES)
def get_message_page(query: GetMessagePage, db: Reads) -> MessagePage:
    if sum(each is not None for each in (query.before, query.after, query.around)) > 1:
        raise Invalid.at("$.payload", "only one of before, after and around may be given")
    timeline = Timeline(query.room_id, query.channel_id, query.include_deleted)
    limit = query.limit
    if query.around is not None:
        position = _position_of(query.around, timeline, "$.payload.around", db)
        older, newer = timeline.older(position, limit, db), timeline.newer(position, limit, db, or_at=True)
        half = min(len(older.rows), limit // 2)
        show_newer = min(len(newer.rows), limit - half)
        near = show_older = min(len(older.rows), limit - show_newer)
    elif query.after is not None:
        position = _open(query.after, timeline, "$.payload.after")
        older, newer = timeline.older(position, 0, db, or_at=True), timeline.newer(position, limit, db)
        near = show_older = 0
        show_newer = len(newer.rows)
    else:
        position = END if query.before is None else _open(query.before, timeline, "$.payload.before")
        older, newer = timeline.older(position, limit, db), timeline.newer(position, 0, db, or_at=True)
        near = show_older = len(older.rows)
        show_newer = 0
    rows = [*reversed(older.rows[:show_older]), *newer.rows[:show_newer]]
    shown = _fitting(rows, older.size + newer.size, min(near, len(rows) - 1), query.child_lists, db)
    messages = shown.messages
    return MessagePage(
        messages=messages,
        has_older=older.more or len(older.rows) > show_older or shown.start > 0,
        has_newer=newer.more or len(newer.rows) > show_newer or shown.end < len(rows),
        older_cursor=_cursor(timeline, messages[0]) if messages else None,
        newer_cursor=_cursor(timeline, messages[-1]) if messages else None,
    )


@handles(ListMessages, cached=Cached.UNTIL_ROOM_CHANGES)
def list_messages(query: ListMessages, db: Reads) -> MessageList:
    timeline = Timeline(query.room_id, query.channel_id, include_deleted=False)
    position = END if query.before is None else _position_of(query.before, timeline, "$.payload.before", db)
    older = timeline.older(position, query.limit, db)
    shown = _fitting(older.rows, older.size, 0, query.child_lists, db)
    return MessageList(messages=shown.messages, has_more=older.more or shown.end < len(older.rows))


class Fitting(NamedTuple):
    """The messages of the rows from `start` to `end`, which fit into one page."""

    messages: list[Message]
    start: int
    end: int


def _fitting(rows: list[Row], size: int, near: int, child_lists: bool, db: Reads) -> Fitting:
    """The messages of as many consecutive rows as fit into one page; the row at `near` is one of them.

    `size` is at least that of the long texts in the rows. Raises `TooLarge` if the reactions of a single message are
    too many.
    """
    start, end = 0, len(rows)
    if size > PAGE_CHARS_SURE:
        start, end = page_of([ROWS.json_size(row) for row in rows], near)
    while (messages := with_reactions(rows[start:end], child_lists, db)) is None:
        number = (end - start) // 2
        if not number:
            raise too_many_reactions(rows[near][ID_AT])
        start = min(max(start, near - number // 2), end - number)
        end = start + number
    return Fitting(messages, start, end)


def _position_of(message_id: str, timeline: Timeline, path: str, db: Reads) -> Position:
    """The position of a message in the timeline, also of a deleted one; raises `NotFound`."""
    now, row = find_row(SELECT_POSITION, 0, message_id, db)
    if row is None or row[0] != timeline.room_id or timeline.channel_id not in (None, row[1]):
        raise NotFound.at(path, f"there is no message {message_id!r} in this room or channel")
    return Position(row[2], now)


def _cursor(timeline: Timeline, message: Any) -> str:
    cursor = Cursor(timeline.room_id, timeline.channel_id, message.timestamp, message.id)
    return base64.urlsafe_b64encode(MSGPACK.encode(cursor)).decode().rstrip("=")


def _open(text: str, timeline: Timeline, path: str) -> Position:
    """The position of a cursor; raises `Invalid` if it belongs to another room or channel."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = MSGPACK.decode(packed, Cursor)
    except (ValueError, msgspec.MsgspecError):
        raise Invalid.at(path, "not a cursor; use one from an earlier page") from None
    if (cursor.room_id, cursor.channel_id) != (timeline.room_id, timeline.channel_id):
        raise Invalid.at(path, "the cursor belongs to another room or channel")
    return Position(cursor.timestamp, cursor.id)
