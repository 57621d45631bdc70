"""The asynchronous client, for asyncio.

async with AsyncClient() as client:
    await client.execute(SaveMessage(message))
    pages = await asyncio.gather(*(client.ask(GetMessages(room)) for room in rooms))

What is to be sent, and what again, `PendingCalls` (in `calls`) says. Callers send; a task, the carrier's `run`, receives,
and minds the connection.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import zmq
import zmq.asyncio

from backscroll.clients.python.client import Transport, ZmqTransport
from backscroll.clients.python.connection import ATTEMPT_MS, FRESH_MS, RECONNECT_MS, Connection
from backscroll.clients.python.pending_calls import (
    CLOSED,
    DEFAULT_SCOPE,
    PAUSE_MS,
    TIMEOUT_MS,
    Call,
    PendingCalls,
    find_endpoint,
)
from backscroll.schema.errors import BackscrollError, Invalid, NoReply, Unavailable
from backscroll.schema.operations import Command, Maintenance, Operation, Query

R = TypeVar("R")


class AsyncClient:
    """Talks to one daemon in one scope; any number of requests may be under way at once.

    Takes what `Client` takes, and sends again as it does: all that is not answered, in the order of the calls. But a
    `transport` must answer each request while it is sent, as the in-process one does; a `ZmqTransport` is `Invalid`.
    Belongs to the event loop that it is first used in.
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
        self._carrier: _Carrier = _Inline(transport) if transport else _Socket(endpoint, data_dir)
        self._scope = scope
        self._timeout_ms = timeout_ms
        self._pending = PendingCalls()
        self._task: asyncio.Task[None] | None = None

    async def execute(
        self, command: Command[R] | Maintenance[R], *, timeout_ms: int | None = None, request_id: str | None = None
    ) -> R:
        """Carry out a command; returns once it is on disk. Takes and raises what `Client.execute` does.

        So a `Conflict` with a `seq` in its `details` means that it took effect earlier, as that number.
        """
        result: R = await self._request(command, timeout_ms, request_id)
        return result

    async def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        """Answer a query. Raises what `Client.ask` raises."""
        result: R = await self._request(query, timeout_ms)
        return result

    async def close(self) -> None:
        """Nothing is waited for any more; from now on every request is `Unavailable`."""
        self._pending.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._pending.fail_all(lambda call: call.gave_up(CLOSED))
        self._carrier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _request(self, operation: Operation[Any], timeout_ms: int | None, request_id: str | None = None) -> Any:
        timeout_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        call = Call(
            operation,
            scope=self._scope,
            timeout_ms=timeout_ms,
            call_id=request_id,
            level=self._pending.level,
        )
        call.give_up_at = time.monotonic() + timeout_ms / 1000
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.on_settled = partial(_wake, settled)
        self._pending.add(call)
        try:
            self._start()
            self._send_line()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_ms / 1000):
                    await settled
            if call.outcome is None:  # else it came, if only at the last moment
                raise call.gave_up()
        finally:
            self._pending.forget(call)
        return call.result()

    def _start(self) -> None:
        """Have somebody receive."""
        if self._task is None:
            self._task = asyncio.create_task(self._carrier.run(self._arrived, self._connected))
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Whoever waits is told when nobody receives any more; the next request has somebody receive again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._task = None
            self._pending.fail_all(lambda call: call.gave_up(f"receiving failed: {error!r}"))

    def _send_line(self) -> None:
        """Send what is to be sent, in its order; what cannot be waits for a connection."""
        while self._pending.line:
            call, now = self._pending.line[0], time.monotonic()
            if not self._carrier.send(call.body_at(now)):
                return
            self._pending.sent(call)

    def _arrived(self, body: bytes) -> None:
        try:
            refused = self._pending.take(body, time.monotonic())
        except BackscrollError as error:  # what came is no reply, so nobody knows whose it was
            no_reply = error
            self._pending.fail_all(lambda _call: no_reply)
            return
        if refused:
            asyncio.get_running_loop().call_later(PAUSE_MS / 1000, self._repeat, self._pending.again_at)

    def _connected(self) -> None:
        self._pending.lost()
        self._send_line()

    def _repeat(self, now: float) -> None:
        self._pending.repeat(now)
        self._send_line()


