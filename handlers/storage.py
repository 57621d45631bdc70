"""The interfaces through which handlers use a store: reading, writing, the current command, and blobs.

A query's handler gets `Reads`, a command's `Writes` and the `CommandContext`, a maintenance operation's a `ScopeAdmin`
(in `scopes.py`), a built-in query's the `Status` of the daemon.
"""

import hashlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from backscroll.handlers.sql import Row, RowsWithin, Statement, TakeWithin
from backscroll.schema.command_log import CHAIN_START, Change, Fields, Generated, Sender, Target
from backscroll.schema.errors import Storage
from backscroll.schema.operations.access import AddKey, CreateToken
from backscroll.schema.replies import AccessToken, Backup, KeyList, Proof, StorageHealth, Task, TaskList
from backscroll.schema.ulid import ulid_after

RANDOM_BYTES = 10  # of a ULID
MEMBERS = 1024  # more than a batch has


class LogPosition(NamedTuple):
    """The end of a scope's log: the last seq, the last generated id, the chain, and the greatest request id."""

    seq: int = 0
    last_id: str = ""
    chain: bytes = CHAIN_START
    greatest_id: str = ""


class Retention(NamedTuple):
    """What the command log keeps: whether payloads, and results of at least how many commands and how long (ms).

    With `redact_replaced`, text that a later command replaces is erased by it, and not only with its item.
    """

    payloads: bool = True
    results: int = 1_000_000
    results_ms: int = 7 * 24 * 60 * 60 * 1000
    redact_replaced: bool = False


class Redaction(NamedTuple):
    """Text to erase from a command in the log; `member` is its index in a batch, otherwise 0.

    `target` is the item in the command that the text is about; None erases all text of the command. With `fields`,
    only the text in these fields is erased.
    """

    seq: int
    member: int
    target: Target | None = None
    fields: Fields | None = None


class Blobs(Protocol):
    """The parts of media, stored beside the database and named by the SHA-256 of their bytes in hex."""

    def put(self, data: bytes) -> str:
        """Store a part durably and return its hash. If the command fails, the part remains, unused."""

    def put_again(self, sha256: str) -> bool:
        """Count an existing part as put now. Returns False if it does not exist."""

    def read(self, sha256: str) -> bytes | None:
        """The bytes of a part, verified against its hash; None if it does not exist."""

    def was_put_since(self, sha256: str, time_ms: int) -> bool:
        """Whether a part exists and was last put at this time or later, in milliseconds since the epoch."""

    def put_before(self, time_ms: int) -> Iterable[str]:
        """The hashes of the parts last put before a time, in milliseconds since the epoch."""

    def remove_after_commit(self, sha256: str) -> None:
        """Remove a part after this transaction is durable; if it fails, the part stays."""


class Reads(Protocol):
    """A snapshot of the database. Statements have named parameters (`:room_id`), passed as keyword arguments."""

    @property
    def now(self) -> int:
        """The time when this transaction began, in milliseconds since the epoch."""

    @property
    def position(self) -> LogPosition:
        """The end of the log; in a snapshot only its `seq` is set."""

    @property
    def blobs(self) -> Blobs: ...

    @property
    def has_ended(self) -> bool:
        """Whether the database ended the transaction because of an error: what is read from now on may be newer."""

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        """All rows returned by a SELECT."""

    def rows_within(self, size_max: int, take: TakeWithin, statement: Statement, /, **values: Any) -> RowsWithin:
        """The first rows of a SELECT, as many as together have at most `size_max`, but at least one."""

    def each(self, statement: Statement, /, **values: Any) -> Generator[Row, None, None]:
        """The rows returned by a SELECT, read one by one. Close it, or read it to its end."""

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        """The first row returned by a SELECT, or None."""


class Writes(Reads, Protocol):
    """A durable transaction: either everything written in it is committed, or nothing."""

    clearing: bool
    """Whether there are cleared rooms from which not all messages are removed. A command that clears one sets it."""

    @property
    def retention(self) -> Retention: ...

    @property
    def redactions(self) -> list[Redaction]:
        """The text to erase from the log before this transaction commits."""

    def run(self, statement: Statement, /, **values: Any) -> int:
        """Execute an INSERT, UPDATE or DELETE. Returns the number of rows it affected."""

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        """Write a row with a statement that has positional parameters (`?1`). Returns how many rows it affected."""

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        """Write many rows with the same statement."""

    def note_due(self, at: int) -> None:
        """Note that something expires at this time, in milliseconds since the epoch; see `chores.expired_messages`."""

    def random_bytes(self, number: int) -> bytes:
        """Cryptographically secure random bytes."""

    def greatest_n(self, client: str) -> int:
        """The greatest `n` of a client's commands that took effect, also in this transaction; 0 if it is not known."""

    def undoable(self) -> AbstractContextManager[None]:
        """The block is a part of a command; if it raises, what it wrote is undone, and the command can go on."""

    def command(
        self,
        request_id: str,
        sender: Sender | None = None,
        *,
        at: int | None = None,
        replayed: Generated | None = None,
    ) -> AbstractContextManager["CommandContext"]:
        """The block executes one command: it takes the next `seq`, or it raises and nothing of it takes effect.

        `sender` is the client that sent it, if that is known. `at` and `replayed` are its original time and generated
        values if it is executed again from a log.
        """


