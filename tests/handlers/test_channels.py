"""handlers/channels.py: channels and categories, and messages whose ids are made by the daemon."""

import json
import re
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.handlers.storage import CommandContext
from backscroll.schema import (
    Attachment,
    Ban,
    Category,
    CategoryUpdates,
    Channel,
    ChannelUpdates,
    Conflict,
    CreateCategory,
    CreateChannel,
    CreateMessage,
    CreateSession,
    CreateUser,
    DeleteCategory,
    DeleteChannel,
    DeleteMessage,
    GetChannel,
    GetMessageById,
    GetMessages,
    GetRoom,
    Invalid,
    ListCategories,
    ListChannels,
    Message,
    NotFound,
    PutMedia,
    PutMediaPart,
    Reaction,
    Room,
    RoomMember,
    SaveAttachment,
    SaveBan,
    SaveCategory,
    SaveChannel,
    SaveReaction,
    SaveRoom,
    SaveUser,
    TooLarge,
    UpdateCategory,
    UpdateChannel,
    User,
)
from backscroll.schema.limits import CHANNEL_TYPE_BYTES_MAX
from backscroll.schema.ulid import time_of
from tests.support.clocks import Clock
from tests.support.handlers import handler_of, replacing
from tests.support.messages import save_message
from tests.support.requests import answer_all, body
from tests.support.sql import sql
from tests.support.status import status_of
from tests.support.tables import all_rows, content_rows


def path_of(error: pytest.ExceptionInfo[Any]) -> str:
    """The path of the field that an error names."""
    return str(error.value.details["path"])


def post(client: Client, channel: Channel, content: str = "hello", room_id: str = "default") -> Message:
    """Create a message in a channel, by a user who is created if needed."""
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada", display_name="Ada")))
    return client.execute(CreateMessage(channel.id, "ada", content, room_id=room_id))


def decorate(client: Client, message: Message) -> None:
    """Add a reaction and an attachment to a message."""
    client.execute(SaveReaction(Reaction(message_id=message.id, oder_id="bob", emoji="👍")))
    attachment = Attachment(id=f"a-{message.id}", message_id=message.id, filename="f", size=1, mime="x/y")
    client.execute(SaveAttachment(attachment))


# --- channels ---


def test_the_default_room_is_created_on_first_use(client: Client, clock: Clock) -> None:
    """Applications without rooms can create channels and categories at once; the room is an ordinary one."""
    assert client.ask(GetRoom("default")) is None
    assert client.ask(ListChannels()) == []
    channel = client.execute(CreateChannel("general"))
    category = client.execute(CreateCategory("Talk"))
    assert client.ask(GetRoom("default")) == Room(
        id="default", name="default", created_at=clock.now, channels=[channel], categories=[category], members=[]
    )


def test_an_existing_default_room_is_not_changed(client: Client) -> None:
    """Creating a channel changes nothing else of its room."""
    room = Room(id="default", name="Home", topic="t", members=[RoomMember(oder_id="ada")])
    client.execute(SaveRoom(room))
    channel = client.execute(CreateChannel("general"))
    found = client.ask(GetRoom("default"))
    assert found == Room(id="default", name="Home", topic="t", members=[RoomMember(oder_id="ada")], channels=[channel])


@pytest.mark.parametrize("command", [CreateChannel("general", room_id="r1"), CreateCategory("Talk", room_id="r1")])
def test_channels_of_an_unknown_room_are_not_found(client: Client, transport: InProcess, command: Any) -> None:
    """A channel or category of an unknown room is refused without any effect."""
    with pytest.raises(NotFound) as refused:
        client.execute(command)
    assert path_of(refused) == "$.payload.roomId"
    assert not any(all_rows(transport.store).values())


def test_create_channel_sets_all_fields(client: Client, clock: Clock) -> None:
    """The result is the channel that queries return."""
    category = client.execute(CreateCategory("Talk", position=2))
    command = CreateChannel("General", type="voice", topic="anything", category_id=category.id, position=-3)
    channel = client.execute(command)
    assert channel == Channel(
        id=channel.id,
        name="General",
        type="voice",
        position=-3,
        topic="anything",
        category_id=category.id,
        created_at=clock.now,
        updated_at=clock.now,
    )
    assert client.ask(GetChannel(channel.id)) == channel
    assert client.ask(ListChannels()) == [channel]


