"""In PostgreSQL each scope is by itself: what statements, row-level security and the catalogue promise.

That is also what a database needs that is distributed by scope: nothing in it is about two of them.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql import commits, scopes
from backscroll.bus.postgresql.compiling import BEGUN, COMPILED, SIZES, WITHIN
from backscroll.bus.postgresql.connecting import Database
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    ClearRoomMessages,
    CompactScope,
    DeleteScope,
    GetLog,
    GetMedia,
    GetMediaPart,
    GetMessages,
    GetScopeInfo,
    ListScopes,
)
from backscroll.schema.errors import Unavailable
from backscroll.schema.tables import TABLES, Scope
from backscroll.schema.wire import DEFAULT_SCOPE
from tests import ROOT
from tests.handlers.test_statements import QUERIES, fill
from tests.support.behaviour import BEHAVIOUR, ONLY_FILES
from tests.support.clocks import Clock
from tests.support.messages import save_message
from tests.support.postgresql import ROLE, Server
from tests.support.postgresql_statements import (
    followed_conversation,
    generic_plan,
    named_statements,
    parameter_types,
    values_for,
    without_scope,
)
from tests.support.requests import fresh_id

OTHER = "other"
NOBODY = "nobody"
STATEMENTS = named_statements()
OVER_SCOPES = {
    scopes.SELECT_NAMES: "lists the names of the scopes",
    scopes.COUNT_SCOPES: "counts the scopes, of which there may be only so many",
    commits.SELECT_ROWS: "asks which of the open scopes others have written to",
}
"""The statements about more than one scope, and what each does. All three read only `sequence`."""

Admin = psycopg.Connection[Any]
Rows = list[tuple[Any, ...]]
StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def admin(postgresql: Server) -> Iterator[Admin]:
    """A superuser, whom row-level security does not hold back, in an empty database."""
    with postgresql.database() as address, psycopg.connect(as_superuser(address), autocommit=True) as connection:
        yield connection


def as_superuser(address: str) -> str:
    return address.replace(f"//{ROLE}@", "//postgres@")


def name_in(address: str) -> str:
    """The name of the database in an address."""
    found = re.search(r"@/(\w+)", address)
    assert found
    return found[1]


def rows_of(connection: Admin, text: str, *values: Any) -> Rows:
    return psycopg.RawCursor(connection).execute(text, values).fetchall()


def tables_of(connection: Admin) -> list[str]:
    """The names of all tables."""
    found = rows_of(
        connection, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    return [name for (name,) in found]


def test_the_tests_that_are_left_out_exist() -> None:
    """Each entry of the lists of tests for both stores leads to a file, and to a test in it."""
    assert [path for path in BEHAVIOUR if not (ROOT / path).exists()] == []
    for entry in ONLY_FILES:
        path, _, name = entry.partition("::")
        assert path.startswith(BEHAVIOUR), entry
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text(encoding="utf-8"), entry


# The statements


def test_every_statement_keeps_to_one_scope(admin: Admin) -> None:
    """The server's plan has the condition `scope = $1` wherever a table is read, and `$1` in each row it inserts."""
    plans = {name: generic_plan(admin, compiled.text) for name, compiled in STATEMENTS.items()}
    found = {name: without_scope(plan, r"\$1") for name, plan in plans.items()}
    assert {name: problem for name, problem in found.items() if problem} == {}


@pytest.mark.undescribed
def test_every_statement_of_a_daemon_itself_keeps_to_one_scope(
    tmp_path: Path, postgresql: Server, clock: Clock
) -> None:
    """Among all that a daemon says to the server, only the statements above are about more than one scope."""
    with postgresql.database() as address, followed_conversation() as conversation:
        use_everything(address, tmp_path, clock)
        ours = {each.text for statements in (BEGUN, COMPILED, SIZES, WITHIN) for each in statements.values()}
        said = [part for text in set(conversation.statements) - ours for part in text.split("; ")]
        about_tables = {part for part in said if re.search(rf"\b({'|'.join(NAMES)})\b", part)}
        assert any("UPDATE sequence SET seq" in part for part in about_tables)
        with psycopg.connect(as_superuser(address), autocommit=True) as connection:
            plans = {part: generic_plan(connection, part) for part in about_tables - OVER_SCOPES.keys()}
        found = {part: without_scope(plan, r"(?:\$1|'\w*'::text)") for part, plan in plans.items()}
        assert {part: problem for part, problem in found.items() if problem} == {}


