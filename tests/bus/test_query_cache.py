"""The query cache: replies are reused until what they depend on changes, and bounded in size."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from backscroll.bus.inprocess import InProcess
from backscroll.bus.query_cache import ENTRY_BYTES, ROOMS_MAX, QueryCache
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.handlers import HANDLERS, Cached, Handlers
from backscroll.schema import OPERATIONS, GetMessagePage, GetMessages, GetRoom, ListMessages, Query
from backscroll.schema.command_log import Change
from backscroll.schema.wire import JSON, MSGPACK
from tests.support.handlers import handler_of, replacing
from tests.support.messages import save_payload
from tests.support.peers import REPLY_SECONDS, Peer, running
from tests.support.requests import body, result, send
from tests.support.stores import in_process
from tests.support.waiting import wait_until

ASKED = GetMessages("r1")
BY_THE_CLOCK = {"get-bans-for-room", "is-user-banned", "get-session"}
PAGE, COMMIT = Cached.UNTIL_ROOM_CHANGES, Cached.UNTIL_COMMIT


def messages_of(*rooms: str | None) -> list[Change]:
    """Changes of these rooms' messages; None stands for those of all rooms."""
    return [Change(noun="message", room_id=room) for room in rooms]


def test_a_cached_result_is_of_one_query_and_encoding() -> None:
    """Another query, another encoding or an earlier snapshot does not get it."""
    kept = QueryCache()
    kept.put(ASKED, JSON, 7, PAGE, b"[]")
    assert kept.get(GetMessages("r1"), JSON, 7, PAGE) == b"[]"
    for query, codec, seq in ((GetMessages("r2"), JSON, 7), (ASKED, MSGPACK, 7), (ASKED, JSON, 6)):
        assert kept.get(query, codec, seq, PAGE) is None


def test_a_cached_page_is_valid_until_its_room_changes() -> None:
    """Changes of other rooms keep it; one of its room, or of all rooms, drops it, also for results of older
    snapshots.
    """
    kept = QueryCache()
    kept.put(ASKED, JSON, 7, PAGE, b"old")
    kept.evict([*messages_of("r2"), Change(noun="room", id="r1", room_id="r1")], 8)
    assert kept.get(ASKED, JSON, 8, PAGE) == b"old"
    kept.evict(messages_of("r2", "r1"), 10)
    kept.put(ASKED, JSON, 9, PAGE, b"old")
    assert [kept.get(ASKED, JSON, seq, PAGE) for seq in (8, 9, 10)] == [None] * 3
    kept.put(ASKED, JSON, 10, PAGE, b"new")
    kept.put(ASKED, JSON, 9, PAGE, b"old")
    assert kept.get(ASKED, JSON, 10, PAGE) == b"new"
    kept.evict(messages_of(None), 11)
    assert kept.get(ASKED, JSON, 11, PAGE) is None


def test_the_number_of_tracked_rooms_is_limited() -> None:
    """Where more rooms have changed than are tracked, every room counts as changed."""
    kept = QueryCache()
    kept.put(ASKED, JSON, 0, PAGE, b"old")
    touched = 0
    while kept.get(ASKED, JSON, touched, PAGE) == b"old":
        touched += 1
        kept.evict(messages_of(f"another {touched}"), touched)
        assert touched <= ROOMS_MAX + 1
    for number in range(touched, touched + 2 * ROOMS_MAX):
        kept.put(ASKED, JSON, number, PAGE, b"old")
        kept.evict(messages_of(f"another {number}"), number + 1)
    last = touched + 2 * ROOMS_MAX + 1
    kept.evict(messages_of("r1"), last)
    assert kept.get(ASKED, JSON, last, PAGE) is None


def test_other_cached_results_are_valid_until_the_next_commit() -> None:
    """Results that do not depend on one room's messages are dropped by any commit."""
    kept = QueryCache()
    kept.put(GetRoom("r1"), JSON, 7, COMMIT, b"{}")
    assert [kept.get(GetRoom("r1"), JSON, seq, COMMIT) for seq in (6, 7, 8)] == [None, b"{}", None]


