"""Both clients send again what was not answered: each request has its one outcome, or `NoReply` says it is unknown."""

import asyncio
import math
import signal
import tempfile
import threading
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
    GetMessages,
    GetUser,
    Internal,
    Invalid,
    ListUsers,
    Maintenance,
    Message,
    MessageUpdates,
    NoReply,
    NotFound,
    Operation,
    Ping,
    Pong,
    SaveMessage,
    SaveUser,
    Storage,
    Unavailable,
    UpdateMessage,
    User,
)
from backscroll.schema.errors import ERRORS, CallerError, DeadlineExceeded
from backscroll.schema.wire import DEFAULT_SCOPE, MSGPACK, Envelope, Reply, Success, write_failure
from tests.support.disks import FaultyDisk
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


def message(number: int) -> Message:
    return Message(id=f"m{number}", room_id="r1", sender_id="ada", content="hello", timestamp=number)


async def _ask(client: Any, operation: Operation[Any], **options: Any) -> Any:
    """An operation with an asynchronous client."""
    changes = isinstance(operation, Command | Maintenance)
    return await (client.execute(operation, **options) if changes else client.ask(operation, **options))


class Both:
    """Either client, used from a thread of its own: calls give a future of their outcome."""

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
        """Many at once; the first error is raised."""
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
    """A ROUTER socket that answers what the test says, and may go and come back."""

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
        """Gone for good when this returns: replies are delivered, the address is free."""
        self.socket.close()
        self.context.term()

    def receive(self) -> tuple[bytes, Envelope]:
        """Who sent the next request, and the request."""
        client, body = self.socket.recv_multipart()
        return client, MSGPACK.decode(body, Envelope)

    def is_silent(self, milliseconds: int) -> bool:
        return not self.socket.poll(milliseconds)

    def answer(self, client: bytes, request: Envelope, result: Any = None) -> None:
        self.socket.send_multipart([client, MSGPACK.encode(Success(request.id, True, result, 1))])

    def answer_until(self, outcome: Future[Any], result: Any) -> None:
        """Give every request this result until there is an outcome."""
        while not outcome.done():
            if not self.is_silent(10):
                self.answer(*self.receive(), result)

    def refuse(self, client: bytes, request: Envelope, error: BackscrollError) -> None:
        self.socket.send_multipart([client, write_failure(request.id, error, MSGPACK)])

    def close(self) -> None:
        self.go()


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    """A daemon that does what the test says."""
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


# --- a connection that is lost ---


@with_both
def test_a_lost_request_is_sent_again(do: Both, fake: FakeDaemon) -> None:
    """Once there is a new connection the same request goes over it, with the same id, and less time than before."""
    outcome = do.start(SaveUser(user("a")))
    _, first = fake.receive()
    fake.go()
    fake.come()
    client, second = fake.receive()
    fake.answer(client, second)
    assert outcome.result() is None
    assert (second.id, second.type, second.payload) == (first.id, first.type, first.payload)
    assert first.deadline_ms == LONG_MS
    assert second.deadline_ms is not None
    assert 0 < second.deadline_ms < LONG_MS


@with_both
def test_all_that_is_not_answered_is_sent_again_in_its_order(do: Both, fake: FakeDaemon) -> None:
    """What was answered is not, and every request gets its own reply."""
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


def test_a_pipeline_sends_again_before_anything_new(fake: FakeDaemon) -> None:
    """However the connection is lost, the daemon sees each request for the first time in the order of the pipeline."""
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


@with_both
def test_nothing_that_comes_back_is_no_reply(do: Both, fake: FakeDaemon) -> None:
    """A request that was sent, and whose daemon is gone for good, is waited for until the caller's time is over."""
    outcome = do.start(GetUser("a"), timeout_ms=SOON_MS)
    fake.receive()
    fake.go()
    with pytest.raises(NoReply, match="unknown"):
        outcome.result()


@with_both
def test_a_request_that_was_never_sent_is_unavailable(do: Both, fake: FakeDaemon) -> None:
    """Where the daemon has gone before, nothing is sent, and that is said."""
    outcome = do.start(Ping(), timeout_ms=SOON_MS)
    fake.receive()
    fake.go()
    with pytest.raises(NoReply):
        outcome.result()
    with pytest.raises(Unavailable, match="nothing was sent"):
        do(SaveUser(user("a")), timeout_ms=SOON_MS)


@with_both
def test_replies_that_came_before_the_end_count(do: Both, fake: FakeDaemon) -> None:
    """A daemon that answers and goes at once has answered."""
    outcome = do.all([SaveUser(user(str(number))) for number in range(50)])
    for client, request in [fake.receive() for _ in range(50)]:
        fake.answer(client, request)
    fake.go()
    assert outcome.result() == [None] * 50


