"""handlers/users.py: users by oderId, unique public keys, and the current user."""

import random
from typing import Any

import pytest

from backscroll.clients.python import Client
from backscroll.schema import (
    Conflict,
    CreateUser,
    GetCurrentUser,
    GetUser,
    GetUserByPubkey,
    GetUsersByRoom,
    Invalid,
    ListUsers,
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
from tests.support.clocks import Clock


def user(oder_id: str = "ada", **fields: Any) -> User:
    defaults: dict[str, Any] = {"id": f"id-{oder_id}", "username": oder_id}
    return User(oder_id=oder_id, **(defaults | fields))


def test_get_user_looks_up_the_oder_id_before_the_id(client: Client) -> None:
    """A name that is the oderId of one user and the id of another finds the former."""
    client.execute(SaveUser(user("ada", id="shared")))
    client.execute(SaveUser(user("shared", id="other")))
    assert client.ask(GetUser("ada")) == user("ada", id="shared")
    assert client.ask(GetUser("shared")) == user("shared", id="other")
    assert client.ask(GetUser("other")) == user("shared", id="other")
    assert client.ask(GetUser("nobody")) is None


def test_a_taken_public_key_is_a_conflict(client: Client) -> None:
    """No two users have the same public key, by save or update; the error names the field and nothing is stored."""
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


def test_a_public_key_may_be_long(client: Client) -> None:
    """It is found, and belongs to one user, however long it is."""
    draw = random.Random(20261127)  # so that it cannot be compressed
    key = "".join(chr(draw.randrange(0x21, 0x2FFF)) for _ in range(50_000))
    client.execute(SaveUser(user("ada", pubkey=key)))
    found = client.ask(GetUserByPubkey(key))
    assert found is not None
    assert found.oder_id == "ada"
    assert client.ask(GetUserByPubkey(key[:-1])) is None
    with pytest.raises(Conflict, match=r"^\$\.payload\.user\.pubkey: "):
        client.execute(SaveUser(user("bob", pubkey=key)))


def test_update_user_keeps_clears_or_sets_each_field(client: Client) -> None:
    """An absent field is kept, null clears it, a value sets it; the user may be named by id."""
    client.execute(SaveUser(user(display_name="Ada", status="here", is_admin=True)))
    client.execute(UpdateUser("id-ada", UserUpdates(display_name=None, status="away")))
    assert client.ask(GetUser("ada")) == user(status="away", is_admin=True)


def test_update_user_cannot_clear_required_fields(client: Client) -> None:
    """Null for a required field is invalid, and the error names the field."""
    client.execute(SaveUser(user()))
    with pytest.raises(Invalid, match=r"^\$\.payload\.updates\.username: "):
        client.execute(UpdateUser("ada", UserUpdates(username=None)))  # type: ignore[arg-type]  # the null that is to be refused


def test_updating_an_unknown_user_is_not_found(client: Client) -> None:
    """An update never creates a user."""
    with pytest.raises(NotFound):
        client.execute(UpdateUser("ada", UserUpdates(status="here")))


def test_current_user_is_null_until_set_and_stored(client: Client) -> None:
    """Unset, set to an unknown user, or unset again: there is no current user."""
    assert client.ask(GetCurrentUser()) is None
    client.execute(SetCurrentUserId("ada"))
    assert client.ask(GetCurrentUser()) is None
    client.execute(SaveUser(user()))
    assert client.ask(GetCurrentUser()) == user()
    client.execute(SetCurrentUserId(None))
    assert client.ask(GetCurrentUser()) is None


def test_users_by_room_are_all_members_stored_or_not(client: Client) -> None:
    """Members are ordered by oderId; one without a user row is made of the member row."""
    members = [
        RoomMember(oder_id="zoe", joined_at=3, id="z", username="zoe", display_name="Zoë", role="host"),
        RoomMember(oder_id="ada", joined_at=3, username="ignored"),
        RoomMember(oder_id="bare"),
    ]
    client.execute(SaveUser(user("ada", status="here")))
    client.execute(SaveUser(user("stranger")))
    client.execute(SaveRoom(Room(id="r", name="Room", members=members)))
    assert client.ask(GetUsersByRoom("r")) == [
        user("ada", status="here"),
        User(oder_id="bare", id="bare", username="bare"),
        User(oder_id="zoe", id="z", username="zoe", display_name="Zoë", role="host", joined_at=3),
    ]
    assert client.ask(GetUsersByRoom("no room")) == []


def test_create_user_needs_only_a_public_key(client: Client, clock: Clock) -> None:
    """One id made by the daemon is oderId and id; the display name, if given, is the username too."""
    ada = client.execute(CreateUser("key a", display_name="Ada"))
    times = {"created_at": clock.now, "updated_at": clock.now}
    assert ada == user(ada.id, id=ada.id, username="Ada", display_name="Ada", pubkey="key a", **times)
    bob = client.execute(CreateUser("key b"))
    assert bob == user(bob.id, id=bob.id, username=bob.id, pubkey="key b", **times)
    for each in (ada, bob):
        assert each.pubkey
        assert client.ask(GetUser(each.oder_id)) == client.ask(GetUserByPubkey(each.pubkey)) == each


def test_create_user_with_a_taken_public_key_is_a_conflict(client: Client) -> None:
    """Whether its owner was created or saved; keys are compared exactly, and a freed key can be taken."""
    client.execute(SaveUser(user("ada", pubkey="key")))
    with pytest.raises(Conflict) as refused:
        client.execute(CreateUser("key"))
    assert refused.value.details == {"path": "$.payload.pubkey"}
    assert client.ask(ListUsers()) == [user("ada", pubkey="key")]
    client.execute(CreateUser("Key"))
    client.execute(UpdateUser("ada", UserUpdates(pubkey=None)))
    bob = client.execute(CreateUser("key"))
    assert client.ask(GetUserByPubkey("key")) == bob


def test_get_user_by_pubkey_of_an_unknown_key_is_null(client: Client) -> None:
    """A user without a key is never found by key."""
    client.execute(SaveUser(user("ada")))
    assert client.ask(GetUserByPubkey("key")) is None
    assert client.ask(GetUserByPubkey("")) is None


def test_users_are_listed_by_creation_time(client: Client, clock: Clock) -> None:
    """All users by (createdAt, oderId), unset times first."""
    assert client.ask(ListUsers()) == []
    made = client.execute(CreateUser("key"))
    for oder_id, created_at in (("b", clock.now + 1), ("z", None), ("a", clock.now + 1), ("old", 5)):
        client.execute(SaveUser(user(oder_id, created_at=created_at)))
    assert [each.oder_id for each in client.ask(ListUsers())] == ["z", "old", made.oder_id, "a", "b"]
