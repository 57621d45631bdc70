"""The synchronous client.

with Client() as client:
    client.execute(SaveMessage(message))
    page = client.ask(GetMessages("room", limit=50))
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import zmq

from backscroll.clients.calls import DEFAULT_SCOPE, TIMEOUT_MS, Call, find_endpoint, open_reply
from backscroll.schema.errors import BackscrollError, Invalid, NoReply, Unavailable
from backscroll.schema.operations import Command, Maintenance, Operation, Query
from backscroll.schema.wire import Codec, Reply

R = TypeVar("R")


class Transport(Protocol):
    """What carries bodies to a daemon and back. `backscroll.bus.inprocess.InProcess` is one without a socket."""

    def send(self, body: bytes, timeout_ms: float, /) -> None:
        """Raises `Unavailable` when nobody took the body in time."""

    def receive(self, timeout_ms: float, /) -> bytes | None:
        """The next reply, or None when none came in time."""

    def close(self) -> None: ...


class ZmqTransport:
    """A DEALER socket connected to a daemon. Nothing is queued for a daemon that is not there."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._endpoint = endpoint
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise Invalid(f"{endpoint!r} is no address to connect to: {error.strerror}") from error

    def send(self, body: bytes, timeout_ms: float, /) -> None:
        """Raises `Unavailable` when no daemon takes the request; then it has no effect."""
        give_up_at = time.monotonic() + timeout_ms / 1000
        while not self._taken(body):  # not connected yet, or the pipe is full
            if not self._socket.poll(_whole((give_up_at - time.monotonic()) * 1000), zmq.POLLOUT):
                raise Unavailable(f"no daemon answers at {self._endpoint}; nothing was sent", retryable=True)

    def _taken(self, body: bytes) -> bool:
        try:
            self._socket.send(body, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_ms: float, /) -> bytes | None:
        if not self._socket.poll(_whole(timeout_ms)):
            return None
        return self._socket.recv()

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class Client:
    """Talks to one daemon in one scope. Threads may share it; they then take turns.

    Finds the daemon by `endpoint`, else by the `endpoint.json` in `data_dir`, else in the default data directory;
    raises `Unavailable` where none is ready. `timeout_ms` is how long each request waits for its reply. Close it,
    or use it in a `with` block.
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
        self._transport = transport or ZmqTransport(find_endpoint(endpoint, data_dir))
        self._scope = scope
        self._timeout_ms = timeout_ms
        self._lock = threading.RLock()
        self._under_way: set[str | None] = set()
        self._arrived: dict[str | None, tuple[Reply, Codec]] = {}

    def execute(self, command: Command[R] | Maintenance[R], *, timeout_ms: int | None = None) -> R:
        """Carry out a command; returns once it is on disk.

        Raises the `BackscrollError` of the daemon's reply, or `NoReply` when none came in time: then the outcome is
        unknown.
        """
        result: R = self._request(command, timeout_ms)
        return result

    def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        """Answer a query; raises like `execute`."""
        result: R = self._request(query, timeout_ms)
        return result

    def pipeline(self, operations: Iterable[Operation[R]], *, window: int = 256) -> Iterator[R]:
        """Send many requests without waiting for each reply; yields the results in the order sent.

        At most `window` are on their way at once. The first error is raised when its turn comes; the requests
        already sent then still take effect. No other thread gets a turn until the iterator ends.
        """
        with self._lock:
            calls: deque[Call] = deque()
            unsent: BackscrollError | None = None
            try:
                for operation in operations:
                    if len(calls) >= window:
                        yield self._settle(calls.popleft(), self._timeout_ms)
                    try:
                        calls.append(self._send(operation, self._timeout_ms))
                    except BackscrollError as error:  # its turn comes after those that were sent
                        unsent = error
                        break
                while calls:
                    yield self._settle(calls.popleft(), self._timeout_ms)
            finally:
                self._forget(*calls)
            if unsent is not None:
                raise unsent

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, operation: Operation[Any], timeout_ms: int | None) -> Any:
        timeout_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        with self._lock:
            return self._settle(self._send(operation, timeout_ms), timeout_ms)

    def _send(self, operation: Operation[Any], timeout_ms: int) -> Call:
        call = Call(operation, scope=self._scope, timeout_ms=timeout_ms)
        self._transport.send(call.body, timeout_ms)
        self._under_way.add(call.id)
        return call

    def _settle(self, call: Call, timeout_ms: int) -> Any:
        """Wait for a call's reply, setting aside those of other calls; one that nobody waits for is dropped."""
        give_up_at = time.monotonic() + timeout_ms / 1000
        try:
            while call.id not in self._arrived:
                body = self._transport.receive((give_up_at - time.monotonic()) * 1000)
                if body is None:
                    raise NoReply(f"no reply within {timeout_ms} ms: whether the request took effect is unknown")
                reply, codec = open_reply(body)
                if reply.id in self._under_way:
                    self._arrived[reply.id] = (reply, codec)
            return call.result(*self._arrived[call.id])
        finally:
            self._forget(call)

    def _forget(self, *calls: Call) -> None:
        for call in calls:
            self._under_way.discard(call.id)
            self._arrived.pop(call.id, None)


def _whole(timeout_ms: float) -> int:
    """What poll takes: no fractions, and nothing below zero, which would mean for ever."""
    return max(0, math.ceil(timeout_ms))
