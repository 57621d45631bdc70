"""handlers/rooms.py: rooms, with channels, categories and members in tables of their own."""

from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import (
    Attachment,
    Ban,
    Batch,
    Category,
    Channel,
    CreateChannel,
    DeleteRoom,
    GetAllRooms,
    GetRoom,
    Invalid,
    NotFound,
    Reaction,
    Room,
    RoomMember,
    RoomUpdates,
    SaveAttachment,
    SaveBan,
    SaveRoom,
    UpdateRoom,
)
from tests.support.messages import save_message
from tests.support.requests import body, send
from tests.support.tables import Rows, all_rows

CHANNELS = [Channel(id="general", name="general", type="text"), Channel(id="v", name="V", type="voice", position=1)]
MEMBERS = [RoomMember(oder_id="ada", joined_at=1, role_ids=["r-1"]), RoomMember(oder_id="bob", joined_at=2)]
CATEGORIES = [Category(id="talk", name="Talk")]


def room(room_id: str = "r1", **fields: Any) -> Room:
    return Room(id=room_id, **({"name": "Room", **fields}))


def full_room(room_id: str = "r1") -> Room:
    return room(room_id, channels=CHANNELS, members=MEMBERS, categories=CATEGORIES, created_at=1)


def test_a_room_is_read_with_its_lists(client: Client) -> None:
    """Channels and members are always there, categories if there are any."""
    client.execute(SaveRoom(full_room()))
    client.execute(SaveRoom(room("r2", categories=[])))
    assert client.ask(GetRoom("r1")) == full_room()
    assert client.ask(GetRoom("r2")) == room("r2", channels=[], members=[])
    assert client.ask(GetRoom("r3")) is None


def test_saved_lists_replace_and_omitted_lists_are_kept(client: Client) -> None:
    """A channel missing from a saved list is removed; members that are left out are kept."""
    client.execute(SaveRoom(full_room()))
    client.execute(SaveRoom(room(channels=CHANNELS[1:], categories=[])))
    assert client.ask(GetRoom("r1")) == room(channels=CHANNELS[1:], members=MEMBERS)


def test_lists_of_a_room_are_sorted(client: Client) -> None:
    """Channels and categories by (position, id), members by (joinedAt, oderId), unset values first."""
    channels = [Channel(id=each, name=each, type="text", position=at) for each, at in (("b", 1), ("a", 1), ("c", 0))]
    members = [RoomMember(oder_id="b", joined_at=1), RoomMember(oder_id="a", joined_at=1), RoomMember(oder_id="z")]
    client.execute(SaveRoom(room(channels=channels, members=members)))
    found = client.ask(GetRoom("r1"))
    assert found is not None
    assert [each.id for each in found.channels or []] == ["c", "a", "b"]
    assert [each.oder_id for each in found.members or []] == ["z", "a", "b"]


def test_the_same_channel_id_in_two_rooms_is_two_channels(client: Client) -> None:
    """Changing the `general` of one room does not change that of another."""
    client.execute(SaveRoom(full_room("r1")))
    client.execute(SaveRoom(full_room("r2")))
    client.execute(SaveRoom(room("r1", channels=[])))
    assert client.ask(GetRoom("r2")) == full_room("r2")


def test_rooms_are_listed_by_creation_time(client: Client) -> None:
    """Rooms are ordered by (createdAt, id), each with its own lists."""
    for room_id, created_at in (("b", 2), ("a", 2), ("c", 1)):
        channels = [Channel(id=f"in-{room_id}", name="", type="text")]
        client.execute(SaveRoom(room(room_id, created_at=created_at, channels=channels)))
    found = client.ask(GetAllRooms())
    assert [each.id for each in found] == ["c", "a", "b"]
    assert [each.channels[0].id for each in found if each.channels] == ["in-c", "in-a", "in-b"]


