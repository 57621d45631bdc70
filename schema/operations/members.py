"""The members of a room, one at a time; `save-room` writes a room's whole list.

What one member costs does not depend on how many the room has.
"""

from backscroll.schema.limits import Id, PageSize
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import MemberPosition
from backscroll.schema.records import RoomMember


class SaveMember(Command[None], frozen=True):
    """Save a member of a room, or replace the one with the same oderId. `not-found` if the room does not exist.

    Example: {"roomId": "r1", "member": {"oderId": "ada", "displayName": "Ada", "joinedAt": 1767225600000}}
    """

    ERRORS = ("not-found",)

    room_id: Id
    member: RoomMember


class RemoveMember(Command[None], frozen=True):
    """Remove a member from a room, and the text about it from the command log. Succeeds if there is none.

    Example: {"roomId": "r1", "oderId": "ada"}
    """

    ADDS = False
    room_id: Id
    oder_id: Id


class GetMember(Query[RoomMember | None], frozen=True):
    """The member of a room with this oderId, or null.

    Example: {"roomId": "r1", "oderId": "ada"}
    """

    READS = ("member",)

    room_id: Id
    oder_id: Id


class GetMembers(Query[list[RoomMember]], frozen=True):
    """The members of a room, ordered by (joinedAt, oderId).

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"roomId": "r1", "limit": 100}
    """

    READS = ("member",)

    room_id: Id
    limit: PageSize | None = None
    after: MemberPosition | None = None
