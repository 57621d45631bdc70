"""Bytes to bytes: a body becomes a request, its handler runs, and whatever goes wrong becomes a reply.

    receive() ──▶ Request ──▶ decode() ──▶ Dispatcher.execute_commands, answer_queries, … ──▶ success() or failure()

Never touches a socket or a thread, so that tests, fuzzers and benchmarks run it as it is. Every request passes `_answer`,
which holds the one `try` around handlers.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from msgspec import Raw, to_builtins

from backscroll.bus.logging import log
from backscroll.bus.stores import Scopes, Store
from backscroll.handlers import HANDLERS, Cached, Handlers
from backscroll.handlers.chores import commands_due, remove_unused
from backscroll.handlers.command_log import Executed, find_executed
from backscroll.handlers.execute import execute
from backscroll.handlers.storage import Reads, Status, Writes
from backscroll.schema.errors import BackscrollError, DeadlineExceeded, Internal, Malformed, TooLarge, Unavailable
from backscroll.schema.limits import BODY_BYTES_MAX, LOG_BODY_BYTES_MAX, REPLY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Builtin, Command, Maintenance, Operation
from backscroll.schema.operations.decoding import decode_as, operation_type
from backscroll.schema.salvage import read_id
from backscroll.schema.ulid import UlidGenerator
from backscroll.schema.wire import Codec, Envelope, Success, codec_of, read_envelope, read_type, salvage, write_failure


class Refused(Exception):
    """A body that is not a valid request; `reply` says why."""

    def __init__(self, reply: bytes, error: BackscrollError) -> None:
        super().__init__(error.message)
        self.reply = reply


class Request:
    """A request whose envelope is valid and names an operation, and the way its reply goes back.

    `operation` is None until `decode()`: a command's payload may be as large as a history, so its writer decodes it, and
    not the loop that everybody needs. `reply` is set once it is answered.
    """

    __slots__ = (
        "as_type",
        "codec",
        "deadline",
        "id",
        "is_builtin",
        "is_command",
        "is_maintenance",
        "kind",
        "operation",
        "payload",
        "reply",
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
        self.is_builtin = issubclass(as_type, Builtin)
        self.is_maintenance = issubclass(as_type, Maintenance)
        self.is_command = self.is_maintenance or issubclass(as_type, Command)  # goes to a writer
        # What the requests of one run have in common: whether commands, of which scope, how many queries at most.
        self.kind = (self.is_command, self.scope, getattr(as_type, "run_max", 0))
        self.payload = envelope.payload
        self.operation: Any = None
        self.reply = b""

    def decode(self) -> None:
        """Decode and check the payload; raises `Invalid`, `TooLarge` or `Malformed`."""
        self.operation = decode_as(self.as_type, self.payload, self.codec)
        self.payload = Raw()  # the body need not stay in memory

    def success(self, result: Any, seq: int) -> bytes:
        """The reply to a request that was executed."""
        return self.codec.encode(Success(self.id, True, result, seq))

    def failure(self, error: BackscrollError) -> bytes:
        """The reply to a request that had no effect."""
        return write_failure(self.id, error, self.codec)


def receive(body: bytes, route: Sequence[bytes], now: float) -> Request:
    """The request in a body, a query with its payload decoded; raises `Refused` with the reply where there is none.

    `now` is when it arrived, in seconds of a clock that never goes back.
    """
    codec = codec_of(body)
    envelope: Envelope | None = None
    try:
        if not 0 < len(body) <= BODY_BYTES_MAX:
            _check_size(body, codec)
        envelope = read_envelope(body, codec)
        request = Request(envelope, operation_type(envelope.type), codec, len(body), route, now)
        if not request.is_command:
            request.decode()
    except Exception as problem:  # noqa: BLE001  # whatever it is, the caller gets a reply
        raise _refused(body, codec, envelope, problem) from None
    return request


Work = Callable[[Request], bytes]
"""Does what a request asks for; its reply."""


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
        self._new_id = UlidGenerator()  # for commands of the daemon's own
        self._ending = False

    def receive(self, body: bytes, route: Sequence[bytes] = ()) -> Request:
        """The request in a body; raises `Refused` with the reply where there is none."""
        return receive(body, route, self._clock())

    def execute_commands(self, batch: Sequence[Request]) -> list[bytes]:
        """Execute commands of one scope in one durable transaction; one that fails takes none of the others with it.

        A command that took effect before is answered as it was then, and does nothing.
        """
        decoded = [request for request in batch if self._decode(request)]  # the others have their replies now
        if decoded:
            try:
                with self._scopes.use(decoded[0].scope) as store:
                    store.transact(partial(self._execute_each, decoded))
            except Exception as error:  # noqa: BLE001  # nothing of the transaction is durable: every caller is told
                for request in decoded:
                    request.reply = self.refuse(request, error)
        return [request.reply for request in batch]

    def answer_queries(self, run: Sequence[Request]) -> list[bytes]:
        """Answer queries of one scope, all from one snapshot."""
        try:
            with self._scopes.use(run[0].scope) as store, store.read() as snapshot:
                work = partial(self._answer_query, store, snapshot)
                for request in run:
                    request.reply = self._answer(request, work)
        except Exception as error:  # noqa: BLE001  # the snapshot itself failed: every caller is told
            for request in run:
                request.reply = self.refuse(request, error)
        return [request.reply for request in run]

    def cached_reply(self, request: Request) -> bytes | None:
        """The reply to a query whose result is cached and still correct: it costs less than giving it to a reader."""
        cached = self._handlers[request.as_type.wire_name].cached
        if cached is Cached.NOT or (request.deadline is not None and self._clock() >= request.deadline):
            return None
        store = self._scopes.store_in_use(request.scope)
        if store is None:
            return None
        seq = store.seq
        if seq < store.seq_shown:  # somebody has seen a later commit: nobody sees an earlier one after that
            return None
        encoded = store.query_cache.get(request.operation, request.codec, seq, cached)
        return None if encoded is None else self._answer(request, lambda _: _success(request, Raw(encoded), seq))

    def answer_builtin(self, request: Request) -> bytes:
        """Answer a query that needs no database."""
        return self._answer(request, partial(self._answer_other, self._status))

    def execute_maintenance(self, request: Request) -> bytes:
        """Execute what is about a whole scope, while nothing else is being written there."""
        if self._decode(request):
            scope = self._scopes.admin(request.scope, self._handlers)
            request.reply = self._answer(request, partial(self._answer_other, scope))
        return request.reply

    def run_chores(self, scope: str) -> None:
        """Remove what nobody needs any more from a scope, if it is open."""
        try:
            with self._scopes.borrow_if_open(scope) as store:
                if store is not None:
                    self._run_chores(scope, store)
        except Exception as error:  # noqa: BLE001  # it is tried again at the next turn
            log.error("chores failed", scope=scope, error=str(error))

    def checkpoint(self, scope: str) -> None:
        """Do the upkeep that is due after a commit; from the thread that writes the scope."""
        store = self._scopes.store_in_use(scope)
        if store is None or not store.checkpoint_due:
            return
        with self._scopes.borrow_if_open(scope) as store:
            if store is not None:
                store.checkpoint_if_due()

    def end_queries(self) -> None:
        """Begin no more queries: those that are left are answered `unavailable`."""
        self._ending = True

    def answer(self, body: bytes) -> bytes:
        """Answer one body from beginning to end."""
        try:
            request = self.receive(body)
        except Refused as refused:
            return refused.reply
        if request.is_builtin:
            return self.answer_builtin(request)
        if request.is_maintenance:
            return self.execute_maintenance(request)
        return (self.execute_commands if request.is_command else self.answer_queries)([request])[0]

    def refuse(self, request: Request, error: Exception) -> bytes:
        """The failure reply for an error; a fault of the daemon's is logged as an error."""
        wire_error = self._wire_error(error)
        about = {"operation": request.as_type.wire_name, "id": request.id, "outcome": wire_error.code}
        if isinstance(wire_error, Internal):
            log.error("request failed", **about, traceparent=request.traceparent, exc_info=error)
        elif wire_error is not error:
            log.error("request failed", **about, traceparent=request.traceparent, cause=str(error))
        else:
            log.debug("refused", **about, reason=wire_error.message)
        return request.failure(wire_error)

    def _decode(self, request: Request) -> bool:
        """Decode a command's payload; false where it is refused. Nothing is opened or begun for an invalid one."""
        try:
            request.decode()
        except Exception as problem:  # noqa: BLE001  # whatever it is, the caller gets a reply
            request.reply = self.refuse(request, problem)
            return False
        return True

    def _execute_each(self, batch: Sequence[Request], db: Writes) -> None:
        work = partial(self._execute_command, db)
        for request in batch:
            request.reply = self._answer(request, work)

    def _answer(self, request: Request, work: Work) -> bytes:
        """Do the work of a request, and turn what goes wrong into its reply."""
        started, outcome = self._clock(), "ok"
        try:
            reply = work(request)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets a reply
            outcome = self._wire_error(error).code
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

    def _execute_command(self, db: Writes, request: Request) -> bytes:
        executed = find_executed(request.operation, request.id, db)
        if executed is not None:
            return _success(request, executed.result, executed.seq)
        if request.deadline is not None:
            self._check_deadline(request.deadline)
        return execute(request.operation, request.id, db, self._handlers, partial(_success_of, request))

    def _answer_query(self, store: Store, snapshot: Reads, request: Request) -> bytes:
        if request.deadline is not None:
            self._check_deadline(request.deadline)
        if self._ending:
            raise Unavailable("the daemon is stopping", retryable=True)
        seq = snapshot.position.seq
        query, codec = request.operation, request.codec
        function, cached = self._handlers[query.wire_name]
        if cached is Cached.NOT:
            return _success(request, function(query, snapshot), seq)
        encoded = store.query_cache.get(query, codec, seq, cached)
        if encoded is None:
            encoded = codec.encode(function(query, snapshot))
            store.query_cache.put(query, codec, seq, cached, encoded)
        return _success(request, Raw(encoded), seq)

    def _answer_other(self, context: Any, request: Request) -> bytes:
        """Answer what is about the daemon or a whole scope."""
        if request.deadline is not None:
            self._check_deadline(request.deadline)
        result = self._handlers[request.as_type.wire_name].function(request.operation, context)
        return _success(request, result, self._scopes.seq(request.scope))

    def _run_chores(self, scope: str, store: Store) -> None:
        with store.write() as db:
            removed = {what: count for what, count in remove_unused(db).items() if count}
            for command in commands_due(db):
                removed[command.wire_name] = execute(command, self._new_id(), db, self._handlers, attrgetter("result"))
        if removed:
            log.info("chores done", scope=scope, **removed)

    def _check_deadline(self, deadline: float) -> None:
        if self._clock() >= deadline:
            raise DeadlineExceeded("not started before the caller's deadline", retryable=True)

    def _wire_error(self, error: Exception) -> BackscrollError:
        """The error that a caller receives: theirs as it is, the storage's explained, anything else a bug of ours."""
        if isinstance(error, BackscrollError):
            return error
        explained = self._scopes.wire_error(error)
        return explained or Internal("the daemon failed to execute this: a bug; its log says more")


