"""Direct access to a database file, independent of the code under test."""

from contextlib import closing
from pathlib import Path

import apsw

Rows = dict[str, list[tuple[object, ...]]]


def all_rows(path: Path) -> Rows:
    """Every row of every table but the commit number and the scope's name, by table name."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        with connection:
            names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            rows: Rows = {
                name: connection.execute(f"SELECT * FROM {name}").fetchall()
                for name in names
                if name not in ("sequence", "scope") and not name.startswith("sqlite_")
            }
        return rows


def content_rows(path: Path) -> Rows:
    """Every row of stored content, without the command log."""
    return {name: rows for name, rows in all_rows(path).items() if name not in ("commands", "log_references")}