NAMES = ["shared", "blobs", *(table._meta.table_name for table in TABLES if table is not Scope)]


def use_everything(address: str, directory: Path, clock: Clock) -> None:
    """Use what a daemon itself does with a database: scopes that come and go, media, logs, clearing."""
    with InProcess(directory / "data", clock=clock, store=address) as transport:
        client, other = Client(transport=transport), Client(transport=transport, scope=OTHER)
        media = fill(client, 3)
        fill(other, 2)
        for query in QUERIES:
            client.ask(type(query)(media.id) if isinstance(query, GetMedia | GetMediaPart) else query)
        client.execute(ClearRoomMessages("r0"))
        client.execute(save_message(1, reactions=[]))
        for operation in (GetScopeInfo(), ListScopes(), CompactScope()):
            client.execute(operation)
        other.execute(DeleteScope())
        fill(other, 1)


@contextmanager
def three_databases(postgresql: Server, directory: Path) -> Iterator[tuple[Admin, Admin, Admin]]:
    """Superusers: in a database with two scopes that have the same keys, in one with one of them, in an empty one."""
    with ExitStack() as stack:
        alone = stack.enter_context(postgresql.database())
        with InProcess(directory / "data", store=alone) as transport:
            fill(Client(transport=transport), 6)
        both = stack.enter_context(postgresql.database(template=name_in(alone)))
        empty = stack.enter_context(postgresql.database())
        connections = [
            stack.enter_context(psycopg.connect(as_superuser(each), autocommit=True)) for each in (both, alone, empty)
        ]
        for table in parents_first(connections[0]):
            rows_changed(connections[0], insertion_of_copies(connections[0], table, OTHER))
        yield connections[0], connections[1], connections[2]


def columns_of(connection: Admin, table: str) -> str:
    """The columns of a table that values can be given for."""
    found = rows_of(
        connection,
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND attgenerated = ''"
        " ORDER BY attnum",
        table,
    )
    return ", ".join(name for (name,) in found)


def insertion_of_copies(connection: Admin, table: str, scope: str) -> str:
    """A statement that inserts a copy of each row of a table into a scope."""
    columns = columns_of(connection, table)
    copies = f"jsonb_populate_record(t, jsonb_build_object('scope', '{scope}'))"
    return f"INSERT INTO {table} ({columns}) SELECT c.* FROM {table} t, LATERAL (SELECT {columns} FROM {copies}) c"


def parents_first(connection: Admin) -> list[str]:
    """All tables with rows of callers' scopes; a table comes after those it references."""
    referred = rows_of(connection, "SELECT confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'")
    parents = [name for (name,) in referred]
    return sorted(set(tables_of(connection)) - {"shared"}, key=lambda name: name not in parents)


def rows_changed(connection: Admin, text: str, *values: Any) -> int:
    return psycopg.RawCursor(connection).execute(text, values).rowcount


def outcome(connection: Admin, text: str, values: list[Any]) -> tuple[str, Rows, int]:
    """What a statement returns or how it fails, in a transaction that is not ended."""
    try:
        cursor = psycopg.RawCursor(connection).execute(text, values)
        return "", cursor.fetchall() if cursor.description else [], cursor.rowcount
    except psycopg.Error as error:
        return error.sqlstate or "", [], 0


def all_of(connection: Admin, scope: str) -> Rows:
    """A digest of all rows of a scope."""
    digest = "(SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} t WHERE scope = $1)"
    return rows_of(connection, f"SELECT {', '.join(digest.format(name) for name in tables_of(connection))}", scope)


