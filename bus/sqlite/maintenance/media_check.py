"""Check of the parts of media: files that are named by the SHA-256 of their bytes, and the rows that need them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.blobs import HASH_CHARACTERS, BlobDirectory
from backscroll.bus.sqlite.maintenance.findings import Findings, explained
from backscroll.handlers.media import SELECT_ALL_FILES, SELECT_ORDERED_PARTS, SELECT_USE_OF_PART
from backscroll.handlers.storage import Reads

CHUNK_BYTES = 2**20
STEP = "reading media"
LOST_MAX = 10_000
"""If so many parts are not there, the list of them ends."""


class MediaCheck:
    """Reads the parts of all media of a scope once. `lost` are those that are missing or damaged, at most `LOST_MAX`.

    `parts` counts the files that were examined.
    """

    def __init__(self, directory: Path, findings: Findings, progress: Progress, *, unnamed_parts: bool) -> None:
        self.directory = directory
        self._unnamed_parts = unnamed_parts
        self.lost: set[str] = set()
        self.parts = 0
        self._bytes = 0
        self._findings = findings
        self._progress = progress

    def check(self, db: Reads) -> None:
        """Compare the files of all media with their hashes, sizes and rows, then the parts that no media names."""
        for media_id, sha256, size in db.each(SELECT_ALL_FILES):
            with self._findings.reading(f"media {media_id}"):
                self._check_file(media_id, sha256, size, db)
        for path in self._files() if self._unnamed_parts else ():
            if db.row(SELECT_USE_OF_PART, sha256=path.name) is None:
                self._is_whole(path, None)

    def _check_file(self, media_id: str, sha256: str, size: int, db: Reads) -> None:
        before, complete = self._bytes, True
        rows = db.rows(SELECT_ORDERED_PARTS, media_id=media_id)
        if [position for position, _ in rows] != list(range(len(rows))) or not rows:
            self._findings.add(f"rows of parts of media {media_id} are missing")
            return
        whole = hashlib.sha256() if len(rows) > 1 else None  # of a single part it is the hash of that
        for _, part in rows:
            complete &= self._is_whole(self.directory / part[:2] / part, whole)
        if complete and (whole.hexdigest() if whole else rows[0][1]) != sha256:
            self._findings.add(f"the parts of media {media_id} do not make the file that was put: its SHA-256 differs")
        if complete and self._bytes - before != size:
            self._findings.add(f"the parts of media {media_id} have {self._bytes - before} bytes, its row says {size}")

    def _is_whole(self, path: Path, whole: Any) -> bool:
        """Read a part, and add its bytes to the hash of its file if there is one; False if it is missing or damaged."""
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    if whole is not None:
                        whole.update(chunk)
                    self._bytes += len(chunk)
                    self._progress(STEP, self._bytes, None)
        except FileNotFoundError:
            return self._lose(path, "is missing")
        except OSError as error:
            return self._lose(path, f"cannot be read: {explained(error)}")
        self.parts += 1
        if digest.hexdigest() != path.name:
            return self._lose(path, "is damaged: its bytes do not match their hash, which is its name")
        return True

    def _lose(self, path: Path, how: str) -> bool:
        if path.name not in self.lost:
            self._findings.add(f"this part of a file {how}", f"{self.directory.name}/{path.parent.name}/{path.name}")
        if len(self.lost) < LOST_MAX:
            self.lost.add(path.name)
        return False

    def _files(self) -> Iterator[Path]:
        """The files of parts, without temporary ones."""
        with self._findings.reading("the directory of media", self.directory.name):
            for directory in _entries(self.directory):
                if directory.is_dir():
                    for entry in _entries(directory):
                        if len(entry.name) == HASH_CHARACTERS and entry.is_file():
                            yield Path(entry.path)


class MediaOfCopy(BlobDirectory):
    """The parts as a replay sees them: it reads those that are whole, and writes and removes none.

    Without a check, or if too many parts are lost, `is_known` is false, and no part is there.
    """

    def __init__(self, checked: MediaCheck | None, nowhere: Path) -> None:
        super().__init__(nowhere if checked is None else checked.directory)
        self.is_known = checked is not None and len(checked.lost) < LOST_MAX
        self._lost = set() if checked is None else checked.lost

    def has(self, sha256: str) -> bool:
        """Whether a part is there, and was not found to be damaged."""
        return self.is_known and sha256 not in self._lost and self._path(sha256).is_file()

    def put(self, data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    def put_again(self, sha256: str) -> bool:  # noqa: ARG002
        return True

    def put_before(self, time_ms: int) -> Iterator[str]:  # noqa: ARG002
        return iter(())  # so that nothing is removed because it is old

    def remove(self, sha256: str) -> None:
        pass


def _entries(directory: Path | os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except FileNotFoundError:
        return
