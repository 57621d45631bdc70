"""Parts of media: files beside a scope's database, each named by the SHA-256 of its bytes.

A part is written to a temporary file, synced, and renamed: it is there whole or not at all. Reading holds it against
its name. Knows nothing of who uses a part; the database does.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backscroll.bus.failures import DamagedPart

HASH_CHARACTERS = 64


class Parts:
    """The parts of one scope, in a directory that is made with the first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, data: bytes) -> str:
        """Keep these bytes, durably; their hash. Bytes that are there already count as put now.

        A damaged part is whole again afterwards.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        if path.is_file() and path.read_bytes() == data:
            os.utime(path)
        else:
            make_directory(path.parent)
            _write_whole(path, data)
        return sha256

    def read(self, sha256: str) -> bytes | None:
        """The bytes of a part, or None; raises `DamagedPart` when they are no longer what they were."""
        try:
            data = self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedPart(sha256)
        return data

    def remove(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)

    def put_before(self, time_ms: int) -> Iterator[str]:
        """The parts that were last put before a time. Temporary files that a crash left are removed on the way."""
        for path in self.directory.glob("*/*"):
            if path.stat().st_mtime * 1000 >= time_ms:
                continue
            if len(path.name) == HASH_CHARACTERS:
                yield path.name
            else:
                path.unlink(missing_ok=True)

    def size(self) -> int:
        """How many bytes all parts have."""
        return sum(path.stat().st_size for path in self.directory.glob("*/*"))

    def _path(self, sha256: str) -> Path:
        return self.directory / sha256[:2] / sha256


def _write_whole(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix="new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_directory(directory: Path) -> None:
    """Make a directory with those above it, durably, for this user alone."""
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
