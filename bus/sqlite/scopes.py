"""The accounts of one data directory: each scope a database of its own, opened when used and closed when idle.

A scope's name is opaque text. Its files are named by the name's hash, so that no name can reach outside the directory
or meet another's file on any file system; the name itself is stored inside and compared at each opening. The scope
`default` has the file `default.db`.
"""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from backscroll.bus.files import make_directory, sync_directory
from backscroll.bus.logging import log
from backscroll.bus.query_cache import BYTES_MAX
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.store import RETENTION, Store, name_inside, wall_clock_ms
from backscroll.handlers.storage import Retention
from backscroll.schema.wire import DEFAULT_SCOPE

OPEN_MAX = 16
IDLE_SECONDS = 60.0
COMPACTED = "-compacted"  # the end of the name of a database that is being written anew
COMPANIONS = ("", "-wal", "-shm", "-wal-lineage", "-wal-lineage.new", "-key", "-key.new", COMPACTED)
ADOPTING = "adopting-"  # the beginning of the names of directories for copies of older files

OnCommit = Callable[[str, Store], None]
"""Takes the name of a scope and its store, after each commit; raises nothing."""


class Scope:
    """One scope: its files, and its store while that is open.

    `gate` is held by whoever opens, closes or replaces the files; `users` counts those who use the store. `seq` is
    the last commit number as far as it is known: 0 until the file is opened for the first time.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.media = path.with_suffix(".media")
        self.store: Store | None = None
        self.closed_at_seq = 0
        self.gate = threading.RLock()
        self.left = threading.Condition()
        self.users = 0
        self.last_used = 0.0

    @property
    def seq(self) -> int:
        store = self.store
        return store.seq if store else self.closed_at_seq

    def enter(self) -> None:
        with self.left:
            self.users += 1

    def leave(self, *, used: bool = True) -> None:
        """Use it no more. What the daemon does by itself is no use: it keeps no idle scope open."""
        with self.left:
            self.users -= 1
            if used:
                self.last_used = time.monotonic()
            self.left.notify_all()

    def wait_until_unused(self) -> None:
        with self.left:
            self.left.wait_for(lambda: self.users == 0)

    def close(self) -> None:
        """Close the files, if they are open. What fails then is only to fold in the log, which stays beside them."""
        store = self.store
        if store is None:
            return
        self.closed_at_seq, self.store = store.seq, None
        try:
            store.close()
        except Exception as error:  # noqa: BLE001  # apsw passes on whatever a VFS raises
            log.error("a log stays beside its database", path=str(self.path), error=str(error))

    def bytes_on_disk(self) -> int:
        """What the scope takes, media included."""
        return sum(file.stat().st_size for file in self._files() if file.exists()) + BlobDirectory(self.media).size()

    def remove_files(self) -> None:
        """Remove everything, durably; the database last, so that the scope is known until the rest is gone."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.media)
        for file in reversed(self._files()):
            file.unlink(missing_ok=True)
        if self.path.parent.is_dir():  # it is made with the first scope
            sync_directory(self.path.parent)
        self.closed_at_seq = 0

    def _files(self) -> list[Path]:
        return [beside(self.path, suffix) for suffix in COMPANIONS]

    def take_over(self, database: Path, seq: int) -> None:
        """Make a closed database file this scope's, durably, in place of its own."""
        database.replace(self.path)
        sync_directory(self.path.parent)
        self.closed_at_seq = seq


