"""The threads that use the database: writers, at most one per scope at a time, and readers for queries.

No thread waits for a scope that is closed to it: operations on whole scopes have threads of their own, and queries that
arrive meanwhile are put aside. Clients whose queries are slow share a few of the readers, so that others find one free.

The dispatcher turns every error into a reply. If an exception escapes it nevertheless, `crashed` gets it and the daemon
ends: to restart it is better than requests that are never answered.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from backscroll.bus.dispatch import RUN_SECONDS, Dispatcher, Request
from backscroll.bus.reply_memory import ReplyMemory, RunMemory, TurnNeeded
from backscroll.bus.stores import BeforeLarge, Scopes
from backscroll.schema.errors import Unavailable

Deliver = Callable[[list[Request], list[bytes]], None]
"""Receives requests with the replies to the first of them; the others were not begun. Called from worker threads."""
Crashed = Callable[[BaseException], None]
"""Receives the exception that ended a worker; called from its thread."""
Chore = Callable[[], None]
"""Work of the daemon's own on a scope, done by the thread that writes to it."""


INTERRUPT_INTERVAL_SECONDS = 0.01
COMMIT_SECONDS = 1.0  # for the commits in progress at a stop, before they are interrupted
CRASHED_SECONDS = 1.0  # for the queries in progress at a stop after a reader crashed
BATCH_BYTES = 16 * 2**20  # of requests that share a commit, because they are decoded together
MAINTENANCE_THREADS = 2
SLOW_CLIENT_SECONDS = 1.0  # how long a client counts as slow after a slow run, at least
SLOW_CLIENTS_MAX = 1_000  # remembered
SLOW_READERS_SHARE = 4  # at most one in so many readers serves slow clients, and at most half of the processors


class WorkerPool:
    """Threads that run work in the order submitted. They are started as needed, up to a limit.

    The standard library's pool creates a future for each piece of work, which takes longer than many commands.
    """

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._ended = False
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], object]) -> None:
        """Have `work` called by a thread; it must not raise. After `shut_down` nothing is called any more."""
        with self._lock:
            if self._ended:
                return
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._threads_max):
                self._threads.append(threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}"))
                self._threads[-1].start()
            self._work.put(work)

    def shut_down(self, interrupt: Callable[[], None] = lambda: None, after_seconds: float = 0.0) -> None:
        """Finish all submitted work, then end the threads; `interrupt` is called repeatedly after this time."""
        with self._lock:
            self._ended = True
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + after_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            while thread.is_alive():  # an interrupt between two statements has no effect
                interrupt()
                thread.join(INTERRUPT_INTERVAL_SECONDS)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            with self._lock:
                self._unfinished -= 1


