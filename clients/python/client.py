"""The synchronous client.

with Client() as client:
    client.execute(SaveMessage(message))
    page = client.ask(GetMessages("room", limit=50))

Three layers: `Client` knows when a caller stops waiting, `PendingCalls` (in `pending_calls`) decides what is sent next,
and a `Transport` reports timeouts and new connections.
"""

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, overload

import zmq

from backscroll.clients.python.address import Curve, find_address
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
    FORKED,
    TIMEOUT_MS,
    Call,
    PendingCalls,
)
from backscroll.schema.errors import BackscrollError, Invalid, NoReply, Unauthenticated, Unavailable
from backscroll.schema.operations import Command, GetChanges, Maintenance, Operation, Query
from backscroll.schema.replies import ItemChange

R = TypeVar("R")
T = TypeVar("T")

INTERRUPT_MS = 250
"""How soon an iterator notices that it, or its client, was closed by another thread."""


class Reconnected(NoReply):
    """There is a new connection. Requests that were sent on an earlier one may not have been received."""


class Transport(Protocol):
    """Exchanges bodies with a daemon. `backscroll.bus.inprocess.InProcess` is one without a socket.

    A transport that can lose requests raises `Reconnected` from either method, once after each loss, when it can send
    again; a `send` that raises it has not sent its body. What had arrived before the loss can still be received then.
    """

    def send(self, body: bytes, timeout_ms: float, /) -> None:
        """Send a body; raises `Unavailable` if that is not possible in time, or `Unauthenticated`."""

    def receive(self, timeout_ms: float, /) -> bytes | None:
        """The next reply, or None if none came in time."""

    def close(self) -> None: ...