class Scopes:
    """All scopes of a data directory. Safe to use from any thread.

    `clock` gives milliseconds since the epoch; `vfs` names an apsw VFS; `on_commit` is told of every commit.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        lock_wait_ms: int = 2_000,
        retention: Retention = RETENTION,
        query_cache_bytes: int = BYTES_MAX,
        vfs: str = "",
        on_commit: OnCommit = lambda *_: None,
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._lock_wait_ms = lock_wait_ms
        self._keeping = retention
        self._answers_bytes = query_cache_bytes
        self._vfs = vfs
        self._on_commit = on_commit
        self._accounts: dict[str, Scope] = {}
        self._open: dict[str, Scope] = {}
        self._lock = threading.Lock()
        for left in directory.glob(f"{ADOPTING}*"):  # by a daemon that was killed while it adopted a file
            shutil.rmtree(left, ignore_errors=True)
        for left in (*directory.glob(f"*{COMPACTED}*"), *directory.glob(f"scopes/*{COMPACTED}*")):  # or compacted one
            left.unlink(missing_ok=True)

    @contextmanager
    def use(self, name: str) -> Iterator[Store]:
        """The open store of a scope, which is made if it is new; it stays open for the length of the block."""
        scope_of = self.scope_of(name)
        with scope_of.gate:
            store = scope_of.store or self._open_store(scope_of)
            scope_of.enter()
        try:
            yield store
        finally:
            scope_of.leave()
            self._close_excess()

    @contextmanager
    def borrow_if_open(self, name: str) -> Iterator[Store | None]:
        """The store of a scope if it is open, for what the daemon does by itself: that is no use, and opens nothing."""
        scope_of = self.scope_of(name)
        with scope_of.gate:
            store = scope_of.store
            scope_of.enter()
        try:
            yield store
        finally:
            scope_of.leave(used=False)

    def open(self, name: str) -> Store:
        """Open a scope now, for whoever wants to know that it can be; raises `CannotOpen`."""
        with self.use(name) as store:
            return store

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Scope]:
        """A scope that nobody else uses and whose files are closed, for the length of the block."""
        scope_of = self.scope_of(name)
        with scope_of.gate:
            scope_of.wait_until_unused()
            self._close(scope_of)
            yield scope_of

    def seq(self, name: str) -> int:
        """The last commit number of a scope; 0 while nobody has used it since the start."""
        scope_of = self._accounts.get(name)
        return scope_of.seq if scope_of else 0

    def store_in_use(self, name: str) -> Store | None:
        """The store of a scope if it is open, for a moment's look that counts as use."""
        scope_of = self._accounts.get(name)
        if scope_of is None:
            return None
        scope_of.last_used = time.monotonic()
        return scope_of.store

    def checkpoint_if_due(self, name: str) -> None:
        """Checkpoint a scope, if it is open and its log has grown; from the thread that writes it."""
        with self.borrow_if_open(name) as store:
            if store is not None:
                store.checkpoint_if_due()

    def interrupt_readers(self) -> None:
        """Break off every statement that a reader is running now; from any thread."""
        for store in self.open_stores().values():
            store.interrupt_readers()

    def open_stores(self) -> dict[str, Store]:
        """The stores that are open now, by the names of their scopes."""
        with self._lock:
            return {name: store for name, scope_of in self._open.items() if (store := scope_of.store)}

    def names(self) -> list[str]:
        """The names of all scopes that have files, in order."""
        opened = self.open_stores()
        open_paths = {store.path for store in opened.values()}
        closed = [path for path in self.directory.glob("scopes/*.db") if path not in open_paths]
        named = {name for path in closed if (name := name_inside(path)) and self._path(name) == path}
        return sorted({DEFAULT_SCOPE, *opened, *named})

    def close_idle(self, idle_s: float = IDLE_SECONDS) -> None:
        """Close the scopes that nobody has used for so long."""
        before = time.monotonic() - idle_s
        for scope_of in self._unused():
            if scope_of.last_used < before:
                self._close_if_unused(scope_of)

    def close(self) -> None:
        for name in list(self._open):
            with self.exclusive(name):
                pass

    def scope_of(self, name: str) -> Scope:
        """What is known of a scope, whether or not it has files."""
        with self._lock:
            scope_of = self._accounts.get(name)
            if scope_of is None:
                scope_of = self._accounts[name] = Scope(name, self._path(name))
            return scope_of

    def _path(self, name: str) -> Path:
        if name == DEFAULT_SCOPE:
            return self.directory / "default.db"
        return self.directory / "scopes" / f"{hashlib.sha256(name.encode()).hexdigest()}.db"

    def store_at(self, path: Path, scope: str) -> Store:
        """Open a scope's database file, wherever it is; raises `CannotOpen`."""
        return Store(
            path,
            clock=self._clock,
            lock_wait_ms=self._lock_wait_ms,
            vfs=self._vfs,
            scope=scope,
            retention=self._keeping,
            query_cache_bytes=self._answers_bytes,
            on_commit=partial(self._on_commit, scope),
        )

    def _open_store(self, scope_of: Scope) -> Store:
        make_directory(scope_of.path.parent)
        store = scope_of.store = self.store_at(scope_of.path, scope_of.name)
        with self._lock:
            self._open[scope_of.name] = scope_of
        return store

    def _close(self, scope_of: Scope) -> None:
        """Close an scope_of whose gate is held and whose store nobody uses."""
        scope_of.close()
        with self._lock:
            self._open.pop(scope_of.name, None)

    def _unused(self) -> list[Scope]:
        """The open scopes that nobody uses now, the longest unused first; `default` is always kept open."""
        with self._lock:
            accounts = [each for each in self._open.values() if not each.users]
        return sorted(
            (each for each in accounts if each.name != DEFAULT_SCOPE), key=lambda scope_of: scope_of.last_used
        )

    def _close_excess(self) -> None:
        """Keep no more scopes open than so many, apart from those in use."""
        if (excess := len(self._open) - OPEN_MAX) > 0:
            for scope_of in self._unused()[:excess]:
                self._close_if_unused(scope_of)

    def _close_if_unused(self, scope_of: Scope) -> None:
        if not scope_of.gate.acquire(blocking=False):
            return
        try:
            if not scope_of.users:
                self._close(scope_of)
        finally:
            scope_of.gate.release()


def beside(database: Path, suffix: str) -> Path:
    """The file of a database with this at the end of its name."""
    return database.with_name(database.name + suffix)