def test_a_channel_belongs_to_one_room(client: Client) -> None:
    """The same id in another room is another channel."""
    client.execute(SaveRoom(Room(id="r1", name="R", channels=[Channel(id="general", name="one", type="text")])))
    client.execute(SaveRoom(Room(id="r2", name="R", channels=[Channel(id="general", name="two", type="text")])))
    client.execute(UpdateChannel("general", ChannelUpdates(name="renamed"), room_id="r2"))
    client.execute(DeleteChannel("general", room_id="r2"))
    first = client.ask(GetChannel("general", room_id="r1"))
    assert first == Channel(id="general", name="one", type="text")
    assert client.ask(GetChannel("general", room_id="r2")) is None
    assert client.ask(GetChannel("general")) is None


def test_channels_and_categories_are_listed_by_position_then_id(client: Client) -> None:
    """The order is that of the lists in the room."""
    for position in (2, -1, 0, 2, 0):
        client.execute(CreateChannel("c", position=position))
        client.execute(CreateCategory("k", position=position))
    room = client.ask(GetRoom("default"))
    assert room is not None
    for found, of_room in (
        (client.ask(ListChannels()), room.channels),
        (client.ask(ListCategories()), room.categories),
    ):
        assert found == of_room
        places = [(each.position, each.id) for each in found]
        assert places == sorted(places)
        assert len(places) == 5


def test_update_channel_keeps_clears_or_sets_each_field(client: Client, clock: Clock) -> None:
    """An absent field is kept, null clears a topic, a value sets it; the result is the changed channel."""
    category = client.execute(CreateCategory("Talk"))
    made = client.execute(CreateChannel("general", topic="old", category_id=category.id, position=4))
    clock.now += 5
    changed = client.execute(UpdateChannel(made.id, ChannelUpdates(topic=None, name="new", metadata={"a": 1})))
    assert changed == client.ask(GetChannel(made.id))
    assert changed == Channel(
        id=made.id,
        name="new",
        type="text",
        position=4,
        category_id=category.id,
        created_at=made.created_at,
        updated_at=clock.now,
        metadata={"a": 1},
    )
    assert client.execute(UpdateChannel(made.id, ChannelUpdates(category_id=None))).category_id is None


@pytest.mark.parametrize("updates", [{"name": None}, {"type": None}, {"position": None}, {"type": ""}, {"id": "x"}])
def test_update_channel_refuses_invalid_values(transport: InProcess, updates: dict[str, Any]) -> None:
    """Null for a required field, an empty type and a change of the id are invalid."""
    channel = Client(transport=transport).execute(CreateChannel("general"))
    answer = transport.dispatcher.answer(body("update-channel", {"channelId": channel.id, "updates": updates}))
    error = json.loads(answer)["error"]
    assert error["code"] == "invalid"
    assert error["details"]["path"].startswith("$.payload.updates")
    assert Client(transport=transport).ask(GetChannel(channel.id)) == channel


def test_a_channel_needs_a_category_of_its_own_room(client: Client) -> None:
    """An unknown category, or one of another room, is not found, on creation and in an update."""
    client.execute(SaveRoom(Room(id="r1", name="R", categories=[Category(id="talk", name="Talk")])))
    with pytest.raises(NotFound) as refused:
        client.execute(CreateChannel("general", category_id="talk"))
    assert path_of(refused) == "$.payload.categoryId"
    channel = client.execute(CreateChannel("general"))
    with pytest.raises(NotFound) as refused:
        client.execute(UpdateChannel(channel.id, ChannelUpdates(category_id="talk", name="new")))
    assert path_of(refused) == "$.payload.updates.categoryId"
    assert client.ask(ListChannels()) == [channel]


