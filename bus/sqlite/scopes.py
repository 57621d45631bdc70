"""The scopes of one data directory: each a database of its own, opened when used and closed when idle.

A scope's name may be any text. Its files are named by the hash of the name, so that no name can lead outside the
directory or collide with another one on any file system; the name itself is stored in the database and compared
whenever it is opened. The scope `default` has the file `default.db`.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import apsw

from backscroll.bus.access_files import AccessFiles
from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.directory import LOCK_FILE, RESTORING
from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import free_bytes, make_directory, size_of, sync_directory, write_whole
from backscroll.bus.logging import log
from backscroll.bus.progress import Progress
from backscroll.bus.query_cache import BYTES_MAX, QueryCache
from backscroll.bus.reserve import RESERVE_FILE, Reserve
from backscroll.bus.sqlite import errors
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.empty_store import EmptyStore
from backscroll.bus.sqlite.opening import DEFAULT_FILE, REPAIRED, scope_named_in
from backscroll.bus.sqlite.read_only_store import ReadOnlyStore
from backscroll.bus.sqlite.store import RESTART, SqliteStore
from backscroll.bus.sqlite.wal_lineage import WalLineage
from backscroll.bus.stores import (
    ADOPTED_BYTES,
    IDLE_SECONDS,
    OPEN_MAX,
    BackupPlan,
    Commit,
    Committed,
    Outcome,
    ReadStore,
    Store,
)
from backscroll.bus.watched_files import WatchedFiles
from backscroll.handlers.registry import Handlers
from backscroll.handlers.scopes import ScopeAdmin
from backscroll.handlers.storage import Retention
from backscroll.schema.errors import BackscrollError, Busy, NotFound, Storage
from backscroll.schema.replies import Backup, StorageHealth
from backscroll.schema.wire import DEFAULT_SCOPE

WAL_RESET_BUG_FROM, WAL_RESET_BUG_UNTIL = (3, 7, 0), (3, 51, 3)
MEASURE_SECONDS = 1.0
DISK_FULL = "the disk is full"
READ_ONLY = (
    "the data directory is read-only for the daemon: queries are answered, and commands are refused until it can be"
    " written again"
)
LOW_BYTES = 64 * 2**20  # of free disk: more than is written between two looks at it
WRITTEN_TIMES = 2.5  # what a request takes in a log: it is stored in its row and in the command log, in whole pages
SPARE_BYTES = 256 * 1024
OPENING_BYTES = 512 * 1024  # on the disk, to open a database for writing: its log, the index of that, and the note
PAGE_CACHES_BYTES = 64 * 2**20  # of SQLite, in the whole process: beyond that, a cache uses its own pages again
COMPACTED = "-compacted"  # the suffix of a compact copy in progress
OWN_FILES = (
    "",
    "-wal",
    "-shm",
    "-wal-lineage",
    "-wal-lineage.new",
    "-wal-foreign",
    "-wal-lost",
    "-last-commit",
    COMPACTED,
    REPAIRED,
)
DELETING = "-deleting"  # the suffix of the file that says that the others are being removed
ADOPTING = "adopting-"  # the prefix of directories for copies of files to import
CHECKING = "checking-"  # the same for copies of databases to check
COPYING = "copying-"  # the same for databases that are copied from another store


class Scope:
    """One scope: its files, and its store while it is open; `read_only` instead if its files cannot be written.

    `files_lock` is held to open, close or replace the files; `users` is the number of current uses of the store.
    `seq` is the last known seq: 0 until the file is opened for the first time.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.media = path.with_suffix(".media")
        self.blobs = BlobDirectory(self.media)  # outlives the store, because its files may have to stay that long
        self.store: SqliteStore | None = None
        self.read_only: ReadOnlyStore | None = None
        self.closed_at_seq = 0
        self.files_lock = threading.RLock()
        self.left = threading.Condition()
        self.users = 0
        self.closed_to: list[Callable[[], None]] | None = None  # during an exclusive operation: what waits for its end
        self.last_used = 0.0
        self.copies = 0  # of the files that are being made now: they are not closed meanwhile because they are idle

    @property
    def seq(self) -> int:
        store = self.store or self.read_only
        return store.seq if store else self.closed_at_seq

    @property
    def is_clearing(self) -> bool:
        """Whether messages of cleared rooms are being removed."""
        store = self.store
        return store is not None and store.clearing

    def enter(self) -> None:
        with self.left:
            self.users += 1

    def leave(self, *, used: bool = True) -> None:
        """End a use. With `used=False`, for the daemon's own work, the scope does not count as used."""
        with self.left:
            self.users -= 1
            if used:
                self.last_used = time.monotonic()
            self.left.notify_all()

    def enter_shared(self, resume: Callable[[], None]) -> bool:
        """Enter, unless an exclusive operation is in progress or waiting: then `resume` is called at its end."""
        with self.left:
            if self.closed_to is None:
                self.users += 1
                return True
            self.closed_to.append(resume)
            return False

    def begin_exclusive(self) -> None:
        """Let nobody enter the scope shared any more, and wait until it is unused."""
        with self.left:
            self.left.wait_for(lambda: self.closed_to is None)
            self.closed_to = []
            self.left.wait_for(lambda: self.users == 0)

    def end_exclusive(self) -> None:
        with self.left:
            waiting, self.closed_to = self.closed_to or [], None
            self.left.notify_all()
        for resume in waiting:
            resume()

    def wait_until_unused(self) -> None:
        with self.left:
            self.left.wait_for(lambda: self.users == 0)

    def close(self) -> None:
        """Close the files if they are open. If the last checkpoint fails, the write-ahead log stays beside them."""
        if self.read_only is not None:
            self.closed_at_seq = self.read_only.seq
            self.read_only.close()
            self.read_only = None
        store = self.store
        if store is None:
            return
        self.closed_at_seq, self.store = store.seq, None
        try:
            store.close()
        except Exception as error:  # noqa: BLE001  # apsw passes on any exception of a VFS
            log.error("last checkpoint failed; the write-ahead log stays", path=str(self.path), error=str(error))

    def bytes_on_disk(self) -> int:
        """The size of the scope's files, including media."""
        return sum(file.stat().st_size for file in self._files() if file.exists()) + self.blobs.size()

    def exists(self) -> bool:
        """Whether there are any files of the scope."""
        return any(file.exists() for file in (*self._files(), self.media, beside(self.path, DELETING)))

    def remove_files(self) -> None:
        """Remove all files, durably. Once the marker is written, it is done or will be finished before the next use."""
        marker = beside(self.path, DELETING)
        if self.path.parent.is_dir():  # it is created with the first scope
            write_whole(marker, b"")
        with suppress(FileNotFoundError):
            shutil.rmtree(self.media)
        self.blobs.forget()
        for file in self._files():
            file.unlink(missing_ok=True)
        if self.name == DEFAULT_SCOPE:
            self.path.touch(mode=0o600)  # an empty file is a new database; a missing one would be taken for lost
        if self.path.parent.is_dir():
            sync_directory(self.path.parent)
            marker.unlink(missing_ok=True)
            sync_directory(self.path.parent)
        self.closed_at_seq = 0

    def replace_all(self, database: Path, seq: int) -> None:
        """Replace all files by a closed database and the media beside it, durably. A crash in between removes all."""
        self.remove_files()
        make_directory(self.path.parent)
        marker = beside(self.path, DELETING)
        write_whole(marker, b"")
        media = database.with_suffix(".media")
        if media.exists():
            media.rename(self.media)
        self.take_over(database, seq)
        marker.unlink()
        sync_directory(self.path.parent)

    def finish_removal(self) -> None:
        """Remove what an interrupted `remove_files` has left. Nobody may use the files."""
        if beside(self.path, DELETING).exists():
            self.remove_files()

    def _files(self) -> list[Path]:
        return [beside(self.path, suffix) for suffix in OWN_FILES]

    def take_over(self, database: Path, seq: int) -> None:
        """Replace the database by a closed database file, durably."""
        make_directory(self.path.parent)
        WalLineage(self.path).expect_bytes(database.stat().st_size)
        database.replace(self.path)
        sync_directory(self.path.parent)
        self.closed_at_seq = seq


