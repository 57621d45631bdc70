"""Both Python clients resend unanswered requests: each request has one outcome, or `NoReply` when it is unknown."""

import asyncio
import math
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python import pending_calls as pending_calls_module
from backscroll.clients.python.client import ZmqTransport
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import RETRY_DELAY_MS, Call, PendingCalls
from backscroll.schema import (
    BackscrollError,
    Busy,
    Command,
    Conflict,
    CreateUser,
    DeleteMessage,
    DeleteScope,
    GetLog,
    GetMessageById,
    GetUser,
    Internal,
    Invalid,
    ListUsers,
    Maintenance,
    MessageUpdates,
    NoReply,
    NotFound,
    Operation,
    Ping,
    Pong,
    SaveUser,
    Storage,
    Unavailable,
    UpdateMessage,
    User,
)
from backscroll.schema.errors import ERRORS, CallerError, DeadlineExceeded
from backscroll.schema.wire import DEFAULT_SCOPE, MSGPACK, Envelope, Reply, Success, write_failure
from tests.support.held_commits import HELD_MS, HeldCommits
from tests.support.messages import save_message
from tests.support.peers import running
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
Do = Callable[..., Any]
SOON_MS = 300
LONG_MS = 20_000
SAVE = SaveUser(User(oder_id="a", id="id-a", username="a"))
ASK = GetUser("a")
SILENT = [Busy, Unavailable, DeadlineExceeded, Storage, Internal]
"""Errors that say nothing about an earlier attempt."""


def user(name: str) -> User:
    return User(oder_id=name, id=f"id-{name}", username=name)


async def _ask(client: Any, operation: Operation[Any], **options: Any) -> Any:
    """An operation with an asynchronous client."""
    changes = isinstance(operation, Command | Maintenance)
    return await (client.execute(operation, **options) if changes else client.ask(operation, **options))


class Both:
    """Either client, used from a thread of its own: each call gives a future of its outcome."""

    def __init__(self, client_class: Any, *arguments: Any, **options: Any) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._runner = self._thread.submit(asyncio.Runner).result()
        self._client = self._thread.submit(client_class, *arguments, **options).result()
        self._is_async = client_class is AsyncClient

    def start(self, operation: Operation[Any], **options: Any) -> Future[Any]:
        return self._thread.submit(self._do, operation, **options)

    def __call__(self, operation: Operation[Any], **options: Any) -> Any:
        return self.start(operation, **options).result()

    def all(self, operations: list[Operation[Any]]) -> Future[list[Any]]:
        """Many operations at once; the first error is raised."""
        return self._thread.submit(self._all, operations)

    def close(self) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _do(self, operation: Operation[Any], **options: Any) -> Any:
        if self._is_async:
            return self._runner.run(_ask(self._client, operation, **options))
        changes = isinstance(operation, Command | Maintenance)
        return (self._client.execute if changes else self._client.ask)(operation, **options)

    def _all(self, operations: list[Operation[Any]]) -> list[Any]:
        if not self._is_async:
            return list(self._client.pipeline(operations, window=len(operations)))

        async def gather() -> list[Any]:
            return await asyncio.gather(*(_ask(self._client, operation) for operation in operations))

        return self._runner.run(gather())

    def _close(self) -> None:
        if self._is_async:
            self._runner.run(self._client.close())
        else:
            self._client.close()
        self._runner.close()


both = pytest.mark.parametrize("client_class", [Client, AsyncClient])


class FakeDaemon:
    """A ROUTER socket in the place of a daemon: the test decides what it replies, and when it goes away and
    comes back.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.come()

    def come(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 1_000
        self.socket.rcvtimeo = 10_000
        self.socket.bind(self.endpoint)

    def go(self) -> None:
        """Close the socket; when this returns all replies are delivered and the address is free."""
        self.socket.close()
        self.context.term()

    def receive(self) -> tuple[bytes, Envelope]:
        """The sender of the next request, and the request."""
        client, body = self.socket.recv_multipart()
        return client, MSGPACK.decode(body, Envelope)

    def is_silent(self, milliseconds: int) -> bool:
        return not self.socket.poll(milliseconds)

    def answer(self, client: bytes, request: Envelope, result: Any = None) -> None:
        self.socket.send_multipart([client, MSGPACK.encode(Success(request.id, True, result, 1))])

    def answer_until(self, outcome: Future[Any], result: Any) -> None:
        """Reply to every request with this result until there is an outcome."""
        while not outcome.done():
            if not self.is_silent(10):
                self.answer(*self.receive(), result)

    def refuse(self, client: bytes, request: Envelope, error: BackscrollError) -> None:
        self.socket.send_multipart([client, write_failure(request.id, error, MSGPACK)])

    def close(self) -> None:
        self.go()


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    """A fake daemon on a socket of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="backscroll-") as directory,
        closing(FakeDaemon(f"ipc://{directory}/s")) as fake,
    ):
        yield fake


