"""Pages of large messages, log entries and rows are shorter; the largest item that can be saved can also be read."""

from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import (
    Attachment,
    Ban,
    Batch,
    Channel,
    ChannelUpdates,
    CreateChannel,
    CreateUser,
    GetAllRooms,
    GetLog,
    GetMessageById,
    GetMessagePage,
    GetMessages,
    GetReactionsForMessage,
    GetRoom,
    GetRows,
    ListChannels,
    ListMessages,
    MessagePage,
    MessageUpdates,
    Reaction,
    Room,
    RoomMember,
    RoomUpdates,
    SaveAttachment,
    SaveBan,
    SaveMessage,
    SaveReaction,
    SaveRoom,
    SaveUser,
    TooLarge,
    UpdateChannel,
    UpdateMessage,
    UpdateRoom,
    UpdateUser,
    User,
    UserUpdates,
)
from backscroll.schema.limits import (
    ITEM_BYTES_MAX,
    LOG_ENTRY_BYTES_MAX,
    PAGE_BYTES_MAX,
    PAGE_REACTIONS_MAX,
    REPLY_BYTES_MAX,
    TEXT_BYTES_MAX,
)
from backscroll.schema.positions import next_page
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.memory import limited_memory
from tests.support.messages import message_record, save_message
from tests.support.requests import body

CODECS = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
PEAK_BYTES_MAX = 5 * REPLY_BYTES_MAX
MESSAGES = 40
TEXT = "x" * TEXT_BYTES_MAX
ESCAPED = "\x01" * TEXT_BYTES_MAX
"""A text that is six times as large in JSON."""


@pytest.fixture
def client(transport: InProcess) -> Client:
    return Client(transport=transport)


def ask(transport: InProcess, query: Any, codec: Codec) -> dict[str, Any]:
    """The reply to a query, which is bounded like the memory for it."""
    request = body(query.wire_name, query, codec)
    with limited_memory(PEAK_BYTES_MAX):
        reply = transport.dispatcher.answer(request)
    assert len(reply) <= REPLY_BYTES_MAX
    return codec.decode(reply, dict[str, Any])


def result(transport: InProcess, query: Any, codec: Codec) -> Any:
    reply = ask(transport, query, codec)
    assert reply["ok"], reply
    return reply["result"]


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in messages]


@CODECS
@pytest.mark.parametrize("text", [TEXT, ESCAPED], ids=["letters", "control characters"])
def test_pages_of_large_messages_are_shorter(transport: InProcess, client: Client, text: str, codec: Codec) -> None:
    """From either end, the pages have every message once, and say exactly whether there are more."""
    number = MESSAGES if text == TEXT else 8
    for at in range(number):
        client.execute(save_message(at, text))
    every = [f"m{at}" for at in range(number)]
    seen: list[str] = []
    page = result(transport, GetMessagePage("r1", limit=500), codec)
    assert not page["hasNewer"]
    while True:
        assert 1 <= len(page["messages"]) <= 4
        seen = ids(page["messages"]) + seen
        assert page["hasOlder"] == (len(seen) < number)
        if not page["hasOlder"]:
            break
        page = result(transport, GetMessagePage("r1", limit=500, before=page["olderCursor"]), codec)
    assert seen == every
    forward = ids(page["messages"])
    while page["hasNewer"]:
        page = result(transport, GetMessagePage("r1", limit=500, after=page["newerCursor"]), codec)
        assert page["hasOlder"]
        forward += ids(page["messages"])
    assert forward == every


@pytest.mark.parametrize("limit", [1, 2, 5, 500])
def test_a_page_around_a_large_message_has_it(transport: InProcess, client: Client, limit: int) -> None:
    """The message that was asked for is on the page, whatever is around it, and the flags are exact."""
    for at in range(12):
        client.execute(save_message(at, TEXT))
    for at in (0, 1, 6, 11):
        page = result(transport, GetMessagePage("r1", around=f"m{at}", limit=limit), MSGPACK)
        shown = ids(page["messages"])
        assert f"m{at}" in shown
        assert shown == [f"m{each}" for each in range(int(shown[0][1:]), int(shown[-1][1:]) + 1)]
        assert (page["hasOlder"], page["hasNewer"]) == (shown[0] != "m0", shown[-1] != "m11")


