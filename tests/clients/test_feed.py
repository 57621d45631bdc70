"""Following a scope with the Python clients: `changes` and `watch`, in process and on real daemons."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import AsyncClient, Client, FeedGap, Watched
from backscroll.clients.python import pending_calls as pending_calls_module
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.feed import Answer, Ask, ChangeSteps, Pause, WatchSteps
from backscroll.clients.python.pending_calls import Call, PendingCalls, open_reply
from backscroll.schema import (
    NOW,
    ChangePage,
    DeleteMessage,
    DeleteScope,
    GetChanges,
    GetLog,
    GetMessages,
    GetUser,
    GetUsersByRoom,
    Health,
    Internal,
    Invalid,
    ItemChange,
    Message,
    Operation,
    Ping,
    Pong,
    Query,
    Room,
    RoomMember,
    SaveMember,
    SaveRoom,
    SetCurrentUserId,
    Unavailable,
)
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.wire import MSGPACK, Success, read_reply
from tests.support.local import Local
from tests.support.messages import message_record, save_message
from tests.support.random_commands import CHANNELS, MESSAGES, PEOPLE, ROOMS, RandomCommands
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
SCOPES = count(1)
SOON = 10.0  # seconds, in which something must have happened
SEED = 20261126
COMMANDS, COMMANDS_LONG = 400, 20_000
TCP = ("--endpoint", "tcp://127.0.0.1:*")


class Follower:
    """Either client behind one interface: the asynchronous one runs while something is asked of it."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client
        self._runner = asyncio.Runner()

    def execute(self, command: Operation[Any]) -> Any:
        done: Any = self.client.execute(command)  # type: ignore[arg-type]  # it takes any operation
        return done if isinstance(self.client, Client) else self._run(done)

    def changes(self, after: str | None = None, **filters: Any) -> Any:
        return self.client.changes(after, **filters)

    def watch(self, query: Query[Any]) -> Any:
        return self.client.watch(query)

    def next(self, iterator: Any) -> Any:
        """The next item; StopIteration when there is none."""
        if isinstance(self.client, Client):
            return next(iterator)
        try:
            return self._run(anext(iterator))
        except StopAsyncIteration:
            raise StopIteration from None

    def take(self, iterator: Any, number: int) -> list[Any]:
        return [self.next(iterator) for _ in range(number)]

    def ends(self, iterator: Any) -> bool:
        try:
            self.next(iterator)
        except StopIteration:
            return True
        return False

    def close(self) -> None:
        if isinstance(self.client, Client):
            self.client.close()
        else:
            self._run(self.client.close())

    def _run(self, awaitable: Any) -> Any:
        async def await_it() -> Any:
            return await awaitable

        return self._runner.run(await_it())

    def end(self) -> None:
        self.close()
        self._runner.close()


@pytest.fixture(params=[Client, AsyncClient], ids=lambda each: each.__name__)
def follower(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Follower]:
    """A client in process."""
    with InProcess(tmp_path / "data") as transport, closing_end(Follower(request.param(transport=transport))) as it:
        yield it


class closing_end:  # noqa: N801  # like `closing`
    """Ends a follower after a block."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __enter__(self) -> Follower:
        return self._follower

    def __exit__(self, *_: object) -> None:
        self._follower.end()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a daemon that the tests of this module share."""
    path = tmp_path_factory.mktemp("feed")
    with (path / "log").open("w") as log, DaemonProcess(path / "data", log=log):
        yield path / "data"


@pytest.fixture
def place(directory: Path) -> dict[str, Any]:
    """The arguments of a client of that daemon, with a scope that no other test uses."""
    return {"data_dir": directory, "scope": f"feed-{next(SCOPES)}"}