def test_no_statement_reads_or_changes_another_scope(tmp_path: Path, postgresql: Server) -> None:
    """Without row-level security, each returns what it returns where there is no other scope, and changes none.

    The other scope has the same keys. A scope without rows finds what there is in an empty database.
    """
    with three_databases(postgresql, tmp_path) as (both, alone, empty):
        before = all_of(both, OTHER)
        for name, compiled in STATEMENTS.items():
            values = values_for(compiled, parameter_types(both, compiled.text), DEFAULT_SCOPE)
            for scope, reference in ((DEFAULT_SCOPE, alone), (NOBODY, empty)):
                with both.transaction(force_rollback=True), reference.transaction(force_rollback=True):
                    mine, expected = (outcome(each, compiled.text, [scope, *values[1:]]) for each in (both, reference))
                    assert mine == expected, f"{name} for {scope}"
                    unchanged = mine[0] or "SELECT" in compiled.text[:9] or all_of(both, OTHER) == before
                    assert unchanged, f"{name} for {scope}"


# Row-level security


@pytest.fixture
def filled(tmp_path: Path, postgresql: Server) -> Iterator[tuple[Admin, Admin]]:
    """A database with two scopes that have the same keys: the connection of a daemon's role, and of a superuser."""
    with three_databases(postgresql, tmp_path) as (both, _, _):
        address = f"postgresql://{ROLE}@/{both.info.dbname}?host={postgresql.host}"
        with psycopg.connect(address, autocommit=True) as daemon:
            yield daemon, both


@contextmanager
def transaction_of(connection: Admin, name: str, value: str) -> Iterator[None]:
    """A transaction with a setting, which is rolled back."""
    with connection.transaction(force_rollback=True):
        rows_of(connection, "SELECT set_config($1, $2, true)", f"backscroll.{name}", value)
        yield


def refused(connection: Admin, text: str) -> str:
    """The name of the error of a statement; empty if it succeeds."""
    try:
        with connection.transaction(force_rollback=True):
            rows_changed(connection, text)
    except psycopg.Error as error:
        return type(error).__name__
    return ""


def test_a_statement_without_a_scope_sees_one_only(filled: tuple[Admin, Admin]) -> None:
    """A transaction sees the rows of its own scope in every table, and without a scope those of no caller's.

    The rows of `shared` have the empty name, which is also that of a scope that is not set.
    """
    daemon, admin = filled
    assert rows_of(daemon, "SELECT 1 FROM shared") == []  # it was never set
    for table in tables_of(admin):
        found = f"SELECT DISTINCT scope FROM {table}"
        scopes_of = {scope for (scope,) in rows_of(admin, found)}
        for scope in (DEFAULT_SCOPE, OTHER, NOBODY):
            with transaction_of(daemon, "scope", scope):
                assert rows_of(daemon, found) == [(scope,)] * (scope in scopes_of), table
        assert rows_of(daemon, found) == [("",)] * (table == "shared"), table


def test_a_statement_cannot_write_into_another_scope(filled: tuple[Admin, Admin]) -> None:
    """Rows of another scope are refused in every table; those that are there are neither changed nor deleted."""
    daemon, admin = filled
    for table in tables_of(admin):
        where = "WHERE scope = ''" if table == "shared" else f"WHERE scope = '{DEFAULT_SCOPE}'"
        if not rows_of(admin, f"SELECT 1 FROM {table} {where} LIMIT 1"):
            continue
        with transaction_of(daemon, "scope", "" if table == "shared" else DEFAULT_SCOPE):
            assert refused(daemon, f"{insertion_of_copies(admin, table, NOBODY)} LIMIT 1") == REFUSED, table
            assert refused(daemon, f"UPDATE {table} SET scope = '{NOBODY}'") == REFUSED, table
            for change in (f"DELETE FROM {table}", f"UPDATE {table} SET scope = scope"):
                assert rows_changed(daemon, f"{change} WHERE scope = '{OTHER}'") == 0, table


REFUSED = "InsufficientPrivilege"


