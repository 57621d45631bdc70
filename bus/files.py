"""Files that are there whole or not at all, and directories that outlast a crash."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Put these bytes into a file of this user's exclusive, durably and at once; raises OSError.

    What a crash leaves of it has `.new` at the end of its name, and is written over the next time.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)  # it might be open to others
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
    """Make what somebody wrote into a file durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def make_directory(directory: Path) -> None:
    """Make a directory with those above it, durably, for this user exclusive."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename durable, where the system has a way to."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