class Taking(threading.Thread):
    """Takes all items of an iterator, in a thread of its own; `end` is what ended it."""

    def __init__(self, iterator: Iterator[Any] | None = None) -> None:
        super().__init__(daemon=True)
        self.items: list[Any] = []
        self.end: object = None
        self._taken = 0
        self._iterator = iterator
        self.start()

    def run(self) -> None:
        try:
            self.take()
            self.end = "ended"
        except Exception as error:  # noqa: BLE001  # for the test to look at
            self.end = error

    def take(self) -> None:
        assert self._iterator is not None
        for item in self._iterator:
            self.items.append(item)

    def next(self) -> Any:
        self._taken += 1
        wait_until(lambda: len(self.items) >= self._taken, SOON)
        return self.items[self._taken - 1]

    def has_ended(self) -> bool:
        self.join(SOON)
        return self.end == "ended"


class AsyncTaking(Taking):
    """The same with an asynchronous client of its own, in an event loop of its own."""

    def __init__(self, follow: Callable[[AsyncClient], Any], place: dict[str, Any]) -> None:
        self._follow, self._place = follow, place
        self._close: Callable[[], object] = lambda: None
        super().__init__()

    def take(self) -> None:
        asyncio.run(self._take())

    async def _take(self) -> None:
        async with AsyncClient(**self._place) as client:
            loop = asyncio.get_running_loop()
            self._close = lambda: asyncio.run_coroutine_threadsafe(client.close(), loop).result(SOON)
            async for item in self._follow(client):
                self.items.append(item)

    def close(self) -> None:
        self._close()


def listed(directory: str) -> int:
    """The number of entries of a directory of /proc; 0 if there is none."""
    return len(list(Path(directory).iterdir())) if Path(directory).exists() else 0


def ids(watched: Watched[list[Message]]) -> list[str]:
    return [message.id for message in watched.result]


# --- changes ---


def test_changes_are_typed_and_in_order(follower: Follower) -> None:
    """From the first command on, each with its seq and item; the value is the record of its noun, or it is gone."""
    changes = follower.changes()
    follower.execute(SaveRoom(Room(id="r1", name="Home")))
    follower.execute(SaveMember("r1", RoomMember(oder_id="ada")))
    follower.execute(save_message(1))
    follower.execute(SetCurrentUserId("ada"))
    found = [change for change in follower.take(changes, 4) if change.id is not None]
    assert [(each.seq, each.noun, each.id) for each in found] == [
        (1, "room", "r1"),
        (2, "member", "ada"),
        (3, "message", "m1"),
        (4, "current-user", "ada"),
    ]
    assert [type(each.value) for each in found] == [Room, RoomMember, Message, type(None)]
    assert found[2].value == message_record(1, reactions=[], attachments=[])


def test_changes_go_on_after_a_cursor(follower: Follower) -> None:
    """The cursor moves when all changes of a page were given; with it, another iterator goes on there."""
    changes = follower.changes(nouns=["message"], limit=2)
    assert changes.cursor is None
    for number in (1, 2, 3):
        follower.execute(save_message(number))
    follower.next(changes)
    assert (changes.cursor, changes.at_page_end) == (None, False)
    follower.next(changes)
    stored = changes.cursor
    assert stored is not None
    assert changes.at_page_end
    assert follower.next(changes).id == "m3"
    assert changes.cursor != stored
    follower.execute(save_message(4))
    assert [each.id for each in follower.take(follower.changes(stored), 2)] == ["m3", "m4"]
    assert follower.next(follower.changes(changes.cursor)).id == "m4"


def test_filters_are_passed_on(follower: Follower) -> None:
    """Only what is in the rooms and of the nouns; without values."""
    changes = follower.changes(rooms=["r2"], nouns=["message"], values=False)
    follower.execute(SaveRoom(Room(id="r2", name="Home")))
    follower.execute(save_message(1))
    follower.execute(save_message(2, room_id="r2"))
    found = follower.next(changes)
    assert (found.id, found.room_id, found.value) == ("m2", "r2", None)


def test_a_gap_is_raised_with_a_new_cursor(follower: Follower) -> None:
    """When the scope has another history, `changes` ends with `FeedGap`, and can be made again with its cursor."""
    follower.execute(save_message(1))
    changes = follower.changes()
    follower.next(changes)
    other_history(follower)
    with pytest.raises(FeedGap, match="read everything anew") as caught:
        follower.next(changes)
    assert follower.ends(changes)
    follower.execute(save_message(3))
    assert follower.next(follower.changes(caught.value.cursor)).id == "m3"