def _success_of(request: Request, executed: Executed) -> bytes:
    """The reply to a command, its result as plain values: its stored result, sent again, must have the same bytes."""
    return _success(request, to_builtins(executed.result, builtin_types=(bytes,)), executed.seq)


def _success(request: Request, result: Any, seq: int) -> bytes:
    reply = request.success(result, seq)
    if len(reply) > REPLY_BYTES_MAX:
        raise TooLarge(f"the reply has {len(reply)} bytes; the limit is {REPLY_BYTES_MAX}: ask for fewer items")
    return reply


def _refused(body: bytes, codec: Codec, envelope: Envelope | None, problem: Exception) -> Refused:
    """The refusal of a body, with the id that it has, however broken the rest is."""
    error = problem if isinstance(problem, BackscrollError) else Internal("the request cannot be decoded: a bug")
    request_id = envelope.id if envelope is not None else read_id(body, codec)
    if isinstance(error, Internal):
        log.error("request cannot be decoded", id=request_id, exc_info=problem)
    elif isinstance(error, Malformed) and envelope is None:
        salvaged = salvage(body, codec)
        request_id, error = salvaged.id, salvaged.error or error
    log.debug("refused", id=request_id, outcome=error.code, reason=error.message)
    return Refused(write_failure(request_id, error, codec), error)


def _check_size(body: bytes, codec: Codec) -> None:
    """Raise `TooLarge` for a body over its limit, `Malformed` for none; a piece of a log may be larger than others."""
    if not body:
        raise Malformed.at("$", "the body is empty")
    operation = OPERATIONS.get(read_type(body, codec) or "") if len(body) <= LOG_BODY_BYTES_MAX else None
    bytes_max = operation.body_bytes_max if operation else BODY_BYTES_MAX
    if len(body) > bytes_max:
        raise TooLarge.at("$", f"the body has {len(body)} bytes; the limit is {bytes_max}")
