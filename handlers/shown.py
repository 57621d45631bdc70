"""Conditions: which rows of `messages` are shown, which those of a cleared room are not (see `clearing.py`)."""

from peewee import JOIN, SQL, Expression, Node

from backscroll.handlers.sql import Named
from backscroll.schema.tables import ClearedRooms, Messages


def _is_later_than_mark(room_id: Node) -> Expression:
    """The message was written after its room, this one, was cleared last. Where there is no mark, that is all."""
    until = ClearedRooms.select(ClearedRooms.until).where(ClearedRooms.room_id == room_id)
    condition: Expression = Expression(until, "IS", SQL("NULL")) | (Messages.written >= until)
    return condition


IS_SHOWN = _is_later_than_mark(Messages.room_id)
SHOWN_IN_ROOM = (Messages.room_id == Named("room_id")) & _is_later_than_mark(Named("room_id"))
"""The messages of a room; the mark is looked up once, not for each row."""
NOT_SHOWN_IDS = (
    ClearedRooms.select(Messages.id)
    .join(Messages, JOIN.CROSS)  # in this order: there are few cleared rooms, mostly none
    .where((Messages.room_id == ClearedRooms.room_id) & (Messages.written < ClearedRooms.until))
)
