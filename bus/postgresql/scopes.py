"""The scopes in PostgreSQL databases: rows in shared tables, with nothing to open or close but what is remembered."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.postgresql import errors
from backscroll.bus.postgresql.access import AccessDatabase
from backscroll.bus.postgresql.commits import Commits, Known
from backscroll.bus.postgresql.connecting import Database
from backscroll.bus.postgresql.scope_admin import PostgresScopeAdmin
from backscroll.bus.postgresql.store import PostgresStore, Row
from backscroll.bus.query_cache import BYTES_MAX, QueryCache
from backscroll.bus.sqlite.empty_store import EmptyStore
from backscroll.bus.stores import IDLE_SECONDS, Commit, Committed, ReadStore, Store
from backscroll.handlers.registry import Handlers
from backscroll.handlers.scopes import ScopeAdmin
from backscroll.handlers.storage import Retention
from backscroll.schema.errors import BackscrollError, Invalid, Storage, Unavailable
from backscroll.schema.paths import OWN_TOOLS
from backscroll.schema.replies import StorageHealth
from backscroll.schema.wire import DEFAULT_SCOPE

REPLACED = Row(seq=-1)  # of a scope that is another by now: none that it has, so whoever waits for it is told
OPEN_MAX = 128  # an open scope costs some memory, and neither files nor connections
CLOSED_MAX = 10_000  # closed scopes whose end is remembered
SELECT_NAMES = "SELECT scope FROM sequence ORDER BY scope"
COUNT_SCOPES = "SELECT count(*) FROM sequence WHERE scope <> $1"
SELECT_SCOPE = "SELECT 1 FROM sequence WHERE scope = $1"


class PostgresScopes:
    """All scopes of some databases. Safe to use from any thread.

    A scope is in the database that `elsewhere` has for its name, else in `database`. `clock` returns milliseconds since
    the epoch; with `scopes_max` no more scopes than so many are created besides `default` in each database.
    """

    def __init__(
        self,
        database: Database,
        elsewhere: Mapping[str, Database] | None = None,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        retention: Retention | None = None,
        query_cache_bytes: int = BYTES_MAX,
        scopes_max: int = 0,
    ) -> None:
        self._default, self._elsewhere = database, dict(elsewhere or {})
        self.access = AccessDatabase(database)
        self._clock = clock
        self._retention = retention
        self._query_cache_bytes = query_cache_bytes
        self._scopes_max = scopes_max
        self._receivers: list[Committed] = []
        self._awaited: list[Callable[[], Iterable[str]]] = []
        self._stores: dict[str, PostgresStore] = {}
        self._last_used: dict[str, float] = {}
        self._closed_at: dict[str, Row] = {}  # of scopes that exist and are not open
        self._empty = EmptyStore(clock)
        self._lock = threading.Lock()
        self._stopping = False
        self._commits = {each: Commits(each, self._known_in(each), self._noticed) for each in self.databases()}

    def databases(self) -> list[Database]:
        """All databases, the default one first."""
        return list(dict.fromkeys([self._default, *self._elsewhere.values()]))

    def database_of(self, name: str) -> Database:
        """The database that a scope is in."""
        return self._elsewhere.get(name, self._default)

    # Stores

    @contextmanager
    def use(self, name: str) -> Iterator[PostgresStore]:
        """The store of a scope. The first transaction that writes creates it if it is new."""
        store = self._opened(name)
        if not store.exists:
            self._check_may_create(name)
        yield store

    @contextmanager
    def use_to_read(self, name: str) -> Iterator[ReadStore]:
        """The store of a scope; if it does not exist, an empty one, and nothing is created or remembered."""
        if name not in self._stores and not self.has_files(name):
            yield self._empty
            return
        yield self._opened(name)  # who waits is told of what is in the store that is open

    @contextmanager
    def borrow_if_open(self, name: str) -> Iterator[PostgresStore | None]:
        """The store of a scope if it is open, for the daemon's own work, which does not count as use."""
        yield self._stores.get(name)

    def open(self, name: str) -> PostgresStore:
        """Open a scope now."""
        with self.use(name) as store:
            return store

    def store_if_open(self, name: str, *, used: bool = True) -> PostgresStore | None:
        """The store of a scope if it is open, which may close at any time. `used` is whether this counts as use."""
        if used and name in self._stores:
            self._last_used[name] = time.monotonic()
        return self._stores.get(name)

    def _opened(self, name: str) -> PostgresStore:
        store = self._stores.get(name)
        if store is not None:
            self._last_used[name] = time.monotonic()
            return store
        opened = self._new_store(name)
        with self._lock:
            store = self._stores.setdefault(name, opened)
            self._last_used[name] = time.monotonic()  # not before: names of scopes that cannot be opened would be kept
        if store is opened:  # who waits for the scope knows another state of it, or none
            self._committed(store.last_commit, store)
        if len(self._stores) > OPEN_MAX:
            self._close_excess()
        return store

    def _new_store(self, name: str) -> PostgresStore:
        database = self.database_of(name)
        return PostgresStore(
            database,
            name,
            clock=self._clock,
            retention=self._retention,
            query_cache=QueryCache(self._query_cache_bytes),
            committed=self._committed,
            notify=self._commits[database].send,
            successor=self._successor,
            empty=self._empty,
        )

    def _successor(self, store: PostgresStore) -> PostgresStore:
        """The store in place of one whose scope is another by now."""
        self._forget(store.scope, store)
        self._closed_at[store.scope] = REPLACED
        return self._opened(store.scope)

    def _forget(self, name: str, store: PostgresStore) -> None:
        with self._lock:
            if self._stores.get(name) is store:
                self._closed_at.pop(name, None)
                if store.exists:
                    self._closed_at[name] = store.last_row
                    while len(self._closed_at) > CLOSED_MAX:
                        del self._closed_at[next(iter(self._closed_at))]
                del self._stores[name]
                self._last_used.pop(name, None)

    def forget(self, name: str) -> None:
        """Forget what is known of a scope, which was deleted."""
        store = self._stores.get(name)
        if store is not None:
            self._forget(name, store)
        self._closed_at.pop(name, None)

    def close_idle(self, idle_s: float = IDLE_SECONDS) -> None:
        """Forget the scopes that have not been used for `idle_s` seconds."""
        before = time.monotonic() - idle_s
        for name, store in self._idle_first():
            if self._last_used.get(name, 0.0) < before:
                self._forget(name, store)

    def _close_excess(self) -> None:
        for name, store in self._idle_first()[: max(0, len(self._stores) - OPEN_MAX)]:
            self._forget(name, store)

    def _idle_first(self) -> list[tuple[str, PostgresStore]]:
        """The open scopes that may be forgotten, least recently used first."""
        with self._lock:
            stores = [(name, store) for name, store in self._stores.items() if name != DEFAULT_SCOPE]
        return sorted(stores, key=lambda each: self._last_used.get(each[0], 0.0))

    def open_names(self) -> list[str]:
        """The names of the scopes that are open now."""
        return list(self._stores)

    def seq(self, name: str) -> int:
        """The last seq of a scope that is known; 0 if it was not used since the start of the daemon."""
        store = self._stores.get(name)
        return store.seq if store else max(0, self._closed_at.get(name, Row()).seq)

    def enter_shared(self, _name: str, _resume: Callable[[], None]) -> Callable[[], None]:
        """Nothing keeps queries from a scope: what is done to it as a whole is one transaction."""
        return _do_nothing

    # Names

    def has_files(self, name: str) -> bool:
        """Whether a scope exists. Does not remember the name. `default` always does, with files or without."""
        if name == DEFAULT_SCOPE:
            return True
        store = self._stores.get(name)
        if store is not None and store.exists:
            return True
        with self.database_of(name).listing() as connection:
            return bool(connection.execute(SELECT_SCOPE, (name,)).fetchall())

    def names(self) -> list[str]:
        """The names of all scopes, in order."""
        found = {DEFAULT_SCOPE}
        for database in self.databases():
            with database.listing() as connection:
                named = {str(name) for (name,) in connection.execute(SELECT_NAMES).fetchall()}
            found |= {name for name in named if self.database_of(name) is database}
        return sorted(found)

    def _check_may_create(self, name: str) -> None:
        """Raise `Storage` for a new scope if there are as many as there may be."""
        if not self._scopes_max or name == DEFAULT_SCOPE:
            return
        with self.database_of(name).listing() as connection:
            [(number,)] = connection.execute(COUNT_SCOPES, (DEFAULT_SCOPE,)).fetchall()
        if number >= self._scopes_max:
            raise Storage(
                f"there are {number} scopes, and scopes_max is {self._scopes_max}: delete scopes that are not needed, "
                "or raise the setting"
            )

    def admin(self, name: str, handlers: Handlers) -> ScopeAdmin:
        """A scope as a whole, for maintenance operations."""
        return PostgresScopeAdmin(self, name, handlers)

    # Commits

    def on_commit(self, committed: Committed, awaited: Callable[[], Iterable[str]] = tuple, /) -> None:
        self._receivers.append(committed)
        self._awaited.append(awaited)

    def _committed(self, commit: Commit, store: Store) -> None:
        for receive in self._receivers:
            receive(commit, store)

    def _known_in(self, database: Database) -> Known:
        def known() -> Mapping[str, Row]:
            with self._lock:
                rows = {name: store.last_row for name, store in self._stores.items()}
            for name in (each for awaited in self._awaited for each in awaited()):
                rows.setdefault(name, self._closed_at.get(name, Row()))
            return {name: row for name, row in rows.items() if self.database_of(name) is database}

        return known

    def _noticed(self, name: str) -> None:
        self._opened(name).catch_up()  # opening it tells those who wait for it, if it was not open

    # The daemon

    @property
    def may_refuse(self) -> bool:
        return False

    def refusal(self, _name: str, _size: int) -> BackscrollError | None:
        """The server has its own bounds."""
        return None

    def look_at_disk(self) -> None:
        """The disk is the server's."""

    def give_up_reserve(self, _name: str) -> None:
        """There is none."""

    def is_disk_full(self, error: Exception) -> bool:
        return errors.is_disk_full(error)

    def is_unreadable(self, error: Exception) -> bool:
        return isinstance(error, errors.UNREADABLE)

    def wire_error(self, error: Exception) -> BackscrollError | None:
        """The error that a caller gets for an error of PostgreSQL; None for any other error."""
        explained = errors.wire_error(error)
        if self._stopping and explained is not None:
            return Unavailable("the daemon is stopping")
        return explained

    def clear_caches(self) -> None:
        """Free the memory of all cached results. May be called from any thread."""
        with self._lock:
            stores = list(self._stores.values())
        for store in stores:
            store.query_cache.clear()

    def interrupt_readers(self) -> None:
        """Interrupt all statements that readers are running. May be called from any thread."""
        self._interrupt(writers=False)

    def interrupt_writers(self) -> None:
        """Interrupt all statements that writers are running. May be called from any thread."""
        self._interrupt(writers=True)

    def _interrupt(self, *, writers: bool) -> None:
        self._stopping = True
        for database in self.databases():
            database.interrupt(writers=writers)

    def stop(self) -> None:
        """End long work, whose requests are then answered `unavailable`. May be called from any thread."""
        self._stopping = True

    def close(self) -> None:
        self._empty.close()
        self.access.close()
        for commits in self._commits.values():
            commits.close()

    def health(self) -> StorageHealth:
        """The server, and whether it answers; of the other databases, in the warnings."""
        with self._lock:
            stores = list(self._stores.values())
        warnings = [
            f"{database.name}: {database.problem}"
            for database in self.databases()
            if database is not self._default and database.problem
        ]
        return StorageHealth(
            engine="postgresql",
            version=self._default.server_version,
            state=self._default.problem or "ok",
            warnings=warnings,
            last_commit_at=max((store.committed_at for store in stores if store.committed_at), default=None),
        )

    @property
    def maintenance(self) -> NoReturn:
        raise Invalid(OWN_TOOLS, details={"path": "$.type"})


def _do_nothing() -> None:
    """Leave a scope."""
