"""What only replies are made of: pages, reports, and what the daemon itself makes."""

from typing import Any

from backscroll.schema.limits import Bytes, Count, DurationMs, Id, Millis, Text
from backscroll.schema.records import Message, Record


class MessagePage(Record, frozen=True, kw_only=True):
    """A stretch of a room's messages, oldest first. The cursors are of its first and last message."""

    messages: list[Message]
    has_older: bool
    has_newer: bool
    older_cursor: str | None = None
    newer_cursor: str | None = None


class MessageList(Record, frozen=True, kw_only=True):
    """A stretch of a channel's messages, newest first."""

    messages: list[Message]
    has_more: bool


class Media(Record, frozen=True, kw_only=True):
    """A file that is kept beside the database, by its content: the same bytes are kept once."""

    id: Id
    sha256: str
    mime: Text
    size: Bytes
    parts: Count
    created_at: Millis
    uploader_id: Id | None = None


class ScopeInfo(Record, frozen=True, kw_only=True):
    """One account's data: bytes on disk with media, rows by table, and the version of its tables."""

    scope: str
    bytes: Bytes
    rows: dict[str, int]
    schema_version: int


class RowPage(Record, frozen=True, kw_only=True):
    """Some rows of a table, each a map of columns to values.

    `key` are the columns that tell rows apart, `next` their values in the last one, null at the end.
    """

    rows: list[dict[str, Any]]
    key: list[str]
    next: list[Any] | None = None


class Session(Record, frozen=True, kw_only=True):
    """Who a token stands for, and until when."""

    token: str
    user_id: Id
    created_at: Millis
    expires_at: Millis
    read_only: bool | None = None


class Pong(Record, frozen=True, kw_only=True):
    """The daemon is there."""

    pong: bool


class StorageHealth(Record, frozen=True, kw_only=True):
    """The database system in use. `walResetBug` says whether this SQLite can lose commits (versions 3.7.0–3.51.2)."""

    engine: str
    version: str
    wal_reset_bug: bool | None = None


class HealthReport(Record, frozen=True, kw_only=True):
    """The state of the daemon: versions, protocol level, time since its start (ms), and how much waits where."""

    ready: bool
    version: str
    level: int
    pid: int
    uptime_ms: DurationMs
    storage: StorageHealth
    scopes_open: int
    queues: dict[str, int]
