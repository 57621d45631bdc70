"""What a handler may ask of the store. The store is SQLite today; handlers know only this."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from backscroll.schema.command_log import CHAIN_START, Generated

Row = tuple[Any, ...]


class Position(NamedTuple):
    """How far a scope has come: its last command, the last id made, the log's chain, the greatest request id in it."""

    seq: int = 0
    last_id: str = ""
    chain: bytes = CHAIN_START
    greatest_id: str = ""


class Retention(NamedTuple):
    """What the command log keeps: payloads or not, and the results of how many commands, for how long."""

    payloads: bool = True
    results: int = 1_000_000
    results_ms: int = 7 * 24 * 60 * 60 * 1000


class CommandContext:
    """The place in the log of the command that is being carried out; what it decides is collected here.

    `recorded` is what it generated the first time, where it is a replay. `member` says which command of a batch is under
    way, and `redacted` which of them hold what is deleted already; `left_out` that none of the payload is kept.
    """

    __slots__ = (
        "at",
        "chain",
        "ids",
        "left_out",
        "member",
        "recorded",
        "redacted",
        "request_id",
        "seq",
        "token_hashes",
    )

    def __init__(self, seq: int, request_id: str, at: int, recorded: Generated | None) -> None:
        self.seq = seq
        self.request_id = request_id
        self.at = at
        self.recorded = recorded
        self.chain = b""  # once it is written
        self.member = 0
        self.ids: list[str] = []
        self.token_hashes: list[str] = []
        self.redacted: set[int] = set()
        self.left_out = False

    @property
    def generated(self) -> Generated | None:
        if not self.ids and not self.token_hashes:
            return None
        return Generated(ids=self.ids, token_hashes=self.token_hashes)


class Parts(Protocol):
    """Parts of media: bytes that lie beside the database under the name of their SHA-256, in hex."""

    def put(self, data: bytes) -> str:
        """Keep these bytes, durably; their hash. What a command that fails has put stays, as an orphan."""

    def put_again(self, sha256: str) -> bool:
        """Let a part that is there count as put now; whether it is there."""

    def read(self, sha256: str) -> bytes | None:
        """The bytes of a part, held against their hash; None where there is none."""

    def put_before(self, time_ms: int) -> Iterable[str]:
        """The parts that were last put before a time, in milliseconds since the epoch."""

    def remove_after_commit(self, sha256: str) -> None:
        """Remove a part once this transaction is durable; if it fails, the part stays."""


class Database(Protocol):
    """One transaction: a command's, where everything written stands or falls together, or a query's snapshot.

    Statements name their parameters (`:room_id`), which are given as keywords.
    """

    position: Position
    """How far the scope has come, without the command that is under way."""

    redactions: list[tuple[int, int]]
    """Commands, as (seq, member), out of which the log is to take what was said, once for all before the commit."""

    @property
    def now(self) -> int:
        """The time of this request in milliseconds since the epoch; handlers ask no other clock."""

    @property
    def parts(self) -> Parts: ...

    @property
    def retention(self) -> Retention: ...

    @property
    def entry(self) -> CommandContext:
        """The place in the log of the command under way; in a query there is none."""

    def touch(self, room_id: str) -> None:
        """Tell that messages or reactions of a room change: whoever writes those two tables has to."""

    def touch_all(self) -> None:
        """Tell that messages or reactions of any room may change."""

    def command(
        self, request_id: str, *, at: int | None = None, recorded: Generated | None = None
    ) -> AbstractContextManager[CommandContext]:
        """What happens inside is one command: it happens wholly and takes the next `seq`, or not at all.

        `at` and `recorded` are its time and decisions where it is a replay.
        """

    def new_id(self) -> str:
        """An id that was never given before and sorts after all that were: a ULID of this request's time."""

    def new_token(self) -> tuple[str, str]:
        """A secret that nobody can guess, as text, and its SHA-256 in hex. In a replay the secret is empty."""

    def token(self, request_id: str, number: int) -> str:
        """The secret that a command was given as its so-and-so-manieth, from 0."""

    def rows(self, sql: str, /, **values: Any) -> list[Row]:
        """All rows of a SELECT."""

    def row(self, sql: str, /, **values: Any) -> Row | None:
        """The first row of a SELECT, or None."""

    def run(self, sql: str, /, **values: Any) -> int:
        """Carry out a change; how many rows it touched."""

    def write(self, sql: str, row: Sequence[Any], /) -> int:
        """Write a row, whose values the statement names by their place (`?1`); how many rows that touched."""

    def write_all(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Write many rows with the same statement."""


class Status(Protocol):
    """What the daemon knows of itself; built-in queries are answered from this alone."""

    @property
    def pid(self) -> int: ...

    @property
    def uptime_ms(self) -> int: ...

    @property
    def sqlite_version(self) -> tuple[int, int, int]: ...

    @property
    def scopes_open(self) -> int: ...

    @property
    def queues(self) -> dict[str, int]: ...
