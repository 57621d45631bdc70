"""handlers/pages.py: pages by cursor, held against plain lists; and a whole history paged while others write."""

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
from tests.support.requests import body, send

Expected = tuple[str, bool, bool]


def save(client: Client, message_id: str, timestamp: int = 0, **fields: Any) -> None:
    known = {"room_id": "r1", "sender_id": "ada", "content": f"text {message_id}"}
    client.execute(SaveMessage(Message(id=message_id, timestamp=timestamp, **(known | fields))))


def fill(client: Client, ids: str = "abcdefghij") -> None:
    """A message for each letter, a minute after the one before, and one of another room at the same time."""
    for minute, letter in enumerate(ids):
        save(client, letter, minute * 60_000)
        save(client, f"{letter} elsewhere", minute * 60_000, room_id="r2")


def shown(page: MessagePage) -> Expected:
    """The ids of a page, as one word, and its flags."""
    return "".join(each.id for each in page.messages), page.has_older, page.has_newer


def path_of(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value.details["path"])


# --- pages ---


def test_the_newest_page_comes_first_and_cursors_lead_back(client: Client) -> None:
    """Every page has exactly `limit` messages, oldest first, until the beginning is reached."""
    fill(client)
    pages, cursor = [], None
    for _ in range(4):
        page = client.ask(GetMessagePage("r1", before=cursor, limit=3))
        pages.append(shown(page))
        cursor = page.older_cursor
    assert pages == [("hij", True, False), ("efg", True, True), ("bcd", True, True), ("a", False, True)]


def test_cursors_lead_forwards_too(client: Client) -> None:
    """From the oldest page on, every page has exactly `limit` messages until the end is reached."""
    fill(client)
    page = client.ask(GetMessagePage("r1", around="a", limit=1))
    pages = [shown(page)]
    while page.has_newer:
        page = client.ask(GetMessagePage("r1", after=page.newer_cursor, limit=4))
        pages.append(shown(page))
    assert pages == [("a", False, True), ("bcde", True, True), ("fghi", True, True), ("j", True, False)]


def test_a_page_that_ends_with_the_list_has_no_more(client: Client) -> None:
    """The flags are exact where the last page is full."""
    fill(client, "abcdef")
    newest = client.ask(GetMessagePage("r1", limit=3))
    oldest = client.ask(GetMessagePage("r1", before=newest.older_cursor, limit=3))
    assert (shown(newest), shown(oldest)) == (("def", True, False), ("abc", False, True))
    again = client.ask(GetMessagePage("r1", after=oldest.newer_cursor, limit=3))
    assert again == newest


def test_a_page_beyond_an_end_is_empty_and_has_no_cursors(client: Client) -> None:
    """Whoever asks for more than there is keeps the cursor they have, and finds what comes later with it."""
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
    """Nothing is there, in either direction."""
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
def test_around_puts_the_message_in_the_middle(client: Client, around: str, limit: int, expected: Expected) -> None:
    """Half of the page is before it; near an end the other side fills the page up."""
    fill(client)
    assert shown(client.ask(GetMessagePage("r1", around=around, limit=limit))) == expected


def test_both_cursors_of_any_page_lead_on(client: Client) -> None:
    """A page in the middle is joined by its neighbours without a gap or a repeat."""
    fill(client)
    page = client.ask(GetMessagePage("r1", around="e", limit=3))
    older = client.ask(GetMessagePage("r1", before=page.older_cursor, limit=2))
    newer = client.ask(GetMessagePage("r1", after=page.newer_cursor, limit=2))
    assert [shown(each)[0] for each in (older, page, newer)] == ["bc", "def", "gh"]


def test_a_page_of_a_channel_has_nothing_of_its_room(client: Client) -> None:
    """With a channel only its messages count, for pages, flags and `around`; without, all of the room do."""
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


def test_deleted_messages_keep_their_place_or_are_left_out(client: Client) -> None:
    """Tombstones are masked, and counted like others; without them pages are just as full and flags as exact."""
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


