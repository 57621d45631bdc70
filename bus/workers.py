"""The threads that touch the file: one writer a scope at a time, a few readers for queries.

The dispatcher turns every error into a reply. Should something escape it all the same, `crashed` is told, for requests
that nobody will ever answer are worse than a daemon that ends and is started again.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from backscroll.bus.dispatch import Dispatcher, Request
from backscroll.bus.stores import Scopes

Deliver = Callable[[list[Request], list[bytes]], None]
"""Takes answered requests with their replies; called from the workers' threads."""
Crashed = Callable[[BaseException], None]
"""Takes what ended a worker; called from its thread."""


INTERRUPT_SECONDS = 0.01


class WorkerPool:
    """Threads that take work in the order it comes, made as there is more of it than idle threads, up to a bound.

    The standard library's pool makes a future for each piece of work, which takes longer than many commands do.
    """

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._lock = threading.Lock()

    def start(self, work: Callable[[], object]) -> None:
        """Have a piece of work done, which raises nothing."""
        with self._lock:
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._threads_max):
                self._threads.append(threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}"))
                self._threads[-1].start()
        self._work.put(work)

    def end(self) -> None:
        """Finish what was started, and end the threads."""
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
    """Group commit, scope by scope: the commands that wait when a transaction begins share it.

    A scope has one writer at a time and none while nothing waits for it, so idle scopes cost no thread.
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
        self._queues: dict[str, deque[Request | None]] = {}  # of the scopes that have a writer; None: run the chores
        self._lock = threading.Lock()
        self._bound = threads
        self._pool = WorkerPool("writer", threads)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in list(self._queues.values()))

    def start(self, commands: list[Request]) -> None:
        """Carry out commands of one scope, after those that were started before."""
        self._queue(commands[0].scope, commands)

    def run_chores(self, scope: str) -> None:
        """Tidy a scope up, between its commits."""
        self._queue(scope, [None])

    def stop(self) -> list[Request]:
        """Finish the commits under way, then end the threads. What still waits has no effect, and is given back."""
        self._stopping = True
        self._pool.end()
        return [request for queue in self._queues.values() for request in queue if request is not None]

    def _queue(self, scope: str, work: Sequence[Request | None]) -> None:
        with self._lock:
            queue = self._queues.get(scope)
            if queue is None:
                self._queues[scope] = deque(work)
                self._pool.start(partial(self._run, scope))
            else:
                queue.extend(work)

    def _run(self, scope: str) -> None:
        """Write for a scope until nothing waits, or other scopes wait for a thread."""
        try:
            while batch := self._next_batch(scope):
                self._execute(scope, batch)
                self._dispatcher.checkpoint(scope)
                if len(self._queues) > self._bound and not self._stopping:
                    self._pool.start(partial(self._run, scope))
                    return
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _execute(self, scope: str, batch: list[Request | None]) -> None:
        requests = [request for request in batch if request is not None]
        if not requests:
            self._dispatcher.run_chores(scope)
        elif requests[0].is_maintenance:
            self._deliver(requests, [self._dispatcher.execute_maintenance(requests[0])])
        else:
            self._deliver(requests, self._dispatcher.execute_commands(requests))

    def _next_batch(self, scope: str) -> list[Request | None]:
        """What waits, up to a bound; what must be done exclusive comes exclusive. Empty at the end, and the queue is gone."""
        with self._lock:
            queue = self._queues[scope]
            if self._stopping:
                return []
            if not queue:
                del self._queues[scope]
                return []
            batch = [queue.popleft()]
            while _shares(batch[0]) and queue and _shares(queue[0]) and len(batch) < self._batch_requests:
                batch.append(queue.popleft())
            return batch


def _shares(work: Request | None) -> bool:
    """Whether it may be in one transaction with others."""
    return work is not None and not work.is_maintenance


class Readers:
    """Threads that are made as queries need them, up to a bound; each run of queries has one snapshot."""

    def __init__(
        self, dispatcher: Dispatcher, scopes: Scopes, threads: int, deliver: Deliver, crashed: Crashed
    ) -> None:
        self._dispatcher = dispatcher
        self._scopes = scopes
        self._deliver = deliver
        self._crashed = crashed
        self._pool = WorkerPool("reader", threads)
        self._runs = 0
        self._counting = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def start(self, queries: list[Request]) -> None:
        with self._counting:
            self._runs += 1
            self._idle.clear()
        self._pool.start(partial(self._run, queries))

    def close_idle_scopes(self) -> None:
        """Close what nobody uses, in a reader's thread: it may take a while."""
        self._pool.start(self._close_idle_scopes)

    def stop(self) -> None:
        """End the threads. A query under way is broken off; it and all that wait are answered `unavailable`."""
        self._dispatcher.end_queries()
        while not self._idle.wait(INTERRUPT_SECONDS):  # what is interrupted between two statements runs on
            self._scopes.interrupt_readers()
        self._pool.end()

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
            with self._counting:
                self._runs -= 1
                if not self._runs:
                    self._idle.set()