def test_the_cache_is_limited_in_bytes() -> None:
    """When results with their overhead exceed the limit all are dropped; a single result above it is not cached."""
    kept = QueryCache(bytes_max=10 + ENTRY_BYTES)
    kept.put(ASKED, JSON, 1, PAGE, b"12345678")
    assert kept.get(ASKED, JSON, 1, PAGE) == b"12345678"
    kept.put(GetRoom("r1"), JSON, 2, COMMIT, b"123")
    kept.put(GetRoom("r2"), JSON, 2, COMMIT, b"x" * 11)
    asked = [(ASKED, PAGE), (GetRoom("r1"), COMMIT), (GetRoom("r2"), COMMIT)]
    assert [kept.get(query, JSON, 2, cached) for query, cached in asked] == [None, b"123", None]


@pytest.mark.parametrize(("of_room", "cached", "held_at_once"), [(GetMessages, PAGE, 10), (GetRoom, COMMIT, 7)])
def test_the_number_of_empty_cached_results_is_limited(
    of_room: Callable[[str], Query[Any]], cached: Cached, held_at_once: int
) -> None:
    """Over commits and without; dropped results no longer count."""
    kept = QueryCache(bytes_max=10 * ENTRY_BYTES)
    for at in range(1_000):
        kept.put(of_room(f"r{at}"), JSON, at // 7, cached, b"")
        found = (kept.get(of_room(f"r{number}"), JSON, at // 7, cached) for number in range(at + 1))
        held = [number for number, result in enumerate(found) if result is not None]
        assert held == list(range(at - at % held_at_once, at + 1))


IDS, ROOMS = st.sampled_from(["m1", "m2", "m3"]), st.sampled_from(["r1", "r2", "default"])
SAVES = st.builds(
    lambda message_id, room, **fields: ("save-message", save_payload(message_id, room_id=room, **fields)),
    *(IDS, ROOMS),
    content=st.sampled_from(["", "hello"]),
    isDeleted=st.sampled_from([False, False, False, True]),
)
DEFAULT = {"id": "default", "name": "default", "channels": [{"id": "general", "name": "general", "type": "text"}]}
REACTION = {"oderId": "bob", "emoji": "+"}
CHANGES = st.one_of(
    SAVES,
    SAVES,
    st.builds(lambda one: ("save-reaction", {"reaction": {"messageId": one, **REACTION}}), IDS),
    st.builds(lambda one: ("remove-reaction", {"messageId": one, **REACTION}), IDS),
    st.builds(lambda one, room: ("update-message", {"messageId": one, "updates": {"roomId": room}}), IDS, ROOMS),
    st.builds(lambda one: ("delete-message", {"messageId": one}), IDS),
    st.builds(lambda room: ("clear-room-messages", {"roomId": room}), ROOMS),
    st.builds(lambda room: ("delete-room", {"roomId": room}), ROOMS),
    st.just(("delete-channel", {"channelId": "general", "cascade": True})),
    st.just(("save-room", {"room": DEFAULT})),
    st.just(("create-message", {"channelId": "general", "authorId": "ada-id", "content": "hello"})),
    st.just(("save-user", {"user": {"oderId": "ada", "id": "ada-id", "username": "ada"}})),
    st.just(("clear-all-data", {})),
)
PAGES: list[Query[Any]] = [
    query
    for room in ("r1", "r2", "default")
    for query in (GetMessages(room), GetMessagePage(room), ListMessages("general", room))
]
STARTING = [
    ("clear-all-data", {}),
    ("save-room", {"room": DEFAULT}),
    ("save-user", {"user": {"oderId": "ada", "id": "ada-id", "username": "ada"}}),
    *(("save-message", save_payload(number)) for number in (1, 2, 3)),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A store for all examples of a property."""
    with in_process(tmp_path_factory.mktemp("answers") / "data") as transport:
        yield transport


@settings(max_examples=120)
@given(changes=st.lists(st.one_of(CHANGES, st.lists(CHANGES, min_size=1, max_size=3)), min_size=1, max_size=10))
def test_cached_pages_equal_the_file_after_any_change(shared: InProcess, changes: list[Any]) -> None:
    """After each command, alone or in a batch, refused or not, every page equals what its handler reads from
    the file.
    """
    for name, payload in STARTING:
        result(shared, name, payload)
    for change in changes:
        name, payload = ("batch", {"commands": list(map(_member, change))}) if isinstance(change, list) else change
        send(shared, body(name, payload))
        for query in PAGES:
            assert result(shared, query.wire_name, query, MSGPACK) == _in_the_file(query, shared)


def _member(change: tuple[str, Any]) -> dict[str, Any]:
    return {"type": change[0], "payload": change[1]}


def _in_the_file(query: Query[Any], transport: InProcess) -> Any:
    with transport.store.read() as snapshot:
        return to_builtins(handler_of(type(query))(query, snapshot))


def test_a_cached_page_survives_changes_of_other_rooms(tmp_path: Path) -> None:
    """Its handler is called again only when its own room changes; its `seq` advances meanwhile."""
    asked: list[Any] = []
    with running(tmp_path / "data", handlers=_counting(asked)) as daemon, Peer(daemon.endpoint) as peer:
        rooms = ((1, "r1"), (2, "r2"), (3, "r1"))
        changes = [("save-message", save_payload(name, room_id=room)) for name, room in rooms]
        changes.append(("update-message", {"messageId": "m3", "updates": {"roomId": "r2"}}))
        for change, times in zip(changes, (1, 1, 2, 3), strict=True):
            assert peer.ask(*change)["ok"]
            reply = peer.ask("get-messages", {"roomId": "r1"})
            assert len(asked) == times, change
        assert (reply["seq"], [each["id"] for each in reply["result"]]) == (4, ["m1"])


def test_time_dependent_queries_are_not_cached() -> None:
    """Bans and sessions end without a commit, and parts of media may be removed."""
    queries = {name for name, each in OPERATIONS.items() if issubclass(each, Query)}
    kept = {name for name in HANDLERS if HANDLERS[name].cached is not Cached.NOT}
    assert not kept & (BY_THE_CLOCK | {"get-media-part"})
    assert {"get-messages", "get-message-page", "get-room"} <= kept <= queries


def test_a_cached_page_is_served_without_its_handler(tmp_path: Path) -> None:
    """The same page twice calls the handler once; after a save it is another page, for every client."""
    calls: list[Any] = []
    with (
        running(tmp_path / "data", handlers=_counting(calls)) as daemon,
        Peer(daemon.endpoint) as one,
        Peer(daemon.endpoint) as two,
    ):
        one.ask("save-message", save_payload(1))
        first = one.ask("get-messages", {"roomId": "r1"})
        again = two.ask("get-messages", {"roomId": "r1"})
        assert (first["result"], first["seq"]) == (again["result"], again["seq"])
        assert len(calls) == 1
        one.ask("save-message", save_payload(2))
        for peer in (one, two):
            assert [each["id"] for each in peer.ask("get-messages", {"roomId": "r1"})["result"]] == ["m1", "m2"]
        assert len(calls) == 2


def test_no_client_sees_an_older_state_after_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot may show a commit before its writer reports it; from then on no older cached result is served as
    current.
    """
    with in_process(tmp_path / "data") as transport:
        for room in ("r1", "r2"):
            result(transport, "save-room", {"room": {"id": room, "name": room}})
    released = threading.Event()
    commit = vars(SqliteStore)["_commit"]

    def commit_and_wait(store: SqliteStore) -> None:
        """A commit after which the writer is held up before it tells of it."""
        commit(store)
        released.wait(REPLY_SECONDS)

    with running(tmp_path / "data") as daemon, Peer(daemon.endpoint) as writer, Peer(daemon.endpoint) as reader:
        before = {room: reader.ask("get-messages", {"roomId": room})["seq"] for room in ("r1", "r2")}
        monkeypatch.setattr(SqliteStore, "_commit", commit_and_wait)
        writer.request("delete-room", {"roomId": "r1"})
        wait_until(lambda: reader.ask("get-bans-for-room", {"roomId": "r1"})["seq"] > before["r1"])
        seqs = [reader.ask("get-messages", {"roomId": room})["seq"] for room in ("r1", "r2")]
        released.set()
        assert writer.reply()["seq"] == before["r1"] + 1
        assert seqs == [before["r1"] + 1] * 2


def _counting(asked: list[Any]) -> Handlers:
    """The handlers, of which that of `get-messages` records its calls."""

    def noted(query: GetMessages, db: object) -> object:
        asked.append(query)
        return handler_of(GetMessages)(query, db)

    return replacing({GetMessages: noted})


def test_pipelined_writes_are_visible_between_cached_results(tmp_path: Path) -> None:
    """The requests of a client keep their order, whether results are cached or not."""
    with running(tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        for number in range(200):
            peer.request("get-messages", {"roomId": "r1", "limit": 500}, request_id=f"q{number}")
            peer.request("save-message", save_payload(number), request_id=f"s{number}")
        replies = peer.replies(400)
        for number in range(200):
            assert len(replies[f"q{number}"]["result"]) == number
            assert replies[f"q{number}"]["seq"] == number