def test_a_page_shows_whole_messages(client: Client) -> None:
    """Reactions are put back in their order, as in every other query."""
    reactions = [Reaction(message_id="a", oder_id=each, emoji="👍", timestamp=1) for each in ("bob", "eve")]
    save(client, "a", reactions=reactions[::-1], metadata={"a": 1})
    [message] = client.ask(GetMessagePage("r1")).messages
    assert message == client.ask(GetMessages("r1"))[0]
    assert message.reactions == reactions


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_messages_of_one_millisecond_are_paged_by_id(client: Client, limit: int) -> None:
    """None is missed and none comes twice where a page ends among equal time stamps."""
    ids = ["B", "a", "a-b", "b", "é", "\ue000", "\uffff", "\U00010000"]  # in the order of UTF-8
    for message_id in random.Random(limit).sample(ids, len(ids)):
        save(client, message_id, 7)
    assert [each.id for each in backwards(client, limit)] == ids
    assert [each.id for each in forwards(client, "B", limit)] == ids


def backwards(client: Client, limit: int) -> list[Message]:
    """A whole room, from its newest page back."""
    found: list[Message] = []
    page = client.ask(GetMessagePage("r1", limit=limit))
    while page.messages:
        found = [*page.messages, *found]
        page = client.ask(GetMessagePage("r1", before=page.older_cursor, limit=limit))
    return found


def forwards(client: Client, first: str, limit: int) -> list[Message]:
    """A whole room, from its first message on."""
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
def test_a_cursor_stays_valid_whatever_becomes_of_its_message(
    client: Client, change: Callable[[Client], None], then: str
) -> None:
    """It stands for a place, and what is before and after that place is found all the same."""
    fill(client, "abcdef")
    page = client.ask(GetMessagePage("r1", around="c", limit=1))
    change(client)
    assert shown(client.ask(GetMessagePage("r1"))) == (then, False, False)
    assert shown(client.ask(GetMessagePage("r1", before=page.older_cursor))) == ("ab", False, True)
    newer = client.ask(GetMessagePage("r1", after=page.newer_cursor))
    assert shown(newer) == (then[then.index("d") :], True, False)


def test_has_older_and_has_newer_do_not_count_what_is_gone(client: Client) -> None:
    """A cursor's own message counts for the flags while it is there, and no longer."""
    fill(client, "ab")
    page = client.ask(GetMessagePage("r1", around="a", limit=1))
    assert shown(client.ask(GetMessagePage("r1", after=page.newer_cursor))) == ("b", True, False)
    client.execute(ClearRoomMessages("r1"))
    save(client, "b", 60_000)
    assert shown(client.ask(GetMessagePage("r1", after=page.newer_cursor))) == ("b", False, False)


def test_around_an_unknown_message_is_not_found(client: Client) -> None:
    """Neither one that never was nor one of another room or one that was cleared is here."""
    fill(client, "ab")
    save(client, "gone", room_id="r3")
    client.execute(ClearRoomMessages("r3"))
    for room_id, around in (("r1", "never"), ("r1", "a elsewhere"), ("r2", "a"), ("r3", "gone")):
        with pytest.raises(NotFound) as refused:
            client.ask(GetMessagePage(room_id, around=around))
        assert path_of(refused) == "$.payload.around"


# --- refusals ---


@pytest.mark.parametrize("limit", [0, -1, 501, 1_000_000, "5", 1.5, None])
def test_a_limit_is_from_1_to_500(transport: InProcess, limit: object) -> None:
    """Whatever else is invalid, by its path, for both kinds of pages."""
    for operation, place in (("get-message-page", {"roomId": "r1"}), ("list-messages", {"channelId": "general"})):
        error = send(transport, body(operation, {**place, "limit": limit}))["error"]
        assert (error["code"], error["details"]) == ("invalid", {"path": "$.payload.limit"})
        for fine in (1, 500):
            assert send(transport, body(operation, {**place, "limit": fine}))["ok"]