@pytest.fixture
def do(request: pytest.FixtureRequest, fake: FakeDaemon) -> Iterator[Both]:
    """A client of `fake`."""
    with closing(Both(request.param, fake.endpoint, timeout_ms=LONG_MS)) as do:
        yield do


with_both = pytest.mark.parametrize("do", [Client, AsyncClient], indirect=True)


# --- lost connections ---


@with_both
def test_an_unanswered_request_is_resent_after_reconnecting(do: Both, fake: FakeDaemon) -> None:
    """The same request with the same id goes over the new connection, with the remaining time as its deadline."""
    outcome = do.start(SaveUser(user("a")))
    _, first = fake.receive()
    fake.go()
    fake.come()
    client, second = fake.receive()
    fake.answer(client, second)
    assert outcome.result() is None
    assert (second.id, second.type, second.payload) == (first.id, first.type, first.payload)
    assert first.deadline_ms is not None
    assert second.deadline_ms is not None
    assert 0 < second.deadline_ms < LONG_MS
    assert second.deadline_ms <= first.deadline_ms <= LONG_MS


@with_both
def test_unanswered_requests_are_resent_in_order(do: Both, fake: FakeDaemon) -> None:
    """Answered requests are not resent, and every request gets its own reply."""
    names = [str(number) for number in range(20)]
    outcome = do.all([GetUser(name) for name in names])
    requests = [fake.receive() for _ in names]
    for client, request in requests[:5]:
        fake.answer(client, request, user(request.payload["userId"]))
    fake.go()
    fake.come()
    again = [fake.receive() for _ in names[5:]]
    assert [request.id for _, request in again] == [request.id for _, request in requests[5:]]
    for client, request in again:
        fake.answer(client, request, user(request.payload["userId"]))
    assert outcome.result() == [user(name) for name in names]
    assert fake.is_silent(0)


def test_a_pipeline_resends_before_sending_anything_new(fake: FakeDaemon) -> None:
    """However often the connection is lost, the daemon first sees the requests in the order of the pipeline."""
    seen: list[str] = []
    with Client(fake.endpoint, timeout_ms=LONG_MS) as client:
        results = client.pipeline((GetUser(str(number)) for number in range(40)), window=8)
        outcome = ThreadPoolExecutor(1).submit(list, results)
        for lost in (3, 1, 5, 40):
            for _ in range(lost):
                peer, request = fake.receive()
                name = request.payload["userId"]
                if name not in seen:
                    seen.append(name)
                if lost != 1:
                    fake.answer(peer, request, user(name))
                if len(seen) == 40:
                    break
            else:
                fake.go()
                fake.come()
        while not outcome.done():
            if not fake.is_silent(10):
                peer, request = fake.receive()
                fake.answer(peer, request, user(request.payload["userId"]))
        assert outcome.result() == [user(str(number)) for number in range(40)]
    assert seen == [str(number) for number in range(40)]


def test_a_pipeline_has_deadlines_only_for_what_it_awaits(fake: FakeDaemon) -> None:
    """The timeout of a request starts when its result is next, so before that the daemon is told none: it would refuse
    requests that stand behind others for longer.
    """
    with ThreadPoolExecutor(1) as thread, Client(fake.endpoint, timeout_ms=LONG_MS) as client:
        outcomes = thread.submit(list, client.pipeline([SAVE, ASK]))
        for is_resent in (False, True):
            (peer, first), (_, second) = fake.receive(), fake.receive()
            assert second.deadline_ms is None
            if not is_resent:
                assert first.deadline_ms is None
                fake.go()
                fake.come()
        assert first.deadline_ms is not None
        assert 0 < first.deadline_ms < LONG_MS
        fake.answer(peer, first)
        fake.answer(peer, second, user("a"))
        assert outcomes.result() == [None, user("a")]


