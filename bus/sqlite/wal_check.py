"""How much of a write-ahead log is intact on the disk.

SQLite verifies the checksums of a log only when it reads it from the start, and takes a log with a damaged frame for
one that ends before it. So a log is read that way beside an imaginary database of one empty page: by a VFS that passes
on the log alone, and writes nothing. That also leaves the database's locks alone, which closing a descriptor of its
file would drop.
"""

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw

from backscroll.bus.sqlite.checksums import RESERVED_BYTES

PAGE_BYTES = 4096  # of all our databases
CHECKPOINT_NOOP = -1
"""Copies nothing, and returns the number of frames."""
SUFFIX = "-wal"


def intact_frames(database: Path) -> int | None:
    """How many frames of a database's log belong to whole transactions and fit their checksums.

    None if there is no log or it cannot be read. Takes about 3 ms for 1,000 pages.
    """
    try:
        with closing(
            apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE, vfs=LOG_ALONE.name)
        ) as connection:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("locking_mode", "exclusive")  # so that the index of the log is in memory
            with suppress(apsw.CorruptError, apsw.NotADBError, apsw.SQLError):  # page 1 in the log may be anything
                connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
            frames, _ = connection.wal_checkpoint(mode=CHECKPOINT_NOOP)
            return max(frames, 0)
    except apsw.Error:
        return None


def _empty_database() -> bytes:
    """The only page of a database in WAL mode that has no tables."""
    with closing(apsw.Connection(":memory:")) as connection:
        connection.pragma("page_size", PAGE_BYTES)
        connection.reserve_bytes(reserve=RESERVED_BYTES)
        connection.pragma("user_version", 1)  # so that there is a page
        page = bytearray(connection.serialize("main")[:PAGE_BYTES])
    page[18:20] = 2, 2  # WAL mode
    page[28:32] = (1).to_bytes(4, "big")  # pages
    page[100:] = bytes([13, 0, 0, 0, 0, *(PAGE_BYTES - RESERVED_BYTES).to_bytes(2, "big")]).ljust(
        PAGE_BYTES - 100, b"\0"
    )
    return bytes(page)


class NoLocks:
    """A file, besides a class of apsw, that nobody else writes: it is locked without doing anything."""

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False


class _LogAlone(apsw.VFS):
    """Opens the log beside the path of a database to read it, and an imaginary file in place of the database."""

    name = "log-alone"

    def __init__(self) -> None:
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if not flags[0] & apsw.SQLITE_OPEN_WAL:
            return _EmptyDatabase()
        # SQLite is not told that the file is read-only: then it would not index the log.
        return apsw.VFSFile("", name, [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READONLY, 0])

    def xAccess(self, pathname: str, _flags: int) -> bool:  # noqa: N802
        return pathname.endswith(SUFFIX)

    def xDelete(self, filename: str, _sync: bool) -> None:  # noqa: N802
        raise apsw.IOError(f"{filename} is only read")


class _EmptyDatabase(NoLocks, apsw.VFSFile):
    """A file that has the page of an empty database and cannot be written."""

    page = _empty_database()

    def __init__(self) -> None:
        pass

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return self.page[offset : offset + amount]

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.page)

    def xFileControl(self, _op: int, _pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return PAGE_BYTES

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None:  # noqa: N802
        pass


LOG_ALONE = _LogAlone()
