"""Rooms, with their channels, categories and members."""

from typing import Self

from msgspec.structs import replace

from backscroll.schema.limits import Id, PageSize
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import RoomPosition
from backscroll.schema.records import Room, RoomUpdates, without_secrets


class SaveRoom(Command[None], frozen=True):
    """Save a room, or replace the one with the same id. Each list in the payload replaces the stored list.

    Example: {"room": {"id": "r1", "name": "Home", "channels": [{"id": "general", "name": "general",
        "type": "text", "position": 0}], "members": [{"oderId": "ada", "joinedAt": 1767225600000}]}}
    """

    room: Room

    def as_logged(self) -> Self:
        return replace(self, room=without_secrets(self.room))


class UpdateRoom(Command[None], frozen=True):
    """Change some fields of a room; each list replaces the stored list. `not-found` if it does not exist.

    Example: {"roomId": "r1", "updates": {"topic": null, "maxUsers": 50}}
    """

    ERRORS = ("not-found",)

    room_id: Id
    updates: RoomUpdates

    def as_logged(self) -> Self:
        return replace(self, updates=without_secrets(self.updates))


class DeleteRoom(Command[None], frozen=True):
    """Delete a room with its channels, categories, members, messages and bans. Succeeds if it does not exist.

    Example: {"roomId": "r1"}
    """

    ADDS = False
    room_id: Id


class GetRoom(Query[Room | None], frozen=True):
    """The room with this id, or null. With `childLists: false` without its channels, categories and members.

    Example: {"roomId": "r1"}
    """

    READS = ("room", "member")

    room_id: Id
    child_lists: bool = True


class GetAllRooms(Query[list[Room]], frozen=True):
    """All rooms, ordered by (createdAt, id). With `childLists: false` without channels, categories and members.

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"childLists": false, "limit": 100}
    """

    READS = ("room", "member")

    child_lists: bool = True
    limit: PageSize | None = None
    after: RoomPosition | None = None