@with_both
def test_a_maintenance_operation_is_sent_once(do: Both, fake: FakeDaemon) -> None:
    """Nobody remembers it by its id, so carrying it out again could do harm: the outcome is unknown at once."""
    outcome = do.start(DeleteScope())
    fake.receive()
    fake.go()
    fake.come()
    with pytest.raises(NoReply, match="connection was lost"):
        outcome.result()
    assert fake.is_silent(0)


# --- a live connection ---


@pytest.fixture
def hold_ms(long: bool) -> int:
    """How long a daemon gives no answer."""
    return 5_000 if long else SOON_MS


@with_both
def test_nothing_is_sent_twice_on_one_connection(do: Both, fake: FakeDaemon, hold_ms: int) -> None:
    """However long the daemon says nothing: it has every request, and answers it or will never."""
    outcome = do.all([SAVE, ASK, Ping()])
    requests = [fake.receive() for _ in range(3)]
    assert fake.is_silent(hold_ms)
    for (client, request), result in zip(requests, (None, user("a"), Pong(pong=True)), strict=True):
        fake.answer(client, request, result)
    assert outcome.result() == [None, user("a"), Pong(pong=True)]
    assert fake.is_silent(0)


@both
def test_a_refused_command_does_not_take_effect_later(client_class: Any, tmp_path: Path, hold_ms: int) -> None:
    """The disk holds up an update that will be refused, and a save behind it: the update is not judged anew."""
    disk = FaultyDisk()
    with (
        running(tmp_path / "data", vfs=disk.name) as daemon,
        closing(Both(Client, daemon.endpoint, timeout_ms=LONG_MS)) as other,
        closing(Both(client_class, daemon.endpoint, timeout_ms=LONG_MS)) as do,
    ):
        disk.syncs_open.clear()
        try:
            held_up = other.start(SAVE)
            wait_until(lambda: disk.syncs_blocked)
            outcome = do.all([UpdateMessage("m1", MessageUpdates(content="old")), SaveMessage(message(1))])
            with pytest.raises(TimeoutError):
                outcome.result(hold_ms / 1000)
        finally:
            disk.syncs_open.set()
        assert held_up.result() is None
        with pytest.raises(NotFound):
            outcome.result()
        assert do(GetMessageById("m1")).content == "hello"
        assert do(GetLog()).last_seq == 2


