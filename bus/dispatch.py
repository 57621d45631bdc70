"""Requests to replies: run the handler of each, and turn whatever goes wrong into a reply.

Never touches a socket or a thread, so that tests, fuzzers and benchmarks run it as it is. A request comes here from
`requests.receive()`; every one passes `_answer`, which holds the one `try` around handlers.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from msgspec import Raw, to_builtins

from backscroll.bus import requests
from backscroll.bus.logging import log
from backscroll.bus.requests import Refused, Request
from backscroll.bus.stores import Scopes, Store
from backscroll.handlers import HANDLERS, Cached, Handlers
from backscroll.handlers.chores import commands_due, remove_unused
from backscroll.handlers.execute import Executed, execute, find_stored
from backscroll.handlers.storage import Reads, Status, Writes
from backscroll.schema.errors import BackscrollError, DeadlineExceeded, Internal, TooLarge, Unavailable
from backscroll.schema.limits import REPLY_BYTES_MAX
from backscroll.schema.ulid import UlidGenerator

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
        return requests.receive(body, route, self._clock())

    def execute_commands(self, batch: Sequence[Request]) -> list[bytes]:
        """Execute commands of one scope in one durable transaction; one that fails takes none of the others with it.

        A command that took effect before is answered as it was then, and does nothing.
        """
        decoded = [request for request in batch if self._decode(request)]  # the others have their replies now
        if decoded:
            try:
                with self._scopes.use(decoded[0].scope) as store:
                    store.transact(lambda db: self._answer_each(decoded, partial(self._execute_command, db)))
            except Exception as error:  # noqa: BLE001  # nothing of the transaction is durable: every caller is told
                for request in decoded:
                    request.reply = self.refuse(request, error)
        return [request.reply for request in batch]

    def answer_queries(self, run: Sequence[Request]) -> list[bytes]:
        """Answer queries of one scope, all from one snapshot."""
        try:
            with self._scopes.use(run[0].scope) as store, store.read() as snapshot:
                self._answer_each(run, partial(self._answer_query, store, snapshot))
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

    def _answer_each(self, run: Sequence[Request], work: Work) -> None:
        for request in run:
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
        stored = find_stored(request.operation, request.id, db)
        if stored is not None:
            return _success(request, stored.result, stored.seq)
        self._check_deadline(request)
        return execute(request.operation, request.id, db, self._handlers, partial(_success_of, request))

    def _answer_query(self, store: Store, snapshot: Reads, request: Request) -> bytes:
        self._check_deadline(request)
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
        self._check_deadline(request)
        result = self._handlers[request.as_type.wire_name].function(request.operation, context)
        return _success(request, result, self._scopes.seq(request.scope))

    def _run_chores(self, scope: str, store: Store) -> None:
        with store.write() as db:
            removed = {what: count for what, count in remove_unused(db).items() if count}
            for command in commands_due(db):
                removed[command.wire_name] = execute(command, self._new_id(), db, self._handlers, attrgetter("result"))
        if removed:
            log.info("chores done", scope=scope, **removed)

    def _check_deadline(self, request: Request) -> None:
        if request.deadline is not None and self._clock() >= request.deadline:
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
