"""handlers/members.py: the members of a room, one at a time, in rooms of any size."""

from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import (
    Batch,
    DeleteRoom,
    GetAllRooms,
    GetLog,
    GetMember,
    GetMembers,
    GetRoom,
    GetUsersByRoom,
    NotFound,
    RemoveMember,
    Room,
    RoomMember,
    RoomUpdates,
    SaveMember,
    SaveRoom,
    UpdateRoom,
)
from backscroll.schema.command_log import Change, LogEntry
from backscroll.schema.positions import MemberPosition
from tests.support.tables import all_rows

ADA = RoomMember(oder_id="ada", display_name="Ada", role_ids=["host"], joined_at=2, metadata={"a": 1})
BO = RoomMember(oder_id="bo", joined_at=1)


@pytest.fixture(autouse=True)
def _rooms(client: Client) -> None:
    """Two empty rooms."""
    for room_id in ("r1", "r2"):
        client.execute(SaveRoom(Room(id=room_id, name="R")))


def last_entry(client: Client, transport: InProcess) -> LogEntry:
    """The last command, as the log has it."""
    with transport.store.read() as snapshot:
        last = snapshot.position.seq
    return client.ask(GetLog(from_seq=last)).entries[0]


def path_of(error: pytest.ExceptionInfo[Any]) -> str:
    """The path of the field that an error names."""
    return str(error.value.details["path"])


def test_a_saved_member_is_one_of_its_room(client: Client) -> None:
    """It is the same row as in the room's own list, and of no other room."""
    client.execute(SaveMember("r1", ADA))
    client.execute(SaveMember("r1", BO))
    room = client.ask(GetRoom("r1"))
    assert room is not None
    assert room.members == client.ask(GetMembers("r1")) == [BO, ADA]
    assert client.ask(GetMember("r1", "ada")) == ADA
    assert [user.oder_id for user in client.ask(GetUsersByRoom("r1"))] == ["ada", "bo"]
    assert client.ask(GetMembers("r2")) == []
    assert client.ask(GetMember("r2", "ada")) is None


def test_saving_a_member_again_replaces_the_whole_row(client: Client) -> None:
    """What the second save leaves out is unset afterwards; other members stay as they are."""
    for member in (ADA, BO, RoomMember(oder_id="ada", username="a")):
        client.execute(SaveMember("r1", member))
    assert client.ask(GetMembers("r1")) == [RoomMember(oder_id="ada", username="a"), BO]


def test_a_removed_member_is_gone(client: Client) -> None:
    """The other members of the room stay, and so does the membership in another room."""
    for room_id in ("r1", "r2"):
        client.execute(SaveMember(room_id, ADA))
    client.execute(SaveMember("r1", BO))
    client.execute(RemoveMember("r1", "ada"))
    assert client.ask(GetMembers("r1")) == [BO]
    assert client.ask(GetMembers("r2")) == [ADA]


@pytest.mark.parametrize("room_id", ["r1", "unknown"])
def test_removing_a_member_that_is_not_there_succeeds(client: Client, transport: InProcess, room_id: str) -> None:
    """The wanted state holds already, also where the room is not stored; nothing is declared as changed."""
    client.execute(RemoveMember(room_id, "nobody"))
    assert last_entry(client, transport).changes == []


def test_a_member_needs_a_stored_room(client: Client, transport: InProcess) -> None:
    """The refusal names the field and has no effect; in a batch it has the index, and a room may come before it."""
    before = all_rows(transport.store)
    with pytest.raises(NotFound, match="save the room before its members") as refused:
        client.execute(SaveMember("unknown", ADA))
    assert path_of(refused) == "$.payload.roomId"
    with pytest.raises(NotFound) as refused:
        client.execute(Batch.of([SaveMember("r1", ADA), SaveMember("unknown", ADA)]))
    assert path_of(refused) == "$.payload.commands[1].payload.roomId"
    assert all_rows(transport.store) == before
    client.execute(Batch.of([SaveRoom(Room(id="new", name="N")), SaveMember("new", ADA)]))
    assert client.ask(GetMembers("new")) == [ADA]