@pytest.mark.parametrize(
    "given_names", [*itertools.combinations(("before", "after", "around"), 2), ("before", "after", "around")]
)
def test_only_one_direction_can_be_asked_for(client: Client, given_names: tuple[str, ...]) -> None:
    """Two of before, after and around are invalid, even where each alone would do."""
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
    """Text that looks like a cursor."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(values)).decode().rstrip("=")


GARBAGE = [
    "x",
    "AAAA",
    "not base64!",
    "👍",
    "\x00",
    "a" * 1024,
    packed(),
    packed("r1", None, 1),
    packed("r1", None, 1, "a", "b"),
    packed("r1", None, "1", "a"),
    packed("r1", None, -1, "a"),
    packed("r1", None, 2**53, "a"),
    packed("r1", None, 2**64 - 1, "a"),
    packed("r1", None, 1.5, "a"),
    packed("r1", None, 1, None),
    packed(None, None, 1, "a"),
]


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("cursor", GARBAGE, ids=range(len(GARBAGE)))
def test_what_no_page_gave_is_invalid(client: Client, name: str, cursor: str) -> None:
    """Garbage is refused by its path, and is never a fault of the daemon's."""
    fill(client, "ab")
    with pytest.raises(Invalid) as refused:
        client.ask(GetMessagePage("r1", **one_of(name, cursor)))
    assert path_of(refused) == f"$.payload.{name}"


