"""What a dispatcher needs to answer the queries about a daemon, in tests without one."""

from backscroll.bus.gate import Gate
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.status import DaemonStatus
from backscroll.bus.upkeep import Upkeep


def status_of(scopes: SqliteScopes, gate: Gate | None = None) -> DaemonStatus:
    """The status of a daemon with these scopes and no queues."""
    upkeep = Upkeep(scopes.directory, scopes)
    return DaemonStatus(dict, scopes, Gate(scopes.directory) if gate is None else gate, upkeep)