class ZmqTransport:
    """A connection to a daemon, replaced when it is lost. Without a connection nothing is queued.

    The endpoint is looked up for each connection, because it can change when the daemon is restarted.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        data_dir: Path | str | None = None,
        *,
        token: str | None = None,
        curve: Curve | None = None,
    ) -> None:
        self._arguments = endpoint, data_dir, token, curve
        self._find = partial(find_address, *self._arguments)
        self._address = self._find()
        self._problem: BackscrollError | None = None  # why the last connection was not established, if that is known
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._connection: Connection | None = None
        self._connected = False
        self._connect_at = 0.0  # when to make the next connection
        self._received_at = 0.0
        self._sent = False  # whether anything was sent on the last established connection
        self._unread: deque[bytes] = deque()  # what had arrived when the connection was lost
        self._pid = os.getpid()
        try:
            self._connect()
        except Invalid:
            self._context.term()
            raise

    @property
    def endpoint(self) -> str:
        """The endpoint of the latest connection."""
        return self._address.endpoint

    def another(self, is_closed: Callable[[], bool], on_lost: Callable[[], object]) -> "ZmqTransport":
        """Another connection to the same daemon. It raises `Unavailable` soon after `is_closed()` has become true, and
        calls `on_lost` after each loss."""
        endpoint, data_dir, token, curve = self._arguments
        return _Interruptible(is_closed, on_lost, endpoint, data_dir, token=token, curve=curve)

    def send(self, body: bytes, timeout_ms: float, /) -> None:
        """Send a body; raises `Unavailable` if there is no daemon, and `Unauthenticated` if it does not know the token:
        then it was not sent."""
        self._check_process()
        if not self._connected or time.monotonic() > self._received_at + ASSUME_ALIVE_MS / 1000:
            self._await_connection(_after(timeout_ms))
        assert self._connection is not None
        self._connection.send(body)
        self._sent = True

    def receive(self, timeout_ms: float, /) -> bytes | None:
        self._check_process()
        until = _after(timeout_ms)
        while not self._unread:
            if self._wait(until):
                assert self._connection is not None
                body: bytes = self._connection.socket.recv_multipart()[-1]  # the body is the last frame
                return body
            if time.monotonic() >= until:
                return None
        return self._unread.popleft()

    def give_up(self) -> None:
        """Take the connection for lost, because nothing arrives on it; the next request makes a new one at once."""
        if self._connected and self._connection is not None:
            self._drop(self._connection)
            self._connect_at = 0.0

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # in a forked child: it has no threads of libzmq to wait for, and the connection is the parent's
        if self._connection is not None:
            self._connection.close()
        self._context.term()

    def _check_process(self) -> None:
        """Raise `Invalid` in a forked child, which has the sockets but no thread that serves them."""
        if os.getpid() != self._pid:
            raise Invalid(FORKED)

    def _await_connection(self, until: float) -> None:
        """Wait until there is a connection, which may be the existing one."""
        connection = self._connection
        if connection is not None and any(socket is connection.events for socket, _ in self._poller.poll(0)):
            self._handle_event(connection)
        while not self._connected:
            self._wait(until)
            if not self._connected and time.monotonic() >= until:
                none = Unavailable(f"no daemon answers at {self._address.endpoint}; nothing was sent")
                raise self._problem or none

    def _wait(self, until: float) -> bool:
        """Wait until a reply arrives, the connection changes, or it is `until`. Returns True for a reply."""
        now = time.monotonic()
        if now >= self._connect_at:
            self._reconnect()
        wait_ms = _poll_timeout_ms((min(until, self._connect_at) - now) * 1000)
        link = self._connection
        if link is None:
            time.sleep(wait_ms / 1000)  # a poller without sockets returns at once
            return False
        arrived = self._poller.poll(wait_ms)
        if not arrived:
            return False
        if arrived[0][0] is not link.socket:
            self._handle_event(link)
            return False
        self._received_at = now
        if link.greeted:
            return True
        link.handle_greeting(link.socket.recv_multipart()[-1])
        self._note_state(link)
        return False

    def _handle_event(self, link: Connection) -> None:
        link.handle_event(link.events.recv_multipart())
        self._note_state(link)

    def _note_state(self, link: Connection) -> None:
        if link.lost:
            self._drop(link)
        elif link.connected:
            self._connected, self._connect_at, self._problem = True, math.inf, None
            if self._sent:
                self._sent = False
                raise Reconnected("the connection was lost: whether the request took effect is unknown")

    def _connect(self) -> None:
        self._connection = Connection(self._context, self._address)
        self._connect_at = _after(CONNECT_TIMEOUT_MS)
        self._poller.register(self._connection.socket, zmq.POLLIN)
        self._poller.register(self._connection.events, zmq.POLLIN)

    def _reconnect(self) -> None:
        if self._connection is not None:
            self._drop(self._connection)
        self._connect_at = _after(RECONNECT_DELAY_MS)
        with suppress(BackscrollError, zmq.ZMQError):  # no daemon, no token yet, or not reachable: try again later
            self._address = self._find()
            self._connect()

    def _drop(self, link: Connection) -> None:
        """Close a connection that was lost or could not be established."""
        self._problem = link.problem
        self._connected, self._connect_at = False, _after(RECONNECT_DELAY_MS)
        while link.greeted and link.socket.poll(0):
            self._unread.append(link.socket.recv_multipart()[-1])
        self._poller.unregister(link.socket)
        self._poller.unregister(link.events)
        link.close()
        self._connection = None


class _Interruptible(ZmqTransport):
    """A connection that stops waiting when it is closed by another thread, which may not use its sockets.

    It says when it was lost.
    """

    def __init__(
        self, is_closed: Callable[[], bool], on_lost: Callable[[], object], *arguments: Any, **more: Any
    ) -> None:
        self._is_closed = is_closed
        self._on_lost = on_lost
        super().__init__(*arguments, **more)

    def _wait(self, until: float) -> bool:
        if self._is_closed():
            raise Unavailable(CLOSED)
        return super()._wait(min(until, _after(INTERRUPT_MS)))

    def _drop(self, link: Connection) -> None:
        was_connected = self._connected
        super()._drop(link)
        if was_connected:
            self._on_lost()


class Client:
    """A client for one scope of a daemon. Threads may share it; their requests are sent one after the other.

    The daemon is found by `endpoint`, else by the `endpoint.json` in `data_dir`, else by that in the default data
    directory; raises `Unavailable` if none is ready. Over tcp it wants a token: `token`, else that in the
    `endpoint.json` if the daemon was found by it, else that in the environment variable `BACKSCROLL_TOKEN`, else that
    in the `endpoint.json` which lists the `endpoint`; raises `Unauthenticated` if there is none. `curve` are the keys
    for a `curve://` endpoint. `timeout_ms` is how long each request waits for its reply. Close the client, or use it in
    a `with` block. A forked child needs a client of its own: this one raises `Invalid` there.

    When the connection is lost, for example because the daemon was restarted, unanswered requests are automatically
    sent again within that time. The daemon recognises commands by their ids, so each is executed only once. It also
    knows their order: one that was refused unnoticed, and is sent again after a later one took effect, raises
    `Superseded`. A connection on which nothing has arrived between a request and the end of its timeout counts as lost.
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
        self._transport = transport or ZmqTransport(endpoint, data_dir, token=token, curve=curve)
        self._scope = scope
        self._timeout_ms = timeout_ms
        self._lock = threading.RLock()
        self._pending = PendingCalls()

    def execute(
        self, command: Command[R] | Maintenance[R], *, timeout_ms: int | None = None, request_id: str | None = None
    ) -> R:
        """Execute a command and return its result when it is on disk.

        Raises the `BackscrollError` of the daemon's reply if the command had no effect, `Unavailable` if there was no
        daemon and nothing was sent, `Unauthenticated` if the daemon does not know the token, and `NoReply` if no reply
        came in time: then the outcome is unknown. There is one error after which the command did have an effect: a
        `Conflict` with a `seq` in its `details` means that it took effect earlier, under its `request_id` and with that
        seq, and that its result is no longer stored.

        With `request_id`, an application can resolve an unknown outcome later, even after its own restart: create an id
        (1 to 64 bytes, preferably a ULID), store it, and execute the same command with the same id again. If the
        command took effect, this returns the same result, otherwise it is executed now. The same id with another
        command is a `Conflict`. The ids of `Maintenance` operations are not remembered.
        """
        result: R = self._request(command, timeout_ms, request_id)
        return result

    def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        """Send a query and return its result; raises like `execute`.

        A query with `wait_ms` has that time besides. Other threads that share the client wait meanwhile.
        """
        result: R = self._request(query, timeout_ms)
        return result

    @overload
    def pipeline(
        self, operations: Iterable[Operation[R]], *, window: int = ..., return_errors: Literal[False] = ...
    ) -> Iterator[R]: ...

    @overload
    def pipeline(
        self, operations: Iterable[Operation[R]], *, window: int = ..., return_errors: Literal[True]
    ) -> Iterator[R | BackscrollError]: ...

    def pipeline(
        self, operations: Iterable[Operation[R]], *, window: int = 256, return_errors: bool = False
    ) -> Iterator[R | BackscrollError]:
        """Send many requests without waiting for each reply; yields the results in the order sent.

        At most `window` requests are in flight. The first error is raised in its place among the results; the requests
        sent until then still take effect. With `return_errors` the error of a request that was sent is yielded in that
        place instead, and the pipeline goes on. Other threads have to wait until the iterator ends. The timeout of a
        request starts when its result is next, so all of them together may take longer.

        After a lost connection, unanswered requests are sent again, in order and before new ones. A query among them
        may then see commands that were sent after it.

        Of a larger `window` 1,000 requests are in flight, 32 MiB of them; the others wait in the client for their turn.
        """
        self._pending.check_process()
        with self._lock:
            calls: deque[Call] = deque()
            unsent: BackscrollError | None = None
            try:
                for operation in operations:
                    if len(calls) >= window or self._pending.is_crowded:
                        half = len(calls) // 2  # one at a time would wake both processes for each
                        while len(calls) > half:
                            yield self._result(calls.popleft(), return_errors)
                    try:
                        call = self._pending.new_call(
                            operation, scope=self._scope, timeout_ms=self._timeout_ms, is_awaited=False
                        )
                        self._send(call, _after(self._timeout_ms))
                        calls.append(call)
                    except BackscrollError as error:  # raised after the results of those that were sent
                        unsent = error
                        break
                while calls:
                    yield self._result(calls.popleft(), return_errors)
            finally:
                for call in calls:
                    self._pending.forget(call)
            if unsent is not None:
                raise unsent

    def changes(
        self,
        after: str | None = None,
        *,
        rooms: list[str] | None = None,
        nouns: list[str] | None = None,
        values: bool = True,
        limit: int = 100,
    ) -> "Changes":
        """Follow the feed for ever: an iterator of what changed after a cursor, in order, and of what changes next.

        Without `after` it begins with the first command of the log, with `"now"` at the end of the feed when the first
        item is asked for. `limit` is about how many changes are read at once; the other arguments are those of
        `GetChanges`. The `value` of a change is the record of its noun. Store the iterator's `cursor` together with
        what was applied, and begin there the next time. After `"now"` the `cursor` is None until the end of the feed
        was found: to start without the history and lose nothing, store `ask(GetChanges(after="now")).cursor` first, and
        begin there.

        If no daemon answers at the start, it raises `Unavailable` or `NoReply` after the client's `timeout_ms`. Later
        it goes on by itself when the daemon was restarted or could not answer for a while, and raises other errors.
        `FeedGap` means that the cursor is of another history of the scope: read everything anew. The iterator has a
        connection of its own, which is closed with `close()`, also by another thread, or when nobody has the iterator
        any more. It ends when the client was closed.
        """
        query = GetChanges(after=after, rooms=rooms, nouns=nouns, values=values, limit=limit)
        return Changes(self, ChangeSteps(query, waits=self._can_wait))

    def watch(self, query: Query[R]) -> "FeedIterator[Watched[R]]":
        """The result of a query, now and whenever it has changed: an iterator for ever, of `Watched(result, seq, gap)`.

        A result is never older than the one before it. Whoever is slow gets the newest one and misses those between. It
        raises, goes on by itself and is closed like `changes`; `gap` says that the scope has another history now, from
        which this result is. Only changes are noticed, which a query lists as its `READS`: not that time passes, as
        when a ban ends. Raises `TypeError` for what is no query about stored items, such as `Ping` or `GetChanges`.
        """
        return FeedIterator(self, WatchSteps(query, waits=self._can_wait).run())

    def close(self) -> None:
        """Close the connection, after waiting for requests of other threads. Later requests raise `Unavailable`.

        In a forked child this does nothing: the connection is the parent's.
        """
        if self._pending.is_forked:
            return
        self._pending.closed = True
        with self._lock:
            self._pending.fail_all(lambda call: call.unanswered(CLOSED))
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _can_wait(self) -> bool:
        """Whether a query can wait in the daemon; not with a transport that answers while it sends."""
        return isinstance(self._transport, ZmqTransport)

    def _answer(self, query: Query[Any]) -> Answer:
        """The result of a query with what else is known about it."""
        begun = time.monotonic()
        call = self._settled(query, self._timeout_ms)
        return Answer(call.result(), call.seq, time.monotonic() - begun)

    def _request(self, operation: Operation[Any], timeout_ms: int | None, request_id: str | None = None) -> Any:
        return self._settled(operation, self._timeout_ms if timeout_ms is None else timeout_ms, request_id).result()

    def _settled(self, operation: Operation[Any], timeout_ms: int, request_id: str | None = None) -> Call:
        """The call of an operation with its outcome."""
        self._pending.check_process()
        with self._lock:
            call = self._pending.new_call(operation, scope=self._scope, timeout_ms=timeout_ms, call_id=request_id)
            call.deadline = deadline = _after(call.timeout_ms)
            self._send(call, deadline)
            self._settle(call, deadline)
            return call

    def _result(self, call: Call, return_errors: bool) -> Any:
        """The result of a call that was sent, or its error; its timeout starts now."""
        try:
            self._settle(call, _after(call.timeout_ms))
            return call.result()
        except BackscrollError as error:
            if not return_errors:
                raise
            return error

    def _send(self, call: Call, deadline: float) -> None:
        """Send a call, after those that are to be sent again; raises `Unavailable` if that is not possible in time."""
        self._pending.add(call)
        try:
            self._send_queued(deadline)
        except BaseException:
            self._pending.forget(call)
            raise

    def _settle(self, call: Call, deadline: float) -> None:
        """Wait for the outcome of a call; replies to other calls are handled meanwhile."""
        call.deadline = deadline
        try:
            while call.outcome is None:
                self._wait(call, deadline)
        finally:
            self._pending.forget(call)

    def _wait(self, call: Call, deadline: float) -> None:
        """Wait for one event: a reply, a call to send, or the deadline, which raises."""
        can_send = self._pending.send_queue and self._pending.next_call() is not None
        until = 0.0 if can_send else min(deadline, self._pending.retry_at)
        try:
            body = self._transport.receive((until - time.monotonic()) * 1000)
        except Reconnected:
            self._reconnected()
            return
        if body is not None:
            self._pending.handle_reply(body, time.monotonic())
            return
        if until >= deadline:
            error = self._pending.unanswered(call)
            if self._pending.time_out(call) and isinstance(self._transport, ZmqTransport):
                self._transport.give_up()
            raise error
        # `until` has passed, even if the transport returned early because nothing can come.
        self._pending.queue_retry(until)
        try:
            self._send_queued(deadline)
        except (Unavailable, Unauthenticated):
            raise call.unanswered() from None

    def _send_queued(self, deadline: float) -> None:
        """Send the queued calls in order, unless too many are in flight."""
        pending = self._pending
        while pending.send_queue and (call := pending.next_call()) is not None:
            now = time.monotonic()
            try:
                self._transport.send(call.body_at(now), (deadline - now) * 1000)
            except Reconnected:
                self._reconnected()
            else:
                pending.mark_sent(call)

    def _reconnected(self) -> None:
        """Send again what is unanswered. What has an answer that arrived before the loss must not be sent again: its
        caller gets that answer, and a command that was refused could then take effect.
        """
        try:
            while (body := self._transport.receive(0)) is not None:
                self._pending.handle_reply(body, time.monotonic())
        except Reconnected:
            pass  # it was lost once more, so there is nothing more to receive
        finally:
            self._pending.reconnected()


