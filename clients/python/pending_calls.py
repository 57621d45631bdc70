"""What both clients have in common, without any I/O: encoding, decoding, and sending again.

    operation ──▶ Call ──add()──▶ send_queue ──next_call()──▶ client sends it ──mark_sent()──▶ daemon
                                     ▲  ▲                                                        │
      reconnected(), queue_retry() ──┘  └──handle_reply()◀────── client receives ◀───────────────┘

A `Call` is one request with its id and its state: whether a reply to it is expected on the current connection, whether
an earlier attempt is in doubt because its connection was lost, and finally its outcome. `PendingCalls` has a client's
calls in the order first sent, and the queue of those to send next. Times are seconds of a monotonic clock.

The daemon executes a command only once, however often it receives the same id. So unanswered calls are sent again:

- *On a new connection*, all of them in order, before anything new.
- *After a refusal* while an earlier attempt is in doubt, after `RETRY_DELAY_MS`, unless others were sent after it. A
  refusal that is the daemon's fault or temporary says nothing about the attempt in doubt.

A call is never sent twice on the same connection, however long its reply takes: a connection loses nothing while it
lives. The second copy would wait behind later requests, and if the first was refused it would be executed after them: a
command could take effect although its caller got an error, and undo what was sent after it.

A `CallerError` is the outcome whichever attempt it answers, although an earlier attempt may still be waiting in the
daemon: the daemon drops the waiting requests of a connection as soon as it notices that the connection is lost.

A connection may be lost while the daemon runs on. If the daemon then refuses a command of the old connection, and the
client never sees that, the command is judged anew on the new connection. So commands have `client`, an id of this
object, and `n`, which rises: the daemon does not execute a command after a later one of its client, and answers
`Superseded`.

The ids of maintenance operations are not remembered, so these are sent only once. If their connection is lost, the
outcome is unknown.

At most `IN_FLIGHT_MAX` requests are in flight, so that a client does not have more answered than it reads, and a lost
connection costs at most that again. A request is in flight until its reply arrives, also if nobody waits for it any
more. Queries that wait in the daemon do not count: it has a bound for them.
"""

import math
import os
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Raw

from backscroll.clients.python.feed import with_records
from backscroll.schema.command_log import Sender
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import (
    BackscrollError,
    Busy,
    CallerError,
    Internal,
    Invalid,
    NoReply,
    TooLarge,
    Unavailable,
)
from backscroll.schema.limits import FRAME_BYTES_MAX, REQUEST_ID_BYTES_MAX
from backscroll.schema.operations import Command, Maintenance, Operation, WaitingQuery
from backscroll.schema.replies import ChangePage
from backscroll.schema.ulid import UlidGenerator
from backscroll.schema.wire import (
    DEFAULT_SCOPE,
    MSGPACK,
    PROTOCOL_LEVEL,
    Codec,
    Envelope,
    Reply,
    error_of,
    read_reply,
)

R = TypeVar("R")

TIMEOUT_MS = 5_000
RETRY_DELAY_MS = 100
IN_FLIGHT_MAX = 1_000
IN_FLIGHT_BYTES_MAX = 32 * 1024 * 1024
CALLS_MAX = 100_000
CALLS_BYTES_MAX = 256 * 1024 * 1024
"""All calls of a client, also those that are not sent yet, and the bytes of their bodies."""
BEHIND = "too many requests before it have no reply yet"
CLOSED = "the client was closed"
FORKED = "this client was made before a fork, by the parent of this process; make a new client in this process"

new_id = UlidGenerator()


