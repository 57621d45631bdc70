"""One scope in a PostgreSQL database, to which other daemons may write as well.

    write: BEGIN, lock and read the scope's row in `sequence` ──▶ absorb ──▶ commands ──▶ UPDATE sequence, COMMIT
    read:  BEGIN, read the row ───────────────────────────────▶ absorb ──▶ queries ──▶ COMMIT

The row is the order of the scope's commands: its lock is held until the commit, and `seq` is read under it. What this
daemon remembers of a scope (the end of its log, cached results, who sent what, what waits for what) is true until `seq`
is another one. Then it absorbs what others have committed: it reads the rows of the log since the last seq it knew.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple, NoReturn, TypeVar

from psycopg import errors as pg

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.command_transaction import Environment, SavepointNeeded, TransactionRolledBack
from backscroll.bus.logging import log
from backscroll.bus.postgresql.connecting import (
    STATEMENT_SECONDS_MAX,
    Connection,
    Database,
    commit,
    literal,
    rows_of,
    transaction_start,
    wait_until,
)
from backscroll.bus.postgresql.errors import ScopeReplaced, StatementInterrupted, may_succeed_later
from backscroll.bus.postgresql.transaction import Snapshot, Transaction
from backscroll.bus.query_cache import QueryCache
from backscroll.bus.sqlite.empty_store import EmptyStore
from backscroll.bus.stores import BeforeLarge, Commit, CommittedCommand, ReadStore, Store
from backscroll.handlers.chores import next_expiry
from backscroll.handlers.clearing import is_clearing
from backscroll.handlers.clients import KnownClients, known_clients
from backscroll.handlers.command_log import apply_redactions, position_of
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import LogPosition, Reads, Retention
from backscroll.schema.command_log import CHAIN_START, decode_facts
from backscroll.schema.tables import Commands

ABSORBED_MAX = 100  # commands of others that are looked at one by one; after more, everything may have changed
ABSORBED_BYTES_MAX = 4 * 2**20  # that the log has about them, besides their payloads

SELECT_SINCE = statement(
    Commands.select(Commands.seq, Commands.at, Commands.id, Commands.type, Commands.facts, Commands.chain)
    .where(Commands.seq >= Named("seq"))
    .order_by(Commands.seq)
    .limit(Named("limit"))
)

T = TypeVar("T")
Notify = Callable[[str, int], None]
"""Tells other daemons the seq of a commit to a scope; never waits."""


class Row(NamedTuple):
    """A scope's row in `sequence`; without a lineage the scope does not exist.

    Two rows are equal only after the same commit: a server that lost commits may count to the same `seq` again.
    """

    seq: int = 0
    lineage: str = ""
    chain: bytes = b""

    def commit_of(self, scope: str, commands: list[CommittedCommand] | None = None) -> Commit:
        """The commit that left this row, of one command or several; None if they are not known."""
        return Commit(scope, self.seq, self.chain or CHAIN_START, commands)


class LoggedCommand(NamedTuple):
    """A row of the log, of a command that another daemon may have executed."""

    seq: int
    at: int
    request_id: str
    type: str
    facts: bytes
    chain: bytes


class PostgresStore:
    """An open scope: the `Store` of the daemon. May be forgotten at any time: it holds no connection."""

    checkpoint_due = False
    is_shared = True

    def __init__(
        self,
        database: Database,
        scope: str,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        random_bytes: Callable[[int], bytes] = os.urandom,
        retention: Retention | None = None,
        query_cache: QueryCache | None = None,
        committed: Callable[[Commit, Store], None] = lambda *_: None,
        notify: Notify = lambda *_: None,
        successor: Callable[["PostgresStore"], "PostgresStore"] | None = None,
        empty: ReadStore | None = None,
    ) -> None:
        """Read what there is of the scope; raises errors of psycopg.

        `successor` returns the store to use from now on if the scope turns out to be another than this one knew;
        `empty` is what is read of one that does not exist.
        """
        self.scope = scope
        self.query_cache = QueryCache() if query_cache is None else query_cache
        self.due_at: int | None = None
        self.seq_shown = 0
        self.follows = False
        self.clearing_behind, self.clearing_retry_at = "", 0.0
        self.committed_at: int | None = None
        self._database = database
        self._clock = clock
        self._environment = Environment(retention or Retention(), random_bytes)
        self._committed, self._notify = committed, notify
        self._successor = successor or _no_successor
        self._empty = empty or EmptyStore(clock)
        self._knowing = threading.RLock()  # held while `seq` is compared and changed
        self._row = Row()  # the last commit that is known
        self._position: LogPosition | None = None  # of that or an earlier commit, for the next transaction that writes
        self.clients: KnownClients | None = None  # read by the first transaction that writes
        select = "SELECT seq, lineage, chain FROM sequence WHERE scope = {scope}"
        self._limits = {"lock_ms": database.wait_ms, "statement_ms": STATEMENT_SECONDS_MAX * 1000}
        self._write_start = transaction_start(
            scope, "ISOLATION LEVEL READ COMMITTED", f"{select} FOR UPDATE", **self._limits
        )
        self._read_mode, self._read_row = "ISOLATION LEVEL REPEATABLE READ READ ONLY", select
        with self._reading(None) as (connection, row):
            snapshot = self._snapshot(connection, None)
            self._row = row
            self.clearing = is_clearing(snapshot)
            self.due_at = next_expiry(snapshot)

    @property
    def seq(self) -> int:
        """The seq of the last commit that this daemon knows of."""
        return self._row.seq

    @property
    def last_row(self) -> Row:
        """The scope's row in `sequence` after that commit."""
        return self._row

    @property
    def last_commit(self) -> Commit:
        """The last commit that this daemon knows of, without its commands."""
        return self._row.commit_of(self.scope)

    @property
    def exists(self) -> bool:
        return bool(self._row.lineage)

    def now(self) -> int:
        """The time of the store's clock, in milliseconds since the epoch."""
        return self._clock()

    # Writing

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Call `work` with a durable transaction; a command that fails inside it does not affect the others.

        If the connection is lost, or the server is another one, it is repeated for as long as the database may be
        waited for. `work` finds what has already taken effect by the ids of its commands.
        """
        deadline = time.monotonic() + self._database.wait_seconds
        while True:
            try:
                return self._transact_once(work)
            except Exception as error:
                if not may_succeed_later(error) or time.monotonic() >= deadline:
                    raise
                log.info("a transaction is repeated", scope=self.scope, error=str(error).strip())
            wait_until(deadline)

    def _transact_once(self, work: Callable[[Transaction], T]) -> T:
        """Call `work`, at first without savepoints, because each costs a round trip."""
        try:
            with self.write(savepoints=False) as transaction:
                return work(transaction)
        except SavepointNeeded:
            with self.write() as transaction:
                return work(transaction)

    def note_expiry(self, at: int | None, seq: int) -> None:
        """Note when something expires next, as of this commit; not if a later one is known."""
        with self._knowing:
            if self._row.seq <= seq:
                self.due_at = at

    @contextmanager
    def write(self, *, savepoints: bool = True) -> Iterator[Transaction]:
        """A durable transaction; on any error it has no effect. With `savepoints`, commands can fail individually."""
        try:
            with ExitStack() as stack:
                try:
                    transaction = stack.enter_context(self._write(savepoints))
                except ScopeReplaced:
                    transaction = stack.enter_context(self._begun_anew()._write(savepoints))
                yield transaction
        except pg.QueryCanceled as error:
            raise StatementInterrupted from error

    @contextmanager
    def _write(self, savepoints: bool) -> Iterator[Transaction]:
        known = self._row
        with self._database.begun(self._write_start, writes=True) as (connection, rows):
            row = Row(*rows[0]) if rows else self._create(connection, known)
            position, clients = self._prepare(connection, row, known) if rows else (LogPosition(), KnownClients())
            transaction = Transaction(
                *(connection, self.scope, self._clock(), position, self._environment),
                savepoints=savepoints,
                clearing=self.clearing,
                clients=clients,
            )
            try:
                yield transaction
            except TransactionRolledBack as lost:
                raise lost.__cause__ or lost from None
            self._finish(transaction, row)
        self._note_commit(transaction)

    def _create(self, connection: Connection, known: Row) -> Row:
        """Make the scope. If another daemon does so at the same time, it fails, and `transact` repeats it."""
        if known.lineage:
            raise ScopeReplaced(self.scope)
        scope = literal(self.scope)
        insert = f"INSERT INTO sequence (scope) VALUES ({scope}) RETURNING seq, lineage, chain"
        return Row(*rows_of(connection, insert)[0])

    def _prepare(self, connection: Connection, row: Row, known: Row) -> tuple[LogPosition, KnownClients]:
        """The end of the log, which nobody else can move now, and who sent what in it."""
        snapshot = self._snapshot(connection, None)
        self._absorb(snapshot, row, known)
        if self.clients is None:
            self.clients = known_clients(row.seq, snapshot)
        if self._position is None or self._position.seq != row.seq:
            self.clearing = is_clearing(snapshot)
            self._position = position_of(snapshot)
        return self._position, self.clients

    def _finish(self, transaction: Transaction, row: Row) -> None:
        """Redact the log, write its new end, and commit."""
        if transaction.redactions:
            apply_redactions(transaction)
        if not (transaction.rows_written or transaction.blobs.written):
            self.clearing = transaction.clearing
            if row.seq:  # not if the scope was made for this transaction
                commit(transaction.connection)  # after a ROLLBACK all is prepared again
            return
        position = transaction.position
        changes = [change for command in transaction.commands for change in command.changes]
        self.query_cache.evict(changes, position.seq)
        scope, last_id = literal(self.scope), literal(position.last_id)
        new = f"seq = {position.seq}, last_id = {last_id}, chain = {literal(position.chain)}"
        with self._knowing:  # who sees the commit before this thread has noted it waits until it has
            self._position = None  # unless it is certain that the commit took effect
            if transaction.due_at is not None and (self.due_at is None or transaction.due_at < self.due_at):
                self.due_at = transaction.due_at  # before anybody can read what expires then
            commit(transaction.connection, f"UPDATE sequence SET {new} WHERE scope = {scope}")
            self._row = Row(position.seq, row.lineage, position.chain)
            self._position = position
            self.clearing = transaction.clearing
            if self.clients is not None:
                self.clients.add(transaction.senders)
            if transaction.commands:
                self._committed(self._row.commit_of(self.scope, transaction.commands), self)

    def _note_commit(self, transaction: Transaction) -> None:
        if transaction.commands:
            self.committed_at = transaction.now
            self.follows = transaction.replays
            self._notify(self.scope, transaction.position.seq)

    # Reading

    @contextmanager
    def read(self, query_ms: int | None = None, before_large: BeforeLarge | None = None, /) -> Iterator[Reads]:
        """A snapshot of everything that is durable now. A statement that runs after `query_ms` raises `TooLarge`."""
        with ExitStack() as stack:
            try:
                snapshot = stack.enter_context(self._read(query_ms, before_large))
            except ScopeReplaced:
                snapshot = stack.enter_context(self._begun_anew()._read(query_ms, before_large))
            yield snapshot

    @contextmanager
    def _read(self, query_ms: int | None, before_large: BeforeLarge | None) -> Iterator[Reads]:
        known = self._row
        with self._reading(query_ms) as (connection, row):
            if not row.lineage and not known.lineage:
                with self._empty.read(query_ms) as nothing:
                    yield nothing
                return
            until = None if query_ms is None else time.monotonic() + query_ms / 1000
            snapshot = self._snapshot(connection, until, row.seq)
            snapshot.before_large = before_large
            self._absorb(snapshot, row, known)
            yield snapshot

    @contextmanager
    def _reading(self, query_ms: int | None) -> Iterator[tuple[Connection, Row]]:
        limits = self._limits if query_ms is None else self._limits | {"statement_ms": max(1, query_ms)}
        start = transaction_start(self.scope, self._read_mode, self._read_row, **limits)
        seconds = limits["statement_ms"] / 1000
        with self._database.begun(start, writes=False, seconds=seconds) as (connection, rows):
            yield connection, Row(*rows[0]) if rows else Row()

    def _snapshot(self, connection: Connection, until: float | None, seq: int = 0) -> Snapshot:
        return Snapshot(connection, self.scope, self._clock(), LogPosition(seq=seq), until)

    def _begun_anew(self) -> "PostgresStore":
        """The store that takes the place of this one, whose scope is another than it knew."""
        store = self._successor(self)
        self.query_cache = QueryCache(0)  # who still uses this one may read either history, so nothing is kept
        self.clearing = False  # or who waits for the end of that would wait for ever
        self.due_at = store.due_at
        return store

    # What others commit

    def catch_up(self) -> None:
        """Absorb what others have committed."""
        with self.read():
            pass

    def _absorb(self, snapshot: Snapshot, row: Row, known: Row) -> None:
        """Learn what others have committed. `known` is what was known before the transaction began.

        Raises `ScopeReplaced` if that is not a part of what the database has: another daemon deleted the scope, or the
        server lost commits.
        """
        if known.lineage and (row.lineage != known.lineage or row.seq < known.seq):
            raise ScopeReplaced(self.scope)
        if row == self._row:
            return
        with self._knowing:
            if row.seq > self._row.seq or not self._row.lineage:
                self._learn(snapshot, row)
            elif row.seq == self._row.seq and row != self._row:
                raise ScopeReplaced(self.scope)

    def _learn(self, snapshot: Snapshot, row: Row) -> None:
        found = self._logged_since(snapshot)
        if self._row.seq and (not found or found[0].chain != self._row.chain):
            raise ScopeReplaced(self.scope)
        others = [each for each in found if self._row.seq < each.seq <= row.seq]
        commands = None
        if others and len(others) == row.seq - self._row.seq:
            facts = [decode_facts(each.facts) for each in others]
            commands = [CommittedCommand(*each[:4], about.changes) for each, about in zip(others, facts, strict=True)]
            self.query_cache.evict([change for about in facts for change in about.changes], row.seq)
            if self.clients is not None:
                self.clients.add(about.sender for about in facts if about.sender)
        else:  # too many to look at them, or a log that lacks some
            self.query_cache.evict_all(row.seq)
            self.clients = None
        self.due_at = next_expiry(snapshot)
        self._row = row
        self._committed(row.commit_of(self.scope, commands), self)

    def _logged_since(self, snapshot: Snapshot) -> list[LoggedCommand]:
        """The last command that is known and those after it, unless they are too many or too large."""
        found: list[LoggedCommand] = []
        size = 0
        with closing(snapshot.each(SELECT_SINCE, seq=self._row.seq, limit=ABSORBED_MAX)) as rows:
            for row in rows:
                found.append(LoggedCommand(*row))
                size += len(found[-1].facts)
                if size > ABSORBED_BYTES_MAX:
                    break
        return found

    def checkpoint_if_due(self) -> None:
        """Nothing to do: the server does that."""


def _no_successor(store: PostgresStore) -> NoReturn:
    raise ScopeReplaced(store.scope)
