"""Files that must stay the ones that were opened: removed, replaced or shortened files are noticed by their paths.

A process that has a file open goes on writing to it after it was removed or replaced, and everything it writes is gone
when it closes the file. Only `stat` is used: closing a descriptor of a database in use would drop SQLite's own locks.
"""

import os
from pathlib import Path


class WatchedFiles:
    """Compares the device and inode that paths lead to with those of the files that were opened."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[int, int]] = {}
        self._growing: dict[str, int] = {}  # sizes in bytes
        self._names: dict[str, str] = {}  # for messages: callers need not know where the daemon keeps its files

    @classmethod
    def of(cls, *others: "WatchedFiles") -> "WatchedFiles":
        """All files that others watch now."""
        files = cls()
        for other in others:
            files._opened |= other._opened
            files._growing |= other._growing
            files._names |= other._names
        return files

    def note(self, path: Path, name: str = "", *, growing: bool = False) -> None:
        """Remember what a path leads to now; raises OSError. With `growing`, it must never become smaller."""
        found = path.stat()
        self._opened[str(path)] = (found.st_dev, found.st_ino)
        self._names[str(path)] = name or path.name
        if growing:
            self._growing[str(path)] = found.st_size

    def problem(self) -> str:
        """What happened to the first file that is not what it was; empty if all are."""
        for path, opened in self._opened.items():
            try:
                found = os.stat(path)  # noqa: PTH116  # after each commit: half the time of Path.stat
            except (FileNotFoundError, NotADirectoryError):
                return f"{self._names[path]} was removed or moved away"
            except OSError as error:
                return f"{self._names[path]} cannot be examined ({error.strerror})"
            if (found.st_dev, found.st_ino) != opened:
                return f"{self._names[path]} was replaced by another"
            if (before := self._growing.get(path)) is not None:
                if found.st_size < before:
                    return f"{self._names[path]} was emptied or shortened"
                self._growing[path] = found.st_size
        return ""

    def is_other(self, path: Path) -> bool:
        """Whether a path leads to another file than the one that was opened."""
        found = path.stat()
        return (found.st_dev, found.st_ino) != self._opened.get(str(path))

    def identity(self) -> str:
        """The device and inode of the first file, as `device:inode`."""
        return next((f"{device}:{inode}" for device, inode in self._opened.values()), "")
