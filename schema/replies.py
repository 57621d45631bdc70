"""The records that occur only in replies: pages, reports, and items that the daemon creates."""

from typing import Annotated, Any

from backscroll.schema.command_log import NounName
from backscroll.schema.limits import Bytes, Count, Cursor, DurationMs, Id, Millis, Seq, Text
from backscroll.schema.markers import ByNoun, OneOf
from backscroll.schema.records import Ban, Message, Record, Room, RoomMember, User
from backscroll.schema.wire import RequestId


class MessagePage(Record, frozen=True, kw_only=True):
    """Consecutive messages of a room, oldest first. The cursors point at the first and the last of them.

    Attributes:
        has_older: Whether there are messages before those of this page.
        has_newer: Whether there are messages after those of this page.
        older_cursor: Give it as `before` for the page before this one. An empty page has none: keep the one that it was
            asked with.
        newer_cursor: Give it as `after` for the page after this one, also later, when there are new messages. An empty
            page has none.
    """

    messages: list[Message]
    has_older: bool
    has_newer: bool
    older_cursor: str | None = None
    newer_cursor: str | None = None


class MessageList(Record, frozen=True, kw_only=True):
    """Consecutive messages of a channel, newest first.

    Attributes:
        has_more: Whether there are older messages: give the id of the last one as `before`.
    """

    messages: list[Message]
    has_more: bool


class DeletedMessages(Record, frozen=True, kw_only=True):
    """How many messages a command deleted, and whether there are more for the same command to delete.

    Attributes:
        has_more: Whether to send the command again, under another request id.
    """

    deleted: Count
    has_more: bool


class Media(Record, frozen=True, kw_only=True):
    """A file stored beside the database. Identical files are stored once.

    Attributes:
        id: A ULID that the daemon made.
        sha256: The hash of the whole file, in hex.
        mime: The media type, as the first `put-media` of this content gave it.
        parts: The number of parts, which `get-media-part` counts from 0.
        uploader_id: Who uploaded the file, as the first `put-media` of this content gave it.
    """

    id: Id
    sha256: str
    mime: Text
    size: Bytes
    parts: Count
    created_at: Millis
    uploader_id: Id | None = None


class ScopeInfo(Record, frozen=True, kw_only=True):
    """The size of a scope: bytes on disk including media, rows by table, and the version of its tables.

    Attributes:
        rows: The number of rows by table. `messages` includes the bare tombstones, other rows that only occupy an id,
            and what is left of cleared and deleted rooms.
        bare_tombstones: The deletions of messages that have never arrived; they are kept for ever.
        purging: The number of cleared or deleted rooms whose messages nobody can read any more, but whose bytes are not
            all removed.
    """

    scope: str
    bytes: Bytes
    rows: dict[str, int]
    schema_version: int
    bare_tombstones: Count
    purging: Count


class RowPage(Record, frozen=True, kw_only=True):
    """Rows of a table, each a map of columns to values.

    Attributes:
        key: The columns of the primary key, by which the rows are ordered.
        next: The values of the key in the last row: give them as `after` for the next page. Absent at the end of the
            table.
    """

    rows: list[dict[str, Any]]
    key: list[str]
    next: list[Any] | None = None


class Session(Record, frozen=True, kw_only=True):
    """A session: the user that its token authenticates, and until when.

    Attributes:
        user_id: The `oderId` of the user.
        expires_at: When the session ends: from then on `get-session` does not find it.
        read_only: As `create-session` gave it; the daemon does nothing with it.
    """

    user_id: Id
    created_at: Millis
    expires_at: Millis
    read_only: bool | None = None


class AccessToken(Record, frozen=True, kw_only=True):
    """A token without its secret: what whoever has it may do, in which scopes (all if unset), and until when.

    Attributes:
        right: Each right includes those before it: `read`, `write`, `admin`.
    """

    name: Text
    right: Annotated[str, OneOf("read", "write", "admin")]
    created_at: Millis
    scopes: list[str] | None = None
    expires_at: Millis | None = None


class ClientKey(Record, frozen=True, kw_only=True):
    """The public key of a client that may connect to `curve://` endpoints.

    Attributes:
        public_key: A CURVE key in Z85.
    """

    name: Text
    public_key: Text
    created_at: Millis


class KeyList(Record, frozen=True, kw_only=True):
    """The daemon's own public key, and those of the clients that may connect to `curve://` endpoints.

    Attributes:
        server_key: A CURVE key in Z85.
    """

    server_key: Text
    keys: list[ClientKey]


class Proof(Record, frozen=True, kw_only=True):
    """Proves that the daemon knows a token: an HMAC-SHA-256 in hex, over the nonce and its own tcp endpoints.

    Attributes:
        endpoints: The tcp endpoints that the daemon is bound to. Send the token only if the one that you connected to
            is among them, and the proof is right.
    """

    proof: Text
    endpoints: list[str]