@pytest.mark.parametrize(
    "command",
    [
        UpdateChannel("nobody", ChannelUpdates(name="x")),
        DeleteChannel("nobody"),
        DeleteChannel("nobody", cascade=True),
        DeleteChannel("general", room_id="r2"),
    ],
)
def test_an_unknown_channel_is_not_found(client: Client, command: Any) -> None:
    """Updating or deleting an unknown channel has no effect."""
    client.execute(SaveRoom(Room(id="default", name="D", channels=[Channel(id="general", name="g", type="text")])))
    with pytest.raises(NotFound) as refused:
        client.execute(command)
    assert path_of(refused) == "$.payload.channelId"


# --- saving ---


def test_saved_channels_and_categories_have_their_own_ids(client: Client) -> None:
    """They are rows as they were sent, without times of the daemon's, in the default room if none is named."""
    talk = Category(id="talk", name="Talk", metadata={"a": 1})
    general = Channel(id="general", name="G", type="text", category_id="talk", topic="t")
    client.execute(SaveCategory(talk))
    client.execute(SaveChannel(general))
    assert client.ask(ListCategories()) == [talk]
    assert client.ask(ListChannels()) == [general]


def test_saving_a_channel_or_category_again_replaces_the_row(client: Client) -> None:
    """What the second save leaves out is unset; other channels and other rooms stay as they are."""
    for room_id in ("r1", "r2"):
        client.execute(SaveRoom(Room(id=room_id, name="R", channels=[Channel(id="b", name="b", type="text")])))
    client.execute(SaveChannel(Channel(id="a", name="A", type="text", topic="t", position=2), room_id="r1"))
    client.execute(SaveChannel(Channel(id="a", name="new", type="voice"), room_id="r1"))
    client.execute(SaveCategory(Category(id="k", name="K", metadata={"a": 1}), room_id="r1"))
    client.execute(SaveCategory(Category(id="k", name="new"), room_id="r1"))
    b = Channel(id="b", name="b", type="text")
    assert client.ask(ListChannels("r1")) == [Channel(id="a", name="new", type="voice"), b]
    assert client.ask(ListCategories("r1")) == [Category(id="k", name="new")]
    assert client.ask(ListChannels("r2")) == [b]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (SaveChannel(Channel(id="a", name="a", type="text"), room_id="r1"), "$.payload.roomId"),
        (SaveCategory(Category(id="k", name="k"), room_id="r1"), "$.payload.roomId"),
        (SaveChannel(Channel(id="a", name="a", type="text", category_id="k")), "$.payload.channel.categoryId"),
    ],
)
def test_what_a_saved_channel_names_must_be_stored(
    client: Client, transport: InProcess, command: Any, path: str
) -> None:
    """An unknown room or category is not found, and the command has no effect."""
    with pytest.raises(NotFound) as refused:
        client.execute(command)
    assert path_of(refused) == path
    assert not any(all_rows(transport.store).values())


