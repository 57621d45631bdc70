"""handlers/pages.py: pages by cursor, compared with slices of lists; and a history paged while others write."""

import base64
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    DELETED_TEXT,
    Channel,
    ClearAllData,
    ClearRoomMessages,
    CreateMessage,
    DeleteChannel,
    DeleteMessage,
    GetMessagePage,
    GetMessages,
    Invalid,
    ListMessages,
    Message,
    MessagePage,
    MessageUpdates,
    NotFound,
    Reaction,
    Room,
    SaveMessage,
    SaveRoom,
    SaveUser,
    UpdateMessage,
    User,
)
from backscroll.schema.limits import MILLIS_MAX
from tests.support.clocks import Clock
from tests.support.messages import from_history, save_message
from tests.support.requests import body, send

Expected = tuple[str, bool, bool]


def save(client: Client, message_id: str, timestamp: int = 0, **fields: Any) -> None:
    known: dict[str, Any] = {"content": f"text {message_id}", "timestamp": timestamp}
    client.execute(save_message(message_id, **(known | fields)))


def fill(client: Client, ids: str = "abcdefghij") -> None:
    """A message for each letter, a minute apart, and a message of another room at each of these times."""
    for minute, letter in enumerate(ids):
        save(client, letter, minute * 60_000)
        save(client, f"{letter} elsewhere", minute * 60_000, room_id="r2")


def shown(page: MessagePage) -> Expected:
    """The ids of a page, as one word, and its flags."""
    return "".join(each.id for each in page.messages), page.has_older, page.has_newer


def path_of(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value.details["path"])


# --- pages ---


def test_paging_backwards_from_the_newest_page(client: Client) -> None:
    """Every page has exactly `limit` messages, oldest first, until the beginning is reached."""
    fill(client)
    pages, cursor = [], None
    for _ in range(4):
        page = client.ask(GetMessagePage("r1", before=cursor, limit=3))
        pages.append(shown(page))
        cursor = page.older_cursor
    assert pages == [("hij", True, False), ("efg", True, True), ("bcd", True, True), ("a", False, True)]


def test_paging_forwards_from_the_oldest_page(client: Client) -> None:
    """Every page has exactly `limit` messages until the end is reached."""
    fill(client)
    page = client.ask(GetMessagePage("r1", around="a", limit=1))
    pages = [shown(page)]
    while page.has_newer:
        page = client.ask(GetMessagePage("r1", after=page.newer_cursor, limit=4))
        pages.append(shown(page))
    assert pages == [("a", False, True), ("bcde", True, True), ("fghi", True, True), ("j", True, False)]


def test_has_older_is_exact_for_a_full_last_page(client: Client) -> None:
    """A full page that ends with the list has no more pages after it."""
    fill(client, "abcdef")
    newest = client.ask(GetMessagePage("r1", limit=3))
    oldest = client.ask(GetMessagePage("r1", before=newest.older_cursor, limit=3))
    assert (shown(newest), shown(oldest)) == (("def", True, False), ("abc", False, True))
    again = client.ask(GetMessagePage("r1", after=oldest.newer_cursor, limit=3))
    assert again == newest


def test_a_page_beyond_the_end_is_empty_and_without_cursors(client: Client) -> None:
    """The caller keeps the last cursor, which finds later messages."""
    fill(client, "abc")
    page = client.ask(GetMessagePage("r1"))
    assert client.ask(GetMessagePage("r1", before=page.older_cursor)) == MessagePage(
        messages=[], has_older=False, has_newer=True
    )
    newer = GetMessagePage("r1", after=page.newer_cursor)
    assert client.ask(newer) == MessagePage(messages=[], has_older=True, has_newer=False)
    save(client, "d", 999_999)
    assert shown(client.ask(newer)) == ("d", True, False)


def test_a_room_without_messages_has_an_empty_page(client: Client) -> None:
    """There is nothing in either direction."""
    assert client.ask(GetMessagePage("nowhere")) == MessagePage(messages=[], has_older=False, has_newer=False)


