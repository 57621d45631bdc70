"""What a handler may ask of the store. The store is SQLite today; handlers know only this."""

from typing import Any, Protocol

Row = tuple[Any, ...]


class Database(Protocol):
    """One transaction: a command's, where everything written stands or falls together, or a query's snapshot.

    Statements name their parameters (`:room_id`), which are given as keywords.
    """

    @property
    def now(self) -> int:
        """The time of this request in milliseconds since the epoch; handlers ask no other clock."""

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
