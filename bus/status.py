"""What a daemon knows of itself, for the queries that need no database."""

import os
import time
from collections.abc import Callable

import apsw


class DaemonStatus:
    """The `Status` of handlers. `queues` tells how much waits where, `scopes_open` how many files are open."""

    def __init__(self, queues: Callable[[], dict[str, int]], scopes_open: Callable[[], int]) -> None:
        self._started = time.monotonic()
        self._queues = queues
        self._scopes_open = scopes_open

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def uptime_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)

    @property
    def sqlite_version(self) -> tuple[int, int, int]:
        major, minor, patch = (int(part) for part in apsw.sqlite_lib_version().split("."))
        return major, minor, patch

    @property
    def scopes_open(self) -> int:
        return self._scopes_open()

    @property
    def queues(self) -> dict[str, int]:
        return self._queues()