def test_the_type_of_a_channel_is_free_text(client: Client) -> None:
    """Any text up to its limit is kept, by each command that writes channels; a longer or an empty one is refused."""
    kinds = ["text", "forum", "📣", "é" * (CHANNEL_TYPE_BYTES_MAX // 2)]
    for at, kind in enumerate(kinds):
        client.execute(SaveChannel(Channel(id=f"c{at}", name="c", type=kind)))
    assert [each.type for each in client.ask(ListChannels())] == kinds
    made = client.execute(CreateChannel("c", type="stage"))
    assert client.execute(UpdateChannel(made.id, ChannelUpdates(type="news"))).type == "news"
    with pytest.raises(TooLarge):
        client.execute(SaveChannel(Channel(id="c", name="c", type=kinds[-1] + "x")))
    with pytest.raises(Invalid):
        client.execute(SaveChannel(Channel(id="c", name="c", type="")))


# --- deletion ---


def test_an_empty_channel_can_be_deleted(client: Client) -> None:
    """It is in no list afterwards."""
    channel = client.execute(CreateChannel("general"))
    other = client.execute(CreateChannel("other"))
    client.execute(DeleteChannel(channel.id))
    assert client.ask(GetChannel(channel.id)) is None
    assert client.ask(ListChannels()) == [other]


@pytest.mark.parametrize("deleted", [False, True], ids=["message", "tombstone"])
def test_deleting_a_channel_with_messages_is_a_conflict(client: Client, transport: InProcess, deleted: bool) -> None:
    """Without `cascade` it has no effect, even where all messages are tombstones."""
    channel = client.execute(CreateChannel("general"))
    message = post(client, channel)
    if deleted:
        client.execute(DeleteMessage(message.id))
    before = all_rows(transport.store)
    with pytest.raises(Conflict, match="cascade") as refused:
        client.execute(DeleteChannel(channel.id))
    assert path_of(refused) == "$.payload.channelId"
    assert all_rows(transport.store) == before


def test_cascade_deletes_only_the_messages_of_the_channel(client: Client, transport: InProcess) -> None:
    """Every table is as if the channel had never existed; the same channel id in another room keeps its messages."""
    general = Channel(id="general", name="g", type="text")
    for room_id in ("r1", "r2"):
        client.execute(SaveRoom(Room(id=room_id, name="R", channels=[general, Channel(id="b", name="b", type="text")])))
    client.execute(SaveBan(Ban(room_id="r1", oder_id="eve", timestamp=1, banned_by="ada")))
    decorate(client, post(client, general, room_id="r2"))
    decorate(client, post(client, Channel(id="b", name="b", type="text"), room_id="r1"))
    client.execute(save_message("no channel", "x"))
    client.execute(DeleteChannel("general", room_id="r1"))
    before, mentioned = content_rows(transport.store), mentioned_messages(transport)
    client.execute(SaveRoom(Room(id="r1", name="R", channels=[general, Channel(id="b", name="b", type="text")])))
    for number in range(3):
        decorate(client, post(client, general, f"text {number}", room_id="r1"))
    client.execute(DeleteChannel("general", room_id="r1", cascade=True))
    assert content_rows(transport.store) == before
    assert mentioned_messages(transport) == mentioned


def mentioned_messages(transport: InProcess) -> list[tuple[object, ...]]:
    """The ids of messages whose text is in the command log."""
    return [row for row in all_rows(transport.store)["log_references"] if row[0] == "message"]


def test_deleting_a_category_keeps_its_channels(client: Client) -> None:
    """They have no category afterwards; channels of other categories and rooms keep theirs."""
    talk, work = client.execute(CreateCategory("Talk")), client.execute(CreateCategory("Work"))
    under_talk = client.execute(CreateChannel("a", category_id=talk.id))
    under_work = client.execute(CreateChannel("b", category_id=work.id))
    elsewhere = Channel(id="c", name="c", type="text", category_id=talk.id)
    client.execute(SaveRoom(Room(id="r2", name="R", channels=[elsewhere], categories=[talk])))
    client.execute(DeleteCategory(talk.id))
    assert client.ask(ListCategories()) == [work]
    found = {each.id: each.category_id for each in client.ask(ListChannels())}
    assert found == {under_talk.id: None, under_work.id: work.id}
    assert client.ask(ListChannels("r2")) == [elsewhere]


def test_update_category_keeps_clears_or_sets_each_field(client: Client, clock: Clock) -> None:
    """An absent field is kept, null clears it, a value sets it; a required field cannot be cleared."""
    made = client.execute(CreateCategory("Talk", position=3))
    changed = client.execute(UpdateCategory(made.id, CategoryUpdates(name="New", metadata={"a": [None]})))
    assert changed == Category(id=made.id, name="New", position=3, created_at=clock.now, metadata={"a": [None]})
    cleared = client.execute(UpdateCategory(made.id, CategoryUpdates(metadata=None, created_at=None, position=0)))
    assert cleared == Category(id=made.id, name="New")
    assert client.ask(ListCategories()) == [cleared]
    with pytest.raises(Invalid):
        client.execute(UpdateCategory(made.id, CategoryUpdates(name=None)))  # type: ignore[arg-type]  # the null that is to be refused


@pytest.mark.parametrize("command", [UpdateCategory("nobody", CategoryUpdates(name="x")), DeleteCategory("nobody")])
def test_an_unknown_category_is_not_found(client: Client, command: Any) -> None:
    """Updating or deleting an unknown category has no effect."""
    with pytest.raises(NotFound) as refused:
        client.execute(command)
    assert path_of(refused) == "$.payload.categoryId"


# --- create-message ---


def test_create_message_returns_the_stored_message(client: Client, clock: Clock) -> None:
    """The result is what queries return, with the user's oderId and name, and the time of the daemon's clock."""
    channel = client.execute(CreateChannel("general"))
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada", display_name="Ada")))
    message = client.execute(CreateMessage(channel.id, "u1", "hello", reply_to_id="m0"))
    assert message == Message(
        id=message.id,
        room_id="default",
        channel_id=channel.id,
        sender_id="ada",
        sender_name="Ada",
        content="hello",
        timestamp=clock.now,
        reply_to_id="m0",
        reactions=[],
    )
    assert client.ask(GetMessageById(message.id)) == message
    assert client.ask(GetMessages("default")) == [message]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (CreateMessage("general", "nobody", "x"), "$.payload.authorId"),
        (CreateMessage("nowhere", "ada", "x"), "$.payload.channelId"),
        (CreateMessage("general", "ada", "x", room_id="nowhere"), "$.payload.channelId"),
    ],
)
def test_create_message_needs_an_existing_channel_and_author(
    client: Client, transport: InProcess, command: CreateMessage, path: str
) -> None:
    """An unknown one is not found, by its path, and no row is written."""
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada")))
    client.execute(SaveRoom(Room(id="default", name="D", channels=[Channel(id="general", name="g", type="text")])))
    before = all_rows(transport.store)
    with pytest.raises(NotFound) as refused:
        client.execute(command)
    assert path_of(refused) == path
    assert all_rows(transport.store) == before


