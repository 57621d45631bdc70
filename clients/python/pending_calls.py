"""What both clients do alike, without any I/O: find the daemon, write requests, read replies, decide what goes again.

    operation ──▶ Call ──add()──▶ PendingCalls.line ──▶ the client sends it ──sent()──┐
                                     ▲  ▲                                         │
                   lost(), repeat() ─┘  └──take()── the client receives ◀─ daemon ◀┘

A `Call` is one request with its one id, and what is known of it: whether the present connection owes it a reply,
whether an attempt is in doubt because its connection was lost, and in the end its outcome. `PendingCalls` holds a client's
calls in the order first sent, and the line of those to be sent next. Times are seconds of a clock that never goes back.

The daemon carries out a command once, however often it gets the same id. So what was not answered is sent again:

- *When there is a new connection*, everything in its order, before anything new.
- *When it was refused* and an earlier attempt is in doubt, after `PAUSE_MS`, unless others were sent after it. Refusals
  that are the fault of the daemon or of the hour say nothing about the attempt in doubt.

What a live connection owes a reply is never sent a second time, however long nothing comes: a connection loses nothing.
The second copy would stand behind later requests, and where the first is refused it would be judged anew, after them:
a command could take effect although its caller was told that it did not, and undo what was sent after it.

An error that is the caller's own fault is the outcome whichever attempt it answers, although an earlier one may still
wait in the daemon: it drops what waits on a connection as soon as it notices that the connection is lost.

One gap is left: a connection may be lost while the daemon lives on. What it then refuses of the old one, unheard,
is judged anew on the new one, and may succeed after a later request of the old connection that took effect.

A maintenance operation is not remembered by its id, so it is sent once; it is in doubt when its connection is lost.
"""

import json
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Raw

from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import (
    BackscrollError,
    CallerError,
    Internal,
    Invalid,
    NoReply,
    TooLarge,
    Unavailable,
)
from backscroll.schema.limits import REQUEST_ID_BYTES_MAX
from backscroll.schema.operations import Maintenance, Operation
from backscroll.schema.paths import ENDPOINT_FILE, default_data_dir
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
PAUSE_MS = 100
CLOSED = "the client was closed"

new_id = UlidGenerator()


def find_endpoint(endpoint: str | None, data_dir: Path | str | None) -> str:
    """The address to connect to: the one given, or the one a daemon wrote into its data directory.

    Raises `Unavailable` where no daemon has said that it is ready.
    """
    if endpoint is not None:
        return endpoint
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    try:
        ready = json.loads((directory / ENDPOINT_FILE).read_text(encoding="utf-8"))
        return str(ready["endpoints"][0])
    except (OSError, ValueError, LookupError, TypeError):  # missing, unreadable, or not what a daemon writes
        raise Unavailable(
            f"no daemon is ready in {directory}: start one with `backscroll serve --data-dir {directory}`",
            retryable=True,
        ) from None


class Call:
    """One request, from when it is made until its outcome is known.

    `give_up_at` is when its caller stops waiting; None while its turn has not come. `on_settled` is called once there
    is an outcome.
    """

    give_up_at: float | None = None
    owed = False
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
    ) -> None:
        """Raises `Invalid` for text that is no Unicode and `TooLarge` for a body over its limit."""
        self.id = new_id() if call_id is None else call_id
        self.operation_type = type(operation)
        self.timeout_ms = timeout_ms
        self._codec = codec
        envelope = Envelope(
            id=self.id,
            type=operation.wire_name,
            payload=operation,
            scope=scope,
            deadline_ms=timeout_ms,
            level=level,
        )
        try:
            self.body = codec.encode(envelope)
            if call_id is not None:
                _check_id(call_id)
        except (UnicodeEncodeError, OverflowError, TypeError, RecursionError) as error:
            raise Invalid(f"the payload cannot be written: {error}") from error
        if len(self.body) > operation.body_bytes_max:
            raise TooLarge(f"a body of {len(self.body)} bytes, at most {operation.body_bytes_max} are taken")

    @property
    def was_sent(self) -> bool:
        """Whether a call without an outcome may have had an effect."""
        return self.owed or self.in_doubt

    def body_at(self, now: float) -> bytes:
        """What to send: at another attempt the same, but for `deadlineMs`, which is what is left."""
        if not self.was_sent or self.give_up_at is None:
            return self.body
        fields: dict[str, Any] = self._codec.decode(self.body, dict[str, Raw])  # the payload stays as it was written
        fields["deadlineMs"] = max(1, math.ceil((self.give_up_at - now) * 1000))
        return self._codec.encode(fields)

    def is_settled_by(self, reply: Reply[Any]) -> bool:
        """Whether a reply is the last word: a refusal is not while it leaves open what an earlier attempt has done."""
        if reply.error is None or not self.in_doubt:
            return True
        return isinstance(error_of(reply), CallerError)

    def settle(self, outcome: tuple[Reply[Any], Codec] | BackscrollError) -> None:
        self.outcome = outcome
        if self.on_settled is not None:
            self.on_settled()

    def result(self) -> Any:
        """The typed result, or the error that the outcome is."""
        assert self.outcome is not None
        if isinstance(self.outcome, BackscrollError):
            raise self.outcome
        reply, codec = self.outcome
        if not reply.ok:
            raise error_of(reply)
        if not isinstance(reply.result, Raw):
            return reply.result
        try:
            return codec.decode(reply.result, self.operation_type.reply_type)
        except DECODE_ERRORS as error:
            raise Internal(f"the daemon's result is not of the declared type: {error}") from error

    def gave_up(self, why: str = "") -> BackscrollError:
        """The error for a caller who waits no longer."""
        if not self.was_sent:
            return Unavailable(f"{why or 'no daemon answers'}; nothing was sent", retryable=True)
        why = why or f"no reply within {self.timeout_ms} ms"
        return NoReply(f"{why}: whether the request took effect is unknown")


