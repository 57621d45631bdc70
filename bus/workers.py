"""The threads that use the database: writers, at most one per scope at a time, and readers for queries.

The dispatcher turns every error into a reply. If an exception escapes it nevertheless, `crashed` gets it and the daemon
ends: to restart it is better than requests that are never answered.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from backscroll.bus.dispatch import Dispatcher, Request
from backscroll.bus.stores import Scopes

Deliver = Callable[[list[Request], list[bytes]], None]
"""Receives answered requests with their replies; called from worker threads."""
Crashed = Callable[[BaseException], None]
"""Receives the exception that ended a worker; called from its thread."""


INTERRUPT_INTERVAL_SECONDS = 0.01


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
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], object]) -> None:
        """Have `work` called by a thread; it must not raise."""
        with self._lock:
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._threads_max):
                self._threads.append(threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}"))
                self._threads[-1].start()
        self._work.put(work)

    def shut_down(self) -> None:
        """Finish all submitted work, then end the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

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
        threads: int,
        batch_requests: int,
        deliver: Deliver,
        crashed: Crashed,
    ) -> None:
        self._dispatcher = dispatcher
        self._batch_requests = batch_requests
        self._deliver = deliver
        self._crashed = crashed
        self._stopping = False
        self._queues: dict[str, deque[Request | None]] = {}  # of the scopes with a writer; None stands for the chores
        self._lock = threading.Lock()
        self._threads_max = threads
        self._pool = WorkerPool("writer", threads)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in list(self._queues.values()))

    def start(self, commands: list[Request]) -> None:
        """Execute commands of one scope, after those started earlier."""
        self._enqueue(commands[0].scope, commands)

    def run_chores(self, scope: str) -> None:
        """Run the chores of a scope, between its commits."""
        self._enqueue(scope, [None])

    def stop(self) -> list[Request]:
        """Finish the commits in progress and end the threads. Returns the requests that were not executed."""
        self._stopping = True
        self._pool.shut_down()
        return [request for queue in self._queues.values() for request in queue if request is not None]

    def _enqueue(self, scope: str, work: Sequence[Request | None]) -> None:
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
                self._execute(scope, batch)
                self._dispatcher.checkpoint(scope)
                if len(self._queues) > self._threads_max and not self._stopping:
                    self._pool.submit(partial(self._run, scope))
                    return
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _execute(self, scope: str, batch: list[Request | None]) -> None:
        requests = [request for request in batch if request is not None]
        if not requests:
            self._dispatcher.run_chores(scope)
        elif requests[0].is_maintenance:
            self._deliver(requests, [self._dispatcher.answer_maintenance(requests[0])])
        else:
            self._deliver(requests, self._dispatcher.answer_commands(requests))

    def _next_batch(self, scope: str) -> list[Request | None]:
        """Remove and return waiting commands, or one maintenance operation or the chores, which share no transaction.

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
            while _can_share(batch[0]) and queue and _can_share(queue[0]) and len(batch) < self._batch_requests:
                batch.append(queue.popleft())
            return batch


def _can_share(work: Request | None) -> bool:
    """Whether it may share a transaction with other commands."""
    return work is not None and not work.is_maintenance


class Readers:
    """Threads for queries, started as needed, up to a limit. Each run of queries has one snapshot."""

    def __init__(
        self, dispatcher: Dispatcher, scopes: Scopes, threads: int, deliver: Deliver, crashed: Crashed
    ) -> None:
        self._dispatcher = dispatcher
        self._scopes = scopes
        self._deliver = deliver
        self._crashed = crashed
        self._pool = WorkerPool("reader", threads)
        self._runs = 0
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def start(self, queries: list[Request]) -> None:
        """Answer queries of one scope from one snapshot."""
        with self._lock:
            self._runs += 1
            self._idle.clear()
        self._pool.submit(partial(self._run, queries))

    def close_idle_scopes(self) -> None:
        """Close idle scopes in a reader thread, because that can take a while."""
        self._pool.submit(self._close_idle_scopes)

    def stop(self) -> None:
        """End the threads. Running queries are interrupted; they and all waiting ones are answered `unavailable`."""
        self._dispatcher.end_queries()
        while not self._idle.wait(INTERRUPT_INTERVAL_SECONDS):  # an interrupt between two statements has no effect
            self._scopes.interrupt_readers()
        self._pool.shut_down()

    def _close_idle_scopes(self) -> None:
        try:
            self._scopes.close_idle()
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _run(self, queries: list[Request]) -> None:
        try:
            self._deliver(queries, self._dispatcher.answer_queries(queries))
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)
        finally:
            with self._lock:
                self._runs -= 1
                if not self._runs:
                    self._idle.set()