class Call:
    """One request, from its creation until its outcome is known.

    `deadline` is when its caller stops waiting; None until the caller waits for this call, which in a pipeline may be
    at any time: until then the request has no `deadlineMs`, so that the daemon does not refuse what stood behind others
    for long. `on_settled` is called when there is an outcome.
    """

    deadline: float | None = None
    number = 0  # its place among all calls of the client
    received_before = 0  # how many replies the client had when it was sent
    awaiting_reply = False
    in_doubt = False
    outcome: tuple[Reply[Any], Codec] | BackscrollError | None = None
    on_settled: Callable[[], None] | None = None

    def __init__(
        self,
        operation: Operation[Any],
        *,
        scope: str,
        timeout_ms: int,
        codec: Codec = MSGPACK,
        call_id: str | None = None,
        level: int | None = None,
        sender: Sender | None = None,
        is_awaited: bool = True,
    ) -> None:
        """Encode the request; raises `Invalid` if that is not possible, and `TooLarge` for a body over its limit.

        `timeout_ms` is besides the time for which the operation itself waits. `is_awaited`: whether the caller waits
        from now on.
        """
        self.id = new_id() if call_id is None else call_id
        self.operation_type = type(operation)
        self._wait_ms = operation.wait_ms if isinstance(operation, WaitingQuery) else 0
        self.waits = self._wait_ms > 0  # then its reply may come long after those of later calls
        self.timeout_ms = timeout_ms + self._wait_ms
        self._codec = codec
        self._deadline_ms = self.timeout_ms if is_awaited else None  # in `body`
        envelope = Envelope(
            id=self.id,
            type=operation.wire_name,
            payload=operation,
            scope=scope,
            deadline_ms=self._deadline_ms,
            level=level,
            client=sender.client if sender else None,
            n=sender.n if sender else None,
        )
        try:
            self.body = codec.encode(envelope)
            if call_id is not None:
                _check_id(call_id)
        except (UnicodeEncodeError, OverflowError, TypeError, RecursionError) as error:
            raise Invalid(f"the payload cannot be written: {error}") from error
        self.size = len(self.body)
        if self.size > operation.body_bytes_max:
            raise TooLarge(f"the body has {self.size} bytes; at most {operation.body_bytes_max} are allowed")

    @property
    def was_sent(self) -> bool:
        """Whether the call may have had an effect, while it has no outcome."""
        return self.awaiting_reply or self.in_doubt

    @property
    def seq(self) -> int:
        """The commit number that the result reflects; 0 if there is none."""
        return (self.outcome[0].seq or 0) if isinstance(self.outcome, tuple) else 0

    def body_at(self, now: float) -> bytes:
        """The bytes to send. Attempts differ only in `deadlineMs`, the remaining time of a caller who waits.

        A query that waits must wait so much less, or its reply would come after the deadline.
        """
        if self.deadline is None:
            return self.body
        remaining_ms = max(1, math.ceil((self.deadline - now) * 1000))
        if self._deadline_ms is not None and remaining_ms >= self._deadline_ms:
            return self.body
        fields: dict[str, Any] = self._codec.decode(self.body, dict[str, Raw])  # the payload stays as it was encoded
        fields["deadlineMs"] = remaining_ms
        if self.waits:
            payload: dict[str, Any] = self._codec.decode(fields["payload"], dict[str, Raw])
            waited_ms = max(0, self.timeout_ms - remaining_ms)
            fields["payload"] = payload | {"waitMs": max(0, self._wait_ms - waited_ms)}
        return self._codec.encode(fields)

    def is_settled_by(self, reply: Reply[Any]) -> bool:
        """Whether a reply is final. A refusal is not, while the outcome of an earlier attempt is still unknown."""
        if reply.error is None or not self.in_doubt:
            return True
        return isinstance(error_of(reply), CallerError)

    def settle(self, outcome: tuple[Reply[Any], Codec] | BackscrollError) -> None:
        self.outcome = outcome
        if self.on_settled is not None:
            self.on_settled()

    def result(self) -> Any:
        """The typed result; raises the error if that is the outcome."""
        assert self.outcome is not None
        if isinstance(self.outcome, BackscrollError):
            raise self.outcome
        reply, codec = self.outcome
        if not reply.ok:
            raise error_of(reply)
        result = reply.result
        if isinstance(result, Raw):
            try:
                result = codec.decode(result, self.operation_type.reply_type)
            except DECODE_ERRORS as error:
                raise Internal(f"the daemon's result does not have the declared type: {error}") from error
        return with_records(result) if isinstance(result, ChangePage) else result

    def unanswered(self, why: str = "") -> BackscrollError:
        """The error for a call that got no reply: `Unavailable` if it was not sent, otherwise `NoReply`."""
        if not self.was_sent:
            return Unavailable(f"{why or 'no daemon answers'}; nothing was sent")
        why = why or f"no reply within {self.timeout_ms} ms"
        return NoReply(f"{why}: whether the request took effect is unknown")


