"""The SQLite database of one scope: written through one connection, read through several.

One connection does all commits and checkpoints, so the daemon never waits for a lock that it holds itself; readers are
`query_only` and see the snapshot of the moment they begin. Of the tables, this module knows only the end of the log.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import apsw
import msgspec

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.command_transaction import Environment, SavepointNeeded, TransactionRolledBack
from backscroll.bus.failures import RESCUE, CannotOpen
from backscroll.bus.files import free_bytes, sync_file
from backscroll.bus.logging import log
from backscroll.bus.query_cache import QueryCache
from backscroll.bus.sqlite import checksums, opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.last_commit import LastCommit, LastCommitFile
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.transaction import BlobsInTransaction, Snapshot, Transaction
from backscroll.bus.sqlite.wal_check import intact_frames
from backscroll.bus.sqlite.wal_lineage import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    RESTARTS_MAX,
    SELECT_MOMENT,
    Moment,
    WalLineage,
    new_lineage,
    salt_of,
)
from backscroll.bus.stores import TAKES_TOO_LONG, BeforeLarge, Commit, Committed
from backscroll.bus.watched_files import WatchedFiles
from backscroll.handlers.chores import next_expiry
from backscroll.handlers.clearing import is_clearing
from backscroll.handlers.clients import KnownClients, known_clients
from backscroll.handlers.command_log import apply_redactions, damage_at_ends, position_of
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import LogPosition, Retention
from backscroll.schema.errors import Storage, TooLarge
from backscroll.schema.tables import Sequence

WAL_PAGES_BEFORE_CHECKPOINT = 1_000
WAL_PAGES_LONG = 4_000
RESTART_WAIT_MS = 50  # to wait for readers of a long write-ahead log; proportional to its length
RESTART_WAIT_MS_MAX = 2_000
PAUSED_LOG_BYTES_MAX = 2**30  # of a write-ahead log, until a pause of checkpoints ends by itself
PAUSED_DISK_BYTES_MIN = 128 * 2**20  # that are free besides what the log may add to the database
STEPS_BETWEEN_CHECKS = 50_000  # of SQLite's virtual machine: a few milliseconds

SELECT_SEQ = statement(Sequence.select(Sequence.seq))
UPDATE_POSITION = statement(
    Sequence.update(
        {Sequence.seq: Named("seq"), Sequence.last_id: Named("last_id"), Sequence.commits: Named("commits")}
    )
)
WAL_FILE = 1  # which file of a connection `read` reads

FOREIGN = "-foreign"  # the suffix of a log that was put in the place of the database's own
RESTART = (
    "Stop the daemon, restore the files that belong together, and only then start it again: where there are none, it"
    " begins with empty ones."
)

T = TypeVar("T")


class SqliteStore:
    """An open database: the `Store` of the daemon. `position` is the durable end of its log."""

    is_shared = False

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
        directory: WatchedFiles | None = None,
        blobs: BlobDirectory | None = None,
    ) -> None:
        """Open the file; raises `CannotOpen`. `scope` is written into a new file and compared with an existing one.

        `directory` watches what all databases of a daemon depend on. The files of this one are watched as well: what is
        written to files that were removed or replaced is not acknowledged. `blobs` are the parts of media beside it.

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
        self.blobs = blobs or BlobDirectory(path.with_suffix(".media"))
        self._environment = Environment(retention or Retention(), random_bytes)
        self.seq_shown, self._showing = 0, threading.Lock()
        self._idle_readers: list[apsw.Connection] = []
        self._busy_readers: dict[apsw.Connection, float] = {}  # and when their queries have to end
        self._wal_pages = self._wal_pages_seen = 0  # now, and at the last checkpoint
        self.checkpoint_due = False
        self._checkpointing = threading.Lock()  # held while the log is copied into the database
        self._paused = False  # while another process copies the files
        self.wal_blocked = False  # another program reads the database, so its log cannot be restarted
        self.lost = ""  # why nothing can be written any more, in words
        self.unreadable = False  # nor can anything be read
        self._rescue_due = False  # nothing is lost yet: a query keeps the log from being copied into the database
        self.reopen_due = False  # everything is in the database, but its log is not the one at its path
        self.due_at: int | None = None
        self.follows = False
        self.clearing_behind, self.clearing_retry_at = "", 0.0
        self.committed_at: int | None = None  # the time of the last commit, in ms since the epoch
        self._directory = directory or WatchedFiles()
        self._database_file, self._log_files = WatchedFiles(), WatchedFiles(path.parent)
        self._other_files = WatchedFiles()  # directory and database in one, because it is asked after each commit
        self._wal = path.with_name(f"{path.name}-wal")
        self._wal_header = b""
        COMPILED.compile_all()
        with opening.explained(path):
            self._open(scope)

    def _open(self, scope: str | None) -> None:
        self._lineage, self._last_commit = WalLineage(self.path), LastCommitFile(self.path)
        opening.check_files(self.path, self._lineage)
        self._writer = opening.open_writer(
            self.path, vfs=self._vfs, lock_wait_ms=self._lock_wait_ms, wal_hook=self._note_wal_size
        )
        try:
            self._prepare(scope)
        except BaseException:
            self._writer.close()
            self._last_commit.close()
            raise

    def _prepare(self, scope: str | None) -> None:
        opening.check_schema(self._writer, self.path)
        opening.migrate(self._writer, self.path)
        opening.claim(self._writer, self.path, scope)
        snapshot = Snapshot(self._writer, BlobsInTransaction(self.blobs), self._clock(), LogPosition())
        if damage := damage_at_ends(snapshot):
            raise CannotOpen(f"{self.path} is damaged: {damage}. {RESCUE}")
        self.position = position_of(snapshot)
        self.clearing = self._unless_damaged(is_clearing, snapshot, True)
        self.seq = self.position.seq
        self.clients = self._unless_damaged(partial(known_clients, self.seq), snapshot, KnownClients())
        expiry: int | None = snapshot.now  # the deletion of what has expired will find out
        self.due_at = self._unless_damaged(next_expiry, snapshot, expiry)
        rows = fetch(self._writer, SELECT_MOMENT)
        self._moment = Moment(*rows[0])
        self._check_last_commit()
        self._commit_nothing()  # creates the write-ahead log
        self._watch_files()
        self._lineage.write(self._moment, in_use=True)

    def _check_last_commit(self) -> None:
        """Raise `CannotOpen` if the log of commands ends otherwise than it did when as many commits had been made."""
        end, found = self._last_commit.read(), LastCommit.of(*self._moment[:2], self.position)
        if end and (end.lineage, end.commits) == (found.lineage, found.commits) and end != found:
            raise CannotOpen(
                f"{self.path} is damaged: it ends with command {found.seq}, and should end with another command "
                f"{end.seq}. {RESCUE} To go on with what is there, remove {self._last_commit.path.name}."
            )

    def _unless_damaged(self, read: Callable[[Snapshot], T], snapshot: Snapshot, otherwise: T) -> T:
        """What `read` returns; if the rows that it needs are damaged, `otherwise`, so that the others can be used."""
        try:
            return read(snapshot)
        except (apsw.Error, UnicodeDecodeError, msgspec.DecodeError) as error:
            log.error("rows that are read first are damaged", path=str(self.path), error=str(error))
            return otherwise

    def renew_lineage(self) -> None:
        """Make this database another than the one that its file was copied from."""
        self._moment = self._moment._replace(lineage=new_lineage())
        self._writer.execute(COMPILED[opening.UPDATE_LINEAGE], {"lineage": self._moment.lineage})

    def _watch_files(self) -> None:
        self._database_file.note(self.path, growing=True)
        self._log_files.note(self._wal)
        self._log_files.note(self.path.with_name(f"{self.path.name}-shm"))
        self._other_files = WatchedFiles.of(self._directory, self._database_file)
        self._frame_bytes = FRAME_HEADER_BYTES + self._writer.pragma("page_size")
        _, self._wal_header = self._writer.read("main", WAL_FILE, 0, HEADER_BYTES)

    def note_expiry(self, at: int | None, _seq: int) -> None:
        """Note when something expires next."""
        self.due_at = at

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
        """A durable transaction; on any error it has no effect. With `savepoints`, commands can fail individually.

        Raises `Storage` if files were lost. If that is noticed after the commit, a command of it may be executed again.
        """
        self._check_before_commit()
        self._writer.execute("BEGIN IMMEDIATE")
        blobs, changes_before = BlobsInTransaction(self.blobs), self._writer.total_changes()
        transaction = Transaction(
            *(self._writer, blobs, self._clock(), self.position, self._environment),
            savepoints=savepoints,
            clearing=self.clearing,
            clients=self.clients,
        )
        try:
            yield transaction
            self._finish(transaction, has_written=self._writer.total_changes() != changes_before)
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if isinstance(error, TransactionRolledBack) and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        self.position, self.clearing = transaction.position, transaction.clearing
        self.seq = self.position.seq
        self.clients.add(transaction.senders)
        try:
            if self._other_files.problem() or self._log_files.problem():
                self._check_after_commit()
        finally:
            if transaction.commands and (not self.lost or self._rescue_due):
                self._committed(Commit(self._scope, self.seq, self.position.chain, transaction.commands), self)
        if transaction.commands:
            self.committed_at = transaction.now
            self.follows = transaction.replays
        if blobs.removals:
            blobs.remove_now()

    def _finish(self, transaction: Transaction, *, has_written: bool) -> None:
        """Redact the log, write its new end, and commit."""
        if transaction.redactions:
            apply_redactions(transaction)
        position, commits = transaction.position, self._moment.commits
        if has_written:
            commits += 1
            transaction.run(UPDATE_POSITION, seq=position.seq, last_id=position.last_id, commits=commits)
        changes = [change for command in transaction.commands for change in command.changes]
        self._before_commit(changes, position.seq)
        if transaction.due_at is not None and (self.due_at is None or transaction.due_at < self.due_at):
            self.due_at = transaction.due_at  # before anybody can read what expires then
        self._commit()
        self._moment = self._moment._replace(commits=commits)
        self._last_commit.write(*self._moment[:2], position)

    @contextmanager
    def read(self, query_ms: int | None = None, before_large: BeforeLarge | None = None, /) -> Iterator[Snapshot]:
        """A snapshot of everything that is durable now. A statement that runs after `query_ms` raises `TooLarge`."""
        if self.unreadable:
            raise Storage(self.lost)
        connection = self._borrow_reader()
        self._busy_readers[connection] = math.inf if query_ms is None else time.monotonic() + query_ms / 1000
        try:
            connection.execute("BEGIN")
            try:
                rows = fetch(connection, SELECT_SEQ)
                seq = rows[0][0]
                with self._showing:
                    self.seq_shown = max(self.seq_shown, seq)
                blobs = BlobsInTransaction(self.blobs)
                yield Snapshot(connection, blobs, self._clock(), LogPosition(seq=seq), before_large)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        finally:
            self._busy_readers.pop(connection, None)
            self._idle_readers.append(connection)

    def now(self) -> int:
        """The time of the store's clock, in milliseconds since the epoch."""
        return self._clock()

    def interrupt_readers(self) -> None:
        """Interrupt all statements that readers are running. May be called from any thread."""
        for connection in list(self._busy_readers):
            with suppress(apsw.ConnectionClosedError):  # its query has ended, and its scope was closed
                connection.interrupt()

    def interrupt_writer(self) -> None:
        """Interrupt the statement that the writer is running. May be called from any thread."""
        with suppress(apsw.ConnectionClosedError):
            self._writer.interrupt()

    def pause_checkpoints(self) -> None:
        """Leave the database file as it is until `resume_checkpoints`, so that it can be copied. Safe from any thread.

        Waits for a checkpoint in progress. Commits go on, into the write-ahead log.
        """
        with self._checkpointing:
            self._paused = True

    def resume_checkpoints(self) -> bool:
        """End the pause; whether it lasted until now. Safe from any thread."""
        with self._checkpointing:
            lasted, self._paused = self._paused, False
        return lasted

    def _may_pause(self) -> bool:
        """Whether the log may go on growing without a checkpoint."""
        log = self._wal_pages * self._frame_bytes
        if log > PAUSED_LOG_BYTES_MAX:
            return False
        free = free_bytes(self.path.parent)
        return free is None or free > PAUSED_DISK_BYTES_MIN + log

    def _checkpoint(self, mode: int) -> tuple[int, int]:
        """Copy the log into the database. A pause that is not over has ended then, and the copy is to be repeated."""
        with self._checkpointing:
            self._paused = False
            return self._writer.wal_checkpoint(mode=mode)

    def checkpoint_if_due(self) -> None:
        """Copy the write-ahead log into the database each time it has grown by `WAL_PAGES_BEFORE_CHECKPOINT`.

        During a pause it stays due, until the log is too long or the disk is almost full.

        A failure loses nothing and is retried later. SQLite restarts the log when all of it has been copied and no
        reader uses it. If queries overlap without a pause, that never happens by itself; so with a long log, this waits
        for readers, which delays the next batch. If the daemon itself is not reading, another program is, perhaps for
        hours: then it waits only briefly, and again only after the log has grown by as much as makes it long.
        """
        if not self.checkpoint_due or (self._paused and self._may_pause()):
            return
        self.checkpoint_due = False
        try:
            self._check_frames()
        except Storage:
            return  # it is logged, and every request gets it from now on
        long, own = self._wal_pages >= WAL_PAGES_LONG, bool(self._busy_readers)
        self._wal_pages_seen = self._wal_pages
        wait_ms = min(RESTART_WAIT_MS * self._wal_pages // WAL_PAGES_LONG, RESTART_WAIT_MS_MAX)
        self._writer.set_busy_timeout(wait_ms if own else RESTART_WAIT_MS)
        try:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART if long else apsw.SQLITE_CHECKPOINT_PASSIVE)
            self.wal_blocked = False
        except apsw.BusyError:
            log.debug("a query still uses the write-ahead log", path=str(self.path), pages=self._wal_pages)
            if not own:
                self.wal_blocked = True
        except apsw.Error as error:
            log.error("checkpoint failed", path=str(self.path), error=str(error))
        finally:
            self._writer.set_busy_timeout(self._lock_wait_ms)

    def checkpoint_fully(self) -> None:
        """Copy the whole write-ahead log into the database, durably, and truncate it; raises if that fails."""
        self._check_frames()
        self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def has_checksums(self) -> bool:
        """Whether the pages of the database file have checksums. Call it from the thread that writes."""
        return checksums.has_checksums(self._writer)

    def interrupt_when(self, is_interrupted: Callable[[], bool]) -> None:
        """Let a statement of the writer fail if it finds this to be true while it runs."""
        self._writer.set_progress_handler(is_interrupted, STEPS_BETWEEN_CHECKS)

    def vacuum_into(self, path: Path) -> None:
        """Write a compact copy, with checksums and without any deleted data, into a new file, durably."""
        self._check_frames()
        self._writer.execute("VACUUM INTO :path", {"path": str(path)})
        opening.mark_closed(path, self._moment.commits + 1)  # as closing this database will
        sync_file(path)

    def bytes_used(self) -> int:
        """The bytes of all rows and media, without free pages. Call it from the thread that writes."""
        return self.copy_bytes() + self.blobs.bytes_stored()

    def copy_bytes(self) -> int:
        """The most bytes that a compact copy takes. Call it from the thread that writes."""
        pages = self._writer.pragma("page_count") - self._writer.pragma("freelist_count")
        return int(pages * self._writer.pragma("page_size"))

    def growth_bytes(self) -> int:
        """By how much the file grows at the next checkpoint. Call it from the thread that writes."""
        pages = self._writer.pragma("page_count") * self._writer.pragma("page_size")
        return max(0, int(pages) - self.path.stat().st_size)

    def log_room_bytes(self) -> int:
        """How much can be written into the write-ahead log before it grows. Call it from the thread that writes."""
        used = HEADER_BYTES + self._wal_pages * self._frame_bytes
        return max(0, self._wal.stat().st_size - used) if self._wal.exists() else 0

    def restart_log(self) -> None:
        """Let what is written next begin at the start of the write-ahead log, if no query needs what it has."""
        with suppress(apsw.Error, Storage):
            self._check_frames()
            self._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART)
            self._wal_pages = self._wal_pages_seen = 0

    def free_page_bytes(self) -> int:
        """The bytes of free pages, which what is saved next can use. Call it from the thread that writes."""
        return int(self._writer.pragma("page_size") * self._writer.pragma("freelist_count"))

    def close(self) -> None:
        """Close all connections; closing the last one copies the write-ahead log into the database."""
        while self._idle_readers:
            self._idle_readers.pop().close()
        self.resume_checkpoints()
        try:
            if self._end_use():
                opening.finish_log(self._writer)
        finally:
            self._writer.close()
            self._last_commit.close()

    def _end_use(self) -> bool:
        """Note that the database is complete without its log; False if the log must stay, as after a crash.

        It also stays if files were lost, because its path may lead to the log of another database by now.
        """
        if self.reopen_due or self.problem() or self._log_files.problem():
            return False
        try:
            self._check_before_commit()
            self._check_frames()
            self._commit_nothing(closed=True)
            self._lineage.write(self._moment, in_use=False)
        except (apsw.Error, OSError, Storage) as error:
            log.error("the write-ahead log stays, as after a crash", path=str(self.path), error=str(error))
            return False
        return True

    def _borrow_reader(self) -> apsw.Connection:
        with suppress(IndexError):
            return self._idle_readers.pop()
        self._check_files()
        connection = opening.open_reader(self.path, vfs=self._vfs, lock_wait_ms=self._lock_wait_ms)
        try:
            fetch(connection, SELECT_SEQ)  # opens the log
            self._check_files()
            connection.set_progress_handler(partial(self._check_time, connection), STEPS_BETWEEN_CHECKS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_files(self) -> None:
        """Raise `Storage` if a connection that is opened now would read other files than the writer."""
        if problem := self.problem():
            raise Storage(problem)
        if problem := self._log_files.problem():
            raise Storage(f"{problem} while the daemon used it; try again.", retryable=True)

    def _check_time(self, connection: apsw.Connection) -> bool:
        """Called by SQLite while a query runs; raises `TooLarge` if it has taken too long."""
        if time.monotonic() > self._busy_readers.get(connection, math.inf):
            raise TooLarge(TAKES_TOO_LONG)
        return False

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except apsw.Error:
            self._overwrite_failed_commit()
            raise

    def _check_before_commit(self) -> None:
        """Raise `Storage` if files were lost, or if the write-ahead log was emptied or overwritten.

        What is written behind the end of an emptied log could not be found again after a crash.
        """
        if self.lost and not self._rescue_due:
            raise Storage(self.lost)
        end = HEADER_BYTES + self._wal_pages * self._frame_bytes
        _, header = self._writer.read("main", WAL_FILE, 0, HEADER_BYTES)
        if header != self._wal_header or not self._writer.read("main", WAL_FILE, end - 1, 1)[0]:
            self._check_log(header)
        if self._rescue_due:
            self._check_after_commit()

    def _check_log(self, header: bytes) -> None:
        """Find out why the log is not what it was: it was restarted, or another program emptied or overwrote it."""
        salt, before = salt_of(header), salt_of(self._wal_header)
        if salt is not None and salt != before:
            if before is None or (salt - before) % 2**32 > RESTARTS_MAX:
                self._refuse(f"{self._wal.name} was overwritten")
            self._wal_header = header
            return
        try:
            frames, _ = self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            self._refuse(f"{self._wal.name} was emptied or shortened")
        if frames:  # else it was emptied by a checkpoint of another program
            self._rescue(f"{self._wal.name} was emptied or shortened")

    def _check_frames(self) -> None:
        """Raise `Storage` if what was committed to the write-ahead log is damaged on the disk.

        SQLite would copy it into the database as it is now, with right checksums, and answers with it already. A log
        that was lost is not examined: that is noticed before the next commit.
        """
        _, header = self._writer.read("main", WAL_FILE, 0, HEADER_BYTES)
        if salt_of(header) is None or self._log_files.problem():
            return
        intact = intact_frames(self.path)
        if intact is not None and intact < self._wal_pages:
            self.unreadable = True
            self.query_cache.clear()
            self._refuse(
                f"{self._wal.name} was damaged on the disk (of its {self._wal_pages} pages {intact} are intact)"
            )

    def _check_after_commit(self) -> None:
        """Raise `Storage` if the commit went to files that are not the ones at their paths any more."""
        if problem := self._directory.problem() or self._database_file.problem():
            self._refuse(problem)
        if problem := self._log_files.problem():
            self._rescue(problem)

    def _rescue(self, problem: str) -> None:
        """Copy everything into the database by the connection that still has the lost log open. Raises `Storage`.

        The store can then be reopened. Until then, and for each commit, this is repeated.
        """
        try:
            if not self.reopen_due:
                self._commit_nothing(closed=True)
            self._checkpoint(apsw.SQLITE_CHECKPOINT_FULL)
            if not self.reopen_due:
                self._lineage.write(self._moment, in_use=False)
                self._set_foreign_log_aside()
        except apsw.BusyError:
            self._refuse(problem, rescue_due=True)
        except (apsw.Error, OSError):
            self._refuse(problem)
        if changed := self._database_file.problem():
            self._refuse(changed)
        if not self.reopen_due:
            log.error("a lost write-ahead log was saved into the database", path=str(self.path), problem=problem)
        self.lost, self._rescue_due, self.reopen_due = "", False, True

    def _set_foreign_log_aside(self) -> None:
        """Rename the file at the path of the lost log, if there is one: SQLite would replay it."""
        foreign = self._wal.with_name(f"{self._wal.name}{FOREIGN}")
        if self._wal.exists() and self._log_files.is_other(self._wal):
            self._wal.replace(foreign)
            log.error("another write-ahead log was put in place of the database's; it was renamed", path=str(foreign))

    def _refuse(self, problem: str, *, rescue_due: bool = False) -> NoReturn:
        """Acknowledge nothing any more, and raise `Storage`."""
        remedy = "A query still needs it; try again." if rescue_due else RESTART
        refused = "read or stored" if self.unreadable else "stored"
        self.lost = f"{problem} while the daemon used it: nothing can be {refused}. {remedy}"
        self._rescue_due = rescue_due
        log.error("files of a database were lost", path=str(self.path), problem=problem)
        raise Storage(self.lost, retryable=rescue_due)

    def problem(self) -> str:
        """Why commands are refused now, in words; empty if they are not. Looks at the files; safe from any thread."""
        if self.lost:
            return self.lost
        problem = self._directory.problem() or self._database_file.problem()
        return f"{problem} while the daemon used it. {RESTART}" if problem else ""

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

    def _commit_nothing(self, *, closed: bool = False) -> None:
        """Commit a page on which nothing but the number of commits changes, and whether the database is `closed`."""
        moment = self._moment._replace(commits=self._moment.commits + 1)
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.execute(COMPILED[opening.UPDATE_COMMITS], {"commits": moment.commits, "closed": closed})
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._moment = moment
        self._last_commit.write(*moment[:2], self.position)

    def _note_wal_size(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        if pages < self._wal_pages:  # the log was restarted
            self._wal_pages_seen, self.wal_blocked = 0, False
        self._wal_pages = pages
        step = WAL_PAGES_LONG if self.wal_blocked else WAL_PAGES_BEFORE_CHECKPOINT
        self.checkpoint_due = pages - self._wal_pages_seen >= step
        return apsw.SQLITE_OK