class PendingCalls:
    """A client's calls without an outcome, in the order they were first sent, and the line of those to be sent next.

    `again_at` is when to `repeat` what was refused. Once it is `closed` it takes no more calls.
    """

    def __init__(self) -> None:
        self.line: deque[Call] = deque()
        self.again_at = math.inf
        self.closed = False
        self.level: int | None = PROTOCOL_LEVEL  # to be stated in the first request only
        self._calls: dict[Any, Call] = {}
        self._by_age: deque[Call] = deque()  # with those that were removed since, until they are the oldest
        self._newest: Call | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """Put a new call at the end of the line.

        Raises `Invalid` when one with its id is under way, and `Unavailable` when the client was closed.
        """
        if self.closed:
            raise call.gave_up(CLOSED)
        if call.id in self._calls:
            raise Invalid(f"a request with the id {call.id!r} is under way already")
        self.level = None
        if self.again_at < math.inf:
            self.repeat(math.inf)  # what was refused goes before what is new
        self._newest = self._calls[call.id] = call
        self._by_age.append(call)
        self.line.append(call)

    def sent(self, call: Call) -> None:
        """Note that the call at the head of the line was sent."""
        self.line.popleft()
        call.owed = True

    def take(self, body: bytes, now: float) -> bool:
        """Take in a reply; whether its call is now to be repeated at `again_at`. Raises `Internal` for what is none.

        A reply that nobody waits for, or that nobody waits for any more, is dropped.
        """
        # In one pass where it is that of the oldest call, as it nearly always is.
        guess = self._oldest_type()
        reply, codec = open_reply(body, guess)
        call = self._calls.get(reply.id)
        if call is None:
            return False
        if call.operation_type.reply_type is not guess and not isinstance(reply.result, Raw):
            reply, codec = open_reply(body)
        call.owed = False
        if call.is_settled_by(reply):
            self._settle(call, (reply, codec))
        elif call is self._newest:
            self.again_at = now + PAUSE_MS / 1000
            return True
        else:
            self._settle(call, call.gave_up("it was refused when it was sent again, and others were sent after it"))
        return False

    def lost(self) -> None:
        """There is a new connection: whatever has no outcome is to be sent on it, in order."""
        for call in list(self._calls.values()):
            call.owed, call.in_doubt = False, call.was_sent
            if call.in_doubt and issubclass(call.operation_type, Maintenance):
                self._settle(call, call.gave_up("the connection was lost"))
        self.line = deque(self._calls.values())
        self.again_at = math.inf

    def repeat(self, now: float) -> None:
        """Put the call that was refused into the line if its pause is over by now."""
        if self._newest is not None and self.again_at < math.inf and now >= self.again_at:
            self.again_at = math.inf
            self.line.append(self._newest)

    def forget(self, call: Call) -> None:
        """Nobody waits for it any more."""
        if self._calls.get(call.id) is call:
            self._remove(call)

    def fail_all(self, error_of_call: Callable[[Call], BackscrollError]) -> None:
        """Nothing will be answered any more."""
        for call in list(self._calls.values()):
            self._settle(call, error_of_call(call))

    def _oldest_type(self) -> Any:
        """What the oldest call asks for; `Raw` where there is none."""
        while self._by_age and self._calls.get(self._by_age[0].id) is not self._by_age[0]:
            self._by_age.popleft()
        return self._by_age[0].operation_type.reply_type if self._by_age else Raw

    def _settle(self, call: Call, outcome: tuple[Reply[Any], Codec] | BackscrollError) -> None:
        self._remove(call)
        call.settle(outcome)

    def _remove(self, call: Call) -> None:
        del self._calls[call.id]
        if call is self._newest:
            self._newest, self.again_at = None, math.inf
        if self.line:
            self.line = deque(each for each in self.line if each is not call)


def open_reply(body: bytes, result_type: Any = Raw) -> tuple[Reply[Any], Codec]:
    """A reply, or its outside where its result is not of that type; raises `Internal` where the bytes are none."""
    try:
        return read_reply(body, result_type)
    except DECODE_ERRORS as error:
        if result_type is not Raw:
            return open_reply(body)
        raise Internal(f"the daemon sent what is no reply: {error}") from error


def _check_id(call_id: str) -> None:
    """A daemon could not say whose an id of another length is."""
    if not 1 <= len(call_id.encode()) <= REQUEST_ID_BYTES_MAX:
        raise Invalid(f"a request's id has 1 to {REQUEST_ID_BYTES_MAX} bytes")


__all__ = ["DEFAULT_SCOPE", "TIMEOUT_MS", "Call", "PendingCalls", "find_endpoint", "new_id", "open_reply"]
