"""The SQLite database of one scope: written through one connection, read through several.

One connection does all commits and checkpoints, so the daemon never waits for a lock that it holds itself; readers are
`query_only` and see the snapshot of the moment they begin. Of the tables, this module knows only the end of the log.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.files import sync_file
from backscroll.bus.logging import log
from backscroll.bus.query_cache import QueryCache
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.statements import COMPILED
from backscroll.bus.sqlite.transaction import (
    BlobsInTransaction,
    Environment,
    SavepointNeeded,
    Snapshot,
    Transaction,
    TransactionRolledBack,
)
from backscroll.bus.sqlite.wal_lineage import WalLineage
from backscroll.bus.stores import Commit, Committed
from backscroll.handlers.command_log import apply_redactions, position_of
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import LogPosition, Retention
from backscroll.schema.tables import Sequence

WAL_PAGES_BEFORE_CHECKPOINT = 1_000
WAL_PAGES_LONG = 4_000
RESTART_WAIT_MS = 50  # to wait for readers of a long write-ahead log; proportional to its length
RESTART_WAIT_MS_MAX = 2_000

SELECT_SEQ = statement(Sequence.select(Sequence.seq))
UPDATE_POSITION = statement(Sequence.update({Sequence.seq: Named("seq"), Sequence.last_id: Named("last_id")}))

T = TypeVar("T")


class SqliteStore:
    """An open database: the `Store` of the daemon. `position` is the durable end of its log."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        random_bytes: Callable[[int], bytes] = os.urandom,
        lock_wait_ms: int = 2_000,
        vfs: str = "",
        scope: str | None = None,
        retention: Retention | None = None,
        query_cache: QueryCache | None = None,
        committed: Committed = lambda *_: None,
    ) -> None:
        """Open the file; raises `CannotOpen`. `scope` is written into a new file and compared with an existing one.

        Before each commit, the query cache evicts what the commit changes; after it, and before callers are answered,
        `committed` receives the commit.
        """
        self.path = path
        self.query_cache = QueryCache() if query_cache is None else query_cache
        self._scope = scope or ""
        self._before_commit = self.query_cache.evict
        self._committed = committed
        self._clock = clock
        self._lock_wait_ms = lock_wait_ms
        self._vfs = vfs
        self.blobs = BlobDirectory(path.with_suffix(".media"))
        self._environment = Environment(retention or Retention(), random_bytes)
        self.seq_shown, self._showing = 0, threading.Lock()
        self._idle_readers: list[apsw.Connection] = []
        self._busy_readers: set[apsw.Connection] = set()
        self._wal_pages = self._wal_pages_seen = 0  # now, and at the last checkpoint
        self.checkpoint_due = False
        self._wal_is_new = True  # created or restarted since its lineage was noted
        COMPILED.compile_all()
        with opening.explained(path):
            self._open(scope)

    def _open(self, scope: str | None) -> None:
        self._lineage = WalLineage(self.path)
        opening.refuse_emptied(self.path, self._lineage)
        self._lineage.check()
        self._writer = opening.open_writer(
            self.path, vfs=self._vfs, lock_wait_ms=self._lock_wait_ms, wal_hook=self._note_wal_size
        )
        try:
            self._prepare(scope)
        except BaseException:
            self._writer.close()
            raise

    def _prepare(self, scope: str | None) -> None:
        opening.check_schema(self._writer, self.path)
        opening.migrate(self._writer, self.path)
        opening.claim(self._writer, self.path, scope)
        blobs = BlobsInTransaction(self.blobs)
        self.position = position_of(Snapshot(self._writer, blobs, self._clock(), LogPosition()))
        self.seq = self.position.seq
        self._commit_nothing()  # creates the write-ahead log, so that its lineage is noted before the first command
        self._lineage.write_note()

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Call `work` with a durable transaction; a command that fails inside it does not affect the others.

        The first attempt has no savepoints, because each would cost as much as a row. If a command fails after it has
        written, everything is rolled back and repeated with savepoints.
        """
        try:
            with self.write(savepoints=False) as transaction:
                return work(transaction)
        except SavepointNeeded:
            with self.write() as transaction:
                return work(transaction)

    @contextmanager
    def write(self, *, savepoints: bool = True) -> Iterator[Transaction]:
        """A durable transaction; on any error it has no effect. With `savepoints`, commands can fail individually."""
        self._writer.execute("BEGIN IMMEDIATE")
        blobs = BlobsInTransaction(self.blobs)
        transaction = Transaction(
            self._writer, blobs, self._clock(), self.position, self._environment, savepoints=savepoints
        )
        try:
            yield transaction
            self._finish(transaction)
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if isinstance(error, TransactionRolledBack) and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        self.position = transaction.position
        self.seq = self.position.seq
        if blobs.removals:
            blobs.remove_now()
        if transaction.commands:
            self._committed(Commit(self._scope, self.seq, transaction.commands), self)

    def _finish(self, transaction: Transaction) -> None:
        """Redact the log, write its new end, and commit."""
        if transaction.redactions:
            apply_redactions(transaction)
        position = transaction.position
        if position != self.position:
            transaction.run(UPDATE_POSITION, seq=position.seq, last_id=position.last_id)
        changes = [change for command in transaction.commands for change in command.changes]
        self._before_commit(changes, position.seq)
        self._commit()

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A snapshot of everything that is durable now."""
        connection = self._borrow_reader()
        self._busy_readers.add(connection)
        try:
            connection.execute("BEGIN")
            try:
                rows: Any = connection.execute(COMPILED[SELECT_SEQ]).fetchall()
                seq = rows[0][0]
                with self._showing:
                    self.seq_shown = max(self.seq_shown, seq)
                yield Snapshot(connection, BlobsInTransaction(self.blobs), self._clock(), LogPosition(seq=seq))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        finally:
            self._busy_readers.discard(connection)
            self._idle_readers.append(connection)

    def interrupt_readers(self) -> None:
        """Interrupt all statements that readers are running. May be called from any thread."""
        for connection in list(self._busy_readers):
            with suppress(apsw.ConnectionClosedError):  # its query has ended, and its scope was closed
                connection.interrupt()

    def checkpoint_if_due(self) -> None:
        """Copy the write-ahead log into the database each time it has grown by `WAL_PAGES_BEFORE_CHECKPOINT`.

        A failure loses nothing and is retried later. SQLite restarts the log when all of it has been copied and no
        reader uses it. If queries overlap without a pause, that never happens by itself; so with a long log, this waits
        for readers after each batch, which delays the next batch.
        """
        if not self.checkpoint_due:
            return
        self.checkpoint_due = False
        long = self._wal_pages >= WAL_PAGES_LONG
        self._wal_pages_seen = self._wal_pages
        self._writer.set_busy_timeout(min(RESTART_WAIT_MS * self._wal_pages // WAL_PAGES_LONG, RESTART_WAIT_MS_MAX))
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART if long else apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            log.debug("a query still uses the write-ahead log", path=str(self.path), pages=self._wal_pages)
        except apsw.Error as error:
            log.error("checkpoint failed", path=str(self.path), error=str(error))
        finally:
            self._writer.set_busy_timeout(self._lock_wait_ms)

    def checkpoint_fully(self) -> None:
        """Copy the whole write-ahead log into the database, durably, and truncate it; raises if that fails."""
        self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def vacuum_into(self, path: Path) -> None:
        """Write a compact copy of the database, without any deleted data, into a new file, durably."""
        self._writer.execute("VACUUM INTO :path", {"path": str(path)})
        sync_file(path)

    def close(self) -> None:
        """Close all connections; closing the last one copies the write-ahead log into the database."""
        while self._idle_readers:
            self._idle_readers.pop().close()
        self._writer.close()

    def _borrow_reader(self) -> apsw.Connection:
        with suppress(IndexError):
            return self._idle_readers.pop()
        return opening.open_reader(self.path, vfs=self._vfs, lock_wait_ms=self._lock_wait_ms)

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except apsw.Error:
            self._overwrite_failed_commit()
            raise
        if self._wal_is_new:
            self._note_lineage()

    def _note_lineage(self) -> None:
        try:
            self._lineage.write_note()
            self._wal_is_new = False
        except OSError as error:  # the commit is valid; the next one tries again
            log.error("cannot note the lineage of the write-ahead log", path=str(self.path), error=str(error))

    def _overwrite_failed_commit(self) -> None:
        """Overwrite what a failed COMMIT left in the log: if only its sync failed, a crash would bring it back.

        If the disk refuses this as well, the next successful commit does it.
        """
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._commit_nothing()
        except apsw.Error as error:
            log.error("a failed commit may reappear after a crash", path=str(self.path), error=str(error))

    def _commit_nothing(self) -> None:
        """Commit a page without changes. SQLite skips an UPDATE with equal values, but not this."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.pragma("user_version", self._writer.pragma("user_version"))
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _note_wal_size(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._wal_pages:  # the log was restarted
            self._wal_pages_seen = 0
            self._wal_is_new = True
        self._wal_pages = pages
        grown = pages - self._wal_pages_seen
        self.checkpoint_due = pages >= WAL_PAGES_LONG or grown >= WAL_PAGES_BEFORE_CHECKPOINT
        return apsw.SQLITE_OK