class FeedIterator(Generic[T]):
    """An iterator that follows a scope. Close it, or let go of it, to close its connection.

    Threads may share it: each gets the next item. `on_lost` can be set before the first item is asked for; it is called
    each time the connection is lost, by the thread that waits.
    """

    def __init__(self, client: Client, steps: Steps[None]) -> None:
        self._client = client
        self._steps = steps
        self._step: Step | None = None  # the one that is not done yet
        self._asking: Client | None = None
        self._using = threading.RLock()
        self._ended = threading.Event()
        self._release: Callable[[], object] = lambda: None
        self.on_lost: Callable[[], object] = lambda: None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._client._pending.check_process()
        with self._using:
            try:
                while not self._is_closed():
                    self._step = self._step or next(self._steps)
                    if isinstance(self._step, Item):
                        item: T = self._step.value
                        self._step = None
                        return item
                    self._take(self._step)
            except (BackscrollError, FeedGap, StopIteration):
                self.close()
                raise
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End the iteration and close its connection, when another thread that waits for an item has noticed that."""
        self._ended.set()
        with self._using:
            self._steps.close()
            self._release()

    def _is_closed(self) -> bool:
        return self._ended.is_set() or self._client._pending.closed

    def _take(self, step: Step) -> None:
        """Do a step and find the next one. After an interrupt, the same step is done again."""
        if isinstance(step, Pause):
            self._pause(step.seconds)
            self._step = None
        elif isinstance(step, Ask):
            try:
                answer = self._connected()._answer(step.query)
            except BackscrollError as error:
                if not self._is_closed():
                    self._step = None
                    self._step = self._steps.throw(error)
            else:
                self._step = self._steps.send(answer)

    def _pause(self, seconds: float) -> None:
        until = _after(seconds * 1000)
        while (remaining := until - time.monotonic()) > 0 and not self._is_closed():
            self._ended.wait(min(remaining, INTERRUPT_MS / 1000))

    def _connected(self) -> Client:
        """The client that asks: one with its own connection, or with a transport that cannot wait, the same client."""
        if self._asking is None:
            client = self._client
            if not isinstance(client._transport, ZmqTransport):
                self._asking = client
                return client
            ended, pending = self._ended, client._pending  # not this object, which could then not be collected
            transport = client._transport.another(lambda: ended.is_set() or pending.closed, self.on_lost)
            self._release = weakref.finalize(self, transport.close)
            self._asking = Client(transport=transport, scope=client._scope, timeout_ms=client._timeout_ms)
        return self._asking


class Changes(FeedIterator[ItemChange], FeedPosition):
    """The changes of a scope, one after the other, for ever; made by `Client.changes`."""

    def __init__(self, client: Client, steps: ChangeSteps) -> None:
        super().__init__(client, steps.run())
        self._steps_of_changes = steps


def _after(timeout_ms: float) -> float:
    return time.monotonic() + timeout_ms / 1000


def _poll_timeout_ms(timeout_ms: float) -> int:
    """A timeout for poll(): an integer, and not negative, which would mean to wait forever."""
    return max(0, math.ceil(timeout_ms))
