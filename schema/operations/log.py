"""The command log, replayed and read; and the rows that it leads to, as they are stored."""

from typing import Annotated, Any

from msgspec import Meta, Raw
from msgspec.structs import asdict

from backscroll.schema.command_log import LogEntry, LogPage
from backscroll.schema.errors import CallerError, Invalid, inside
from backscroll.schema.limits import (
    BATCH_COMMANDS_MAX,
    LOG_BODY_BYTES_MAX,
    LOG_COMMANDS_MAX,
    LOG_FREE_JSON_BYTES_MAX,
    PageSize,
)
from backscroll.schema.operations.base import DeferredCommands, Maintenance, Operation, Query, ReadCommand
from backscroll.schema.replies import RowPage
from backscroll.schema.wire import Budget

Seq = Annotated[int, Meta(ge=1)]
Entries = Annotated[list[LogEntry], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]


class GetLog(Query[LogPage], frozen=True):
    """The command log from one number on: at most `limit` entries, fewer where they are large.

    Example: {"fromSeq": 101, "limit": 50}
    """

    run_max = 4  # of many megabytes each

    from_seq: Seq = 1
    limit: PageSize = 100


class AppendLog(Maintenance[None], frozen=True):
    """Carry out commands just as a log recorded them: with their numbers, times, ids and what they generated.

    All of them, in one commit, or none. The first must follow the scope's last command, else it is a `conflict`; what
    the scope's own log holds already is passed over, so sending it again is harmless.

    Example: {"entries": [{"seq": 1, "at": 1767225600000, "id": "line-1", "type": "initialize", "payload": {}}]}
    """

    body_bytes_max = LOG_BODY_BYTES_MAX

    entries: Entries


class GetRows(Query[RowPage], frozen=True):
    """The rows of one table as they are stored, in the order of its key; `after` is the `next` of the page before.

    For comparing what two scopes hold, and for looking what a command left.

    Example: {"table": "messages", "limit": 50}
    """

    run_max = 4

    table: Annotated[str, Meta(max_length=64)]
    after: list[Any] | None = None
    limit: PageSize = 100


class _ReceivedEntry(LogEntry, frozen=True, kw_only=True):
    payload: Raw = Raw()


class _ReceivedLog(DeferredCommands, frozen=True, forbid_unknown_fields=True):
    entries: Annotated[list[_ReceivedEntry], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]

    def opened(self, read: ReadCommand) -> Operation[Any]:
        return AppendLog([_opened(entry, index, read) for index, entry in enumerate(self.entries)])

    @property
    def size(self) -> int:
        return len(self.entries)

    def budget(self) -> Budget:
        """More than any request may hold: what came as JSON is larger here, and batches are entries."""
        return Budget(LOG_FREE_JSON_BYTES_MAX, LOG_COMMANDS_MAX)


AppendLog.deferred_type = _ReceivedLog


def _opened(entry: _ReceivedEntry, index: int, read: ReadCommand) -> LogEntry:
    try:
        if entry.redacted and entry.digest is None:
            raise Invalid.at("$.digest", "a redacted entry says what its payload's digest was")
        if not _is_empty(entry.payload):
            payload = read(entry.type, entry.payload)
        elif entry.redacted:
            payload = None
        else:
            raise Invalid.at("$.payload", "the payload was not kept, so this command cannot be carried out again")
    except CallerError as error:
        raise inside(f"$.payload.entries[{index}]", index, error) from error
    return LogEntry(**asdict(entry) | {"payload": payload})


def _is_empty(payload: Raw) -> bool:
    return bytes(payload) in (b"", b"null", b"\xc0")