class CommandContext:
    """The command that is being executed: its place in the log, and what it generates, changes and erases.

    `now` is the current time as the command sees it, in milliseconds since the epoch. `member` is the index of the
    command in its batch, otherwise 0. `redacted` maps members to the text of this command that is to be erased; if
    `payload_dropped`, its payload is not stored at all.
    """

    __slots__ = (
        "chain",
        "changes",
        "ids",
        "last_id",
        "member",
        "now",
        "payload_dropped",
        "redacted",
        "replayed",
        "request_id",
        "sender",
        "seq",
        "type",
    )

    def __init__(
        self,
        seq: int,
        request_id: str,
        now: int,
        last_id: str,
        replayed: Generated | None,
        sender: Sender | None = None,
    ) -> None:
        self.seq = seq
        self.request_id = request_id
        self.now = now
        self.last_id = last_id
        self.replayed = replayed
        self.sender = sender
        self.type, self.chain = "", b""  # set when its row is written
        self.member = 0
        self.ids: list[str] = []
        self.changes: list[Change] = []
        self.redacted: dict[int, set[tuple[Target | None, Fields | None]]] = {}
        self.payload_dropped = False

    def new_id(self) -> str:
        """A new id that sorts after all ids generated before: a ULID of the command's time.

        It is derived from the request's id, not from random bytes, so that a replay generates the same id.
        """
        if self.replayed is not None and len(self.ids) < len(self.replayed.ids):
            new_id = self.replayed.ids[len(self.ids)]
        else:
            random = int.from_bytes(hashlib.sha256(self.request_id.encode()).digest()[:RANDOM_BYTES], "big")
            try:
                new_id = ulid_after(self.last_id, self.now, random)
            except OverflowError:
                raise Storage("this scope has used the greatest possible id, so it can generate no more") from None
        self.ids.append(new_id)
        self.last_id = new_id
        return new_id

    @property
    def written(self) -> int:
        """The number of the command, or of the member of a batch, in their order."""
        return self.seq * MEMBERS + self.member

    def redact_own(self, member: int, target: Target | None = None, fields: Fields | None = None) -> None:
        """Erase text from this command's own payload before its row is written."""
        self.redacted.setdefault(member, set()).add((target, fields))

    @property
    def generated(self) -> Generated | None:
        """What the command generated, or None."""
        return Generated(ids=self.ids) if self.ids else None


class Access(Protocol):
    """Who may connect and call. Each change is durable and in force when its method returns."""

    def prove(self, nonce: str, name: str | None) -> Proof:
        """The proof that the daemon knows the token of this name, or the start token; one that fits none otherwise."""

    def create_token(self, wanted: CreateToken) -> None:
        """Accept a token; raises `Conflict` or `TooLarge`."""

    def tokens(self) -> list[AccessToken]: ...

    def revoke_token(self, name: str) -> None:
        """Refuse a token; raises `NotFound`."""

    def add_key(self, wanted: AddKey) -> None:
        """Accept a client key; raises `Conflict` or `TooLarge`."""

    def keys(self) -> KeyList: ...

    def revoke_key(self, name: str) -> None:
        """Refuse a client key; raises `NotFound`."""


class Upkeep(Protocol):
    """The long tasks of the daemon, of which one runs at a time; those that start one raise `Busy` while it does.

    Without a `scope` they are about all; one without files is `NotFound`. Without a `directory` it is the one in the
    settings; `Invalid` if there is none, or if it cannot be a directory of backups.
    """

    def check(self, scope: str | None) -> Task:
        """Start to check databases and media."""

    def back_up(self, directory: str | None, scope: str | None, *, full: bool) -> Task:
        """Start to make a backup."""

    def verify(self, directory: str | None, name: str | None) -> Task:
        """Start to verify a backup, the newest without a `name`; raises `NotFound`."""

    def backups(self, directory: str | None) -> list[Backup]:
        """The backups in a directory, the oldest first; raises `NotFound`."""

    def tasks(self) -> TaskList:
        """The running task, and the last one of each kind."""


class Status(Protocol):
    """The state of the daemon, from which built-in queries are answered."""

    @property
    def access(self) -> Access: ...

    @property
    def upkeep(self) -> Upkeep: ...

    @property
    def pid(self) -> int: ...

    @property
    def uptime_ms(self) -> int: ...

    @property
    def storage(self) -> StorageHealth: ...

    @property
    def scopes_open(self) -> int: ...

    @property
    def queues(self) -> dict[str, int]: ...