def test_a_socket_that_fails_is_a_lost_connection(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an asynchronous client cannot receive any more, it sends again on a new connection."""
    failing = [zmq.ZMQError(zmq.ENOTSOCK)] * 2
    receive = zmq.asyncio.Socket.recv

    def recv(socket: Any) -> Any:
        if failing:
            raise failing.pop()
        return receive(socket)

    monkeypatch.setattr(zmq.asyncio.Socket, "recv", recv)
    with closing(Both(AsyncClient, fake.endpoint, timeout_ms=LONG_MS)) as do:
        outcome = do.start(ASK)
        fake.answer_until(outcome, user("a"))
        assert outcome.result() == user("a")
    assert not failing


def test_whoever_waits_is_told_when_nobody_receives(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else that goes wrong there ends what is under way at once, and the client goes on."""
    with monkeypatch.context() as patch, closing(Both(AsyncClient, fake.endpoint, timeout_ms=LONG_MS)) as do:
        patch.setattr(zmq.asyncio.Socket, "recv", lambda _: 1 / 0)
        with pytest.raises((NoReply, Unavailable), match="receiving failed: ZeroDivisionError"):
            do(Ping())
        patch.undo()
        outcome = do.start(ASK)
        fake.answer_until(outcome, user("a"))
        assert outcome.result() == user("a")


# --- refusals ---


@both
@pytest.mark.parametrize("error_class", ERRORS.values(), ids=ERRORS)
def test_a_refusal_of_the_only_attempt_is_raised(
    fake: FakeDaemon, client_class: Any, error_class: type[BackscrollError]
) -> None:
    """It means that nothing happened."""
    with closing(Both(client_class, fake.endpoint, timeout_ms=LONG_MS)) as do:
        outcome = do.start(SaveUser(user("a")))
        client, request = fake.receive()
        fake.refuse(client, request, error_class("no"))
        with pytest.raises(error_class, match="no"):
            outcome.result()


@with_both
@pytest.mark.parametrize("error_class", SILENT, ids=lambda error_class: error_class.code)
def test_a_refusal_of_a_later_attempt_is_not_the_outcome(
    do: Both, fake: FakeDaemon, error_class: type[BackscrollError]
) -> None:
    """It says nothing about the earlier one: the request is sent until something else is said, with a pause between."""
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
def test_a_refusal_of_every_later_attempt_is_no_reply(do: Both, fake: FakeDaemon) -> None:
    """When the caller's time is over, what the first attempt did is still unknown."""
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
def test_a_callers_error_is_the_outcome_of_any_attempt(
    do: Both, fake: FakeDaemon, error_class: type[BackscrollError]
) -> None:
    """The daemon would have given the stored reply to a command that took effect, so it did not."""
    outcome = do.start(DeleteMessage("m1"))
    fake.receive()
    fake.go()
    fake.come()
    client, request = fake.receive()
    fake.refuse(client, request, error_class("wrong"))
    with pytest.raises(error_class, match="wrong"):
        outcome.result()


# --- what is sent again, without any clock ---


def sent(pending: PendingCalls) -> list[str]:
    """The ids of all that is to be sent now, which is sent."""
    ids = []
    while pending.send_queue:
        call = pending.send_queue[0]
        ids.append(call.id)
        pending.mark_sent(call)
    return ids


def calls(pending: PendingCalls, *operations: Operation[Any]) -> list[Call]:
    """Calls with the ids 1, 2, 3 …, sent."""
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


def test_time_alone_sends_nothing_again() -> None:
    """What is owed a reply by the present connection waits for it."""
    pending = PendingCalls()
    first, _ = calls(pending, SAVE, ASK)
    pending.reconnected()
    assert sent(pending) == ["1", "2"]
    pending.handle_reply(ok(first), 0)
    assert pending.retry_at == math.inf
    pending.queue_retry(1e9)
    assert sent(pending) == []


def test_a_refused_one_goes_again_after_a_pause() -> None:
    """Once each time, for as long as the attempt in doubt is not answered."""
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


def test_a_refused_one_does_not_go_behind_a_later_one() -> None:
    """In doubt and refused, while later requests were sent that may have taken effect: the outcome is unknown."""
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


def test_a_refused_one_goes_before_a_new_one() -> None:
    """Its pause ends when something else is to be sent."""
    pending = PendingCalls()
    [call] = calls(pending, SAVE)
    pending.reconnected()
    assert sent(pending) == ["1"]
    assert pending.handle_reply(busy(call), 0)
    pending.add(Call(SAVE, scope=DEFAULT_SCOPE, timeout_ms=1, call_id="2"))
    assert sent(pending) == ["1", "2"]


def test_a_refused_one_goes_once_over_a_new_connection() -> None:
    """There it goes in its order, and its pause is over."""
    pending = PendingCalls()
    [call] = calls(pending, SAVE)
    pending.reconnected()
    assert sent(pending) == ["1"]
    assert pending.handle_reply(busy(call), 0)
    pending.reconnected()
    pending.queue_retry(1e9)
    assert sent(pending) == ["1"]


def test_what_nobody_waits_for_is_not_sent_again() -> None:
    """Neither what was answered nor what was given up, also while it waits after a refusal."""
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


def test_a_payload_is_sent_again_as_it_was() -> None:
    """Whatever the caller has made of its lists and objects meanwhile: the same id stands for the same bytes."""
    metadata = {"n": 1}
    call = Call(SaveUser(User(oder_id="a", id="a", username="a", metadata=metadata)), scope="s", timeout_ms=5_000)
    call.in_doubt, call.deadline = True, 5.0
    metadata["n"] = 2
    first, again = MSGPACK.decode(call.body, Envelope), MSGPACK.decode(call.body_at(3.5), Envelope)
    assert (again.deadline_ms, first.deadline_ms) == (1_500, 5_000)
    assert (again.id, again.type, again.scope, again.payload) == (first.id, first.type, first.scope, first.payload)


def test_the_callers_errors_are_those_of_the_tree() -> None:
    """Every other code is the daemon's fault or the hour's."""
    assert {error for error in ERRORS.values() if not issubclass(error, CallerError)} == set(SILENT)


# --- an id of the caller's own ---


@both
def test_a_command_with_an_id_of_the_callers_is_carried_out_once(transport: InProcess, client_class: Any) -> None:
    """Executed again with its id, it gives the reply it gave; another command with that id is a conflict."""
    with closing(Both(client_class, transport=transport)) as do:
        do(SaveMessage(message(1)))
        assert do(DeleteMessage("m1"), request_id="mine") is None
        do(SaveMessage(message(2)))
        assert do(DeleteMessage("m1"), request_id="mine") is None
        with pytest.raises(Conflict):
            do(DeleteMessage("m2"), request_id="mine")
        assert do(GetMessageById("m2")) is not None


@both
@pytest.mark.parametrize("request_id", ["", "x" * 65, "é" * 33, "\ud800"])
def test_an_id_that_is_none_is_refused_at_once(transport: InProcess, client_class: Any, request_id: str) -> None:
    """The daemon could not say whose it is."""
    with closing(Both(client_class, transport=transport)) as do, pytest.raises(Invalid):
        do(SaveMessage(message(1)), request_id=request_id)


def test_one_client_has_an_id_under_way_once(fake: FakeDaemon) -> None:
    """Two requests that wait for the same reply could not be told apart."""

    async def scenario() -> None:
        async with AsyncClient(fake.endpoint, timeout_ms=SOON_MS) as client:
            first = asyncio.create_task(client.execute(SAVE, request_id="mine"))
            second = asyncio.create_task(client.execute(SAVE, request_id="mine"))
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [NoReply, Invalid]

    asyncio.run(scenario())


def test_closing_says_that_the_outcome_is_unknown(fake: FakeDaemon) -> None:
    """Of what was sent; what was not has no effect."""

    async def scenario() -> None:
        client = AsyncClient(fake.endpoint, timeout_ms=LONG_MS)
        sent = asyncio.create_task(client.execute(SAVE))
        await asyncio.to_thread(fake.receive)
        await client.close()
        with pytest.raises(NoReply, match="closed"):
            await sent

    asyncio.run(scenario())


# --- real daemons ---


def test_a_killed_daemon_is_waited_for(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A client that knows the data directory goes on with the next daemon there, though it listens on another port."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    made = [Both(each, data_dir=tmp_path / "data", timeout_ms=LONG_MS) for each in (Client, AsyncClient)]
    with closing(made[0]), closing(made[1]):
        for number, do in enumerate(made):
            do(SaveMessage(message(number)))
        daemon.kill()
        outcomes = [do.all([SaveMessage(message(2)), GetMessageById("m2"), GetMessageById("m1")]) for do in made]
        assert start_daemon("--endpoint", "tcp://127.0.0.1:*").endpoint != daemon.endpoint
        for outcome in outcomes:
            assert [each and each.id for each in outcome.result()] == [None, "m2", "m1"]


class Tap:
    """A client's transport that notes what passes, and lets `lost` see each reply: where that is true it is dropped."""

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
        """The commit numbers of the replies, by the ids of the requests."""
        return [MSGPACK.decode(self.replies[request_id][0], Reply).seq for request_id in sorted(self.replies)]


def test_what_was_done_before_a_kill_is_not_done_again(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon is killed when it has answered, and the answer is lost: the next one gives the same, byte for byte."""
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


def test_what_was_not_done_before_a_kill_is_done_after(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon is killed before it has read the request."""
    daemon = start_daemon()
    tap = Tap(ZmqTransport(data_dir=tmp_path / "data"))
    with closing(Both(Client, transport=tap, timeout_ms=LONG_MS)) as do:
        do(Ping())
        daemon.process.send_signal(signal.SIGSTOP)
        outcome = do.start(SaveMessage(message(1)))
        wait_until(lambda: len(tap.bodies) == 2)
        daemon.kill()
        start_daemon()
        assert outcome.result() is None
        assert tap.seqs() == [0, 1]
        assert len(tap.bodies) == 3


def test_a_pipeline_goes_on_over_a_kill(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Two thousand saves are under way when the daemon is killed: each is carried out once, and all in their order."""
    daemon = start_daemon()
    restarting = threading.Thread(target=start_daemon)

    def kill_it_midway() -> bool:
        if len(tap.replies) == 700 and daemon.process.poll() is None:
            daemon.kill()
            restarting.start()
        return False

    tap = Tap(ZmqTransport(data_dir=tmp_path / "data"), kill_it_midway)
    with Client(transport=tap, timeout_ms=LONG_MS) as client:
        saves = [SaveMessage(message(number)) for number in range(2_000)]
        assert list(client.pipeline(saves, window=2_000)) == [None] * 2_000
        restarting.join()
        assert tap.seqs() == list(range(1, 2_001))
        page = client.ask(GetMessages("r1", limit=500, offset=1_500))
        assert [each.id for each in page] == [f"m{number}" for number in range(1_500, 2_000)]


def test_many_requests_go_on_over_a_kill_asynchronously(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The same of the asynchronous client: the last save of the one message is the one that stays."""
    daemon = start_daemon()

    async def scenario() -> None:
        async with AsyncClient(data_dir=tmp_path / "data", timeout_ms=LONG_MS) as client:
            tasks = [
                asyncio.create_task(client.execute(SaveUser(User(oder_id="u", id="u", username=str(number)))))
                for number in range(2_000)
            ]
            await tasks[500]
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(start_daemon)
            assert await asyncio.gather(*tasks) == [None] * 2_000
            last = await client.ask(GetUser("u"))
            assert last is not None
            assert last.username == "1999"

    asyncio.run(scenario())
