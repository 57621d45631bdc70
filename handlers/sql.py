"""SQL made once, when a module is imported, from peewee's expressions; and records to rows and back.

Building an ORM query costs many times what running the statement does, so no query is built per request:
`statement()` compiles one to text with named parameters, and handlers run that text.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import peewee

from backscroll.handlers.storage import Row
from backscroll.schema.records import Record
from backscroll.schema.tables import Flag, Json, Table

T = TypeVar("T", bound=Record)

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode


class Named(peewee.Node):
    """A value to be bound by name when the statement is run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __sql__(self, context: peewee.Context) -> peewee.Context:
        return context.literal(f":{self.name}")


class Positional(peewee.Node):
    """A value to be bound by its place among the values of a row, from 1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __sql__(self, context: peewee.Context) -> peewee.Context:
        return context.literal(f"?{self.number}")


def statement(query: peewee.BaseQuery) -> str:
    """The text of a query, in which every value is a named parameter."""
    text, values = query.sql()
    assert not values, f"{values} stand in the query itself: name them with Named"
    return str(text)


def one_of(column: peewee.Field, name: str) -> peewee.Expression:
    """`column` is one of the texts in the JSON list bound as `name`: one statement, however many there are."""
    return column.in_(peewee.SQL(f"(SELECT value FROM json_each(:{name}))"))


def insertion(table: type[Table], names: Iterable[str] | None = None) -> peewee.Insert:
    """The query that writes a row of values for these columns, or for all, in their order."""
    fields = table._meta.fields
    return table.insert({fields[name]: Positional(at) for at, name in enumerate(names or fields, start=1)})


class RowMapper(Generic[T]):
    """How the records of one type lie in one table; `parents` are columns before theirs that no record has."""

    def __init__(self, record_type: type[T], table: type[Table], parents: Sequence[str] = ()) -> None:
        self.table = table
        fields = table._meta.fields
        self.names = [name for name in record_type.__struct_fields__ if name in fields]
        self.columns = [fields[name] for name in self.names]
        self._parents = parents
        self._values = operator.attrgetter(*self.names)
        self._documents = [at for at, column in enumerate(self.columns) if isinstance(column, Json)]
        self._construct = _constructor(record_type, dict(zip(self.names, self.columns, strict=True)))

    def insert(self) -> peewee.Insert:
        """The query that writes a row of `to_row`, whose values it takes by their place."""
        return insertion(self.table, [*self._parents, *self.names])

    def upsert(self, *, unless: peewee.Expression | None = None) -> str:
        """The statement that writes a whole row: new, or over the one with the same key, `unless` that holds."""
        table: Any = self.table._meta
        key = table.primary_key.field_names if table.composite_key else (table.primary_key.name,)
        return statement(
            self.insert().on_conflict(
                conflict_target=[table.fields[name] for name in key],
                preserve=[column for name, column in zip(self.names, self.columns, strict=True) if name not in key],
                where=None if unless is None else ~unless,
            )
        )

    def to_row(self, record: T, *parents: Any) -> Sequence[Any]:
        """The values of a record's columns, in their order, after those of its parents."""
        values: Sequence[Any] = self._values(record)
        if self._documents:
            values = list(values)
            for at in self._documents:
                if values[at] is not None:
                    values[at] = to_json(values[at]).decode()
        return (*parents, *values) if parents else values

    def to_record(self, row: Row, **children: Any) -> T:
        """The record of a row of `columns`, with its child lists."""
        return self._construct(row, **children)


def _constructor(record_type: type[T], columns: Mapping[str, peewee.Field]) -> Callable[..., T]:
    """A function from a row to its record, in which every field is written out: it runs for each row that is read.

    It is compiled from text, as the standard library does for dataclasses and named tuples; a loop over the fields
    takes twice as long.
    """
    arguments = ", ".join(f"{name}={_reading(column, at)}" for at, (name, column) in enumerate(columns.items()))
    names = {"record": record_type, "from_json": from_json}
    construct: Callable[..., T] = eval(f"lambda row, **children: record({arguments}, **children)", names)
    return construct


def _reading(column: peewee.Field, at: int) -> str:
    """The expression for a field's value, from the column in this place."""
    if isinstance(column, Flag):
        return f"None if row[{at}] is None else row[{at}] != 0"
    if isinstance(column, Json):
        return f"None if row[{at}] is None else from_json(row[{at}])"
    return f"row[{at}]"


def changes(updates: Record) -> dict[str, Any]:
    """The fields that an `…Updates` record sets or clears; those it leaves alone are missing."""
    values = ((name, getattr(updates, name)) for name in updates.__struct_fields__)
    return {name: value for name, value in values if value is not msgspec.UNSET}