class Pong(Record, frozen=True, kw_only=True):
    """The reply to `ping`."""

    pong: bool


class StorageHealth(Record, frozen=True, kw_only=True):
    """The database system in use, and whether it can store. `walResetBug`: it can lose commits (SQLite 3.7.0–3.51.2).

    Attributes:
        engine: The database system, `sqlite` or `postgresql`.
        version: The version of the database system.
        state: `ok`, or what is wrong and what to do.
        warnings: What is wrong with scopes other than `default`, and with clients or programs that are not served well.
        last_commit_at: The time of the last commit in the scopes that are open.
        disk_free_bytes: What is free on the disk of the data directory.
        directory: Identifies the data directory, as device:inode: a caller on the same machine can see whether it is
            the one it knows.
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

    Attributes:
        ready: Whether a command in the scope `default` would be executed now; if not, the `state` of `storage` says
            why.
        version: The version of the daemon.
        pid: The id of the daemon's process.
        scopes_open: The number of scopes that are open.
        queues: What is in the daemon: `requests` that are not answered and their `bytes`, what waits for `writers`,
            queries that are `waiting` for a change, and `replies` that are not sent yet.
    """

    ready: bool
    version: str
    level: int
    pid: int
    uptime_ms: DurationMs
    storage: StorageHealth
    scopes_open: int
    queues: dict[str, int]


class Task(Record, frozen=True, kw_only=True):
    """A check, a backup, or the verification of a backup: how far it is, or how it ended.

    Attributes:
        state: `ok` is a task that found everything whole, `damaged` one that found damage, and `failed` one that could
            not be done to its end.
        scope: The scope that it is about; all, if unset.
        directory: The directory of the backups.
        backup: The name of the backup that was made or verified, a folder in the directory.
        step: What it is doing now, in words.
        done: How much of the step is done: bytes, pages or commands.
        total: How much of the step there is, where that is known.
        problems: What is damaged, in words, with the file; the first 100.
        message: How it ended, in words.
    """

    task: Annotated[str, OneOf("check", "backup", "verify-backup")]
    state: Annotated[str, OneOf("running", "ok", "damaged", "failed")]
    started_at: Millis
    ended_at: Millis | None = None
    scope: str | None = None
    directory: str | None = None
    backup: str | None = None
    step: str | None = None
    done: Count | None = None
    total: Count | None = None
    problems: list[str] | None = None
    message: str | None = None


class TaskList(Record, frozen=True, kw_only=True):
    """The task that is running, and those that have ended, the newest first, at most 20.

    Of each kind it is the last one, and damage that was found in others of its scopes before, until a later task about
    these, or about all, finds none.
    """

    last: list[Task]
    running: Task | None = None


class Backup(Record, frozen=True, kw_only=True):
    """A backup in a directory of backups.

    Attributes:
        name: The name of its folder, which is the time when it was taken.
        incremental: Whether it has only what changed since the backup before it.
        bytes: The size of its own files, without the parts of media that it shares with other backups.
        scopes: How many scopes it has.
    """

    name: str
    incremental: bool
    taken_at: Millis
    bytes: Bytes
    scopes: Count


RECORD_OF_NOUN = {"message": Message, "room": Room, "member": RoomMember, "user": User, "ban": Ban, "media": Media}
"""The record of each noun; the current user is only an id."""


class ItemChange(Record, frozen=True, kw_only=True):
    """An item that a command changed: the command's `seq`, time (ms) and id, and which item, with what it is now.

    Attributes:
        seq: The number of the command.
        at: When the command was executed.
        request_id: The id of the command's request; by it a client recognises its own commands.
        id: The id of the item; of a user, member or ban the `oderId`. Without it the change is about all items of the
            noun, in the room, in its channel, or in the whole scope: with `gone` these are gone, and what there is
            instead follows; else read them anew. There is none if there is no current user either.
        room_id: The room that the item is in; of a room its own id. Users, the current user and media are in none.
        channel_id: The channel, where the change is about all messages of one.
        gone: True if the item no longer exists, at least not in this room.
        value: The item as it is now: a message with reactions and attachments, a room with channels and categories but
            without members. Absent if it is gone, with `values: false`, and if it is too large for a reply: then read
            it in parts.
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

    Attributes:
        cursor: Give it as `after` of the next request. Store it together with what was applied.
        gap: True if the cursor that was given belongs to another history of the scope. Then there are no changes, and
            the new cursor is that of `now`: read everything anew.
    """

    changes: list[ItemChange]
    cursor: Cursor
    more: bool
    gap: bool | None = None
