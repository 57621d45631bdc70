"""The rows of a scope: as one document for a snapshot, or compared with those of another scope."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from backscroll.clients.python.client import Client
from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.operations import GetRows, GetScopeInfo
from backscroll.schema.records import SECRET_COLUMNS
from backscroll.schema.row_pairs import pairs
from backscroll.schema.wire import JSON

Row = dict[str, Any]

COMMANDS = "commands"
"""The command log is not part of the state; `log_export.py` reads it."""
DIFFERENCES_MAX = 20
SHOWN_CHARS = 80


@dataclass
class TableDifferences:
    """The differences of a table between two scopes: the first `DIFFERENCES_MAX` as text, and how many there are."""

    table: str
    total: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, difference: str) -> None:
        self.total += 1
        if len(self.shown) < DIFFERENCES_MAX:
            self.shown.append(difference)

    def lines(self) -> list[str]:
        """The lines to show, with the number of differences that are left out."""
        rest = self.total - len(self.shown)
        return [*self.shown, f"{self.table}: and {rest} more"] if rest else self.shown


def tables_of(client: Client) -> list[str]:
    """The names of the tables that make up a scope's state."""
    return [table for table in client.execute(GetScopeInfo()).rows if table != COMMANDS]


def rows_of(client: Client, table: str) -> Iterator[Row]:
    """All rows of a table in the order of its key, without secrets."""
    after: list[Any] | None = None
    secret = SECRET_COLUMNS.get(table, ())
    while True:
        page = client.ask(GetRows(table, after=after, limit=PAGE_ITEMS_MAX))
        for row in page.rows:
            yield {column: value for column, value in row.items() if column not in secret}
        if page.next is None:
            return
        after = page.next


def state_of(client: Client) -> str:
    """All rows of a scope as JSON, which is equal for equal states.

    Unset columns and empty tables are left out, so new ones in a later version make no difference until they are used.
    """
    tables = {table: [_set(row) for row in rows_of(client, table)] for table in tables_of(client)}
    held = {table: rows for table, rows in tables.items() if rows}
    return json.dumps(held, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _set(row: Row) -> Row:
    return {column: value for column, value in row.items() if value is not None}


def differences(ours: Client, theirs: Client) -> Iterator[TableDifferences]:
    """The differences between two scopes, for each table that differs."""
    for table in sorted({*tables_of(ours), *tables_of(theirs)}):
        found = TableDifferences(table)
        key = ours.ask(GetRows(table, limit=1)).key
        for left, right in pairs(rows_of(ours, table), rows_of(theirs, table), itemgetter(*key)):
            _compare(found, key, left, right)
        if found.total:
            yield found


def _compare(found: TableDifferences, key: Sequence[str], left: Row | None, right: Row | None) -> None:
    row = left or right
    if row is None or JSON.encode(left) == JSON.encode(right):
        return
    name = f"{found.table} {', '.join(str(row[column]) for column in key)}"
    if left is None or right is None:
        found.add(f"{name}: {'missing in the replay' if left is None else 'only in the replay'}")
        return
    for column in sorted({*left, *right}):
        first, second = left.get(column), right.get(column)
        if _text(first) != _text(second):
            found.add(f"{name}: {column}: {_shown(first)} ≠ {_shown(second)}")


def _shown(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def _text(value: Any) -> str:
    """A value as JSON, in which `1`, `1.0` and `true` differ but the order of keys does not matter."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
