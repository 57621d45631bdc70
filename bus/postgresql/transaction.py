"""One transaction of one scope: what handlers see as `Reads` and `Writes`. The store begins and commits it."""

import hashlib
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from psycopg import RawServerCursor
from psycopg.pq import TransactionStatus

from backscroll.bus.command_transaction import CommandTransaction, Environment, TransactionRolledBack
from backscroll.bus.postgresql.compiling import BEGUN, COMPILED, SIZES, WITHIN
from backscroll.bus.postgresql.connecting import Connection
from backscroll.bus.postgresql.errors import ends_transaction
from backscroll.bus.stores import LARGE_BYTES, TAKES_TOO_LONG, BeforeLarge
from backscroll.handlers.clients import KnownClients
from backscroll.handlers.sql import Row, RowsWithin, Statement, TakeWithin
from backscroll.handlers.storage import LogPosition
from backscroll.schema.errors import TooLarge

ROWS_AT_ONCE = 200  # that are fetched of a result which is read row by row
BYTES_AT_ONCE = 512 * 1024  # in long values


class Snapshot:
    """A read transaction of one scope, which sees it as of one moment. After `until` (monotonic) it reads no more.

    `before_large` is called before many rows, or large ones, are read at once.
    """

    before_large: BeforeLarge | None = None

    def __init__(
        self, connection: Connection, scope: str, now: int, position: LogPosition, until: float | None = None
    ) -> None:
        self.connection, self.scope = connection, scope
        self.now = now
        self.position = position
        self.blobs = Blobs(connection, scope, now)
        self._until = until

    @property
    def has_ended(self) -> bool:
        return self.connection.info.transaction_status is not TransactionStatus.INTRANS

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        self._check_time()
        text, names = COMPILED[statement]
        bound = [self.scope, *[values[name] for name in names]]
        return self.connection.execute(text, bound, binary=True).fetchall()

    def rows_within(self, size_max: int, take: TakeWithin, statement: Statement, /, **values: Any) -> RowsWithin:
        self._check_time()
        before_large = self.before_large
        first_max = size_max if before_large is None else min(size_max, LARGE_BYTES)
        compiled = WITHIN[statement]
        bound = compiled.values(self.scope, {**values, "size_max": first_max})
        taken = take(self.connection.execute(compiled.text, bound, binary=True), first_max)
        if before_large is not None and (taken.size > LARGE_BYTES or (not taken.complete and first_max < size_max)):
            del taken  # others may have their turn first
            before_large()
            self.before_large = None
            return self.rows_within(size_max, take, statement, **values)
        return taken

    def each(self, statement: Statement, /, **values: Any) -> Generator[Row, None, None]:
        self._check_time()
        rows = self._all_if_few(statement, values)
        yield from self._each_of_many(statement, values) if rows is None else rows

    def _all_if_few(self, statement: Statement, values: dict[str, Any]) -> list[Row] | None:
        """The rows of a result, in one round trip; None if they are too many to be held."""
        begun = BEGUN[statement]
        bound = begun.values(self.scope, {**values, "bytes_max": BYTES_AT_ONCE, "rows_max": ROWS_AT_ONCE})
        rows = self.connection.execute(begun.text, bound, binary=True).fetchall()
        if len(rows) == ROWS_AT_ONCE or any(exceeds for *_, exceeds in rows[-1:]):
            return None
        return [row[:-1] for row in rows]

    def _each_of_many(self, statement: Statement, values: dict[str, Any]) -> Iterator[Row]:
        """The rows of any result, in eight round trips or more: first their sizes, so that few large ones are held."""
        compiled, sizes = COMPILED[statement], SIZES[statement]
        with RawServerCursor(self.connection, "each") as cursor, RawServerCursor(self.connection, "sizes") as ahead:
            cursor.execute(compiled.text, compiled.values(self.scope, values), binary=True)
            ahead.execute(sizes.text, sizes.values(self.scope, values), binary=True)
            while found := ahead.fetchmany(ROWS_AT_ONCE):
                for number in _numbers_at_once(size for (size,) in found):
                    yield from cursor.fetchmany(number)

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        rows = self.rows(statement, **values)
        return rows[0] if rows else None

    def _check_time(self) -> None:
        if self._until is not None and time.monotonic() > self._until:
            raise TooLarge(TAKES_TOO_LONG)