@CODECS
def test_list_messages_has_shorter_pages(transport: InProcess, client: Client, codec: Codec) -> None:
    """`hasMore` is exact, so that a caller who asks on gets every message."""
    for at in range(10):
        client.execute(save_message(at, TEXT, channel_id="c"))
    seen: list[str] = []
    before = None
    while True:
        page = result(transport, ListMessages("c", room_id="r1", before=before, limit=500), codec)
        seen += ids(page["messages"])
        assert page["hasMore"] == (len(seen) < 10)
        if not page["hasMore"]:
            break
        before = seen[-1]
    assert seen == [f"m{at}" for at in reversed(range(10))]


@CODECS
def test_get_messages_is_too_large_rather_than_short(transport: InProcess, client: Client, codec: Codec) -> None:
    """Its callers count on `offset`, so a shorter list would lose messages; a smaller `limit` reads them all."""
    for at in range(MESSAGES):
        client.execute(save_message(at, TEXT))
    error = ask(transport, GetMessages("r1", limit=500), codec)["error"]
    assert error["code"] == "too-large"
    assert "`limit`" in error["message"]
    pages = [result(transport, GetMessages("r1", limit=5, offset=at), codec) for at in range(0, MESSAGES, 5)]
    assert [each for page in pages for each in ids(page)] == [f"m{at}" for at in range(MESSAGES)]


def reactions(number: int, message_id: str) -> list[Reaction]:
    return [Reaction(message_id=message_id, oder_id=f"u{at}", emoji="+") for at in range(number)]


@CODECS
def test_a_message_with_many_reactions_can_be_read(transport: InProcess, client: Client, codec: Codec) -> None:
    """It shortens its page; with more reactions than a page has it is read without them, and they in pages."""
    client.execute(SaveMessage(message_record(1, reactions=reactions(6_000, "m1"))))
    client.execute(SaveMessage(message_record(2, reactions=reactions(6_000, "m2"))))
    page = result(transport, GetMessagePage("r1"), codec)
    assert (ids(page["messages"]), page["hasOlder"]) == (["m2"], True)
    client.execute(SaveMessage(message_record(1, reactions=reactions(PAGE_REACTIONS_MAX + 1, "m1"))))
    for query in (GetMessageById("m1"), GetMessagePage("r1", before=page["olderCursor"]), GetMessages("r1")):
        assert ask(transport, query, codec)["error"]["code"] == "too-large"
    assert result(transport, GetMessageById("m1", child_lists=False), codec)["id"] == "m1"
    whole = result(transport, GetMessagePage("r1", child_lists=False), codec)
    assert ids(whole["messages"]) == ["m1", "m2"]
    assert not any("reactions" in each for each in whole["messages"])
    assert len(result(transport, GetReactionsForMessage("m1"), codec)) == PAGE_REACTIONS_MAX + 1


def test_reactions_with_long_ids_shorten_a_page(transport: InProcess, client: Client) -> None:
    """Their bytes count, not only their number."""
    for at in range(3):
        each = [Reaction(message_id=f"m{at}", oder_id=f"{number:0512}", emoji="+" * 512) for number in range(800)]
        client.execute(SaveMessage(message_record(at, reactions=each)))
    page = result(transport, GetMessagePage("r1"), JSON)
    assert (ids(page["messages"]), page["hasOlder"]) == (["m2"], True)


