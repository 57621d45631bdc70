"""The last commit of a database, in a file of 64 bytes beside it, so that a lost end of the database is noticed.

SQLite takes a write-ahead log whose end is damaged or missing for a shorter one, and files of an earlier moment fit
each other. The file is written after each commit and before its replies, and never synced: a crash of the system may
leave an earlier commit in it, or nothing that can be read, which is ignored; but none that is not in the database,
because that was synced before.
"""

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backscroll.handlers.storage import LogPosition

SUFFIX = "-last-commit"
FACTS = struct.Struct("<16sQQ28s")
CHECKSUM = struct.Struct("<I")
FILE_BYTES = FACTS.size + CHECKSUM.size
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class LastCommit(NamedTuple):
    """The beginnings of the lineage and of the chain at the end of the log, the number of commits, and the last seq."""

    lineage: bytes
    commits: int
    seq: int
    chain: bytes

    @classmethod
    def of(cls, lineage: str, commits: int, position: LogPosition) -> "LastCommit":
        """What is written for a commit."""
        return cls(*FACTS.unpack(FACTS.pack(lineage.encode(), commits, position.seq, position.chain)))

    def is_of(self, lineage: str) -> bool:
        """Whether it is of the database with this lineage."""
        return lineage.encode()[: len(self.lineage)] == self.lineage


class LastCommitFile:
    """The file beside a database. It is created by the first commit, and open from then on."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}{SUFFIX}")
        self._descriptor: int | None = None

    def read(self) -> LastCommit | None:
        """What the file says; None if there is none, or if it was not written to the end."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        facts = data[: FACTS.size]
        if len(data) != FILE_BYTES or CHECKSUM.unpack_from(data, FACTS.size)[0] != zlib.crc32(facts):
            return None
        return LastCommit(*FACTS.unpack(facts))

    def write(self, lineage: str, commits: int, position: LogPosition) -> None:
        """Write the last commit, as far as the disk permits: an earlier one in the file does no harm."""
        facts = FACTS.pack(lineage.encode(), commits, position.seq, position.chain)
        with suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, FLAGS, 0o600)
            os.lseek(self._descriptor, 0, os.SEEK_SET)  # Windows has no `os.pwrite`
            os.write(self._descriptor, facts + CHECKSUM.pack(zlib.crc32(facts)))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
