"""The synchronous client.

with Client() as client:
    client.execute(SaveMessage(message))
    page = client.ask(GetMessages("room", limit=50))

A request goes down from `Client`, which says when its caller gives up, through `PendingCalls` (in `calls`), which says what
is to be sent next, to a `Transport`, which says when nothing came in time and when there is a new connection.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import zmq

from backscroll.clients.python.connection import ATTEMPT_MS, FRESH_MS, RECONNECT_MS, Connection
from backscroll.clients.python.pending_calls import CLOSED, DEFAULT_SCOPE, TIMEOUT_MS, Call, PendingCalls, find_endpoint
from backscroll.schema.errors import BackscrollError, Invalid, NoReply, Unavailable
from backscroll.schema.operations import Command, Maintenance, Operation, Query

R = TypeVar("R")


class Reconnected(NoReply):
    """What was sent on an earlier connection, and was not answered, was perhaps never received; there is a new one."""


class Transport(Protocol):
    """What carries bodies to a daemon and back. `backscroll.bus.inprocess.InProcess` is one without a socket.

    One that can lose what it took raises `Reconnected` from either method, once for each time that it may have, when it
    can carry again; `send` has sent nothing then.
    """

    def send(self, body: bytes, timeout_ms: float, /) -> None:
        """Raises `Unavailable` when nobody took the body in time."""

    def receive(self, timeout_ms: float, /) -> bytes | None:
        """The next reply, or None when none came in time."""

    def close(self) -> None: ...


class ZmqTransport:
    """One connection after another to a daemon. Nothing is queued for a daemon that is not there.

    The daemon is looked for at each connection: started again, it may have another address.
    """

    def __init__(self, endpoint: str | None = None, data_dir: Path | str | None = None) -> None:
        self._find = partial(find_endpoint, endpoint, data_dir)
        self._endpoint = self._find()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._connection: Connection | None = None
        self._connected = False
        self._connect_at = 0.0  # when to make the next connection
        self._heard_at = 0.0
        self._sent = False  # anything, since there last was a new connection
        self._unread: deque[bytes] = deque()  # what had arrived when the connection was lost
        try:
            self._connect()
        except Invalid:
            self._context.term()
            raise

    def send(self, body: bytes, timeout_ms: float, /) -> None:
        """Raises `Unavailable` when no daemon takes the request; then it has no effect."""
        if not self._connected or time.monotonic() > self._heard_at + FRESH_MS / 1000:
            self._await_connection(_after(timeout_ms))
        assert self._connection is not None
        self._connection.socket.send(body)
        self._sent = True

    def receive(self, timeout_ms: float, /) -> bytes | None:
        until = _after(timeout_ms)
        while not self._unread:
            if self._wait(until):
                assert self._connection is not None
                body: bytes = self._connection.socket.recv()
                return body
            if time.monotonic() >= until:
                return None
        return self._unread.popleft()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._context.term()

    def _await_connection(self, until: float) -> None:
        """Return once there is a connection, which may be the one we had."""
        connection = self._connection
        if connection is not None and any(socket is connection.events for socket, _ in self._poller.poll(0)):
            self._note_event(connection)
        while not self._connected:
            self._wait(until)
            if not self._connected and time.monotonic() >= until:
                raise Unavailable(f"no daemon answers at {self._endpoint}; nothing was sent", retryable=True)

    def _wait(self, until: float) -> bool:
        """Wait until there is a reply, which is true, or the connection changes, or it is time."""
        now = time.monotonic()
        if now >= self._connect_at:
            self._reconnect()
        arrived = self._poller.poll(_whole((min(until, self._connect_at) - now) * 1000))
        link = self._connection
        if link is None or not arrived:
            return False
        if arrived[0][0] is link.socket:
            self._heard_at = now
            return True
        self._note_event(link)
        return False

    def _note_event(self, link: Connection) -> None:
        link.note(link.events.recv_multipart())
        if link.lost:
            self._drop(link)
        elif link.connected:
            self._connected, self._connect_at = True, math.inf
            if self._sent:
                self._sent = False
                raise Reconnected("the connection was lost: whether the request took effect is unknown")

    def _connect(self) -> None:
        self._connection = Connection(self._context, self._endpoint)
        self._connect_at = _after(ATTEMPT_MS)
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.events, zmq.POLLIN)

    def _reconnect(self) -> None:
        if self._connection is not None:
            self._drop(self._connection)
        self._connect_at = _after(RECONNECT_MS)
        with suppress(Unavailable, Invalid, zmq.ZMQError):  # not there, or not to be reached: it is tried again then
            self._endpoint = self._find()
            self._connect()

    def _drop(self, link: Connection) -> None:
        """Give up a connection that is lost, or does not come about."""
        self._connected, self._connect_at = False, _after(RECONNECT_MS)
        while link.socket.poll(0):
            self._unread.append(link.socket.recv())
        self._poller.unregister(link.socket)
        self._poller.unregister(link.events)
        link.close()
        self._connection = None


class Client:
    """Talks to one daemon in one scope. Threads may share it; they then take turns.

    Finds the daemon by `endpoint`, else by the `endpoint.json` in `data_dir`, else in the default data directory;
    raises `Unavailable` where none is ready. `timeout_ms` is how long each request waits for its reply. Close it,
    or use it in a `with` block.

    When the connection is lost, because the daemon was killed and started again, say, what was not answered is sent
    again by itself within that time. The daemon knows commands by their ids, so each is carried out once.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        data_dir: Path | str | None = None,
        scope: str = DEFAULT_SCOPE,
        timeout_ms: int = TIMEOUT_MS,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or ZmqTransport(endpoint, data_dir)
        self._scope = scope
        self._timeout_ms = timeout_ms
        self._lock = threading.RLock()
        self._pending = PendingCalls()

    def execute(
        self, command: Command[R] | Maintenance[R], *, timeout_ms: int | None = None, request_id: str | None = None
    ) -> R:
        """Carry out a command; returns once it is on disk.

        Raises the `BackscrollError` of the daemon's reply: then it had no effect. Raises `Unavailable` when no daemon
        was there and nothing was sent, and `NoReply` when no reply came in time: then the outcome is unknown. One error
        says that it had an effect: a `Conflict` with a `seq` in its `details` means that this command took effect
        earlier, under its `request_id` and as that number, and that its result is no longer kept.

        `request_id` is for an application that wants to know that outcome later, even after its own restart: it makes
        an id (1 to 64 bytes, a ULID at best), keeps it, and executes the same command with the same id again. A command
        that took effect then gives the reply it gave, and one that did not is carried out. The same id with another
        command is a `Conflict`. The ids of `Maintenance` operations are not remembered.
        """
        result: R = self._request(command, timeout_ms, request_id)
        return result

    def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        """Answer a query; raises like `execute`."""
        result: R = self._request(query, timeout_ms)
        return result

    def pipeline(self, operations: Iterable[Operation[R]], *, window: int = 256) -> Iterator[R]:
        """Send many requests without waiting for each reply; yields the results in the order sent.

        At most `window` are on their way at once. The first error is raised when its turn comes; the requests
        already sent then still take effect. No other thread gets a turn until the iterator ends. `timeout_ms` counts
        from each request's turn.

        After a lost connection what was not answered is sent again, in its order and before anything new. A query among
        it may then see commands that were sent after it.
        """
        with self._lock:
            calls: deque[Call] = deque()
            unsent: BackscrollError | None = None
            try:
                for operation in operations:
                    if len(calls) >= window:  # then half of them: to take turns one by one wakes everybody each time
                        while len(calls) > window // 2:
                            yield self._settle(calls.popleft(), _after(self._timeout_ms))
                    try:
                        call = Call(
                            operation,
                            scope=self._scope,
                            timeout_ms=self._timeout_ms,
                            level=self._pending.level,
                        )
                        self._send(call, _after(self._timeout_ms))
                        calls.append(call)
                    except BackscrollError as error:  # its turn comes after those that were sent
                        unsent = error
                        break
                while calls:
                    yield self._settle(calls.popleft(), _after(self._timeout_ms))
            finally:
                for call in calls:
                    self._pending.forget(call)
            if unsent is not None:
                raise unsent

    def close(self) -> None:
        """Waits for what another thread has under way; from now on every request is `Unavailable`."""
        self._pending.closed = True
        with self._lock:
            self._pending.fail_all(lambda call: call.gave_up(CLOSED))
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, operation: Operation[Any], timeout_ms: int | None, request_id: str | None = None) -> Any:
        timeout_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        with self._lock:
            call = Call(
                operation,
                scope=self._scope,
                timeout_ms=timeout_ms,
                call_id=request_id,
                level=self._pending.level,
            )
            give_up_at = _after(timeout_ms)
            self._send(call, give_up_at)
            return self._settle(call, give_up_at)

    def _send(self, call: Call, give_up_at: float) -> None:
        """Send a call, after those that are to be sent again; raises `Unavailable` when nobody took it in time."""
        self._pending.add(call)
        try:
            self._send_line(give_up_at)
        except BaseException:
            self._pending.forget(call)
            raise

    def _settle(self, call: Call, give_up_at: float) -> Any:
        """Wait for a call's outcome, taking in those of other calls meanwhile."""
        call.give_up_at = give_up_at
        try:
            while call.outcome is None:
                self._wait(call, give_up_at)
            return call.result()
        finally:
            self._pending.forget(call)

    def _wait(self, call: Call, give_up_at: float) -> None:
        """Let one thing happen: a reply comes, or there is something to send again, or the caller gives up."""
        until = 0.0 if self._pending.line else min(give_up_at, self._pending.again_at)
        try:
            body = self._transport.receive((until - time.monotonic()) * 1000)
        except Reconnected:
            self._pending.lost()
            return
        if body is not None:
            self._pending.take(body, time.monotonic())
            return
        if until >= give_up_at:
            raise call.gave_up()
        # The time that was asked for is over, even where the transport knew at once that nothing would come.
        self._pending.repeat(until)
        try:
            self._send_line(give_up_at)
        except Unavailable:
            raise call.gave_up() from None

    def _send_line(self, give_up_at: float) -> None:
        """Send what is to be sent, in its order."""
        pending = self._pending
        while pending.line:
            call, now = pending.line[0], time.monotonic()
            try:
                self._transport.send(call.body_at(now), (give_up_at - now) * 1000)
            except Reconnected:
                pending.lost()
            else:
                pending.sent(call)


def _after(timeout_ms: float) -> float:
    return time.monotonic() + timeout_ms / 1000


def _whole(timeout_ms: float) -> int:
    """What poll takes: no fractions, and nothing below zero, which would mean for ever."""
    return max(0, math.ceil(timeout_ms))
