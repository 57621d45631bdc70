"""Reading and replaying the command log, and reading the resulting rows as they are stored."""

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
    Seq,
    TableName,
)
from backscroll.schema.operations.base import Budget, DecodeCommand, DeferredCommands, Maintenance, Operation, Query
from backscroll.schema.replies import RowPage

Entries = Annotated[list[LogEntry], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]


class GetLog(Query[LogPage], frozen=True):
    """The command log from `fromSeq` on: at most `limit` entries, fewer if they are large.

    `busy` for entries from before a room was cleared while its messages are being removed.

    Attributes:
        from_seq: The number of the entry that the page begins with.
        limit: The most entries; fewer where they are large, but at least one.

    Example: {"fromSeq": 101, "limit": 50}
    """

    RIGHT = "admin"

    run_max = 4  # each page can have several megabytes

    from_seq: Seq = 1
    limit: PageSize = 100


class AppendLog(Maintenance[None], frozen=True):
    """Execute commands again as a log recorded them: with the same seq, time, id and generated values.

    All of them in one commit, or none. The first must follow the scope's last command, otherwise it is a `conflict`;
    entries that are already in the scope's log are skipped, so sending them again is harmless.

    Attributes:
        entries: As `get-log` gives them. An entry without a payload must be `redacted` and have its digest.
        allow_future: Whether an entry may have a time more than a day ahead of the daemon's clock, which is `invalid`
            otherwise: for a log that was recorded while a clock was ahead.

    Example: {"entries": [{"seq": 1, "at": 1767225600000, "id": "line-1", "type": "initialize", "payload": {}}]}
    """

    ERRORS = ("conflict", "not-found")

    body_bytes_max = LOG_BODY_BYTES_MAX

    entries: Entries
    allow_future: bool = False


class GetRows(Query[RowPage], frozen=True):
    """The rows of one table as they are stored, in the order of its key; `after` is the `next` of the previous page.

    For comparing two scopes, and for inspecting what a command changed. `busy` while the messages of a cleared room are
    being removed.

    Attributes:
        table: A name from the `rows` of `get-scope-info`, except `commands`.
        after: Without it the page is the first of the table.
        limit: The most rows; fewer where they are large.

    Example: {"table": "messages", "limit": 50}
    """

    RIGHT = "admin"
    ERRORS = ("not-found",)

    run_max = 4

    table: TableName
    after: list[Any] | None = None
    limit: PageSize = 100


class _DeferredEntry(LogEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payload: Raw = Raw()


class _DeferredLog(DeferredCommands, frozen=True, rename="camel", forbid_unknown_fields=True):
    may_nest = True

    entries: Annotated[list[_DeferredEntry], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]
    allow_future: bool = False

    def with_commands(self, decode: DecodeCommand) -> Operation[Any]:
        entries = [_decoded(entry, index, decode) for index, entry in enumerate(self.entries)]
        return AppendLog(entries, self.allow_future)

    def encoded_commands(self) -> list[tuple[str, Raw]]:
        return [(entry.type, entry.payload) for entry in self.entries if not _is_empty(entry.payload)]

    def budget(self) -> Budget:
        """Larger than for other requests: some JSON is larger in MessagePack, and entries may be batches."""
        return Budget(LOG_FREE_JSON_BYTES_MAX, LOG_COMMANDS_MAX, "the entries")


AppendLog.deferred_type = _DeferredLog


def _decoded(entry: _DeferredEntry, index: int, decode: DecodeCommand) -> LogEntry:
    try:
        if entry.redacted and entry.digest is None:
            raise Invalid.at("$.digest", "a redacted entry needs the digest of its original payload")
        if not _is_empty(entry.payload):
            payload = decode(entry.type, entry.payload)
        elif entry.redacted:
            payload = None
        else:
            raise Invalid.at("$.payload", "the log did not keep the payload, so the command cannot be executed again")
    except CallerError as error:
        raise inside(f"$.payload.entries[{index}]", index, error) from error
    return LogEntry(**asdict(entry) | {"payload": payload})


def _is_empty(payload: Raw) -> bool:
    return bytes(payload) in (b"", b"null", b"\xc0")
