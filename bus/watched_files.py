"""Files that must stay the ones that were opened: removed, replaced or shortened files are noticed by their paths.

A process that has a file open goes on writing to it after it was removed or replaced, and everything it writes is gone
when it closes the file. Only `stat` is used: closing a descriptor of a database in use would drop SQLite's own locks.
"""

import os
import time
from pathlib import Path

SETTLED_SECONDS = 2.0
"""No file system keeps times more coarsely: of two changes so far apart, the second one changes the time."""


class WatchedFiles:
    """Compares the device and inode that paths lead to with those of the files that were opened.

    With `directory`, where all of them are, they are examined only if an entry of it may have been added, removed or
    replaced since. That is for files that are written all the time: Linux from 6.13 on gives a file that was examined
    a new time with its next write, which makes a commit a quarter slower.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._opened: dict[str, tuple[int, int]] = {}
        self._growing: dict[str, int] = {}  # sizes in bytes
        self._names: dict[str, str] = {}  # for messages: callers need not know where the daemon keeps its files
        self._directory = str(directory) if directory else ""
        self._seen: tuple[int, ...] = ()  # the state of the directory
        self._seen_at = 0.0  # when it was seen for the first time
        self._settled: tuple[int, ...] = ()  # the state that it does not have again after a change

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
        state = _state(self._directory) if self._directory else ()
        if state and state == self._settled:
            return ""
        problem = self._first_problem()
        if state and not problem:
            self._note_state(state)
        return problem

    def _note_state(self, state: tuple[int, ...]) -> None:
        """Note the state of the directory in which all files were found to be right."""
        now = time.monotonic()
        if state != self._seen:
            self._seen, self._seen_at = state, now
        elif now - self._seen_at >= SETTLED_SECONDS:
            self._settled = state

    def _first_problem(self) -> str:
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


def _state(directory: str) -> tuple[int, ...]:
    """What changes when an entry of a directory is added, removed or replaced; empty if it cannot be examined.

    Its modification time alone is set back by programs that restore backups.
    """
    try:
        found = os.stat(directory)  # noqa: PTH116
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns
