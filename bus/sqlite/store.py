"""The SQLite file of one scope: opened, migrated, written by one connection, read by several.

One connection owns every commit and every checkpoint, so nothing of ours ever waits for a lock of ours; readers
are `query_only` and see the snapshot of the moment they begin. Knows of the tables only how far the scope has come,
and no operation.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import sync_file
from backscroll.bus.logging import log
from backscroll.bus.query_cache import BYTES_MAX, QueryCache
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.token_key import TokenKey
from backscroll.bus.sqlite.transaction import Transaction
from backscroll.bus.sqlite.wal_lineage import WalLineage
from backscroll.handlers.command_log import apply_redactions, position_of
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Position, Retention
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from backscroll.schema.tables import Scope, Sequence

WAL_PAGES_BEFORE_CHECKPOINT = 1_000
WAL_PAGES_LONG = 4_000
RESTART_WAIT_MS = 50  # how long a long log waits for queries to leave it; the longer it is, the longer
RESTART_WAIT_MS_MAX = 2_000
WAL_BYTES_KEPT = 64 * 2**20  # what a log that once grew is cut back to
WRITER_CACHE_KIB = 16_384
READER_CACHE_KIB = 4_096
STATEMENTS_CACHED = 256
FILE_BYTES_MIN = 512  # one page of the smallest size
RETENTION = Retention()

READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI

SELECT_SEQ = statement(Sequence.select(Sequence.seq))
UPDATE_POSITION = statement(Sequence.update({Sequence.seq: Named("seq"), Sequence.last_id: Named("last_id")}))
SELECT_SCOPE = statement(Scope.select(Scope.name))
INSERT_SCOPE = statement(Scope.insert({Scope.id: Named("id"), Scope.name: Named("name")}))


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Store:
    """An open database file. `position` is how far what is durable in it has come.

    `write()` and `checkpoint_if_due()` belong to one thread at a time; `read()` to any. `seq_shown` is the newest
    commit that a snapshot has shown: readers see it a moment before `position` tells of it.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        lock_wait_ms: int = 2_000,
        vfs: str = "",
        scope: str | None = None,
        retention: Retention = RETENTION,
        query_cache_bytes: int = BYTES_MAX,
        on_commit: Callable[["Store"], None] = lambda _: None,
    ) -> None:
        """Raises `CannotOpen`. `scope` is whose data this is: written into a new file, compared with an older one.

        `on_commit` is called after each commit, before anybody is told of it, and raises nothing.
        """
        self.path = path
        self.parts = BlobDirectory(path.with_suffix(".media"))
        self._secret = TokenKey(path.with_name(f"{path.name}-key"))
        self._keeping = retention
        self._on_commit = on_commit
        self._clock = clock
        self._lock_wait_ms = lock_wait_ms
        self._vfs = vfs
        self.answers = QueryCache(query_cache_bytes)
        self.seq_shown, self._showing = 0, threading.Lock()
        self._idle_readers: list[apsw.Connection] = []
        self._busy_readers: set[apsw.Connection] = set()
        self._wal_pages = self._wal_pages_seen = 0  # in the log, and those that were there at the last checkpoint
        self._log_is_new = True  # begun, or begun anew, since it was noted last
        with _explained(path):
            self._refuse_stump()
            self._guard = WalLineage(path)
            self._writer = self._open_writer()
            try:
                self._prepare(scope)
            except BaseException:
                self._writer.close()
                raise
            self.opened_at = self.seq

    def _prepare(self, scope: str | None) -> None:
        """Bring the file to today's tables, hold it against them and against its scope, and find out how far it is."""
        self._migrate()
        self._check_schema()
        self._claim(scope)
        self.position = position_of(self._session(self._writer, Position()))
        self._start_log()

    @property
    def seq(self) -> int:
        """The number of the last command that is durable."""
        return self.position.seq

    @contextmanager
    def write(self, *, savepoints: bool = True) -> Iterator[Transaction]:
        """One durable transaction; where the session comes to is where the store then is. On any error nothing was.

        `savepoints` lets commands fail one by one; see `Transaction`.
        """
        self._writer.execute("BEGIN IMMEDIATE")
        session = self._session(self._writer, self.position, savepoints=savepoints)
        try:
            yield session
            apply_redactions(session)
            position = session.position
            if position != self.position:
                session.run(UPDATE_POSITION, seq=position.seq, last_id=position.last_id)
            self._end_answers(session)
            self._commit()
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self.position = position
        session.parts.remove_now()
        self._on_commit(self)

    def _end_answers(self, session: Transaction) -> None:
        """Let go of the answers that the commit to come makes wrong."""
        if session.all_touched:
            self.answers.touch_all(session.position.seq)
        else:
            self.answers.touch(session.rooms_touched, session.position.seq)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A snapshot of everything that is durable now."""
        connection = self._borrow_reader()
        self._busy_readers.add(connection)
        try:
            connection.execute("BEGIN")
            try:
                rows: Any = connection.execute(SELECT_SEQ).fetchall()
                seq = rows[0][0]
                with self._showing:
                    self.seq_shown = max(self.seq_shown, seq)
                yield self._session(connection, Position(seq=seq))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        finally:
            self._busy_readers.discard(connection)
            self._idle_readers.append(connection)

    def _session(self, connection: apsw.Connection, position: Position, *, savepoints: bool = True) -> Transaction:
        now = self._clock()
        return Transaction(connection, self.parts, self._secret, self._keeping, position, now, savepoints=savepoints)

    def interrupt_readers(self) -> None:
        """Break off every statement that a reader is running now; from any thread."""
        for connection in list(self._busy_readers):
            with suppress(apsw.ConnectionClosedError):  # its query has ended, and its scope was closed
                connection.interrupt()

    def checkpoint_if_due(self) -> None:
        """Copy the log back into the file each time it has grown by so much.

        A failure loses nothing and is tried again later. SQLite begins the log anew once all of it is copied and no
        reader is in it. Where queries never pause that moment does not come by itself: then a long log waits for it
        after each batch, and the next batch with it.
        """
        long = self._wal_pages >= WAL_PAGES_LONG
        if not long and self._wal_pages - self._wal_pages_seen < WAL_PAGES_BEFORE_CHECKPOINT:
            return
        self._wal_pages_seen = self._wal_pages
        self._writer.set_busy_timeout(min(RESTART_WAIT_MS * self._wal_pages // WAL_PAGES_LONG, RESTART_WAIT_MS_MAX))
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART if long else apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            log.debug("some query still needs the log", path=str(self.path), pages=self._wal_pages)
        except apsw.Error as error:
            log.error("checkpoint failed", path=str(self.path), error=str(error))
        finally:
            self._writer.set_busy_timeout(self._lock_wait_ms)

    def fold_in_log(self) -> None:
        """Put everything into the file itself, durably; raises where that cannot be."""
        self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def write_anew(self, into: Path) -> None:
        """Write everything that is there into a new file, and nothing that was."""
        self._writer.execute("VACUUM INTO :path", {"path": str(into)})
        sync_file(into)

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except apsw.Error:
            self._disown_commit()
            raise
        if self._log_is_new:
            self._note_log()

    def _note_log(self) -> None:
        try:
            self._guard.note()
            self._log_is_new = False
        except OSError as error:  # the commit stands; the next one tries again
            log.error("the log in use cannot be noted", path=str(self.path), error=str(error))

    def _disown_commit(self) -> None:
        """Write over what a failed COMMIT left in the log: when only its sync failed, a crash would bring it back.

        Where the disk does not take this either, the next commit that succeeds does it.
        """
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._commit_nothing()
        except apsw.Error as error:
            log.error("a failed commit may return after a crash", path=str(self.path), error=str(error))

    def _commit_nothing(self) -> None:
        """Commit a page without changing anything. SQLite leaves out an UPDATE of equal values, but not this."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.pragma("user_version", self._writer.pragma("user_version"))
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close every connection; the last one folds the log into the file."""
        while self._idle_readers:
            self._idle_readers.pop().close()
        self._writer.close()

    def _refuse_stump(self) -> None:
        """SQLite takes a file of a few bytes for an empty one, and writes over it."""
        if self.path.is_file() and 0 < self.path.stat().st_size < FILE_BYTES_MIN:
            raise CannotOpen(f"{self.path} is damaged or no SQLite database. Restore it from a backup.")

    def _open_writer(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = self._connect(flags)
        try:
            self._recognise(connection)
            if connection.pragma("journal_mode", "wal") != "wal":
                raise CannotOpen(f"{self.path} lies on a file system without shared memory. Name a local directory.")
            connection.pragma("synchronous", "full")
            connection.pragma("fullfsync", True)  # on macOS only this reaches the disk; elsewhere it changes nothing
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

    def _check_schema(self) -> None:
        """Refuse a file that lacks any of what the migrations make, just as they make it."""
        with closing(apsw.Connection(":memory:")) as fresh:
            for script in migrations():
                fresh.execute(script)
            missing = _schema(fresh) - _schema(self._writer)
        if missing:
            names = ", ".join(sorted(name for name, _ in missing))
            raise CannotOpen(
                f"{self.path} is damaged: its {names} are not as they were made. Restore it from a backup."
            )

    def _claim(self, scope: str | None) -> None:
        """Write the scope's name into a file that has none, or compare it."""
        if scope is None:
            return
        rows: Any = self._writer.execute(SELECT_SCOPE).fetchall()
        if not rows:
            self._writer.execute(INSERT_SCOPE, {"id": 1, "name": scope})
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)  # so that `name_inside` finds it
        elif rows[0][0] != scope:
            raise CannotOpen(f"{self.path} belongs to another scope.")

    def _start_log(self) -> None:
        """Make the write-ahead log exist, so that its lineage is noted before any command depends on it."""
        self._commit_nothing()
        self._guard.note()

    def _note_wal_size(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._wal_pages:  # the log was begun anew
            self._wal_pages_seen = 0
            self._log_is_new = True
        self._wal_pages = pages
        return apsw.SQLITE_OK


def name_inside(path: Path) -> str | None:
    """The scope that a closed file belongs to; None where the file says nothing.

    Its log is not looked at, for that would need a lock. The name is in the file before any command is; a crash in the
    middle of a checkpoint may leave that shorter than it says, which SQLite overlooks under `writable_schema`.
    """
    try:
        with closing(apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=READ_ONLY)) as connection:
            connection.pragma("writable_schema", True)
            rows: Any = connection.execute(SELECT_SCOPE).fetchall()
    except apsw.Error:
        return None
    return str(rows[0][0]) if rows else None


def _schema(connection: apsw.Connection) -> set[tuple[str, str]]:
    """What is defined in a file: names, and the SQL that made them."""
    rows: Any = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return set(rows.fetchall())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says when it cannot open a file into what a person can act on."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError, UnicodeDecodeError, IndexError) as error:
        raise CannotOpen(f"{path} is damaged or no SQLite database ({error}). Restore it from a backup.") from error
    except apsw.BusyError as error:
        raise CannotOpen(f"{path} is locked by another process. Stop that process first.") from error
    except apsw.CantOpenError as error:
        raise CannotOpen(f"{path} cannot be opened. Is it a file that this user may read and write?") from error
    except (apsw.Error, OSError) as error:
        raise CannotOpen(f"{path} cannot be opened: {error}") from error
