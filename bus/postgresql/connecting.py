"""Connections to one database: a bounded pool, how values are sent, and what has to be true before it is used."""

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import conninfo, sql
from psycopg import errors as pg
from psycopg.adapt import Dumper
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus
from psycopg.types.string import BytesBinaryDumper, StrDumperUnknown
from psycopg_pool import ConnectionPool

from backscroll.bus.failures import BadSettings, CannotOpen
from backscroll.bus.logging import log
from backscroll.bus.postgresql.errors import may_succeed_later
from backscroll.schema.migrations.postgresql import migrations
from backscroll.schema.tables import TABLES, Scope

VERSION_MIN: Final = 150_000
CONNECTIONS_IDLE: Final = 1
CONNECT_SECONDS: Final = 5
RECONNECT_SECONDS: Final = 1  # then the pool gives up, until somebody wants a connection again
ANSWER_SECONDS: Final = 5  # for an answer, while the database does not answer anybody
STATEMENT_SECONDS_MAX: Final = 60  # for one statement, where there is no other bound
IDLE_SECONDS_MAX: Final = 20  # between two statements of a transaction, which has locks; then the server ends it
PREPARED_MAX: Final = 1_000  # there are fewer statements
MIGRATION_LOCK: Final = 0x62736372  # the bytes `bscr`
PLANNING: Final = "".join(
    f"SET {name} = {value}; "
    for name, value in {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }.items()
)
"""The handlers' statements are written for loops over indexes, which is all that SQLite does. So a plan is made once,
and no worse one is chosen for a table without statistics, or because scopes have very different sizes."""
SECRETS: Final = {"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}
"""The parameters of an address that let whoever reads them connect as well."""
WAIT_FOR_REPLICAS: Final = "SyncRepWaitForLSN"
"""The function of the server that warns when it was interrupted; the transaction is committed nevertheless."""
ADVICE: Final = {
    "no password supplied": ". It is read from PGPASSWORD, a password file (PGPASSFILE), or a service file",
    "does not exist": ". README.md has the statements that make the role and the database",
    "definition of service": ". Services are in ~/.pg_service.conf, or in the file that PGSERVICEFILE names",
    "42P07": ". It has tables of another program: make a database for backscroll alone",  # a table exists already
    "3F000": ". Make the schema first: CREATE SCHEMA … AUTHORIZATION …",  # it does not exist
    "42501": ". The role may not do that; README.md says which rights it needs",
}
"""What to do, by the code of an error, or by words in its message: errors of connecting have no code."""
TABLES_HERE: Final = [*(table._meta.table_name for table in TABLES if table is not Scope), "blobs", "shared"]
SHARED_SCOPE: Final = ""  # of what belongs to no caller's scope
LIST_SCOPES: Final = "SET LOCAL backscroll.listing = 'on'"  # shows a transaction the rows of all scopes in `sequence`

T = TypeVar("T")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which nobody waits for ever: neither for a server that hangs, nor for one that is out of reach.

    An answer that does not come within `answer_seconds` is a lost connection; so is one that does not come within
    `ANSWER_SECONDS` while the database as a whole does not answer.
    """

    answer_seconds: float = STATEMENT_SECONDS_MAX + ANSWER_SECONDS
    database: "Database"
    has_skipped_replicas = False
    """Whether a commit did not wait for the synchronous replicas, because it was interrupted."""

    def note(self, notice: Diagnostic) -> None:
        """Receive what the server says besides results."""
        if notice.source_function == WAIT_FOR_REPLICAS:
            self.has_skipped_replicas = True

    def wait(self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(self._bounded(gen), interval, timeout)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard_at = time.monotonic()
                elif self._is_lost_after(time.monotonic() - heard_at):
                    raise psycopg.OperationalError("the database server did not answer a statement")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result

    def _is_lost_after(self, seconds: float) -> bool:
        """Whether nothing can be expected any more after so long a silence."""
        return seconds > (ANSWER_SECONDS if self.database.problem else self.answer_seconds)


class UntypedInt(Dumper):
    """An integer or a flag, whose type the server knows from where it is used, so a statement is prepared only once."""

    def dump(self, obj: int) -> bytes:
        return b"%d" % obj

    def quote(self, obj: int) -> bytes:
        return self.dump(obj)


class UntypedBytes(BytesBinaryDumper):
    """The same for bytes."""

    oid = 0


class Database:
    """One database: a pool of at most `connections`, which waits `wait_ms` for a free one or for a server.

    Raises `BadSettings` for an address that cannot be one.
    """

    def __init__(self, url: str, *, connections: int, wait_ms: int) -> None:
        self.name = shown(url)
        self.wait_seconds = wait_ms / 1000
        self.wait_ms = wait_ms
        self.server_version = ""
        self.problem = ""
        """Why the database cannot be used now, in words; empty if it can."""
        self._url = url
        self._in_use: dict[Connection, bool] = {}  # those in transactions, and whether they write
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            connection_class=Connection,
            min_size=CONNECTIONS_IDLE,
            max_size=connections,
            open=False,
            timeout=self.wait_seconds,
            reconnect_timeout=RECONNECT_SECONDS,
            kwargs=connection_options(),
            configure=self._configure,
        )

    def open(self) -> None:
        """Connect, check the server and the role, and migrate the tables. Raises `CannotOpen`."""
        with explained(self.name):
            with self.beside_pool() as connection:
                self.server_version = check_server(connection, self.name)
                migrate(connection, self.name)
                _check_tables(connection, self.name)
            logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # `problem` says the same in the daemon's log
            self._pool.open()

    @contextmanager
    def beside_pool(self) -> Iterator[Connection]:
        """A connection that is none of the pool's, and closed at the end. If it fails, the error says what is wrong."""
        with Connection.connect(self._url, **connection_options()) as connection:
            self._configure(connection)
            yield connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection without a transaction. One that is broken, or left in a transaction, is closed at the end."""
        with self._pool.connection() as connection:
            connection.answer_seconds = ANSWER_SECONDS
            yield connection

    @contextmanager
    def listing(self) -> Iterator[Connection]:
        """A connection in a transaction that sees the names of all scopes, and nothing else."""
        with self.begun(f"BEGIN READ ONLY; {LIST_SCOPES}", writes=False) as (connection, _):
            yield connection

    @contextmanager
    def begun(
        self, start: str, *, writes: bool, seconds: float = STATEMENT_SECONDS_MAX
    ) -> Iterator[tuple[Connection, list[tuple[Any, ...]]]]:
        """A connection on which these statements have begun a transaction, and the rows of the last one.

        If the connection turns out to be broken, another one is tried, for as long as the database may be waited for.
        What is not committed by the end of the block is rolled back. No statement in it takes longer than `seconds`.
        """
        connection, rows = self._begun(start, writes)
        connection.answer_seconds = seconds + ANSWER_SECONDS
        try:
            yield connection, rows
        finally:
            self._put_back(connection)

    def _begun(self, start: str, writes: bool) -> tuple[Connection, list[tuple[Any, ...]]]:
        deadline = time.monotonic() + self.wait_seconds
        while True:
            connection = self._pool.getconn(max(0.001, deadline - time.monotonic()))
            connection.answer_seconds = self.wait_seconds + ANSWER_SECONDS
            self._in_use[connection] = writes
            try:
                return connection, rows_of(connection, start)
            except BaseException as error:
                if isinstance(error, pg.ReadOnlySqlTransaction):
                    connection.close()  # the address may lead to another server by now
                self._put_back(connection)
                if not may_succeed_later(error) or time.monotonic() >= deadline:
                    raise
            wait_until(deadline)

    def _put_back(self, connection: Connection) -> None:
        """End the transaction; if it only read, by COMMIT: after a ROLLBACK psycopg prepares all statements again."""
        writes = self._in_use.pop(connection)
        connection.answer_seconds = ANSWER_SECONDS
        with suppress(psycopg.Error):
            if connection.info.transaction_status is TransactionStatus.ACTIVE:
                connection.close()  # an answer is missing, and may never come
            elif connection.info.transaction_status is not TransactionStatus.IDLE:
                connection.execute("ROLLBACK" if writes else "COMMIT", prepare=False)
        self._pool.putconn(connection)

    def interrupt(self, *, writers: bool) -> None:
        """Interrupt the statements of transactions that write, or of the others. May be called from any thread."""
        for connection, writes in list(self._in_use.items()):
            if writes == writers:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=1.0)

    def _configure(self, connection: Connection) -> None:
        connection.database = self
        connection.add_notice_handler(connection.note)
        connection.execute(PLANNING, prepare=False)
        connection.prepared_max = PREPARED_MAX
        connection.adapters.register_dumper(int, UntypedInt)
        connection.adapters.register_dumper(bool, UntypedInt)
        connection.adapters.register_dumper(bytes, UntypedBytes)
        connection.adapters.register_dumper(str, StrDumperUnknown)

    def close(self) -> None:
        self._pool.close()

    def statistics(self) -> dict[str, int]:
        """The pool's counters, as psycopg names them."""
        return self._pool.get_stats()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connection_options() -> dict[str, Any]:
    """How every connection is made: transactions are begun explicitly, and every statement is prepared."""
    return {
        "autocommit": True,
        "prepare_threshold": 0,
        "cursor_factory": psycopg.RawCursor,
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "backscroll",
        "client_encoding": "utf8",
        "keepalives_idle": 30,
        "tcp_user_timeout": 10_000,
    }


def shown(url: str) -> str:
    """An address as it may be shown: without a password. Raises `BadSettings` for one that has a password."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # whose message may have a password in it
        raise BadSettings("the store is not an address of a PostgreSQL database: check its signs and `%`") from None
    if SECRETS & parts.keys():
        raise BadSettings(
            "the address of the store has a password in it, which every user of the machine could see: put it into "
            "PGPASSWORD, into a password file (PGPASSFILE), or into a service file"
        )
    if "service" in parts:
        return f"postgresql://?service={parts['service']}"
    user, port = (f"{parts['user']}@" if "user" in parts else ""), (f":{parts['port']}" if "port" in parts else "")
    return f"postgresql://{user}{parts.get('host', '')}{port}/{parts.get('dbname', '')}"


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors from connecting and preparing a database into a `CannotOpen` that says what to do."""
    try:
        yield
    except psycopg.Error as error:
        what, _, _ = (str(error).strip() or type(error).__name__).partition("\n")
        advice = next((text for sign, text in ADVICE.items() if sign == error.sqlstate or sign in what), "")
        raise CannotOpen(f"{name} cannot be used: {what}{advice}") from error


def transaction_start(scope: str, mode: str, then: str, *, lock_ms: int, statement_ms: int) -> str:
    """The text that begins a transaction of a scope in one round trip, with a query about the scope at its end.

    It waits `lock_ms` for a lock, and a statement in it may take `statement_ms`. Whoever leaves it open, and so keeps
    others from the scope, loses it after a while.
    """
    name = literal(scope)
    settings = {
        "backscroll.scope": name,
        "lock_timeout": lock_ms,
        "statement_timeout": statement_ms,
        "idle_in_transaction_session_timeout": IDLE_SECONDS_MAX * 1000,
    }
    set_all = "; ".join(f"SET LOCAL {setting} = {value}" for setting, value in settings.items())
    return f"BEGIN {mode}; {set_all}; {then.format(scope=name)}"


def literal(value: str | bytes) -> str:
    """A text or bytes as they are written in SQL."""
    return sql.Literal(value).as_string(None)


def rows_of(connection: Connection, script: str) -> list[tuple[Any, ...]]:
    """Execute several statements in one round trip; the rows of the last one."""
    cursor = connection.execute(script, prepare=False)
    while cursor.nextset():
        pass
    return cursor.fetchall() if cursor.description else []


def commit(connection: Connection, last: str = "") -> None:
    """Execute a last statement, if there is one, and commit, in one round trip.

    Raises `OperationalError`, as where the connection is lost, if it is not certain that synchronous replicas have it.
    """
    connection.has_skipped_replicas = False
    connection.execute(f"{last}; COMMIT" if last else "COMMIT", prepare=False)
    if connection.has_skipped_replicas:
        raise psycopg.OperationalError("a commit was interrupted before the synchronous replicas had it")


def migrate(connection: Connection, name: str) -> None:
    """Apply the migrations that the database does not have yet. One daemon at a time does that."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock($1)", (MIGRATION_LOCK,))
        connection.execute("SET LOCAL backscroll.scope = ''")
        version = _version(connection)
        if version > len(migrations()):
            raise CannotOpen(
                f"{name} has schema version {version}, and this backscroll knows {len(migrations())} at most. "
                "Use the newer backscroll that wrote it."
            )
        for number, script in enumerate(migrations()[version:], start=version + 1):
            connection.execute(script, prepare=False)
            connection.execute(
                "INSERT INTO shared (scope, key, value) VALUES ('', 'schema_version', $1)"
                " ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value",
                (str(number),),
            )
            log.info("migrated", database=name, version=number)


def _version(connection: Connection) -> int:
    if connection.execute("SELECT to_regclass('shared')").fetchall() == [(None,)]:
        return 0
    rows = connection.execute("SELECT value FROM shared WHERE scope = '' AND key = 'schema_version'").fetchall()
    return int(rows[0][0]) if rows else 0


def check_server(connection: Connection, name: str) -> str:
    """The version of the server; raises `CannotOpen` if it or the role cannot be used."""
    [(version, number, encoding, durable)] = connection.execute(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::integer,"
        " current_setting('server_encoding'), current_setting('synchronous_commit')"
    ).fetchall()
    if number < VERSION_MIN:
        raise CannotOpen(f"{name} is PostgreSQL {version}; 15 is the oldest that can be used.")
    if encoding != "UTF8":
        raise CannotOpen(f"{name} has the encoding {encoding}; create a database with UTF8.")
    if durable == "off":
        raise CannotOpen(
            f"{name} has synchronous_commit = off, so that commands which were acknowledged could be lost: "
            "switch it on for the daemon's role."
        )
    _check_role(connection, name)
    return str(version)


def _check_tables(connection: Connection, name: str) -> None:
    found = connection.execute(
        "SELECT t FROM unnest($1::text[]) t LEFT JOIN pg_class ON oid = to_regclass(t)"
        " WHERE (relrowsecurity AND relforcerowsecurity) IS NOT true",
        (TABLES_HERE,),
    ).fetchall()
    if found:
        raise CannotOpen(
            f"{name} lacks tables, or row-level security that holds the owner back, too: "
            f"{', '.join(table for (table,) in found)}. Restore it from a backup, or with ALTER TABLE … ENABLE, and "
            "FORCE, ROW LEVEL SECURITY."
        )


def _check_role(connection: Connection, name: str) -> None:
    [(role, is_exempt)] = connection.execute(
        "SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    ).fetchall()
    if is_exempt:
        raise CannotOpen(
            f"{name} is used as {role}, whom row-level security does not hold back. Create a role for the daemon "
            "that is no superuser and has no BYPASSRLS; README.md has the statements."
        )


def wait_until(deadline: float) -> None:
    """Wait a moment before something is tried again, not longer than until the deadline."""
    time.sleep(max(0.0, min(0.05, deadline - time.monotonic())))
