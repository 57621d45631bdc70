"""One transaction on one connection: what handlers see as `Reads` and `Writes`.

The store begins and commits it.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any

import apsw

from backscroll.bus.command_transaction import CommandTransaction, Environment, TransactionRolledBack
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.errors import is_unreadable
from backscroll.bus.sqlite.statements import COMPILED, checked, fetch
from backscroll.bus.stores import LARGE_BYTES, BeforeLarge
from backscroll.handlers.clients import KnownClients
from backscroll.handlers.sql import Row, RowsWithin, Statement, TakeWithin
from backscroll.handlers.storage import LogPosition


class Snapshot:
    """A read transaction, which sees the database as of one moment.

    `before_large` is called before many rows, or large ones, are read at once.
    """

    before_large: BeforeLarge | None = None

    def __init__(
        self,
        connection: apsw.Connection,
        blobs: "BlobsInTransaction",
        now: int,
        position: LogPosition,
        before_large: BeforeLarge | None = None,
    ) -> None:
        self.before_large = before_large
        self._connection = connection
        self._began = connection.in_transaction
        self.blobs = blobs
        self.now = now
        self.position = position

    @property
    def has_ended(self) -> bool:
        return self._began and not self._connection.in_transaction

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        return fetch(self._connection, statement, **values)

    def rows_within(self, size_max: int, take: TakeWithin, statement: Statement, /, **values: Any) -> RowsWithin:
        before_large = self.before_large
        first_max = size_max if before_large is None else min(size_max, LARGE_BYTES)
        cursor = self._connection.execute(COMPILED[statement], values)
        try:
            taken = take(cursor, first_max)
        except TypeError as error:  # it adds up the lengths of texts
            raise apsw.CorruptError(f"a stored row is damaged: {error}") from error
        finally:
            cursor.close()
        if before_large is not None and (taken.size > LARGE_BYTES or (not taken.complete and first_max < size_max)):
            del taken  # others may have their turn first
            before_large()
            self.before_large = None
            return self.rows_within(size_max, take, statement, **values)
        return taken._replace(rows=checked(statement, taken.rows))

    def each(self, statement: Statement, /, **values: Any) -> Generator[Row, None, None]:
        cursor = self._connection.execute(COMPILED[statement], values)
        try:
            for row in cursor:
                yield checked(statement, [row])[0]
        finally:
            cursor.close()

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        rows = fetch(self._connection, statement, **values)
        return rows[0] if rows else None


class Transaction(CommandTransaction, Snapshot):
    """A write transaction."""

    def __init__(
        self,
        connection: apsw.Connection,
        blobs: "BlobsInTransaction",
        now: int,
        position: LogPosition,
        environment: Environment,
        *,
        savepoints: bool,
        clearing: bool,
        clients: KnownClients,
    ) -> None:
        super().__init__(now, position, environment, savepoints=savepoints, clearing=clearing, clients=clients)
        self._connection, self.blobs = connection, blobs
        self._began = True

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        try:
            return fetch(self._connection, statement, **values)
        except Exception as error:
            self._check_not_lost(error)
            raise

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        try:
            rows = fetch(self._connection, statement, **values)
        except Exception as error:
            self._check_not_lost(error)
            raise
        return rows[0] if rows else None

    def run(self, statement: Statement, /, **values: Any) -> int:
        self._connection.execute(COMPILED[statement], values)
        return self._connection.changes()

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        self._connection.execute(COMPILED[statement], row)
        return self._connection.changes()

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        self._connection.executemany(COMPILED[statement], rows)

    @property
    def _removals(self) -> frozenset[str]:
        return self.blobs.removals

    @_removals.setter
    def _removals(self, removals: frozenset[str]) -> None:
        self.blobs.removals = removals

    def _execute(self, sql: str) -> None:
        self._connection.execute(sql)

    def _undoable_position(self) -> int:
        return self._connection.total_changes()

    def _check_not_lost(self, error: Exception) -> None:
        """Raise `TransactionRolledBack` if nothing of the transaction can be committed after this error.

        SQLite rolls it back by itself, as it does on a full disk, or a page is damaged: then a statement may have
        failed after it had written a part of its row, for example into one index of two.
        """
        if not self._connection.in_transaction or is_unreadable(error):
            raise TransactionRolledBack from error


class BlobsInTransaction:
    """Parts of files as one transaction sees them: those it puts exist immediately, those it removes until it commits.

    A part that is to be removed reads as missing, as it will in the next transaction, unless it is put again.
    """

    def __init__(self, blobs: BlobDirectory) -> None:
        self._blobs = blobs
        self.put_before, self.was_put_since = blobs.put_before, blobs.was_put_since
        self.removals: frozenset[str] = frozenset()

    def put(self, data: bytes) -> str:
        sha256 = self._blobs.put(data)
        self.removals -= {sha256}
        return sha256

    def put_again(self, sha256: str) -> bool:
        return sha256 not in self.removals and self._blobs.put_again(sha256)

    def read(self, sha256: str) -> bytes | None:
        return None if sha256 in self.removals else self._blobs.read(sha256)

    def remove_after_commit(self, sha256: str) -> None:
        self.removals |= {sha256}

    def remove_now(self) -> None:
        """Remove the parts that are to be removed; one that cannot be removed stays, unused."""
        for sha256 in sorted(self.removals):
            with suppress(OSError):
                self._blobs.remove(sha256)
