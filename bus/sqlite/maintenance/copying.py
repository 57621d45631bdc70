"""Copying a database in use by its plain files, in a process that has not opened it.

While the daemon pauses checkpoints, the database file does not change, and commits are appended to the write-ahead log:

    database    as it was at the last checkpoint before the pause
    log         every commit since then, and those during the copy, of which the last may be cut off

SQLite may begin the log anew during a pause, but only once, and only if all of it was in the database before: then the
copied database has what the earlier log had, and the later one has the rest. A log that was begun anew while it was
copied is copied again. SQLite leaves out what is cut off at the end of the copied log, since its checksum does not fit.
So the copy has everything that was acknowledged before it was begun.

What a copy writes delays the syncs of commits. So while a log is there, which is while somebody may be writing, each
piece is synced by itself, and then as long as it took nothing is copied; until the log has grown so much that the pause
may end before the copy does.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import apsw

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

from backscroll.bus.files import sync_directory
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.errors import is_damage
from backscroll.bus.sqlite.opening import UPDATE_COMMITS, distrust
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.wal_lineage import HEADER_BYTES, SELECT_MOMENT

PIECE_BYTES = 2**20
SYNC_BYTES = 32 * 2**20  # so that no sync of anybody has to wait for gigabytes of a copy
HURRY_LOG_BYTES = 256 * 2**20  # of the log: a quarter of what ends the pause
CLONE = 0x40049409  # FICLONE of Linux: the copy shares the blocks of the original until one of them is written
UNSUPPORTED = {
    *(errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.EBADF),
    errno.ETXTBSY,
}
LOG_COPIES_MAX = 3

Advance = Callable[[int], None]
"""Receives how many bytes were copied more."""


class CannotCopy(Exception):
    """A copy cannot be made; the message says why."""


class DamagedCopy(CannotCopy):
    """The copy, and therefore the original, is damaged; the message says how."""


@contextmanager
def plain_errors(database: Path) -> Iterator[None]:
    """Turn errors of SQLite into `DamagedCopy`, `CannotCopy` and OSError, which another process can pass on."""
    try:
        yield
    except apsw.FullError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(database)) from error
    except (apsw.Error, UnicodeDecodeError, IndexError) as error:
        if isinstance(error, apsw.Error) and not is_damage(error):
            raise CannotCopy(f"{database} cannot be read: {error}") from error
        raise DamagedCopy(f"it is damaged or not an SQLite database: {error}") from error


def copy_database(source: Path, target: Path, progress: Progress) -> None:
    """Copy a database whose checkpoints are paused, or that nobody uses, into a new closed file, durably.

    Raises `CannotCopy`, OSError, and what `progress` raises. The names of files that are left then begin with that of
    the target.
    """
    log = _log_of(source)
    copy_file(source, target, progress, f"copying {source.name}", log)
    _copy_log(log, _log_of(target), progress)
    finish_copy(target)


def copy_file(source: Path, target: Path, progress: Progress, step: str, log: Path | None = None) -> None:
    """Copy a file into a new private one, durably, in pieces between which it can be stopped. Holes stay holes.

    `log` is a write-ahead log that commits may be appended to meanwhile; they are then delayed as little as possible.
    """
    done = unsynced = 0
    with source.open("rb", buffering=0) as original, _private(target) as copy:
        size = os.fstat(original.fileno()).st_size
        began = time.monotonic()

        def advance(number: int) -> None:
            nonlocal done, unsynced, began
            done, unsynced = done + number, unsynced + number
            rests = _has_time(log)
            if rests or unsynced >= SYNC_BYTES:
                os.fsync(copy.fileno())
                unsynced = 0
            progress(step, done, size)
            if rests:
                time.sleep(time.monotonic() - began)
            began = time.monotonic()

        progress(step, 0, size)
        if not _clone(original, copy):
            for start, end in _data_of(original, size):
                _copy_range(original, copy, start, end, advance)
        copy.truncate(size)
        os.fsync(copy.fileno())
    sync_directory(target.parent)


def _has_time(log: Path | None) -> bool:
    """Whether somebody may be writing into a log that is not so long that the copy has to be finished first."""
    if log is None:
        return False
    try:
        return log.stat().st_size < HURRY_LOG_BYTES
    except FileNotFoundError:
        return False


def finish_copy(target: Path) -> None:
    """Put a copied log into the copied database, and note there that it is complete without one. Durably."""
    with plain_errors(target), closing(apsw.Connection(str(target))) as connection:
        distrust(connection)
        connection.pragma("locking_mode", "exclusive")  # so that the index of the log is in memory
        if connection.pragma("journal_mode", "memory") != "memory":  # copies the log into the database and removes it
            raise CannotCopy(f"the write-ahead log of {target} cannot be emptied; is another process using it?")
        rows = fetch(connection, SELECT_MOMENT)
        commits = rows[0][1]
        connection.execute(COMPILED[UPDATE_COMMITS], {"commits": commits + 1, "closed": True})
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    for left in (_log_of(target), target.with_name(f"{target.name}-shm")):
        left.unlink(missing_ok=True)
    sync_directory(target.parent)


def _copy_log(source: Path, target: Path, progress: Progress) -> None:
    """Copy a log that commits are appended to; once more if it was begun anew meanwhile."""
    for _ in range(LOG_COPIES_MAX):
        before = _header_of(source)
        if not before:
            return
        target.unlink(missing_ok=True)
        copy_file(source, target, progress, f"copying {source.name}", source)
        if before == _header_of(target) == _header_of(source):
            return
    target.unlink(missing_ok=True)
    raise CannotCopy(f"{source} was begun anew several times while it was copied: checkpoints are not paused")


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _header_of(log: Path) -> bytes:
    """The header of a log, which is another each time it is begun anew; empty if there is no log."""
    try:
        with log.open("rb", buffering=0) as file:
            return file.read(HEADER_BYTES)
    except FileNotFoundError:
        return b""


def _private(path: Path) -> BinaryIO:
    """A new file that only this user can read."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "r+b", 0)


