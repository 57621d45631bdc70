"""A scope without files, as queries see it: all tables, no rows, seq 0. Nothing is created for it on the disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from backscroll.bus.query_cache import QueryCache
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.statements import COMPILED
from backscroll.bus.sqlite.transaction import BlobsInTransaction, Snapshot
from backscroll.bus.stores import BeforeLarge
from backscroll.handlers.storage import LogPosition
from backscroll.schema.migrations.sqlite import migrations


class EmptyStore:
    """Shared by all scopes that have no files. Safe to use from any thread: each read has a connection of its own."""

    is_shared = False

    def __init__(self, clock: Callable[[], int]) -> None:
        self.query_cache = QueryCache(0)
        self.due_at: int | None = None
        self._clock = clock
        self._idle: list[apsw.Connection] = []
        self._blobs = BlobDirectory(Path("no-scope.media"))  # never created

    @contextmanager
    def read(self, _query_ms: int | None = None, _before_large: BeforeLarge | None = None, /) -> Iterator[Snapshot]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield Snapshot(connection, BlobsInTransaction(self._blobs), self._clock(), LogPosition())
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> apsw.Connection:
        COMPILED.compile_all()
        connection = apsw.Connection(":memory:")
        for script in migrations():
            connection.execute(script)
        connection.pragma("query_only", True)
        return connection
