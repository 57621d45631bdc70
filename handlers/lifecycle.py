"""The life of a database, and of the daemon that owns it."""

from importlib.metadata import version

from backscroll.handlers import command_log
from backscroll.handlers.sql import statement
from backscroll.handlers.storage import Database, Status
from backscroll.schema.limits import INTEGER_MAX
from backscroll.schema.operations import ClearAllData, Health, Initialize, Ping
from backscroll.schema.replies import HealthReport, Pong
from backscroll.schema.tables import CONTENT, Mentions, Table
from backscroll.schema.wire import PROTOCOL_VERSION

VERSION = version("backscroll")
WAL_RESET_BUG_FROM, WAL_RESET_BUG_UNTIL = (3, 7, 0), (3, 51, 3)

CLEARED: tuple[type[Table], ...] = (*CONTENT, Mentions)
EMPTY_EVERY_TABLE = [statement(table.delete()) for table in reversed(CLEARED)]


def initialize(_command: Initialize, _db: Database) -> None:
    """The database was made before the daemon said that it is ready."""


def clear_all_data(_command: ClearAllData, db: Database) -> None:
    db.touch_all()
    for delete in EMPTY_EVERY_TABLE:
        db.run(delete)
    command_log.forget_all(db)
    for sha256 in db.parts.put_before(INTEGER_MAX):
        db.parts.remove_after_commit(sha256)


def ping(_query: Ping, _status: Status) -> Pong:
    return Pong(pong=True)


def health(_query: Health, status: Status) -> HealthReport:
    return HealthReport(
        ready=True,
        version=VERSION,
        protocol=PROTOCOL_VERSION,
        pid=status.pid,
        uptime_ms=status.uptime_ms,
        sqlite_version=".".join(str(part) for part in status.sqlite_version),
        wal_reset_bug=WAL_RESET_BUG_FROM <= status.sqlite_version < WAL_RESET_BUG_UNTIL,
        scopes_open=status.scopes_open,
        queues=status.queues,
    )
