"""Operations on the database as a whole, and on the daemon itself."""

from importlib.metadata import version
from typing import Any

from backscroll.handlers import changes, command_log
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import statement
from backscroll.handlers.storage import CommandContext, Status, Writes
from backscroll.schema import description
from backscroll.schema.command_log import Noun
from backscroll.schema.limits import INTEGER_MAX
from backscroll.schema.operations import ClearAllData, Describe, Health, Initialize, Ping
from backscroll.schema.replies import HealthReport, Pong
from backscroll.schema.tables import CONTENT, ClearedRooms, LogReferences, Table
from backscroll.schema.wire import PROTOCOL_LEVEL

VERSION = version("backscroll")

CLEARED_TABLES: tuple[type[Table], ...] = (*CONTENT, ClearedRooms, LogReferences)
CLEARED_NOUNS: tuple[Noun, ...] = ("message", "room", "member", "user", "current-user", "ban", "media")
EMPTY_EVERY_TABLE = [statement(table.delete()) for table in reversed(CLEARED_TABLES)]


@handles(Initialize)
def initialize(_command: Initialize, _db: Writes, _context: CommandContext) -> None:
    """Nothing to do: the database is created before the daemon is ready."""


@handles(ClearAllData)
def clear_all_data(_command: ClearAllData, db: Writes, context: CommandContext) -> None:
    for delete in EMPTY_EVERY_TABLE:
        db.run(delete)
    for noun in CLEARED_NOUNS:
        changes.cleared(context, noun)
    command_log.erase_all_payloads(db, context)
    for sha256 in db.blobs.put_before(INTEGER_MAX):
        db.blobs.remove_after_commit(sha256)


@handles(Describe)
def describe(_query: Describe, _status: Status) -> dict[str, Any]:
    return description.describe()


@handles(Ping)
def ping(_query: Ping, _status: Status) -> Pong:
    return Pong(pong=True)


@handles(Health)
def health(_query: Health, status: Status) -> HealthReport:
    storage = status.storage
    return HealthReport(
        ready=storage.state == "ok",
        version=VERSION,
        level=PROTOCOL_LEVEL,
        pid=status.pid,
        uptime_ms=status.uptime_ms,
        storage=storage,
        scopes_open=status.scopes_open,
        queues=status.queues,
    )
