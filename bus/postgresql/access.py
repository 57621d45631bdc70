"""Tokens and client keys in a database, for all of its daemons: rows of the table `shared`.

A change locks its row, so that two daemons never lose each other's tokens. Every daemon reads the rows each second;
in between, and while the database does not answer, it goes by what it has read last.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from backscroll.bus.failures import CannotOpen
from backscroll.bus.logging import log
from backscroll.bus.postgresql.connecting import (
    SHARED_SCOPE,
    Connection,
    Database,
    commit,
    explained,
    transaction_start,
    wait_until,
)
from backscroll.bus.postgresql.errors import may_succeed_later
from backscroll.bus.stores import KEYS, TOKENS

POLL_SECONDS = 1.0
STATEMENT_SECONDS_MAX = 5

SELECT_ALL = "SELECT key, value FROM shared WHERE scope = $1 AND key = ANY($2::text[])"
CREATE = "INSERT INTO shared (scope, key, value) VALUES ($1, $2, '') ON CONFLICT DO NOTHING"  # so that it can be locked
SELECT_LOCKED = "SELECT value FROM shared WHERE scope = $1 AND key = $2 FOR UPDATE"
UPDATE = "UPDATE shared SET value = $3 WHERE scope = $1 AND key = $2"


class AccessDatabase:
    """The `AccessDocuments` of all daemons on a database, until it is closed."""

    keys_command = "`backscroll keys create NAME` with a daemon of this database that runs without such an endpoint"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, *names: str) -> dict[str, bytes]:
        with explained(self._database.name), self._transaction() as connection:
            rows = connection.execute(SELECT_ALL, (SHARED_SCOPE, list(names or (TOKENS, KEYS)))).fetchall()
        return {name: value.encode() for name, value in rows}

    def change(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Change a row; raises errors of psycopg.

        It is repeated for as long as the database may be waited for. If the connection was lost during a commit, the
        row says whether that took effect; only if nobody answers until then, that is not known.
        """
        deadline = time.monotonic() + self._database.wait_seconds
        written: bytes | None = None
        while True:
            try:
                with self._transaction() as connection:
                    stored = _locked(connection, name)
                    if stored is not None and stored == written:
                        return written
                    written = change(stored)
                    connection.execute(UPDATE, (SHARED_SCOPE, name, written.decode()))
                return written
            except psycopg.Error as error:
                if not may_succeed_later(error) or time.monotonic() >= deadline:
                    raise
            wait_until(deadline)

    def unreadable(self, name: str, error: Exception) -> CannotOpen:
        return CannotOpen(
            f"the row {name!r} of the table `shared` in {self._database.name} cannot be read: {error}. Restore it, or"
            " remove it and make new tokens or keys."
        )

    def watch(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` every second."""
        self._thread = threading.Thread(target=self._refresh_all, args=(refresh,), name="access-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _refresh_all(self, refresh: Callable[[], None]) -> None:
        problem = ""
        while not self._ended.wait(POLL_SECONDS):
            try:
                refresh()
                problem = ""
            except Exception as error:  # noqa: BLE001  # it is tried again; meanwhile what is known is in force
                if problem != str(error):
                    problem = str(error)
                    log.error("tokens and keys cannot be read", database=self._database.name, error=problem)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that sees what belongs to no scope."""
        wait_ms, statement_ms = self._database.wait_ms, STATEMENT_SECONDS_MAX * 1000
        start = transaction_start(SHARED_SCOPE, "", "SELECT 1", lock_ms=wait_ms, statement_ms=statement_ms)
        with self._database.begun(start, writes=True, seconds=STATEMENT_SECONDS_MAX) as (connection, _):
            yield connection
            commit(connection)


def _locked(connection: Connection, name: str) -> bytes | None:
    """The contents of a row, which nobody else can change until the end of the transaction; None if it is new."""
    connection.execute(CREATE, (SHARED_SCOPE, name))
    [(value,)] = connection.execute(SELECT_LOCKED, (SHARED_SCOPE, name)).fetchall()
    return value.encode() or None