@given(st.text(max_size=40) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_cursor_or_invalid(transport: InProcess, cursor: str) -> None:
    """Nothing that can be written as a cursor does harm."""
    reply = send(transport, body("get-message-page", {"roomId": "r1", "after": cursor}))
    assert reply["ok"] or (reply["error"]["code"], reply["error"]["details"]["path"]) == ("invalid", "$.payload.after")


@pytest.mark.parametrize("name", ["before", "after"])
def test_a_cursor_of_another_list_is_invalid(client: Client, name: str) -> None:
    """A cursor belongs to its room and channel; with deleted messages or without is the same list."""
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


def test_the_longest_ids_make_cursors_that_are_taken_back(client: Client) -> None:
    """However long room, channel and message are named, the cursor fits its limit."""
    longest: dict[str, Any] = {"room_id": "🙂" * 128, "channel_id": "👍" * 128}
    for letter in "ab":
        save(client, letter + "🎉" * 127, MILLIS_MAX, **longest)
    page = client.ask(GetMessagePage(**longest, limit=1))
    assert client.ask(GetMessagePage(**longest, before=page.older_cursor)).messages[0].id[0] == "a"


# --- list-messages ---


@pytest.fixture
def general(client: Client) -> Channel:
    """A channel of the default room, and a user who may speak there."""
    channel = Channel(id="general", name="general", type="text")
    client.execute(SaveRoom(Room(id="default", name="D", channels=[channel, Channel(id="b", name="b", type="text")])))
    client.execute(SaveUser(User(oder_id="ada", id="u1", username="ada")))
    return channel


def listed(client: Client, **fields: Any) -> tuple[list[str], bool]:
    """The texts of a list, and whether there is more."""
    found = client.ask(ListMessages("general", **fields))
    return [each.content for each in found.messages], found.has_more


def test_list_messages_is_newest_first(client: Client, general: Channel, clock: Clock) -> None:
    """`before` is the id of the last message seen; the first page is ordered as the following ones are."""
    said = []
    for number in range(7):
        clock.now += number % 2  # every other one is of the same millisecond as the one before
        said.append(client.execute(CreateMessage("general", "ada", str(number))))
        client.execute(CreateMessage("b", "ada", "elsewhere"))
    pages, before = [], None
    for _ in range(3):
        page = client.ask(ListMessages("general", before=before, limit=3))
        pages.append(([each.content for each in page.messages], page.has_more))
        before = page.messages[-1].id
    assert pages == [(["6", "5", "4"], True), (["3", "2", "1"], True), (["0"], False)]
    assert client.ask(ListMessages("general", limit=3, before=said[3].id)).messages == said[2::-1]
    assert listed(client) == (["6", "5", "4", "3", "2", "1", "0"], False)


def test_list_messages_leaves_tombstones_out(client: Client, general: Channel) -> None:
    """Pages are full without them, and one of them still is a place to go on from."""
    said = [client.execute(CreateMessage("general", "ada", str(number))) for number in range(8)]
    for number in (0, 3, 4, 7):
        client.execute(DeleteMessage(said[number].id))
    assert listed(client, limit=3) == (["6", "5", "2"], True)
    assert listed(client, limit=2, before=said[5].id) == (["2", "1"], False)
    assert listed(client, before=said[4].id) == (["2", "1"], False)
    assert listed(client, before=said[1].id) == ([], False)


def test_list_messages_before_an_unknown_message_is_not_found(client: Client, general: Channel) -> None:
    """Nor is a message of another channel or room a place here; an empty channel is an empty list."""
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
    """What can be paged through, as places in order."""
    return sorted(
        (each["timestamp"], each["id"])
        for each in messages
        if each["room_id"] == asked["room_id"]
        and asked["channel_id"] in (None, each["channel_id"])
        and (asked["include_deleted"] or not each["is_deleted"])
    )


@given(saved, saved, ASKED, st.sampled_from([None, "before", "after"]), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_are_what_plain_lists_give(
    transport: InProcess, first: list[Saved], then: list[Saved], asked: Saved, way: str | None, data: st.DataObject
) -> None:
    """A cursor of any page, used after everything has changed, gives what is before or after its place."""
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
def test_around_is_what_plain_lists_give(
    transport: InProcess, messages: list[Saved], asked: Saved, data: st.DataObject
) -> None:
    """The page is full where the list has as many, holds the place, and is as near its middle as the ends let it."""
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

    It inserts messages into a channel of its own, turns doomed ones into tombstones, and now and then removes that
    channel with all its rows.
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
                yield SaveMessage(
                    Message(
                        id=f"new-{self._draw.getrandbits(64):x}",
                        room_id=room_id,
                        channel_id=WORKED.id,
                        sender_id="worker",
                        content="in between",
                        timestamp=self._draw.randint(*self._times),
                    )
                )


class Trip(NamedTuple):
    """Ids in the order in which pages showed them, and how long each page was."""

    ids: list[str]
    sizes: list[int]


def travel(client: Client, room_id: str, first: str | None, include_deleted: bool) -> Trip:
    """Page through a room: from `first` on to its end, or without it from the end back to the beginning."""
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


def test_a_whole_history_is_paged_while_others_insert_and_delete(
    start_daemon: Callable[..., DaemonProcess], chat_history: Any
) -> None:
    """In both directions, no message that existed throughout is missed or seen twice, and every page is full."""
    history = chat_history.messages
    doomed_ids = random.Random(WORK_SEED).sample([str(each["id"]) for each in history], len(history) // 3)
    doomed = set(doomed_ids)
    rooms: dict[str, list[str]] = {}
    for each in sorted(history, key=lambda each: (each["timestamp"], str(each["id"]))):
        rooms.setdefault(each["stream"], []).append(str(each["id"]))
    times = (history[0]["timestamp"], history[-1]["timestamp"])
    # Journeys forwards begin at a message that is older than all others, and nothing is inserted before it.
    firsts = {room_id: f"first-{room_id}"[:32] for room_id in rooms}
    daemon = start_daemon("--log-level", "warning")
    with Client(daemon.endpoint, timeout_ms=TIMEOUT_MS) as client:
        for room_id, first in firsts.items():
            save(client, first, times[0] - 1, room_id=room_id)
            client.execute(SaveRoom(Room(id=room_id, name=room_id)))
        for _ in client.pipeline(_as_saved(each) for each in history):
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


def _as_saved(item: dict[str, Any]) -> SaveMessage:
    return SaveMessage(
        Message(
            id=str(item["id"]),
            room_id=item["stream"],
            channel_id=item["topic"][:30],
            sender_id=item["sender"],
            content=item["content"],
            timestamp=item["timestamp"],
        )
    )