class FilesToCopy:
    """The files of one scope that may be copied now: the database, then its write-ahead log, which may be missing.

    `media` is the directory of its parts, all of which stay. The copy must have everything up to `seq`.
    """

    def __init__(self, scope: Scope, store: SqliteStore | None) -> None:
        self.database, self.media = scope.path, scope.media
        self.seq = scope.seq
        self._store = store
        self._version = _version_of(scope.path)

    def end(self) -> bool:
        """Let the database change again; whether it did not until now, so that what was copied is one state."""
        lasted = self._store is None or self._store.resume_checkpoints()
        return lasted and _version_of(self.database) == self._version


class Space(NamedTuple):
    """How much scopes may take: their number, the bytes of one and of all, each 0 for no bound; and the reserve.

    The bytes of one scope are those of its rows and media, without free pages; those of all are the sizes of files.
    """

    scopes_max: int = 0
    scope_bytes: int = 0
    data_bytes: int = 0
    reserve_bytes: int = 0


class SqliteScopes:
    """All scopes of a data directory. Safe to use from any thread.

    `clock` returns milliseconds since the epoch; `vfs` names an apsw VFS; `committed` receives every commit.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        lock_wait_ms: int = 2_000,
        retention: Retention | None = None,
        query_cache_bytes: int = BYTES_MAX,
        adopted_bytes: int = ADOPTED_BYTES,
        vfs: str = "",
        committed: Committed = lambda *_: None,
        space: Space = Space(),  # noqa: B008  # immutable
    ) -> None:
        self.directory = directory
        self.access = AccessFiles(directory)
        _check_restored(directory)
        self._clock = clock
        self._lock_wait_ms = lock_wait_ms
        self._retention = retention
        self._query_cache_bytes = query_cache_bytes
        self._vfs = vfs
        self._receivers = [committed]
        self.adopted_bytes = adopted_bytes
        self.stopping = threading.Event()
        self._adopting = threading.Lock()
        self._scopes: dict[str, Scope] = {}
        self._open: dict[str, Scope] = {}
        self._cannot_open: dict[str, str] = {}  # why scopes could not be opened, by name
        self._lock = threading.Lock()
        self.files = WatchedFiles()
        if directory.is_dir():
            self.files.note(directory, "the data directory")
        if (directory / LOCK_FILE).exists():
            self.files.note(directory / LOCK_FILE)
        self._space = space
        self._reserve = Reserve(directory, 0 if self.is_read_only() else space.reserve_bytes)
        self._reserve.give_up_if_needed()
        self._is_low = False  # the disk has so little room that each commit has to be checked
        self._lacking: int | None = None  # bytes, for the last commit of the scope `default` that was checked
        self.look_at_disk()
        self._may_refuse = bool(space.scope_bytes or space.data_bytes)
        self._number: int | None = None  # of scopes besides `default`; None until they are counted
        self._measured, self._measured_at = 0, -MEASURE_SECONDS
        self._empty = EmptyStore(clock)
        apsw.soft_heap_limit(PAGE_CACHES_BYTES)
        if not self.is_read_only():
            self._remove_leftovers()

    def is_read_only(self) -> bool:
        """Whether nothing can be written into the data directory, because of its file system or its permissions."""
        return self.directory.is_dir() and not os.access(self.directory, os.W_OK)

    def check_writable(self) -> None:
        """Raise `Storage` if nothing can be written into the data directory."""
        if self.is_read_only():
            raise Storage(READ_ONLY)

    def _remove_leftovers(self) -> None:
        directory = self.directory
        for prefix in (ADOPTING, CHECKING, COPYING):
            for left in directory.glob(f"{prefix}*"):  # by a daemon, or a copy, that was killed
                shutil.rmtree(left, ignore_errors=True)
        for left in (*directory.glob(f"*{COMPACTED}*"), *directory.glob(f"scopes/*{COMPACTED}*")):  # or compaction
            left.unlink(missing_ok=True)
        for marker in (*directory.glob(f"*{DELETING}"), *directory.glob(f"scopes/*{DELETING}")):  # or deletion
            path = marker.with_name(marker.name.removesuffix(DELETING))
            Scope(DEFAULT_SCOPE if path.name == DEFAULT_FILE else "", path).finish_removal()

    def now(self) -> int:
        """The time of the clock, in milliseconds since the epoch."""
        return self._clock()

    @contextmanager
    def adopting(self) -> Iterator[None]:
        """One file at a time is copied, so that copies occupy one writer thread; raises `Busy` meanwhile."""
        if not self._adopting.acquire(blocking=False):
            raise Busy("another file is being adopted; try again")
        try:
            yield
        finally:
            self._adopting.release()

    def stop(self) -> None:
        """End the copying of files, whose requests are then answered `unavailable`. May be called from any thread."""
        self.stopping.set()

    @contextmanager
    def use(self, name: str) -> Iterator[SqliteStore]:
        """The store of a scope, which is created if it is new. It stays open until the end of the block."""
        scope = self._scopes.get(name)
        if scope is None or scope.store is None:
            self.check_may_create(name)
            scope = self.scope_named(name)
        with scope.files_lock:
            store = scope.store or self._open_to_write(scope)
            if store.reopen_due and not scope.users:
                self._close(scope)
                store = self._open_store(scope)
            scope.enter()
        try:
            yield store
        finally:
            scope.leave()
            if len(self._open) > OPEN_MAX:
                self._close_excess()

    def use_to_read(self, name: str) -> AbstractContextManager[ReadStore]:
        """The store of a scope; if it has no files, an empty one, and none are created.

        If its files cannot be written, it is a `ReadOnlyStore`.
        """
        scope = self._scopes.get(name)
        if scope is not None and scope.store is not None:
            return self.use(name)
        return self._use_to_read(name) if self.has_files(name) else nullcontext(self._empty)

    @contextmanager
    def _use_to_read(self, name: str) -> Iterator[ReadStore]:
        scope = self.scope_named(name)
        with scope.files_lock:
            store = scope.store or scope.read_only or self._open_to_read(scope)
            scope.enter()
        try:
            yield store
        finally:
            scope.leave()
            if len(self._open) > OPEN_MAX:
                self._close_excess()

    def open_default(self) -> SqliteStore | ReadOnlyStore:
        """Open the scope `default` at a start: to read only, if nothing can be written. Raises `CannotOpen`."""
        if not self.has_files(DEFAULT_SCOPE):
            if self.is_read_only():
                raise CannotOpen(f"{self.directory} is read-only and has no database. Name another data directory.")
            return self.open(DEFAULT_SCOPE)
        scope = self.scope_named(DEFAULT_SCOPE)
        with scope.files_lock:
            return scope.store or scope.read_only or self._open_to_read(scope)

    def has_files(self, name: str) -> bool:
        """Whether a scope has files. Does not remember the name."""
        return Scope(name, self._path(name)).exists()

    def check_may_create(self, name: str) -> None:
        """Raise `Storage` for a new scope if there are as many as there may be."""
        if self._space.scopes_max and name != DEFAULT_SCOPE and not self.has_files(name):
            if self._number is None:
                self._number = sum(1 for _ in self.directory.glob("scopes/*.db"))
            if self._number >= self._space.scopes_max:
                raise Storage(
                    f"there are {self._number} scopes, and scopes_max is {self._space.scopes_max}: delete scopes that "
                    "are not needed, or raise the setting"
                )

    @property
    def may_refuse(self) -> bool:
        return self._may_refuse or self._is_low or self._reserve.full

    def refusal(self, name: str, size: int) -> BackscrollError | None:
        """Why commands with so many bytes that add data to a scope are refused now; None if they are not."""
        store, space = self.store_if_open(name, used=False), self._space
        if self._reserve.is_full() or self._is_low:
            lacking = self._bytes_lacking(store, size) if store else int(self._reserve.full)
            if store and lacking:
                store.restart_log()
                lacking = self._bytes_lacking(store, size)
            if store is None or name == DEFAULT_SCOPE:
                self._lacking = lacking
            if lacking:
                return Storage(self._reserve.problem() or _lacks(lacking), retryable=True)
        if space.scope_bytes and store and (used := store.bytes_used()) >= space.scope_bytes:
            return Storage(
                f"the scope has {used} bytes, and scope_bytes is {space.scope_bytes}: delete what is not needed, or "
                "raise the setting"
            )
        if space.data_bytes and (used := self._bytes_of_all()) >= space.data_bytes:
            return Storage(
                f"all scopes have {used} bytes, and data_bytes is {space.data_bytes}: delete what is not needed and "
                "send compact-scope, or raise the setting"
            )
        return None

    def is_disk_full(self, error: Exception) -> bool:
        """Whether `error` says that the disk is full; then commands that add are refused until it is not."""
        self._reserve.full = errors.is_disk_full(error) or self._reserve.full
        return errors.is_disk_full(error)

    def is_unreadable(self, error: Exception) -> bool:
        """Whether `error` is about something stored that is damaged: what does not read it succeeds."""
        return errors.is_unreadable(error)

    def give_up_reserve(self, name: str) -> None:
        """Free some of the disk, for commands that remove data from a full one: the reserve, and the log's room."""
        self._reserve.give_up()
        if store := self.store_if_open(name, used=False):
            store.restart_log()

    def look_at_disk(self) -> None:
        """Find out whether the disk has so little room that each commit has to be checked."""
        free = free_bytes(self.directory)
        self._is_low = free is not None and free < LOW_BYTES

    def _bytes_lacking(self, store: SqliteStore, size: int) -> int:
        """How many bytes the disk lacks to store requests of this size; 0 if there are enough.

        They are written into the log first. The disk must then have room to copy it into the database: otherwise the
        log could never be emptied, and would keep the room that deletions need.
        """
        free = free_bytes(self.directory)
        if free is None:
            return 0
        needed, inside = int(WRITTEN_TIMES * size) + SPARE_BYTES, store.free_page_bytes()
        kept = self._reserve.size // 2 if self._reserve.full else 0  # for the log of deletions
        growth = store.growth_bytes() + max(0, needed - inside) + max(0, needed + kept - store.log_room_bytes())
        return max(0, growth - free, needed - inside if self._reserve.full else 0)

    def _bytes_of_all(self) -> int:
        """The sizes of all files of scopes, measured at most once in `MEASURE_SECONDS`."""
        if time.monotonic() - self._measured_at >= MEASURE_SECONDS:
            self._measured = size_of(self.directory) - size_of(self.directory / RESERVE_FILE)
            self._measured_at = time.monotonic()
        return self._measured

    @contextmanager
    def borrow_if_open(self, name: str) -> Iterator[SqliteStore | None]:
        """The store of a scope if it is open, for the daemon's own work, which does not count as use."""
        scope = self._scopes.get(name)
        if scope is None:
            yield None
            return
        with scope.files_lock:
            store = scope.store
            scope.enter()
        try:
            yield store
        finally:
            scope.leave(used=False)

    def open(self, name: str) -> SqliteStore:
        """Open a scope now; raises `CannotOpen`."""
        with self.use(name) as store:
            return store

    @contextmanager
    def copying(self, name: str, *, closed: bool = False) -> Iterator[FilesToCopy]:
        """The files of a scope, to be copied by another process: closing one here would drop SQLite's locks.

        Checkpoints pause until `end` is called, which tells whether they did so all the time: not if the log grew too
        long, or the disk was almost full, or something was done to the scope as a whole, which does not wait. With
        `closed` the files are closed meanwhile instead, and may be copied by this process.
        """
        if closed:
            with self.exclusive(name) as scope:
                yield FilesToCopy(scope, None)
            return
        scope = self.scope_named(name)
        with scope.left:
            scope.copies += 1
        try:
            with self._paused(name, scope) as files:
                yield files
        finally:
            with scope.left:
                scope.copies -= 1

    @contextmanager
    def _paused(self, name: str, scope: Scope) -> Iterator[FilesToCopy]:
        with scope.blobs.kept(), ExitStack() as stack:
            with self.use_to_read(name) as store:
                if store is self._empty:
                    raise NotFound(f"there is no scope {name!r}")
                written = store if isinstance(store, SqliteStore) else None
                if written:
                    written.pause_checkpoints()
                    stack.callback(written.resume_checkpoints)
                files = FilesToCopy(scope, written)
            yield files

    def keeping_media(self, name: str) -> AbstractContextManager[None]:
        """Keep the files of all parts of media of a scope until the end of the block."""
        return self.scope_named(name).blobs.kept()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Scope]:
        """The scope with its files closed and no other user, until the end of the block."""
        scope = self.scope_named(name)
        scope.begin_exclusive()
        try:
            with scope.files_lock:
                scope.wait_until_unused()  # by those who did not enter it shared
                self._close(scope)
                yield scope
        finally:
            scope.end_exclusive()

    def enter_shared(self, name: str, resume: Callable[[], None]) -> Callable[[], None] | None:
        """Keep exclusive operations from starting until the result is called; never waits.

        While one is in progress or about to start, the result is None, and `resume` is called at its end. A scope
        without files is not remembered, so that queries may name any number of them.
        """
        scope = self._scopes.get(name)
        if scope is None:
            if not self.has_files(name):
                return _do_nothing
            scope = self.scope_named(name)
        return scope.leave if scope.enter_shared(resume) else None

    def seq(self, name: str) -> int:
        """The last seq of a scope; 0 if it was not used since the start of the daemon."""
        scope = self._scopes.get(name)
        return scope.seq if scope else 0

    def store_if_open(self, name: str, *, used: bool = True) -> SqliteStore | None:
        """The store of a scope if it is open, which may close at any time. `used` is whether this counts as use."""
        scope = self._scopes.get(name)
        if scope is None:
            return None
        if used:
            scope.last_used = time.monotonic()
        return scope.store

    def interrupt_readers(self) -> None:
        """Interrupt all statements that readers are running. May be called from any thread."""
        with self._lock:
            open_scopes = list(self._open.values())
        for scope in open_scopes:
            if store := scope.store or scope.read_only:
                store.interrupt_readers()

    def interrupt_writers(self) -> None:
        """Interrupt all statements that writers are running. May be called from any thread."""
        for store in self.open_stores().values():
            store.interrupt_writer()

    def on_commit(self, committed: Committed, _awaited: Callable[[], Iterable[str]] = tuple, /) -> None:
        self._receivers.append(committed)

    def _committed(self, commit: Commit, store: Store) -> None:
        for receive in self._receivers:
            receive(commit, store)

    def clear_caches(self) -> None:
        """Free the memory of all cached results. May be called from any thread."""
        with self._lock:
            open_scopes = list(self._open.values())
        for scope in open_scopes:
            if store := scope.store or scope.read_only:
                store.query_cache.clear()

    def open_stores(self) -> dict[str, SqliteStore]:
        """The stores that are open now, by scope, without those that are only read."""
        with self._lock:
            return {name: store for name, scope in self._open.items() if (store := scope.store)}

    def open_names(self) -> list[str]:
        """The names of the scopes that are open now."""
        return list(self.open_stores())

    def names(self) -> list[str]:
        """The names of all scopes that have files, in order."""
        opened = self.open_stores()
        open_paths = {store.path for store in opened.values()}
        closed = [
            path
            for path in self.directory.glob("scopes/*.db")
            if path not in open_paths and not beside(path, DELETING).exists()
        ]
        named = {name for path in closed if (name := scope_named_in(path)) and self._path(name) == path}
        return sorted({DEFAULT_SCOPE, *opened, *named})

    def close_idle(self, idle_s: float = IDLE_SECONDS) -> None:
        """Close the scopes that have not been used for `idle_s` seconds."""
        before = time.monotonic() - idle_s
        for scope in self._unused():
            if scope.last_used < before:
                self._close_if_unused(scope)

    def close(self) -> None:
        for name in list(self._open):
            with self.exclusive(name):
                pass
        self._empty.close()

    def remove_files(self, scope: Scope) -> None:
        """Remove all files of a scope; nobody may use it."""
        self._number = None
        scope.remove_files()

    def take_over(self, name: str, database: Path, seq: int) -> None:
        """Replace all files of a scope by a closed database and the media beside it."""
        default = self._path(DEFAULT_SCOPE)
        if not default.exists() and not any(self.directory.glob("scopes/*.db")):
            default.touch(mode=0o600)  # beside other scopes, it would be taken for lost
        with self.exclusive(name) as scope:
            self._number = None
            scope.replace_all(database, seq)

    def scope_named(self, name: str) -> Scope:
        """The scope of this name, whether or not it has files."""
        with self._lock:
            scope = self._scopes.get(name)
            if scope is None:
                scope = self._scopes[name] = Scope(name, self._path(name))
            return scope

    def _path(self, name: str) -> Path:
        if name == DEFAULT_SCOPE:
            return self.directory / DEFAULT_FILE
        return self.directory / "scopes" / f"{hashlib.sha256(name.encode()).hexdigest()}.db"

    def store_at(self, path: Path, scope: str, blobs: BlobDirectory | None = None) -> SqliteStore:
        """Open a database file of a scope at any path; raises `CannotOpen`. `blobs` are those beside it."""
        return SqliteStore(
            path,
            clock=self._clock,
            lock_wait_ms=self._lock_wait_ms,
            vfs=self._vfs,
            scope=scope,
            retention=self._retention,
            query_cache=QueryCache(self._query_cache_bytes),
            committed=self._committed,
            directory=self.files,
            blobs=blobs,
        )

    def admin(self, name: str, handlers: Handlers) -> ScopeAdmin:
        """A scope as a whole, for maintenance operations."""
        from backscroll.bus.sqlite.scope_admin import SqliteScopeAdmin

        return SqliteScopeAdmin(self, name, handlers)

    @property
    def maintenance(self) -> "SqliteScopes":
        return self

    def check(self, scope: str | None, progress: Progress, /) -> Outcome:
        """Check the databases and media of a scope, or of all, while they are in use."""
        from backscroll.bus.sqlite.maintenance.online import check

        return check(self, scope, progress)

    def back_up(self, backups: BackupPlan, scope: str | None, progress: Progress, /) -> Outcome:
        """Make a backup of a scope, or of all, while they are in use, and remove those that are not to be kept."""
        from backscroll.bus.sqlite.maintenance.online import back_up

        return back_up(self, backups, scope, progress)

    def verify_backup(self, directory: Path, name: str | None, progress: Progress, /) -> Outcome:
        """Verify a backup, the newest without a `name`."""
        from backscroll.bus.sqlite.maintenance.online import verify_backup

        return verify_backup(directory, name, progress)

    def backups_in(self, directory: Path) -> list[Backup]:
        """The backups in a directory, the oldest first; raises `NotFound` if it is no directory of backups."""
        from backscroll.bus.sqlite.maintenance.online import backups_in

        return backups_in(directory)

    def wire_error(self, error: Exception) -> BackscrollError | None:
        """The error that a caller gets for an error of SQLite or the disk; None for any other error."""
        return errors.wire_error(error)

    def health(self) -> StorageHealth:
        """The version of SQLite, and whether it has the WAL-reset bug; whether commands can be stored, and why not."""
        version = apsw.sqlite_lib_version()
        numbers = tuple(int(part) for part in version.split("."))
        stores = self.open_stores()
        return StorageHealth(
            engine="sqlite",
            version=version,
            wal_reset_bug=WAL_RESET_BUG_FROM <= numbers < WAL_RESET_BUG_UNTIL,
            state=self._problem(stores) or "ok",
            warnings=[*_warnings(stores)],
            last_commit_at=max((store.committed_at for store in stores.values() if store.committed_at), default=None),
            disk_free_bytes=free_bytes(self.directory),
            directory=self.files.identity(),
        )

    def _problem(self, stores: dict[str, SqliteStore]) -> str:
        """Why commands are refused in every scope, or in the scope `default`; empty if they are not."""
        if problem := self.files.problem():
            return f"{problem} while the daemon used it. {RESTART}"
        if self.is_read_only():
            return READ_ONLY
        if (problem := self._reserve.problem()) and self._lacking != 0:
            return problem
        if self._lacking and self._is_low and (free_bytes(self.directory) or 0) < LOW_BYTES:
            return _lacks(self._lacking)
        default = stores.get(DEFAULT_SCOPE)
        return default.problem() if default else self._cannot_open.get(DEFAULT_SCOPE, "")

    def _open_to_write(self, scope: Scope) -> SqliteStore:
        """Open a scope, also if it is open to read only; raises `Storage` if it cannot be written now."""
        if scope.read_only is not None:
            if (free := free_bytes(self.directory)) is not None and free < OPENING_BYTES:
                self.check_writable()
                raise Storage(DISK_FULL, retryable=True)
            if scope.users:
                self.check_writable()
                raise Storage(
                    "the data directory can be written again, but queries still use it; try again", retryable=True
                )
            self.check_writable()
            self._close(scope)
        return self._open_store(scope)

    def _open_to_read(self, scope: Scope) -> SqliteStore | ReadOnlyStore:
        """Open a scope to write, or to read only if nothing can be written; raises `CannotOpen`."""
        if self.is_read_only():
            return self._open_read_only(scope)
        try:
            return self._open_store(scope)
        except (CannotOpen, OSError) as error:
            if not self._found_full(error):
                raise
        self._reserve.give_up()
        try:
            return self._open_store(scope)
        except (CannotOpen, OSError) as error:
            if not self._found_full(error):
                raise
            return self._open_read_only(scope)

    def _found_full(self, error: Exception) -> bool:
        """Whether a database could not be opened because the disk is full; SQLite has other words for that, too."""
        if self.is_disk_full(error):
            return True
        cause, free = error.__cause__, free_bytes(self.directory)
        self._reserve.full |= isinstance(cause, apsw.IOError | apsw.CantOpenError) and (free or 0) < OPENING_BYTES
        return self._reserve.full

    def _open_read_only(self, scope: Scope) -> ReadOnlyStore:
        store = scope.read_only = ReadOnlyStore(
            scope.path, clock=self._clock, scope=scope.name, query_cache=QueryCache(self._query_cache_bytes)
        )
        with self._lock:
            self._open[scope.name] = scope
        log.error("a database is read only, because nothing can be written", path=str(scope.path))
        return store

    def _open_store(self, scope: Scope) -> SqliteStore:
        if problem := self.files.problem():
            raise Storage(f"{problem} while the daemon used it. {RESTART}")
        self.check_writable()
        scope.finish_removal()
        make_directory(scope.path.parent)
        self._number = None if not scope.path.exists() else self._number
        try:
            store = scope.store = self.store_at(scope.path, scope.name, scope.blobs)
        except CannotOpen as error:
            self._cannot_open[scope.name] = str(error)
            raise
        self._cannot_open.pop(scope.name, None)
        with self._lock:
            self._open[scope.name] = scope
        return store

    def _close(self, scope: Scope) -> None:
        """Close a scope; its `files_lock` must be held, and its store unused."""
        scope.close()
        with self._lock:
            self._open.pop(scope.name, None)

    def _unused(self) -> list[Scope]:
        """The open scopes that are unused, least recently used first, without `default`, which stays open.

        Nor are those unused in which messages of cleared rooms are being removed, or whose files are being copied.
        """
        with self._lock:
            scopes = [
                each for each in self._open.values() if not each.users and not each.copies and not each.is_clearing
            ]
        return sorted((each for each in scopes if each.name != DEFAULT_SCOPE), key=lambda scope: scope.last_used)

    def _close_excess(self) -> None:
        """Close unused scopes while more than `OPEN_MAX` are open."""
        for scope in self._unused()[: max(0, len(self._open) - OPEN_MAX)]:
            self._close_if_unused(scope)

    def _close_if_unused(self, scope: Scope) -> None:
        if not scope.files_lock.acquire(blocking=False):
            return
        try:
            if not scope.users and not scope.copies:
                self._close(scope)
        finally:
            scope.files_lock.release()


