"""The ids of messages: hidden rows, and the former ids of renamed messages.

A row of `messages` in the room `HIDDEN` is not a message that anybody sees: no caller can name this room. It occupies
the id, so that the INSERT of a late copy finds it without another statement. It is one of

    a tombstone     `is_deleted`; `channel_id` is the room that it was in, NULL if that was never known
    a waiting edit  with a row in `waiting_edits`; a tombstone may have one too, for its place
    a former id     with a row in `message_aliases`
"""

from typing import Any, NamedTuple

from peewee import Node, fn

from backscroll.handlers.sql import Named, Row, Statement, statement
from backscroll.handlers.storage import Reads
from backscroll.schema.tables import MessageAliases, Messages

HIDDEN = ""

SELECT_TARGET = statement(
    MessageAliases.select(MessageAliases.target_id).where(MessageAliases.message_id == Named("message_id"))
)
SELECT_MESSAGE = statement(
    Messages.select(Messages.room_id, Messages.is_deleted).where(Messages.id == Named("message_id"))
)


class Found(NamedTuple):
    """A message that a command names: its id now, its room, None if it is not stored, and whether it was deleted."""

    id: str
    room_id: str | None
    is_deleted: bool


def resolved(message_id: Node) -> Any:
    """The SQL expression of the id that a message has now; the same id where it was not renamed, or is NULL."""
    target = MessageAliases.select(MessageAliases.target_id).where(MessageAliases.message_id == message_id)
    return fn.COALESCE(target, message_id)


def resolve(message_id: str, db: Reads) -> str:
    """The id that a message has now."""
    row = db.row(SELECT_TARGET, message_id=message_id)
    return message_id if row is None else str(row[0])


def find_row(select: Statement, room_at: int, message_id: str, db: Reads) -> tuple[str, Row | None]:
    """The id that a message has now, and its row, which may be hidden. `room_at` is the position of its room."""
    row = db.row(select, message_id=message_id)
    if row is None or row[room_at] != HIDDEN:
        return message_id, row
    target = resolve(message_id, db)
    return target, row if target == message_id else db.row(select, message_id=target)


def message_of(message_id: str, db: Reads) -> Found:
    """What is known about a message, by whichever of its ids. If it was deleted, nothing is added to it."""
    now, row = find_row(SELECT_MESSAGE, 0, message_id, db)
    return Found(now, None, is_deleted=False) if row is None else Found(now, row[0] or None, bool(row[1]))
