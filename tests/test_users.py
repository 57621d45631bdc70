"""handlers/users.py: profiles by oderId, unique public keys, and the one who uses the application."""

import pytest

from backscroll.clients import Client
from backscroll.schema import (
    Conflict,
    GetCurrentUser,
    GetUser,
    GetUsersByRoom,
    Invalid,
    NotFound,
    Room,
    RoomMember,
    SaveRoom,
    SaveUser,
    SetCurrentUserId,
    UpdateUser,
    User,
    UserUpdates,
)


def user(oder_id: str = "ada", **fields: object) -> User:
    defaults: dict[str, object] = {"id": f"id-{oder_id}", "username": oder_id}
    return User(oder_id=oder_id, **(defaults | fields))


def test_get_user_looks_for_the_oder_id_then_the_id(client: Client) -> None:
    """A name that is one user's oderId and another's id means the former."""
    client.execute(SaveUser(user("ada", id="shared")))
    client.execute(SaveUser(user("shared", id="other")))
    assert client.ask(GetUser("ada")) == user("ada", id="shared")
    assert client.ask(GetUser("shared")) == user("shared", id="other")
    assert client.ask(GetUser("other")) == user("shared", id="other")
    assert client.ask(GetUser("nobody")) is None


def test_a_taken_public_key_is_a_conflict(client: Client) -> None:
    """No two users have one public key, by save or by update; the refusal names the field and changes nothing."""
    client.execute(SaveUser(user("ada", pubkey="k")))
    client.execute(SaveUser(user("ada", pubkey="k", status="still her own key")))
    with pytest.raises(Conflict, match=r"^\$\.payload\.user\.pubkey: "):
        client.execute(SaveUser(user("bob", pubkey="k")))
    assert client.ask(GetUser("bob")) is None
    client.execute(SaveUser(user("bob")))
    with pytest.raises(Conflict, match=r"^\$\.payload\.updates\.pubkey: "):
        client.execute(UpdateUser("bob", UserUpdates(pubkey="k")))
    client.execute(UpdateUser("ada", UserUpdates(pubkey=None)))
    client.execute(UpdateUser("bob", UserUpdates(pubkey="k")))


def test_update_user_knows_three_states(client: Client) -> None:
    """Absent leaves a field, null clears it, a value sets it; the user may be named by id."""
    client.execute(SaveUser(user(display_name="Ada", status="here", is_admin=True)))
    client.execute(UpdateUser("id-ada", UserUpdates(display_name=None, status="away")))
    assert client.ask(GetUser("ada")) == user(status="away", is_admin=True)


def test_update_user_cannot_clear_what_is_required(client: Client) -> None:
    """`null` for a required field is invalid, and names the field."""
    client.execute(SaveUser(user()))
    with pytest.raises(Invalid, match=r"^\$\.payload\.updates\.username: "):
        client.execute(UpdateUser("ada", UserUpdates(username=None)))


def test_update_user_of_an_unknown_one_is_not_found(client: Client) -> None:
    """An update never makes a user."""
    with pytest.raises(NotFound):
        client.execute(UpdateUser("ada", UserUpdates(status="here")))


def test_current_user_is_null_until_set_and_stored(client: Client) -> None:
    """Unset, unknown, or unset again: there is no current user."""
    assert client.ask(GetCurrentUser()) is None
    client.execute(SetCurrentUserId("ada"))
    assert client.ask(GetCurrentUser()) is None
    client.execute(SaveUser(user()))
    assert client.ask(GetCurrentUser()) == user()
    client.execute(SetCurrentUserId(None))
    assert client.ask(GetCurrentUser()) is None


def test_users_by_room_are_its_members_stored_or_not(client: Client) -> None:
    """Members come by (joinedAt, oderId); one without a user row is built from what the member row knows."""
    members = [
        RoomMember(oder_id="zoe", joined_at=3, id="z", username="zoe", display_name="Zoë", role="host"),
        RoomMember(oder_id="ada", joined_at=3, username="ignored"),
        RoomMember(oder_id="bare"),
    ]
    client.execute(SaveUser(user("ada", status="here")))
    client.execute(SaveUser(user("stranger")))
    client.execute(SaveRoom(Room(id="r", name="Room", members=members)))
    assert client.ask(GetUsersByRoom("r")) == [
        User(oder_id="bare", id="bare", username="bare"),
        user("ada", status="here"),
        User(oder_id="zoe", id="z", username="zoe", display_name="Zoë", role="host", joined_at=3),
    ]
    assert client.ask(GetUsersByRoom("no room")) == []
