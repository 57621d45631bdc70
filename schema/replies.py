"""The records that occur only in replies: pages, reports, and items that the daemon creates."""

from typing import Annotated, Any

from backscroll.schema.command_log import NounName
from backscroll.schema.limits import Bytes, Count, Cursor, DurationMs, Id, Millis, Seq, Text
from backscroll.schema.markers import ByNoun, OneOf
from backscroll.schema.records import Ban, Message, Record, Room, RoomMember, User
from backscroll.schema.wire import RequestId


class MessagePage(Record, frozen=True, kw_only=True):
    """Consecutive messages of a room, oldest first. The cursors point at the first and the last of them."""

    messages: list[Message]
    has_older: bool
    has_newer: bool
    older_cursor: str | None = None
    newer_cursor: str | None = None


class MessageList(Record, frozen=True, kw_only=True):
    """Consecutive messages of a channel, newest first."""

    messages: list[Message]
    has_more: bool


class DeletedMessages(Record, frozen=True, kw_only=True):
    """How many messages a command deleted, and whether there are more for the same command to delete."""

    deleted: Count
    has_more: bool


class Media(Record, frozen=True, kw_only=True):
    """A file stored beside the database. Identical files are stored once."""

    id: Id
    sha256: str
    mime: Text
    size: Bytes
    parts: Count
    created_at: Millis
    uploader_id: Id | None = None


class ScopeInfo(Record, frozen=True, kw_only=True):
    """The size of a scope: bytes on disk including media, rows by table, and the version of its tables.

    `bareTombstones` are the deletions of messages that have never arrived; they are kept for ever. The rows of
    `messages` include them, and other rows that only occupy an id. `purging` is the number of cleared or deleted rooms
    whose messages nobody can read any more, but whose bytes are not all removed; the rows include these.
    """

    scope: str
    bytes: Bytes
    rows: dict[str, int]
    schema_version: int
    bare_tombstones: Count
    purging: Count


class RowPage(Record, frozen=True, kw_only=True):
    """Rows of a table, each a map of columns to values.

    `key` lists the primary key columns; `next` has their values in the last row, or is null at the end of the table.
    """

    rows: list[dict[str, Any]]
    key: list[str]
    next: list[Any] | None = None


class Session(Record, frozen=True, kw_only=True):
    """A session: the user that its token authenticates, and until when."""

    user_id: Id
    created_at: Millis
    expires_at: Millis
    read_only: bool | None = None


class AccessToken(Record, frozen=True, kw_only=True):
    """A token without its secret: what whoever has it may do, in which scopes (all if unset), and until when."""

    name: Text
    right: Annotated[str, OneOf("read", "write", "admin")]
    created_at: Millis
    scopes: list[str] | None = None
    expires_at: Millis | None = None


class ClientKey(Record, frozen=True, kw_only=True):
    """The public key of a client that may connect to `curve://` endpoints."""

    name: Text
    public_key: Text
    created_at: Millis


class KeyList(Record, frozen=True, kw_only=True):
    """The daemon's own public key, and those of the clients that may connect to `curve://` endpoints."""

    server_key: Text
    keys: list[ClientKey]


class Proof(Record, frozen=True, kw_only=True):
    """Proves that the daemon knows a token: an HMAC-SHA-256 in hex, over the nonce and its own tcp endpoints."""

    proof: Text
    endpoints: list[str]


class Pong(Record, frozen=True, kw_only=True):
    """The reply to `ping`."""

    pong: bool


class StorageHealth(Record, frozen=True, kw_only=True):
    """The database system in use, and whether it can store. `walResetBug`: it can lose commits (SQLite 3.7.0–3.51.2).

    `state` is `ok`, or says what is wrong and what to do; `directory` identifies the data directory (device:inode).
    `warnings` are about scopes and clients that are not served well. `lastCommitAt` is of the daemon's open scopes.
    """

    engine: str
    version: str
    state: str
    wal_reset_bug: bool | None = None
    warnings: list[str] | None = None
    last_commit_at: Millis | None = None
    disk_free_bytes: Bytes | None = None
    directory: str | None = None


class HealthReport(Record, frozen=True, kw_only=True):
    """The state of the daemon: versions, protocol level, time since its start (ms), and the lengths of its queues.

    `ready`: a command would be executed now; if not, the state of `storage` says why.
    """

    ready: bool
    version: str
    level: int
    pid: int
    uptime_ms: DurationMs
    storage: StorageHealth
    scopes_open: int
    queues: dict[str, int]


RECORD_OF_NOUN = {"message": Message, "room": Room, "member": RoomMember, "user": User, "ban": Ban, "media": Media}
"""The record of each noun; the current user is only an id."""


class ItemChange(Record, frozen=True, kw_only=True):
    """An item that a command changed: the command's `seq`, time (ms) and id, and which item, with what it is now.

    `gone`: it no longer exists, at least not in this room. Without `id` it is about all items of the noun, in the room,
    in its channel, or everywhere: with `gone` these are gone, and what there is instead follows; else read them anew.
    """

    seq: Seq
    at: Millis
    request_id: RequestId
    noun: NounName
    id: Id | None = None
    room_id: Id | None = None
    channel_id: Id | None = None
    gone: bool | None = None
    value: Annotated[Any, ByNoun(**RECORD_OF_NOUN)] = None


class ChangePage(Record, frozen=True, kw_only=True):
    """Changes in order, and the cursor after them. `more`: ask again at once, even if the page is empty.

    `gap`: the cursor belongs to another history of the scope. There are no changes then, and the new cursor is that of
    `now`: read everything anew.
    """

    changes: list[ItemChange]
    cursor: Cursor
    more: bool
    gap: bool | None = None
