"""Bans: who may not enter which room, and until when."""

from backscroll.schema.limits import Id
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Ban


class SaveBan(Command[None], frozen=True):
    """Save a ban, or replace the same person's ban from the same room.

    Example: {"ban": {"roomId": "r1", "oderId": "eve", "timestamp": 1767225600000, "reason": "spam"}}
    """

    ban: Ban


class RemoveBan(Command[None], frozen=True):
    """Lift a ban, if there is one.

    Example: {"roomId": "r1", "oderId": "eve"}
    """

    room_id: Id
    oder_id: Id


class GetBansForRoom(Query[list[Ban]], frozen=True):
    """The bans of a room that are in force now, by (timestamp, oderId).

    Example: {"roomId": "r1"}
    """

    room_id: Id


class IsUserBanned(Query[bool], frozen=True):
    """Whether a ban of the room is in force now for this oderId or userId.

    Example: {"userId": "eve", "roomId": "r1"}
    """

    user_id: Id
    room_id: Id
