"""What a handler may ask of the store. The store is SQLite today; handlers know only this."""

from collections.abc import Iterable
from typing import Any, Protocol

Row = tuple[Any, ...]


class Parts(Protocol):
    """Parts of media: bytes that lie beside the database under the name of their SHA-256, in hex."""

    def put(self, data: bytes) -> str:
        """Keep these bytes, durably; their hash. What a command that fails has put stays, as an orphan."""

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

    @property
    def now(self) -> int:
        """The time of this request in milliseconds since the epoch; handlers ask no other clock."""

    @property
    def parts(self) -> Parts: ...

    def new_id(self) -> str:
        """An id that was never given before and sorts after all that were: a ULID of this request's time."""

    def new_token(self) -> str:
        """A secret that nobody can guess: 256 random bits as text."""

    def rows(self, sql: str, /, **values: Any) -> list[Row]:
        """All rows of a SELECT."""

    def row(self, sql: str, /, **values: Any) -> Row | None:
        """The first row of a SELECT, or None."""

    def run(self, sql: str, /, **values: Any) -> int:
        """Carry out a change; how many rows it touched."""


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
