"""One transaction on one connection, as handlers see it: rows, ids, and the parts of media that go with the rows.

Knows when a command inside it is undone; when the whole begins and is durable, the store decides.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import apsw

from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.token_key import TokenKey
from backscroll.handlers.storage import CommandContext, Position, Retention, Row
from backscroll.schema.command_log import Generated
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.ulid import ulid_after

RANDOM_BYTES = 10  # of a ULID


class TransactionRolledBack(Exception):
    """SQLite rolled the whole transaction back by itself, as it does on a full disk; the cause says why."""


class SavepointNeeded(Exception):
    """A command failed after it had written, in a transaction without savepoints: all of it is to be done again."""


class Transaction:
    """One transaction on one connection: the `Database` that handlers see."""

    def __init__(
        self,
        connection: apsw.Connection,
        parts: BlobDirectory,
        secret: TokenKey,
        retention: Retention,
        position: Position,
        now: int,
        *,
        savepoints: bool = True,
    ) -> None:
        """`savepoints` has each command begin with a savepoint, so that one that fails can be undone."""
        self._connection = connection
        self._secret = secret
        self._started = now
        self._careful = savepoints
        self._entry: CommandContext | None = None
        self.retention = retention
        self.position = position
        self.parts = BlobsInTransaction(parts)
        self.redactions: list[tuple[int, int]] = []
        self.rooms_touched: set[str] = set()  # also by commands that were undone
        self.all_touched = False

    @property
    def now(self) -> int:
        return self._started if self._entry is None else self._entry.at

    @property
    def entry(self) -> CommandContext:
        assert self._entry is not None, "no command is under way"
        return self._entry

    def new_id(self) -> str:
        """Made from the request's id, not drawn: so a replay that has nothing else makes the same."""
        entry = self.entry
        if entry.recorded is not None and len(entry.ids) < len(entry.recorded.ids):
            new_id = entry.recorded.ids[len(entry.ids)]
        else:
            random = int.from_bytes(hashlib.sha256(entry.request_id.encode()).digest()[:RANDOM_BYTES], "big")
            new_id = ulid_after(self.position.last_id, entry.at, random)
        entry.ids.append(new_id)
        self.position = self.position._replace(last_id=new_id)
        return new_id

    def new_token(self) -> tuple[str, str]:
        entry = self.entry
        number = len(entry.token_hashes)
        if entry.recorded is not None and number < len(entry.recorded.token_hashes):
            token, token_hash = "", entry.recorded.token_hashes[number]
        else:
            token = self.token(entry.request_id, number)
            token_hash = hash_of(token)
        entry.token_hashes.append(token_hash)
        return token, token_hash

    def token(self, request_id: str, number: int) -> str:
        return self._secret.token(request_id, number)

    def touch(self, room_id: str) -> None:
        self.rooms_touched.add(room_id)

    def touch_all(self) -> None:
        self.all_touched = True

    def rows(self, sql: str, /, **values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, /, **values: Any) -> Row | None:
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def run(self, sql: str, /, **values: Any) -> int:
        self._connection.execute(sql, values)
        return self._connection.changes()

    def write(self, sql: str, row: Sequence[Any], /) -> int:
        self._connection.execute(sql, row)
        return self._connection.changes()

    def write_all(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        self._connection.executemany(sql, rows)

    @contextmanager
    def command(
        self, request_id: str, *, at: int | None = None, recorded: Generated | None = None
    ) -> Iterator[CommandContext]:
        """What happens inside happens wholly and takes the next `seq`, or not at all; its neighbours stand.

        Raises `SavepointNeeded` where a command that failed had written and there is no savepoint to go back to.
        """
        if self._careful:
            self._connection.execute("SAVEPOINT command")
        before, removals, changes = self.position, self.parts.removals, self._connection.total_changes()
        redactions = len(self.redactions)
        entry = self._entry = CommandContext(before.seq + 1, request_id, self._started if at is None else at, recorded)
        try:
            yield entry
        except Exception as error:
            self.position, self.parts.removals = before, removals
            del self.redactions[redactions:]
            self._undo_command(error, changes)
            raise
        finally:
            self._entry = None
        if self._careful:
            self._connection.execute("RELEASE command")
        greatest_id = max(before.greatest_id, request_id)
        self.position = Position(entry.seq, self.position.last_id, entry.chain, greatest_id)

    def _undo_command(self, error: Exception, changes: int) -> None:
        """Go back to where the command began; raises `TransactionRolledBack` or `SavepointNeeded` where that cannot be."""
        if not self._connection.in_transaction:
            raise TransactionRolledBack from error
        if not self._careful:
            if self._connection.total_changes() != changes:
                raise SavepointNeeded from error
            return
        try:
            self._connection.execute("ROLLBACK TO command")
            self._connection.execute("RELEASE command")
        except apsw.Error as worse:
            raise TransactionRolledBack from worse


class BlobsInTransaction:
    """The parts of media as one transaction sees them: what it puts is there at once, what it removes goes after it.

    One that is to be removed is gone, as it will be to the next transaction, until it is put again.
    """

    def __init__(self, parts: BlobDirectory) -> None:
        self._parts = parts
        self.put_before = parts.put_before
        self.removals: frozenset[str] = frozenset()

    def put(self, data: bytes) -> str:
        sha256 = self._parts.put(data)
        self.removals -= {sha256}
        return sha256

    def put_again(self, sha256: str) -> bool:
        return sha256 not in self.removals and self._parts.put_again(sha256)

    def read(self, sha256: str) -> bytes | None:
        return None if sha256 in self.removals else self._parts.read(sha256)

    def remove_after_commit(self, sha256: str) -> None:
        self.removals |= {sha256}

    def remove_now(self) -> None:
        """Remove what was to go; a part that cannot be removed is an orphan from now on."""
        for sha256 in sorted(self.removals):
            with suppress(OSError):
                self._parts.remove(sha256)
