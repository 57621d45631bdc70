"""Lists in their total order, whole or from a position on, read row by row while they are encoded."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, TypeVar

import peewee
from peewee import IntegerField, Tuple

from backscroll.handlers.sql import JSON_BYTES_PER_CHAR, Named, Row, Statement, is_unset, statement
from backscroll.handlers.storage import Reads
from backscroll.schema.limits import INTEGER_MAX, PAGE_BYTES_MAX
from backscroll.schema.records import Record

T = TypeVar("T")

ALL = 2**63 - 1  # the greatest number of both dialects
"""As a LIMIT: no limit."""

PAGE_CHARS_SURE = PAGE_BYTES_MAX // JSON_BYTES_PER_CHAR
"""So many characters fit into a page, whatever they are."""


def page_of(sizes: Sequence[int], near: int = 0) -> tuple[int, int]:
    """The range of items that together have at most `PAGE_BYTES_MAX`, at least the one at `near`."""
    start, end, total = 0, len(sizes), sum(sizes)
    while total > PAGE_BYTES_MAX and end - start > 1:
        if near - start > end - 1 - near:
            total -= sizes[start]
            start += 1
        else:
            end -= 1
            total -= sizes[end]
    return start, end


class Items(NamedTuple, Generic[T]):
    """A result that is a list: its items are read while the reply is encoded, and only as many as fit into it.

    `is_page`: if they do not all fit, the list ends before the one that does not. Otherwise that is an error.
    """

    items: Iterator[T]
    is_page: bool


class OrderedRows:
    """The rows of a query in a total order, from a position on. `order` are the columns, the last of them the key.

    An unset value in the first column comes first, and is not comparable in SQL, so it has a statement of its own.
    """

    def __init__(self, query: Any, order: Sequence[peewee.Field]) -> None:
        first, *others = order
        self._start = {field.name: -INTEGER_MAX - 1 if isinstance(field, IntegerField) else "" for field in order}
        self.select_set = self._statement(query, order, order)
        self.select_unset: Statement | None = None
        if first.null:
            self.select_unset = self._statement(query.where(is_unset(first)), others, order)

    def read(self, db: Reads, after: Record | None, limit: int | None, **values: Any) -> Iterator[Row]:
        """At most `limit` rows after a position, from the first if it is None; `values` are those of the query."""
        number = ALL if limit is None else limit
        bounds = {f"after_{name}": self._bound(name, after) for name in self._start}
        found: Iterator[Row] = db.each(self.select_set, limit=number, **bounds, **values)
        first = next(iter(self._start))
        if self.select_unset is not None and (after is None or getattr(after, first) is None):
            found = chain(db.each(self.select_unset, limit=number, **bounds, **values), found)
        return islice(found, limit)

    def _bound(self, name: str, after: Record | None) -> Any:
        value = None if after is None else getattr(after, name)
        return self._start[name] if value is None else value

    def _statement(self, query: Any, compared: Sequence[peewee.Field], order: Sequence[peewee.Field]) -> Statement:
        bounds = [Named(f"after_{field.name}") for field in compared]
        beyond = Tuple(*compared) > Tuple(*bounds) if len(compared) > 1 else compared[0] > bounds[0]
        return statement(query.where(beyond).order_by(*order).limit(Named("limit")))
