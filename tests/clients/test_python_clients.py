"""Both Python clients, in process and on real daemons: typed results, typed errors, and replies matched to requests."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
import zmq

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.address import find_endpoint
from backscroll.clients.python.client import ZmqTransport
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    BackscrollError,
    Busy,
    CallerError,
    ClearAllData,
    Command,
    Conflict,
    DaemonError,
    DeadlineExceeded,
    DeleteMessage,
    GetAllRooms,
    GetLog,
    GetMessageById,
    GetMessages,
    GetUser,
    Health,
    HealthReport,
    Internal,
    Invalid,
    IsUserBanned,
    Maintenance,
    MessageUpdates,
    NoReply,
    NotFound,
    Operation,
    Ping,
    Pong,
    Query,
    Reaction,
    SaveUser,
    TooLarge,
    Unavailable,
    UnknownOperation,
    UpdateMessage,
    User,
)
from backscroll.schema.errors import ERRORS
from backscroll.schema.limits import BODY_BYTES_MAX
from backscroll.schema.wire import JSON, MSGPACK, Envelope, Success, write_failure
from tests.support.messages import message_record, save_message
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
Do = Callable[[Operation[Any]], Any]
SOON_MS = 30
NOBODY = "tcp://127.0.0.1:9"  # the discard port, where nothing listens


class FlyToTheMoon(Command[None], frozen=True):
    """An operation that the daemon does not know."""


def user(name: str) -> User:
    return User(oder_id=name, id=f"id-{name}", username=name)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def perform(client: Client, operation: Operation[Any]) -> Any:
    """The result of an operation of any kind."""
    if isinstance(operation, Query):
        return client.ask(operation)
    assert isinstance(operation, Command | Maintenance)
    return client.execute(operation)


def asynchronously(connect: Callable[..., AsyncClient]) -> Do:
    """A function that performs operations with an asynchronous client."""

    async def do(operation: Operation[Any]) -> Any:
        async with connect() as client:
            if isinstance(operation, Query):
                return await client.ask(operation)
            assert isinstance(operation, Command | Maintenance)
            return await client.execute(operation)

    return lambda operation: run(do(operation))


class Borrowed:
    """A transport that stays open when a client closes it."""

    def __init__(self, transport: InProcess) -> None:
        self.send, self.receive = transport.send, transport.receive

    def close(self) -> None:
        """Does nothing: the transport belongs to the test."""


@pytest.fixture(scope="module")
def daemon_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a daemon that the tests of this module share."""
    directory = tmp_path_factory.mktemp("daemon")
    with (directory / "log").open("w") as log, DaemonProcess(directory / "data", log=log):
        yield directory / "data"


