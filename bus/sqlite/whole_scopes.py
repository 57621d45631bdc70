"""The scopes of a data directory that no daemon uses, as they are copied.

A new database is written in a directory of its own inside the data directory, and moved into its place last. If the
directory is left there, the next daemon removes it, as does the next copy.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw
import msgspec

from backscroll.bus.copying import CannotCopy, Part
from backscroll.bus.directory import LOCK_FILE, has_scopes_in_files, is_data_directory, is_new, locked
from backscroll.bus.failures import RESCUE, CannotStart
from backscroll.bus.files import size_of
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.errors import DamagedBlob, wire_error
from backscroll.bus.sqlite.scopes import COPYING, SqliteScopes
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.wal_lineage import WalLineage
from backscroll.bus.stores import ReadStore
from backscroll.handlers.command_log import position_of
from backscroll.handlers.sql import Row, Statement
from backscroll.handlers.whole_tables import UPDATE_END, End, WholeTable
from backscroll.schema.errors import BackscrollError
from backscroll.schema.paths import store_of

ERRORS = (apsw.Error, OSError, UnicodeDecodeError, msgspec.DecodeError, DamagedBlob, BackscrollError, CannotStart)


class FileScope:
    """One scope in files that nobody else uses."""

    def __init__(self, store: ReadStore, blobs: BlobDirectory) -> None:
        self._store, self._blobs = store, blobs

    def each(self, statement: Statement, /) -> Iterator[Row]:
        with self._store.read() as snapshot:
            yield from snapshot.each(statement)

    def parts(self) -> Iterator[Part]:
        for sha256, put_at in self._blobs.all_put():
            data = self._blobs.read(sha256)
            if data is not None:
                yield Part(sha256, data, put_at)


class NewFileScope(FileScope):
    """One that is being written."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store, store.blobs)
        self._store: SqliteStore = store

    def write(self, table: WholeTable, rows: list[Row], /) -> None:
        with self._store.write(savepoints=False) as db:
            db.write_all(table.insert, rows)
        self._store.checkpoint_if_due()

    def put(self, part: Part, /) -> None:
        self._blobs.count_as_put(self._blobs.put(part.data), part.put_at)

    def end(self, end: End, /) -> None:
        with self._store.write(savepoints=False) as db:
            db.run(UPDATE_END, **{name: getattr(end, name) for name in ("seq", "last_id", "results_from", "log_from")})
            db.position = position_of(db)  # which the store writes into the same row


class DirectoryPlace:
    """The scopes of a data directory, which is locked."""

    is_shared = False

    def __init__(self, scopes: SqliteScopes) -> None:
        self._scopes = scopes
        self.name = str(scopes.directory)

    def names(self) -> list[str]:
        return self._scopes.names()

    @contextmanager
    def reading(self, scope: str, /) -> Iterator[FileScope | None]:
        with self._explained():
            path = self._scopes.scope_named(scope).path
            if not size_of(path):
                opening.check_files(path, WalLineage(path), read_only=True)  # raises if it was lost
                yield None
                return
            with self._scopes.use_to_read(scope) as store:
                yield FileScope(store, self._scopes.scope_named(scope).blobs)

    @contextmanager
    def writing(self, scope: str, /) -> Iterator[NewFileScope]:
        with self._explained():
            self._scopes.check_writable()
            with tempfile.TemporaryDirectory(prefix=COPYING, dir=self._scopes.directory) as own:
                path = Path(own) / self._scopes.scope_named(scope).path.name
                with closing(self._scopes.store_at(path, scope)) as store:
                    yield NewFileScope(store)
                    store.checkpoint_fully()
                self._scopes.take_over(scope, path, store.seq)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DamagedBlob as error:
            raise CannotCopy(f"{self.name}: the part {error} of a media is damaged. {RESCUE}") from error
        except ERRORS as error:
            known = None if isinstance(error, CannotStart | BackscrollError) else wire_error(error)
            raise CannotCopy(f"{self.name}: {known or error}") from error


@contextmanager
def opened(directory: Path, *, to_write: bool) -> Iterator[DirectoryPlace]:
    """The scopes of a data directory, locked until the end of the block. Raises `CannotStart` and `CannotCopy`.

    One that is written to may be new.
    """
    if store_of(directory) is not None and (to_write or not has_scopes_in_files(directory)):
        raise CannotCopy(
            f"nothing was copied: the data of {directory} is in PostgreSQL, not in its files; name another directory,"
            " or the database"
        )
    if not is_data_directory(directory) and not (to_write and is_new(directory)):
        what = "neither a data directory nor empty" if to_write else "not a data directory"
        raise CannotCopy(f"nothing was copied: {directory} is {what}")
    with _removed_if_new_and_empty(directory), locked(directory), closing(SqliteScopes(directory)) as scopes:
        yield DirectoryPlace(scopes)


@contextmanager
def _removed_if_new_and_empty(directory: Path) -> Iterator[None]:
    """Remove a directory that did not exist before, and those above it, if nothing was copied into it."""
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    try:
        yield
    finally:
        if made and directory.is_dir() and all(each.name == LOCK_FILE for each in directory.iterdir()):
            (directory / LOCK_FILE).unlink(missing_ok=True)
            for each in made:
                with suppress(OSError):  # somebody uses it by now
                    each.rmdir()
