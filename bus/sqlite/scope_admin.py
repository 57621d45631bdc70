"""One scope as a whole: deletion, compaction, replay, and import of a database file."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import free_bytes
from backscroll.bus.logging import log
from backscroll.bus.sqlite.errors import wire_error
from backscroll.bus.sqlite.legacy_file import Limits, Unsuitable, check_copy, copy_into, not_adoptable
from backscroll.bus.sqlite.scopes import ADOPTING, COMPACTED, SqliteScopes, beside
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.transaction import Snapshot, Transaction
from backscroll.handlers import clearing
from backscroll.handlers.registry import Handlers
from backscroll.handlers.storage import Reads
from backscroll.schema.errors import Busy, Storage
from backscroll.schema.migrations.sqlite import migrations

REMOVED_AT_ONCE = 1_000  # messages of cleared rooms
COPY_BYTES = 512 * 1024  # to replace the database by a copy, besides the copy itself


class SqliteScopeAdmin:
    """The `ScopeAdmin` that handlers get: one scope, for operations on it as a whole."""

    def __init__(self, scopes: SqliteScopes, name: str, handlers: Handlers) -> None:
        self._scopes = scopes
        self.name = name
        self.handlers = handlers

    @property
    def schema_version(self) -> int:
        return len(migrations())

    @contextmanager
    def snapshot(self) -> Iterator[Reads]:
        with self._scopes.use_to_read(self.name) as store, store.read() as snapshot:
            yield snapshot

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._scopes.use(self.name) as store, store.write() as transaction:
            yield transaction

    def compact(self) -> None:
        """Write a compact copy beside the database while queries continue, then replace the database by it."""
        self._scopes.check_writable()
        if not self._scopes.has_files(self.name):
            return
        copy = beside(self._scopes.scope_named(self.name).path, COMPACTED)
        _remove_copy(copy)  # left by an interrupted compaction
        try:
            with self._scopes.use(self.name) as store:
                _remove_cleared(store)
            self._make_room()
            with self._scopes.use(self.name) as store:
                store.vacuum_into(copy)
            with self._scopes.exclusive(self.name) as scope:
                if beside(scope.path, "-wal").exists():
                    reason = "another process has the database open, or the disk is full"
                    raise Busy(f"the write-ahead log cannot be emptied: {reason}")
                scope.take_over(copy, scope.closed_at_seq)
        finally:
            _remove_copy(copy)

    def _make_room(self) -> None:
        """Make sure that a compact copy fits beside the database: if need be in the room of the reserve and of the log.

        Raises `Storage` if it does not.
        """
        with self._scopes.use(self.name) as store:
            needed = store.copy_bytes() + COPY_BYTES
        if self._free_bytes() >= needed:
            return
        self._scopes.give_up_reserve(self.name)
        with self._scopes.exclusive(self.name):  # closes the database, which removes its log
            free = self._free_bytes()
        if free < needed:
            raise Storage(
                f"the disk is full: compact-scope needs {needed} bytes for a copy, and {free} are free. Delete more, or"
                " free some of the disk. What is saved uses the room of what was deleted also without it",
                retryable=True,
            )

    def _free_bytes(self) -> float:
        free = free_bytes(self._scopes.directory)
        return math.inf if free is None else free

    def bytes_on_disk(self) -> int:
        if not self._scopes.has_files(self.name):
            return 0
        with self._scopes.use_to_read(self.name):  # so that its files stay open meanwhile
            return self._scopes.scope_named(self.name).bytes_on_disk()

    def all_names(self) -> list[str]:
        return self._scopes.names()

    def erase(self) -> None:
        self._scopes.check_writable()
        if self._scopes.has_files(self.name):
            with self._scopes.exclusive(self.name) as scope:
                self._scopes.remove_files(scope)

    @contextmanager
    def legacy_file(self, path: str) -> Iterator["LegacyFile"]:
        """A copy of a file outside the data directory, opened and migrated.

        Raises `NotFound` for any path without a suitable file, and `Busy`.
        """
        self._scopes.check_writable()
        self._scopes.check_may_create(self.name)
        limits = Limits(self._scopes.adopted_bytes, self._scopes.directory)
        with self._scopes.adopting(), tempfile.TemporaryDirectory(prefix=ADOPTING, dir=self._scopes.directory) as own:
            try:
                copy = copy_into(Path(own), Path(path), limits, self._scopes.stopping.is_set)
                check_copy(copy)
                store = self._legacy_store(copy)
            except Unsuitable as reason:
                log.info("file not adopted", path=path, scope=self.name, reason=str(reason))
                raise not_adoptable(limits) from None
            with closing(store):
                with store.read() as snapshot:
                    legacy = LegacyFile(snapshot)
                    yield legacy
                if legacy.taken:
                    store.renew_lineage()  # the file may be adopted into other scopes as well
                    store.checkpoint_fully()
                    database = self._with_checksums(store)
            if legacy.taken:
                self._take_over(database, store.seq)

    def _with_checksums(self, store: SqliteStore) -> Path:
        """The file of a legacy store, or a copy of it that has checksums."""
        if store.has_checksums():
            return store.path
        copy = beside(store.path, COMPACTED)
        store.interrupt_when(self._scopes.stopping.is_set)
        store.vacuum_into(copy)
        return copy

    def _legacy_store(self, copy: Path) -> SqliteStore:
        try:
            return self._scopes.store_at(copy, self.name)
        except CannotOpen as error:
            explained = wire_error(error)
            if explained is not None and explained.retryable:  # a problem of the disk, not of the file
                raise
            raise Unsuitable(str(error)) from error

    def _take_over(self, database: Path, seq: int) -> None:
        """Replace the scope's files by a closed database file."""
        with self._scopes.exclusive(self.name) as scope:
            self._scopes.remove_files(scope)
            scope.take_over(database, seq)


class LegacyFile:
    """A copy of a file, which becomes the scope's database at the end of the block if `take_over` was called."""

    def __init__(self, db: Snapshot) -> None:
        self.db = db
        self.taken = False

    def take_over(self) -> None:
        self.taken = True


def _remove_cleared(store: SqliteStore) -> None:
    """Remove what is left of cleared rooms."""
    while store.clearing:
        with store.write() as db:
            clearing.remove_some(db, REMOVED_AT_ONCE)
        store.checkpoint_if_due()


def _remove_copy(copy: Path) -> None:
    for file in (copy, beside(copy, "-journal")):  # SQLite leaves the journal if the disk is full
        file.unlink(missing_ok=True)