def test_the_list_of_scopes_shows_nothing_else(filled: tuple[Admin, Admin]) -> None:
    """A transaction that lists scopes sees `sequence` only, and changes nothing there."""
    daemon, admin = filled
    with transaction_of(daemon, "listing", "on"):
        seen = {table for table in tables_of(admin) if rows_of(daemon, f"SELECT 1 FROM {table} LIMIT 1")}
        assert seen == {"sequence"}
        assert rows_of(daemon, scopes.SELECT_NAMES) == [(DEFAULT_SCOPE,), (OTHER,)]
        assert rows_changed(daemon, "UPDATE sequence SET seq = 0") == 0
        assert rows_changed(daemon, "DELETE FROM sequence") == 0


def test_row_level_security_is_forced_on_every_table(admin: Admin) -> None:
    """It holds for the owner too, and has one policy for all rows; `sequence` has another one for reading its list."""
    flags = rows_of(
        admin,
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        " AND relrowsecurity AND relforcerowsecurity",
    )
    assert sorted(name for (name,) in flags) == sorted(tables_of(admin))
    policies = rows_of(admin, "SELECT tablename, policyname, cmd, qual, with_check FROM pg_policies")
    one_scope = "(scope = current_setting('backscroll.scope'::text, true))"
    expected = [(name, "one_scope", "ALL", one_scope, one_scope) for name in tables_of(admin)]
    listing = "(current_setting('backscroll.listing'::text, true) = 'on'::text)"
    assert sorted(policies, key=str) == sorted([*expected, ("sequence", "listing", "SELECT", listing, None)], key=str)


@pytest.mark.parametrize("attributes", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_that_is_not_held_back_is_refused(postgresql: Server, attributes: str) -> None:
    """A daemon does not start as a superuser, or as a role that row-level security does not hold back."""
    with postgresql.database() as address, postgresql.admin() as admin:
        admin.execute(sql.SQL("CREATE ROLE unheld LOGIN {}").format(sql.SQL(attributes)))
        try:
            database = Database(address.replace(f"//{ROLE}@", "//unheld@"), connections=2, wait_ms=5_000)
            with pytest.raises(CannotOpen, match="row-level security"):
                database.open()
        finally:
            admin.execute("DROP ROLE unheld")


# The catalogue


def test_every_table_has_its_scope_first(admin: Admin) -> None:
    """`scope` is the first column of every table, and is never unset."""
    first = "SELECT relname FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum = 1"
    of_ours = "relkind = 'r' AND relnamespace = 'public'::regnamespace"
    found = rows_of(admin, f"{first} WHERE {of_ours} AND attname = 'scope' AND attnotnull")
    assert sorted(name for (name,) in found) == sorted(tables_of(admin)) == sorted(NAMES)


def test_every_key_and_index_begins_with_the_scope(admin: Admin) -> None:
    """So each scope's part of it is in one place, and two scopes may have the same keys."""
    found = rows_of(
        admin,
        "SELECT i.indexrelid::regclass::text, a.attname, i.indisprimary FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
        " WHERE c.relnamespace = 'public'::regnamespace",
    )
    assert [name for name, first, _ in found if first != "scope"] == []
    assert sum(is_primary for *_, is_primary in found) == len(NAMES)


def test_every_reference_stays_inside_a_scope(admin: Admin) -> None:
    """The first column of every foreign key is the scope, and refers to the scope."""
    found = rows_of(
        admin,
        "SELECT c.conname, a.attname, b.attname FROM pg_constraint c"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]"
        " JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = c.confkey[1] WHERE c.contype = 'f'",
    )
    assert found
    assert [each for each in found if each[1:] != ("scope", "scope")] == []


SPANNING = {
    "sequences": "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace",
    "identity columns": "SELECT attname FROM pg_attribute WHERE attidentity <> ''",
    "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
    "exclusion constraints": "SELECT conname FROM pg_constraint WHERE contype = 'x'",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "views": "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace",
    "partitions": "SELECT inhrelid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = inhparent"
    " WHERE c.relnamespace = 'public'::regnamespace",
}  # fmt: skip