def other_history(follower: Follower) -> None:
    """Replace the history of the scope by another one of one message."""
    follower.execute(DeleteScope())
    follower.execute(save_message(2))


def test_a_caller_error_ends_the_iteration(follower: Follower) -> None:
    """What cannot succeed is raised instead of being tried for ever, by `changes` and by `watch`."""
    for iterator in (
        follower.changes("no cursor"),
        follower.changes(limit=0),
        follower.changes(nouns=["hat"]),
        follower.watch(GetMessages("r1", limit=0)),
    ):
        with pytest.raises(Invalid):
            follower.next(iterator)
        assert follower.ends(iterator)


def test_the_cursor_of_now_is_none_until_it_is_known(follower: Follower) -> None:
    """It is never the word: whoever stores it at any moment and goes on from it misses nothing that is saved later."""
    follower.execute(save_message(1))
    changes = follower.changes(NOW)
    assert changes.cursor is None
    stored = follower.execute(GetChanges(after=NOW)).cursor
    steps = ChangeSteps(GetChanges(after=NOW), waits=True)
    run = steps.run()
    assert next(run) == Ask(Ping())
    assert run.send(Answer(Pong(pong=True), 0, 0.0)) == Ask(GetChanges(after=NOW))
    assert steps.cursor is None
    run.send(Answer(ChangePage(changes=[], cursor=stored, more=False), 1, 0.0))
    assert steps.cursor == stored
    follower.execute(save_message(2))
    assert follower.next(follower.changes(steps.cursor)).id == "m2"


def test_asked_pages_have_records_too(follower: Follower) -> None:
    """A page that is asked for by hand, or in a pipeline, has the same values as the changes of an iterator."""
    follower.execute(save_message(1))
    [expected] = follower.take(follower.changes(), 1)
    assert isinstance(expected.value, Message)
    assert follower.execute(GetChanges()).changes == [expected]
    if isinstance(follower.client, Client):
        assert [page.changes for page in follower.client.pipeline([GetChanges()])] == [[expected]]


def test_a_value_of_another_type_is_an_error() -> None:
    """A value that is no record of its noun is the daemon's fault; that of an unknown noun stays as it is."""
    hat = ItemChange(seq=1, at=1, request_id="r", noun="hat", id="h", value={"id": 1})
    call = Call(GetChanges(), scope="default", timeout_ms=1_000)
    call.settle(open_reply(page_of(call, hat)))
    assert call.result().changes == [hat]
    call.settle(open_reply(page_of(call, replace(hat, noun="message"))))
    with pytest.raises(Internal, match="invalid message"):
        call.result()


@pytest.mark.parametrize("steps", [ChangeSteps(GetChanges(), waits=False), WatchSteps(GetLog(), waits=False)])
def test_empty_pages_without_waiting_are_paused_for(steps: ChangeSteps | WatchSteps[Any]) -> None:
    """A transport that cannot wait, such as the in-process one, is not asked again at once."""
    run, pauses = steps.run(), list[float]()
    step = next(run)
    page = ChangePage(changes=[], cursor="c", more=False)
    while len(pauses) < 4:
        if isinstance(step, Pause):
            pauses.append(step.seconds)
        step = run.send(Answer(page, 0, 0.001) if isinstance(step, Ask) else None)
    assert pauses == [0.02, 0.04, 0.05, 0.05]


# --- watch ---


@pytest.mark.parametrize(
    ("query", "name"),
    [(save_message(1), "SaveMessage"), ("home", "str"), (GetChanges(), "GetChanges"), (Ping(), "Ping")],
)
def test_watch_refuses_what_is_no_stored_item(follower: Follower, query: Any, name: str) -> None:
    """At once, before anything is sent: a command would be executed again after each change."""
    with pytest.raises(TypeError, match=f"watch takes a query about stored items, not {name}"):
        follower.watch(query)


