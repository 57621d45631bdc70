"""Bytes to bytes: decode a request, pick its handler, run it, and turn whatever goes wrong into a reply.

Never touches a socket or a thread, so that tests, fuzzers and benchmarks run it as it is. Every command and every
query of the daemon passes `_carry_out`, which holds the one `try` around handlers.
"""

import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from backscroll.bus.failures import as_wire_error
from backscroll.bus.logs import log
from backscroll.bus.scopes import Scopes, WholeScope
from backscroll.bus.session import TransactionLost
from backscroll.bus.store import Store
from backscroll.handlers import HANDLERS, Handlers
from backscroll.handlers.chores import tidy
from backscroll.handlers.database import Status
from backscroll.schema.errors import (
    BackscrollError,
    DeadlineExceeded,
    Internal,
    TooLarge,
    Unavailable,
    UnknownOperation,
)
from backscroll.schema.limits import BODY_BYTES_MAX, REPLY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Builtin, Command, Maintenance, Operation
from backscroll.schema.wire import (
    Codec,
    Envelope,
    Success,
    codec_of,
    read_envelope,
    read_payload,
    salvage_id,
    write_failure,
)

Guard = AbstractContextManager[None]


class Request:
    """A request that was decoded and found valid, and the way its reply goes back."""

    __slots__ = ("codec", "deadline", "id", "kind", "operation", "route", "scope", "size", "traceparent")

    def __init__(
        self,
        envelope: Envelope,
        operation: Operation[Any],
        codec: Codec,
        size: int,
        route: Sequence[bytes],
        now: float,
    ) -> None:
        self.id = envelope.id
        self.scope = envelope.scope
        self.operation = operation
        self.codec = codec
        self.size = size
        self.route = route
        self.deadline = None if envelope.deadline_ms is None else now + envelope.deadline_ms / 1000
        self.traceparent = envelope.traceparent
        # What the requests of one run have in common: whether commands, of which scope, how many queries at most.
        self.kind = (self.is_command, self.scope, getattr(operation, "run_max", 0))

    @property
    def is_command(self) -> bool:
        """Whether it goes to a writer."""
        return isinstance(self.operation, Command | Maintenance)

    @property
    def is_maintenance(self) -> bool:
        return isinstance(self.operation, Maintenance)

    @property
    def is_builtin(self) -> bool:
        return isinstance(self.operation, Builtin)


class Refused(Exception):
    """A body that is no valid request; `reply` says why."""

    def __init__(self, reply: bytes, error: BackscrollError) -> None:
        super().__init__(error.message)
        self.reply = reply