@CODECS
def test_a_room_with_large_lists_can_be_read(transport: InProcess, client: Client, codec: Codec) -> None:
    """Whole it is `too-large`, without its lists it is not; other rooms are not affected, and a page ends before it."""
    members = [RoomMember(oder_id=f"{at:0500}") for at in range(9_000)]
    for room_id in ("r1", "r2"):
        client.execute(SaveRoom(Room(id=room_id, name="", members=members)))
    client.execute(SaveRoom(Room(id="r0", name="")))
    assert len(result(transport, GetRoom("r1"), codec)["members"]) == 9_000
    assert len(result(transport, GetAllRooms(limit=500), codec)) == 2
    assert ask(transport, GetAllRooms(), codec)["error"]["code"] == "too-large"
    for at in range(20):
        client.execute(CreateChannel(TEXT[: TEXT_BYTES_MAX // 4], room_id="r1", position=at))
    error = ask(transport, GetRoom("r1"), codec)["error"]
    assert error["code"] == "too-large"
    assert "childLists" in error["message"]
    for limit in (2, 500):
        [before] = result(transport, GetAllRooms(limit=limit), codec)
        assert before["id"] == "r0"
        page = next_page(GetAllRooms(limit=limit), Room(id="r0", name=""))
        assert ask(transport, page, codec)["error"]["code"] == "too-large"
    assert ids(result(transport, next_page(page, Room(id="r1", name="")), codec)) == ["r2"]
    assert result(transport, GetRoom("r1", child_lists=False), codec) == {"id": "r1", "name": ""}
    assert len(result(transport, GetAllRooms(child_lists=False), codec)) == 3


def test_a_room_too_large_only_in_json_says_what_to_ask_for(transport: InProcess, client: Client) -> None:
    """In MessagePack its lists fit; in JSON the error names the way to read it."""
    client.execute(SaveRoom(Room(id="r1", name="")))
    for _ in range(8):
        client.execute(CreateChannel(ESCAPED[:250_000], room_id="r1"))
    for query in (GetRoom("r1"), GetAllRooms(limit=5)):
        error = ask(transport, query, JSON)["error"]
        assert error["code"] == "too-large"
        assert "childLists" in error["message"]
        assert result(transport, query, MSGPACK)
    assert ids(result(transport, GetAllRooms(limit=5, child_lists=False), JSON)) == ["r1"]


# The largest items

LARGE: dict[str, Any] = {
    "save-message": SaveMessage(message_record(1, ESCAPED, head_hash=ESCAPED)),
    "save-user": SaveUser(User(oder_id="u", id="u", username=ESCAPED, status=ESCAPED)),
    "save-room": SaveRoom(Room(id="r", name=ESCAPED, topic=ESCAPED)),
    "save-room with a member": SaveRoom(
        Room(id="r", name="", members=[RoomMember(oder_id="u", username=ESCAPED, avatar_url=ESCAPED)])
    ),
    "save-room with a channel": SaveRoom(
        Room(id="r", name="", channels=[Channel(id="c", name=ESCAPED, topic=ESCAPED, type="text")])
    ),
    "save-ban": SaveBan(Ban(room_id="r", oder_id="u", timestamp=1, display_name=ESCAPED, reason=ESCAPED)),
    "save-attachment": SaveAttachment(Attachment(id="a", message_id="m", filename=ESCAPED, size=1, mime=ESCAPED)),
    "create-user": CreateUser(ESCAPED, ESCAPED),
    "create-channel": CreateChannel(ESCAPED, topic=ESCAPED),
    "update-message": UpdateMessage("m2", MessageUpdates(sender_name=ESCAPED)),
    "update-user": UpdateUser("u2", UserUpdates(status=ESCAPED)),
    "update-room": UpdateRoom("r2", RoomUpdates(topic=ESCAPED)),
    "update-channel": UpdateChannel("c2", ChannelUpdates(topic=ESCAPED), room_id="r2"),
}


@pytest.mark.parametrize("name", LARGE)
def test_an_item_that_could_not_be_read_is_not_saved(client: Client, name: str) -> None:
    """Neither by a save nor by a creation nor by an update that lets it grow beyond the limit."""
    almost = ESCAPED[: TEXT_BYTES_MAX - 1_000]
    client.execute(SaveMessage(message_record(2, almost)))
    client.execute(SaveUser(User(oder_id="u2", id="u2", username=almost)))
    channel = Channel(id="c2", name=almost, type="text")
    client.execute(SaveRoom(Room(id="r2", name=almost, channels=[channel])))
    with pytest.raises(TooLarge, match=rf"^\$\.payload: .* bytes in JSON; the limit is {ITEM_BYTES_MAX}"):
        client.execute(LARGE[name])
    assert client.ask(GetMessages("r1")) == [message_record(2, almost, reactions=[])]


@CODECS
def test_the_largest_items_can_be_read(transport: InProcess, client: Client, codec: Codec) -> None:
    """With as many bytes in JSON as may be saved, in each encoding, alone and in pages, as rows and in the log."""
    texts: dict[str, Any] = dict.fromkeys(("username", "display_name", "status", "role"), "y" * (TEXT_BYTES_MAX - 1000))
    client.execute(SaveUser(User(oder_id="u", id="u", **texts)))
    client.execute(UpdateUser("u", UserUpdates(metadata={"a": "z" * (TEXT_BYTES_MAX - 10_000)})))
    client.execute(SaveMessage(message_record(1, "y" * (TEXT_BYTES_MAX - 50_000), head_hash=ESCAPED[:700_000])))
    for query in (GetMessageById("m1"), GetMessagePage("r1"), GetMessages("r1"), GetRows("messages"), GetRows("users")):
        assert result(transport, query, codec)
    entries: list[int] = []
    while True:
        page = result(transport, GetLog(from_seq=len(entries) + 1), codec)
        if not page["entries"]:
            break
        entries += [entry["seq"] for entry in page["entries"]]
    assert entries == [1, 2, 3]


def test_a_command_too_large_for_the_log_is_refused(client: Client) -> None:
    """What a batch changes counts as well as what it contains, so that its entry fits into a reply of `get-log`."""
    names = [f"{at:0500}" for at in range(1_000)]
    room, other = "r" * 500, "s" * 500
    saves = [SaveMessage(message_record(name, "", room)) for name in names]
    client.execute(Batch.of(saves))
    moves = [UpdateMessage(name, MessageUpdates(room_id=other, content="x" * 5_000)) for name in names]
    with pytest.raises(TooLarge, match=f"the limit is {LOG_ENTRY_BYTES_MAX}"):
        client.execute(Batch.of(moves))
    assert client.ask(GetMessages(other)) == []
    client.execute(Batch.of(moves[:500]))
    assert client.ask(GetLog(from_seq=2)).entries[0].seq == 2


def test_results_of_a_batch_are_limited_together(transport: InProcess, client: Client) -> None:
    """A small batch whose results would be large is refused while they are added up, and has no effect."""
    channel = Channel(id="c", name=TEXT, type="text")
    client.execute(SaveRoom(Room(id="r", name="", channels=[channel])))
    updates = [UpdateChannel("c", ChannelUpdates(position=at), room_id="r") for at in range(1, 1_000)]
    error = ask(transport, Batch.of(updates), MSGPACK)["error"]
    assert error["code"] == "too-large"
    assert "split the batch" in error["message"]
    [stored] = client.ask(ListChannels("r"))
    assert stored == channel
    client.execute(Batch.of(updates[:5]))


def test_pages_of_the_log_and_of_rows_are_shorter_in_json(transport: InProcess, client: Client) -> None:
    """Their size is that in JSON, where control characters take six bytes."""
    for at in range(12):
        client.execute(save_message(at, ESCAPED[:300_000]))
    log = result(transport, GetLog(), JSON)["entries"]
    rows = result(transport, GetRows("messages"), JSON)
    assert 1 <= len(log) == len(rows["rows"]) <= PAGE_BYTES_MAX // (6 * 300_000)
    assert rows["next"] == [rows["rows"][-1]["id"]]


def test_small_pages_are_exact(client: Client) -> None:
    """Where messages are not large, a page has exactly `limit` of them."""
    for at in range(30):
        client.execute(SaveMessage(message_record(at, "x" * 10_000)))
        client.execute(SaveReaction(Reaction(message_id=f"m{at}", oder_id="u", emoji="+")))
    page: MessagePage = client.ask(GetMessagePage("r1", limit=29))
    assert len(page.messages) == 29
    assert page.has_older