class _Carrier(Protocol):
    """Carries bodies to a daemon and back, on the event loop."""

    def send(self, body: bytes) -> bool:
        """Whether the body was taken; it is not while there is no connection."""

    async def run(self, arrived: Callable[[bytes], None], connected: Callable[[], None]) -> None:
        """Until cancelled, hand over each reply, and tell of each new connection."""

    def close(self) -> None: ...


class _Socket:
    """One connection after another to a daemon, which is looked for at each."""

    def __init__(self, endpoint: str | None, data_dir: Path | str | None) -> None:
        self._find = partial(find_endpoint, endpoint, data_dir)
        endpoint = self._find()
        self._heard_at = 0.0
        self._context = zmq.asyncio.Context()
        try:
            self._connection: Connection | None = Connection(self._context, endpoint)
        except Invalid:
            self._context.term()
            raise

    def send(self, body: bytes) -> bool:
        if self._connection is None or not self._connection.connected:
            return False
        if time.monotonic() > self._heard_at + FRESH_MS / 1000 and self._connection.has_news():
            return False  # `run` will hear of it next
        self._connection.socket.send(body)
        return True

    async def run(self, arrived: Callable[[bytes], None], connected: Callable[[], None]) -> None:
        while True:
            if self._connection is not None:
                with suppress(zmq.ZMQError):  # a socket that fails is as good as a connection that is lost
                    await self._use(self._connection, arrived, connected)
            await asyncio.sleep(RECONNECT_MS / 1000)
            with suppress(Unavailable, Invalid, zmq.ZMQError):  # not there, or not to be reached: it is tried again
                self._connection = Connection(self._context, self._find())

    async def _use(self, link: Connection, arrived: Callable[[bytes], None], connected: Callable[[], None]) -> None:
        """Receive on a connection until it is lost, or has not come about; raises what goes wrong with that."""
        receiving = asyncio.create_task(self._receive(link, arrived))
        watching = asyncio.create_task(_watch(link, connected))
        try:
            await asyncio.wait([receiving, watching], return_when=asyncio.FIRST_COMPLETED)
            while not receiving.done() and await link.socket.poll(0):  # what arrived before the end is received first
                await asyncio.sleep(0)
        finally:
            receiving.cancel()
            watching.cancel()
            ends = await asyncio.gather(receiving, watching, return_exceptions=True)
            link.close()
            self._connection = None
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _receive(self, link: Connection, arrived: Callable[[bytes], None]) -> None:
        while True:
            body = await link.socket.recv()
            self._heard_at = time.monotonic()
            arrived(body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._context.term()


async def _watch(link: Connection, connected: Callable[[], None]) -> None:
    """Tell when the connection is there; return when it is lost, or takes too long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ATTEMPT_MS / 1000) as patience:
            while not link.lost:
                link.note(await link.events.recv_multipart())
                if link.connected:
                    patience.reschedule(None)
                    connected()


class _Inline:
    """A transport that answers while it sends, such as the in-process one. It has nothing to lose, nor to reconnect."""

    def __init__(self, transport: Transport) -> None:
        if isinstance(transport, ZmqTransport):
            raise Invalid("an AsyncClient makes its own connection: give it the endpoint or the data directory")
        self._transport = transport
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, body: bytes) -> bool:
        self._transport.send(body, 0)
        replies = list(iter(partial(self._transport.receive, 0), None))  # others of this transport may have left some
        if not replies:
            raise NoReply("the transport did not answer at once: whether the request took effect is unknown")
        for reply in replies:
            self._replies.put_nowait(reply)
        return True

    async def run(self, arrived: Callable[[bytes], None], connected: Callable[[], None]) -> None:  # noqa: ARG002
        while True:
            arrived(await self._replies.get())

    def close(self) -> None:
        self._transport.close()


def _wake(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)