def test_update_room_keeps_clears_or_sets_each_field(client: Client) -> None:
    """An absent field is kept, null clears it (also the categories), a value sets it and a list replaces the list."""
    client.execute(SaveRoom(room(topic="old", icon="i", channels=CHANNELS, categories=CATEGORIES, members=MEMBERS)))
    updates = RoomUpdates(topic=None, max_users=9, categories=None, members=MEMBERS[:1])
    client.execute(UpdateRoom("r1", updates))
    assert client.ask(GetRoom("r1")) == room(icon="i", max_users=9, channels=CHANNELS, members=MEMBERS[:1])


def test_update_room_cannot_clear_required_fields(client: Client) -> None:
    """Null for the name or for the channels is invalid."""
    client.execute(SaveRoom(full_room()))
    no_name = RoomUpdates(name=None)  # type: ignore[arg-type]  # the null that is to be refused
    no_channels = RoomUpdates(channels=None)  # type: ignore[arg-type]  # likewise
    for updates in (no_name, no_channels):
        with pytest.raises(Invalid):
            client.execute(UpdateRoom("r1", updates))
    assert client.ask(GetRoom("r1")) == full_room()


def test_updating_an_unknown_room_is_not_found(client: Client) -> None:
    """An update never creates a room."""
    with pytest.raises(NotFound):
        client.execute(UpdateRoom("r1", RoomUpdates(name="x")))


def _fill(client: Client, room_id: str) -> None:
    """A room with every kind of record that belongs to a room."""
    message_id = f"m-{room_id}"
    reaction = Reaction(message_id=message_id, oder_id="bob", emoji="👍")
    client.execute(SaveRoom(full_room(room_id)))
    client.execute(save_message(message_id, "x", room_id, reactions=[reaction]))
    client.execute(
        SaveAttachment(Attachment(id=f"a-{room_id}", message_id=message_id, filename="f", size=1, mime="x/y"))
    )
    client.execute(SaveBan(Ban(room_id=room_id, oder_id="eve", timestamp=1)))


def all_but_commands(store: Any) -> Rows:
    """All rows but those of the log of commands."""
    return {name: rows for name, rows in all_rows(store).items() if name != "commands"}


def test_delete_room_removes_everything_of_that_room_only(client: Client, transport: InProcess) -> None:
    """Afterwards every table is as if the room had never existed."""
    _fill(client, "r2")
    before = all_but_commands(transport.store)
    assert all(before[table] for table in ("rooms", "channels", "members", "categories", "bans", "attachments"))
    _fill(client, "r1")
    client.execute(DeleteRoom("r1"))
    assert all_but_commands(transport.store) == before
    client.execute(DeleteRoom("r1"))
    assert all_but_commands(transport.store) == before


def test_a_batch_that_deletes_its_own_room_keeps_no_text(client: Client, transport: InProcess) -> None:
    """Neither its payload nor its result in the log has any text of the room."""
    client.execute(SaveRoom(Room(id="r1", name="R")))
    client.execute(Batch.of([CreateChannel("a secret", room_id="r1"), DeleteRoom("r1")]))
    assert "a secret" not in repr(all_rows(transport.store))


def test_results_without_deleted_text_survive_a_deletion(client: Client, transport: InProcess) -> None:
    """The result of a batch stays cached if it has no text of the deleted room, and is dropped if it has."""
    save = {"type": "save-room", "payload": {"room": {"id": "r1", "name": "a secret"}}}
    create = {"type": "create-channel", "payload": {"name": "a secret", "roomId": "r1"}}
    silent, telling = body("batch", {"commands": [save]}), body("batch", {"commands": [save, create]})
    first = [transport.dispatcher.answer(each) for each in (silent, telling)]
    assert [transport.dispatcher.answer(each) for each in (silent, telling)] == first
    client.execute(DeleteRoom("r1"))
    assert transport.dispatcher.answer(silent) == first[0]
    assert send(transport, telling)["error"]["code"] == "conflict"
    assert "a secret" not in repr(all_rows(transport.store))
