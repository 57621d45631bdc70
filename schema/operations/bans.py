"""Bans of users from rooms."""

from backscroll.schema.limits import Id, PageSize
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import BanPosition
from backscroll.schema.records import Ban


class SaveBan(Command[None], frozen=True):
    """Save a ban, or replace the user's existing ban from the room.

    Example: {"ban": {"roomId": "r1", "oderId": "eve", "timestamp": 1767225600000, "reason": "spam"}}
    """

    ban: Ban


class RemoveBan(Command[None], frozen=True):
    """Remove a user's ban from a room. Succeeds if there is none.

    Attributes:
        oder_id: The `oderId` of the banned user.

    Example: {"roomId": "r1", "oderId": "eve"}
    """

    ADDS = False
    room_id: Id
    oder_id: Id


class GetBansForRoom(Query[list[Ban]], frozen=True):
    """The bans of a room that are in force, ordered by (timestamp, oderId).

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"roomId": "r1"}
    """

    READS = ("ban",)

    room_id: Id
    limit: PageSize | None = None
    after: BanPosition | None = None


class IsUserBanned(Query[bool], frozen=True):
    """Whether a user is banned from a room now. `userId` is compared with the oderId and the userId of bans.

    Example: {"userId": "eve", "roomId": "r1"}
    """

    READS = ("ban",)

    user_id: Id
    room_id: Id