class PendingCalls:
    """A client's calls without an outcome, in the order first sent, and the queue of those to send next.

    `retry_at` is when to call `queue_retry`, infinite if there is nothing to retry. When `closed`, it accepts no calls.
    """

    def __init__(self) -> None:
        self.send_queue: deque[Call] = deque()  # calls that were removed are skipped when they come to its head
        self.retry_at = math.inf
        self.closed = False
        self._pid = os.getpid()
        self._sent_last = Sender(new_id(), 0)
        self._level: int | None = PROTOCOL_LEVEL  # for the first request only
        self._calls: dict[Any, Call] = {}  # by id
        self._calls_bytes = 0
        self._by_age: OrderedDict[str, Call] = OrderedDict()  # without those that wait
        self._added = self._highest_sent = self._received = 0
        self._in_flight = self._in_flight_bytes = 0
        # The bytes of requests in flight that nobody waits for; several under an id that was executed again.
        self._abandoned: dict[Any, list[int]] = {}
        self._abandoned_count = 0
        self._refused: Call | None = None

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def is_forked(self) -> bool:
        """Whether this process is a child of the one that made the client, which alone may use its connection."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raise `Invalid` in a forked child."""
        if self.is_forked:
            raise Invalid(FORKED)

    def new_call(
        self,
        operation: Operation[Any],
        *,
        scope: str,
        timeout_ms: int,
        call_id: str | None = None,
        is_awaited: bool = True,
    ) -> Call:
        """A call that is to be added next: each command gets the next `n`. Raises what `Call` raises."""
        sender = None
        if isinstance(operation, Command):
            sender = self._sent_last = Sender(self._sent_last.client, self._sent_last.n + 1)
        return Call(
            operation,
            scope=scope,
            timeout_ms=timeout_ms,
            call_id=call_id,
            level=self._level,
            sender=sender,
            is_awaited=is_awaited,
        )

    def add(self, call: Call) -> None:
        """Append a new call to the send queue.

        Raises `Invalid` if a call with the same id is in flight, `Unavailable` if the client was closed, and `Busy` if
        it has too many calls.
        """
        if self.closed:
            raise call.unanswered(CLOSED)
        if call.id in self._calls:
            raise Invalid(f"a request with the id {call.id!r} is already in flight")
        if len(self._calls) >= CALLS_MAX or self._calls_bytes + call.size > CALLS_BYTES_MAX:
            held = f"{len(self._calls)} requests of this client, of {self._calls_bytes} bytes,"
            raise Busy(f"{held} have no reply yet: wait for some; nothing was sent")
        self._level = None
        if self.retry_at < math.inf:
            self.queue_retry(math.inf)  # a refused call goes before a new one
        self._added += 1
        call.number = self._added
        self._calls[call.id] = call
        self._calls_bytes += call.size
        if not call.waits:
            self._by_age[call.id] = call
        self.send_queue.append(call)

    def next_call(self) -> Call | None:
        """The call to send next; None if there is none, or if too many are in flight."""
        queue = self.send_queue
        while queue:
            call = queue[0]
            if self._calls.get(call.id) is call:
                return call if not self._in_flight or not self._is_full_for(call) else None
            queue.popleft()
        return None

    def mark_sent(self, call: Call) -> None:
        """Note that the next call was sent."""
        self.send_queue.popleft()
        call.awaiting_reply = True
        call.received_before = self._received
        if not call.waits:
            self._in_flight += 1
            self._in_flight_bytes += call.size
        if call.number > self._highest_sent:
            self._highest_sent = call.number

    def handle_reply(self, body: bytes, now: float) -> bool:
        """Process a reply. Returns whether its call is to be sent again at `retry_at`; raises `Internal` if invalid.

        A reply to a call that is unknown, or that nobody waits for any more, is dropped.
        """
        # In one pass if it is the reply to the oldest call that does not wait, as it nearly always is.
        guess = self._oldest_type()
        self._received += 1
        reply, codec = open_reply(body, guess)
        if self._abandoned and self._is_of_abandoned(reply.id):
            return False
        call = self._calls.get(reply.id)
        if call is None or not call.awaiting_reply:
            return False
        if call.operation_type.reply_type is not guess and not isinstance(reply.result, Raw):
            reply, codec = open_reply(body)
        call.awaiting_reply = False
        if not call.waits:
            self._in_flight -= 1
            self._in_flight_bytes -= call.size
        if call.is_settled_by(reply):
            self._settle(call, (reply, codec))
        elif call.number < self._highest_sent:
            self._settle(call, call.unanswered("a retry was refused, and other requests were sent after it"))
        else:
            self._refused, self.retry_at = call, now + RETRY_DELAY_MS / 1000
            self.next_call()  # skips those that were removed
            if not self.send_queue:
                return True
            self.queue_retry(math.inf)
        return False

    def reconnected(self) -> None:
        """There is a new connection: queue all calls without an outcome to be sent on it, in order."""
        self._in_flight = self._in_flight_bytes = self._abandoned_count = 0
        self._abandoned.clear()
        for call in list(self._calls.values()):
            call.awaiting_reply, call.in_doubt = False, call.was_sent
            if call.in_doubt and issubclass(call.operation_type, Maintenance):
                self._settle(call, call.unanswered("the connection was lost"))
        self.send_queue = deque(self._calls.values())
        self._refused, self.retry_at = None, math.inf

    def queue_retry(self, now: float) -> None:
        """Queue the refused call to be sent again, before those that were never sent, if its delay is over."""
        if self._refused is not None and now >= self.retry_at:
            self.send_queue.appendleft(self._refused)
            self._refused, self.retry_at = None, math.inf

    def time_out(self, call: Call) -> bool:
        """Drop a call whose deadline has passed. Returns whether its connection is to be given up as lost.

        That is if nothing at all has arrived since the call was sent, and if nobody waits for any of the requests that
        fill the window: their replies may never come.
        """
        is_silent = call.awaiting_reply and call.received_before == self._received
        self.forget(call)
        return is_silent or (self._in_flight == self._abandoned_count and self._is_full_for(call))

    def unanswered(self, call: Call) -> BackscrollError:
        """The error for a call whose deadline has passed."""
        is_behind = not call.was_sent and self.is_full
        return call.unanswered(BEHIND if is_behind else "")

    @property
    def is_crowded(self) -> bool:
        """Whether there may be too many calls for another one."""
        return len(self._calls) >= CALLS_MAX or self._calls_bytes > CALLS_BYTES_MAX - FRAME_BYTES_MAX

    @property
    def is_full(self) -> bool:
        """Whether the next call waits until fewer are in flight."""
        return self.next_call() is None and bool(self.send_queue)

    def forget(self, call: Call) -> None:
        """Drop a call that nobody waits for any more."""
        if self._calls.get(call.id) is call:
            self._remove(call)

    def fail_all(self, error_of_call: Callable[[Call], BackscrollError]) -> None:
        """Settle all calls with errors."""
        for call in list(self._calls.values()):
            self._settle(call, error_of_call(call))

    def _oldest_type(self) -> Any:
        """The result type of the oldest call that does not wait; `Raw` if there is none."""
        oldest = next(iter(self._by_age.values()), None)
        return Raw if oldest is None else oldest.operation_type.reply_type

    def _settle(self, call: Call, outcome: tuple[Reply[Any], Codec] | BackscrollError) -> None:
        self._remove(call)
        call.settle(outcome)

    def _remove(self, call: Call) -> None:
        del self._calls[call.id]
        self._calls_bytes -= call.size
        self._by_age.pop(call.id, None)
        if call is self._refused:
            self._refused, self.retry_at = None, math.inf
        if call.awaiting_reply and not call.waits:
            self._abandoned.setdefault(call.id, []).append(call.size)
            self._abandoned_count += 1
        if self.send_queue and len(self.send_queue) > 2 * len(
            self._calls
        ):  # so that each costs the same, however many they are
            self.send_queue = deque(each for each in self.send_queue if self._calls.get(each.id) is each)

    def _is_of_abandoned(self, call_id: Any) -> bool:
        """Note a reply. True if it is to a request that nobody waits for: if the same id was sent again since, a
        refusal of the first says nothing about the second.
        """
        sizes = self._abandoned.get(call_id)
        if sizes is None:
            return False
        self._in_flight -= 1
        self._in_flight_bytes -= sizes.pop(0)
        self._abandoned_count -= 1
        if not sizes:
            del self._abandoned[call_id]
        return True

    def _is_full_for(self, call: Call) -> bool:
        """Whether this request in flight would be too much; one is always allowed."""
        if self._in_flight < IN_FLIGHT_MAX and self._in_flight_bytes + call.size <= IN_FLIGHT_BYTES_MAX:
            return False
        return self._in_flight > 0 and not call.waits


def open_reply(body: bytes, result_type: Any = Raw) -> tuple[Reply[Any], Codec]:
    """Decode a reply; if its result is not of this type, it stays encoded. Raises `Internal` if it is not a reply."""
    try:
        return read_reply(body, result_type)
    except DECODE_ERRORS as error:
        if result_type is not Raw:
            return open_reply(body)
        raise Internal(f"the daemon sent an invalid reply: {error}") from error


def _check_id(call_id: str) -> None:
    """Raise `Invalid` for an id with a length that the daemon refuses."""
    if not 1 <= len(call_id.encode()) <= REQUEST_ID_BYTES_MAX:
        raise Invalid(f"a request id must have 1 to {REQUEST_ID_BYTES_MAX} bytes")


__all__ = ["DEFAULT_SCOPE", "TIMEOUT_MS", "Call", "PendingCalls", "new_id", "open_reply"]
