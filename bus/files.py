"""Atomic and durable writing of files and directories."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically and durably, accessible to this user only; raises OSError.

    A crash may leave a temporary file with the suffix `.new`, which the next call replaces.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)  # it might have other permissions
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make the contents of a file durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def make_directory(directory: Path) -> None:
    """Create a directory and its parents, durably, accessible to this user only."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable, such as a rename, if the system supports that."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_private(directory: Path) -> bool:
    """Whether a directory exists that belongs to this user, and that no other user can use."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    owned = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return stat.S_ISDIR(found.st_mode) and owned


def free_bytes(directory: Path) -> int | None:
    """The free space on the disk of a directory, for this user; None if it cannot be told."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def size_of(path: Path) -> int:
    """The size of a file, or of all files below a directory, in bytes; 0 if there is none."""
    total = 0
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with suppress(OSError):  # removed meanwhile
            found = each.lstat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
