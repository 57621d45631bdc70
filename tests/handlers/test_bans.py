"""handlers/bans.py: a ban is in force while `expiresAt` is absent or later than now."""

from typing import Any

from backscroll.clients.python import Client
from backscroll.schema import (
    Ban,
    DeleteRoom,
    GetBansForRoom,
    IsUserBanned,
    RemoveBan,
    Room,
    RoomMember,
    SaveBan,
    SaveRoom,
    SaveUser,
    User,
)
from tests.support.clocks import Clock


def ban(room_id: str = "r1", oder_id: str = "eve", timestamp: int = 1, **fields: Any) -> Ban:
    return Ban(room_id=room_id, oder_id=oder_id, timestamp=timestamp, **fields)


def test_one_user_can_be_banned_in_two_rooms(client: Client) -> None:
    """The key is (roomId, oderId): lifting one ban keeps the other."""
    client.execute(SaveBan(ban("r1")))
    client.execute(SaveBan(ban("r2")))
    client.execute(RemoveBan("r1", "eve"))
    client.execute(RemoveBan("r1", "eve"))
    assert not client.ask(IsUserBanned("eve", "r1"))
    assert client.ask(IsUserBanned("eve", "r2"))


def test_a_ban_ends_exactly_at_its_expiry(client: Client, clock: Clock) -> None:
    """It is in force one millisecond before `expiresAt`, and not at `expiresAt`."""
    client.execute(SaveBan(ban(expires_at=clock.now + 1_000)))
    clock.now += 999
    assert client.ask(IsUserBanned("eve", "r1"))
    assert [each.oder_id for each in client.ask(GetBansForRoom("r1"))] == ["eve"]
    clock.now += 1
    assert not client.ask(IsUserBanned("eve", "r1"))
    assert client.ask(GetBansForRoom("r1")) == []


def test_is_user_banned_matches_oder_id_or_user_id(client: Client) -> None:
    """A ban is found by either id of the person, in its room only."""
    client.execute(SaveBan(ban(user_id="u-eve")))
    assert client.ask(IsUserBanned("eve", "r1"))
    assert client.ask(IsUserBanned("u-eve", "r1"))
    assert not client.ask(IsUserBanned("u-eve", "r2"))
    assert not client.ask(IsUserBanned("bob", "r1"))


def test_bans_are_listed_by_timestamp_then_oder_id(client: Client) -> None:
    """The order is total."""
    for oder_id, timestamp in (("c", 1), ("b", 2), ("a", 2)):
        client.execute(SaveBan(ban(oder_id=oder_id, timestamp=timestamp)))
    assert [each.oder_id for each in client.ask(GetBansForRoom("r1"))] == ["c", "a", "b"]


def test_a_ban_outlives_its_moderator(client: Client) -> None:
    """Changes of users and members keep a ban; only deleting its room deletes it."""
    client.execute(SaveUser(User(oder_id="mod", id="m", username="mod")))
    client.execute(SaveRoom(Room(id="r1", name="Room", members=[RoomMember(oder_id="mod")])))
    client.execute(SaveBan(ban(banned_by="mod")))
    client.execute(SaveRoom(Room(id="r1", name="Room", members=[])))
    client.execute(DeleteRoom("r2"))
    assert client.ask(GetBansForRoom("r1")) == [ban(banned_by="mod")]
    client.execute(DeleteRoom("r1"))
    assert client.ask(GetBansForRoom("r1")) == []
