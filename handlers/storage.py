"""What handlers may ask of a store: to read, to write, about the command that is being executed, and for blobs.

Handlers know a store only through these. A query's handler gets `Reads`, a command's `Writes` and its `CommandContext`,
an operation about a whole scope a `ScopeAdmin` (in `scopes.py`), a built-in query the `Status` of the daemon.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from backscroll.handlers.sql import Row, Statement
from backscroll.schema.command_log import CHAIN_START, Change, Generated, Target
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.replies import StorageHealth
from backscroll.schema.ulid import ulid_after

RANDOM_BYTES = 10  # of a ULID


class LogPosition(NamedTuple):
    """The end of a scope's log: its last command, the last id made, the chain, the greatest request id in it."""

    seq: int = 0
    last_id: str = ""
    chain: bytes = CHAIN_START
    greatest_id: str = ""


class Retention(NamedTuple):
    """What the command log keeps: payloads or not, and the results of how many commands, for how long (ms)."""

    payloads: bool = True
    results: int = 1_000_000
    results_ms: int = 7 * 24 * 60 * 60 * 1000


class Redaction(NamedTuple):
    """Text to erase from a command in the log: `member` is its index in a batch, 0 elsewhere.

    `target` is the list item that the text is about; None where all text of the command is to go.
    """

    seq: int
    member: int
    target: Target | None = None


class Blobs(Protocol):
    """Parts of files, stored beside the database and named by the SHA-256 of their bytes, in hex."""

    def put(self, data: bytes) -> str:
        """Store these bytes, durably; their hash. What a command that fails has put remains, without a user."""

    def put_again(self, sha256: str) -> bool:
        """Let a part that exists count as put now; whether it exists."""

    def read(self, sha256: str) -> bytes | None:
        """The bytes of a part, compared with their hash; None where there is none."""

    def put_before(self, time_ms: int) -> Iterable[str]:
        """The parts that were last put before a time, in milliseconds since the epoch."""

    def remove_after_commit(self, sha256: str) -> None:
        """Remove a part once this transaction is durable; if it fails, the part stays."""


class Reads(Protocol):
    """One snapshot of the database. Statements name their parameters (`:room_id`), which are given as keywords."""

    @property
    def now(self) -> int:
        """When this transaction began, in milliseconds since the epoch."""

    @property
    def position(self) -> LogPosition:
        """The end of the log; in a snapshot its `seq` alone."""

    @property
    def blobs(self) -> Blobs: ...

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        """All rows of a SELECT."""

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        """The first row of a SELECT, or None."""


class Writes(Reads, Protocol):
    """One durable transaction: everything that is written in it commits, or nothing."""

    @property
    def retention(self) -> Retention: ...

    @property
    def redactions(self) -> list[Redaction]:
        """What is to be erased from the log before this transaction commits."""

    def run(self, statement: Statement, /, **values: Any) -> int:
        """Execute a change; how many rows it affected."""

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        """Write a row, whose values the statement names by their position (`?1`); how many rows that affected."""

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        """Write many rows with the same statement."""

    def random_bytes(self, number: int) -> bytes:
        """Random bytes that nobody can guess."""

    def token_of(self, request_id: str, number: int) -> str:
        """The secret token that a command generated as its so many-th, from 0."""

    def command(
        self, request_id: str, *, at: int | None = None, replayed: Generated | None = None
    ) -> AbstractContextManager["CommandContext"]:
        """What happens inside is one command: it happens as a whole and takes the next `seq`, or not at all.

        `at` and `replayed` are its time and generated values where it is executed again from a log.
        """


class CommandContext:
    """The command that is being executed: its place in the log, and what it generates, changes and erases.

    `now` is the time that it takes for the current one. `member` is the index of the batch's member that is being
    executed. `redacted` holds, by member, what text of this command itself is erased; `payload_dropped` says that its
    payload is not kept at all.
    """

    __slots__ = (
        "_token_of",
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
        "seq",
        "token_hashes",
        "type",
    )

    def __init__(
        self,
        seq: int,
        request_id: str,
        now: int,
        last_id: str,
        replayed: Generated | None,
        token_of: Callable[[str, int], str],
    ) -> None:
        self.seq = seq
        self.request_id = request_id
        self.now = now
        self.last_id = last_id
        self.replayed = replayed
        self.type, self.chain = "", b""  # set when its row is written
        self.member = 0
        self.ids: list[str] = []
        self.token_hashes: list[str] = []
        self.changes: list[Change] = []
        self.redacted: dict[int, set[Target | None]] = {}
        self.payload_dropped = False
        self._token_of = token_of

    def new_id(self) -> str:
        """An id that was never given before and sorts after all that were: a ULID of the command's time.

        It is derived from the request's id instead of random bytes, so that a replay without it makes the same.
        """
        if self.replayed is not None and len(self.ids) < len(self.replayed.ids):
            new_id = self.replayed.ids[len(self.ids)]
        else:
            random = int.from_bytes(hashlib.sha256(self.request_id.encode()).digest()[:RANDOM_BYTES], "big")
            new_id = ulid_after(self.last_id, self.now, random)
        self.ids.append(new_id)
        self.last_id = new_id
        return new_id

    def new_token(self) -> tuple[str, str]:
        """A secret that nobody can guess, as text, and its SHA-256 in hex. In a replay the secret is empty."""
        number = len(self.token_hashes)
        if self.replayed is not None and number < len(self.replayed.token_hashes):
            token, token_hash = "", self.replayed.token_hashes[number]
        else:
            token = self._token_of(self.request_id, number)
            token_hash = hash_of(token)
        self.token_hashes.append(token_hash)
        return token, token_hash

    def settle_changes(self) -> None:
        """Keep the last word on each thing that was changed, in order."""
        if len(self.changes) > 1:
            self.changes = list(dict.fromkeys(reversed(self.changes)))[::-1]

    def redact_own(self, member: int, target: Target | None = None) -> None:
        """Erase text from this command's own payload before its row is written."""
        self.redacted.setdefault(member, set()).add(target)

    @property
    def generated(self) -> Generated | None:
        """What the command generated; None where it is nothing."""
        if not self.ids and not self.token_hashes:
            return None
        return Generated(ids=self.ids, token_hashes=self.token_hashes)


class Status(Protocol):
    """What the daemon knows of itself; built-in queries are answered from this alone."""

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