@pytest.mark.parametrize(
    ("around", "limit", "expected"),
    [
        ("e", 1, ("e", True, True)),
        ("e", 2, ("de", True, True)),
        ("e", 3, ("def", True, True)),
        ("e", 4, ("cdef", True, True)),
        ("a", 4, ("abcd", False, True)),
        ("b", 5, ("abcde", False, True)),
        ("j", 4, ("ghij", True, False)),
        ("i", 6, ("efghij", True, False)),
        ("e", 10, ("abcdefghij", False, False)),
        ("a", 50, ("abcdefghij", False, False)),
    ],
)
def test_around_centres_the_page_on_the_message(client: Client, around: str, limit: int, expected: Expected) -> None:
    """Half of the page is before it; near one end the other side fills the page."""
    fill(client)
    assert shown(client.ask(GetMessagePage("r1", around=around, limit=limit))) == expected


def test_both_cursors_of_a_page_lead_to_its_neighbours(client: Client) -> None:
    """The neighbours of a page in the middle join it without gaps or repeats."""
    fill(client)
    page = client.ask(GetMessagePage("r1", around="e", limit=3))
    older = client.ask(GetMessagePage("r1", before=page.older_cursor, limit=2))
    newer = client.ask(GetMessagePage("r1", after=page.newer_cursor, limit=2))
    assert [shown(each)[0] for each in (older, page, newer)] == ["bc", "def", "gh"]


def test_a_channel_page_contains_only_that_channel(client: Client) -> None:
    """With a channel only its messages count for pages, flags and `around`; without, all messages of the room do."""
    for minute, letter in enumerate("abcdefgh"):
        save(client, letter, minute, channel_id=("general", "random", None, "general")[minute % 4])
    save(client, "x", 3, room_id="r2", channel_id="general")
    assert shown(client.ask(GetMessagePage("r1", limit=3))) == ("fgh", True, False)
    newest = client.ask(GetMessagePage("r1", channel_id="general", limit=2))
    assert shown(newest) == ("eh", True, False)
    oldest = client.ask(GetMessagePage("r1", channel_id="general", before=newest.older_cursor, limit=2))
    assert shown(oldest) == ("ad", False, True)
    assert shown(client.ask(GetMessagePage("r1", channel_id="random", around="b"))) == ("bf", False, False)
    with pytest.raises(NotFound):
        client.ask(GetMessagePage("r1", channel_id="random", around="a"))


def test_tombstones_are_included_or_left_out_of_pages(client: Client) -> None:
    """Tombstones count like other messages; without them pages are just as full and flags as exact."""
    fill(client, "abcdefgh")
    for message_id in "adeh":
        client.execute(DeleteMessage(message_id))
    page = client.ask(GetMessagePage("r1", limit=3))
    assert shown(page) == ("fgh", True, False)
    assert page.messages[2].content == DELETED_TEXT
    newest = client.ask(GetMessagePage("r1", limit=3, include_deleted=False))
    assert shown(newest) == ("cfg", True, False)
    oldest = client.ask(GetMessagePage("r1", before=newest.older_cursor, limit=3, include_deleted=False))
    assert shown(oldest) == ("b", False, True)
    assert shown(client.ask(GetMessagePage("r1", around="e", limit=3, include_deleted=False))) == ("cfg", True, False)
    assert shown(client.ask(GetMessagePage("r1", around="e", limit=3))) == ("def", True, True)


def test_a_page_has_complete_messages(client: Client) -> None:
    """Reactions are included, in the order of every other query."""
    reactions = [Reaction(message_id="a", oder_id=each, emoji="👍", timestamp=1) for each in ("bob", "eve")]
    save(client, "a", reactions=reactions[::-1], metadata={"a": 1})
    [message] = client.ask(GetMessagePage("r1")).messages
    assert message == client.ask(GetMessages("r1"))[0]
    assert message.reactions == reactions


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_messages_of_one_millisecond_are_paged_by_id(client: Client, limit: int) -> None:
    """No message is skipped or repeated where a page ends among equal timestamps."""
    ids = ["B", "a", "a-b", "b", "é", "\ue000", "\uffff", "\U00010000"]  # in the order of UTF-8
    for message_id in random.Random(limit).sample(ids, len(ids)):
        save(client, message_id, 7)
    assert [each.id for each in backwards(client, limit)] == ids
    assert [each.id for each in forwards(client, "B", limit)] == ids