def test_joining_and_leaving_change_one_member(client: Client, transport: InProcess) -> None:
    """The log says `saved` and `gone` of one member, and not that the whole list was replaced."""
    client.execute(SaveMember("r1", ADA))
    assert last_entry(client, transport).changes == [Change(noun="member", id="ada", room_id="r1")]
    client.execute(RemoveMember("r1", "ada"))
    assert last_entry(client, transport).changes == [Change(noun="member", kind="gone", id="ada", room_id="r1")]


def test_members_are_ordered_by_joining_time_then_oder_id(client: Client) -> None:
    """Those without a time come first; a page begins after any position, stored or not."""
    members = [RoomMember(oder_id=f"u{at}", joined_at=(None, 5, 3, 5, None, 3)[at]) for at in range(6)]
    client.execute(Batch.of([SaveMember("r1", member) for member in members]))
    wanted = ["u0", "u4", "u2", "u5", "u1", "u3"]
    assert [each.oder_id for each in client.ask(GetMembers("r1"))] == wanted
    for after, rest in (((None, "u0"), 1), ((None, "x"), 2), ((3, "u3"), 3), ((5, "u2"), 5), ((6, "a"), 6)):
        position = MemberPosition(joined_at=after[0], oder_id=after[1])
        page = client.ask(GetMembers("r1", limit=2, after=position))
        assert [each.oder_id for each in page] == wanted[rest : rest + 2]


def test_a_saved_list_replaces_single_members(client: Client) -> None:
    """`save-room` and `update-room` with `members` write the whole list; without it they leave all members."""
    client.execute(SaveMember("r1", ADA))
    client.execute(SaveRoom(Room(id="r1", name="other")))
    client.execute(UpdateRoom("r1", RoomUpdates(topic="t")))
    assert client.ask(GetMembers("r1")) == [ADA]
    client.execute(UpdateRoom("r1", RoomUpdates(members=[BO])))
    assert client.ask(GetMembers("r1")) == [BO]


def test_members_leave_with_their_room(client: Client, transport: InProcess) -> None:
    """No row and no reference of the room is left, and a room that is saved again has no members."""
    before = all_rows(transport.store)
    client.execute(Batch.of([SaveRoom(Room(id="r3", name="R", members=[ADA])), SaveMember("r3", BO)]))
    client.execute(DeleteRoom("r3"))
    after = all_rows(transport.store)
    for table in ("rooms", "members", "log_references"):
        assert after[table] == before[table]
    client.execute(SaveRoom(Room(id="r3", name="R")))
    assert client.ask(GetMembers("r3")) == []


def test_a_room_is_listed_without_its_members(client: Client) -> None:
    """With `childLists: false` neither query reads them."""
    client.execute(SaveMember("r1", ADA))
    room = client.ask(GetRoom("r1", child_lists=False))
    assert room == Room(id="r1", name="R")
    assert client.ask(GetAllRooms(child_lists=False, limit=1)) == [room]


def test_erasing_one_member_of_a_batch_leaves_the_others(client: Client, transport: InProcess) -> None:
    """Their parts of the entry stay as they were saved, byte for byte; the ids and the types stay in all."""
    people = [RoomMember(oder_id=f"u{at}", display_name=f"name {at}", metadata={"z": at, "a": 1}) for at in range(4)]
    client.execute(Batch.of([SaveMember("r1", each) for each in people]))
    before = last_entry(client, transport)
    client.execute(Batch.of([RemoveMember("r1", "u1"), RemoveMember("r1", "u3")]))
    after = client.ask(GetLog(from_seq=before.seq)).entries[0]
    assert after.redacted
    erased = {"roomId": "r1", "member": {"oderId": "u1"}}, {"roomId": "r1", "member": {"oderId": "u3"}}
    found = [each["payload"] for each in after.payload["commands"]]
    saved = [each["payload"] for each in before.payload["commands"]]
    assert found == [saved[0], erased[0], saved[2], erased[1]]
    assert [list(each["member"]["metadata"]) for each in (found[0], found[2])] == [["z", "a"]] * 2
