"""Direct access to what a store has, independent of the code under test."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import psycopg

from backscroll.schema.tables import TABLES, Scope, Sequence
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.support.chosen_store import CHOSEN

LINEAGE_AT = 5  # from here on, columns of `sequence` are about the file

SELECT_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"

Rows = dict[str, list[tuple[object, ...]]]


def every_row(store: Any) -> Rows:
    """Every row of every table of an open store, by table name. Columns are in the order of the tables' models."""
    if hasattr(store, "path"):
        return _rows_in_file(store.path)
    if not store.exists:
        return {table._meta.table_name: [] for table in TABLES if table is not Scope}
    with store.read() as snapshot:
        return _rows_of_scope(snapshot.connection, store.scope)


def _rows_of_scope(connection: "psycopg.Connection[Any]", scope: str) -> Rows:
    found: Rows = {}
    for table in TABLES:
        if table is Scope:
            continue
        name, columns = table._meta.table_name, table._meta.sorted_field_names
        if table is Sequence:
            columns = ["1", *columns[1:LINEAGE_AT]]
        text = f"SELECT {', '.join(columns)} FROM {name} WHERE scope = $1"
        rows = psycopg.RawCursor(connection).execute(text, (scope,), binary=True).fetchall()
        found[name] = sorted(rows, key=repr)
    return found


def _rows_in_file(path: Path) -> Rows:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.execute("BEGIN")  # one snapshot of all tables
        names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        kept = [name for name in names if name != "scope" and not name.startswith("sqlite_")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in kept}


def all_rows(where: Any) -> Rows:
    """Every row of every table but `sequence`, by table name; of an open store, or of a database file."""
    rows = _rows_in_file(where) if isinstance(where, Path) else every_row(where)
    return {name: found for name, found in rows.items() if name != "sequence"}


def rows_at(directory: Path) -> Rows:
    """The same of the scope `default` of a data directory, in the chosen store, whether or not a daemon is using it."""
    if not (address := CHOSEN.address(directory)):
        return all_rows(directory / "default.db")
    with CHOSEN.server.admin_of(address) as connection:
        rows = _rows_of_scope(connection, DEFAULT_SCOPE)
    return {name: found for name, found in rows.items() if name != "sequence"}


def content_rows(where: Any) -> Rows:
    """Every row of stored content, without the command log."""
    return {name: rows for name, rows in all_rows(where).items() if name not in ("commands", "log_references")}


def parts_of(store: Any) -> dict[str, bytes]:
    """The parts of media that a store has, by their hashes."""
    if hasattr(store, "path"):
        files = store.blobs.directory.glob("*/*")
        return {path.name: path.read_bytes() for path in files if path.is_file()}
    if not store.exists:
        return {}
    with store.read() as snapshot:
        text = "SELECT sha256, data FROM blobs WHERE scope = $1"
        return dict(snapshot.connection.execute(text, (store.scope,), binary=True).fetchall())


def bytes_in_databases(directory: Path) -> dict[str, bytes]:
    """All values in the databases of the data directories below a directory, by table; those of scopes by scope."""
    found: dict[str, bytes] = {}
    for address in CHOSEN.addresses_below(directory):
        with CHOSEN.server.admin_of(address) as connection:
            for (table,) in connection.execute(SELECT_TABLES).fetchall():
                for scope, *row in connection.execute(f"SELECT * FROM {table}").fetchall():
                    place = table if scope in ("", DEFAULT_SCOPE) else f"scopes/{scope}/{table}"
                    values = [value.encode() if isinstance(value, str) else value for value in row]
                    found[place] = b"\n".join(
                        [found.get(place, b""), *(each for each in values if type(each) is bytes)]
                    )
    return found


def put_parts_at(store: Any, time_ms: int) -> None:
    """Let all parts of media have been put last at this time, in milliseconds since the epoch."""
    if hasattr(store, "path"):
        for path in store.blobs.directory.glob("*/*"):
            os.utime(path, ns=(time_ms * 1_000_000, time_ms * 1_000_000))
        return
    with store.write() as transaction:
        text = "UPDATE blobs SET put_at = $2 WHERE scope = $1"
        transaction.rows_written += transaction.connection.execute(text, (store.scope, time_ms)).rowcount
