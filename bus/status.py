"""The state of the daemon, for the queries that need no database."""

import os
import time
from collections.abc import Callable

from backscroll.bus.gate import Gate
from backscroll.bus.stores import Scopes
from backscroll.schema.replies import StorageHealth


class DaemonStatus:
    """The `Status` that handlers get. `queues` returns the lengths of the queues."""

    def __init__(self, queues: Callable[[], dict[str, int]], scopes: Scopes, gate: Gate) -> None:
        self._started = time.monotonic()
        self._queues = queues
        self._scopes = scopes
        self._gate = gate

    @property
    def access(self) -> Gate:
        return self._gate

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def uptime_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)

    @property
    def storage(self) -> StorageHealth:
        return self._scopes.health()

    @property
    def scopes_open(self) -> int:
        return len(self._scopes.open_names())

    @property
    def queues(self) -> dict[str, int]:
        return self._queues()