def backwards(client: Client, limit: int) -> list[Message]:
    """The ids of a room, paged from the newest page back."""
    found: list[Message] = []
    page = client.ask(GetMessagePage("r1", limit=limit))
    while page.messages:
        found = [*page.messages, *found]
        page = client.ask(GetMessagePage("r1", before=page.older_cursor, limit=limit))
    return found


def forwards(client: Client, first: str, limit: int) -> list[Message]:
    """The ids of a room, paged from its first message on."""
    page = client.ask(GetMessagePage("r1", around=first, limit=1))
    found = list(page.messages)
    while page.has_newer:
        page = client.ask(GetMessagePage("r1", after=page.newer_cursor, limit=limit))
        found += page.messages
    return found


# --- cursors that outlive what they were made of ---


def move(client: Client, updates: MessageUpdates) -> None:
    client.execute(UpdateMessage("c", updates))


def clear_all_but_c(client: Client) -> None:
    client.execute(ClearRoomMessages("r1"))
    for minute, letter in enumerate("abcdef"):
        if letter != "c":
            save(client, letter, minute * 60_000)


FATES: list[tuple[str, Callable[[Client], None], str]] = [
    ("edited", lambda client: move(client, MessageUpdates(content="edited")), "abcdef"),
    ("deleted", lambda client: client.execute(DeleteMessage("c")), "abcdef"),
    ("saved again", lambda client: save(client, "c", 2 * 60_000, content="again"), "abcdef"),
    ("moved to another room", lambda client: move(client, MessageUpdates(room_id="r2")), "abdef"),
    ("moved to another time", lambda client: move(client, MessageUpdates(timestamp=999_999)), "abdefc"),
    ("cleared", clear_all_but_c, "abdef"),
]


@pytest.mark.parametrize(("change", "then"), [each[1:] for each in FATES], ids=[each[0] for each in FATES])
def test_a_cursor_stays_valid_when_its_message_changes(
    client: Client, change: Callable[[Client], None], then: str
) -> None:
    """It stands for a position, and finds what is before and after it even when its message is gone."""
    fill(client, "abcdef")
    page = client.ask(GetMessagePage("r1", around="c", limit=1))
    change(client)
    assert shown(client.ask(GetMessagePage("r1"))) == (then, False, False)
    assert shown(client.ask(GetMessagePage("r1", before=page.older_cursor))) == ("ab", False, True)
    newer = client.ask(GetMessagePage("r1", after=page.newer_cursor))
    assert shown(newer) == (then[then.index("d") :], True, False)


def test_page_flags_do_not_count_removed_messages(client: Client) -> None:
    """The message of the cursor counts for the flags only as long as it exists."""
    fill(client, "ab")
    page = client.ask(GetMessagePage("r1", around="a", limit=1))
    assert shown(client.ask(GetMessagePage("r1", after=page.newer_cursor))) == ("b", True, False)
    client.execute(ClearRoomMessages("r1"))
    save(client, "b", 60_000)
    assert shown(client.ask(GetMessagePage("r1", after=page.newer_cursor))) == ("b", False, False)


def test_around_an_unknown_message_is_not_found(client: Client) -> None:
    """Neither is a message of another room, or one that was cleared."""
    fill(client, "ab")
    save(client, "gone", room_id="r3")
    client.execute(ClearRoomMessages("r3"))
    for room_id, around in (("r1", "never"), ("r1", "a elsewhere"), ("r2", "a"), ("r3", "gone")):
        with pytest.raises(NotFound) as refused:
            client.ask(GetMessagePage(room_id, around=around))
        assert path_of(refused) == "$.payload.around"


# --- refusals ---


@pytest.mark.parametrize("limit", [0, -1, 501, 1_000_000, "5", 1.5, None])
def test_a_page_limit_is_from_1_to_500(transport: InProcess, limit: object) -> None:
    """Anything else is invalid, by its path, for both kinds of pages."""
    for operation, place in (("get-message-page", {"roomId": "r1"}), ("list-messages", {"channelId": "general"})):
        error = send(transport, body(operation, {**place, "limit": limit}))["error"]
        assert (error["code"], error["details"]) == ("invalid", {"path": "$.payload.limit"})
        for fine in (1, 500):
            assert send(transport, body(operation, {**place, "limit": fine}))["ok"]


