"""SQL made once, when a module is imported, from peewee's expressions; and records to rows and back.

Building an ORM query costs many times what running the statement does, so no query is built per request:
`statement()` compiles one to text with named parameters, and handlers run that text.
"""

from typing import Any, Generic, TypeVar

import msgspec
import peewee

from backscroll.handlers.database import Row
from backscroll.schema.records import Record
from backscroll.schema.tables import Flag, Json, Table

T = TypeVar("T", bound=Record)

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode


class Param(peewee.Node):
    """A value to be bound by name when the statement is run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __sql__(self, context: peewee.Context) -> peewee.Context:
        return context.literal(f":{self.name}")


def statement(query: peewee.BaseQuery) -> str:
    """The text of a query, in which every value is a named parameter."""
    text, values = query.sql()
    assert not values, f"{values} stand in the query itself: name them with Param"
    return str(text)


def one_of(column: peewee.Field, name: str) -> peewee.Expression:
    """`column` is one of the texts in the JSON list bound as `name`: one statement, however many there are."""
    return column.in_(peewee.SQL(f"(SELECT value FROM json_each(:{name}))"))


class Rows(Generic[T]):
    """How the records of one type lie in one table."""

    def __init__(self, record_type: type[T], table: type[Table]) -> None:
        self.record_type = record_type
        self.table = table
        fields = table._meta.fields
        self.names = [name for name in record_type.__struct_fields__ if name in fields]
        self.columns = [fields[name] for name in self.names]
        self._flags = [name for name in self.names if isinstance(fields[name], Flag)]
        self._documents = [name for name in self.names if isinstance(fields[name], Json)]

    def upsert(self, *, unless: peewee.Expression | None = None) -> str:
        """The statement that writes a whole row: new, or over the one with the same key, `unless` that holds."""
        table: Any = self.table._meta
        key = table.primary_key.field_names if table.composite_key else (table.primary_key.name,)
        insert = self.table.insert({field: Param(name) for name, field in table.fields.items()})
        return statement(
            insert.on_conflict(
                conflict_target=[table.fields[name] for name in key],
                preserve=[field for name, field in table.fields.items() if name not in key],
                where=None if unless is None else ~unless,
            )
        )

    def to_row(self, record: T) -> dict[str, Any]:
        """The values of a record's columns, by name."""
        values = {name: getattr(record, name) for name in self.names}
        for name in self._documents:
            if values[name] is not None:
                values[name] = to_json(values[name]).decode()
        return values

    def to_record(self, row: Row, **children: Any) -> T:
        """The record of a row of `columns`, with its child lists."""
        values = dict(zip(self.names, row, strict=True))
        for name in self._flags:
            if values[name] is not None:
                values[name] = bool(values[name])
        for name in self._documents:
            if values[name] is not None:
                values[name] = from_json(values[name])
        return self.record_type(**values, **children)


def changes(updates: Record) -> dict[str, Any]:
    """The fields that an `…Updates` record sets or clears; those it leaves alone are missing."""
    values = ((name, getattr(updates, name)) for name in updates.__struct_fields__)
    return {name: value for name, value in values if value is not msgspec.UNSET}