class Writers:
    """Group commit for each scope: the commands that are waiting when a transaction begins share it.

    A scope has one writer at a time, and none while nothing is waiting, so idle scopes need no thread.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        scopes: Scopes,
        threads: int,
        batch_requests: int,
        deliver: Deliver,
        crashed: Crashed,
    ) -> None:
        self._dispatcher = dispatcher
        self._scopes = scopes
        self._batch_requests = batch_requests
        self._deliver = deliver
        self._crashed = crashed
        self._stopping = False
        self._queues: dict[str, deque[Request | Chore]] = {}  # of the scopes with a writer
        self._removing: set[str] = set()  # scopes in which messages of cleared rooms are being removed
        self._with_chores: set[str] = set()  # scopes whose chores wait or run
        self._lock = threading.Lock()
        self._threads_max = threads
        self._pool = WorkerPool("writer", threads)
        self._maintenance = WorkerPool("maintenance", MAINTENANCE_THREADS)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in list(self._queues.values()))

    def start(self, commands: list[Request]) -> None:
        """Execute commands of one scope, after those started earlier."""
        self._enqueue(commands[0].scope, commands)

    def run_chores(self, scope: str) -> None:
        """Run the chores of a scope, between its commits, unless the last ones have not ended yet."""
        if scope not in self._with_chores:
            self._with_chores.add(scope)
            self._enqueue(scope, [partial(self._run_chores, scope)])
        self.remove_cleared(scope)

    def expire(self, scope: str, then: Chore | None = None) -> None:
        """Delete what has expired in a scope, between its commits; then call `then`, which may not raise."""
        self._enqueue(scope, [partial(self._expire, scope, then)])

    def stop(self) -> list[Request]:
        """Finish the commits in progress and end the threads. Returns the requests that were not executed.

        A statement that runs for more than `COMMIT_SECONDS` is interrupted: its commit has no effect.
        """
        self._stopping = True
        self._pool.shut_down(self._scopes.interrupt_writers, COMMIT_SECONDS)
        self._maintenance.shut_down(self._scopes.interrupt_writers, COMMIT_SECONDS)
        return [request for queue in self._queues.values() for request in queue if isinstance(request, Request)]

    def _enqueue(self, scope: str, work: Sequence[Request | Chore]) -> None:
        with self._lock:
            queue = self._queues.get(scope)
            if queue is None:
                self._queues[scope] = deque(work)
                self._pool.submit(partial(self._run, scope))
            else:
                queue.extend(work)

    def _run(self, scope: str) -> None:
        """Write to a scope until nothing is waiting, or until other scopes are waiting for a thread."""
        try:
            while batch := self._next_batch(scope):
                first = batch[0]
                if not isinstance(first, Request):
                    first()
                elif first.is_maintenance:
                    self._maintenance.submit(partial(self._maintain, scope, first))
                    return
                else:
                    self._execute(scope, batch)
                self._dispatcher.checkpoint(scope)
                if len(self._queues) > self._threads_max and not self._stopping:
                    self._pool.submit(partial(self._run, scope))
                    return
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _execute(self, scope: str, batch: list[Any]) -> None:
        replies = self._dispatcher.answer_commands(batch)
        if len(replies) < len(batch):  # the others are the next to be executed
            with self._lock:
                self._queues[scope].extendleft(reversed(batch[len(replies) :]))
        self._deliver(batch[: len(replies)], replies)
        self.remove_cleared(scope)

    def remove_cleared(self, scope: str) -> None:
        """Remove the messages of rooms that were cleared in a scope, between its commits, unless that has begun."""
        if scope not in self._removing and self._dispatcher.is_clearing(scope):
            self._removing.add(scope)
            self._enqueue(scope, [partial(self._remove_cleared, scope)])

    def _run_chores(self, scope: str) -> None:
        self._dispatcher.run_chores(scope)
        self._with_chores.discard(scope)

    def _expire(self, scope: str, then: Chore | None) -> None:
        """Delete what has expired, with other commands of the scope in between if it is much."""
        if self._dispatcher.expire(scope, awaited=then is not None) and not self._stopping:
            self.expire(scope, then)
        elif then is not None:
            then()

    def _remove_cleared(self, scope: str) -> None:
        """Remove some messages of cleared rooms, and the others with other commands of the scope in between."""
        if self._dispatcher.remove_cleared(scope) and not self._stopping:
            self._enqueue(scope, [partial(self._remove_cleared, scope)])
        else:
            self._removing.discard(scope)

    def _maintain(self, scope: str, request: Request) -> None:
        """Execute one operation on a whole scope, then go on writing to it."""
        try:
            if self._stopping:
                reply = self._dispatcher.refuse(request, Unavailable("the daemon has stopped"))
            else:
                reply = self._dispatcher.answer_maintenance(request)
            self._deliver([request], [reply])
            self.remove_cleared(scope)  # a log that was appended may have cleared rooms
            self._pool.submit(partial(self._run, scope))
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _next_batch(self, scope: str) -> list[Request | Chore]:
        """Remove and return waiting commands, or one maintenance operation or chore, which share no transaction.

        If nothing is waiting, the result is empty and the scope's queue is removed.
        """
        with self._lock:
            queue = self._queues[scope]
            if self._stopping:
                return []
            if not queue:
                del self._queues[scope]
                return []
            batch = [queue.popleft()]
            size = _size(batch[0])
            while size and queue and len(batch) < self._batch_requests and (more := _size(queue[0])):
                size += more
                if size > BATCH_BYTES:
                    break
                batch.append(queue.popleft())
            return batch


def _size(work: Request | Chore) -> int:
    """The bytes of a command that may share a transaction with others; else 0."""
    return work.size if isinstance(work, Request) and not work.is_maintenance else 0


class Readers:
    """Threads for queries, started as needed, up to a limit. Each run of queries has one snapshot.

    A client is slow for a while after a run that took longer than `RUN_SECONDS`. The runs of slow clients take turns
    in a part of the threads. `expire` deletes what has expired in a scope and then calls a function. `memory` counts
    the replies that are delivered and not sent.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        scopes: Scopes,
        threads: int,
        deliver: Deliver,
        crashed: Crashed,
        expire: Callable[[str, Chore], None],
        memory: ReplyMemory,
    ) -> None:
        self._dispatcher = dispatcher
        self._scopes = scopes
        self._expire = expire
        self._memory = memory
        self._deliver = deliver
        self._crashed = crashed
        self._pool = WorkerPool("reader", threads)
        self._slow_clients: dict[bytes, float] = {}  # and until when
        self._slow_running, self._slow_max = 0, max(1, min(threads // SLOW_READERS_SHARE, (os.cpu_count() or 1) // 2))
        self._slow_waiting: deque[list[Request]] = deque()
        self._runs = 0  # including those that are put aside or wait
        self._lock = threading.Lock()
        self._has_crashed = False
        self._idle = threading.Event()
        self._idle.set()

    def start(self, queries: list[Request]) -> None:
        """Answer queries of one scope from one snapshot."""
        with self._lock:
            self._runs += 1
            self._idle.clear()
        self._start(queries)

    def _start(self, queries: list[Request]) -> None:
        with self._lock:
            slow = self._slow_clients.get(queries[0].route[0], 0.0) > time.monotonic()
            if slow and self._slow_running >= self._slow_max:
                self._slow_waiting.append(queries)
                return
            self._slow_running += slow
        self._pool.submit(partial(self._run, queries, slow))

    def close_idle_scopes(self) -> None:
        """Close idle scopes in a reader thread, because that can take a while."""
        self._pool.submit(self._close_idle_scopes)

    def stop(self) -> None:
        """End the threads. Running queries are interrupted; they and all waiting ones are answered `unavailable`."""
        self._dispatcher.end_queries()
        self._memory.end()
        deadline = time.monotonic() + CRASHED_SECONDS
        while not self._idle.wait(INTERRUPT_INTERVAL_SECONDS):  # an interrupt between two statements has no effect
            self._scopes.interrupt_readers()
            if self._has_crashed and time.monotonic() > deadline:  # what was put aside may wait for what crashed
                break
        self._pool.shut_down(self._scopes.interrupt_readers)

    def _close_idle_scopes(self) -> None:
        try:
            self._scopes.close_idle()
        except BaseException as error:  # noqa: BLE001
            self._crash(error)

    def _run(self, queries: list[Request], slow: bool, is_large: bool = False) -> None:
        put_aside = False
        try:
            put_aside = not self._answer(queries, is_large)
        except BaseException as error:  # noqa: BLE001
            self._crash(error)
        finally:
            if not put_aside:
                self._end_run()
            if slow:
                self._next_slow()

    def _answer(self, queries: list[Request], is_large: bool) -> bool:
        """Answer queries, unless they have to wait: then they are put aside, and the result is False.

        They wait while their scope is closed to them, until its writer has deleted what has expired, and until it is
        their turn to make a large result, which `is_large` says it is.
        """
        try:
            with RunMemory(self._memory, is_large=is_large) as before_large:
                return self._answer_in_scope(queries, before_large)
        except TurnNeeded:
            self._memory.put_aside(partial(self._pool.submit, partial(self._run, queries, False, True)))
            return False

    def _answer_in_scope(self, queries: list[Request], before_large: BeforeLarge) -> bool:
        started = time.monotonic()
        resume = partial(self._start, queries)
        leave = self._scopes.enter_shared(queries[0].scope, resume)
        if leave is None:
            return False
        try:
            replies = self._dispatcher.answer_queries(queries, before_large)
            if replies:
                self._deliver(queries, replies)
        finally:
            leave()
            self._note_time(queries[0].route[0], time.monotonic() - started)
        if not replies:
            self._expire(queries[0].scope, resume)
        return bool(replies)

    def note_crash(self) -> None:
        """Let `stop` not wait for queries that were put aside: what they wait for may have crashed."""
        self._has_crashed = True

    def _crash(self, error: BaseException) -> None:
        self.note_crash()
        self._crashed(error)

    def _end_run(self) -> None:
        with self._lock:
            self._runs -= 1
            if not self._runs:
                self._idle.set()

    def _next_slow(self) -> None:
        with self._lock:
            if not self._slow_waiting:
                self._slow_running -= 1
                return
            queries = self._slow_waiting.popleft()
        self._pool.submit(partial(self._run, queries, True))

    def _note_time(self, client: bytes, seconds: float) -> None:
        if seconds <= RUN_SECONDS:
            return
        now = time.monotonic()
        with self._lock:
            if len(self._slow_clients) >= SLOW_CLIENTS_MAX:
                self._slow_clients = {each: until for each, until in self._slow_clients.items() if until > now}
            self._slow_clients[client] = now + max(seconds, SLOW_CLIENT_SECONDS)
