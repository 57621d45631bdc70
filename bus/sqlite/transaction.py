"""One transaction on one connection: what handlers see as `Reads` and `Writes`.

It knows when a command inside it is undone; when the whole begins and is durable, the store decides.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import apsw

from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.statements import COMPILED
from backscroll.bus.sqlite.token_key import TokenKey
from backscroll.bus.stores import CommittedCommand
from backscroll.handlers.sql import Row, Statement
from backscroll.handlers.storage import CommandContext, LogPosition, Redaction, Retention
from backscroll.schema.command_log import Generated


class TransactionRolledBack(BaseException):
    """SQLite rolled the whole transaction back by itself, as it does on a full disk; the cause says why.

    No `Exception`, so that nobody but the store takes it for the failure of one command.
    """


class SavepointNeeded(BaseException):
    """A command failed after it had written, in a transaction without savepoints: the whole has to be repeated."""


class Snapshot:
    """What can be read at one moment."""

    def __init__(
        self, connection: apsw.Connection, blobs: "BlobsInTransaction", now: int, position: LogPosition
    ) -> None:
        self._connection = connection
        self.blobs = blobs
        self.now = now
        self.position = position

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        return self._connection.execute(COMPILED[statement], values).fetchall()

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        rows = self._connection.execute(COMPILED[statement], values).fetchall()
        return rows[0] if rows else None


class Environment(NamedTuple):
    """What a store's transactions have in common."""

    retention: Retention
    token_key: TokenKey
    random_bytes: Callable[[int], bytes]


class Transaction(Snapshot):
    """A write transaction. With `savepoints` each command begins with one, so that it can be undone by itself."""

    def __init__(
        self,
        connection: apsw.Connection,
        blobs: "BlobsInTransaction",
        now: int,
        position: LogPosition,
        environment: Environment,
        *,
        savepoints: bool,
    ) -> None:
        self._connection, self.blobs, self.now, self.position = connection, blobs, now, position
        self.retention, self._token_key, self.random_bytes = environment
        self._savepoints = savepoints
        self.redactions: list[Redaction] = []
        self.commands: list[CommittedCommand] = []

    def run(self, statement: Statement, /, **values: Any) -> int:
        self._connection.execute(COMPILED[statement], values)
        return self._connection.changes()

    def write(self, statement: Statement, row: Sequence[Any], /) -> int:
        self._connection.execute(COMPILED[statement], row)
        return self._connection.changes()

    def write_all(self, statement: Statement, rows: Iterable[Sequence[Any]], /) -> None:
        self._connection.executemany(COMPILED[statement], rows)

    def token_of(self, request_id: str, number: int) -> str:
        return self._token_key.token(request_id, number)

    @contextmanager
    def command(
        self, request_id: str, *, at: int | None = None, replayed: Generated | None = None
    ) -> Iterator[CommandContext]:
        """What happens inside is one command: it happens as a whole and takes the next `seq`, or not at all.

        Raises `SavepointNeeded` where a command that failed had written and there is no savepoint to go back to.
        """
        if self._savepoints:
            self._connection.execute("SAVEPOINT command")
        before, removals, redactions = self.position, self.blobs.removals, len(self.redactions)
        written = self._connection.total_changes()
        now = self.now if at is None else at
        context = CommandContext(before.seq + 1, request_id, now, before.last_id, replayed, self.token_of)
        try:
            yield context
        except Exception as error:
            self.blobs.removals = removals
            del self.redactions[redactions:]
            self._undo_command(error, written)
            raise
        if self._savepoints:
            self._connection.execute("RELEASE command")
        greatest_id = max(before.greatest_id, request_id)
        self.position = LogPosition(context.seq, context.last_id, context.chain, greatest_id)
        self.commands.append(CommittedCommand(context.seq, now, request_id, context.type, context.changes))

    def _undo_command(self, error: Exception, written: int) -> None:
        """Go back to where the command began; raises where that is not possible."""
        if not self._connection.in_transaction:
            raise TransactionRolledBack from error
        if not self._savepoints:
            if self._connection.total_changes() != written:
                raise SavepointNeeded from error
            return
        try:
            self._connection.execute("ROLLBACK TO command")
            self._connection.execute("RELEASE command")
        except apsw.Error as worse:
            raise TransactionRolledBack from worse


class BlobsInTransaction:
    """The parts of files as one transaction sees them: what it puts exists at once, what it removes goes after it.

    A part that is to be removed reads as missing, as it will to the next transaction, until it is put again.
    """

    def __init__(self, blobs: BlobDirectory) -> None:
        self._blobs = blobs
        self.put_before = blobs.put_before
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
        """Remove what was to go; a part that cannot be removed is unused from now on."""
        for sha256 in sorted(self.removals):
            with suppress(OSError):
                self._blobs.remove(sha256)
