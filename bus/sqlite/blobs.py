"""The parts of media: files beside a scope's database, each named by the SHA-256 of its bytes.

A part is written to a temporary file, synced and renamed, so it exists completely or not at all. When it is read, it is
verified against its name. Which parts are in use is known only to the database.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backscroll.bus.files import make_directory, write_whole
from backscroll.bus.sqlite.errors import DamagedBlob

HASH_CHARACTERS = 64
NS_PER_MS = 1_000_000


class BlobDirectory:
    """The parts of one scope, in a directory that is created with the first part."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._putting = threading.Lock()
        self._stored: int | None = None  # the bytes of all parts, once they were measured
        self._keepers = 0  # who need that files stay
        self._removed: set[str] = set()  # the parts whose files stay only for them

    def put(self, data: bytes) -> str:
        """Store a part durably and return its hash. An existing part counts as put now; a damaged one is repaired."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        with self._putting:
            self._removed.discard(sha256)
            if path.is_file() and path.read_bytes() == data:
                os.utime(path)
            else:
                make_directory(path.parent)
                write_whole(path, data)
                self._count(len(data))
        return sha256

    def put_again(self, sha256: str) -> bool:
        """Count an existing part as put now. Returns False if it does not exist."""
        with self._putting:
            if sha256 in self._removed:
                return False
            try:
                os.utime(self._path(sha256))
            except FileNotFoundError:
                return False
        return True

    def count_as_put(self, sha256: str, at: int) -> None:
        """Count an existing part as put at a time, in milliseconds since the epoch."""
        os.utime(self._path(sha256), ns=(at * NS_PER_MS, at * NS_PER_MS))

    def read(self, sha256: str) -> bytes | None:
        """The bytes of a part, or None if it does not exist; raises `DamagedBlob` if they do not match its hash."""
        if sha256 in self._removed:
            return None
        try:
            data = self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedBlob(sha256)
        return data

    def remove(self, sha256: str) -> None:
        """Remove a part; its file stays as long as somebody keeps all files, but nobody else finds it any more."""
        with self._putting:
            if self._keepers:
                self._removed.add(sha256)
            else:
                self._unlink(sha256)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the files of all parts until the end of the block, so that they can be copied. Safe from any thread."""
        with self._putting:
            self._keepers += 1
        try:
            yield
        finally:
            with self._putting:
                self._keepers -= 1
                while self._removed and not self._keepers:
                    self._unlink(self._removed.pop())

    def forget(self) -> None:
        """Know nothing of the files any more, which were removed: parts that are put from now on are others."""
        with self._putting:
            self._removed.clear()
            self._stored = None

    def _unlink(self, sha256: str) -> None:
        path = self._path(sha256)
        if self._stored is not None and path.exists():
            self._count(-path.stat().st_size)
        path.unlink(missing_ok=True)

    def was_put_since(self, sha256: str, time_ms: int) -> bool:
        """Whether a part exists and was last put at this time (ms) or later."""
        try:
            return self._path(sha256).stat().st_mtime * 1000 >= time_ms
        except FileNotFoundError:
            return False

    def put_before(self, time_ms: int) -> Iterator[str]:
        """The hashes of the parts last put before a time (ms). Also removes temporary files left by a crash."""
        for path in self.directory.glob("*/*"):
            if path.stat().st_mtime * 1000 >= time_ms:
                continue
            if len(path.name) == HASH_CHARACTERS:
                yield path.name
            else:
                path.unlink(missing_ok=True)

    def all_put(self) -> Iterator[tuple[str, int]]:
        """The hashes of all parts, in order, and when each was last put, in milliseconds since the epoch."""
        for directory in sorted(self.directory.glob("*/")):
            for path in sorted(directory.iterdir()):
                if len(path.name) == HASH_CHARACTERS:
                    yield path.name, path.stat().st_mtime_ns // NS_PER_MS

    def size(self) -> int:
        """The total size of all parts in bytes."""
        return sum(path.stat().st_size for path in self.directory.glob("*/*"))

    def bytes_stored(self) -> int:
        """The total size of all parts in bytes, measured once and counted from then on."""
        if self._stored is None:
            self._stored = self.size()
        return self._stored

    def _count(self, added: int) -> None:
        if self._stored is not None:
            self._stored += added

    def _path(self, sha256: str) -> Path:
        return self.directory / sha256[:2] / sha256