def _numbers_at_once(sizes: Iterable[int]) -> Iterator[int]:
    """How many of the next rows, given their sizes, have at most `BYTES_AT_ONCE` together; at least one."""
    number = total = 0
    for size in sizes:
        if number and total + size > BYTES_AT_ONCE:
            yield number
            number = total = 0
        number += 1
        total += size
    if number:
        yield number


class Transaction(CommandTransaction, Snapshot):
    """A write transaction of one scope, whose row in `sequence` is locked."""

    def __init__(
        self,
        connection: Connection,
        scope: str,
        now: int,
        position: LogPosition,
        environment: Environment,
        *,
        savepoints: bool,
        clearing: bool,
        clients: KnownClients,
    ) -> None:
        super().__init__(now, position, environment, savepoints=savepoints, clearing=clearing, clients=clients)
        self.connection, self.scope, self._until = connection, scope, None
        self.blobs = Blobs(connection, scope, now)
        self.rows_written = 0

    def run(self, statement: Statement, /, **values: Any) -> int:
        text, names = COMPILED[statement]
        bound = [self.scope, *[values[name] for name in names]]
        return self._counted(self.connection.execute(text, bound).rowcount)

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        return self._counted(self.connection.execute(COMPILED[statement].text, (self.scope, *row)).rowcount)

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(COMPILED[statement].text, [(self.scope, *row) for row in rows])
            self._counted(cursor.rowcount)

    def _counted(self, number: int) -> int:
        self.rows_written += number
        return number

    @property
    def _removals(self) -> frozenset[str]:
        return frozenset()  # parts are removed in the transaction, and so undone with it

    @_removals.setter
    def _removals(self, removals: frozenset[str]) -> None:
        """Nothing to do."""

    def _execute(self, sql: str) -> None:
        self.connection.execute(sql, prepare=False)

    def _undoable_position(self) -> tuple[int, int, bool]:
        return self.rows_written, self.blobs.written, self.has_ended

    def _check_not_lost(self, error: Exception) -> None:
        if self.connection.broken or ends_transaction(error):
            raise TransactionRolledBack from error


class Blobs:
    """The parts of media of one scope, in a transaction."""

    def __init__(self, connection: Connection, scope: str, now: int) -> None:
        self._connection, self._scope, self._now = connection, scope, now
        self.written = 0

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.put_again(sha256):
            self._run(
                "INSERT INTO blobs (scope, sha256, data, put_at) VALUES ($1, $2, $3, $4)", sha256, data, self._now
            )
        return sha256

    def put_again(self, sha256: str) -> bool:
        return self._run("UPDATE blobs SET put_at = $3 WHERE scope = $1 AND sha256 = $2", sha256, self._now) > 0

    def read(self, sha256: str) -> bytes | None:
        rows = self._rows("SELECT data FROM blobs WHERE scope = $1 AND sha256 = $2", sha256)
        return rows[0][0] if rows else None

    def was_put_since(self, sha256: str, time_ms: int) -> bool:
        found = "SELECT 1 FROM blobs WHERE scope = $1 AND sha256 = $2 AND put_at >= $3"
        return bool(self._rows(found, sha256, time_ms))

    def put_before(self, time_ms: int) -> Iterable[str]:
        rows = self._rows("SELECT sha256 FROM blobs WHERE scope = $1 AND put_at < $2 ORDER BY put_at", time_ms)
        return [row[0] for row in rows]

    def remove_after_commit(self, sha256: str) -> None:
        self._run("DELETE FROM blobs WHERE scope = $1 AND sha256 = $2", sha256)

    def _run(self, text: str, *values: Any) -> int:
        number = self._connection.execute(text, (self._scope, *values)).rowcount
        self.written += number
        return number

    def _rows(self, text: str, *values: Any) -> list[Row]:
        return self._connection.execute(text, (self._scope, *values), binary=True).fetchall()
