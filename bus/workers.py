"""The threads that touch the file: one writer for every commit, a few readers for queries.

The dispatcher turns every error into a reply. Should something escape it all the same, `crashed` is told, for requests
that nobody will ever answer are worse than a daemon that ends and is started again.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from backscroll.bus.dispatch import Dispatcher, Request
from backscroll.bus.store import Store

Deliver = Callable[[list[Request], list[bytes]], None]
"""Takes answered requests with their replies; called from the workers' threads."""
Crashed = Callable[[BaseException], None]
"""Takes what ended a worker; called from its thread."""


INTERRUPT_SECONDS = 0.01


class Writer:
    """Group commit: whatever commands wait when a transaction begins share it, and are answered after it."""

    def __init__(
        self, dispatcher: Dispatcher, store: Store, batch_requests: int, deliver: Deliver, crashed: Crashed
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._batch_requests = batch_requests
        self._deliver = deliver
        self._crashed = crashed
        self._stopping = False
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def start(self, commands: list[Request]) -> None:
        for command in commands:
            self._queue.put(command)

    def stop(self) -> None:
        """Finish the commit under way, then end the thread. What is still queued then has no effect and no reply."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._deliver(batch, self._dispatcher.commit(batch))
                self._store.checkpoint_if_due()
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)

    def _next_batch(self) -> list[Request]:
        """What is queued, up to a bound, as soon as there is anything; empty at the end."""
        batch: list[Request] = []
        while not self._stopping and len(batch) < self._batch_requests and not (batch and self._queue.empty()):
            if (command := self._queue.get()) is not None:
                batch.append(command)
        return [] if self._stopping else batch


class Readers:
    """Threads that are made as queries need them, up to a bound; each run of queries has one snapshot."""

    def __init__(self, dispatcher: Dispatcher, store: Store, threads: int, deliver: Deliver, crashed: Crashed) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._deliver = deliver
        self._crashed = crashed
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._runs = 0
        self._counting = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def start(self, queries: list[Request]) -> None:
        with self._counting:
            self._runs += 1
            self._idle.clear()
        self._threads.submit(self._run, queries)

    def stop(self) -> None:
        """End the threads. A query under way is broken off; it and all that wait are answered `unavailable`."""
        self._dispatcher.end_queries()
        self._threads.shutdown(wait=False)
        while not self._idle.wait(INTERRUPT_SECONDS):  # what is interrupted between two statements runs on
            self._store.interrupt_readers()
        self._threads.shutdown()

    def _run(self, queries: list[Request]) -> None:
        try:
            self._deliver(queries, self._dispatcher.ask(queries))
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)
        finally:
            with self._counting:
                self._runs -= 1
                if not self._runs:
                    self._idle.set()