@with_both
def test_only_a_window_of_requests_is_in_flight(do: Both, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait in the client, also after a loss; each reply makes room for the next one."""
    monkeypatch.setattr(pending_calls_module, "IN_FLIGHT_MAX", 5)
    names = [str(number) for number in range(20)]
    outcome = do.all([GetUser(name) for name in names])
    first = [fake.receive()[1].id for _ in range(5)]
    assert fake.is_silent(50)
    fake.go()
    fake.come()
    requests = [fake.receive() for _ in range(5)]
    assert [request.id for _, request in requests] == first
    for name in names:
        assert fake.is_silent(0)
        client, request = requests.pop(0)
        assert request.payload["userId"] == name
        fake.answer(client, request, user(name))
        if int(name) + 5 < len(names):
            requests.append(fake.receive())
    assert outcome.result() == [user(name) for name in names]


@with_both
def test_a_daemon_that_never_comes_back_gives_no_reply(do: Both, fake: FakeDaemon) -> None:
    """A request that was sent is waited for until its timeout, and then its outcome is unknown."""
    outcome = do.start(GetUser("a"), timeout_ms=SOON_MS)
    fake.receive()
    fake.go()
    with pytest.raises(NoReply, match="unknown"):
        outcome.result()


@with_both
def test_a_request_that_was_not_sent_raises_unavailable(do: Both, fake: FakeDaemon) -> None:
    """Where the daemon was gone before the request, the error says that nothing was sent."""
    outcome = do.start(Ping(), timeout_ms=SOON_MS)
    fake.receive()
    fake.go()
    with pytest.raises(NoReply):
        outcome.result()
    with pytest.raises(Unavailable, match="nothing was sent"):
        do(SaveUser(user("a")), timeout_ms=SOON_MS)


@with_both
def test_replies_sent_before_a_disconnect_are_received(do: Both, fake: FakeDaemon) -> None:
    """A daemon that replies and goes away at once has replied."""
    outcome = do.all([SaveUser(user(str(number))) for number in range(50)])
    for client, request in [fake.receive() for _ in range(50)]:
        fake.answer(client, request)
    fake.go()
    assert outcome.result() == [None] * 50


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("first", [DeleteScope(), DeleteMessage("m1")])
def test_a_pipeline_reads_replies_from_before_a_loss(fake: FakeDaemon, first: Operation[Any], *, refused: bool) -> None:
    """Where it notices the loss only as it sends, what has its reply is not sent again: a command that was refused
    could take effect then, although its caller gets the refusal.
    """
    gone = threading.Event()

    def operations() -> Iterator[Operation[Any]]:
        yield first
        assert gone.wait(10)
        yield Ping()

    def pipelined() -> list[Any]:
        with Client(fake.endpoint, timeout_ms=LONG_MS) as client:
            return list(client.pipeline(operations(), return_errors=True))

    with ThreadPoolExecutor(1) as thread:
        outcomes = thread.submit(pipelined)
        client, request = fake.receive()
        if refused:
            fake.refuse(client, request, NotFound("wrong"))
        else:
            fake.answer(client, request)
        fake.go()
        gone.set()
        fake.come()
        client, request = fake.receive()
        fake.answer(client, request, Pong(pong=True))
        assert request.type == "ping"
        outcome, pong = outcomes.result()
    assert isinstance(outcome, NotFound) if refused else outcome is None
    assert pong == Pong(pong=True)


@with_both
def test_a_maintenance_operation_is_never_resent(do: Both, fake: FakeDaemon) -> None:
    """The daemon does not remember it by its id, so executing it again could do harm: its outcome is unknown
    at once.
    """
    outcome = do.start(DeleteScope())
    fake.receive()
    fake.go()
    fake.come()
    with pytest.raises(NoReply, match="connection was lost"):
        outcome.result()
    assert fake.is_silent(0)


# --- live connections ---


@pytest.fixture
def hold_ms(long: bool) -> int:
    """How long a daemon does not reply."""
    return 5_000 if long else SOON_MS


@with_both
def test_nothing_is_resent_on_a_live_connection(do: Both, fake: FakeDaemon, hold_ms: int) -> None:
    """However long the daemon takes, each request is sent once on each connection."""
    outcome = do.all([SAVE, ASK, Ping()])
    requests = [fake.receive() for _ in range(3)]
    assert fake.is_silent(hold_ms)
    for (client, request), result in zip(requests, (None, user("a"), Pong(pong=True)), strict=True):
        fake.answer(client, request, result)
    assert outcome.result() == [None, user("a"), Pong(pong=True)]
    assert fake.is_silent(0)


@both
def test_a_slow_refusal_is_final(client_class: Any, tmp_path: Path, hold_ms: int) -> None:
    """An update that waits for a commit and is then refused is not tried again after the save behind it."""
    commits = HeldCommits(tmp_path / "data")
    with (
        running(tmp_path / "data", vfs=commits.vfs, lock_wait_ms=HELD_MS) as daemon,
        closing(Both(Client, daemon.endpoint, timeout_ms=LONG_MS)) as other,
        closing(Both(client_class, daemon.endpoint, timeout_ms=LONG_MS)) as do,
        commits,
    ):
        commits.hold()
        held_up = other.start(SAVE)
        commits.wait_for_one()
        outcome = do.all([UpdateMessage("m1", MessageUpdates(content="old")), save_message(1)])
        with pytest.raises(TimeoutError):
            outcome.result(hold_ms / 1000)
        commits.release()
        assert held_up.result() is None
        with pytest.raises(NotFound):
            outcome.result()
        assert do(GetMessageById("m1")).content == "hello"
        assert do(GetLog()).last_seq == 2


def test_a_failing_socket_counts_as_a_lost_connection(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asynchronous client that cannot receive resends over a new connection."""
    failing = [zmq.ZMQError(zmq.ENOTSOCK)] * 2
    receive = zmq.asyncio.Socket.recv_multipart

    def recv(socket: Any) -> Any:
        if failing:
            raise failing.pop()
        return receive(socket)

    monkeypatch.setattr(zmq.asyncio.Socket, "recv_multipart", recv)
    with closing(Both(AsyncClient, fake.endpoint, timeout_ms=LONG_MS)) as do:
        outcome = do.start(ASK)
        fake.answer_until(outcome, user("a"))
        assert outcome.result() == user("a")
    assert not failing


def test_a_crashed_receive_task_fails_pending_requests(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error of the receiving task fails the requests in flight at once, and the client can be used
    afterwards.
    """
    with monkeypatch.context() as patch, closing(Both(AsyncClient, fake.endpoint, timeout_ms=LONG_MS)) as do:
        patch.setattr(zmq.asyncio.Socket, "recv_multipart", lambda _: 1 / 0)
        with pytest.raises((NoReply, Unavailable), match="receiving failed: ZeroDivisionError"):
            do(Ping())
        patch.undo()
        outcome = do.start(ASK)
        fake.answer_until(outcome, user("a"))
        assert outcome.result() == user("a")


# --- error replies ---


@both
@pytest.mark.parametrize("error_class", ERRORS.values(), ids=ERRORS)
def test_an_error_reply_to_the_only_attempt_is_raised(
    fake: FakeDaemon, client_class: Any, error_class: type[BackscrollError]
) -> None:
    """The only attempt was refused, so the request had no effect."""
    with closing(Both(client_class, fake.endpoint, timeout_ms=LONG_MS)) as do:
        outcome = do.start(SaveUser(user("a")))
        client, request = fake.receive()
        fake.refuse(client, request, error_class("no"))
        with pytest.raises(error_class, match="no"):
            outcome.result()


@with_both
@pytest.mark.parametrize("error_class", SILENT, ids=lambda error_class: error_class.code)
def test_a_transient_error_of_a_later_attempt_is_retried(
    do: Both, fake: FakeDaemon, error_class: type[BackscrollError]
) -> None:
    """It says nothing about the first attempt, so the request is resent after a pause until there is another reply."""
    outcome = do.start(SaveUser(user("a")))
    fake.receive()
    fake.go()
    fake.come()
    for _ in range(2):
        client, request = fake.receive()
        fake.refuse(client, request, error_class("not now"))
        assert fake.is_silent(RETRY_DELAY_MS // 2)
    client, request = fake.receive()
    fake.answer(client, request)
    assert outcome.result() is None


@with_both
def test_transient_errors_until_the_timeout_give_no_reply(do: Both, fake: FakeDaemon) -> None:
    """At the timeout the outcome of the first attempt is still unknown."""
    outcome = do.start(SaveUser(user("a")), timeout_ms=3 * SOON_MS)
    fake.receive()
    fake.go()
    fake.come()
    while not outcome.done():
        if not fake.is_silent(10):
            client, request = fake.receive()
            fake.refuse(client, request, Busy("not now"))
    with pytest.raises(NoReply):
        outcome.result()


@with_both
@pytest.mark.parametrize("error_class", [Invalid, NotFound, Conflict], ids=lambda error_class: error_class.code)
def test_a_caller_error_of_any_attempt_is_the_outcome(
    do: Both, fake: FakeDaemon, error_class: type[BackscrollError]
) -> None:
    """The daemon repeats the reply of a command that took effect, so an error of the caller means that it did not."""
    outcome = do.start(DeleteMessage("m1"))
    fake.receive()
    fake.go()
    fake.come()
    client, request = fake.receive()
    fake.refuse(client, request, error_class("wrong"))
    with pytest.raises(error_class, match="wrong"):
        outcome.result()


# --- the queue of pending calls, without a clock ---


def sent(pending: PendingCalls) -> list[str]:
    """The ids of the calls that are due to be sent, which marks them as sent."""
    ids = []
    while (call := pending.next_call()) is not None:
        ids.append(call.id)
        pending.mark_sent(call)
    return ids


def calls(pending: PendingCalls, *operations: Operation[Any]) -> list[Call]:
    """Calls with the ids 1, 2, 3 …, marked as sent."""
    made = [
        Call(operation, scope=DEFAULT_SCOPE, timeout_ms=LONG_MS, call_id=str(number))
        for number, operation in enumerate(operations, 1)
    ]
    for call in made:
        pending.add(call)
    assert sent(pending) == [call.id for call in made]
    return made


def ok(call: Call) -> bytes:
    return MSGPACK.encode(Success(call.id, True, None, 1))


def busy(call: Call) -> bytes:
    return write_failure(call.id, Busy("not now"), MSGPACK)


def test_time_alone_causes_no_resending() -> None:
    """A call waits for the reply on the current connection, however long it takes."""
    pending = PendingCalls()
    first, _ = calls(pending, SAVE, ASK)
    pending.reconnected()
    assert sent(pending) == ["1", "2"]
    pending.handle_reply(ok(first), 0)
    assert pending.retry_at == math.inf
    pending.queue_retry(1e9)
    assert sent(pending) == []


def test_a_refused_call_in_doubt_is_resent_after_a_pause() -> None:
    """Once after each refusal, for as long as the outcome of the earlier attempt is unknown."""
    pending = PendingCalls()
    [call] = calls(pending, SAVE)
    pending.reconnected()
    assert sent(pending) == ["1"]
    for now in (1, 2):
        assert pending.handle_reply(busy(call), now)
        assert pending.retry_at == now + RETRY_DELAY_MS / 1000
        pending.queue_retry(now + RETRY_DELAY_MS / 2000)
        assert sent(pending) == []
        pending.queue_retry(now + RETRY_DELAY_MS / 1000)
        assert sent(pending) == ["1"]
        assert pending.retry_at == math.inf
    assert not pending.handle_reply(ok(call), 3)
    assert call.result() is None


def test_a_refused_call_is_not_resent_behind_a_later_one() -> None:
    """Later requests that were sent may have taken effect, so the outcome of the refused one is unknown."""
    pending = PendingCalls()
    first, second = calls(pending, SAVE, SAVE)
    pending.reconnected()
    assert sent(pending) == ["1", "2"]
    assert not pending.handle_reply(busy(first), 0)
    with pytest.raises(NoReply):
        first.result()
    assert pending.handle_reply(busy(second), 0)
    pending.queue_retry(pending.retry_at)
    assert sent(pending) == ["2"]


def test_a_refused_call_is_resent_before_a_new_one() -> None:
    """Its pause ends when another call is to be sent."""
    pending = PendingCalls()
    [call] = calls(pending, SAVE)
    pending.reconnected()
    assert sent(pending) == ["1"]
    assert pending.handle_reply(busy(call), 0)
    pending.add(Call(SAVE, scope=DEFAULT_SCOPE, timeout_ms=1, call_id="2"))
    assert sent(pending) == ["1", "2"]


def test_a_refused_call_is_resent_once_on_a_new_connection() -> None:
    """There it is sent in its order, and its pause is over."""
    pending = PendingCalls()
    [call] = calls(pending, SAVE)
    pending.reconnected()
    assert sent(pending) == ["1"]
    assert pending.handle_reply(busy(call), 0)
    pending.reconnected()
    pending.queue_retry(1e9)
    assert sent(pending) == ["1"]


def test_calls_nobody_waits_for_are_not_resent() -> None:
    """Neither answered nor abandoned calls are resent, also while they wait after a refusal."""
    pending = PendingCalls()
    first, second, third = calls(pending, SAVE, SAVE, SAVE)
    pending.handle_reply(ok(first), 0)
    pending.reconnected()
    pending.forget(second)
    assert sent(pending) == ["3"]
    assert pending.handle_reply(busy(third), 0)
    pending.forget(third)
    assert not pending
    pending.queue_retry(1e9)
    assert sent(pending) == []


@pytest.mark.parametrize("end", [PendingCalls.forget, None])
def test_many_calls_that_were_not_sent_end_at_once(end: Callable[[PendingCalls, Call], None] | None) -> None:
    """When the connection is away, thousands of calls reach their deadlines together: each costs the same."""
    pending = PendingCalls()
    made = [Call(ASK, scope=DEFAULT_SCOPE, timeout_ms=LONG_MS) for _ in range(10_000)]
    for call in made:
        pending.add(call)
    begun = time.process_time()
    if end is None:
        pending.fail_all(Call.unanswered)
    else:
        for call in made:
            end(pending, call)
    assert time.process_time() - begun < 1
    assert (len(pending), len(pending.send_queue)) == (0, 0)


def test_answered_calls_are_not_kept() -> None:
    """Also while one that was sent before them takes long, as when a client pings during a compaction."""
    pending = PendingCalls()
    calls(pending, DeleteScope())
    for _ in range(100):
        call = Call(ASK, scope=DEFAULT_SCOPE, timeout_ms=LONG_MS)
        pending.add(call)
        sent(pending)
        pending.handle_reply(ok(call), 0)
    gone = weakref.ref(call)
    del call
    assert gone() is None


def test_a_payload_is_resent_unchanged() -> None:
    """Changes to the caller's objects after the call do not change the bytes under its id; only the deadline is
    updated.
    """
    metadata = {"n": 1}
    call = Call(SaveUser(User(oder_id="a", id="a", username="a", metadata=metadata)), scope="s", timeout_ms=5_000)
    call.in_doubt, call.deadline = True, 5.0
    metadata["n"] = 2
    first, again = MSGPACK.decode(call.body, Envelope), MSGPACK.decode(call.body_at(3.5), Envelope)
    assert (again.deadline_ms, first.deadline_ms) == (1_500, 5_000)
    assert (again.id, again.type, again.scope, again.payload) == (first.id, first.type, first.scope, first.payload)


def test_all_errors_but_caller_errors_are_transient() -> None:
    """Every error that is no `CallerError` says nothing about an earlier attempt."""
    assert {error for error in ERRORS.values() if not issubclass(error, CallerError)} == set(SILENT)


# --- ids supplied by the caller ---


@both
def test_a_command_with_a_caller_supplied_id_is_executed_once(transport: InProcess, client_class: Any) -> None:
    """Executed again under its id it returns the same reply; another command under that id is a conflict."""
    with closing(Both(client_class, transport=transport)) as do:
        do(save_message(1))
        assert do(DeleteMessage("m1"), request_id="mine") is None
        do(save_message(2))
        assert do(DeleteMessage("m1"), request_id="mine") is None
        with pytest.raises(Conflict):
            do(DeleteMessage("m2"), request_id="mine")
        assert do(GetMessageById("m2")) is not None


@both
@pytest.mark.parametrize("request_id", ["", "x" * 65, "é" * 33, "\ud800"])
def test_an_invalid_request_id_is_refused_by_the_client(
    transport: InProcess, client_class: Any, request_id: str
) -> None:
    """An id must be text of 1 to 64 bytes."""
    with closing(Both(client_class, transport=transport)) as do, pytest.raises(Invalid):
        do(save_message(1), request_id=request_id)


def test_a_client_has_an_id_in_flight_only_once(fake: FakeDaemon) -> None:
    """Two requests that wait for the same reply could not be told apart."""

    async def scenario() -> None:
        async with AsyncClient(fake.endpoint, timeout_ms=SOON_MS) as client:
            first = asyncio.create_task(client.execute(SAVE, request_id="mine"))
            second = asyncio.create_task(client.execute(SAVE, request_id="mine"))
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [NoReply, Invalid]

    asyncio.run(scenario())


def test_closing_a_client_gives_no_reply_for_sent_requests(fake: FakeDaemon) -> None:
    """A request that was sent when its client is closed raises `NoReply`, because its outcome is unknown."""

    async def scenario() -> None:
        client = AsyncClient(fake.endpoint, timeout_ms=LONG_MS)
        sent = asyncio.create_task(client.execute(SAVE))
        await asyncio.to_thread(fake.receive)
        await client.close()
        with pytest.raises(NoReply, match="closed"):
            await sent

    asyncio.run(scenario())


# --- real daemons ---


def test_a_client_follows_a_restarted_daemon_to_its_new_port(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A client that knows the data directory continues with the next daemon there."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    made = [Both(each, data_dir=tmp_path / "data", timeout_ms=LONG_MS) for each in (Client, AsyncClient)]
    with closing(made[0]), closing(made[1]):
        for number, do in enumerate(made):
            do(save_message(number))
        daemon.kill()
        outcomes = [do.all([save_message(2), GetMessageById("m2"), GetMessageById("m1")]) for do in made]
        assert start_daemon("--endpoint", "tcp://127.0.0.1:*").endpoint != daemon.endpoint
        for outcome in outcomes:
            assert [each and each.id for each in outcome.result()] == [None, "m2", "m1"]


class Tap:
    """A client's transport that records what passes, and drops each reply for which `lost` returns true."""

    def __init__(self, transport: ZmqTransport, lost: Callable[[], bool] = lambda: False) -> None:
        self.transport, self.lost = transport, lost
        self.bodies: list[bytes] = []
        self.replies: dict[str, list[bytes]] = {}
        self.close = transport.close

    def send(self, body: bytes, timeout_ms: float) -> None:
        self.transport.send(body, timeout_ms)
        self.bodies.append(body)

    def receive(self, timeout_ms: float) -> bytes | None:
        body = self.transport.receive(timeout_ms)
        if body is None:
            return None
        self.replies.setdefault(str(MSGPACK.decode(body, Reply).id), []).append(body)
        return self.receive(timeout_ms) if self.lost() else body

    def seqs(self) -> list[int | None]:
        """The `seq` of the replies, in the order of the requests' ids."""
        return [MSGPACK.decode(self.replies[request_id][0], Reply).seq for request_id in sorted(self.replies)]


def test_a_command_whose_reply_was_lost_is_not_executed_again(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon is killed after its reply, which is lost: the next daemon sends the same reply, byte for byte."""
    daemon = start_daemon()

    def lost() -> bool:
        if daemon.process.poll() is not None:
            return False
        daemon.kill()
        start_daemon()
        return True

    tap = Tap(ZmqTransport(data_dir=tmp_path / "data"), lost)
    with Client(transport=tap, timeout_ms=LONG_MS) as client:
        user = client.execute(CreateUser("a public key"))
        assert client.ask(ListUsers()) == [user]
    first, again = next(iter(tap.replies.values()))
    assert first == again


def test_a_command_unread_at_a_kill_is_executed_afterwards(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon is killed before it has read the request; the next one executes it."""
    daemon = start_daemon()
    tap = Tap(ZmqTransport(data_dir=tmp_path / "data"))
    with closing(Both(Client, transport=tap, timeout_ms=LONG_MS)) as do:
        do(Ping())
        daemon.process.send_signal(signal.SIGSTOP)
        outcome = do.start(save_message(1))
        wait_until(lambda: len(tap.bodies) == 2)
        daemon.kill()
        start_daemon()
        assert outcome.result() is None
        assert tap.seqs() == [0, 1]
        assert len(tap.bodies) == 3