@pytest.mark.parametrize(
    "given_names", [*itertools.combinations(("before", "after", "around"), 2), ("before", "after", "around")]
)
def test_before_after_and_around_are_mutually_exclusive(client: Client, given_names: tuple[str, ...]) -> None:
    """Two of them are invalid, even where each alone would be accepted."""
    fill(client, "abc")
    page = client.ask(GetMessagePage("r1", around="b", limit=1))
    places: dict[str, Any] = {"before": page.older_cursor, "after": page.newer_cursor, "around": "b"}
    with pytest.raises(Invalid) as refused:
        client.ask(GetMessagePage("r1", **{name: places[name] for name in given_names}))
    assert path_of(refused) == "$.payload"


def one_of(name: str, cursor: str | None) -> dict[str, Any]:
    """The keyword argument for a cursor: `before` or `after`."""
    return {name: cursor}


def packed(*values: Any) -> str:
    """A text that looks like a cursor."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(values)).decode().rstrip("=")


GARBAGE = [
    "x",
    "AAAA",
    "not base64!",
    "👍",
    "\x00",
    "a" * 1024,
    packed(),
    packed("r1", None, None, False, 1, 0),
    packed("r1", None, None, False, 1, 0, "a", "b"),
    packed("r1", None, None, False, "1", 0, "a"),
    packed("r1", None, None, False, -1, 0, "a"),
    packed("r1", None, None, False, 2**53, 0, "a"),
    packed("r1", None, None, False, 2**64 - 1, 0, "a"),
    packed("r1", None, None, False, 1.5, 0, "a"),
    packed("r1", None, None, False, 1, 2**53, "a"),
    packed("r1", None, None, False, 1, None, "a"),
    packed("r1", None, None, False, 1, 0, None),
    packed("r1", None, None, 0, 1, 0, "a"),
    packed("r1", None, 1, False, 1, 0, "a"),
    packed(None, None, None, False, 1, 0, "a"),
]


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("cursor", GARBAGE, ids=range(len(GARBAGE)))
def test_a_forged_cursor_is_invalid(client: Client, name: str, cursor: str) -> None:
    """It is refused by its path, and never an internal error."""
    fill(client, "ab")
    with pytest.raises(Invalid) as refused:
        client.ask(GetMessagePage("r1", **one_of(name, cursor)))
    assert path_of(refused) == f"$.payload.{name}"


@given(st.text(max_size=40) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_cursor_or_invalid(transport: InProcess, cursor: str) -> None:
    """Any text at all is a valid cursor or refused by its path."""
    reply = send(transport, body("get-message-page", {"roomId": "r1", "after": cursor}))
    assert reply["ok"] or (reply["error"]["code"], reply["error"]["details"]["path"]) == ("invalid", "$.payload.after")


@pytest.mark.parametrize("name", ["before", "after"])
def test_a_cursor_of_another_room_or_channel_is_invalid(client: Client, name: str) -> None:
    """Whether tombstones are included makes no difference."""
    for letter in "ab":
        save(client, letter, channel_id="general")
        save(client, f"{letter} elsewhere", room_id="r2", channel_id="general")
    of_room = client.ask(GetMessagePage("r1")).older_cursor
    of_channel = client.ask(GetMessagePage("r1", channel_id="general")).older_cursor
    for room_id, channel_id, cursor in (
        ("r2", None, of_room),
        ("r1", "general", of_room),
        ("r1", None, of_channel),
        ("r1", "random", of_channel),
        ("r2", "general", of_channel),
    ):
        with pytest.raises(Invalid) as refused:
            client.ask(GetMessagePage(room_id, channel_id=channel_id, **one_of(name, cursor)))
        assert path_of(refused) == f"$.payload.{name}"
    assert client.ask(GetMessagePage("r1", include_deleted=False, **one_of(name, of_room)))


def test_cursors_of_the_longest_ids_are_accepted(client: Client) -> None:
    """However long the ids of room, channel and message are, the cursor is within its limit."""
    longest: dict[str, Any] = {"room_id": "🙂" * 128, "channel_id": "👍" * 128}
    for letter in "ab":
        save(client, letter + "🎉" * 127, MILLIS_MAX, **longest)
    page = client.ask(GetMessagePage(**longest, limit=1))
    assert client.ask(GetMessagePage(**longest, before=page.older_cursor)).messages[0].id[0] == "a"


# --- list-messages ---


@pytest.fixture
def general(client: Client) -> Channel:
    """A channel of the default room, and a user who can write there."""
    channel = Channel(id="general", name="general", type="text")
    client.execute(SaveRoom(Room(id="default", name="D", channels=[channel, Channel(id="b", name="b", type="text")])))
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada")))
    return channel


def listed(client: Client, **fields: Any) -> tuple[list[str], bool]:
    """The texts of a list, and whether there are more."""
    found = client.ask(ListMessages("general", **fields))
    return [each.content for each in found.messages], found.has_more


def test_list_messages_is_newest_first(client: Client, general: Channel, clock: Clock) -> None:
    """`before` is the id of the last message seen, and all pages are in the same order."""
    created = []
    for number in range(7):
        clock.now += number % 2  # every second one has the same millisecond as the one before
        created.append(client.execute(CreateMessage("general", "ada", str(number))))
        client.execute(CreateMessage("b", "ada", "elsewhere"))
    pages, before = [], None
    for _ in range(3):
        page = client.ask(ListMessages("general", before=before, limit=3))
        pages.append(([each.content for each in page.messages], page.has_more))
        before = page.messages[-1].id
    assert pages == [(["6", "5", "4"], True), (["3", "2", "1"], True), (["0"], False)]
    assert client.ask(ListMessages("general", limit=3, before=created[3].id)).messages == created[2::-1]
    assert listed(client) == (["6", "5", "4", "3", "2", "1", "0"], False)


def test_list_messages_skips_tombstones(client: Client, general: Channel) -> None:
    """Pages are full without them, and a tombstone is still a valid `before`."""
    created = [client.execute(CreateMessage("general", "ada", str(number))) for number in range(8)]
    for number in (0, 3, 4, 7):
        client.execute(DeleteMessage(created[number].id))
    assert listed(client, limit=3) == (["6", "5", "2"], True)
    assert listed(client, limit=2, before=created[5].id) == (["2", "1"], False)
    assert listed(client, before=created[4].id) == (["2", "1"], False)
    assert listed(client, before=created[1].id) == ([], False)


def test_list_messages_before_an_unknown_message_is_not_found(client: Client, general: Channel) -> None:
    """Neither is a message of another channel or room; an empty channel is an empty list."""
    elsewhere = client.execute(CreateMessage("b", "ada", "x"))
    save(client, "in r1", channel_id="general")
    for before in ("nobody", elsewhere.id, "in r1"):
        with pytest.raises(NotFound) as refused:
            client.ask(ListMessages("general", before=before))
        assert path_of(refused) == "$.payload.before"
    assert listed(client) == ([], False)


# --- against plain lists ---

IDS = [f"m{number}" for number in range(9)]
Saved = dict[str, Any]
saved = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from(IDS),
            "timestamp": st.integers(0, 3),
            "room_id": st.sampled_from(["r1", "r2"]),
            "channel_id": st.sampled_from([None, "general", "random"]),
            "is_deleted": st.booleans(),
        }
    ),
    unique_by=lambda each: each["id"],
)
ASKED = st.fixed_dictionaries(
    {
        "room_id": st.sampled_from(["r1", "r2"]),
        "channel_id": st.sampled_from([None, "general"]),
        "limit": st.integers(1, 5),
        "include_deleted": st.booleans(),
    }
)


def stretch(messages: list[Saved], asked: Saved) -> list[tuple[int, str]]:
    """The positions of all messages that can be paged through, in order."""
    return sorted(
        (each["timestamp"], each["id"])
        for each in messages
        if each["room_id"] == asked["room_id"]
        and asked["channel_id"] in (None, each["channel_id"])
        and (asked["include_deleted"] or not each["is_deleted"])
    )


@given(saved, saved, ASKED, st.sampled_from([None, "before", "after"]), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_equal_slices_of_a_list(
    transport: InProcess, first: list[Saved], then: list[Saved], asked: Saved, way: str | None, data: st.DataObject
) -> None:
    """A cursor of any page, used after everything has changed, gives what is before or after its position."""
    client = Client(transport=transport)
    client.execute(ClearAllData())
    for each in first:
        save(client, **_with_name(each))
    place, places = None, stretch(first, asked)
    if way is not None and places:
        place = data.draw(st.sampled_from(places))
        single = GetMessagePage(**{**asked, "limit": 1, "around": place[1]})
        page = client.ask(single)
        asked = {**asked, way: page.older_cursor if way == "before" else page.newer_cursor}
        client.execute(ClearAllData())
        for each in then:
            save(client, **_with_name(each))
    places = stretch(then if place else first, asked)
    found = client.ask(GetMessagePage(**asked))
    if way == "after" and place:
        wanted = [each for each in places if each > place][: asked["limit"]]
        older, newer = [each for each in places if each <= place], [each for each in places if each > place]
        flags = (bool(older), len(newer) > len(wanted))
    else:
        older = [each for each in places if place is None or each < place]
        wanted = older[-asked["limit"] :]
        flags = (len(older) > len(wanted), len(places) > len(older))
    assert [(each.timestamp, each.id) for each in found.messages] == wanted
    assert (found.has_older, found.has_newer) == flags


@given(saved, ASKED, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_around_a_message_equal_slices_of_a_list(
    transport: InProcess, messages: list[Saved], asked: Saved, data: st.DataObject
) -> None:
    """The page is full where the list is long enough, has the message, and is centred as far as the ends allow."""
    client = Client(transport=transport)
    client.execute(ClearAllData())
    for each in messages:
        save(client, **_with_name(each))
    anywhere = stretch(messages, {**asked, "include_deleted": True})
    if not anywhere:
        return
    place, places, limit = data.draw(st.sampled_from(anywhere)), stretch(messages, asked), asked["limit"]
    page = client.ask(GetMessagePage(**asked, around=place[1]))
    at = len([each for each in places if each < place])
    start = max(0, min(at - limit // 2, len(places) - limit))
    assert [(each.timestamp, each.id) for each in page.messages] == places[start : start + limit]
    assert (page.has_older, page.has_newer) == (start > 0, start + limit < len(places))


def _with_name(message: Saved) -> Saved:
    return {"message_id" if name == "id" else name: value for name, value in message.items()}


# --- a whole history while others write ---

WORK_SEED = 20260103
WORKED_AT_ONCE = 20
REMOVED_WHOLE = 0.02
WORKED = Channel(id="the worker's", name="w", type="text")
PAGE_LIMIT = 97
TIMEOUT_MS = 60_000


class Worker:
    """Another client that writes all over a history, in a thread, until it is stopped.

    It inserts messages into a channel of its own, deletes the given messages, and now and then removes its channel with
    all messages.
    """

    def __init__(self, endpoint: str, streams: list[str], times: tuple[int, int], doomed: list[str]) -> None:
        self._endpoint = endpoint
        self._draw = random.Random(WORK_SEED)
        self._streams = streams
        self._times = times
        self._doomed = doomed
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker")
        self.inserted = self.deleted = self.removed = 0

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            with Client(self._endpoint, timeout_ms=TIMEOUT_MS) as client:
                while not self._stop.is_set():
                    list(client.pipeline(self._work()))
        except BaseException as error:  # noqa: BLE001  # raised again where the thread is joined
            self._error = error

    def _work(self) -> Iterator[Any]:
        for _ in range(WORKED_AT_ONCE):
            room_id = self._draw.choice(self._streams)
            if self._draw.random() < REMOVED_WHOLE:
                self.removed += 1
                yield SaveRoom(Room(id=room_id, name=room_id, channels=[WORKED]))
                yield DeleteChannel(WORKED.id, room_id=room_id, cascade=True)
            elif self._doomed and self._draw.random() < 0.5:
                self.deleted += 1
                yield DeleteMessage(self._doomed.pop())
            else:
                self.inserted += 1
                yield save_message(
                    f"new-{self._draw.getrandbits(64):x}",
                    "in between",
                    room_id,
                    channel_id=WORKED.id,
                    sender_id="worker",
                    timestamp=self._draw.randint(*self._times),
                )


class Trip(NamedTuple):
    """The ids in the order in which pages showed them, and the size of each page."""

    ids: list[str]
    sizes: list[int]


def travel(client: Client, room_id: str, first: str | None, include_deleted: bool) -> Trip:
    """Page through a room: from `first` to its end, or without it from the end to the beginning."""
    ids, sizes = [], []
    place: dict[str, Any] = {}
    if first is not None:
        start = client.ask(GetMessagePage(room_id, around=first, limit=1))
        oldest = client.ask(GetMessagePage(room_id, before=start.older_cursor, limit=1))
        assert not oldest.messages, "the first message is where a journey forwards begins"
        ids, place = [first], {"after": start.newer_cursor}
    more = True
    while more:
        page = client.ask(GetMessagePage(room_id, **place, limit=PAGE_LIMIT, include_deleted=include_deleted))
        more = page.has_newer if first is not None else page.has_older
        place = {"after": page.newer_cursor} if first is not None else {"before": page.older_cursor}
        shown_now = [each.id for each in page.messages]
        assert len(shown_now) == PAGE_LIMIT or not more, "a page is full until the end"
        ids += shown_now if first is not None else shown_now[::-1]
        sizes.append(len(shown_now))
    return Trip(ids, sizes)


def test_a_history_is_paged_completely_under_concurrent_writes(
    start_daemon: Callable[..., DaemonProcess], chat_history: Any
) -> None:
    """In both directions no message that existed throughout is skipped or repeated, and every page is full."""
    history = chat_history.messages
    doomed_ids = random.Random(WORK_SEED).sample([str(each["id"]) for each in history], len(history) // 3)
    doomed = set(doomed_ids)
    rooms: dict[str, list[str]] = {}
    for each in sorted(history, key=lambda each: (each["timestamp"], str(each["id"]))):
        rooms.setdefault(each["stream"], []).append(str(each["id"]))
    times = (history[0]["timestamp"], history[-1]["timestamp"])
    # Paging forwards begins at a message that is older than all others, and nothing is inserted before it.
    firsts = {room_id: f"first-{room_id}"[:32] for room_id in rooms}
    daemon = start_daemon("--log-level", "warning")
    with Client(daemon.endpoint, timeout_ms=TIMEOUT_MS) as client:
        for room_id, first in firsts.items():
            save(client, first, times[0] - 1, room_id=room_id)
            client.execute(SaveRoom(Room(id=room_id, name=room_id)))
        for _ in client.pipeline(SaveMessage(from_history(each)) for each in history):
            pass
        pages = 0
        with Worker(daemon.endpoint, list(rooms), times, doomed_ids) as worker:
            for include_deleted in (True, False):
                for room_id, ids in rooms.items():
                    for start in (None, firsts[room_id]):
                        trip = travel(client, room_id, start, include_deleted)
                        pages += len(trip.sizes)
                        stayed = [firsts[room_id], *(each for each in ids if include_deleted or each not in doomed)]
                        _is_whole(trip.ids, stayed if start else stayed[::-1])
    assert worker.inserted > WORKED_AT_ONCE
    assert worker.deleted > WORKED_AT_ONCE
    assert worker.removed
    print(  # noqa: T201
        f"{chat_history.source}: {len(history)} messages in {len(rooms)} rooms, {pages} pages, "
        f"{worker.inserted} inserted, {worker.deleted} deleted and {worker.removed} times a channel removed meanwhile, "
        f"seed {WORK_SEED}"
    )


def _is_whole(seen: list[str], stayed: list[str]) -> None:
    assert len(seen) == len(set(seen)), "nothing comes twice"
    known = set(stayed)
    assert [each for each in seen if each in known] == stayed
