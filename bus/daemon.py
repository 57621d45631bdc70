"""The daemon's loop: receive requests, start them, send replies, drain. Only its thread uses the socket.

    socket ──receive──▶ Request ──▶ lanes ──▶ writer threads ──commit──┐
       ▲                              └─────▶ reader threads ──────────┤
       └──────────────send◀────────── finished (deque) + Wake ◀────────┘

`DESIGN.md` in this folder explains the design.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Sequence

import zmq

from backscroll.bus.clock_watch import ClockWatch, wall_clock_ms
from backscroll.bus.connections import Connections, connections_max
from backscroll.bus.dispatch import RUN_REPLY_BYTES, Dispatcher, Refused, Request, WaitingRequest, receive
from backscroll.bus.gate import CURVE, IPC, TCP, Gate
from backscroll.bus.handshakes import Handshakes
from backscroll.bus.lanes import Bounds, Lanes
from backscroll.bus.logging import log
from backscroll.bus.memory import MemoryWatch
from backscroll.bus.reply_memory import ReplyMemory
from backscroll.bus.router import RouterSocket
from backscroll.bus.settings import Settings
from backscroll.bus.status import DaemonStatus
from backscroll.bus.stores import Commit, Scopes, Store
from backscroll.bus.upkeep import Schedule, Upkeep
from backscroll.bus.waiting import Answers, WaitingQueries
from backscroll.bus.wake import Wake
from backscroll.bus.workers import Readers, Writers
from backscroll.handlers import HANDLERS, Handlers
from backscroll.schema.errors import BackscrollError, Malformed, Unavailable
from backscroll.schema.limits import ROUTING_BYTES_MAX, ROUTING_FRAMES_MAX
from backscroll.schema.salvage import read_id
from backscroll.schema.wire import codec_of, write_failure

RECEIVE_MAX = 1_000  # messages per turn, before replies are sent
RECEIVE_MAX_TELLING = 32  # the same while those who waited are told, many of whom ask again at once
RETRY_MS = 10
TRANSPORT_BYTES = 1  # in front of a client's id: the number of its transport
POLL_SECONDS_MAX = 3_600.0  # libzmq accepts at most a few weeks
STOPPING_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
IGNORED_SIGNALS = ("SIGUSR1", "SIGUSR2")  # unhandled they would end the process without draining
TO_BE_PARKED = b""  # instead of a reply
ADVANCES_MAX = 4  # per turn, so that a client with cached queries does not delay others


class Daemon:
    """Serves the scopes of a data directory. Create it, `bind()`, then `run()` until `stop()` is called."""

    def __init__(self, settings: Settings, scopes: Scopes, handlers: Handlers = HANDLERS) -> None:
        self._settings = settings
        self.gate = Gate(scopes.access, settings.allowed_uids)
        self._admit = {IPC: None, TCP: self.gate.admit, CURVE: self.gate.admit}
        self._wake = Wake()
        self.gate.on_change = self._access_changed
        self._rights_changed = False
        self._finished: deque[tuple[list[Request], list[bytes]]] = deque()
        self._reply_memory = ReplyMemory()  # of those that are finished
        self._commits: deque[tuple[Commit, Store]] = deque()  # that queries may wait for
        self._stop_requested = False
        self._chores_at = time.monotonic() + settings.chores_ms / 1000
        self._crash: BaseException | None = None
        self._signals: dict[int, object] = {}  # those that have been received
        self._stopping_signals: list[int] = []  # those that stop the loop
        self._drain_until: float | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        watch = ClockWatch(wall_clock_ms())
        self._upkeep = Upkeep(settings.data_dir, scopes, _schedule(settings))
        status = DaemonStatus(self._queues, scopes, self.gate, self._upkeep)
        self._dispatcher = Dispatcher(scopes, status, handlers, trusts_time=watch.trusts, query_ms=settings.query_ms)
        self._scopes = scopes
        self._writers = Writers(
            self._dispatcher, scopes, settings.writers, settings.batch_requests, self._deliver, self._crashed
        )
        self._readers = Readers(
            self._dispatcher,
            scopes,
            settings.readers,
            self._deliver,
            self._crashed,
            self._writers.expire,
            self._reply_memory,
        )
        self._due = self._dispatcher.due
        self._due.on_earlier = self._wake.set
        bounds = Bounds(settings.client_requests, settings.client_bytes, settings.queue_requests, settings.queue_bytes)
        self._lanes = Lanes(bounds, self._writers.start, self._start_queries)
        handshakes = Handshakes(self._context, self.gate)
        self._connections = Connections(
            self._context,
            connections_max(settings.connections),
            handshakes,
            check=self._check_memory,
            crashed=self._crashed,
        )
        self._router = RouterSocket(
            self._context,
            self.gate,
            handshakes,
            stall_ms=settings.stall_ms,
            client_reply_bytes=settings.client_reply_bytes,
            reply_bytes=settings.reply_bytes,
            on_pause=self._lanes.pause,
            on_resume=self._lanes.resume,
            on_gone=self._forget,
            watch=self._connections.watch,
        )
        self._memory = MemoryWatch(
            settings.memory_bytes,
            accounted=self._accounted_bytes,
            free=scopes.clear_caches,
            router=self._router,
            has_requests=lambda client: self._lanes.has_requests(client) or self._waiting.has(client),
        )
        answers = Answers(
            evaluate=lambda request: self._readers.start([request]),
            send=lambda request, reply: self._router.send(request.route, reply, repeatable=True),
            success=self._dispatcher.repeat,
            nothing=self._dispatcher.nothing_new,
            refusal=self._refusal_of,
        )
        self._waiting = WaitingQueries(answers, scopes.seq, lambda scope: scopes.store_if_open(scope, used=False))
        scopes.on_commit(self._committed, lambda: list(self._waiting.recent))

    def bind(self, endpoints: Sequence[str]) -> list[str]:
        """Bind every endpoint and return the actual addresses; raises `BadSettings`."""
        bound = [self._router.bind(endpoint) for endpoint in endpoints]
        self.gate.endpoints = [endpoint for endpoint in bound if endpoint.startswith("tcp://")]
        return bound

    def stop(self) -> None:
        """Ask the loop to drain and end. May be called from any thread or signal handler."""
        self._stop_requested = True
        self._wake.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM, SIGINT and SIGHUP stop the loop, and ignore SIGUSR1 and 2. Call it from the main thread only.

        SIGHUP, which the end of a terminal sends, stays ignored if it was ignored from the start, as `nohup` does.

        The system may deliver a signal to any thread, and Python runs its handler when the main thread wakes; so the
        signal itself wakes the loop. The handler is not a Python function: those nest when signals arrive faster than
        they return, until a RecursionError.
        """
        signal.set_wakeup_fd(self._wake.writing.fileno(), warn_on_full_buffer=False)
        for number in _numbers(STOPPING_SIGNALS):
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._signals.setdefault)
                self._stopping_signals.append(number)
        for number in _numbers(IGNORED_SIGNALS):
            signal.signal(number, signal.SIG_IGN)

    def run(self) -> None:
        """Serve until stopped and drained; raises the exception that ended a worker thread, if one did."""
        self._connections.start()
        self._resume_removal()
        poller = zmq.Poller()
        for readable in (*self._router.sockets, self._wake.reading):
            poller.register(readable, zmq.POLLIN)
        while not self._drained():
            self._router.is_waiting = True
            poller.poll(self._until_work_ms())
            self._router.is_waiting = False
            self._wake.clear()
            if self._finished or self._commits or self._lanes.changed:
                self._advance()
            if self._router.outboxes:
                self._router.retry()
                self._router.cut_stalled()
            self._receive()
            if self._lanes.requests:
                self._connections.check_soon()
            if self._finished or self._commits or self._lanes.changed:
                self._advance()
            self._begin_timed_work()
            if (self._stop_requested or self._signals) and self._drain_until is None:
                self._begin_drain()
        if self._crash is not None:
            raise self._crash

    def close(self) -> None:
        """End the threads and close the sockets, but not the scopes. Signals that stop are ignored from then on."""
        if self._stopping_signals:
            signal.set_wakeup_fd(-1)
            for number in self._stopping_signals:
                signal.signal(number, signal.SIG_IGN)
        self._scopes.stop()
        self._upkeep.stop()
        self._readers.stop()
        waiting = self._writers.stop()
        self._send_finished()
        self._waiting.answer_all()
        for request in (*waiting, *self._lanes.clear()):
            self._refuse(request, Unavailable("the daemon has stopped"))
        self._router.close()
        self._connections.join()
        self._memory.close()
        self._wake.close()
        self._context.term()

    def _advance(self) -> None:
        """Send finished replies and start waiting requests; cached queries are finished immediately, so repeat it."""
        for _ in range(ADVANCES_MAX):
            if self._commits:  # before their callers can ask what is new
                self._note_commits()
            if self._finished:
                self._send_finished()
            if self._lanes.changed:
                self._lanes.advance()
            if not self._finished:
                return
        self._wake.set()

    def _start_queries(self, queries: list[Request]) -> None:
        """Answer the first queries from the cache, up to one that is not cached; else give them all to a reader.

        Those behind cached ones go back to their lane, so that only one part of a run is in progress: if a reply has no
        room, no later one overtakes it.
        """
        replies: list[bytes] = []
        size = 0
        for query in queries:
            if size >= RUN_REPLY_BYTES or (reply := self._immediate_reply(query)) is None:
                break
            replies.append(reply)
            size += len(reply)
        if replies:
            self._reply_memory.add(replies)
            self._finished.append((queries, replies))
        else:
            self._readers.start(queries)

    def _immediate_reply(self, query: Request) -> bytes | None:
        """The reply to a query if it needs no reader, else None; `TO_BE_PARKED` if it is to wait.

        While there are many replies to send, the readers get cached queries as well: they wait until there is room.
        """
        if isinstance(query, WaitingRequest):
            return TO_BE_PARKED if query.wait_ms and self._waiting.prepare(query) else None
        return None if self._reply_memory.is_full else self._dispatcher.cached_reply(query)

    def _park(self, request: WaitingRequest) -> None:
        """Let a query wait, unless the daemon is stopping."""
        self._waiting.park(request)
        if self._drain_until is not None:
            self._waiting.answer_all()

    def _resume_removal(self) -> None:
        """Go on removing messages of cleared rooms where the last daemon ended."""
        for scope in self._scopes.open_names():
            self._writers.remove_cleared(scope)

    def _until_work_ms(self) -> int:
        """The time until the chores, until something expires, or until queries have waited long enough."""
        if self._commits:
            return 0
        seconds = min(self._chores_at - time.monotonic(), self._waiting.wait_seconds(), POLL_SECONDS_MAX)
        work_ms = math.ceil(seconds * 1000)
        if self._router.outboxes or self._drain_until:
            work_ms = min(work_ms, RETRY_MS)
        expires_at = self._due.next_at
        return max(0, work_ms if expires_at is None else min(work_ms, expires_at - wall_clock_ms()))

    def _begin_timed_work(self) -> None:
        if time.monotonic() >= self._chores_at:
            self._begin_chores()
        if self._due.next_at is not None:
            self._begin_expiry()
        if self._rights_changed:
            self._rights_changed = False  # before it is looked at what they are now
            self._waiting.check_rights()
        self._waiting.turn()

    def _begin_chores(self) -> None:
        """Start the periodic chores of all open scopes, and close idle scopes."""
        self._chores_at = time.monotonic() + self._settings.chores_ms / 1000
        for scope in self._scopes.open_names():
            self._writers.run_chores(scope)
        self._readers.close_idle_scopes()
        self._upkeep.begin_due()

    def _begin_expiry(self) -> None:
        """Start the deletion of what has expired by now."""
        for scope in self._due.take(wall_clock_ms()):
            self._writers.expire(scope)

    def _receive(self) -> None:
        if not self._receive_all(RECEIVE_MAX_TELLING if self._waiting.is_telling else RECEIVE_MAX):
            self._router.take_turns()
            self._wake.set()

    def _receive_all(self, number: int) -> bool:
        """Handle the messages that have arrived, at most this number; returns False if there may be more."""
        for _ in range(number):
            frames = self._router.receive()
            if frames is None:
                return True
            if frames:
                self._handle_message(frames)
        return False

    def _handle_message(self, frames: list[bytes]) -> None:
        *route, body = frames
        if len(route) > ROUTING_FRAMES_MAX or sum(map(len, route)) > ROUTING_BYTES_MAX + TRANSPORT_BYTES:
            self._refuse_frames(route, body)
            return
        try:
            request = receive(body, route, time.monotonic(), self._admit[route[0][0]])
        except Refused as refused:
            self._router.send(route, refused.reply, droppable=True)
            if not refused.has_id:
                self._router.count_unreadable(route[0])
            return
        if isinstance(request, WaitingRequest):
            request.credential = self.gate.credential(request.principal)
        if request.is_builtin:
            self._router.send(route, self._dispatcher.answer_builtin(request), droppable=True)
        elif self._drain_until is not None:
            self._refuse(request, Unavailable("the daemon is stopping"))
        else:
            try:
                self._lanes.add(request)
            except BackscrollError as error:
                self._refuse(request, error)

    def _refuse(self, request: Request, error: BackscrollError) -> None:
        self._router.send(request.route, self._dispatcher.refuse(request, error), droppable=True)

    def _refuse_frames(self, route: Sequence[bytes], body: bytes) -> None:
        codec = codec_of(body)
        error = Malformed(
            f"{len(route)} frames with {sum(map(len, route)) - TRANSPORT_BYTES} bytes before the body; "
            f"the limit is {ROUTING_FRAMES_MAX} frames with {ROUTING_BYTES_MAX} bytes"
        )
        self._router.send(route[:1], write_failure(read_id(body, codec), error, codec), droppable=True)
        self._router.count_unreadable(route[0])

    def _deliver(self, requests: list[Request], replies: list[bytes]) -> None:
        """Called by worker threads."""
        self._reply_memory.add(replies)
        self._finished.append((requests, replies))
        self._wake.set()

    def _committed(self, commit: Commit, store: Store) -> None:
        """Called by worker threads."""
        if commit.scope in self._waiting.recent:
            self._commits.append((commit, store))
            if self._waiting.has_sleepers:
                self._wake.set()

    def _access_changed(self) -> None:
        """Called by any thread: callers whose queries wait may be refused now."""
        self._rights_changed = True
        self._wake.set()

    def _note_commits(self) -> None:
        commits = [self._commits.popleft() for _ in range(len(self._commits))]
        self._waiting.note_commits(commits)

    def _crashed(self, error: BaseException) -> None:
        """Called by a worker thread that an exception ends."""
        self._crash = error
        self._readers.note_crash()
        self._wake.set()

    def _send_finished(self) -> None:
        """Send the replies of finished runs. Queries without one, or whose reply has no room, return to their lanes."""
        while self._finished:
            requests, replies = self._finished.popleft()
            first = requests[0]
            if isinstance(first, WaitingRequest) and first.is_parked:
                self._waiting.evaluated(first, replies[0])
            else:
                self._send_run(requests, replies)
            self._reply_memory.remove(replies)
            if first.is_maintenance:
                self._waiting.check_scope(first.scope)  # which may be another one now

    def _send_run(self, requests: list[Request], replies: list[bytes]) -> None:
        sent = len(replies)
        for at, reply in enumerate(replies):
            request = requests[at]
            if isinstance(request, WaitingRequest) and request.may_wait:
                self._park(request)
            elif not self._router.send(request.route, reply, repeatable=not request.is_command):
                sent = at
                break
        if sent < len(requests):
            self._lanes.give_back(requests[sent:])
            requests = requests[:sent]
        self._lanes.answered(requests)

    def _refusal_of(self, request: WaitingRequest) -> bytes | None:
        """The reply to a caller whose token is refused since the request was accepted, or None."""
        error = self.gate.refusal(request.principal, request.credential)
        return None if error is None else self._dispatcher.refuse(request, error)

    def _forget(self, client: bytes) -> None:
        """Drop the requests of a client that is gone."""
        self._lanes.forget(client)
        self._waiting.forget(client)

    def _queues(self) -> dict[str, int]:
        """The lengths of the queues, for `health`."""
        return {
            "requests": self._lanes.requests,
            "bytes": self._lanes.bytes,
            "writers": self._writers.waiting,
            "waiting": len(self._waiting),
            "replies": self._router.pending_replies,
        }

    def _check_memory(self, arrived: bool) -> float:
        """Called by the thread of the connections; returns the seconds until the next check."""
        return self._memory.check(self._connections, is_active=arrived or self._lanes.requests > 0)

    def _accounted_bytes(self) -> int:
        """The memory for requests that wait and for replies in flight, which have bounds of their own."""
        return self._lanes.bytes + self._waiting.bytes + self._router.in_flight.bytes

    def _begin_drain(self) -> None:
        """Accept the requests that have already arrived; later ones are refused."""
        self._receive_all(self._settings.queue_requests)
        self._waiting.answer_all()
        self._drain_until = time.monotonic() + self._settings.drain_ms / 1000
        self._lanes.advance()
        log.info("stopping", requests=self._lanes.requests)

    def _drained(self) -> bool:
        if self._crash is not None:
            return True
        if self._drain_until is None:
            return False
        done = not self._lanes.requests and not self._router.pending_replies
        return done or time.monotonic() > self._drain_until


def _schedule(settings: Settings) -> Schedule:
    """What is done by itself to keep files safe; PostgreSQL has tools of its own for that."""
    if settings.store:
        return Schedule()
    return Schedule(
        settings.backup_dir, settings.backup_ms, settings.backups_daily, settings.backups_weekly, settings.check_ms
    )


def _numbers(names: Sequence[str]) -> list[int]:
    """The numbers of those signals that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