def test_watch_gives_results_that_differ(follower: Follower) -> None:
    """The first at once, then one after each change of the result, and none for a change of something else."""
    watch = follower.watch(GetMessages("r1"))
    assert follower.next(watch) == Watched([], 0, False)
    follower.execute(save_message(1))
    first = follower.next(watch)
    assert (ids(first), first.seq, first.gap) == (["m1"], 1, False)
    follower.execute(save_message(1))
    follower.execute(save_message(9, room_id="r2"))
    follower.execute(DeleteMessage("m1"))
    deleted = follower.next(watch)
    assert (deleted.result[0].is_deleted, deleted.seq) == (True, 4)


@pytest.mark.parametrize("number", [3, 150])
def test_a_slow_consumer_gets_only_the_newest_result(follower: Follower, number: int) -> None:
    """However many changes there were, on one page or several, the next result is that of now, and none is between."""
    watch = follower.watch(GetMessages("r1", limit=500))
    assert ids(follower.next(watch)) == []
    for name in range(number):
        follower.execute(save_message(name))
    newest = follower.next(watch)
    assert (len(newest.result), newest.seq, newest.gap) == (number, number, False)
    follower.execute(save_message(number))
    later = follower.next(watch)
    assert (len(later.result), later.seq, later.gap) == (number + 1, number + 1, False)


def test_watch_says_when_there_was_a_gap(follower: Follower) -> None:
    """After another history took the place of the scope's, there is a result, even an equal or an older one."""
    watch = follower.watch(GetMessages("r1"))
    for number in (1, 2):
        follower.execute(save_message(number))
    assert follower.next(watch).seq == 2
    other_history(follower)
    again = follower.next(watch)
    assert (ids(again), again.seq, again.gap) == (["m2"], 1, True)
    other_history(follower)
    assert follower.next(watch) == again
    follower.execute(save_message(3))
    assert not follower.next(watch).gap


@pytest.mark.parametrize(
    ("query", "rooms", "nouns"),
    [
        (GetMessages("r1"), ["r1"], ["message"]),
        (GetUsersByRoom("r1"), None, ["member", "user"]),
        (GetUser("ada"), None, ["user"]),
        (GetLog(), None, None),
    ],
)
def test_watch_asks_for_what_a_query_reads(query: Query[Any], rooms: Any, nouns: Any) -> None:
    """For the nouns that it reads, in its room if all of them are in rooms; for all changes if it does not say."""
    question = WatchSteps(query, waits=True).question
    assert (question.rooms, question.nouns, question.values) == (rooms, nouns, False)