@pytest.fixture(params=["in process", "on a daemon"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of a client: a transport, or the data directory of a running daemon; its store is empty."""
    if request.param == "in process":
        return {"transport": Borrowed(request.getfixturevalue("transport"))}
    directory = request.getfixturevalue("daemon_directory")
    with Client(data_dir=directory) as client:
        client.execute(ClearAllData())
    return {"data_dir": directory}


@pytest.fixture(params=["Client", "AsyncClient"])
def do(request: pytest.FixtureRequest, place: dict[str, Any]) -> Iterator[Do]:
    """Performs operations with either client, in process or on a daemon."""
    if request.param == "AsyncClient":
        yield asynchronously(lambda: AsyncClient(**place))
        return
    with Client(**place) as client:
        yield partial(perform, client)


class Router:
    """A bound ROUTER socket in the place of a daemon, which replies when the test does."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 10_000
        self.socket.bind(endpoint)

    def receive(self) -> tuple[bytes, Envelope]:
        """The sender of the next request, and the request."""
        client, body = self.socket.recv_multipart()
        return client, MSGPACK.decode(body, Envelope)

    def answer(self, client: bytes, request: Envelope, result: Any) -> None:
        self.socket.send_multipart([client, MSGPACK.encode(Success(request.id, True, result, 1))])

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def router() -> Iterator[Router]:
    """A router on a socket with a short path, because such paths are limited in length."""
    with (
        tempfile.TemporaryDirectory(prefix="backscroll-") as directory,
        closing(Router(f"ipc://{directory}/s")) as router,
    ):
        yield router


class Scripted:
    """A transport with prepared replies; each is given the id of the request."""

    def __init__(self, *replies: Callable[[str], bytes]) -> None:
        self.replies = list(replies)
        self.bodies: list[bytes] = []

    def send(self, body: bytes, *_timeout_ms: float) -> None:
        self.bodies.append(body)

    def receive(self, _timeout_ms: float) -> bytes | None:
        return self.replies.pop(0)(MSGPACK.decode(self.bodies[-1], Envelope).id) if self.replies else None

    def close(self) -> None:
        """Does nothing: nothing is open."""


# --- replies ---


def test_results_have_the_declared_types(do: Do) -> None:
    """Commands return None; queries return records, lists, flags, or None for what does not exist."""
    assert do(save_message()) is None
    assert do(GetMessages("r1")) == [message_record(reactions=[])]
    assert do(GetMessageById("m1")) == message_record(reactions=[])
    assert do(GetMessageById("unknown")) is None
    assert do(IsUserBanned("eve", "r1")) is False
    assert do(GetAllRooms()) == []
    assert do(Ping()) == Pong(pong=True)
    health = do(Health())
    assert isinstance(health, HealthReport)
    assert (health.ready, health.level, health.scopes_open) == (True, 1, 1)


PROVOKED: list[tuple[type[BackscrollError], Operation[Any], str]] = [
    (UnknownOperation, FlyToTheMoon(), r"\$\.type: there is no operation 'fly-to-the-moon'"),
    (Invalid, GetMessages("r1", limit=0), r"\$\.payload\.limit: "),
    (TooLarge, save_message("x" * 513), r"\$\.payload\.message\.id: "),
    (NotFound, DeleteMessage("unknown"), r"\$\.payload\.messageId: "),
    (Conflict, UpdateMessage("deleted", MessageUpdates(content="x")), r"\$\.payload\.messageId: "),
    (Invalid, save_message("\ud800"), "cannot be written"),
    (Invalid, save_message(metadata={"a": 2**64}), "cannot be written"),
    (Invalid, save_message(metadata={"a": object()}), "cannot be written"),
    (TooLarge, save_message(content="x" * BODY_BYTES_MAX), f"at most {BODY_BYTES_MAX}"),
]


@pytest.mark.parametrize(("error_class", "operation", "text"), PROVOKED, ids=lambda each: getattr(each, "__name__", ""))
def test_an_error_reply_raises_its_class(
    do: Do, error_class: type[BackscrollError], operation: Operation[Any], text: str
) -> None:
    """Errors of the daemon, and of requests that cannot be encoded, are raised by class, and the client can
    be used on.
    """
    do(save_message("deleted", is_deleted=True))
    with pytest.raises(error_class, match=text) as caught:
        do(operation)
    assert type(caught.value) is error_class
    assert not caught.value.retryable
    assert do(Ping()) == Pong(pong=True)


@pytest.mark.parametrize(("scope", "error_class"), [("", Invalid), ("é" * 65, TooLarge)])
@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_an_invalid_scope_name_is_refused(
    transport: InProcess, client_class: Any, scope: str, error_class: type[BackscrollError]
) -> None:
    """A scope's name is not empty, has no NUL, and has at most 128 bytes."""
    with pytest.raises(error_class, match=r"^\$\.scope: "):
        _once(client_class, Ping(), transport=Borrowed(transport), scope=scope)


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_a_client_uses_only_its_own_scope(transport: InProcess, client_class: Any) -> None:
    """What a client of one scope saves, a client of another does not see."""
    for scope in ("work", "Work", "default"):
        _once(client_class, save_message(content=scope), transport=Borrowed(transport), scope=scope)
    for scope in ("work", "Work", "default"):
        saved = _once(client_class, GetMessageById("m1"), transport=Borrowed(transport), scope=scope)
        assert saved.content == scope
    assert _once(client_class, GetMessageById("m1"), transport=Borrowed(transport), scope="elsewhere") is None


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_a_request_with_a_zero_timeout_has_no_effect(transport: InProcess, client_class: Any) -> None:
    """It raises `DeadlineExceeded` or `NoReply`, whichever side notices first."""
    with pytest.raises((DeadlineExceeded, NoReply)):
        _once(client_class, save_message(), transport=Borrowed(transport), timeout_ms=0)
    assert Client(transport=transport).ask(GetMessages("r1")) == []


def test_a_locked_file_is_busy(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """While another process holds the lock of the file, commands are `busy` and retryable, and queries are answered."""
    daemon = start_daemon("--lock-wait-ms", "1")
    with Client(daemon.endpoint) as client, closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy) as caught:
            client.execute(save_message())
        assert caught.value.retryable
        assert client.ask(GetMessages("r1")) == []
        other.execute("ROLLBACK")
        client.execute(save_message())


@pytest.mark.parametrize("error_class", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_every_error_code_is_raised_as_its_class(
    client_class: Any, error_class: type[BackscrollError], codec: Any
) -> None:
    """Message, details and `retryable` are those that were sent."""
    sent = error_class("what happened", details={"path": "$.id"}, retryable=True)
    with pytest.raises(error_class) as caught:
        _once(client_class, Ping(), transport=Scripted(lambda call: write_failure(call, sent, codec)))
    assert type(caught.value) is error_class
    assert (caught.value.message, caught.value.details, caught.value.retryable) == (sent.message, sent.details, True)


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize(
    "reply",
    [
        lambda _call: b"",
        lambda _call: b"nonsense",
        lambda _call: b"\x90",
        lambda call: MSGPACK.encode(Success(call, True, {"pong": "yes"}, 1)),
        lambda call: MSGPACK.encode(Success(call, True, None, 1)),
        lambda call: MSGPACK.encode({"id": call, "ok": True}),
        lambda call: MSGPACK.encode({"id": call, "ok": False}),
    ],
    ids=["empty", "nonsense", "no map", "wrong result", "no result", "missing result", "missing error"],
)
def test_an_invalid_reply_raises_internal(client_class: Any, reply: Callable[[str], bytes]) -> None:
    """What a broken daemon sends is neither returned nor waited for."""
    with pytest.raises(Internal):
        _once(client_class, Ping(), transport=Scripted(reply))


# --- a daemon of a later level ---


def succeeded(result: Any) -> Callable[[str], bytes]:
    """A success with this result, and a field outside it that no client of this level knows."""
    return lambda call: MSGPACK.encode({"id": call, "ok": True, "result": result, "seq": 7, "shard": "b"})


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_a_field_of_a_later_level_is_ignored(client_class: Any, codec: Any) -> None:
    """In the envelope, in records and in nested records; all known fields are as they were sent."""
    reaction = {"messageId": "m1", "oderId": "bob", "emoji": "x", "skinTone": 3}
    fields = {"id": "m1", "roomId": "r1", "senderId": "ada", "content": "hello", "timestamp": 1, "isDeleted": False}
    sent = {**fields, "mood": {"colour": "red"}, "reactions": [reaction]}
    reply = {"id": "", "ok": True, "result": [sent], "seq": 7, "shard": "b"}
    transport = Scripted(lambda call: codec.encode(reply | {"id": call}))
    expected = message_record(reactions=[Reaction(message_id="m1", oder_id="bob", emoji="x")])
    assert _once(client_class, GetMessages("r1"), transport=transport) == [expected]


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_the_log_of_a_later_level_can_be_read(client_class: Any) -> None:
    """Changes with an unknown noun are returned as they are."""
    hashes = {"digest": "0" * 64, "chain": "0" * 64}
    entry = {"seq": 1, "at": 1, "id": "i", "type": "pin", "payload": {"a": 1}, "changes": [{"noun": "pin", "id": "p"}]}
    page = {"entries": [entry | hashes], "chainStart": "0" * 64, "firstSeq": 1, "lastSeq": 1}
    read = _once(client_class, GetLog(), transport=Scripted(succeeded(page)))
    assert (read.entries[0].type, read.entries[0].changes[0].noun) == ("pin", "pin")


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("fault", "error_class"), [("caller", CallerError), ("daemon", DaemonError), ("moon", DaemonError)]
)
def test_a_code_of_a_later_level_is_kept_with_its_fault(
    client_class: Any, fault: str, error_class: type[BackscrollError]
) -> None:
    """It is raised as an error of the caller or of the daemon, so that a program can react without knowing the code."""
    error = {"code": "rate-limited", "message": "slow down", "retryable": True, "details": {"ms": 5}, "since": 3}
    reply = {"ok": False, "error": error | {"fault": fault}, "shard": "b"}
    transport = Scripted(lambda call: MSGPACK.encode(reply | {"id": call}))
    with pytest.raises(error_class) as caught:
        _once(client_class, Ping(), transport=transport)
    assert type(caught.value) is error_class
    assert (caught.value.code, caught.value.message) == ("rate-limited", "slow down")
    assert (caught.value.retryable, caught.value.details) == (True, {"ms": 5})
    assert error_class.code == ""


def _daemon_once(client_class: Any, operation: Operation[Any]) -> Any:
    with tempfile.TemporaryDirectory() as directory, InProcess(Path(directory)) as transport:
        return _once(client_class, operation, transport=Borrowed(transport))


# --- time ---


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_a_missing_reply_raises_no_reply_at_the_timeout(router: Router, client_class: Any) -> None:
    """A daemon that never replies is waited for exactly as long as requested."""
    with pytest.raises(NoReply, match=f"no reply within {SOON_MS} ms") as caught:
        _once(client_class, Ping(), endpoint=router.endpoint, timeout_ms=SOON_MS)
    assert isinstance(caught.value, TimeoutError)
    assert not caught.value.retryable


def test_an_unbound_endpoint_raises_unavailable() -> None:
    """Nothing is sent, the error comes in time, and closing the client does not block."""
    with pytest.raises(Unavailable) as caught:
        _once(Client, Ping(), endpoint=NOBODY, token="a.b", timeout_ms=SOON_MS)
    assert caught.value.retryable


def test_the_timeout_of_a_call_applies_to_sending() -> None:
    """The timeout covers connecting and sending as well as waiting for the reply."""
    with Client(NOBODY, token="a.b", timeout_ms=1_000) as client:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            client.ask(Ping(), timeout_ms=SOON_MS)
        assert time.monotonic() - started < 0.5


def test_an_unbound_endpoint_raises_unavailable_in_asyncio() -> None:
    """The asynchronous client also reports that nothing was sent."""
    with pytest.raises(Unavailable):
        _once(AsyncClient, Ping(), endpoint=NOBODY, token="a.b", timeout_ms=SOON_MS)


def test_the_request_envelope_is_complete(router: Router) -> None:
    """A request has a unique id, its scope, and the caller's timeout as its deadline."""
    requests = []
    with ThreadPoolExecutor(1) as thread, Client(router.endpoint, scope="work", timeout_ms=10_000) as client:
        for _ in range(2):
            asking = thread.submit(client.ask, GetMessages("r1", limit=5))
            peer, request = router.receive()
            router.answer(peer, request, [])
            assert asking.result() == []
            requests.append(request)
    first, second = requests
    assert first.id < second.id
    assert (first.type, first.payload) == ("get-messages", {"roomId": "r1", "limit": 5})
    assert (first.scope, first.deadline_ms) == ("work", 10_000)


def test_a_late_reply_is_dropped(router: Router) -> None:
    """The reply to a call that timed out is dropped, and the next call gets its own."""
    with ThreadPoolExecutor(1) as thread, Client(router.endpoint, timeout_ms=500) as client:
        asking = thread.submit(list, client.pipeline([GetUser("soon"), GetUser("late")], return_errors=True))
        (peer, soon), (_, late) = router.receive(), router.receive()
        router.answer(peer, soon, user("soon"))  # so the connection is not silent
        first, second = asking.result()
        assert first == user("soon")
        assert isinstance(second, NoReply)
        following = thread.submit(client.ask, GetUser("next"), timeout_ms=10_000)
        _, request = router.receive()
        router.answer(peer, late, user("late"))
        router.answer(peer, request, user("next"))
        assert following.result() == user("next")


def test_async_replies_are_matched_by_id(router: Router) -> None:
    """The asynchronous client drops late replies, and accepts replies out of order."""

    async def scenario() -> None:
        async with AsyncClient(router.endpoint, timeout_ms=10_000) as client:
            asking_late = asyncio.create_task(client.ask(GetUser("late"), timeout_ms=SOON_MS))
            peer, late = await asyncio.to_thread(router.receive)
            asking = asyncio.create_task(client.ask(GetUser("soon")))
            router.answer(*await asyncio.to_thread(router.receive), user("soon"))  # so the connection is not silent
            assert await asking == user("soon")
            with pytest.raises(NoReply):
                await asking_late
            calls = [asyncio.create_task(client.ask(GetUser(name))) for name in ("a", "b")]
            requests = [(await asyncio.to_thread(router.receive))[1] for _ in calls]
            router.answer(peer, late, user("late"))
            for request in reversed(requests):
                router.answer(peer, request, user(request.payload["userId"]))
            assert await asyncio.gather(*calls) == [user("a"), user("b")]

    run(scenario())


# --- many at once ---


@pytest.mark.parametrize("window", [1, 2, 256])
def test_a_pipeline_yields_results_in_order(place: dict[str, Any], window: int) -> None:
    """However many requests are in flight, results come in the order of the requests."""
    with Client(**place) as client:
        saved = list(client.pipeline((SaveUser(user(str(number))) for number in range(100)), window=window))
        assert saved == [None] * 100
        asked: Iterator[User | None] = client.pipeline((GetUser(str(number)) for number in range(101)), window=window)
        assert list(asked) == [*(user(str(number)) for number in range(100)), None]


def test_a_pipeline_reads_its_own_writes(place: dict[str, Any]) -> None:
    """A query sees all commands that the same client sent before it, and none sent after it."""
    operations: list[Operation[Any]] = []
    for number in range(50):
        operations += [SaveUser(User(oder_id="u", id="u", username=str(number))), GetUser("u")]
    with Client(**place) as client:
        answers = list(client.pipeline(operations))
    assert [answer.username for answer in answers[1::2]] == [str(number) for number in range(50)]


def test_a_pipeline_raises_the_first_error_in_order(place: dict[str, Any]) -> None:
    """Results before it are yielded, requests already sent after it take effect, and the client can be used on."""
    operations = [save_message("1"), DeleteMessage("unknown"), save_message("2"), DeleteMessage("no")]
    with Client(**place) as client:
        results = client.pipeline(operations)
        assert next(results) is None
        with pytest.raises(NotFound, match="unknown"):
            next(results)
        assert [each.id for each in client.ask(GetMessages("r1"))] == ["1", "2"]


def test_a_pipeline_raises_encoding_errors_in_order(place: dict[str, Any]) -> None:
    """A request that cannot be encoded is an error at its place among the results."""
    operations = [save_message("1"), save_message("\ud800"), save_message("2")]
    with Client(**place) as client:
        results = client.pipeline(operations)
        assert next(results) is None
        with pytest.raises(Invalid, match="cannot be written"):
            next(results)
        assert [each.id for each in client.ask(GetMessages("r1"))] == ["1"]


def test_a_pipeline_allows_other_requests_of_its_thread(place: dict[str, Any]) -> None:
    """The thread that consumes the results can send more requests meanwhile, and no reply is lost."""
    with Client(**place) as client:
        client.execute(SaveUser(user("a")))
        between = [client.ask(GetUser("a")) for _ in client.pipeline([Ping()] * 5, window=2)]
        assert between == [user("a")] * 5


def test_a_pipeline_can_be_abandoned(place: dict[str, Any]) -> None:
    """Results that were not consumed are dropped, and the client can be used on."""
    with Client(**place) as client:
        results = client.pipeline(SaveUser(user(str(number))) for number in range(10))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert client.ask(GetUser("9")) == user("9")


def test_a_client_is_thread_safe(place: dict[str, Any]) -> None:
    """Each thread gets the replies to its own requests."""
    answers: dict[str, list[User | None]] = {}

    def ask(name: str) -> None:
        client.execute(SaveUser(user(name)))
        answers[name] = [client.ask(GetUser(name)) for _ in range(20)]

    with Client(**place) as client:
        threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {str(number): [user(str(number))] * 20 for number in range(8)}


def test_an_async_client_handles_many_requests_in_flight(place: dict[str, Any]) -> None:
    """Two hundred requests are in flight at once, and each gets its own reply."""

    async def scenario() -> None:
        names = [str(number) for number in range(200)]
        async with AsyncClient(**place) as client:
            await asyncio.gather(*(client.execute(SaveUser(user(name))) for name in names))
            assert await asyncio.gather(*(client.ask(GetUser(name)) for name in names)) == [user(n) for n in names]
            outcomes = await asyncio.gather(
                client.execute(DeleteMessage("unknown")), client.ask(Ping()), return_exceptions=True
            )
            assert isinstance(outcomes[0], NotFound)
            assert outcomes[1] == Pong(pong=True)

    run(scenario())


def test_a_cancelled_request_does_not_affect_others(place: dict[str, Any]) -> None:
    """A cancelled request is no longer waited for, and the client can be used on."""

    async def scenario() -> None:
        async with AsyncClient(**place) as client:
            cancelled = asyncio.create_task(client.ask(GetUser("a")))
            asyncio.get_running_loop().call_soon(cancelled.cancel)
            others = await asyncio.gather(*(client.ask(Ping()) for _ in range(10)))
            assert others == [Pong(pong=True)] * 10
            with pytest.raises(asyncio.CancelledError):
                await cancelled

    run(scenario())


def test_an_unused_client_can_be_closed(place: dict[str, Any]) -> None:
    """Opening and closing sends nothing, and closing twice is no error."""
    client = Client(**place)
    client.close()
    client.close()
    run(AsyncClient(**place).close())


def test_a_closed_client_sends_nothing(place: dict[str, Any]) -> None:
    """Requests after closing raise `Unavailable`, also in a pipeline; what was sent before takes effect."""
    client = Client(**place)
    results: Iterator[Any] = client.pipeline([SaveUser(user("a")), *[GetUser("a")] * 2], window=2)
    next(results)
    client.close()
    with pytest.raises(NoReply, match="closed"):
        next(results)
    with pytest.raises(Unavailable, match="closed; nothing was sent"):
        client.ask(Ping())

    async def scenario() -> None:
        client = AsyncClient(**place)
        await client.ask(Ping())
        await client.close()
        with pytest.raises(Unavailable, match="closed; nothing was sent"):
            await client.ask(Ping())

    run(scenario())


def test_closing_waits_for_another_thread(router: Router) -> None:
    """A request in flight in another thread is finished; one that waits for its turn is not begun."""
    client = Client(router.endpoint, timeout_ms=10_000)
    with ThreadPoolExecutor(3) as threads:
        asking = threads.submit(client.ask, Ping())
        peer, request = router.receive()
        closing = threads.submit(client.close)
        # Private: nothing shows that `close` has begun before the other thread is done.
        wait_until(lambda: client._pending.closed)
        late = threads.submit(client.ask, Ping())
        assert not closing.done()
        router.answer(peer, request, Pong(pong=True))
        assert asking.result() == Pong(pong=True)
        assert closing.result() is None
        with pytest.raises(Unavailable, match="closed; nothing was sent"):
            late.result()


# --- transports for the asynchronous client ---


def test_an_async_client_refuses_a_blocking_transport(router: Router) -> None:
    """It could not wait for such a transport without blocking the loop."""
    with closing(ZmqTransport(router.endpoint)) as transport, pytest.raises(Invalid, match="its own connection"):
        AsyncClient(transport=transport)


def test_an_async_client_detects_a_transport_without_reply() -> None:
    """A transport that does not reply at once is an error at once, and not at the timeout."""
    with pytest.raises(NoReply, match="did not answer at once"):
        _once(AsyncClient, Ping(), transport=Scripted())


def test_replies_to_other_users_of_a_transport_are_dropped(transport: InProcess) -> None:
    """A reply that another client did not wait for is not taken for the own one."""
    with closing(Client(transport=Borrowed(transport)).pipeline([SaveUser(user("a"))] * 3)) as results:  # type: ignore[type-var]
        next(results)
    assert _once(AsyncClient, GetUser("a"), transport=Borrowed(transport)) == user("a")
    assert Client(transport=transport).ask(GetUser("a")) == user("a")


# --- finding the daemon ---


def test_a_given_endpoint_is_used(tmp_path: Path) -> None:
    """Nothing is looked up then."""
    assert find_endpoint("ipc:///x", tmp_path / "nowhere") == "ipc:///x"


def test_a_daemon_is_found_by_its_data_directory(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The first endpoint in `endpoint.json` is used, in whatever form the directory is given."""
    daemon = start_daemon()
    assert find_endpoint(None, tmp_path / "data") == daemon.endpoint
    assert find_endpoint(None, str(tmp_path / "data")) == daemon.endpoint


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_no_daemon_is_unavailable(tmp_path: Path, client_class: Any) -> None:
    """Without a running daemon the error says what to do, and a later attempt can succeed."""
    with pytest.raises(Unavailable, match="backscroll serve --data-dir") as caught:
        client_class(data_dir=tmp_path)
    assert caught.value.retryable


def test_a_stopped_daemon_is_unavailable(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon removes its `endpoint.json` when it stops."""
    assert start_daemon().stop() == 0
    with pytest.raises(Unavailable):
        find_endpoint(None, tmp_path / "data")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"endpoints": []}', "7"])
def test_a_damaged_endpoint_file_is_unavailable(tmp_path: Path, text: str) -> None:
    """A file without a valid endpoint counts as no daemon."""
    (tmp_path / "endpoint.json").write_text(text, encoding="utf-8")
    with pytest.raises(Unavailable):
        find_endpoint(None, tmp_path)


def _once(client_class: Any, operation: Operation[Any], **options: Any) -> Any:
    """One operation with a client of its own."""
    if client_class is AsyncClient:
        return asynchronously(lambda: AsyncClient(**options))(operation)
    with Client(**options) as client:
        return perform(client, operation)
