"""Users: who is there, and which of them is me."""

from backscroll.schema.limits import Id, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import User, UserUpdates


class SaveUser(Command[None], frozen=True):
    """Save a user, or replace the one with the same oderId; `conflict` when another has the same pubkey.

    Example: {"user": {"oderId": "ada", "id": "u1", "username": "ada", "displayName": "Ada"}}
    """

    ERRORS = ("conflict",)

    user: User


class UpdateUser(Command[None], frozen=True):
    """Change some fields of the user with this oderId, or else this id; `not-found` for an unknown one.

    Example: {"userId": "ada", "updates": {"status": "away", "displayName": null}}
    """

    ERRORS = ("not-found", "conflict")

    user_id: Id
    updates: UserUpdates


class SetCurrentUserId(Command[None], frozen=True):
    """Say who is using the application; null says nobody. The user need not be stored.

    Example: {"userId": "ada"}
    """

    user_id: Id | None


class CreateUser(Command[User], frozen=True):
    """Make a user from a public key, with ids of the daemon's; `conflict` when the key is taken.

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

    pubkey: Text


class ListUsers(Query[list[User]], frozen=True):
    """All users by (createdAt, oderId).

    Example: {}
    """


class GetUser(Query[User | None], frozen=True):
    """The user with this oderId, or else with this id, or null.

    Example: {"userId": "ada"}
    """

    user_id: Id


class GetCurrentUser(Query[User | None], frozen=True):
    """The user named by set-current-user-id, or null when unset or not stored.

    Example: {}
    """


class GetUsersByRoom(Query[list[User]], frozen=True):
    """The members of a room as users, by (joinedAt, oderId); of one not stored, what the member row knows.

    Example: {"roomId": "r1"}
    """

    room_id: Id
