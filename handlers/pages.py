"""Pages of messages by cursor.

A cursor is a position in the order (timestamp, ordinal, id) of a room or of a part of it, not a row. So it stays valid
when messages are saved, edited or deleted, even the one it was made from. To callers it is opaque text.
"""

import base64
import operator
from collections.abc import Callable
from itertools import product
from typing import Any, Final, NamedTuple

import msgspec
from peewee import SQL, Expression, Ordering, Tuple

from backscroll.handlers.aliases import find_row, resolve
from backscroll.handlers.lists import PAGE_CHARS_SURE, page_of
from backscroll.handlers.message_rows import ID_AT, ORDER, ROWS
from backscroll.handlers.messages import too_many_children, with_lists
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.shown import IS_SHOWN, SHOWN_IN_ROOM
from backscroll.handlers.sql import InDialect, Named, Row, Statement, statement, unindexed
from backscroll.handlers.storage import Reads
from backscroll.schema.errors import Invalid, NotFound
from backscroll.schema.limits import INTEGER_MAX, PAGE_BYTES_MAX, Integer, Millis
from backscroll.schema.operations import GetMessagePage, ListMessages
from backscroll.schema.records import Message
from backscroll.schema.replies import MessageList, MessagePage
from backscroll.schema.tables import Messages
from backscroll.schema.wire import MSGPACK


class Position(NamedTuple):
    """A position in the order of messages; there need not be a message."""

    timestamp: int
    ordinal: int
    id: str


END = Position(INTEGER_MAX + 1, 0, "")
BEFORE_ALL: Final = -INTEGER_MAX - 1
"""An ordinal before those of all messages with a timestamp."""


class Cursor(NamedTuple):
    """A position, and the part of a room that it belongs to."""

    room_id: str
    channel_id: str | None
    thread_id: str | None
    pinned: bool
    timestamp: Millis
    ordinal: Integer
    id: str


IS_PINNED = Messages.pinned_at.is_null(False)
# An equation with the expression of the index, or SQLite prefers another index.
PINNED = SHOWN_IN_ROOM & IS_PINNED & InDialect(Expression(IS_PINNED, "=", SQL("1")), IS_PINNED)
PARTS: dict[str, Any] = {
    "room": SHOWN_IN_ROOM,
    "channel": SHOWN_IN_ROOM & (Messages.channel_id == Named("channel_id")),
    "thread": SHOWN_IN_ROOM & (Messages.thread_id == Named("thread_id")),
    "pinned": PINNED,
    "pinned of channel": PINNED & (unindexed(Messages.channel_id) == Named("channel_id")),
}
"""The parts of a room that pages can be of."""


def _select(compare: Callable[[Any, Any], Any], part: str, include_deleted: bool) -> Statement:
    """Select the messages of a part of a room on one side of a position, nearest first."""
    where = PARTS[part]
    if not include_deleted:
        where &= Messages.is_deleted == SQL("0")
    where &= compare(Tuple(*ORDER), Tuple(Named("timestamp"), Named("ordinal"), Named("id")))
    direction = "DESC" if compare in (operator.lt, operator.le) else "ASC"
    order = [Ordering(column, direction) for column in ORDER]
    return statement(Messages.select(*ROWS.columns).where(where).order_by(*order).limit(Named("limit")))


COMPARISONS: tuple[Callable[[Any, Any], Any], ...] = (operator.lt, operator.le, operator.gt, operator.ge)
SELECTS = {key: _select(*key) for key in product(COMPARISONS, PARTS, (False, True))}
"""The statements by (comparison, part of the room, including deleted messages)."""


class Side(NamedTuple):
    """Rows on one side of a position, nearest first, their size, and whether there are more beyond them."""

    rows: list[Row]
    size: int
    more: bool


class Timeline(NamedTuple):
    """The messages of a room or of a part of it (one of `PARTS`) in order, with or without deleted ones."""

    part: str
    include_deleted: bool
    room_id: str
    channel_id: str | None = None
    thread_id: str | None = None
    pinned: bool = False

    def older(self, position: Position, limit: int, db: Reads, *, or_at: bool = False) -> Side:
        """At most `limit` rows before a position, fewer if they are large; with `or_at` also the row at it."""
        return self._side(operator.le if or_at else operator.lt, position, limit, db)

    def newer(self, position: Position, limit: int, db: Reads, *, or_at: bool = False) -> Side:
        """At most `limit` rows after a position, fewer if they are large; with `or_at` also the row at it."""
        return self._side(operator.ge if or_at else operator.gt, position, limit, db)

    def _side(self, compare: Callable[[Any, Any], Any], position: Position, limit: int, db: Reads) -> Side:
        timestamp, ordinal, message_id = position
        found = db.rows_within(
            PAGE_BYTES_MAX,
            ROWS.take_by_long_size,
            SELECTS[compare, self.part, self.include_deleted],
            room_id=self.room_id,
            channel_id=self.channel_id,
            thread_id=self.thread_id,
            timestamp=timestamp,
            ordinal=ordinal,
            id=message_id,
            limit=limit + 1,
        )
        return Side(found.rows[:limit], found.size, not found.complete or len(found.rows) > limit)


ROOM_AT = len(ORDER)
SELECT_POSITION = statement(
    Messages.select(*ORDER, Messages.room_id, Messages.channel_id, Messages.thread_id, Messages.pinned_at).where(
        (Messages.id == Named("message_id")) & IS_SHOWN
    )
)


