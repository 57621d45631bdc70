"""The threads that touch the file: one writer for every commit, a few readers for queries."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from backscroll.bus.dispatch import Dispatcher, Request
from backscroll.bus.store import Store

Deliver = Callable[[list[Request], list[bytes]], None]
"""Takes answered requests with their replies; called from the workers' threads."""


class Writer:
    """Group commit: whatever commands wait when a transaction begins share it, and are answered after it."""

    def __init__(self, dispatcher: Dispatcher, store: Store, batch_requests: int, deliver: Deliver) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._batch_requests = batch_requests
        self._deliver = deliver
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
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < self._batch_requests and not self._queue.empty():
                if (command := self._queue.get()) is None:
                    self._queue.put(None)
                    break
                batch.append(command)
            self._deliver(batch, self._dispatcher.commit(batch))
            self._store.checkpoint_if_due()


class Readers:
    """Threads that are made as queries need them, up to a bound; each run of queries has one snapshot."""

    def __init__(self, dispatcher: Dispatcher, threads: int, deliver: Deliver) -> None:
        self._dispatcher = dispatcher
        self._deliver = deliver
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def start(self, queries: list[Request]) -> None:
        self._threads.submit(self._run, queries)

    def stop(self) -> None:
        self._threads.shutdown()

    def _run(self, queries: list[Request]) -> None:
        self._deliver(queries, self._dispatcher.ask(queries))
