"""What a dispatcher needs to answer the queries about a daemon, in tests without one."""

from pathlib import Path
from typing import Any

from backscroll.bus.gate import Gate
from backscroll.bus.status import DaemonStatus
from backscroll.bus.upkeep import Upkeep


def status_of(scopes: Any, gate: Gate | None = None) -> DaemonStatus:
    """The status of a daemon with these scopes and no queues."""
    directory = getattr(scopes, "directory", Path("no-directory"))
    return DaemonStatus(dict, scopes, gate or Gate(scopes.access), Upkeep(directory, scopes))