def queries(media: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Payloads of every query that says what it reads, about the records of random commands."""
    some: dict[str, list[dict[str, Any]]] = {
        "get-message-page": [
            {"roomId": "r1"},
            {"roomId": "r2", "limit": 2, "includeDeleted": False},
            {"roomId": "default", "channelId": "c1"},
            {"roomId": "r1", "pinned": True, "attachments": True},
            {"roomId": "r1", "threadId": "m1"},
            {"roomId": "r2", "aroundTime": 50, "limit": 3},
        ],
        "list-messages": [{"channelId": each, "roomId": room} for each in CHANNELS for room in ("r1", "default")],
        "get-message-by-id": [{"messageId": each, "attachments": True} for each in MESSAGES[:4]],
        "get-messages-by-ids": [{"messageIds": MESSAGES}],
        "get-user-by-pubkey": [{"pubkey": f"key-{number}"} for number in range(3)],
        "get-user": [{"userId": each} for each in [*PEOPLE, "id-ada"]],
        "get-room": [{"roomId": "r1"}, {"roomId": "r2", "childLists": False}],
        "get-all-rooms": [{}, {"childLists": False}],
        "get-member": [{"roomId": "r1", "oderId": "ada"}],
        "is-user-banned": [{"userId": "ada", "roomId": "r1"}],
        "get-channel": [{"channelId": each, "roomId": "r1"} for each in CHANNELS],
        "get-media": [{"mediaId": each} for each in media],
        "get-media-part": [{"mediaId": each} for each in media],
    }
    for name in ("get-messages", "get-members", "get-bans-for-room", "list-channels", "list-categories"):
        some[name] = [{"roomId": room} for room in ROOMS]
    some["get-users-by-room"] = some["get-members"]
    for name in ("get-reactions-for-message", "get-attachments-for-message"):
        some[name] = [{"messageId": each} for each in MESSAGES[:4]]
    for name in ("get-all-attachments", "list-users", "get-current-user", "list-media"):
        some[name] = [{}]
    reading = [name for name, each in OPERATIONS.items() if issubclass(each, Query) and each.READS]
    assert set(some) == set(reading), "add payloads of the new query"
    return [(name, payload) for name, payloads in some.items() for payload in payloads]


def told_result(asked: str, fields: dict[str, Any], local: Local) -> Any:
    """The result of a query, or its error, without reactions and attachments of messages that are not stored: these are
    listed before their message arrives, and only its arrival is a change."""
    reply = local.ask(asked, fields)
    if asked in ("get-all-attachments", "get-attachments-for-message", "get-reactions-for-message"):
        items = reply["result"]
        stored = {id for id in {each["messageId"] for each in items} if is_stored(id, local)}
        return [each for each in items if each["messageId"] in stored]
    return reply.get("result", reply.get("error"))


def is_stored(message_id: str, local: Local) -> bool:
    return local.result("get-message-by-id", {"messageId": message_id}) is not None


def question_of(asked: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The payload with which a watch of this query asks for changes."""
    query = MSGPACK.decode(MSGPACK.encode(fields), OPERATIONS[asked])
    assert isinstance(query, Query)
    payload: dict[str, Any] = MSGPACK.decode(MSGPACK.encode(WatchSteps(query, waits=True).question), dict[str, Any])
    return payload


def test_the_feed_tells_whenever_a_result_changes(tmp_path: Path, long: bool) -> None:
    """Over a random history, each change of the result of a query is told by its nouns, in its room."""
    print(f"seed {SEED}")  # noqa: T201  # shown when it fails
    commands, media, told = RandomCommands(SEED), list[str](), set[str]()
    before: dict[str, Any] = {}
    with Local(tmp_path / "data") as local:
        for _ in range(COMMANDS_LONG if long else COMMANDS):
            cursor = local.result("get-changes", {"after": NOW})["cursor"]
            name, payload = commands.next()
            reply = local.ask(name, payload)
            if not reply["ok"]:
                continue
            commands.learn(name, payload, reply["result"])
            if name == "put-media":
                media = [*media[-2:], reply["result"]["id"]]
            for asked, fields in queries(media):
                key, now = f"{asked} {fields}", told_result(asked, fields, local)
                if before.get(key, now) != now:
                    page = local.result("get-changes", question_of(asked, fields) | {"after": cursor})
                    assert page["changes"], f"{name} {payload} changed {key} from {before[key]} to {now}"
                    told.add(asked)
                before[key] = now
    assert len(told) > 15, told


# --- on a daemon ---


def test_a_watch_in_a_thread_blocks_nobody(place: dict[str, Any]) -> None:
    """A synchronous client serves other threads while `watch` and `changes` wait; these notice what is saved."""
    with Client(**place) as client:
        watching, changes = Taking(client.watch(GetMessages("r1"))), Taking(client.changes())
        assert ids(watching.next()) == []
        for number in (1, 2):
            client.execute(save_message(number), timeout_ms=2_000)
            assert len(ids(watching.next())) == number
            assert changes.next().id == f"m{number}"
    for each in (watching, changes):
        assert each.has_ended()


def test_asyncio_requests_pass_a_waiting_watch(place: dict[str, Any]) -> None:
    """Requests of the client are answered while watches wait on its connection, and closing it ends these."""

    async def follow() -> None:
        async with AsyncClient(**place) as client:
            watch = client.watch(GetMessages("r1"))
            await anext(watch)
            waiting = asyncio.create_task(anext(watch, None))
            for _ in range(20):
                assert await client.ask(Ping(), timeout_ms=2_000) == Pong(pong=True)
            assert not waiting.done()
            await client.execute(save_message(1))
            found = await waiting
            assert found is not None
            assert ids(found) == ["m1"]
            waiting = asyncio.create_task(anext(watch, None))
            await client.ask(Ping())
        assert await asyncio.wait_for(waiting, SOON) is None

    asyncio.run(follow())


def test_many_watches_of_one_client_cost_no_threads(place: dict[str, Any]) -> None:
    """Two hundred, more than may wait at once, all notice a change, on the threads that one has."""

    async def follow() -> None:
        async with AsyncClient(**place) as client:
            watches = [client.watch(GetMessages("r1")) for _ in range(200)]
            await anext(watches[0])
            threads = listed("/proc/self/task")
            await asyncio.gather(*map(anext, watches[1:]))
            waiting = [asyncio.create_task(anext(watch)) for watch in watches]
            await client.ask(Ping())
            assert listed("/proc/self/task") == threads
            await client.execute(save_message(1))
            found = await asyncio.wait_for(asyncio.gather(*waiting), SOON)
            assert [ids(each) for each in found] == [["m1"]] * 200

    asyncio.run(follow())


def test_a_cancelled_question_is_asked_again(place: dict[str, Any]) -> None:
    """Giving up waiting for an item loses nothing: it comes to whoever asks next, also after beginning at `now`."""

    async def follow() -> None:
        async with AsyncClient(**place) as client:
            await client.execute(save_message(0))
            changes = client.changes(NOW)
            while changes.cursor is None:  # before that, what is saved may still be before `now`
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(changes), 0.05)
            waiting = asyncio.create_task(anext(changes))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one for each task"):
                await anext(changes)
            await client.execute(save_message(1))
            assert (await waiting).id == "m1"

    asyncio.run(follow())


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_a_waiting_query_has_its_own_time(place: dict[str, Any], client_class: Any) -> None:
    """Asked directly, it is answered after `waitMs`, although that is longer than the client's timeout."""
    with closing_end(Follower(client_class(**place, timeout_ms=1_000))) as follower:
        query = GetChanges(wait_ms=600, after=NOW)
        first = follower.execute(query)
        page = follower.execute(GetChanges(wait_ms=600, after=first.cursor))
        assert (page.changes, page.more) == ([], False)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_an_iterator_closes_its_connection(place: dict[str, Any]) -> None:
    """It is closed when the iterator is closed, and when nobody has it any more, as after a `break`."""
    with Client(**place) as client:
        client.execute(save_message(1))
        before = listed("/proc/self/fd")
        changes = client.changes()
        next(changes)
        assert listed("/proc/self/fd") > before
        changes.close()
        assert next(changes, None) is None
        for watched in client.watch(GetMessages("r1")):
            assert ids(watched) == ["m1"]
            break
        del watched
        wait_until(lambda: listed("/proc/self/fd") <= before)