@handles(GetMessagePage, cached=Cached.UNTIL_ROOM_CHANGES)
def get_message_page(query: GetMessagePage, db: Reads) -> MessagePage:
    if (query.before, query.after, query.around, query.around_time).count(None) < 3:  # two are given
        raise Invalid.at("$.payload", "only one of before, after, around and aroundTime may be given")
    timeline = _timeline(query, db)
    limit = query.limit
    middle: Position | None = None
    if query.around is not None:
        middle = _position_of(query.around, timeline, "$.payload.around", db)
    elif query.around_time is not None:
        middle = Position(query.around_time, BEFORE_ALL, "")
    if middle is not None:
        older, newer = timeline.older(middle, limit, db), timeline.newer(middle, limit, db, or_at=True)
        half = min(len(older.rows), limit // 2)
        show_newer = min(len(newer.rows), limit - half)
        near = show_older = min(len(older.rows), limit - show_newer)
    elif query.after is not None:
        position = _open(query.after, timeline, "$.payload.after", db)
        older, newer = timeline.older(position, 0, db, or_at=True), timeline.newer(position, limit, db)
        near = show_older = 0
        show_newer = len(newer.rows)
    else:
        position = END if query.before is None else _open(query.before, timeline, "$.payload.before", db)
        older, newer = timeline.older(position, limit, db), timeline.newer(position, 0, db, or_at=True)
        near = show_older = len(older.rows)
        show_newer = 0
    rows = [*reversed(older.rows[:show_older]), *newer.rows[:show_newer]]
    shown = _fitting(rows, older.size + newer.size, min(near, len(rows) - 1), query.child_lists, query.attachments, db)
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
    timeline = Timeline("channel", False, query.room_id, query.channel_id)
    position = END if query.before is None else _position_of(query.before, timeline, "$.payload.before", db)
    older = timeline.older(position, query.limit, db)
    shown = _fitting(older.rows, older.size, 0, query.child_lists, False, db)
    return MessageList(messages=shown.messages, has_more=older.more or shown.end < len(older.rows))


def _timeline(query: GetMessagePage, db: Reads) -> Timeline:
    """What the page is of; raises `Invalid` for parts of a room that cannot be combined."""
    room_id, channel_id, thread_id = query.room_id, query.channel_id, query.thread_id
    if thread_id is not None:
        if channel_id is not None or query.pinned:
            raise Invalid.at("$.payload.threadId", "a page of a thread may have neither channelId nor pinned")
        return Timeline("thread", query.include_deleted, room_id, thread_id=resolve(thread_id, db))
    if query.pinned:  # deleted messages are not pinned
        return Timeline("pinned of channel" if channel_id else "pinned", True, room_id, channel_id, pinned=True)
    return Timeline("channel" if channel_id else "room", query.include_deleted, room_id, channel_id)


class Fitting(NamedTuple):
    """The messages of the rows from `start` to `end`, which fit into one page."""

    messages: list[Message]
    start: int
    end: int


def _fitting(rows: list[Row], size: int, near: int, child_lists: bool, attached: bool, db: Reads) -> Fitting:
    """The messages of as many consecutive rows as fit into one page; the row at `near` is one of them.

    `size` is at least that of the long texts in the rows. Raises `TooLarge` if the reactions and attachments of a
    single message are too many.
    """
    start, end = 0, len(rows)
    if size > PAGE_CHARS_SURE:
        start, end = page_of([ROWS.json_size(row) for row in rows], near)
    while (messages := with_lists(rows[start:end], child_lists, attached, db)) is None:
        number = (end - start) // 2
        if not number:
            raise too_many_children(rows[near][ID_AT])
        start = min(max(start, near - number // 2), end - number)
        end = start + number
    return Fitting(messages, start, end)


def _position_of(message_id: str, timeline: Timeline, path: str, db: Reads) -> Position:
    """The position of a message in the timeline, also of a deleted one; raises `NotFound`."""
    _, row = find_row(SELECT_POSITION, ROOM_AT, message_id, db)
    if row is not None:
        *position, room_id, channel_id, thread_id, pinned_at = row
        in_part = timeline.channel_id in (None, channel_id) and timeline.thread_id in (None, thread_id)
        if room_id == timeline.room_id and in_part and (pinned_at is not None or not timeline.pinned):
            return Position(*position)
    part = "room" if timeline.part == "room" else f"room or {timeline.part}"
    raise NotFound.at(path, f"there is no message {message_id!r} in this {part}")


def _cursor(timeline: Timeline, message: Any) -> str:
    place = (timeline.room_id, timeline.channel_id, timeline.thread_id, timeline.pinned)
    cursor = (*place, message.timestamp, message.ordinal, message.id)
    return base64.urlsafe_b64encode(MSGPACK.encode(cursor)).decode().rstrip("=")


def _open(text: str, timeline: Timeline, path: str, db: Reads) -> Position:
    """The position of a cursor; raises `Invalid` if it belongs to another room or part of it."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = MSGPACK.decode(packed, Cursor)
    except (ValueError, msgspec.MsgspecError):
        raise Invalid.at(path, "not a cursor; use one from an earlier page") from None
    thread_id = cursor.thread_id and resolve(cursor.thread_id, db)  # it may have been renamed since
    place = (cursor.room_id, cursor.channel_id, thread_id, cursor.pinned)
    if place != (timeline.room_id, timeline.channel_id, timeline.thread_id, timeline.pinned):
        raise Invalid.at(path, "the cursor belongs to another room, channel or thread")
    return Position(cursor.timestamp, cursor.ordinal, cursor.id)