def _check_restored(directory: Path) -> None:
    """Raise `CannotOpen` if a restore was interrupted while it moved files into the directory."""
    if (directory / RESTORING).exists():
        aside = (directory / RESTORING).read_text(encoding="utf-8").strip()
        back = f", or move the files in {aside} back and remove {directory / RESTORING}" if aside else ""
        raise CannotOpen(f"a restore into {directory} was interrupted, so its files may not fit. Restore again{back}.")


def _version_of(database: Path) -> tuple[int, ...]:
    """What changes whenever a file is written or replaced."""
    try:
        found = database.stat()
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _lacks(number: int) -> str:
    return f"{DISK_FULL}: it lacks {number} bytes. Commands that remove, and compact-scope, are executed"


def _do_nothing() -> None:
    """Leave a scope that is not remembered."""


def beside(database: Path, suffix: str) -> Path:
    """The path of a database with this suffix."""
    return database.with_name(database.name + suffix)


def _warnings(stores: dict[str, SqliteStore]) -> Iterator[str]:
    """What is wrong with single scopes. Their names are not told: they belong to their users."""
    refusing = sum(name != DEFAULT_SCOPE and bool(store.problem()) for name, store in stores.items())
    if refusing:
        yield f"{refusing} scopes besides the default one store nothing; the replies to their commands say why"
    if any(store.wal_blocked for store in stores.values()):
        yield "another program has been reading a database for long: its write-ahead log cannot shrink until it stops"