def test_closing_an_iterator_ends_a_waiting_thread(place: dict[str, Any]) -> None:
    """It may be closed by another thread than the one that waits for an item."""
    with Client(**place) as client, closing(client.watch(GetMessages("r1"))) as watch:
        watching = Taking(watch)
        watching.next()
        watch.close()
        assert watching.has_ended()


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_a_follower_needs_a_daemon_to_begin(tmp_path: Path, client_class: Any) -> None:
    """Where nobody answers, as at the address that a killed daemon left, it says so after the client's timeout."""
    with closing_end(Follower(client_class(f"ipc://{tmp_path}/nobody", timeout_ms=50))) as follower:
        for iterator in (follower.changes(), follower.changes(NOW), follower.watch(GetMessages("r1"))):
            with pytest.raises(Unavailable, match="nothing was sent"):
                follower.next(iterator)
            assert follower.ends(iterator)


def test_following_survives_a_killed_daemon(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """After `kill -9` and a start on another port, both clients go on with what was saved, once and in order."""
    daemon = start_daemon(*TCP)
    with Client(data_dir=tmp_path / "data") as client:
        place = {"data_dir": tmp_path / "data"}
        asynchronous = [
            AsyncTaking(lambda client: client.watch(GetMessages("r1")), place),
            AsyncTaking(lambda client: client.changes(), place),
        ]
        watches = [Taking(client.watch(GetMessages("r1"))), asynchronous[0]]
        feeds = [Taking(client.changes()), asynchronous[1]]
        for number in range(1, 4):
            with Client(data_dir=tmp_path / "data") as writer:
                writer.execute(save_message(number))
            for each in watches:
                wait_until(lambda: each.items and ids(each.items[-1])[-1:] == [f"m{number}"])  # noqa: B023
            if number < 3:
                old, _ = daemon.endpoint, daemon.kill()
                daemon = start_daemon(*TCP)
                assert daemon.endpoint != old
        for feed in feeds:
            wait_until(lambda: [change.id for change in feed.items] == ["m1", "m2", "m3"])  # noqa: B023
        for other in asynchronous:
            other.close()
    for watch in watches:
        assert not any(each.gap for each in watch.items)
        assert [each.seq for each in watch.items] == sorted({each.seq for each in watch.items})
    assert all(each.has_ended() for each in watches + feeds)


# --- calls that wait ---


def page_of(call: Call, *changes: ItemChange) -> bytes:
    return MSGPACK.encode(Success(call.id, True, ChangePage(changes=list(changes), cursor="c", more=False), 7))


def test_replies_beside_a_waiting_query_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reply comes after those of later calls, so it is not taken for the next one."""
    decoded: list[Any] = []

    def counting(body: bytes, result_type: Any) -> Any:
        decoded.append(result_type)
        return read_reply(body, result_type)

    monkeypatch.setattr(pending_calls_module, "read_reply", counting)
    pending = PendingCalls()
    waiting = Call(GetChanges(wait_ms=1_000), scope="default", timeout_ms=1_000)
    pings = [Call(Ping(), scope="default", timeout_ms=1_000) for _ in range(3)]
    for call in (waiting, *pings):
        pending.add(call)
        pending.mark_sent(call)
    for ping in pings:
        pending.handle_reply(MSGPACK.encode(Success(ping.id, True, Pong(pong=True), 1)), 0)
        assert ping.result() == Pong(pong=True)
    assert decoded == [Pong] * 3
    pending.handle_reply(page_of(waiting), 0)
    assert (waiting.result().cursor, waiting.seq, len(pending)) == ("c", 7, 0)


def test_a_resent_query_waits_for_the_rest_of_its_time() -> None:
    """On another connection, `waitMs` is what is left of it, so that the reply comes before the deadline."""
    call = Call(GetChanges(wait_ms=10_000, after="c"), scope="default", timeout_ms=5_000)
    first = MSGPACK.decode(call.body, dict[str, Any])
    assert (first["deadlineMs"], first["payload"]) == (15_000, {"waitMs": 10_000, "after": "c"})
    call.deadline, call.in_doubt = 100.0, True
    for now, deadline_ms, wait_ms in ((89.0, 11_000, 6_000), (98.0, 2_000, 0)):
        again = MSGPACK.decode(call.body_at(now), dict[str, Any])
        assert (again["deadlineMs"], again["payload"]) == (deadline_ms, {"waitMs": wait_ms, "after": "c"})


def test_a_cancelled_wait_leaves_one_question_in_the_daemon(start_daemon: StartDaemon) -> None:
    """Whoever waits with a timeout, again and again, goes on with the same question."""
    daemon = start_daemon()

    async def follow() -> None:
        async with AsyncClient(data_dir=daemon.data_dir) as client:
            changes = client.changes("now")
            waiting, asked = 0, 0
            while asked < 20 or not waiting:  # under load it takes a while until the question is there
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(changes), 0.03)
                waiting, asked = (await client.ask(Health())).queues["waiting"], asked + 1
            assert waiting == 1
            await client.execute(save_message(1))
            assert (await asyncio.wait_for(anext(changes), 5)).id == "m1"

    asyncio.run(follow())
