"""Files from elsewhere that are to become a scope's database. Nothing in them is trusted.

A file is examined before it is copied: its kind, size and header. The copy is examined before anything in it is used:
it must have exactly the objects that its version has, so no trigger, view or virtual table of others. Callers get one
error for whatever is wrong, so that nobody learns which files exist; the daemon's log has the reason.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import sync_file
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.checksums import is_mismatch
from backscroll.bus.sqlite.scopes import beside
from backscroll.schema.errors import Busy, NotFound, Unavailable
from backscroll.schema.migrations.sqlite import APPLICATION_ID

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\0"
APPLICATION_ID_AT = slice(68, 72)
CHUNK_BYTES = 4 * 2**20
ZEROS = bytes(CHUNK_BYTES)
SPARE_DISK_BYTES = 64 * 2**20
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Unsuitable(Exception):
    """A path that leads to no file that can be adopted; the message is for the daemon's log only."""


class Limits(NamedTuple):
    """What a file may be: its size with its write-ahead log, and not inside the data directory."""

    bytes_max: int
    data_dir: Path


def not_adoptable(limits: Limits) -> NotFound:
    """The error for every path without a suitable file, whatever the reason."""
    return NotFound.at(
        "$.payload.path",
        "there is no file here that can be adopted: a database of backscroll, of this or an earlier version, that was "
        f"not altered, has at most {limits.bytes_max} bytes, is readable for the daemon, and is outside its data "
        "directory. The daemon's log says what is missing.",
    )


def copy_into(directory: Path, source: Path, limits: Limits, is_interrupted: Callable[[], bool]) -> Path:
    """Copy a database with its write-ahead log, and return the copy.

    Raises `Unsuitable`, `Busy` if it is being written to, `Unavailable` if interrupted, and OSError.
    """
    copy, source = directory / "legacy.db", _resolved(source)
    with _opened(source, limits) as database, _opened_if_exists(beside(source, "-wal"), limits) as wal:
        _check_header(os.read(database, HEADER_BYTES))
        if _size_if_exists(beside(source, "-journal")):  # it may name any file for SQLite to delete
            raise Unsuitable("it has a rollback journal; open it once with the program that wrote it")
        files = [(database, copy)] if wal is None else [(database, copy), (wal, beside(copy, "-wal"))]
        before = [_version(descriptor) for descriptor, _ in files]
        _check_size(sum(size for size, _ in before), directory, limits)
        for descriptor, path in files:
            _copy(descriptor, path, is_interrupted)
        if [_version(descriptor) for descriptor, _ in files] != before:
            raise Busy("the file is being written to; stop the application that writes it")
    return copy


def check_copy(copy: Path) -> None:
    """Raise `Unsuitable` if the copy has any other objects than those of its version."""
    try:
        with closing(opening.connect(copy, apsw.SQLITE_OPEN_READONLY, "", 0)) as connection:
            opening.recognise(connection, copy)
            opening.check_schema(connection, copy)
    except (CannotOpen, apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
        raise Unsuitable(str(error)) from error
    except apsw.IOError as error:
        if is_mismatch(error):
            raise Unsuitable(opening.MISMATCH) from error
        raise


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[int]:
    """A descriptor of a regular file outside the data directory; raises `Unsuitable`."""
    resolved = _resolved(path)
    try:
        info = resolved.stat()
        if not stat.S_ISREG(info.st_mode):
            raise Unsuitable("it is not a regular file")
        if _is_inside(resolved, info, limits.data_dir):
            raise Unsuitable("it is in the data directory of this daemon")
        descriptor = os.open(resolved, OPEN_FLAGS)
    except OSError as error:
        raise Unsuitable(str(error)) from error
    try:
        if not os.path.samestat(info, os.fstat(descriptor)):
            raise Unsuitable("it was replaced")
        yield descriptor
    finally:
        os.close(descriptor)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:  # it does not exist, is no valid name, or a loop of links
        raise Unsuitable(str(error)) from error


@contextmanager
def _opened_if_exists(path: Path, limits: Limits) -> Iterator[int | None]:
    if _size_if_exists(path) is None:
        yield None
        return
    with _opened(path, limits) as descriptor:
        yield descriptor


def _size_if_exists(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _is_inside(path: Path, info: os.stat_result, data_dir: Path) -> bool:
    """Whether it is a file of the data directory, also by another name: to close such a file drops SQLite's locks."""
    if any(parent.samefile(data_dir) for parent in path.parents):
        return True
    return info.st_nlink > 1 and any(os.path.samestat(info, each.stat()) for each in data_dir.rglob("*.db*"))


def _check_header(header: bytes) -> None:
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise Unsuitable("it is not an SQLite database")
    if int.from_bytes(header[APPLICATION_ID_AT], "big") != APPLICATION_ID:
        raise Unsuitable("it is a database of another program")


def _check_size(size: int, directory: Path, limits: Limits) -> None:
    if size > limits.bytes_max:
        raise Unsuitable(f"it has {size} bytes; the limit is {limits.bytes_max} (setting adopted_bytes)")
    if size + SPARE_DISK_BYTES > shutil.disk_usage(directory).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _version(descriptor: int) -> tuple[int, int]:
    """The size of a file and the time when it was last written."""
    info = os.fstat(descriptor)
    return info.st_size, info.st_mtime_ns


def _copy(descriptor: int, path: Path, is_interrupted: Callable[[], bool]) -> None:
    """Copy a file durably, in chunks between which it can be interrupted. Holes stay holes."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with path.open("xb") as file:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            if is_interrupted():
                raise Unavailable("the daemon is stopping")
            if chunk == ZEROS[: len(chunk)]:
                file.seek(len(chunk), os.SEEK_CUR)
            else:
                file.write(chunk)
        file.truncate()
    sync_file(path)
