"""Conditions: which rows of `messages` are shown, which those of a cleared room are not (see `clearing.py`)."""

from peewee import SQL, fn

from backscroll.handlers.sql import Named
from backscroll.schema.tables import ClearedRooms, Messages

_UNTIL = ClearedRooms.select(ClearedRooms.until)

IS_SHOWN = Messages.written >= fn.COALESCE(_UNTIL.where(ClearedRooms.room_id == Messages.room_id), SQL("0"))
SHOWN_IN_ROOM = (Messages.room_id == Named("room_id")) & (
    Messages.written >= fn.COALESCE(_UNTIL.where(ClearedRooms.room_id == Named("room_id")), SQL("0"))
)
"""The messages of a room; the mark is looked up once, not for each row."""
NOT_SHOWN_IDS = Messages.select(Messages.id).join(
    ClearedRooms, on=(Messages.room_id == ClearedRooms.room_id) & (Messages.written < ClearedRooms.until)
)