def _clone(original: BinaryIO, copy: BinaryIO) -> bool:
    """Let the copy share the blocks of the original; False where the file system cannot do that."""
    if fcntl is None or not hasattr(os, "copy_file_range"):
        return False
    try:
        fcntl.ioctl(copy.fileno(), CLONE, original.fileno())
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def _data_of(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that are not holes."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    at = 0
    while at < size:
        try:
            start = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            yield at, size
            return
        at = min(size, os.lseek(file.fileno(), start, os.SEEK_HOLE))
        yield start, at


def _copy_range(original: BinaryIO, copy: BinaryIO, start: int, end: int, advance: Advance) -> None:
    """Copy a range to the same place, inside of the system where it can do that; until the end of a shorter file."""
    os.lseek(original.fileno(), start, os.SEEK_SET)
    os.lseek(copy.fileno(), start, os.SEEK_SET)
    copy_piece = _copy_inside if hasattr(os, "copy_file_range") else _copy_through
    while start < end:
        try:
            copied = copy_piece(original.fileno(), copy.fileno(), min(PIECE_BYTES, end - start))
        except OSError as error:
            if copy_piece is _copy_through or error.errno not in UNSUPPORTED:
                raise
            copy_piece = _copy_through
            continue
        if not copied:
            return
        start += copied
        advance(copied)


def _copy_inside(original: int, copy: int, size: int) -> int:
    return os.copy_file_range(original, copy, size)


def _copy_through(original: int, copy: int, size: int) -> int:
    data = memoryview(os.read(original, size))
    written = 0
    while written < len(data):
        written += os.write(copy, data[written:])
    return written


def remove_copy(target: Path) -> None:
    """Remove what `copy_database` has left or made."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            target.with_name(f"{target.name}{suffix}").unlink()
