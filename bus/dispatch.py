"""From the bytes of a request to the bytes of its reply: decode it, run its handler, turn errors into replies.

    receive() ──▶ Request ──▶ decode() ──▶ Dispatcher.answer_commands, answer_queries, … ──▶ success() or failure()

Uses neither sockets nor threads, so tests, fuzzers and benchmarks can run it directly. Every request goes through
`_answer`, which has the only `try` around handlers.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn, TypeVar

from msgspec import Raw, to_builtins

from backscroll.bus.due_times import DueTimes
from backscroll.bus.logging import log
from backscroll.bus.reply_memory import TurnNeeded
from backscroll.bus.stores import LARGE_BYTES, BeforeLarge, ReadStore, Scopes, Store
from backscroll.handlers import HANDLERS, Cached, Handlers, clearing
from backscroll.handlers.chores import COMMANDS_DUE, REMOVALS, expired_messages, next_expiry
from backscroll.handlers.clients import superseded
from backscroll.handlers.command_log import Executed, find_executed
from backscroll.handlers.execute import execute, failures_of
from backscroll.handlers.feed import empty_page, is_nothing_new
from backscroll.handlers.lists import Items
from backscroll.handlers.storage import Reads, Status, Writes
from backscroll.schema.command_log import Sender
from backscroll.schema.errors import (
    BackscrollError,
    Busy,
    CallerError,
    DeadlineExceeded,
    Internal,
    Invalid,
    Malformed,
    TooLarge,
    Unavailable,
)
from backscroll.schema.limits import BODY_BYTES_MAX, REPLY_BYTES_MAX
from backscroll.schema.operations import (
    OPERATIONS,
    Administration,
    Batch,
    Builtin,
    Command,
    Maintenance,
    Operation,
    WaitingQuery,
)
from backscroll.schema.operations.batch import adds, refusal
from backscroll.schema.operations.decoding import decode_as, decode_flawed, operation_type
from backscroll.schema.replies import DeletedMessages
from backscroll.schema.salvage import mend_batch, read_id
from backscroll.schema.ulid import UlidGenerator
from backscroll.schema.wire import JSON, Codec, Envelope, Success, codec_of, read_envelope, read_type, write_failure

T = TypeVar("T")

ENVELOPE_BYTES_MAX = 1024
"""What a reply has besides its result, at most."""
REMOVAL_SECONDS = 0.01  # for a step of the removal of a cleared room's messages, which commands wait for
REMOVED_MIN, REMOVED_MAX = 1, 1_000  # messages in such a step, or more that one command saved
EXPIRY_RETRY_MS = 60_000
"""How long expired messages stay when they cannot be deleted: the clock has jumped, or the disk refuses."""
CLEARING_RETRY_SECONDS = 60.0
"""How long messages of cleared rooms stay that cannot be removed because of damage."""
RUN_SECONDS = 0.025
RUN_REPLY_BYTES = 4 * 2**20
SHARED_SECONDS = 0.1
"""After which a transaction takes no more commands, in a scope whose lock other daemons wait for."""
NEXT_PAGES = (
    "and for the next page with `after`: what the list is ordered by, as it is in the last item. Ask on until a page is"
    " empty; a short one is not the last"
)


class Refused(Exception):
    """A body is not a valid request; `reply` is the failure reply to send, which has an id if `has_id`."""

    def __init__(self, reply: bytes, error: BackscrollError, *, has_id: bool) -> None:
        super().__init__(error.message)
        self.reply = reply
        self.has_id = has_id


class Request:
    """A request with a valid envelope and a known operation. `route` are the frames to send before its reply.

    `operation` is None until `decode()`: a command's payload may be large, so it is decoded by its writer, not by the
    loop, which all clients share. `principal` is the name of the caller's token; `sender` is the client that sends the
    request, if it says so. `reply` is set when the request has been answered. `flaws` are the errors of those commands
    of a batch that cannot be decoded; `operation` is then the batch without them, which must not be executed.
    """

    __slots__ = (
        "as_type",
        "codec",
        "deadline",
        "flaws",
        "id",
        "is_builtin",
        "is_command",
        "is_maintenance",
        "kind",
        "operation",
        "payload",
        "principal",
        "reply",
        "route",
        "scope",
        "sender",
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
        principal: str | None = None,
    ) -> None:
        self.id = envelope.id
        self.principal = principal
        client, n = envelope.client, envelope.n
        self.sender = None if client is None or n is None else Sender(client, n)
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
        # Equal for all requests of a run: whether they are commands, their scope, and how many queries a run may have.
        self.kind = (self.is_command, self.scope, getattr(as_type, "run_max", 0))
        self.payload = envelope.payload
        self.operation: Any = None
        self.flaws: dict[int, CallerError] | None = None
        self.reply = b""

    def decode(self) -> None:
        """Decode and check the payload; raises `Invalid`, `TooLarge` or `Malformed`.

        Of a batch that is refused because of its commands, all flaws are found before its error is raised.
        """
        if self.flaws is None:
            try:
                self.operation = decode_as(self.as_type, self.payload, self.codec)
            except CallerError:
                if self.as_type is not Batch:
                    raise
                self.flaws = {}
        if self.flaws is not None:
            self.operation, self.flaws = decode_flawed(self.payload, self.codec, self.flaws)
        self.payload = Raw()  # frees the body
        if self.flaws:
            raise refusal(self.flaws)

    def success(self, result: Any, seq: int) -> bytes:
        """The reply to a request that was executed."""
        return self.codec.encode(Success(self.id, True, result, seq))

    def failure(self, error: BackscrollError) -> bytes:
        """The reply to a request that had no effect."""
        return write_failure(self.id, error, self.codec)


class Seen(NamedTuple):
    """Until where there is nothing new for a query: the seq and the cursor, and in which store, if that was open."""

    seq: int
    cursor: str
    store: Store | None


class WaitingRequest(Request):
    """A request with a query that can wait.

    Of its last answer: what it has seen, if there was `nothing_new`; else the encoded `result` and its seq; and the
    `seconds` of a processor that it took. `is_parked`: it waits, and is not in a lane any more.
    """

    wait_ms = 0
    nothing_new: Seen | None = None
    result: tuple[bytes, int] | None = None
    seconds = 0.0
    is_parked = False
    credential: object = None  # what its caller was admitted with

    def decode(self) -> None:
        super().decode()
        self.wait_ms = self.operation.wait_ms

    @property
    def may_wait(self) -> bool:
        """Whether it is to wait instead of getting its reply."""
        return self.wait_ms > 0 and self.nothing_new is not None


Admit = Callable[[str | None, type[Operation[Any]], str], str | None]
"""The name of the caller, given a request's token, operation and scope; raises if the caller may not do that."""


