"""Rooms, with the channels, categories and members that belong to each."""

from backscroll.schema.limits import Id
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Room, RoomUpdates


class SaveRoom(Command[None], frozen=True):
    """Save a room, or replace the one with the same id. A list that is there replaces the stored list.

    Example: {"room": {"id": "r1", "name": "Home", "channels": [{"id": "general", "name": "general",
        "type": "text", "position": 0}], "members": [{"oderId": "ada", "joinedAt": 1767225600000}]}}
    """

    room: Room


class UpdateRoom(Command[None], frozen=True):
    """Change some fields of a room; `not-found` for an unknown one. A list replaces the stored list.

    Example: {"roomId": "r1", "updates": {"topic": null, "maxUsers": 50}}
    """

    ERRORS = ("not-found",)

    room_id: Id
    updates: RoomUpdates


class DeleteRoom(Command[None], frozen=True):
    """Remove a room and all that is in it: channels, categories, members, messages, bans. Unknown is fine.

    Example: {"roomId": "r1"}
    """

    room_id: Id


class GetRoom(Query[Room | None], frozen=True):
    """One room, or null.

    Example: {"roomId": "r1"}
    """

    room_id: Id


class GetAllRooms(Query[list[Room]], frozen=True):
    """All rooms by (createdAt, id).

    Example: {}
    """
