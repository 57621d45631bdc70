"""Opening database files: checking what they are, migrating them, and checking their tables and scope."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw

from backscroll.bus.failures import RESCUE, CannotOpen
from backscroll.bus.logging import log
from backscroll.bus.sqlite import checksums
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.wal_check import NoLocks
from backscroll.bus.sqlite.wal_lineage import WalLineage, new_lineage
from backscroll.handlers.sql import Named, statement
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from backscroll.schema.tables import Scope, Sequence

DEFAULT_FILE = "default.db"  # of the scope that a data directory always has
COMPANIONS = ("-wal", "-wal-lineage", "-last-commit")
REPAIRED = "-repaired"  # the suffix of the file that a repair is about to replace a database by
MISMATCH = "a page does not match its checksum: the disk changed it, or another program wrote into the file"
FILE_BYTES_MIN = 512  # the smallest page size
WAL_BYTES_KEPT = 64 * 2**20  # the size that a larger write-ahead log is truncated to
WRITER_CACHE_KIB = 16_384
READER_CACHE_KIB = 4_096
STATEMENTS_CACHED = 256
READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI

SELECT_SCOPE = statement(Scope.select(Scope.name))
UPDATE_COMMITS = statement(Sequence.update({Sequence.commits: Named("commits"), Sequence.closed: Named("closed")}))
UPDATE_LINEAGE = statement(Sequence.update({Sequence.lineage: Named("lineage")}))
INSERT_SCOPE = statement(Scope.insert({Scope.id: Named("id"), Scope.name: Named("name")}))


class WithoutLocks(apsw.VFS):
    """Files as the default VFS opens them, so with checksums verified, but without locks.

    SQLite's own VFSes without locks verify nothing, and only the default one can be made to. Each read of a page goes
    through Python.
    """

    name = "without-locks"

    def __init__(self) -> None:
        super().__init__(self.name, checksums.VFS)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _FileWithoutLocks(checksums.VFS, name, flags)


class _FileWithoutLocks(NoLocks, apsw.VFSFile):
    """A file with checksums."""


WITHOUT_LOCKS = WithoutLocks()

WalHook = Callable[[apsw.Connection, str, int], int]


def open_writer(path: Path, *, vfs: str, lock_wait_ms: int, wal_hook: WalHook) -> apsw.Connection:
    """Open the one connection that commits and checkpoints; creates the file if it is new. Raises `CannotOpen`."""
    connection = connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs, lock_wait_ms)
    try:
        if connection.readonly("main"):
            raise CannotOpen(f"{path} is read-only. Make it writable for this user.")
        recognise(connection, path)
        checksums.reserve(connection)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise CannotOpen(f"{path} is on a file system without shared memory. Name a directory on a local disk.")
        connection.pragma("synchronous", "full")
        connection.pragma("fullfsync", True)  # on macOS only this flushes to the disk; elsewhere it has no effect
        connection.pragma("foreign_keys", True)
        connection.pragma("secure_delete", True)  # overwrites deleted text
        connection.pragma("journal_size_limit", WAL_BYTES_KEPT)
        connection.pragma("cache_size", -WRITER_CACHE_KIB)
        connection.set_wal_hook(wal_hook)  # replaces SQLite's own checkpoint inside COMMIT
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, *, vfs: str, lock_wait_ms: int) -> apsw.Connection:
    """Open a connection that only reads."""
    connection = connect(path, apsw.SQLITE_OPEN_READWRITE, vfs, lock_wait_ms)
    connection.pragma("query_only", True)
    connection.pragma("wal_autocheckpoint", 0)
    connection.pragma("cache_size", -READER_CACHE_KIB)
    return connection


def open_alone(path: Path) -> apsw.Connection:
    """Open a read-only connection to files that nobody writes, without locks and without a `-shm` file."""
    wal = path.with_name(f"{path.name}-wal")
    if wal.is_file() and wal.stat().st_size:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=WITHOUT_LOCKS.name)
    else:
        connection = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=READ_ONLY)
    distrust(connection)
    leave_log(connection)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.pragma("locking_mode", "exclusive")  # so that the index of the log is in memory
    connection.pragma("query_only", True)
    connection.pragma("temp_store", "memory")
    connection.pragma("cache_size", -READER_CACHE_KIB)
    return connection


def leave_log(connection: apsw.Connection) -> None:
    """Let closing this connection neither checkpoint the write-ahead log nor remove the file at its path."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def finish_log(connection: apsw.Connection) -> None:
    """Let closing this connection, if it is the last one, copy the log into the database and remove it."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def mark_closed(copy: Path, commits: int) -> None:
    """Say in the copy of a database in use that it is complete without a write-ahead log, after so many commits."""
    with closing(apsw.Connection(str(copy))) as connection:
        connection.pragma("journal_mode", "memory")
        connection.execute(COMPILED[UPDATE_COMMITS], {"commits": commits, "closed": True})


def connect(path: Path, flags: int, vfs: str, lock_wait_ms: int) -> apsw.Connection:
    """Open a connection. However it is closed, an exception or the garbage collector included, the log stays."""
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs or None, statementcachesize=STATEMENTS_CACHED)
    leave_log(connection)
    distrust(connection)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    # Without this the planner looks at the value of a LIMIT, and compiles the statement again when there is another.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.set_busy_timeout(lock_wait_ms)
    connection.pragma("mmap_size", 0)
    connection.pragma("temp_store", "memory")
    return connection


def distrust(connection: apsw.Connection) -> None:
    """Let nothing that is defined in a file run by itself: no trigger, no view, no function with side effects."""
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)


def check_files(path: Path, lineage: WalLineage, *, read_only: bool = False) -> None:
    """Raise `CannotOpen` unless the database is new, or is all there and its files belong together.

    Called before SQLite opens it: SQLite would treat a file that lost its content as a new one, and replay any log.
    """
    if path.with_name(f"{path.name}{REPAIRED}").exists():
        raise CannotOpen(
            f"the repair of {path} was interrupted. Run `backscroll repair` again: it finishes that first."
        )
    if path.is_dir():
        return  # SQLite reports that it is not a file
    size = path.stat().st_size if path.is_file() else 0
    if 0 < size < FILE_BYTES_MIN:
        raise CannotOpen(f"{path} is damaged or not an SQLite database. {RESCUE}")
    if size == 0:
        _refuse_lost(path)
    else:
        lineage.check(read_only=read_only)


def _refuse_lost(path: Path) -> None:
    """Raise `CannotOpen` for an empty or missing database if files beside it show that it held data."""
    left = [each.name for each in companions(path) if _holds_data(each)]
    what = "is empty" if path.is_file() else "is missing"
    if left:
        names = f"{', '.join(left[:-1])} and {left[-1]}" if left[1:] else left[0]
        show = "show" if left[1:] else "shows"
        raise CannotOpen(
            f"{path} {what}, but {names} beside it {show} that it held data. Restore it from a backup, "
            f"or remove {names} to start with an empty database."
        )
    if path.name == DEFAULT_FILE and not path.exists() and any(path.parent.glob("scopes/*.db")):
        raise CannotOpen(
            f"{path} {what}, but there are other scopes in scopes/. Restore it from a backup, or create an empty file "
            "of this name to start with an empty database."
        )


def companions(path: Path) -> list[Path]:
    """The files and directories beside a database that hold what belongs to it."""
    return [path.with_suffix(".media"), *(path.with_name(path.name + suffix) for suffix in COMPANIONS)]


def _holds_data(companion: Path) -> bool:
    try:
        return any(companion.iterdir()) if companion.is_dir() else companion.stat().st_size > 0
    except FileNotFoundError:
        return False


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Apply the migrations that the file does not have yet; each is committed together with its version."""
    version = connection.pragma("user_version")
    for number, script in enumerate(migrations()[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(script)
            if number == 1:
                connection.execute(COMPILED[UPDATE_LINEAGE], {"lineage": new_lineage()})
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", number)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        log.info("migrated", path=str(path), version=number)


def check_schema(connection: apsw.Connection, path: Path) -> None:
    """Raise `CannotOpen` unless the file has exactly what the migrations up to its version create."""
    with closing(apsw.Connection(":memory:")) as fresh:
        for script in migrations()[: connection.pragma("user_version")]:
            fresh.execute(script)
        wanted, found = _schema(fresh), _schema(connection)
    if missing := wanted - found:
        names = ", ".join(sorted(name for name, _ in missing))
        raise CannotOpen(f"{path} is damaged: it lacks {names}, or they were altered. {RESCUE}")
    if added := found - wanted:
        names = ", ".join(sorted(name for name, _ in added))
        raise CannotOpen(f"{path} was altered by another program: remove {names}, or restore it from a backup.")


def claim(connection: apsw.Connection, path: Path, scope: str | None) -> None:
    """Write the scope's name into a new file; raise `CannotOpen` if the file belongs to another scope."""
    if scope is None:
        return
    if not check_scope(connection, path, scope):
        connection.execute(COMPILED[INSERT_SCOPE], {"id": 1, "name": scope})
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)  # so that `scope_named_in` finds it


def check_scope(connection: apsw.Connection, path: Path, scope: str) -> bool:
    """Whether the file names its scope; raises `CannotOpen` if it belongs to another one."""
    rows = fetch(connection, SELECT_SCOPE)
    if rows and rows[0][0] != scope:
        raise CannotOpen(f"{path} belongs to another scope. Was the file renamed or copied? Restore its name.")
    return bool(rows)


def check_migrated(connection: apsw.Connection, path: Path) -> None:
    """Raise `CannotOpen` if the file lacks migrations, which cannot be applied because it cannot be written."""
    version, known = connection.pragma("user_version"), len(migrations())
    if version < known:
        raise CannotOpen(
            f"{path} has schema version {version} and must be migrated to {known} before it can be read, but it cannot "
            "be written now. Make it writable, with room on its disk, and start the daemon again."
        )


def scope_named_in(path: Path) -> str | None:
    """The scope that a closed file belongs to; None if it cannot be read.

    The write-ahead log is not read, because that would need a lock; the name is in the file itself before any command
    is. A crash during a checkpoint may leave the file shorter than its header says, which SQLite ignores with
    `writable_schema`.
    """
    try:
        with closing(apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=READ_ONLY)) as connection:
            distrust(connection)
            connection.pragma("writable_schema", True)
            rows = fetch(connection, SELECT_SCOPE)
    except apsw.Error:
        return None
    return str(rows[0][0]) if rows else None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors from opening a file into a `CannotOpen` that says what to do."""
    try:
        yield
    except apsw.IOError as error:
        if checksums.is_mismatch(error):
            raise CannotOpen(f"{path} is damaged: {MISMATCH}. {RESCUE}") from error
        raise CannotOpen(f"{path} cannot be opened: {error}") from error
    except (apsw.NotADBError, apsw.CorruptError, UnicodeDecodeError, IndexError) as error:
        raise CannotOpen(f"{path} is damaged or not an SQLite database ({error}). {RESCUE}") from error
    except apsw.BusyError as error:
        raise CannotOpen(f"{path} is locked by another process. Stop that process first.") from error
    except apsw.CantOpenError as error:
        raise CannotOpen(f"{path} cannot be opened. Is it a file that this user may read and write?") from error
    except (apsw.Error, OSError) as error:
        raise CannotOpen(f"{path} cannot be opened: {error}") from error


def recognise(connection: apsw.Connection, path: Path) -> None:
    """Raise `CannotOpen` for files of other programs and of later versions, before anything is changed."""
    application_id = connection.pragma("application_id")
    empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    if application_id != APPLICATION_ID and not (empty and application_id == 0):
        raise CannotOpen(f"{path} is a database of another program. Name another data directory.")
    version, known = connection.pragma("user_version"), len(migrations())
    if version > known:
        raise CannotOpen(
            f"{path} has schema version {version}, and this backscroll knows {known} at most. "
            "Use the newer backscroll that wrote it."
        )


def _schema(connection: apsw.Connection) -> set[tuple[str, str]]:
    """The names and the SQL of everything that is defined in a file, besides SQLite's statistics."""
    rows: Any = connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat[14]'")
    return set(rows.fetchall())