def receive(body: bytes, route: Sequence[bytes], now: float, admit: Admit | None = None) -> Request:
    """The request in a body; if it is a query, its payload is decoded. Raises `Refused` if it is not valid.

    `now` is the time of its arrival, in seconds of a monotonic clock. Without `admit`, the caller may do everything.
    """
    codec = codec_of(body)
    envelope: Envelope | None = None
    try:
        if not 0 < len(body) <= BODY_BYTES_MAX:
            _check_size(body, codec)
        envelope = read_envelope(body, codec)
        as_type = operation_type(envelope.type)
        principal = admit(envelope.auth, as_type, envelope.scope) if admit else None
        kind = WaitingRequest if issubclass(as_type, WaitingQuery) else Request
        request = kind(envelope, as_type, codec, len(body), route, now, principal)
        if not request.is_command:
            request.decode()
    except Exception as problem:  # noqa: BLE001  # any error becomes a reply
        if codec is JSON and envelope is None and isinstance(problem, Invalid):
            flawed = _receive_flawed_batch(body, route, now, admit)
            if flawed is not None:
                return flawed
        raise _refused(body, codec, envelope, problem) from None
    return request


def _receive_flawed_batch(body: bytes, route: Sequence[bytes], now: float, admit: Admit | None) -> "Request | None":
    """A batch some of whose commands have text that cannot be decoded, to find what else is wrong; else None."""
    mended = mend_batch(body)
    if mended is None:
        return None
    try:
        request = receive(mended.body, route, now, admit)
    except Refused:
        return None
    if request.as_type is not Batch:
        return None
    request.flaws = mended.flaws
    return request


