"""Disks that fail on demand, as SQLite sees them: a VFS in front of the system's."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import apsw

NUMBERS = itertools.count()


class FaultyDisk(apsw.VFS):
    """Passes everything on unless told otherwise; pass `name` as `vfs`. The faults are plain attributes.

    `only` restricts faults to files whose names end with it (`-wal`, or `.db` for the database itself).
    """

    def __init__(self) -> None:
        self.name = f"faulty-{next(NUMBERS)}"
        self.full = False
        self.read_only = False  # from now on
        self.opens_read_only = False  # as for a file with a read-only mode
        self.failing_syncs = 0
        self.writes_until_full: int | None = None
        self.unreadable: tuple[int, int] | None = None  # a place, and the extended result code of reading it
        self.only = ""
        self.syncs_open = threading.Event()
        self.syncs_open.set()
        self.syncs_blocked = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if self.opens_read_only and flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            flags[0] = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
        return _File(self, name, flags)

    def check_write(self, name: str) -> None:
        """Raise the error that a write to this file gets."""
        if not name.endswith(self.only):
            return
        if self.read_only:
            raise apsw.ReadOnlyError("a read-only disk")
        if self.writes_until_full is not None:
            self.full = self.writes_until_full <= 0
            self.writes_until_full -= 1
        if self.full:
            raise apsw.FullError("a full disk")

    def check_read(self, name: str, amount: int, offset: int) -> None:
        """Raise the error that reading so many bytes from this place of a file gets."""
        if self.unreadable is None or not name.endswith(self.only):
            return
        at, code = self.unreadable
        if offset <= at < offset + amount:
            raise _io_error("a damaged disk", code)

    def check_sync(self, name: str) -> None:
        """Wait while syncs are blocked; raise the error that a sync of this file gets."""
        if not name.endswith(self.only):
            return
        if not self.syncs_open.is_set():
            self.syncs_blocked += 1
            self.syncs_open.wait()
            self.syncs_blocked -= 1
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise _io_error("a failing disk", apsw.SQLITE_IOERR_FSYNC)


def _io_error(message: str, code: int) -> apsw.IOError:
    error = apsw.IOError(message)
    error.extendedresult = code  # type: ignore[attr-defined]  # not in the stubs of apsw
    return error


class StoppingDisk(FaultyDisk):
    """Blocks for ever at its n-th write, after calling `stopped`; counts the writes before that."""

    def __init__(self, writes: int, stopped: Callable[[], object]) -> None:
        self.writes = 0
        self._stop_at = writes
        self._stopped = stopped
        super().__init__()

    def check_write(self, name: str) -> None:
        del name  # any file
        if self.writes == self._stop_at:
            self._stopped()
            threading.Event().wait()
        self.writes += 1


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.file_name = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self.disk.check_read(self.file_name, amount, offset)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self.disk.check_write(self.file_name)
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self.disk.check_write(self.file_name)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.check_sync(self.file_name)
        super().xSync(flags)
