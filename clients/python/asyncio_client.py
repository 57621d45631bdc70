"""The asynchronous client, for asyncio.

async with AsyncClient() as client:
    await client.execute(SaveMessage(message))
    pages = await asyncio.gather(*(client.ask(GetMessages(room)) for room in rooms))

`PendingCalls` (in `pending_calls`) decides what is sent, and what is sent again. Callers send; a task, the transport's
`run`, receives and maintains the connection.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import zmq
import zmq.asyncio

from backscroll.clients.python.address import Curve, find_address
from backscroll.clients.python.client import Transport, ZmqTransport
from backscroll.clients.python.connection import ASSUME_ALIVE_MS, CONNECT_TIMEOUT_MS, RECONNECT_DELAY_MS, Connection
from backscroll.clients.python.feed import (
    Answer,
    Ask,
    ChangeSteps,
    FeedGap,
    FeedPosition,
    Item,
    Pause,
    Step,
    Steps,
    Watched,
    WatchSteps,
)
from backscroll.clients.python.pending_calls import (
    CLOSED,
    DEFAULT_SCOPE,
    RETRY_DELAY_MS,
    TIMEOUT_MS,
    Call,
    PendingCalls,
)
from backscroll.schema.errors import BackscrollError, Invalid, NoReply
from backscroll.schema.operations import Command, GetChanges, Maintenance, Operation, Query
from backscroll.schema.replies import ItemChange

R = TypeVar("R")
T = TypeVar("T")


class AsyncClient:
    """An asynchronous client for one scope of a daemon; any number of requests may be made at a time.

    Of these 1,000 (and 32 MiB) are in flight, and the others wait, in the order of the calls; beyond 100,000 calls, or
    256 MiB, it raises `Busy`.

    Has the same arguments as `Client` and retries like it: all unanswered requests, in the order of the calls. A
    `transport` must answer each request while it is sent, like the in-process one; a `ZmqTransport` raises `Invalid`.
    Use it only in the event loop in which it is used first. In a forked child it raises `Invalid`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        data_dir: Path | str | None = None,
        scope: str = DEFAULT_SCOPE,
        timeout_ms: int = TIMEOUT_MS,
        transport: Transport | None = None,
        token: str | None = None,
        curve: Curve | None = None,
    ) -> None:
        self._transport: _AsyncTransport = (
            _InlineTransport(transport) if transport else _SocketTransport(endpoint, data_dir, token, curve)
        )
        self._scope = scope
        self._timeout_ms = timeout_ms
        self._pending = PendingCalls()
        self._task: asyncio.Task[None] | None = None

    async def execute(
        self, command: Command[R] | Maintenance[R], *, timeout_ms: int | None = None, request_id: str | None = None
    ) -> R:
        """Execute a command and return its result when it is on disk. Arguments and errors are as in `Client.execute`.

        A `Conflict` with a `seq` in its `details` means that the command took effect earlier, with that seq.
        """
        result: R = await self._request(command, timeout_ms, request_id)
        return result

    async def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        """Send a query and return its result; raises what `Client.ask` raises."""
        result: R = await self._request(query, timeout_ms)
        return result

    def changes(
        self,
        after: str | None = None,
        *,
        rooms: list[str] | None = None,
        nouns: list[str] | None = None,
        values: bool = True,
        limit: int = 100,
    ) -> "AsyncChanges":
        """Follow the feed for ever: `async for change in client.changes(…)`. It is as in `Client.changes`, but on the
        connection of the client, where it is one of many requests in flight. Cancel the task to stop it.
        """
        query = GetChanges(after=after, rooms=rooms, nouns=nouns, values=values, limit=limit)
        return AsyncChanges(self, ChangeSteps(query, waits=self._can_wait))

    def watch(self, query: Query[R]) -> "AsyncFeedIterator[Watched[R]]":
        """The result of a query, now and whenever it has changed: `async for result, seq, gap in client.watch(…)`. It
        is as in `Client.watch`. Cancel the task to stop it. The daemon lets 64 wait for one client: where there are
        more, each may notice a change a second later.
        """
        return AsyncFeedIterator(self, WatchSteps(query, waits=self._can_wait).run())

    async def close(self) -> None:
        """Close the connection. Waiting requests raise `NoReply` or `Unavailable`, later ones `Unavailable`.

        In a forked child this does nothing: the connection is the parent's.
        """
        if self._pending.is_forked:
            return
        self._pending.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._pending.fail_all(lambda call: call.unanswered(CLOSED))
        self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _can_wait(self) -> bool:
        """Whether a query can wait in the daemon; not with a transport that answers while it sends."""
        return isinstance(self._transport, _SocketTransport)

    async def _answer(self, query: Query[Any]) -> Answer:
        """The result of a query with what else is known about it."""
        begun = time.monotonic()
        call = await self._settled(query, self._timeout_ms)
        return Answer(call.result(), call.seq, time.monotonic() - begun)

    async def _request(self, operation: Operation[Any], timeout_ms: int | None, request_id: str | None = None) -> Any:
        timeout_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        return (await self._settled(operation, timeout_ms, request_id)).result()

    async def _settled(self, operation: Operation[Any], timeout_ms: int, request_id: str | None = None) -> Call:
        """The call of an operation with its outcome."""
        self._pending.check_process()
        call = self._pending.new_call(operation, scope=self._scope, timeout_ms=timeout_ms, call_id=request_id)
        call.deadline = time.monotonic() + call.timeout_ms / 1000
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.on_settled = partial(_resolve, settled)
        self._pending.add(call)
        try:
            self._ensure_receiving()
            self._send_queued()
            with suppress(TimeoutError):
                async with asyncio.timeout(call.timeout_ms / 1000):
                    await settled
            if call.outcome is None:  # it may still have come at the last moment
                raise self._timed_out(call)
        finally:
            self._pending.forget(call)
        return call

    def _timed_out(self, call: Call) -> BackscrollError:
        """The error for a call whose deadline has passed. Its connection may have to be given up."""
        is_explained = call.was_sent or self._pending.is_full
        error = (None if is_explained else self._transport.problem) or self._pending.unanswered(call)
        if self._pending.time_out(call):
            self._transport.give_up()
        return error

    def _ensure_receiving(self) -> None:
        """Start the receiving task if it is not running."""
        if self._task is None:
            self._task = asyncio.create_task(self._transport.run(self._on_reply, self._on_connected))
            self._task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """Fail all waiting calls if receiving failed; the next request starts it again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._task = None
            self._pending.fail_all(lambda call: call.unanswered(f"receiving failed: {error!r}"))

    def _send_queued(self) -> None:
        """Send the queued calls in order; those that cannot be sent wait for a connection, or for replies."""
        while (call := self._pending.next_call()) is not None:
            if not self._transport.send(call.body_at(time.monotonic())):
                return
            self._pending.mark_sent(call)

    def _on_reply(self, body: bytes) -> None:
        try:
            refused = self._pending.handle_reply(body, time.monotonic())
        except BackscrollError as error:  # it is not a reply, so it is unknown which call it belongs to
            invalid_reply = error
            self._pending.fail_all(lambda _call: invalid_reply)
            return
        if self._pending.send_queue:  # there is room for another
            self._send_queued()
        if refused:
            asyncio.get_running_loop().call_later(RETRY_DELAY_MS / 1000, self._retry, self._pending.retry_at)

    def _on_connected(self) -> None:
        self._pending.reconnected()
        self._send_queued()

    def _retry(self, now: float) -> None:
        self._pending.queue_retry(now)
        self._send_queued()


class AsyncFeedIterator(Generic[T]):
    """An asynchronous iterator that follows a scope. It may be cancelled while it waits, and be asked again."""

    def __init__(self, client: AsyncClient, steps: Steps[None]) -> None:
        self._client = client
        self._steps = steps
        self._step: Step | None = None  # the one that is not done yet
        self._asking: asyncio.Task[Answer] | None = None  # goes on when the caller is cancelled
        self._is_busy = self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._is_busy:
            raise RuntimeError("another task waits for the next item of this iterator: use one for each task")
        self._is_busy = True
        try:
            while not self._is_closed():
                try:
                    self._step = self._step or next(self._steps)
                except StopIteration:  # it had ended with an error
                    break
                if isinstance(self._step, Item):
                    item: T = self._step.value
                    self._step = None
                    return item
                await self._take(self._step)
        except (BackscrollError, FeedGap):
            self._ended = True
            raise
        finally:
            self._is_busy = False
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the iteration. A question that waits in the daemon is forgotten there after its time."""
        self._ended = True
        if self._asking is not None:
            self._asking.cancel()

    def _is_closed(self) -> bool:
        return self._ended or self._client._pending.closed

    async def _take(self, step: Step) -> None:
        """Do a step and find the next one. When the caller is cancelled meanwhile, it is the next one's to finish."""
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            self._step = None
        elif isinstance(step, Ask):
            try:
                answer = await self._answer(step.query)
            except BackscrollError as error:
                if not self._is_closed():
                    self._step = None
                    self._step = self._steps.throw(error)
            else:
                self._step = self._steps.send(answer)

    async def _answer(self, query: Query[Any]) -> Answer:
        """The answer to a query. It is asked once, however often the caller is cancelled: it may wait in the daemon."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._client._answer(query))
            self._asking.add_done_callback(_note_error)
        asking = self._asking
        try:
            return await asyncio.shield(asking)
        finally:
            if asking.done():
                self._asking = None


class AsyncChanges(AsyncFeedIterator[ItemChange], FeedPosition):
    """The changes of a scope, one after the other, for ever; made by `AsyncClient.changes`."""

    def __init__(self, client: AsyncClient, steps: ChangeSteps) -> None:
        super().__init__(client, steps.run())
        self._steps_of_changes = steps


class _AsyncTransport(Protocol):
    """Exchanges bodies with a daemon, on the event loop. `problem` is why there is no connection, if that is known."""

    problem: BackscrollError | None

    def send(self, body: bytes) -> bool:
        """Send a body. Returns False if there is no connection."""

    def give_up(self) -> None:
        """Take the connection for lost, because nothing arrives on it."""

    async def run(self, on_reply: Callable[[bytes], None], on_connected: Callable[[], None]) -> None:
        """Until cancelled, call `on_reply` with each reply and `on_connected` after each new connection."""

    def close(self) -> None: ...


class _SocketTransport:
    """A connection to a daemon, replaced when it is lost. The endpoint is looked up for each connection."""

    def __init__(
        self, endpoint: str | None, data_dir: Path | str | None, token: str | None, curve: Curve | None
    ) -> None:
        self._find = partial(find_address, endpoint, data_dir, token, curve)
        address = self._find()
        self.problem: BackscrollError | None = None
        self._received_at = 0.0
        self._watching: asyncio.Task[None] | None = None  # ends with the connection
        self._is_given_up = False
        self._context = zmq.asyncio.Context()
        try:
            self._connection: Connection | None = Connection(self._context, address)
        except Invalid:
            self._context.term()
            raise

    def send(self, body: bytes) -> bool:
        if self._connection is None or not self._connection.connected:
            return False
        if time.monotonic() > self._received_at + ASSUME_ALIVE_MS / 1000 and self._connection.has_event():
            return False  # `run` will handle the event
        self._connection.send(body)
        return True

    def give_up(self) -> None:
        link = self._connection
        if link is not None and link.connected and self._watching is not None:
            link.connected, link.lost = False, True
            self._is_given_up = True
            self._watching.cancel()

    async def run(self, on_reply: Callable[[bytes], None], on_connected: Callable[[], None]) -> None:
        while True:
            if self._connection is not None:
                with suppress(zmq.ZMQError):  # a failed socket is treated like a lost connection
                    await self._use(self._connection, on_reply, on_connected)
            if not self._is_given_up:
                await asyncio.sleep(RECONNECT_DELAY_MS / 1000)
            self._is_given_up = False
            with suppress(BackscrollError, zmq.ZMQError):  # no daemon, no token yet, or not reachable: try again
                self._connection = Connection(self._context, self._find())

    async def _use(self, link: Connection, on_reply: Callable[[bytes], None], on_connected: Callable[[], None]) -> None:
        """Receive on a connection until it is lost, given up or not established; raises errors of either task."""
        receiving = asyncio.create_task(self._receive(link, on_reply, on_connected))
        watching = self._watching = asyncio.create_task(_watch(link, on_connected))
        tasks = [receiving, watching]
        try:
            done, _ = await asyncio.wait(tasks, timeout=CONNECT_TIMEOUT_MS / 1000, return_when=asyncio.FIRST_COMPLETED)
            if link.connected and not done:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while (
                link.greeted and not receiving.done() and await link.socket.poll(0)
            ):  # what arrived before the end is received first
                await asyncio.sleep(0)
            await asyncio.sleep(
                0
            )  # what was taken from the socket is on its way to the task, and would be lost with it
        finally:
            receiving.cancel()
            watching.cancel()
            ends = await asyncio.gather(receiving, watching, return_exceptions=True)
            self.problem = link.problem
            link.close()
            self._connection = None
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _receive(
        self, link: Connection, on_reply: Callable[[bytes], None], on_connected: Callable[[], None]
    ) -> None:
        while not link.lost or link.greeted:
            body = (await link.socket.recv_multipart())[-1]  # the body is the last frame
            self._received_at = time.monotonic()
            if link.greeted:
                on_reply(body)
            else:
                link.handle_greeting(body)
                if link.connected:
                    on_connected()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._context.term()


async def _watch(link: Connection, on_connected: Callable[[], None]) -> None:
    """Call `on_connected` when the connection is established without a greeting; return when it is lost."""
    while not link.lost:
        link.handle_event(await link.events.recv_multipart())
        if link.connected:
            on_connected()


class _InlineTransport:
    """A transport that answers each request while it is sent, such as the in-process one. It never reconnects."""

    problem: BackscrollError | None = None

    def __init__(self, transport: Transport) -> None:
        if isinstance(transport, ZmqTransport):
            raise Invalid("an AsyncClient makes its own connection: give it the endpoint or the data directory")
        self._transport = transport
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, body: bytes) -> bool:
        self._transport.send(body, 0)
        # There may be replies to other clients of this transport among them.
        replies = list(iter(partial(self._transport.receive, 0), None))
        if not replies:
            raise NoReply("the transport did not answer at once: whether the request took effect is unknown")
        for reply in replies:
            self._replies.put_nowait(reply)
        return True

    def give_up(self) -> None:
        """There is no connection to lose."""

    async def run(self, on_reply: Callable[[bytes], None], on_connected: Callable[[], None]) -> None:  # noqa: ARG002
        while True:
            on_reply(await self._replies.get())

    def close(self) -> None:
        self._transport.close()


def _note_error(task: asyncio.Task[Any]) -> None:
    """Look at the error of a task: if nobody waits for it any more, nobody is to be told."""
    if not task.cancelled():
        task.exception()


def _resolve(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)