def test_ids_increase_when_the_clock_stands_or_steps_back(client: Client, clock: Clock) -> None:
    """Ids never decrease, so they show the order of creation; timestamps are those of the clock."""
    channel = client.execute(CreateChannel("general"))
    start = clock.now
    made = []
    for step in (0, 0, 0, 7, 0, -1, -86_400_000, 0, 86_399_999, 3):
        clock.now += step
        made.append(post(client, channel, f"at {clock.now}"))
    assert [each.id for each in made] == sorted({each.id for each in made})
    assert [each.timestamp - start for each in made] == [0, 0, 0, 7, 7, 6, 6 - 86_400_000, 6 - 86_400_000, 5, 8]
    assert [time_of(each.id) - start for each in made] == [0, 0, 0, 7, 7, 7, 7, 7, 7, 8]
    assert client.ask(GetMessages("default")) == sorted(made, key=lambda each: (each.timestamp, each.id))


def test_ids_increase_over_a_restart_with_the_clock_set_back(tmp_path: Path) -> None:
    """Ids made after a restart are greater than all before it, for every kind of record."""
    clock = Clock()
    ids: list[str] = []
    for _ in range(3):
        clock.now -= 3_600_000
        with InProcess(tmp_path / "data", clock=clock) as transport, Client(transport=transport) as client:
            channel = client.execute(CreateChannel("general"))
            ids += [channel.id, client.execute(CreateCategory("Talk")).id]
            ids += [post(client, channel, f"{number}").id for number in range(3)]
            ids += [client.execute(CreateUser(f"key {clock.now}")).oder_id]
    assert ids == sorted(set(ids))


def test_a_clock_that_was_ahead_for_a_while_does_no_harm(tmp_path: Path) -> None:
    """Only the message of that time has the wrong timestamp; later ones have the right time and order, also after a
    restart.
    """
    clock, year = Clock(), 365 * 86_400_000
    start, made = clock.now, []
    with InProcess(tmp_path / "data", clock=clock) as transport, Client(transport=transport) as client:
        channel = client.execute(CreateChannel("general"))
        clock.now += year
        ahead = post(client, channel, "from the future")
        clock.now = start
        for _ in range(200):
            clock.now += 10
            made.append(post(client, channel, f"at {clock.now}"))
    with InProcess(tmp_path / "data", clock=clock) as transport, Client(transport=transport) as client:
        for _ in range(200):
            clock.now += 10
            made.append(post(client, channel, f"at {clock.now}"))
        assert [each.timestamp for each in made] == [start + 10 * number for number in range(1, 401)]
        assert ahead.timestamp == start + year
        ids = [ahead.id, *(each.id for each in made)]
        assert ids == sorted(set(ids))
        assert client.ask(GetMessages("default", limit=500)) == [*made, ahead]
        clock.now = start + 2 * year
        later = post(client, channel, "two years on")
        assert later.id > ids[-1]
        assert (later.timestamp, time_of(later.id)) == (clock.now, clock.now)


