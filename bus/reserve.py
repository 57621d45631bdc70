"""A file that keeps some of the disk free: it is given up when the disk is full, so that data can still be removed.

A deletion writes to the write-ahead log before it frees anything, and a start writes as well.
"""

import os
import threading
from pathlib import Path

from backscroll.bus.files import free_bytes
from backscroll.bus.logging import log

RESERVE_FILE = "reserve"
ROOM = 2  # the reserve is made again when the disk has so many times its size


class Reserve:
    """The reserve of one data directory; of size 0 there is none. `full` is whether the disk was found to be full.

    Safe to use from any thread.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self._path = directory / RESERVE_FILE
        self.size = self._size = size
        self.full = False
        self._lock = threading.Lock()  # held to make the file or to give it up
        self._make_if_room()
        if size and not self._is_held() and not self._has_room():
            self.full = True

    def give_up(self) -> None:
        """Free the reserve, because the disk is full."""
        with self._lock:
            self.full = True
            if self._is_held():
                self._path.unlink(missing_ok=True)
                log.error("the disk is full; the reserve was given up", path=str(self._path))

    def is_full(self) -> bool:
        """Whether the disk is still full. Looks at the disk if it was, and makes the reserve again if there is room."""
        with self._lock:
            if self.full and self._has_room():
                self._make_if_room()
                self.full = False
                log.info("the disk has room again", path=str(self._path))
            return self.full

    def problem(self) -> str:
        """What is wrong with the disk, in words; empty if nothing is. Only looks."""
        if not self.full or self._has_room():
            return ""
        return (
            f"the disk is full: {free_bytes(self._path.parent)} bytes are free. Commands that add are refused until "
            f"{ROOM * self._size or 'some'} bytes are; those that remove, and compact-scope, are executed"
        )

    def give_up_if_needed(self) -> None:
        """Give up the reserve if the disk has almost no room without it, so that a start succeeds."""
        free = free_bytes(self._path.parent)
        if self._size and free is not None and free < self._size // 4:
            self.give_up()

    def _has_room(self) -> bool:
        free = free_bytes(self._path.parent)
        return free is None or free >= max(self._size if self._is_held() else ROOM * self._size, 1)

    def _is_held(self) -> bool:
        return self._size > 0 and self._path.exists()

    def _make_if_room(self) -> None:
        if not self._size or self._is_held() or not self._has_room():
            return
        try:
            with self._path.open("xb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._size)
                else:
                    file.write(bytes(self._size))
        except OSError as error:
            self._path.unlink(missing_ok=True)
            log.error("the reserve cannot be made", path=str(self._path), error=str(error))