class Dispatcher:
    """Answers requests from the scopes they name. `clock` gives seconds that never go back, for deadlines."""

    def __init__(
        self,
        scopes: Scopes,
        status: Status,
        handlers: Handlers = HANDLERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scopes = scopes
        self._status = status
        self._handlers = handlers
        self._clock = clock
        self._ending = False

    def decode(self, body: bytes, route: Sequence[bytes] = ()) -> Request:
        """The request in a body; raises `Refused` with the reply where there is none."""
        codec = codec_of(body)
        request_id = None
        try:
            if len(body) > BODY_BYTES_MAX:
                raise TooLarge.at("$", f"a body of {len(body)} bytes, at most {BODY_BYTES_MAX} are taken")
            envelope = read_envelope(body, codec)
            request_id = envelope.id
            operation = read_payload(envelope.payload, codec, _operation_type(envelope))
        except Exception as problem:  # noqa: BLE001  # whatever it is, the caller gets a reply
            error = as_wire_error(problem)
            if request_id is None and len(body) <= BODY_BYTES_MAX:
                request_id = salvage_id(body, codec)
            if isinstance(error, Internal):
                log.error("a request cannot be decoded", id=request_id, exc_info=problem)
            log.debug("refused", id=request_id, outcome=error.code, reason=error.message)
            raise Refused(write_failure(request_id, error, codec), error) from None
        return Request(envelope, operation, codec, len(body), route, self._clock())

    def builtin(self, request: Request) -> bytes:
        """Answer a query that needs no database."""
        return self._carry_out(request, self._status, lambda: self._scopes.seq(request.scope))

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Answer queries of one scope, all from one snapshot."""
        try:
            with self._scopes.use(requests[0].scope) as store, store.read() as snapshot:
                return [
                    self._carry_out(request, snapshot, lambda: snapshot.seq, self._unless_ending)
                    for request in requests
                ]
        except Exception as error:  # noqa: BLE001  # the snapshot itself failed: every caller is told
            return [self.refuse(request, error) for request in requests]

    def end_queries(self) -> None:
        """Begin no more queries: those that are left are answered `unavailable`."""
        self._ending = True

    def commit(self, requests: Sequence[Request]) -> list[bytes]:
        """Carry out commands of one scope in one durable transaction; one that fails takes none of the others along."""
        try:
            with self._scopes.use(requests[0].scope) as store, store.write() as transaction:
                return [
                    self._carry_out(request, transaction, lambda: transaction.seq + 1, transaction.command)
                    for request in requests
                ]
        except Exception as error:  # noqa: BLE001  # nothing of the batch is durable: every caller is told
            return [self.refuse(request, error) for request in requests]

    def maintain(self, request: Request) -> bytes:
        """Carry out what is about a whole scope, while nothing else is being written there."""
        scope = WholeScope(self._scopes, request.scope)
        return self._carry_out(request, scope, lambda: self._scopes.seq(request.scope))

    def tidy(self, scope: str) -> None:
        """Remove what nobody needs any more from a scope, if it is open."""
        try:
            with self._scopes.look_after(scope) as store:
                if store is not None:
                    self._tidy(scope, store)
        except Exception as error:  # noqa: BLE001  # it is tried again at the next turn
            log.error("tidying failed", scope=scope, error=str(error))

    def answer(self, body: bytes) -> bytes:
        """Answer one body from beginning to end."""
        try:
            request = self.decode(body)
        except Refused as refused:
            return refused.reply
        if request.is_builtin:
            return self.builtin(request)
        if request.is_maintenance:
            return self.maintain(request)
        return (self.commit if request.is_command else self.ask)([request])[0]

    def refuse(self, request: Request, error: Exception) -> bytes:
        """The failure reply for an error; a fault of the daemon's is logged as an error."""
        if isinstance(error, TransactionLost) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        wire_error = as_wire_error(error)
        about = {"operation": request.operation.wire_name, "id": request.id, "outcome": wire_error.code}
        if isinstance(wire_error, Internal):
            log.error("request failed", **about, traceparent=request.traceparent, exc_info=error)
        elif wire_error is not error:
            log.error("request failed", **about, traceparent=request.traceparent, cause=str(error))
        return write_failure(request.id, wire_error, request.codec)

    def _tidy(self, scope: str, store: Store) -> None:
        with store.write() as transaction:
            removed = {what: count for what, count in tidy(transaction).items() if count}
        if removed:
            log.info("tidied", scope=scope, **removed)

    @contextmanager
    def _unless_ending(self) -> Iterator[None]:
        if self._ending:
            raise Unavailable("the daemon is stopping", retryable=True)
        yield

    def _carry_out(
        self, request: Request, context: Any, seq: Callable[[], int], guard: Callable[[], Guard] = nullcontext
    ) -> bytes:
        """Run the handler and encode what comes of it, inside `guard`: if either fails, neither happened."""
        started, outcome = self._clock(), "ok"
        try:
            if request.deadline is not None and started >= request.deadline:
                raise DeadlineExceeded("the caller's deadline had passed before this was started")
            with guard():
                result = self._handlers[type(request.operation)](request.operation, context)
                reply = _success(request, result, seq())
        except TransactionLost:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets a reply
            outcome = as_wire_error(error).code
            reply = self.refuse(request, error)
        log.debug(
            "request",
            operation=request.operation.wire_name,
            id=request.id,
            outcome=outcome,
            ms=round((self._clock() - started) * 1000, 3),
            traceparent=request.traceparent,
        )
        return reply


def _success(request: Request, result: Any, seq: int) -> bytes:
    reply = request.codec.encode(Success(request.id, True, result, seq))
    if len(reply) > REPLY_BYTES_MAX:
        raise TooLarge(f"the reply would have {len(reply)} bytes, at most {REPLY_BYTES_MAX} are sent: ask for less")
    return reply


def _meant(name: str) -> str:
    """A guess at what was meant, for people."""
    close = difflib.get_close_matches(name, OPERATIONS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _operation_type(envelope: Envelope) -> type[Operation[Any]]:
    operation = OPERATIONS.get(envelope.type)
    if operation is None:
        message = f"$.type: there is no operation {envelope.type!r}{_meant(envelope.type)}"
        raise UnknownOperation(message, details={"known": sorted(OPERATIONS)})
    return operation
