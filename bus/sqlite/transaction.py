"""One transaction on one connection: what handlers see as `Reads` and `Writes`.

It undoes commands that fail; the store begins and commits it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import apsw

from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.errors import is_unreadable
from backscroll.bus.sqlite.statements import COMPILED, checked, fetch
from backscroll.bus.stores import LARGE_BYTES, BeforeLarge, CommittedCommand
from backscroll.handlers.clients import KnownClients
from backscroll.handlers.sql import Row, RowsWithin, Statement, TakeWithin
from backscroll.handlers.storage import CommandContext, LogPosition, Redaction, Retention
from backscroll.schema.command_log import Generated, Sender


class TransactionRolledBack(BaseException):
    """The whole transaction is lost because of an error, the `__cause__`.

    SQLite rolled it back by itself, as it does on a full disk, or a page is damaged: then a statement may have failed
    after it had written a part of its row, for example into one index of two.

    Not an `Exception`, so that only the store handles it: it is not the failure of one command.
    """


class SavepointNeeded(BaseException):
    """A command failed after it had written, in a transaction without savepoints, which has to be repeated."""


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


class Environment(NamedTuple):
    """What all transactions of a store share."""

    retention: Retention
    random_bytes: Callable[[int], bytes]


class Transaction(Snapshot):
    """A write transaction. With `savepoints`, each command begins with one, so that it can be undone individually."""

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
        self._connection, self.blobs, self.now, self.position = connection, blobs, now, position
        self._began = True
        self.retention, self.random_bytes = environment
        self._savepoints = savepoints
        self.clearing = clearing
        self.redactions: list[Redaction] = []
        self.commands: list[CommittedCommand] = []
        self.senders: list[Sender] = []  # of the commands, in their order
        self._greatest_n: dict[str, int] = {}  # by client, of the senders
        self._greatest_n_before = clients.greatest_n
        self.due_at: int | None = None
        self.replays = False

    def note_due(self, at: int) -> None:
        self.due_at = at if self.due_at is None else min(self.due_at, at)

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

    def greatest_n(self, client: str) -> int:
        return max(self._greatest_n.get(client, 0), self._greatest_n_before.get(client, 0))

    @contextmanager
    def undoable(self) -> Iterator[None]:
        """Undo what the block wrote if it raises. Without savepoints, it raises `SavepointNeeded` instead."""
        if not self._savepoints:
            raise SavepointNeeded
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except Exception as error:
            self._undo_to("part", error)
            raise
        self._connection.execute("RELEASE part")

    @contextmanager
    def command(
        self,
        request_id: str,
        sender: Sender | None = None,
        *,
        at: int | None = None,
        replayed: Generated | None = None,
    ) -> Iterator[CommandContext]:
        """The block executes one command: it takes the next `seq`, or it raises and nothing of it takes effect.

        `replays` is then whether it came from a log. Raises `SavepointNeeded` if the command failed after it had
        written, and there is no savepoint.
        """
        if self._savepoints:
            self._connection.execute("SAVEPOINT command")
        before, removals, redactions = self.position, self.blobs.removals, len(self.redactions)
        written = self._connection.total_changes()
        now = self.now if at is None else at
        context = CommandContext(before.seq + 1, request_id, now, before.last_id, replayed, sender)
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
        self.replays = at is not None
        if sender is not None:
            self._greatest_n[sender.client] = max(self._greatest_n.get(sender.client, 0), sender.n)
            self.senders.append(sender)
        self.commands.append(CommittedCommand(context.seq, now, request_id, context.type, context.changes))

    def _undo_command(self, error: Exception, written: int) -> None:
        """Undo what the command wrote; raises if that is not possible."""
        self._check_not_lost(error)
        if not self._savepoints:
            if self._connection.total_changes() != written:
                raise SavepointNeeded from error
            return
        self._undo_to("command", error)

    def _undo_to(self, savepoint: str, error: Exception) -> None:
        """Undo everything since a savepoint; raises `TransactionRolledBack` if that is not possible."""
        self._check_not_lost(error)
        try:
            self._connection.execute(f"ROLLBACK TO {savepoint}")
            self._connection.execute(f"RELEASE {savepoint}")
        except apsw.Error as worse:
            raise TransactionRolledBack from worse

    def _check_not_lost(self, error: Exception) -> None:
        """Raise `TransactionRolledBack` if nothing of the transaction can be committed after this error."""
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
