"""One scope as a whole: erased, compacted, replayed into, or taken over from a file of an older layout."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backscroll.bus.failures import CannotOpen, as_wire_error
from backscroll.bus.sqlite.scopes import ADOPTING, COMPACTED, Scopes, beside
from backscroll.bus.sqlite.store import Store
from backscroll.bus.sqlite.transaction import Transaction
from backscroll.schema.errors import Busy, Forbidden, Invalid, NotFound
from backscroll.schema.migrations.sqlite import migrations

LOGS = ("-wal", "-journal")


class SqliteScopeAdmin:
    """One scope as a whole, for the operations that are about it: the `ScopeAdmin` of handlers."""

    def __init__(self, scopes: Scopes, name: str) -> None:
        self._scopes = scopes
        self.name = name
        self.schema_version = len(migrations())

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        with self._scopes.use(self.name) as store, store.read() as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._scopes.use(self.name) as store, store.write() as session:
            yield session

    def compact(self) -> None:
        """Write the database anew beside itself, while queries go on, then take the new one in its place."""
        copy = beside(self._scopes.scope_of(self.name).path, COMPACTED)
        _remove_copy(copy)  # of one that was broken off
        try:
            with self._scopes.use(self.name) as store:
                store.write_anew(copy)
            with self._scopes.exclusive(self.name) as scope_of:
                if beside(scope_of.path, "-wal").exists():
                    raise Busy(
                        "the log stays beside the database: another process has it open, or the disk is full",
                        retryable=True,
                    )
                scope_of.take_over(copy, scope_of.closed_at_seq)
        finally:
            _remove_copy(copy)

    def bytes_on_disk(self) -> int:
        with self._scopes.use(self.name):  # so that its files do not come or go meanwhile
            return self._scopes.scope_of(self.name).bytes_on_disk()

    def all_names(self) -> list[str]:
        return self._scopes.names()

    def erase(self) -> None:
        with self._scopes.exclusive(self.name) as scope_of:
            scope_of.remove_files()

    @contextmanager
    def legacy_file(self, path: str) -> Iterator["LegacyFile"]:
        """A copy of a file outside the data directory, opened and brought to today's tables."""
        source = self._outside(Path(path))
        if source is None:
            raise NotFound.at("$.payload.path", "there is no such file")
        with tempfile.TemporaryDirectory(prefix=ADOPTING, dir=self._scopes.directory) as directory:
            copy = Path(directory) / "legacy.db"
            for suffix in ("", *LOGS):
                if file := self._outside(beside(source, suffix)):
                    _copy_unchanged(file, beside(copy, suffix))
            with closing(self._legacy_store(copy)) as store:
                with store.read() as session:
                    legacy = LegacyFile(session)
                    yield legacy
                if legacy.taken:
                    store.fold_in_log()
            if legacy.taken:
                self._take_over(copy, store.seq)

    def _outside(self, path: Path) -> Path | None:
        """The file that a path leads to, if any; raises `Forbidden` where that would be in the data directory."""
        try:
            path = path.resolve()
            inside = any(parent.samefile(self._scopes.directory) for parent in path.parents if parent.exists())
            if not inside:
                return path if path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # no name that a file can have, or a circle of links
            return None
        raise Forbidden.at("$.payload.path", "the file belongs to this daemon")

    def _legacy_store(self, copy: Path) -> Store:
        try:
            return self._scopes.store_at(copy, self.name)
        except CannotOpen as error:
            if as_wire_error(error).retryable:  # the disk's fault and not the file's
                raise
            raise Invalid.at("$.payload.path", "the file is no database of an older layout") from error

    def _take_over(self, database: Path, seq: int) -> None:
        """Make a closed database file this scope's."""
        with self._scopes.exclusive(self.name) as scope_of:
            scope_of.remove_files()
            scope_of.take_over(database, seq)


class LegacyFile:
    """A copy of a file, which becomes the scope's when it is let go, if somebody said so."""

    def __init__(self, db: Transaction) -> None:
        self.db = db
        self.taken = False

    def take_over(self) -> None:
        self.taken = True


def _copy_unchanged(source: Path, copy: Path) -> None:
    """Copy a file; raises `Busy` when somebody wrote to it meanwhile."""
    before = source.stat()
    shutil.copyfile(source, copy)
    after = source.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Busy("the file is in use: stop the application that writes it", retryable=True)


def _remove_copy(copy: Path) -> None:
    for file in (copy, beside(copy, "-journal")):  # SQLite leaves the journal where the disk is full
        file.unlink(missing_ok=True)
