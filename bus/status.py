"""The state of the daemon, for the queries that need no database."""

import os
import time
from collections.abc import Callable

from msgspec.structs import replace

from backscroll.bus.gate import Gate
from backscroll.bus.stores import Scopes
from backscroll.bus.upkeep import Upkeep
from backscroll.schema.replies import StorageHealth


class DaemonStatus:
    """The `Status` that handlers get. `queues` returns the lengths of the queues."""

    def __init__(self, queues: Callable[[], dict[str, int]], scopes: Scopes, gate: Gate, upkeep: Upkeep) -> None:
        self._started = time.monotonic()
        self._queues = queues
        self._scopes = scopes
        self._gate = gate
        self._upkeep = upkeep

    @property
    def access(self) -> Gate:
        return self._gate

    @property
    def upkeep(self) -> Upkeep:
        return self._upkeep

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def uptime_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)

    @property
    def storage(self) -> StorageHealth:
        health = self._scopes.health()
        return replace(health, warnings=[*(health.warnings or []), *self._upkeep.warnings()])

    @property
    def scopes_open(self) -> int:
        return len(self._scopes.open_names())

    @property
    def queues(self) -> dict[str, int]:
        return self._queues()
