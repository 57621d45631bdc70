"""Scopes in a PostgreSQL database, as they are copied: read as of one moment, and written in one transaction.

The transaction holds the lock of the scope's row in `sequence`, so that no daemon writes to the scope meanwhile. If it
is interrupted, the server rolls it back.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg_pool import PoolTimeout

from backscroll.bus.copying import CannotCopy, Part
from backscroll.bus.postgresql.compiling import COMPILED, SCOPE
from backscroll.bus.postgresql.connecting import Connection, Database, commit, transaction_start
from backscroll.bus.postgresql.scopes import SELECT_NAMES
from backscroll.handlers.sql import Row, Statement, to_json
from backscroll.handlers.whole_tables import UPDATE_END, End, WholeTable
from backscroll.schema.command_log import CHAIN_START

CONNECTIONS = 2
WAIT_MS = 5_000
MAY_BE_IDLE = "SET LOCAL idle_in_transaction_session_timeout = 0"  # while the other side is read or written
SELECT_SCOPE = "SELECT 1 FROM sequence WHERE scope = {scope}"
INSERT_SCOPE = "INSERT INTO sequence (scope) VALUES ({scope}) ON CONFLICT (scope) DO NOTHING"
UPDATE_CHAIN = "UPDATE sequence SET chain = $2 WHERE scope = $1"
SELECT_PARTS = "SELECT sha256, data, put_at FROM blobs WHERE scope = $1 ORDER BY sha256"
INSERT_PART = "INSERT INTO blobs (scope, sha256, data, put_at) VALUES ($1, $2, $3, $4)"


class DatabaseScope:
    """One scope in a transaction."""

    def __init__(self, connection: Connection, scope: str) -> None:
        self._connection, self._scope = connection, scope

    def each(self, statement: Statement, /) -> Iterator[Row]:
        return self._connection.cursor().stream(COMPILED[statement].text, (self._scope,), binary=True)

    def parts(self) -> Iterator[Part]:
        for row in self._connection.cursor().stream(SELECT_PARTS, (self._scope,), binary=True):
            part = Part(*row)
            if hashlib.sha256(part.data).hexdigest() != part.sha256:
                raise CannotCopy(f"the part {part.sha256} of a media of the scope {self._scope!r} is damaged")
            yield part

    def write(self, table: WholeTable, rows: list[Row], /) -> None:
        """Write all rows with one statement, as one JSON document: several times as fast as one by one."""
        columns = ", ".join(f'"{name}"' for name in (SCOPE, *table.columns))
        values = f'SELECT {columns} FROM json_populate_recordset(NULL::"{table.name}", $1)'
        insert = f'INSERT INTO "{table.name}" ({columns}) {values}'
        self._connection.execute(insert, (to_json([self._as_object(table, row) for row in rows]).decode(),))

    def _as_object(self, table: WholeTable, row: Row) -> dict[str, Any]:
        values = dict(zip(table.columns, row, strict=True))
        for at in table.binary:
            if row[at] is not None:
                values[table.columns[at]] = f"\\x{row[at].hex()}"
        return {SCOPE: self._scope, **values}

    def put(self, part: Part, /) -> None:
        self._connection.execute(INSERT_PART, (self._scope, *part))

    def end(self, end: End, /) -> None:
        text, names = COMPILED[UPDATE_END]
        self._connection.execute(text, (self._scope, *(getattr(end, name) for name in names)))
        self._connection.execute(UPDATE_CHAIN, (self._scope, end.chain or CHAIN_START))


class DatabasePlace:
    """The scopes in one database, which others may use meanwhile."""

    is_shared = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self.name = database.name

    def names(self) -> list[str]:
        with self._explained(), self._database.listing() as connection:
            return [str(name) for (name,) in connection.execute(SELECT_NAMES).fetchall()]

    @contextmanager
    def reading(self, scope: str, /) -> Iterator[DatabaseScope | None]:
        mode = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with self._begun(scope, mode, SELECT_SCOPE, writes=False) as (connection, rows):
            yield DatabaseScope(connection, scope) if rows else None

    @contextmanager
    def writing(self, scope: str, /) -> Iterator[DatabaseScope]:
        with self._begun(scope, "", f"{INSERT_SCOPE}; {SELECT_SCOPE} FOR UPDATE", writes=True) as (connection, _):
            yield DatabaseScope(connection, scope)
            commit(connection)

    @contextmanager
    def _begun(self, scope: str, mode: str, then: str, *, writes: bool) -> Iterator[tuple[Connection, list[Row]]]:
        """A transaction that may take as long as it needs."""
        start = transaction_start(scope, mode, f"{MAY_BE_IDLE}; {then}", lock_ms=WAIT_MS, statement_ms=0)
        with self._explained(), self._database.begun(start, writes=writes, seconds=math.inf) as begun:
            yield begun

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except LockNotAvailable as error:
            raise CannotCopy(f"{self.name}: somebody else is writing to this scope for long; try again") from error
        except (psycopg.Error, PoolTimeout) as error:
            raise CannotCopy(f"{self.name}: {_first_line(error)}") from error


@contextmanager
def opened(address: str) -> Iterator[DatabasePlace]:
    """The database at an address until the end of the block. Raises `CannotStart`."""
    with Database(address, connections=CONNECTIONS, wait_ms=WAIT_MS) as database:
        yield DatabasePlace(database)


def _first_line(error: Exception) -> str:
    """What an error says, without the rows that it is about."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