Work = Callable[[Request], bytes]
"""Executes a request and returns its reply."""


class Dispatcher:
    """Answers requests from the scopes they name.

    `clock` is a monotonic clock in seconds, for deadlines; a query that takes longer than `query_ms` is interrupted.
    `trusts_time` says whether the chores may remove what is over at a time of the wall clock (ms).
    """

    def __init__(
        self,
        scopes: Scopes,
        status: Status,
        handlers: Handlers = HANDLERS,
        clock: Callable[[], float] = time.monotonic,
        trusts_time: Callable[[int], bool] = lambda _now_ms: True,
        query_ms: int | None = None,
    ) -> None:
        self._scopes = scopes
        self._status = status
        self._handlers = handlers
        self._clock = clock
        self._trusts_time = trusts_time
        self._query_ms = query_ms
        self._new_id = UlidGenerator()  # for the daemon's own commands
        self._ending = False
        self._removed_at_once = REMOVED_MIN
        self.due = DueTimes()

    def receive(self, body: bytes, route: Sequence[bytes] = ()) -> Request:
        """The request in a body; raises `Refused` if it is not valid."""
        return receive(body, route, self._clock())

    def answer_commands(self, batch: Sequence[Request]) -> list[bytes]:
        """Execute commands of one scope in one durable transaction; one that fails does not affect the others.

        A command that already took effect gets the same reply again and is not executed. If one needs what is damaged,
        those before it and those after it have transactions of their own. After `RUN_SECONDS` no more of these are
        begun, and where the scope is shared, no commands after `SHARED_SECONDS`: the replies are those to the first
        commands, at least one, and the others are to be given again.
        """
        until = self._clock() + RUN_SECONDS
        decoded = [request for request in batch if self._decode(request)]  # the others have been refused
        parts = [decoded] if decoded else []
        while parts:
            part, tried = parts.pop(), list[Request]()
            answered = batch.index(part[0])
            if answered and self._clock() >= until:
                return [request.reply for request in batch[:answered]]
            try:
                self._execute_all(part, tried)
                if len(tried) < len(part):  # others wait for the scope
                    return [request.reply for request in batch[: batch.index(part[len(tried)])]]
            except Exception as error:  # noqa: BLE001  # nothing was committed: all requests fail
                if self._scopes.is_unreadable(error):
                    parts += reversed(self._without_damaged(part, len(tried), error))
                else:
                    self._refuse_all(part, error)
        return [request.reply for request in batch]

    def answer_queries(self, run: Sequence[Request], before_large: BeforeLarge = lambda: None) -> list[bytes]:
        """Answer queries of one scope from one snapshot.

        `before_large` is called before a result becomes large; if it raises `TurnNeeded` for the first, so does this.
        The replies are those to the first queries: at least one, and no more after `RUN_SECONDS` or `RUN_REPLY_BYTES`,
        or after an error that ended the snapshot. So no client has a reader for long, and few replies are in memory.
        There are none if something has expired that `expire()` must delete first, which only the thread that writes to
        the scope may call.
        """
        until, size = self._clock() + RUN_SECONDS, 0
        replies: list[bytes] = []
        try:
            with self._scopes.use_to_read(run[0].scope) as store:
                due_before = store.due_at  # a deletion that the snapshot does not show may be committed meanwhile
                with store.read(self._query_ms, before_large) as snapshot:
                    due = [at for at in (due_before, store.due_at) if at is not None]
                    if due and self._expires_before(run, min(due), snapshot.now):
                        return []
                    work = partial(self._answer_query, store, snapshot, before_large)
                    for request in run:
                        replies.append(self._answer(request, work))
                        size += len(replies[-1])
                        if size >= RUN_REPLY_BYTES or self._clock() >= until or snapshot.has_ended:
                            break
        except TurnNeeded:
            if not replies:
                raise
        except Exception as error:  # noqa: BLE001  # there is no snapshot: all requests fail
            replies += [self.refuse(request, error) for request in run[len(replies) :]]
        return replies

    def cached_reply(self, request: Request) -> bytes | None:
        """The reply to a query whose result is cached and still correct, else None. Faster than using a reader."""
        cached = self._handlers[request.as_type.wire_name].cached
        if cached is Cached.NOT or (request.deadline is not None and self._clock() >= request.deadline):
            return None
        store = self._scopes.store_if_open(request.scope)
        if store is None or store.is_shared:
            return None
        if store.due_at is not None and store.due_at <= store.now():
            return None
        seq = store.seq
        if seq < store.seq_shown:  # a client may have seen a later commit, and must not see an earlier one now
            return None
        encoded = store.query_cache.get(request.operation, request.codec, seq, cached)
        return None if encoded is None else self._answer(request, lambda _: _success(request, Raw(encoded), seq))

    def answer_builtin(self, request: Request) -> bytes:
        """Answer a query that needs no database."""
        return self._answer(request, partial(self._answer_other, self._status))

    def answer_maintenance(self, request: Request) -> bytes:
        """Execute a maintenance operation. Nothing else may write to the scope meanwhile."""
        if self._decode(request):
            about_daemon = issubclass(request.as_type, Administration)
            context = self._status if about_daemon else self._scopes.admin(request.scope, self._handlers)
            request.reply = self._answer(request, partial(self._answer_maintenance, context))
        return request.reply

    def run_chores(self, scope: str) -> None:
        """Remove what is no longer needed from a scope, if it is open."""
        try:
            with self._scopes.borrow_if_open(scope) as store:
                if store is not None:
                    self._run_chores(scope, store)
        except Exception as error:  # noqa: BLE001  # the next run tries again
            log.error("chores failed", scope=scope, error=str(error))

    def expire(self, scope: str, *, awaited: bool = True) -> bool:
        """Delete messages that have expired in a scope, if it is open. Returns whether there are more.

        Call it from the thread that writes to the scope, and again while there are more. Where no query waits for it
        (`awaited`), it does nothing in a scope that follows a log, so that more of the log can follow.
        """
        try:
            with self._scopes.borrow_if_open(scope) as store:
                if store is None or (store.follows and not awaited):
                    return False
                return self._on_full_disk(scope, partial(self._expire, scope, store))
        except Exception as error:  # noqa: BLE001  # it is tried again later
            log.error("expired messages are not deleted", scope=scope, error=str(error))
            return False

    def is_clearing(self, scope: str) -> bool:
        """Whether there are cleared rooms in a scope from which not all messages are removed, if it is open."""
        store = self._scopes.store_if_open(scope, used=False)
        return store is not None and store.clearing and self._clock() >= store.clearing_retry_at

    def remove_cleared(self, scope: str) -> bool:
        """Remove some messages of rooms that were cleared in a scope, if it is open. Returns whether there are more.

        Call it from the thread that writes to the scope, and again while there are more.
        """
        if not self.is_clearing(scope):
            return False
        try:
            with self._scopes.borrow_if_open(scope) as store:
                if store is None:
                    return False
                self._on_full_disk(scope, partial(self._remove_cleared, scope, store))
                return self.is_clearing(scope)
        except Exception as error:  # noqa: BLE001  # it is tried again after the next commit, and by the chores
            log.error("messages of a cleared room are not removed", scope=scope, error=str(error))
            return False

    def checkpoint(self, scope: str) -> None:
        """Checkpoint a scope if that is due. Call it from the thread that writes to the scope."""
        store = self._scopes.store_if_open(scope, used=False)
        if store is None or not store.checkpoint_due:
            return
        with self._scopes.borrow_if_open(scope) as store:
            if store is not None:
                store.checkpoint_if_due()
        self._scopes.look_at_disk()

    def repeat(self, request: WaitingRequest, result: bytes, seq: int) -> bytes:
        """The reply to a query with the encoded result of an equal one. It fits: pages are smaller than replies."""
        return request.success(Raw(result), seq)

    def nothing_new(self, request: WaitingRequest, seq: int, cursor: str, more: bool) -> bytes:
        """The reply of an empty page; with `more` it is to be asked for again at once."""
        return request.success(empty_page(cursor, more=more), seq)

    def end_queries(self) -> None:
        """Start no more queries: those that remain are answered `unavailable`."""
        self._ending = True

    def answer(self, body: bytes) -> bytes:
        """Decode, execute and answer one body."""
        try:
            request = self.receive(body)
        except Refused as refused:
            return refused.reply
        if request.is_builtin:
            return self.answer_builtin(request)
        if request.is_maintenance:
            return self.answer_maintenance(request)
        if request.is_command:
            return self.answer_commands([request])[0]
        while not (replies := self.answer_queries([request])):
            self.expire(request.scope)
        return replies[0]

    def refuse(self, request: Request, error: Exception) -> bytes:
        """The failure reply for an error. Faults of the daemon are logged as errors."""
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
        """Decode a command's payload. If it is refused, set the reply and return False, before anything is opened.

        A batch with flaws in a scope that exists is the exception: its other commands are tried, to find all failures.
        """
        if request.operation is not None:  # it was given before
            return True
        try:
            request.decode()
        except Exception as problem:  # noqa: BLE001  # any error becomes a reply
            request.reply = self.refuse(request, problem)
            return bool(request.flaws) and self._scopes.has_files(request.scope)
        return True

    def _execute_all(self, requests: Sequence[Request], tried: list[Request]) -> None:
        """Execute requests in one transaction, at least the first. `tried` has those executed, also if it raises."""
        with self._scopes.use(requests[0].scope) as store:
            refused = self._refusal_of(requests) if self._scopes.may_refuse else None
            seconds = SHARED_SECONDS if store.is_shared else math.inf
            store.transact(partial(self._answer_each, requests, refused, seconds, tried))
            if store.due_at is not None:
                self.due.note(requests[0].scope, store.due_at)

    def _refusal_of(self, requests: Sequence[Request]) -> BackscrollError | None:
        """Why those of the requests are refused that add, if there is no room for them."""
        return self._scopes.refusal(requests[0].scope, sum(request.size for request in requests))

    def _expires_before(self, run: Sequence[Request], due_at: int, now: int) -> bool:
        """Whether something has expired that these queries must not show. Else it is noted when that will be.

        Admins see what is stored: so a log can be replayed, and the result compared, without commands of the daemon's.
        """
        if due_at > now:
            self.due.note(run[0].scope, due_at)
            return False
        return not self._ending and any(request.as_type.RIGHT != "admin" for request in run)

    def _on_full_disk(self, scope: str, work: Callable[[], T]) -> T:
        """The result of `work`, which only removes data; on a full disk it is repeated with the reserve given up."""
        try:
            return work()
        except Exception as error:
            if not self._scopes.is_disk_full(error):
                raise
            self._scopes.give_up_reserve(scope)
            return work()

    def _expire(self, scope: str, store: Store) -> bool:
        """Delete messages that have expired, at most as many as one command does. Returns whether there are more.

        If not, `due_at` is later than now at the end, so that queries go on even where nothing can be deleted now.
        """
        next_at: int | None = store.now() + EXPIRY_RETRY_MS
        seq = store.seq
        try:
            with store.write() as db:
                if not self._trusts_time(db.now):
                    return False
                deleted = self._delete_expired(db)
                next_at, seq = next_expiry(db), db.position.seq
        finally:
            store.note_expiry(next_at, seq)
            self.due.note(scope, next_at)
        if deleted:
            log.info("messages expired", scope=scope, deleted=deleted.deleted)
        return deleted is not None and deleted.has_more

    def _delete_expired(self, db: Writes) -> DeletedMessages | None:
        command = expired_messages(db)
        if command is None:
            return None
        executed: DeletedMessages = execute(command, self._new_id(), db, self._handlers, attrgetter("result"))
        return executed

    def _without_damaged(self, part: list[Request], tried: int, error: Exception) -> list[list[Request]]:
        """What to execute, each in a transaction, in place of requests of which one met damage; that one is refused.

        If it is not known which one, because the damage is in the rows of the log that are rewritten at the end of the
        transaction, both halves are tried. Nothing is executed more often than there are halves of halves.
        """
        if tried < len(part):
            self._refuse_all([part[tried]], error)
            parts = [part[:tried], part[tried + 1 :]]
        elif len(part) > 1:
            parts = [part[: len(part) // 2], part[len(part) // 2 :]]
        else:
            self._refuse_all(part, error)
            parts = []
        return [each for each in parts if each]

    def _refuse_all(self, requests: Sequence[Request], error: Exception) -> None:
        """Refuse requests; if the disk is full, execute those that only remove data, with the reserve given up."""
        valid = [request for request in requests if not request.flaws]  # the others have been refused
        for request in valid:
            request.reply = self.refuse(request, error)
        if not self._scopes.is_disk_full(error):
            return
        removing = [request for request in valid if not adds(request.operation)]
        if removing:
            self._scopes.give_up_reserve(requests[0].scope)
            try:
                self._execute_all(removing, [])
            except Exception as worse:  # noqa: BLE001  # nothing was committed
                for request in removing:
                    request.reply = self.refuse(request, worse)

    def _answer_each(
        self,
        batch: Sequence[Request],
        refused: BackscrollError | None,
        seconds: float,
        tried: list[Request],
        db: Writes,
    ) -> None:
        """Execute requests; after so many seconds no more are begun."""
        work = partial(self._answer_command, db, refused)
        tried.clear()  # this may be the second attempt
        until = self._clock() + seconds
        for request in batch:
            if tried and self._clock() >= until:
                break
            request.reply = self._answer(request, work)
            tried.append(request)

    def _answer(self, request: Request, work: Work) -> bytes:
        """Execute a request with `work`; any exception becomes its reply."""
        started, outcome = self._clock(), "ok"
        try:
            reply = work(request)
        except Exception as error:  # noqa: BLE001  # any error becomes a reply
            outcome = self._wire_error(error).code
            reply = self.refuse(request, error)
        if log.debugging:  # even a line that is not written costs more than some requests
            log.debug(
                "request",
                operation=request.as_type.wire_name,
                id=request.id,
                outcome=outcome,
                ms=round((self._clock() - started) * 1000, 3),
                traceparent=request.traceparent,
            )
        return reply

    def _answer_command(self, db: Writes, refused: BackscrollError | None, request: Request) -> bytes:
        if request.flaws:
            self._refuse_flawed(db, refused, request)
        executed = find_executed(request.operation, request.id, db)
        if executed is not None:
            return _success(request, executed.result, executed.seq)
        sender = request.sender
        if sender is not None and sender.n <= (greatest_n := db.greatest_n(sender.client)):
            raise superseded(sender, greatest_n)
        if request.deadline is not None:
            self._check_deadline(request.deadline)
        if refused is not None and adds(request.operation):
            raise refused
        reply = partial(_success_of, request)
        return execute(request.operation, request.id, db, self._handlers, reply, request.principal, request.sender)

    def _refuse_flawed(self, db: Writes, refused: BackscrollError | None, request: Request) -> NoReturn:
        """Raise the error of a batch with flaws, with all other failures of it."""
        assert request.flaws is not None
        if refused is not None and adds(request.operation):  # there is no room to try it
            raise refusal(request.flaws)
        raise refusal(failures_of(request.operation, request.flaws, request.id, db, self._handlers))

    def _answer_maintenance(self, context: Any, request: Request) -> bytes:
        if self._scopes.may_refuse and adds(request.operation) and (refused := self._refusal_of([request])):
            raise refused
        work = partial(self._answer_other, context, request)
        return work() if adds(request.operation) else self._on_full_disk(request.scope, work)

    def _answer_query(self, store: ReadStore, snapshot: Reads, before_large: BeforeLarge, request: Request) -> bytes:
        if request.deadline is not None:
            self._check_deadline(request.deadline)
        if self._ending:
            raise Unavailable("the daemon is stopping")
        seq = snapshot.position.seq
        query, codec = request.operation, request.codec
        function, cached = self._handlers[query.wire_name]
        if isinstance(request, WaitingRequest):
            return self._answer_waiting(request, store, snapshot)
        if cached is Cached.NOT:
            return _success(request, _encodable(function(query, snapshot), codec, before_large), seq)
        encoded = store.query_cache.get(query, codec, seq, cached)
        if encoded is None:
            encoded = _encoded(function(query, snapshot), codec, before_large)
            store.query_cache.put(query, codec, seq, cached, encoded)
        if len(encoded) > LARGE_BYTES:
            before_large()
        return _success(request, Raw(encoded), seq)

    def _answer_waiting(self, request: WaitingRequest, store: ReadStore, snapshot: Reads) -> bytes:
        started, seq = time.thread_time(), snapshot.position.seq
        page = self._handlers[request.operation.wire_name].function(request.operation, snapshot)
        opened = self._scopes.store_if_open(request.scope, used=False)
        seen = Seen(seq, page.cursor, opened if opened is store else None)
        request.nothing_new = seen if is_nothing_new(request.operation, page) else None
        result = request.codec.encode(page)
        request.seconds = time.thread_time() - started
        reply = _success(request, Raw(result), seq)
        request.result = (result, seq)
        return reply

    def _answer_other(self, context: Any, request: Request) -> bytes:
        """Answer a built-in query or a maintenance operation."""
        if request.deadline is not None:
            self._check_deadline(request.deadline)
        result = self._handlers[request.as_type.wire_name].function(request.operation, context)
        return _success(request, _encodable(result, request.codec), self._scopes.seq(request.scope))

    def _run_chores(self, scope: str, store: Store) -> None:
        """Do each of the chores in a transaction of its own, because one may need what is damaged."""
        if not self._trusts_time(store.now()):
            return
        removed: dict[str, int] = {}
        for what, remove in REMOVALS.items():
            with self._logged(scope, what), store.write() as db:
                removed[what] = remove(db)
        for due in () if store.follows else COMMANDS_DUE:
            with self._logged(scope, due.__name__):
                self._execute_due(scope, store, due, removed)
        removed = {what: count for what, count in removed.items() if count}
        if removed:
            log.info("chores done", scope=scope, **removed)
        if not store.follows:
            self._on_full_disk(scope, partial(self._expire, scope, store))

    @contextmanager
    def _logged(self, scope: str, chore: str) -> Iterator[None]:
        """Log an error of a chore, which the next run tries again. The others go on, unless the database cannot now."""
        try:
            yield
        except Exception as error:
            if isinstance(self._wire_error(error), Busy | Unavailable):
                raise  # each of the others would wait as long, and commands with them
            log.error("a chore failed", scope=scope, chore=chore, error=str(error))

    def _execute_due(
        self, scope: str, store: Store, due: Callable[[Reads], list[Command[Any]]], done: dict[str, int]
    ) -> None:
        """Execute what is due in one transaction; if something is damaged, each command in one of its own."""
        with store.read() as snapshot:
            commands = due(snapshot)
        if not commands:
            return
        try:
            self._execute_own(store, commands, due, done)
        except Exception as error:
            if not self._scopes.is_unreadable(error):
                raise
            for command in commands:
                with self._logged(scope, command.wire_name):
                    self._execute_own(store, [command], due, done)

    def _execute_own(
        self,
        store: Store,
        commands: Sequence[Command[Any]],
        due: Callable[[Reads], list[Command[Any]]],
        done: dict[str, int],
    ) -> None:
        """Execute commands of the daemon's own in one transaction, and add how much each did.

        Until it began, other daemons may have used what was to be deleted, or deleted it themselves.
        """
        with store.write() as db:
            if store.is_shared:
                still_due = due(db)
                commands = [each for each in commands if each in still_due]
            results = [execute(each, self._new_id(), db, self._handlers, attrgetter("result")) for each in commands]
        for command, result in zip(commands, results, strict=True):
            done[command.wire_name] = done.get(command.wire_name, 0) + (1 if result is None else result)

    def _remove_cleared(self, scope: str, store: Store) -> None:
        """Remove some messages of cleared rooms. A room that is damaged is passed over, so that the others are cleared.

        When only such rooms are left, or when it cannot be known which rooms were cleared, there is a pause.
        """
        try:
            if store.clearing_behind and self._next_cleared(store) is None:
                self._pause_clearing(store)
                return
            self._remove_some(store)
        except Exception as error:
            if not self._scopes.is_unreadable(error):
                raise
            log.error("messages of a cleared room are damaged, and not removed", scope=scope, error=str(error))
            try:
                store.clearing_behind = self._next_cleared(store) or ""
            except Exception:
                self._pause_clearing(store)
                raise

    def _next_cleared(self, store: Store) -> str | None:
        with store.read() as snapshot:
            return clearing.next_room(snapshot, store.clearing_behind)

    def _pause_clearing(self, store: Store) -> None:
        store.clearing_behind, store.clearing_retry_at = "", self._clock() + CLEARING_RETRY_SECONDS

    def _remove_some(self, store: Store) -> None:
        """Remove some messages of a cleared room, as many as took little time before."""
        started, number = self._clock(), self._removed_at_once
        self._removed_at_once = max(REMOVED_MIN, number // 2)  # unless the step is quick, and succeeds
        with store.write() as db:
            removed = clearing.remove_some(db, number, store.clearing_behind)
        took = self._clock() - started
        if took < REMOVAL_SECONDS / 2 and removed >= number:
            self._removed_at_once = min(REMOVED_MAX, number * 2)
        elif took < REMOVAL_SECONDS:
            self._removed_at_once = number

    def _check_deadline(self, deadline: float) -> None:
        if self._clock() >= deadline:
            raise DeadlineExceeded("not started before the caller's deadline")

    def _wire_error(self, error: Exception) -> BackscrollError:
        """The error that the caller receives: storage errors are translated, unknown exceptions are `Internal`."""
        if isinstance(error, BackscrollError):
            return error
        explained = self._scopes.wire_error(error)
        return explained or Internal("the request failed because of a bug in the daemon; see its log")


def _success_of(request: Request, executed: Executed) -> bytes:
    """The reply to a command. Its result is converted to plain values, so that a retry gets the same bytes."""
    return _success(request, to_builtins(executed.result, builtin_types=(bytes,)), executed.seq)


def _success(request: Request, result: Any, seq: int) -> bytes:
    reply = request.success(result, seq)
    if len(reply) > REPLY_BYTES_MAX:
        what = f"the reply has {len(reply)} bytes; the limit is {REPLY_BYTES_MAX}"
        raise TooLarge(f"{what}: ask for fewer items, with `childLists: false`, or in MessagePack instead of JSON")
    return reply


def _encodable(result: Any, codec: Codec, before_large: BeforeLarge = lambda: None) -> Any:
    """A result as it can be part of a reply."""
    return Raw(_encoded(result, codec, before_large)) if isinstance(result, Items) else result


def _encoded(result: Any, codec: Codec, before_large: BeforeLarge) -> bytes:
    """A result encoded; the items of a list are read meanwhile, and no more of them than fit into a reply."""
    if not isinstance(result, Items):
        return codec.encode(result)
    bytes_max = REPLY_BYTES_MAX - ENVELOPE_BYTES_MAX
    found = codec.encode_items(result.items, bytes_max, bytes_small=LARGE_BYTES, before_large=before_large)
    if not found.complete and result.is_page and not found.number:
        problem = f"the first item of the page is larger than a reply, which has at most {REPLY_BYTES_MAX} bytes"
        raise TooLarge(f"{problem}: ask with `childLists: false`")
    if not found.complete and not result.is_page:
        problem = f"the list is larger than a reply, which has at most {REPLY_BYTES_MAX} bytes"
        raise TooLarge(f"{problem}: ask with `limit`, {NEXT_PAGES}")
    return found.encoded


def _refused(body: bytes, codec: Codec, envelope: Envelope | None, problem: Exception) -> Refused:
    """The refusal of a body, with its id if one can be read."""
    bug = "the request cannot be decoded because of a bug in the daemon; see its log"
    error = problem if isinstance(problem, BackscrollError) else Internal(bug)
    request_id = envelope.id if envelope is not None else read_id(body, codec)
    if isinstance(error, Internal):
        log.error("request cannot be decoded", id=request_id, exc_info=problem)
    log.debug("refused", id=request_id, outcome=error.code, reason=error.message)
    problem.__traceback__ = None  # its frames have the body
    return Refused(write_failure(request_id, error, codec), error, has_id=request_id is not None)


def _check_size(body: bytes, codec: Codec) -> None:
    """Raise `Malformed` for an empty body, and `TooLarge` for one that exceeds the limit of its operation."""
    if not body:
        raise Malformed.at("$", "the body is empty")
    operation = OPERATIONS.get(read_type(body, codec) or "")
    bytes_max = operation.body_bytes_max if operation else BODY_BYTES_MAX
    if len(body) > bytes_max:
        raise TooLarge.at("$", f"the body has {len(body)} bytes; the limit is {bytes_max}")
