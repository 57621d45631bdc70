"""One scope as a whole: its size, its deletion, and what is done to it in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from backscroll.bus.postgresql.connecting import Connection, commit, transaction_start
from backscroll.bus.postgresql.transaction import Transaction
from backscroll.handlers import clearing
from backscroll.handlers.registry import Handlers
from backscroll.handlers.storage import Reads
from backscroll.schema.errors import Invalid
from backscroll.schema.migrations.postgresql import migrations
from backscroll.schema.tables import TABLES, Scope, Sequence

if TYPE_CHECKING:
    from backscroll.bus.postgresql.scopes import PostgresScopes

REMOVED_AT_ONCE = 1_000  # messages of cleared rooms
STATEMENT_SECONDS = 3_600  # for all rows of a scope
CONTENT = [table._meta.table_name for table in TABLES if table not in (Scope, Sequence)]
OF_SCOPE = ["blobs", *reversed(CONTENT), "sequence"]
"""All tables with rows of a scope; a table comes before those it references."""


class PostgresScopeAdmin:
    """The `ScopeAdmin` that handlers get: one scope, for operations on it as a whole."""

    def __init__(self, scopes: PostgresScopes, name: str, handlers: Handlers) -> None:
        self._scopes = scopes
        self.name = name
        self.handlers = handlers

    @property
    def schema_version(self) -> int:
        return len(migrations())

    @contextmanager
    def snapshot(self) -> Iterator[Reads]:
        with self._scopes.use_to_read(self.name) as store, store.read() as snapshot:
            yield snapshot

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._scopes.use(self.name) as store, store.write() as transaction:
            yield transaction

    def compact(self) -> None:
        """Remove what is left of cleared rooms. The server frees the space itself: autovacuum, or VACUUM FULL."""
        if not self._scopes.has_files(self.name):
            return
        with self._scopes.use(self.name) as store:
            while store.clearing:
                with store.write() as db:
                    clearing.remove_some(db, REMOVED_AT_ONCE)

    def bytes_on_disk(self) -> int:
        """The bytes of all rows of the scope, parts of media included, as they are stored; without indexes."""
        sizes = [f"(SELECT coalesce(sum(pg_column_size(t)), 0) FROM {each} t WHERE scope = $1)" for each in OF_SCOPE]
        with self._begun("READ ONLY", "SELECT 1") as (connection, _):
            [(size,)] = connection.execute(f"SELECT ({' + '.join(sizes)})::bigint", (self.name,)).fetchall()
        return int(size)

    def all_names(self) -> list[str]:
        return self._scopes.names()

    def erase(self) -> None:
        lock = "SELECT 1 FROM sequence WHERE scope = {scope} FOR UPDATE"
        with self._begun("", lock) as (connection, rows):
            if rows:
                for table in OF_SCOPE:
                    connection.execute(f"DELETE FROM {table} WHERE scope = $1", (self.name,))
                commit(connection)
        self._scopes.forget(self.name)

    @contextmanager
    def _begun(self, mode: str, then: str) -> Iterator[tuple[Connection, list[tuple[Any, ...]]]]:
        """A transaction of the scope whose statements may take as long as a scope of any size needs."""
        database = self._scopes.database_of(self.name)
        limits = {"lock_ms": database.wait_ms, "statement_ms": STATEMENT_SECONDS * 1000}
        start = transaction_start(self.name, mode, then, **limits)
        with database.begun(start, writes=True, seconds=STATEMENT_SECONDS) as begun:
            yield begun

    def legacy_file(self, _path: str) -> NoReturn:
        raise Invalid.at(
            "$.type", "files are adopted by a daemon with SQLite; `backscroll copy` brings its scopes into PostgreSQL"
        )
