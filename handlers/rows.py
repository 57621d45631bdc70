"""The rows of tables as they are stored, for comparing scopes."""

from typing import Any

import msgspec
from peewee import IntegerField, Tuple

from backscroll.handlers import clearing
from backscroll.handlers.lists import PAGE_CHARS_SURE, page_of
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import Named, Row, RowsWithin, from_json, statement, take_within, to_json
from backscroll.handlers.storage import Reads
from backscroll.schema.errors import Invalid, NotFound
from backscroll.schema.limits import INTEGER_MAX, PAGE_BYTES_MAX
from backscroll.schema.operations import GetRows
from backscroll.schema.replies import RowPage
from backscroll.schema.tables import CONTENT, InternalColumn, Json, Table

TAKE = take_within("sum(len(value) for value in row if isinstance(value, str))")


class TablePages:
    """The rows of one table, in pages, in the order of its key."""

    def __init__(self, table: type[Table]) -> None:
        meta: Any = table._meta
        shown = {name: field for name, field in meta.fields.items() if not isinstance(field, InternalColumn)}
        self._names = list(shown)
        self._documents = {name for name, field in shown.items() if isinstance(field, Json)}
        key = meta.primary_key.field_names if meta.composite_key else (meta.primary_key.name,)
        self._key_at = [self._names.index(name) for name in key]
        self._key_types = [int if isinstance(meta.fields[name], IntegerField) else str for name in key]
        columns = [meta.fields[name] for name in key]
        query = table.select(*shown.values()).order_by(*columns).limit(Named("limit"))
        bounds = [Named(f"after_{at}") for at in range(len(key))]
        self.select_all = statement(query)
        self.select_after = statement(query.where(Tuple(*columns) > Tuple(*bounds)))

    def page(self, after: list[Any] | None, limit: int, db: Reads) -> RowPage:
        """At most `limit` rows after a key, fewer if they are large; raises `Invalid` if `after` is not a key."""
        found = self._read(after, limit + 1, db)
        rows, more = found.rows[:limit], not found.complete or len(found.rows) > limit
        if found.size > PAGE_CHARS_SURE:
            _, end = page_of([len(to_json(row)) for row in rows])
            rows, more = rows[:end], more or end < len(rows)
        return RowPage(
            rows=[self._as_map(row) for row in rows],
            key=[self._names[at] for at in self._key_at],
            next=[rows[-1][at] for at in self._key_at] if more else None,
        )

    def _read(self, after: list[Any] | None, limit: int, db: Reads) -> RowsWithin:
        if after is None:
            return db.rows_within(PAGE_BYTES_MAX, TAKE, self.select_all, limit=limit)
        if not self._is_key(after):
            raise Invalid.at("$.payload.after", "not a key of this table; use the `next` of the previous page")
        bounds = {f"after_{at}": value for at, value in enumerate(after)}
        return db.rows_within(PAGE_BYTES_MAX, TAKE, self.select_after, limit=limit, **bounds)

    def _is_key(self, after: list[Any]) -> bool:
        if [type(value) for value in after] != self._key_types:
            return False
        return all(abs(value) <= INTEGER_MAX for value in after if isinstance(value, int))

    def _as_map(self, row: Row) -> dict[str, Any]:
        values = dict(zip(self._names, row, strict=True))
        for name in self._documents:
            if values[name] is not None:
                values[name] = _document(values[name])
        return values


PAGES = {table._meta.table_name: TablePages(table) for table in CONTENT}


@handles(GetRows)
def get_rows(query: GetRows, db: Reads) -> RowPage:
    pages = PAGES.get(query.table)
    if pages is None:
        raise NotFound.at("$.payload.table", f"there is no table {query.table!r}; the tables are: {', '.join(PAGES)}")
    clearing.check_removed(db.rows(clearing.SELECT_LAST_MARK)[0][0])
    return pages.page(query.after, query.limit, db)


def _document(text: str) -> Any:
    """The JSON value of a column; damaged JSON is returned as text."""
    try:
        return from_json(text)
    except msgspec.DecodeError:
        return text
