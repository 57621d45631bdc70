"""Users, and which of them is the current user of the application."""

from backscroll.schema.limits import Id, PageSize, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import RoomUserPosition, UserPosition
from backscroll.schema.records import User, UserUpdates


class SaveUser(Command[None], frozen=True):
    """Save a user, or replace the one with the same oderId. `conflict` if another user has the same pubkey.

    Example: {"user": {"oderId": "ada", "id": "u1", "username": "ada", "createdAt": 1767225600000}}
    """

    ERRORS = ("conflict",)

    user: User


class UpdateUser(Command[None], frozen=True):
    """Change some fields of the user with this oderId, or else this id. `not-found` if there is none.

    Attributes:
        user_id: The `oderId`, or else the `id`, of the user.

    Example: {"userId": "ada", "updates": {"status": "away", "displayName": null}}
    """

    ERRORS = ("not-found", "conflict")

    user_id: Id
    updates: UserUpdates


class SetCurrentUserId(Command[None], frozen=True):
    """Set the current user of the application; null unsets it. The user need not be stored.

    Attributes:
        user_id: The `oderId` or the `id` of the user.

    Example: {"userId": "ada"}
    """

    user_id: Id | None


class CreateUser(Command[User], frozen=True):
    """Create a user from a public key; the daemon generates the ids. `conflict` if the key is taken.

    Attributes:
        pubkey: The public key, in the application's own form.
        display_name: It becomes the `username` too, which is the generated id without it.

    Example: {"pubkey": "ed25519:8f3a", "displayName": "Ada"}
    """

    REPLACED_BY = "save-user"

    ERRORS = ("conflict",)

    pubkey: Text
    display_name: Text | None = None


class GetUserByPubkey(Query[User | None], frozen=True):
    """The user with this public key, or null.

    Example: {"pubkey": "ed25519:8f3a"}
    """

    READS = ("user",)

    pubkey: Text


class ListUsers(Query[list[User]], frozen=True):
    """All users, ordered by (createdAt, oderId).

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"limit": 100, "after": {"createdAt": 1767225600000, "oderId": "abe"}}
    """

    READS = ("user",)

    limit: PageSize | None = None
    after: UserPosition | None = None


class GetUser(Query[User | None], frozen=True):
    """The user with this oderId, or else this id; null if there is none.

    Attributes:
        user_id: The `oderId`, or else the `id`, of the user.

    Example: {"userId": "ada"}
    """

    READS = ("user",)

    user_id: Id


class GetCurrentUser(Query[User | None], frozen=True):
    """The user set by `set-current-user-id`; null if none is set or the user is not stored.

    Example: {}
    """

    READS = ("current-user", "user")


class GetUsersByRoom(Query[list[User]], frozen=True):
    """The members of a room as users, ordered by oderId; unstored users get the fields of the member.

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"roomId": "r1"}
    """

    READS = ("member", "user")

    room_id: Id
    limit: PageSize | None = None
    after: RoomUserPosition | None = None
