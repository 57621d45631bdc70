"""One transaction on one connection, as handlers see it: rows, ids, and the parts of media that go with the rows.

Knows when a command inside it is undone; when the whole begins and is durable, the store decides.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import apsw

from backscroll.bus.parts import Parts
from backscroll.handlers.database import Row
from backscroll.schema.ulid import UlidGenerator

TOKEN_BYTES = 32


class TransactionLost(Exception):
    """SQLite rolled the whole transaction back by itself, as it does on a full disk; the cause says why."""


class Session:
    """One transaction on one connection: the `Database` that handlers see."""

    def __init__(self, connection: apsw.Connection, ids: UlidGenerator, parts: Parts, seq: int, now: int) -> None:
        self._connection = connection
        self._ids = ids
        self.seq = seq
        self.now = now
        self.last_id = ""
        self.parts = PartsInTransaction(parts)

    def new_id(self) -> str:
        self.last_id = self._ids(self.now)
        return self.last_id

    def new_token(self) -> str:
        return secrets.token_urlsafe(TOKEN_BYTES)

    def rows(self, sql: str, /, **values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, /, **values: Any) -> Row | None:
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def run(self, sql: str, /, **values: Any) -> int:
        self._connection.execute(sql, values)
        return self._connection.changes()

    @contextmanager
    def command(self) -> Iterator[None]:
        """What happens inside happens wholly and takes the next `seq`, or not at all; its neighbours stand."""
        self._connection.execute("SAVEPOINT command")
        removals = set(self.parts.removals)
        try:
            yield
            self._connection.execute("RELEASE command")
        except Exception as error:
            self.parts.removals = removals
            self._undo_command(error)
            raise
        self.seq += 1

    def _undo_command(self, error: Exception) -> None:
        """Go back to where the command began; raises `TransactionLost` where that cannot be."""
        if not self._connection.in_transaction:
            raise TransactionLost from error
        try:
            self._connection.execute("ROLLBACK TO command")
            self._connection.execute("RELEASE command")
        except apsw.Error as worse:
            raise TransactionLost from worse


class PartsInTransaction:
    """The parts of media as one transaction sees them: what it puts is there at once, what it removes goes after it.

    A part that is put or read again after it was to be removed stays: it may be in use again.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.put_before = parts.put_before
        self.removals: set[str] = set()

    def put(self, data: bytes) -> str:
        sha256 = self._parts.put(data)
        self._keep(sha256)
        return sha256

    def read(self, sha256: str) -> bytes | None:
        self._keep(sha256)
        return self._parts.read(sha256)

    def remove_after_commit(self, sha256: str) -> None:
        self.removals.add(sha256)

    def remove_now(self) -> None:
        """Remove what was to go; a part that cannot be removed is an orphan from now on."""
        for sha256 in sorted(self.removals):
            with suppress(OSError):
                self._parts.remove(sha256)

    def _keep(self, sha256: str) -> None:
        self.removals.discard(sha256)