def test_ids_of_failed_commands_are_not_reused(tmp_path: Path) -> None:
    """Not even where the failed command was the last one before a restart."""
    clock = Clock()
    ids = []
    for key in ("taken", "other"):
        with InProcess(tmp_path / "data", clock=clock) as transport, Client(transport=transport) as client:
            ids.append(client.execute(CreateUser(key)).oder_id)
            with pytest.raises(Conflict):
                client.execute(CreateUser("taken"))
    assert ids == sorted(set(ids))


def test_a_handler_that_fails_after_writing_leaves_no_row(client: Client, transport: InProcess) -> None:
    """What it wrote is rolled back, and other commands of the same commit are kept."""
    channel = client.execute(CreateChannel("general"))
    first = post(client, channel)

    def fail_at_the_second(command: CreateMessage, db: Any, context: CommandContext) -> Message:
        message: Message = handler_of(CreateMessage)(command, db, context)
        if context.request_id == "r1":
            assert db.rows(sql("SELECT 1 FROM messages WHERE id = :id"), id=message.id), "it was written"
            raise RuntimeError("a later step")
        return message

    handlers = replacing({CreateMessage: fail_at_the_second})
    dispatcher = Dispatcher(transport.scopes, status_of(transport.scopes), handlers)
    payload = {"channelId": channel.id, "authorId": "ada", "content": "hello"}
    requests = [dispatcher.receive(body("create-message", payload, id=f"r{at}")) for at in range(3)]
    replies = [json.loads(answer) for answer in answer_all(dispatcher, requests)]
    assert [reply["ok"] for reply in replies] == [True, False, True]
    assert replies[1]["error"]["code"] == "internal"
    made = [reply["result"]["id"] for reply in replies if reply["ok"]]
    assert [each.id for each in client.ask(GetMessages("default"))] == [first.id, *made]
    assert [reply["seq"] for reply in replies if reply["ok"]] == [transport.store.seq - 1, transport.store.seq]


def test_times_are_whole_milliseconds_in_every_column(client: Client, transport: InProcess, clock: Clock) -> None:
    """Every time in the file is an integer of milliseconds, and the daemon's own times are of its clock."""
    category = client.execute(CreateCategory("Talk"))
    channel = client.execute(CreateChannel("general", category_id=category.id))
    user = client.execute(CreateUser("key"))
    message = client.execute(CreateMessage(channel.id, user.id, "hello"))
    client.execute(CreateSession.with_new_token(user.id, 1_000))
    client.execute(PutMedia([client.execute(PutMediaPart(b"x"))], "x/y"))
    client.execute(SaveReaction(Reaction(message_id=message.id, oder_id="ada", emoji="👍", timestamp=clock.now)))
    client.execute(SaveBan(Ban(room_id="default", oder_id="eve", timestamp=clock.now, expires_at=clock.now + 1)))
    seen: dict[str, Any] = {}
    with apsw.Connection(str(transport.store.path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        for table in all_rows(transport.store):
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})"):
                if re.search(r"(_at|^at|^timestamp)$", column):
                    found = connection.execute(
                        f"SELECT typeof({column}), {column} FROM {table} WHERE {column} IS NOT NULL"
                    ).fetchall()
                    seen |= {f"{table}.{column}": found} if found else {}
    assert {
        "commands.at",
        "messages.timestamp",
        "sessions.expires_at",
        "media.created_at",
        "users.updated_at",
    } <= seen.keys()
    for column, values in seen.items():
        for kind, value in values:
            assert (column, kind) == (column, "integer")
            assert clock.now <= value <= clock.now + 1_000, column
