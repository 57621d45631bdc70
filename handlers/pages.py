"""Pages of messages by cursor: what people scroll through.

A cursor is a place in the total order of a room or of one of its channels, (timestamp, id), and no row: it stays valid
whatever is saved, edited or deleted, the message it was made of included. Callers get it as opaque text.
"""

import base64
import operator
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
from peewee import SQL, Ordering, Tuple

from backscroll.handlers.messages import ROWS, with_reactions
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Database, Row
from backscroll.schema.errors import Invalid, NotFound
from backscroll.schema.limits import INTEGER_MAX, Millis
from backscroll.schema.operations import GetMessagePage, ListMessages
from backscroll.schema.replies import MessageList, MessagePage
from backscroll.schema.tables import Messages
from backscroll.schema.wire import MSGPACK


class Place(NamedTuple):
    """Where in the order a message stands, or stood."""

    timestamp: int
    id: str


END = Place(INTEGER_MAX + 1, "")


class Cursor(NamedTuple):
    """A place together with the list that it is a place of."""

    room_id: str
    channel_id: str | None
    timestamp: Millis
    id: str


class Timeline(NamedTuple):
    """Which messages are paged through: a room's or a channel's, with deleted ones or without."""

    room_id: str
    channel_id: str | None
    include_deleted: bool

    def older(self, place: Place, limit: int, db: Database, *, or_at: bool = False) -> list[Row]:
        """RowMapper before a place, or at it, nearest first."""
        return self._rows(operator.le if or_at else operator.lt, place, limit, db)

    def newer(self, place: Place, limit: int, db: Database, *, or_at: bool = False) -> list[Row]:
        """RowMapper after a place, or at it, nearest first."""
        return self._rows(operator.ge if or_at else operator.gt, place, limit, db)

    def _rows(self, compare: Callable[[Any, Any], Any], place: Place, limit: int, db: Database) -> list[Row]:
        sql = _select(compare, self.channel_id is not None, self.include_deleted)
        bound = {"room_id": self.room_id, "channel_id": self.channel_id, "limit": limit}
        return db.rows(sql, **bound, timestamp=place.timestamp, id=place.id)


SELECT_PLACE = statement(
    Messages.select(Messages.room_id, Messages.channel_id, Messages.timestamp).where(Messages.id == Named("id"))
)


def get_message_page(query: GetMessagePage, db: Database) -> MessagePage:
    if sum(each is not None for each in (query.before, query.after, query.around)) > 1:
        raise Invalid.at("$.payload", "only one of before, after and around can be given")
    stretch = Timeline(query.room_id, query.channel_id, query.include_deleted)
    limit = query.limit
    if query.around is not None:
        place = _place_of(query.around, stretch, "$.payload.around", db)
        older, newer = stretch.older(place, limit + 1, db), stretch.newer(place, limit + 1, db, or_at=True)
        half = min(len(older), limit // 2)
        show_newer = min(len(newer), limit - half)
        show_older = min(len(older), limit - show_newer)
    elif query.after is not None:
        place = _open(query.after, stretch, "$.payload.after")
        older, newer = stretch.older(place, 1, db, or_at=True), stretch.newer(place, limit + 1, db)
        show_older, show_newer = 0, min(len(newer), limit)
    else:
        place = END if query.before is None else _open(query.before, stretch, "$.payload.before")
        older, newer = stretch.older(place, limit + 1, db), stretch.newer(place, 1, db, or_at=True)
        show_older, show_newer = min(len(older), limit), 0
    messages = with_reactions([*reversed(older[:show_older]), *newer[:show_newer]], db)
    return MessagePage(
        messages=messages,
        has_older=len(older) > show_older,
        has_newer=len(newer) > show_newer,
        older_cursor=_cursor(stretch, messages[0]) if messages else None,
        newer_cursor=_cursor(stretch, messages[-1]) if messages else None,
    )


def list_messages(query: ListMessages, db: Database) -> MessageList:
    stretch = Timeline(query.room_id, query.channel_id, include_deleted=False)
    place = END if query.before is None else _place_of(query.before, stretch, "$.payload.before", db)
    rows = stretch.older(place, query.limit + 1, db)
    return MessageList(messages=with_reactions(rows[: query.limit], db), has_more=len(rows) > query.limit)


@cache
def _select(compare: Callable[[Any, Any], Any], of_channel: bool, include_deleted: bool) -> str:
    """Messages of a room or channel on one side of a place, nearest first: the same order for every page."""
    where = Messages.room_id == Named("room_id")
    if of_channel:
        where &= Messages.channel_id == Named("channel_id")
    if not include_deleted:
        where &= Messages.is_deleted == SQL("0")
    where &= compare(Tuple(Messages.timestamp, Messages.id), Tuple(Named("timestamp"), Named("id")))
    direction = "DESC" if compare in (operator.lt, operator.le) else "ASC"
    order = [Ordering(column, direction) for column in (Messages.timestamp, Messages.id)]
    return statement(Messages.select(*ROWS.columns).where(where).order_by(*order).limit(Named("limit")))


def _place_of(message_id: str, stretch: Timeline, path: str, db: Database) -> Place:
    """Where a message of the stretch stands; a deleted one still has its place."""
    row = db.row(SELECT_PLACE, id=message_id)
    if row is None or row[0] != stretch.room_id or stretch.channel_id not in (None, row[1]):
        raise NotFound.at(path, f"there is no message {message_id!r} here")
    return Place(row[2], message_id)


def _cursor(stretch: Timeline, message: Any) -> str:
    cursor = Cursor(stretch.room_id, stretch.channel_id, message.timestamp, message.id)
    return base64.urlsafe_b64encode(MSGPACK.encode(cursor)).decode().rstrip("=")


def _open(text: str, stretch: Timeline, path: str) -> Place:
    """The place that a cursor stands for; it must have been made for the same room and channel."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = MSGPACK.decode(packed, Cursor)
    except (ValueError, msgspec.MsgspecError):
        raise Invalid.at(path, "no cursor that a page gave") from None
    if (cursor.room_id, cursor.channel_id) != (stretch.room_id, stretch.channel_id):
        raise Invalid.at(path, "a cursor of another room or channel")
    return Place(cursor.timestamp, cursor.id)
