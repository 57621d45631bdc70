"""Bytes to bytes: read a request, pick its handler, run it, and turn whatever goes wrong into a reply.

Never touches a socket or a thread, so that tests, fuzzers and benchmarks run it as it is. Every command and every
query of the daemon passes `_carry_out`, which holds the one `try` around handlers.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Raw, to_builtins

from backscroll.bus.failures import as_wire_error
from backscroll.bus.logging import log
from backscroll.bus.sqlite.scope_admin import SqliteScopeAdmin
from backscroll.bus.sqlite.scopes import Scopes
from backscroll.bus.sqlite.store import Store
from backscroll.bus.sqlite.transaction import SavepointNeeded, Transaction, TransactionRolledBack
from backscroll.handlers import HANDLERS, Handlers, command_log
from backscroll.handlers.chores import commands_due, tidy
from backscroll.handlers.storage import Status
from backscroll.schema.errors import (
    BackscrollError,
    DeadlineExceeded,
    Internal,
    TooLarge,
    Unavailable,
)
from backscroll.schema.limits import BODY_BYTES_MAX, LOG_BODY_BYTES_MAX, REPLY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Builtin, Command, Maintenance, Operation
from backscroll.schema.operations.decoding import operation_type, read_operation
from backscroll.schema.ulid import UlidGenerator
from backscroll.schema.wire import (
    Codec,
    Envelope,
    Success,
    codec_of,
    read_envelope,
    salvage_id,
    salvage_type,
    write_failure,
)


class Request:
    """A request whose envelope is valid and names an operation, and the way its reply goes back.

    A command's payload may be as large as a history, so its writer decodes it, and not the loop that everybody needs.
    """

    __slots__ = (
        "_operation",
        "_payload",
        "as_type",
        "codec",
        "deadline",
        "id",
        "is_command",
        "kind",
        "route",
        "scope",
        "size",
        "traceparent",
    )

    def __init__(
        self,
        envelope: Envelope,
        as_type: type[Operation[Any]],
        codec: Codec,
        size: int,
        route: Sequence[bytes],
        now: float,
    ) -> None:
        self.id = envelope.id
        self.scope = envelope.scope
        self.as_type = as_type
        self.codec = codec
        self.size = size
        self.route = route
        self.deadline = None if envelope.deadline_ms is None else now + envelope.deadline_ms / 1000
        self.traceparent = envelope.traceparent
        self.is_command = issubclass(as_type, Command | Maintenance)  # goes to a writer
        # What the requests of one run have in common: whether commands, of which scope, how many queries at most.
        self.kind = (self.is_command, self.scope, getattr(as_type, "run_max", 0))
        self._payload = envelope.payload
        self._operation: Operation[Any] | None = None

    def read(self) -> Any:
        """The operation, decoded and checked once; raises `Invalid`, `TooLarge` or `Malformed`."""
        if self._operation is None:
            self._operation = read_operation(self.as_type.wire_name, self._payload, self.codec)
            self._payload = Raw()  # the body need not be kept any longer
        return self._operation

    @property
    def is_maintenance(self) -> bool:
        return issubclass(self.as_type, Maintenance)

    @property
    def is_builtin(self) -> bool:
        return issubclass(self.as_type, Builtin)


class Refused(Exception):
    """A body that is no valid request; `reply` says why."""

    def __init__(self, reply: bytes, error: BackscrollError) -> None:
        super().__init__(error.message)
        self.reply = reply


class Dispatcher:
    """QueryCache requests from the scopes they name. `clock` gives seconds that never go back, for deadlines."""

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
        self._new_id = UlidGenerator()  # for commands of the daemon's own
        self._ending = False

    def decode(self, body: bytes, route: Sequence[bytes] = ()) -> Request:
        """The request in a body, a query with its payload; raises `Refused` with the reply where there is none."""
        codec = codec_of(body)
        request_id = None
        try:
            if len(body) > BODY_BYTES_MAX:
                _check_large(body, codec)
            envelope = read_envelope(body, codec)
            request_id = envelope.id
            request = Request(envelope, operation_type(envelope.type), codec, len(body), route, self._clock())
            if not request.is_command:
                request.read()
        except Exception as problem:  # noqa: BLE001  # whatever it is, the caller gets a reply
            error = as_wire_error(problem)
            if request_id is None and len(body) <= BODY_BYTES_MAX:
                request_id = salvage_id(body, codec)
            if isinstance(error, Internal):
                log.error("a request cannot be decoded", id=request_id, exc_info=problem)
            log.debug("refused", id=request_id, outcome=error.code, reason=error.message)
            raise Refused(write_failure(request_id, error, codec), error) from None
        return request

    def builtin(self, request: Request) -> bytes:
        """Answer a query that needs no database."""
        return self._carry_out(request, partial(self._look_at, self._status))

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Answer queries of one scope, all from one snapshot."""
        try:
            with self._scopes.use(requests[0].scope) as store, store.read() as snapshot:
                ask = partial(self._ask, store, snapshot)
                return [self._carry_out(request, ask) for request in requests]
        except Exception as error:  # noqa: BLE001  # the snapshot itself failed: every caller is told
            return [self.refuse(request, error) for request in requests]

    def cached_reply(self, request: Request) -> bytes | None:
        """The reply to a query whose answer is kept and still right: it costs less than giving it to a reader."""
        query = request.read()
        if not query.KEPT or (request.deadline is not None and self._clock() >= request.deadline):
            return None
        store = self._scopes.store_in_use(request.scope)
        if store is None:
            return None
        seq = store.seq
        if seq < store.seq_shown:  # somebody has seen a later commit: nobody sees an earlier one after that
            return None
        encoded = store.answers.get(query, request.codec, seq)
        return None if encoded is None else self._carry_out(request, lambda _: _success(request, Raw(encoded), seq))

    def end_queries(self) -> None:
        """Begin no more queries: those that are left are answered `unavailable`."""
        self._ending = True

    def commit(self, requests: Sequence[Request]) -> list[bytes]:
        """Carry out commands of one scope in one durable transaction; one that fails takes none of the others along.

        One that took effect before is answered as it was then, and nothing is done.
        """
        refusals = [self._refusal(request) for request in requests]
        readable = [request for request, refusal in zip(requests, refusals, strict=True) if refusal is None]
        replies = iter(self._commit_readable(readable) if readable else [])
        return [next(replies) if refusal is None else refusal for refusal in refusals]

    def maintain(self, request: Request) -> bytes:
        """Carry out what is about a whole scope, while nothing else is being written there."""
        try:
            return self._carry_out(request, partial(self._look_at, SqliteScopeAdmin(self._scopes, request.scope)))
        except TransactionRolledBack as error:  # nothing of it is durable
            return self.refuse(request, error)

    def tidy(self, scope: str) -> None:
        """Remove what nobody needs any more from a scope, if it is open."""
        try:
            with self._scopes.borrow_if_open(scope) as store:
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
        if isinstance(error, TransactionRolledBack) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        wire_error = as_wire_error(error)
        about = {"operation": request.as_type.wire_name, "id": request.id, "outcome": wire_error.code}
        if isinstance(wire_error, Internal):
            log.error("request failed", **about, traceparent=request.traceparent, exc_info=error)
        elif wire_error is not error:
            log.error("request failed", **about, traceparent=request.traceparent, cause=str(error))
        else:
            log.debug("refused", **about, reason=wire_error.message)
        return write_failure(request.id, wire_error, request.codec)

    def _refusal(self, request: Request) -> bytes | None:
        """The reply to a command that is no valid one: nothing is opened or begun for it."""
        try:
            request.read()
        except Exception as problem:  # noqa: BLE001  # whatever it is, the caller gets a reply
            return self.refuse(request, problem)
        return None

    def _commit_readable(self, requests: Sequence[Request]) -> list[bytes]:
        try:
            try:
                return self._commit(requests, savepoints=False)
            except SavepointNeeded:  # rare enough for the others to go without savepoints, which cost as much as a row
                return self._commit(requests, savepoints=True)
        except Exception as error:  # noqa: BLE001  # nothing of the batch is durable: every caller is told
            return [self.refuse(request, error) for request in requests]

    def _commit(self, requests: Sequence[Request], *, savepoints: bool) -> list[bytes]:
        with self._scopes.use(requests[0].scope) as store, store.write(savepoints=savepoints) as transaction:
            execute = partial(self._execute, transaction)
            return [self._carry_out(request, execute) for request in requests]

    def _tidy(self, scope: str, store: Store) -> None:
        with store.write() as transaction:
            removed = {what: count for what, count in tidy(transaction).items() if count}
            for command in commands_due(transaction):
                with transaction.command(self._new_id()):
                    removed[command.wire_name] = result = self._handlers[type(command)](command, transaction)
                    command_log.append(command, result, transaction)
        if removed:
            log.info("tidied", scope=scope, **removed)

    def _execute(self, transaction: Transaction, request: Request) -> bytes:
        command = request.read()
        done = command_log.find(request.id, transaction)
        if done is not None:
            return _success(request, command_log.repeat(command, request.id, done, transaction), done.seq)
        self._check_deadline(request)
        with transaction.command(request.id) as entry:
            result = self._handlers[type(command)](command, transaction)
            command_log.append(command, result, transaction)
            # As plain values, which is how `repeat` gives it: a record's own MessagePack would have other bytes.
            return _success(request, to_builtins(result, builtin_types=(bytes,)), entry.seq)

    def _ask(self, store: Store, snapshot: Transaction, request: Request) -> bytes:
        self._check_deadline(request)
        if self._ending:
            raise Unavailable("the daemon is stopping", retryable=True)
        query = request.read()
        seq = snapshot.position.seq
        if not query.KEPT:
            return _success(request, self._handlers[type(query)](query, snapshot), seq)
        encoded = store.answers.get(query, request.codec, seq)
        if encoded is None:
            encoded = request.codec.encode(self._handlers[type(query)](query, snapshot))
            store.answers.put(query, request.codec, seq, encoded)
        return _success(request, Raw(encoded), seq)

    def _look_at(self, context: Any, request: Request) -> bytes:
        """Answer what is about the daemon or a whole scope."""
        self._check_deadline(request)
        result = self._handlers[request.as_type](request.read(), context)
        return _success(request, result, self._scopes.seq(request.scope))

    def _check_deadline(self, request: Request) -> None:
        if request.deadline is not None and self._clock() >= request.deadline:
            raise DeadlineExceeded("the caller's deadline had passed before this was started")

    def _carry_out(self, request: Request, work: Callable[[Request], bytes]) -> bytes:
        """Do the work of a request, and turn what goes wrong into its reply."""
        started, outcome = self._clock(), "ok"
        try:
            reply = work(request)
        except (TransactionRolledBack, SavepointNeeded):
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets a reply
            outcome = as_wire_error(error).code
            reply = self.refuse(request, error)
        if log.debugging:  # a line that is not written costs more than some requests do
            log.debug(
                "request",
                operation=request.as_type.wire_name,
                id=request.id,
                outcome=outcome,
                ms=round((self._clock() - started) * 1000, 3),
                traceparent=request.traceparent,
            )
        return reply


def _check_large(body: bytes, codec: Codec) -> None:
    """Raise `TooLarge` for a body over the limit, unless it is a piece of a log, which may be larger."""
    operation = OPERATIONS.get(salvage_type(body, codec) or "") if len(body) <= LOG_BODY_BYTES_MAX else None
    bytes_max = operation.body_bytes_max if operation else BODY_BYTES_MAX
    if len(body) > bytes_max:
        raise TooLarge.at("$", f"a body of {len(body)} bytes, at most {bytes_max} are taken")


def _success(request: Request, result: Any, seq: int) -> bytes:
    reply = request.codec.encode(Success(request.id, True, result, seq))
    if len(reply) > REPLY_BYTES_MAX:
        raise TooLarge(f"the reply would have {len(reply)} bytes, at most {REPLY_BYTES_MAX} are sent: ask for less")
    return reply
