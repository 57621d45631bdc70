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

from backscroll.handlers.messages import ROWS, with_reactions
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, Statement, statement
from backscroll.handlers.storage import Reads
from backscroll.schema.errors import Invalid, NotFound
from backscroll.schema.limits import INTEGER_MAX, Millis
from backscroll.schema.operations import GetMessagePage, ListMessages
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


class Timeline(NamedTuple):
    """The messages of a room or of one of its channels in order, with or without deleted ones."""

    room_id: str
    channel_id: str | None
    include_deleted: bool

    def older(self, position: Position, limit: int, db: Reads, *, or_at: bool = False) -> list[Row]:
        """Rows before a position, nearest first; with `or_at` also the row at the position."""
        return self._rows(operator.le if or_at else operator.lt, position, limit, db)

    def newer(self, position: Position, limit: int, db: Reads, *, or_at: bool = False) -> list[Row]:
        """Rows after a position, nearest first; with `or_at` also the row at the position."""
        return self._rows(operator.ge if or_at else operator.gt, position, limit, db)

    def _rows(self, compare: Callable[[Any, Any], Any], position: Position, limit: int, db: Reads) -> list[Row]:
        select = SELECTS[compare, self.channel_id is not None, self.include_deleted]
        bound = {"room_id": self.room_id, "channel_id": self.channel_id, "limit": limit}
        return db.rows(select, **bound, timestamp=position.timestamp, id=position.id)


SELECT_POSITION = statement(
    Messages.select(Messages.room_id, Messages.channel_id, Messages.timestamp).where(Messages.id == Named("id"))
)


@handles(GetMessagePage, cached=Cached.UNTIL_ROOM_CHANGES)
def get_message_page(query: GetMessagePage, db: Reads) -> MessagePage:
    if sum(each is not None for each in (query.before, query.after, query.around)) > 1:
        raise Invalid.at("$.payload", "only one of before, after and around may be given")
    timeline = Timeline(query.room_id, query.channel_id, query.include_deleted)
    limit = query.limit
    if query.around is not None:
        position = _position_of(query.around, timeline, "$.payload.around", db)
        older, newer = timeline.older(position, limit + 1, db), timeline.newer(position, limit + 1, db, or_at=True)
        half = min(len(older), limit // 2)
        show_newer = min(len(newer), limit - half)
        show_older = min(len(older), limit - show_newer)
    elif query.after is not None:
        position = _open(query.after, timeline, "$.payload.after")
        older, newer = timeline.older(position, 1, db, or_at=True), timeline.newer(position, limit + 1, db)
        show_older, show_newer = 0, min(len(newer), limit)
    else:
        position = END if query.before is None else _open(query.before, timeline, "$.payload.before")
        older, newer = timeline.older(position, limit + 1, db), timeline.newer(position, 1, db, or_at=True)
        show_older, show_newer = min(len(older), limit), 0
    messages = with_reactions([*reversed(older[:show_older]), *newer[:show_newer]], db)
    return MessagePage(
        messages=messages,
        has_older=len(older) > show_older,
        has_newer=len(newer) > show_newer,
        older_cursor=_cursor(timeline, messages[0]) if messages else None,
        newer_cursor=_cursor(timeline, messages[-1]) if messages else None,
    )


@handles(ListMessages, cached=Cached.UNTIL_ROOM_CHANGES)
def list_messages(query: ListMessages, db: Reads) -> MessageList:
    timeline = Timeline(query.room_id, query.channel_id, include_deleted=False)
    position = END if query.before is None else _position_of(query.before, timeline, "$.payload.before", db)
    rows = timeline.older(position, query.limit + 1, db)
    return MessageList(messages=with_reactions(rows[: query.limit], db), has_more=len(rows) > query.limit)


def _position_of(message_id: str, timeline: Timeline, path: str, db: Reads) -> Position:
    """The position of a message in the timeline, also of a deleted one; raises `NotFound`."""
    row = db.row(SELECT_POSITION, id=message_id)
    if row is None or row[0] != timeline.room_id or timeline.channel_id not in (None, row[1]):
        raise NotFound.at(path, f"there is no message {message_id!r} in this room or channel")
    return Position(row[2], message_id)


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