@pytest.mark.parametrize("kind", SPANNING)
def test_nothing_spans_scopes(admin: Admin, kind: str) -> None:
    """No sequence, trigger or constraint is about the rows of two scopes."""
    assert rows_of(admin, SPANNING[kind]) == []


# Several databases


def test_scopes_are_in_the_databases_that_the_settings_name(start_daemon: StartDaemon, postgresql: Server) -> None:
    """They are listed together, each once, and each is only where it belongs."""
    with postgresql.database() as first, postgresql.database() as second:
        daemon = start_daemon("--store", first, "--scope-store", f"big={second}")
        with client_of(daemon) as client, client_of(daemon, "big") as big, client_of(daemon, "small") as small:
            for each in (client, big, small):
                each.execute(save_message(1))
            assert client.execute(ListScopes()) == ["big", DEFAULT_SCOPE, "small"]
        assert (scopes_in(first), scopes_in(second)) == ([DEFAULT_SCOPE, "small"], ["big"])


def test_a_scope_moves_to_another_database_while_others_are_written(
    start_daemon: StartDaemon, tmp_path: Path, postgresql: Server
) -> None:
    """Its rows are copied while nobody writes to it; with the new map its log goes on. What was left is not listed."""
    with postgresql.database() as first, postgresql.database() as second:
        before = start_daemon("--store", first, data_dir=tmp_path / "before")
        with client_of(before) as client, client_of(before, "big") as big:
            big.execute(save_message(1))
            log = big.ask(GetLog())
            client.execute(save_message(1))
            copy_scope("big", first, second)
            client.execute(save_message(2))
        after = start_daemon("--store", first, "--scope-store", f"big={second}", data_dir=tmp_path / "after")
        with client_of(after) as client, client_of(after, "big") as big:
            assert client.execute(ListScopes()) == ["big", DEFAULT_SCOPE]
            assert big.ask(GetLog()) == log
            big.execute(save_message(2))
            for each in (client, big):
                assert [message.id for message in each.ask(GetMessages("r1"))] == ["m1", "m2"]
            assert [entry.seq for entry in big.ask(GetLog()).entries] == [1, 2]


def test_a_daemon_without_the_place_of_a_scope_is_refused(
    start_daemon: StartDaemon, tmp_path: Path, postgresql: Server
) -> None:
    """It would begin a second scope of that name. One that was moved back is said to be here once."""

    def serve(*flags: str) -> None:
        start_daemon(*flags, data_dir=tmp_path / fresh_id()).stop()

    with postgresql.database() as first, postgresql.database() as second:
        serve("--store", first, "--scope-store", f"big={second}")
        with pytest.raises(Unavailable, match="exit code 4"):
            serve("--store", first)
        assert "have these scopes in other databases: big." in (tmp_path / "daemon.log").read_text()
        serve("--store", first, "--scope-store", f"big={second}", "--scope-store", f"large={second}")
        with pytest.raises(Unavailable, match="exit code 4"):
            serve("--store", first, "--scope-store", f"large={second}")
        serve("--store", first, "--scope-store", f"big={first}", "--scope-store", f"large={first}")
        serve("--store", first)


def client_of(daemon: DaemonProcess, scope: str = DEFAULT_SCOPE) -> Client:
    return Client(daemon.endpoint, scope=scope)


def scopes_in(address: str) -> list[str]:
    with psycopg.connect(as_superuser(address)) as connection:
        return [name for (name,) in rows_of(connection, scopes.SELECT_NAMES)]


def copy_scope(scope: str, source: str, target: str) -> None:
    """Copy all rows of a scope into another database."""
    with psycopg.connect(as_superuser(source)) as old, psycopg.connect(as_superuser(target)) as new:
        for table in parents_first(old):
            columns = columns_of(old, table)
            read = f"COPY (SELECT {columns} FROM {table} WHERE scope = '{scope}') TO STDOUT"
            with old.cursor().copy(read) as rows, new.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copied:
                for row in rows:
                    copied.write(row)
