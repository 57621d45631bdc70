"""The SQLite file of one scope: opened, migrated, written by one connection, read by several.

One connection owns every commit and every checkpoint, so nothing of ours ever waits for a lock of ours; readers
are `query_only` and see the snapshot of the moment they begin. Knows no table but `sequence`, and no operation.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import structlog

from backscroll.bus.failures import CannotOpen
from backscroll.bus.wal import note_lineage, refuse_foreign_log
from backscroll.handlers.database import Row
from backscroll.handlers.sql import Param, statement
from backscroll.schema.migrations import APPLICATION_ID, migrations
from backscroll.schema.tables import Sequence

WAL_PAGES_BEFORE_CHECKPOINT = 1_000
WAL_BYTES_KEPT = 64 * 2**20  # what a log that once grew is cut back to
WRITER_CACHE_KIB = 16_384
READER_CACHE_KIB = 4_096
STATEMENTS_CACHED = 256

SELECT_SEQ = statement(Sequence.select(Sequence.seq))
UPDATE_SEQ = statement(Sequence.update({Sequence.seq: Param("seq")}))

log = structlog.get_logger()


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class TransactionLost(Exception):
    """SQLite rolled the whole transaction back by itself, as it does on a full disk; the cause says why."""


class Session:
    """One transaction on one connection: the `Database` that handlers see."""

    def __init__(self, connection: apsw.Connection, seq: int, now: int) -> None:
        self._connection = connection
        self.seq = seq
        self.now = now

    def rows(self, sql: str, /, **values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, /, **values: Any) -> Row | None:
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def run(self, sql: str, /, **values: Any) -> int:
        self._connection.execute(sql, values)
        return self._connection.changes()

    @contextmanager
    def command(self) -> Iterator[None]:
        """What happens inside happens wholly and takes the next `seq`, or not at all; its neighbours stand."""
        self._connection.execute("SAVEPOINT command")
        try:
            yield
        except Exception as error:
            if not self._connection.in_transaction:
                raise TransactionLost from error
            self._connection.execute("ROLLBACK TO command")
            self._connection.execute("RELEASE command")
            raise
        self._connection.execute("RELEASE command")
        self.seq += 1


class Store:
    """An open database file. `seq` is the number of the last command that is durable in it.

    `write()` and `checkpoint_if_due()` belong to one thread at a time; `read()` to any.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        lock_wait_ms: int = 2_000,
        vfs: str = "",
    ) -> None:
        self.path = path
        self._clock = clock
        self._lock_wait_ms = lock_wait_ms
        self._vfs = vfs
        self._idle_readers: list[apsw.Connection] = []
        self._wal_pages = 0
        self._checkpoint_at = WAL_PAGES_BEFORE_CHECKPOINT
        with _explained(path):
            refuse_foreign_log(path)
            self._writer = self._open_writer()
            try:
                self._migrate()
                self.seq = _seq(self._writer)
                self._start_log()
            except BaseException:
                self._writer.close()
                raise

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One durable transaction; `session.seq` at its end becomes the store's. On any error nothing happened."""
        self._writer.execute("BEGIN IMMEDIATE")
        session = Session(self._writer, self.seq, self._clock())
        try:
            yield session
            if session.seq != self.seq:
                session.run(UPDATE_SEQ, seq=session.seq)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self.seq = session.seq

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot of everything that is durable now."""
        connection = self._borrow_reader()
        try:
            connection.execute("BEGIN")
            try:
                yield Session(connection, _seq(connection), self._clock())
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        finally:
            self._idle_readers.append(connection)

    def checkpoint_if_due(self) -> None:
        """Copy the log back into the file once it has grown; a failure loses nothing and is tried again later."""
        if self._wal_pages < self._checkpoint_at:
            return
        try:
            pages, moved = self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            log.error("checkpoint failed", path=str(self.path), error=str(error))
            pages, moved = self._wal_pages, 0
        done = moved >= pages
        self._checkpoint_at = WAL_PAGES_BEFORE_CHECKPOINT + (0 if done else self._wal_pages)

    def close(self) -> None:
        """Close every connection; the last one folds the log into the file."""
        while self._idle_readers:
            self._idle_readers.pop().close()
        self._writer.close()

    def _open_writer(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = self._connect(flags)
        try:
            self._recognise(connection)
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
            connection.pragma("foreign_keys", True)
            connection.pragma("secure_delete", True)  # deleted text is overwritten, not just unlinked
            connection.pragma("journal_size_limit", WAL_BYTES_KEPT)
            connection.pragma("cache_size", -WRITER_CACHE_KIB)
            connection.set_wal_hook(self._note_wal_size)  # in place of SQLite's own checkpoint inside COMMIT
        except BaseException:
            connection.close()
            raise
        return connection

    def _borrow_reader(self) -> apsw.Connection:
        with suppress(IndexError):
            return self._idle_readers.pop()
        connection = self._connect(apsw.SQLITE_OPEN_READWRITE)
        connection.pragma("query_only", True)
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("cache_size", -READER_CACHE_KIB)
        return connection

    def _connect(self, flags: int) -> apsw.Connection:
        vfs = self._vfs or None
        connection = apsw.Connection(str(self.path), flags=flags, vfs=vfs, statementcachesize=STATEMENTS_CACHED)
        connection.set_busy_timeout(self._lock_wait_ms)
        connection.pragma("mmap_size", 0)
        connection.pragma("temp_store", "memory")
        return connection

    def _recognise(self, connection: apsw.Connection) -> None:
        """Refuse what is not ours, is from the future, or cannot be written, before anything is changed."""
        if connection.readonly("main"):
            raise CannotOpen(f"{self.path} is read-only. Make it writable for this user.")
        application_id = connection.pragma("application_id")
        empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        if application_id != APPLICATION_ID and not (empty and application_id == 0):
            raise CannotOpen(f"{self.path} is a database of some other program. Name another data directory.")
        version, known = connection.pragma("user_version"), len(migrations())
        if version > known:
            raise CannotOpen(
                f"{self.path} has schema version {version}, and this backscroll knows {known} at most. "
                "Use the newer backscroll that wrote it."
            )

    def _migrate(self) -> None:
        """Take the steps that the file has not taken yet; each is committed together with its version."""
        version = self._writer.pragma("user_version")
        for number, script in enumerate(migrations()[version:], start=version + 1):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._writer.execute(script)
                self._writer.pragma("application_id", APPLICATION_ID)
                self._writer.pragma("user_version", number)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            log.info("migrated", path=str(self.path), version=number)

    def _start_log(self) -> None:
        """Make the write-ahead log exist, so that its lineage is noted before any command depends on it."""
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.execute(UPDATE_SEQ, {"seq": self.seq})
        self._writer.execute("COMMIT")
        note_lineage(self.path)

    def _note_wal_size(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK


def _seq(connection: apsw.Connection) -> int:
    """The number of the last command, as this connection's transaction sees it."""
    seq: Any = connection.execute(SELECT_SEQ).fetchall()[0][0]
    return int(seq)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says when it cannot open a file into what a person can act on."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise CannotOpen(f"{path} is damaged or no SQLite database ({error}). Restore it from a backup.") from error
    except apsw.BusyError as error:
        raise CannotOpen(f"{path} is locked by another process. Stop that process first.") from error
    except (apsw.Error, OSError) as error:
        raise CannotOpen(f"{path} cannot be opened: {error}") from error
