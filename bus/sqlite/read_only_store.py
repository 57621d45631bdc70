"""A database whose files cannot be written, because the disk is read-only or full: it answers queries only.

SQLite needs a `-shm` file beside a database to read its write-ahead log, unless a connection has the log for itself:
then the index of the log is in that connection's memory. That is what the connections here claim, without any locks,
because nobody writes: the daemon has the data directory locked, and no writer of its own.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import apsw

from backscroll.bus.failures import RESCUE, CannotOpen
from backscroll.bus.query_cache import QueryCache
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.store import SELECT_SEQ, STEPS_BETWEEN_CHECKS
from backscroll.bus.sqlite.transaction import BlobsInTransaction, Snapshot
from backscroll.bus.sqlite.wal_lineage import WalLineage
from backscroll.bus.stores import TAKES_TOO_LONG, BeforeLarge
from backscroll.handlers.command_log import damage_at_ends, position_of
from backscroll.handlers.storage import LogPosition
from backscroll.schema.errors import TooLarge


class ReadOnlyStore:
    """An open database that is not written. Safe to use from any thread: each read has a connection of its own."""

    is_shared = False

    def __init__(self, path: Path, *, clock: Callable[[], int], scope: str, query_cache: QueryCache) -> None:
        """Open the file; raises `CannotOpen` if it is damaged, of another scope, or has to be migrated first."""
        self.path = path
        self.query_cache = query_cache
        self.due_at: int | None = None  # what expires stays: it cannot be deleted
        self._clock = clock
        self._blobs = BlobDirectory(path.with_suffix(".media"))
        self._idle: list[apsw.Connection] = []
        self._busy: dict[apsw.Connection, float] = {}  # and when their queries have to end
        COMPILED.compile_all()
        with opening.explained(path):
            opening.check_files(path, WalLineage(path), read_only=True)
            connection = self._connect()
            try:
                self.position = self._check(connection, scope)
            except BaseException:
                connection.close()
                raise
        self._idle.append(connection)
        self.seq = self.position.seq

    def _check(self, connection: apsw.Connection, scope: str) -> LogPosition:
        opening.recognise(connection, self.path)
        opening.check_schema(connection, self.path)
        opening.check_migrated(connection, self.path)
        opening.check_scope(connection, self.path, scope)
        snapshot = Snapshot(connection, BlobsInTransaction(self._blobs), self._clock(), LogPosition())
        if damage := damage_at_ends(snapshot):
            raise CannotOpen(f"{self.path} is damaged: {damage}. {RESCUE}")
        return position_of(snapshot)

    @contextmanager
    def read(self, query_ms: int | None = None, before_large: BeforeLarge | None = None, /) -> Iterator[Snapshot]:
        """A snapshot of the database. A statement that runs after `query_ms` raises `TooLarge`."""
        connection = self._borrow()
        self._busy[connection] = math.inf if query_ms is None else time.monotonic() + query_ms / 1000
        try:
            blobs = BlobsInTransaction(self._blobs)
            yield Snapshot(connection, blobs, self._clock(), LogPosition(seq=self.seq), before_large)
        finally:
            self._busy.pop(connection, None)
            self._idle.append(connection)

    def interrupt_readers(self) -> None:
        """Interrupt all statements that readers are running. May be called from any thread."""
        for connection in list(self._busy):
            with suppress(apsw.ConnectionClosedError):
                connection.interrupt()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _borrow(self) -> apsw.Connection:
        with suppress(IndexError):
            return self._idle.pop()
        return self._connect()

    def _connect(self) -> apsw.Connection:
        connection = opening.open_alone(self.path)
        fetch(connection, SELECT_SEQ)  # opens the log
        connection.set_progress_handler(partial(self._check_time, connection), STEPS_BETWEEN_CHECKS)
        return connection

    def _check_time(self, connection: apsw.Connection) -> bool:
        """Called by SQLite while a query runs; raises `TooLarge` if it has taken too long."""
        if time.monotonic() > self._busy.get(connection, math.inf):
            raise TooLarge(TAKES_TOO_LONG)
        return False
