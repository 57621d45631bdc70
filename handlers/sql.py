"""SQL statements, built from peewee expressions when modules are imported, and the mapping of records to rows.

Building a query with peewee takes many times longer than running it, so no query is built per request: a `Statement` is
compiled for its dialect when a store opens, and handlers run the text. Where dialects differ, this module has the words
of each (`InDialect`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import peewee

from backscroll.schema import limits
from backscroll.schema.errors import Conflict, TooLarge
from backscroll.schema.limits import ITEM_BYTES_MAX, TEXT_BYTES_MAX
from backscroll.schema.records import Record, StoredRecord
from backscroll.schema.size_probe import plain, present
from backscroll.schema.tables import Count, Flag, Json, OptionalKey, Table, Time

T = TypeVar("T", bound=Record)

Row = tuple[Any, ...]

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode


class RowsWithin(NamedTuple):
    """The first rows of a SELECT, the sum of their sizes, and whether there are no more."""

    rows: list[Row]
    size: int
    complete: bool


TakeWithin = Callable[[Iterable[Row], int], RowsWithin]
"""Takes rows, as many as together have at most this size, but at least one."""

JSON_BYTES_PER_CHAR = 6
"""The most that a character takes in JSON: a control character is escaped as `\\u0001`."""
ROW_BYTES = 30
"""What a row takes in a reply besides its texts, at least."""
ITEM_CHARS_SURE = ITEM_BYTES_MAX // JSON_BYTES_PER_CHAR - 64 * 1024  # the rest is for ids, names and numbers


class InDialect(peewee.ColumnBase):
    """SQL that each dialect has other words for."""

    def __init__(self, sqlite: peewee.Node, postgresql: peewee.Node) -> None:
        super().__init__()
        self._sqlite, self._postgresql = sqlite, postgresql

    def __sql__(self, context: Any) -> Any:
        return context.sql(self._postgresql if context.state.dialect == "postgresql" else self._sqlite)


EMPTY_BLOB: Final = InDialect(peewee.SQL("x''"), peewee.SQL("''::bytea"))


class Named(peewee.Node):
    """A parameter that is bound by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __sql__(self, context: peewee.Context) -> peewee.Context:
        return context.literal(f":{self.name}")


class Positional(peewee.Node):
    """A parameter that is bound by its position in a row of values, from 1."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __sql__(self, context: peewee.Context) -> peewee.Context:
        return context.literal(f"?{self.number}")


_COLUMN_TYPES: tuple[tuple[type[peewee.Field], Any], ...] = (
    (peewee.TextField, str),
    (Time, limits.Millis),
    (Count, limits.Count),
    (peewee.IntegerField, limits.Integer),
    (peewee.BlobField, bytes),
)


def _rows_type(query: peewee.BaseQuery) -> Any:
    """The type `Statement.rows_type`; what is computed may have any type."""
    while isinstance(query, peewee.CompoundSelectQuery):
        query = query.lhs
    sources = getattr(query, "_from_list", None) or ()
    may_miss = any(isinstance(each, peewee.Join) and "LEFT" in each.join_type for each in sources)
    columns = getattr(query, "_returning", None) or ()
    return rows_type(tuple.__class_getitem__(tuple(_column_type(column, may_miss) for column in columns)))


def rows_type(row_type: Any) -> Any:
    """An array-like struct of one field, `rows`. It is a type of its own, because msgspec prepares such types once."""
    return msgspec.defstruct("Rows", [("rows", list[row_type])], array_like=True)


class Guarded(peewee.WrappedNode):
    """A column that is never NULL, and read as NULL unless `is_whole`: then the row does not fit its type.

    A long row is in several pages. If the last of them is zeros, which have the right checksum, it is taken for the end
    of the row. So `is_whole` asks whether the last column of the table, which never is zeros, has a value.
    """

    def __init__(self, column: peewee.Field, is_whole: peewee.Node) -> None:
        super().__init__(InDialect(peewee.Case(None, [(is_whole, column)]), column))
        self.column = column

    def __sql__(self, ctx: Any) -> Any:
        return ctx.sql(self.node)


class Packed(peewee.WrappedNode):
    """Columns that are selected as one text, which may be long."""

    column: Final = peewee.TextField(null=True)

    def __sql__(self, ctx: Any) -> Any:
        return ctx.sql(self.node)


def _column_type(column: Any, may_miss: bool) -> Any:
    """The type of the values of a selected column; `may_miss`: a row of a joined table may be missing."""
    if isinstance(column, Guarded):
        column = column.column
    if not isinstance(column, peewee.Field):
        return Any
    held = next(held for field, held in _COLUMN_TYPES if isinstance(column, field))
    return held | None if column.null or may_miss else held


class Statement:
    """A query without literal values, to be compiled for the dialect of a store.

    `rows_type` has the types of its columns, which a store compares with the rows that it read: SQLite checks types
    only when it writes, so a damaged page may have any.
    """

    def __init__(self, query: peewee.BaseQuery) -> None:
        self.query = query
        self.rows_type = _rows_type(query)

    def compiled(self, dialect: peewee.Database) -> str:
        """The SQL text of the query in this dialect."""
        context: Any = dialect.get_sql_context()
        text, values = context.sql(self.query).query()
        assert not values, f"the query contains the literal values {values}: bind them with Named"
        return str(text)


STATEMENTS: list[Statement] = []
"""All statements of the handlers; a store compiles them when it opens."""


def statement(query: peewee.BaseQuery) -> Statement:
    """Register the statement of a query in which every value is a `Named` or `Positional` parameter."""
    made = Statement(query)
    STATEMENTS.append(made)
    return made


def one_of(column: peewee.Field, name: str) -> InDialect:
    """`column` is one of the strings in the JSON list bound to `name`: one statement for any number of strings."""
    elements = peewee.fn.jsonb_array_elements_text(peewee.Cast(Named(name), "jsonb"))
    return InDialect(
        column.in_(peewee.SQL(f"(SELECT value FROM json_each(:{name}))")),
        peewee.Expression(
            column, "=", peewee.fn.ANY(peewee.fn.ARRAY(peewee.NodeList((peewee.SQL("SELECT"), elements))))
        ),
    )


def is_long_text(column: peewee.Field, name: str) -> InDialect:
    """`column` equals the text bound to `name`; in PostgreSQL a column beside it has the hash, which fits an index."""
    is_equal = column == Named(name)
    hashed = peewee.SQL(f"{column.column_name}_hash")
    wanted = peewee.fn.hashtextextended(Named(name), peewee.SQL("0"))
    return InDialect(is_equal, peewee.Expression(hashed, "=", wanted) & is_equal)


def unindexed(column: peewee.Field) -> InDialect:
    """`column` in a condition for which no index is used, because another condition selects fewer rows."""
    return InDialect(peewee.NodeList((peewee.SQL("+"), column)), column)


def is_unset(column: peewee.Field) -> InDialect:
    """`column` has no value. Called unlikely, or SQLite searches by the key alone and reads all rows that have one."""
    return InDialect(peewee.fn.unlikely(column.is_null()), column.is_null())


def typed(parameter: peewee.Node, type_name: str) -> InDialect:
    """A parameter whose type cannot be seen from where it is used, with that type."""
    return InDialect(parameter, peewee.Cast(parameter, type_name))


def as_number(condition: peewee.Expression) -> InDialect:
    """1 where a condition is true, 0 where it is not."""
    return InDialect(condition, peewee.Cast(condition, "integer"))


Expressions = Mapping[str, Callable[[peewee.Node], peewee.Node]]
"""By the names of columns: the expression of what is written for a value."""


def insertion(
    table: type[Table], names: Iterable[str] | None = None, expressions: Expressions | None = None
) -> peewee.Insert:
    """The query that inserts a row of values for these columns, by default for all, in order."""
    fields = table._meta.fields
    values: dict[str, peewee.Node] = {name: Positional(at) for at, name in enumerate(names or fields, start=1)}
    for name, expression in (expressions or {}).items():
        values[name] = expression(values[name])
    return table.insert({fields[name]: value for name, value in values.items()})


class RowMapper(Generic[T]):
    """Maps records of one type to rows of a table.

    `parents` are leading columns that are not fields of the record; `elsewhere` are fields of the record that are
    not columns of this table. Raises `TypeError` for any other field without a column, because it would be lost.
    `expressions` are of columns whose values are not written as they are.

    `rare` are columns that are NULL or 0 in most rows, and come last; the column `rare_flag` is 1 in the others.
    Reading an unset column takes time too: so they are read as one column, a JSON array, which is NULL in most rows.

    `guarded` is a column that is selected as `Guarded`.
    """

    def __init__(
        self,
        record_type: type[T],
        table: type[Table],
        parents: Sequence[str] = (),
        *,
        elsewhere: Sequence[str] = (),
        rare: Sequence[str] = (),
        rare_flag: str = "",
        expressions: Expressions | None = None,
        guarded: Guarded | None = None,
    ) -> None:
        self.table = table
        self._expressions = expressions
        fields = table._meta.fields
        stored = [name for name in record_type.__struct_fields__ if name in fields]
        self.names = [*(name for name in stored if name not in rare), *(name for name in stored if name in rare)]
        """The columns that are fields of the record; the positions in a row that was read, up to the rare ones."""
        self.written = [*self.names, *([rare_flag] if rare else [])]
        """The columns of a row from `to_row`, after the parents."""
        lost = set(record_type.__struct_fields__) - {*self.names, *elsewhere, "damaged"}
        if lost:
            missing = f"{record_type.__name__}.{min(lost)}"
            raise TypeError(f"{table.__name__} has no column for {missing}; add one, with a migration")
        self.fields = [fields[name] for name in self.names]
        """The columns of `names`, each by itself."""
        self._common = len(self.names) - len(rare)
        self.columns: list[Any] = self.fields[: self._common]
        """What to select, for `to_record`."""
        if guarded:
            self.columns[self.names.index(guarded.column.name)] = guarded
        if rare:
            values = self.fields[self._common :]
            packed = InDialect(peewee.fn.json_array(*values), peewee.fn.json_build_array(*values).cast("text"))
            self.columns.append(Packed(peewee.Case(None, [(fields[rare_flag] == peewee.SQL("1"), packed)])))
        self._parents = parents
        hints = get_type_hints(record_type, include_extras=True)
        documents = {at: name for at, name in enumerate(self.names) if isinstance(fields[name], Json)}
        self._documents = {at: _decoder(hints[name]) for at, name in documents.items()}
        self._wire_names = dict(zip(record_type.__struct_fields__, record_type.__struct_encode_fields__, strict=True))
        columns = dict(zip(self.names, self.fields, strict=True))
        long = [at for at, name in enumerate(self.names) if isinstance(fields[name], Json) or _is_long(hints[name])]
        texts = [at for at, name in enumerate(self.names) if isinstance(fields[name], peewee.TextField)]
        self.take_by_long_size = take_within(self._size_source(long))
        """Takes rows by the number of characters in their long texts."""
        self.take_by_size = take_within(f"{ROW_BYTES} + {self._size_source(texts, len(parents))}")
        """Takes rows, parent columns first, by the number of characters in all their texts."""
        self.size: Callable[[Row], int] = eval(f"lambda row: {self._size_source(texts)}")
        """The number of characters in a row's texts, ids included."""
        too_large = f"{_size_source(at + len(parents) for at in long)} > {ITEM_CHARS_SURE}"
        flag = " or ".join(f"record.{name} {'is not None' if fields[name].null else '!= 0'}" for name in rare)
        self.to_row = _row_maker(columns, parents, flag, too_large, self._checked_row)
        """`to_row(record, *parents)`: the values of the parent columns, then those of `written`.

        Raises `TooLarge` for a record that would not fit into a reply.
        """
        self._construct_whole = _constructor(record_type, columns, self._documents)
        self._construct = self._construct_whole
        if rare:
            common = dict(zip(self.names[: self._common], self.fields, strict=False))
            self._construct = _constructor(record_type, common, self._documents, unless=self._construct_rare)

    def insert(self, *more: str) -> peewee.Insert:
        """The query that inserts a row from `to_row`, with positional parameters.

        `more` are columns whose values follow those of the row.
        """
        return insertion(self.table, [*self._parents, *self.written, *more], self._expressions)

    def upsert(
        self, *more: str, unless: peewee.Expression | None = None, clears: Sequence[peewee.Field] = ()
    ) -> Statement:
        """The statement that inserts a row from `to_row` or overwrites the one with its key, `unless` this is true.

        `more` is as in `insert`. A row that is overwritten loses what is in `clears`.
        """
        table: Any = self.table._meta
        key = table.primary_key.field_names if table.composite_key else (table.primary_key.name,)
        return statement(
            self.insert(*more).on_conflict(
                conflict_target=[table.fields[name] for name in key],
                preserve=[table.fields[name] for name in (*self.written, *more) if name not in key],
                update={column: peewee.SQL("NULL") for column in clears},
                where=None if unless is None else ~unless,
            )
        )

    def to_record(self, row: Row, **children: Any) -> T:
        """The record of a row of `columns`, with its child lists. Columns with damaged JSON are named in `damaged`."""
        try:
            return self._construct(row, **children)
        except msgspec.DecodeError:
            return self._construct_damaged(row, children)

    def to_records(self, rows: Sequence[Row], child: str = "", lists: Sequence[Any] = ()) -> list[T]:
        """The records of rows. If `child` is given, each gets its list from `lists` in this field."""
        construct = self._construct
        try:
            if child:
                return [construct(row, **{child: own}) for row, own in zip(rows, lists, strict=True)]
            return [construct(row) for row in rows]
        except msgspec.DecodeError:  # one of them is damaged
            children: Sequence[dict[str, Any]] = [{child: own} for own in lists] or [{}] * len(rows)
            return [self.to_record(row, **own) for row, own in zip(rows, children, strict=True)]

    def _has_rare(self, row: Row) -> bool:
        return self._common < len(self.names) and row[self._common] is not None

    def _unpacked(self, row: Row) -> Row:
        """A row that has rare columns with each of them in its place."""
        return (*row[: self._common], *from_json(row[self._common]))

    def _construct_rare(self, row: Row, **children: Any) -> T:
        """The record of a row that has rare columns."""
        return self._construct_whole(self._unpacked(row), **children)

    def _size_source(self, positions: Iterable[int], parents: int = 0) -> str:
        """The source text of the number of characters in these columns of a `row` that was read."""
        return _size_source(dict.fromkeys(min(at, self._common) + parents for at in positions))

    def json_size(self, row: Row) -> int:
        """The number of bytes in JSON of the texts of a row of `columns`."""
        common = _json_size(self.fields[: self._common], row)
        return common + len(row[self._common].encode()) if self._has_rare(row) else common

    def json_size_of(self, row: Row) -> int:
        """The same for a row of `fields`."""
        return _json_size(self.fields, row)

    def _checked_row(self, record: T, row: Row) -> Row:
        """The row from `to_row`; raises `TooLarge` if the record is too large in JSON."""
        size = self.json_size_of(row[len(self._parents) :])
        if size > ITEM_BYTES_MAX:
            name = " ".join([type(record).__name__, *(repr(getattr(record, key)) for key in record.KEY)])
            raise TooLarge.at("$.payload", f"{name} would have {size} bytes in JSON; the limit is {ITEM_BYTES_MAX}")
        return row

    def _construct_damaged(self, row: Row, children: dict[str, Any]) -> T:
        """The record without its damaged JSON columns, so that one damaged row does not hide all others."""
        has_rare = self._has_rare(row)
        values = list(self._unpacked(row) if has_rare else row)
        documents = {at: decode for at, decode in self._documents.items() if has_rare or at < self._common}
        damaged = [
            at for at, decode in documents.items() if values[at] is not None and not _is_valid(values[at], decode)
        ]
        for at in damaged:
            values[at] = None
        construct = self._construct_whole if has_rare else self._construct
        return construct(tuple(values), damaged=[self._wire_names[self.names[at]] for at in damaged], **children)


def _size_source(positions: Iterable[int]) -> str:
    """The source text of the number of characters in these columns of `row`."""
    return " + ".join(f"(len(text) if (text := row[{at}]) else 0)" for at in positions) or "0"


def _json_size(columns: Sequence[peewee.Field], row: Row) -> int:
    """The number of bytes of the texts in these columns in JSON."""
    texts = ((column, value) for column, value in zip(columns, row, strict=False) if isinstance(value, str))
    return sum(len(value.encode() if isinstance(column, Json) else to_json(value)) for column, value in texts)


def take_within(size: str) -> TakeWithin:
    """A function that takes rows whose size is this expression of `row`; compiled because it runs for every row."""
    names: dict[str, Any] = {"RowsWithin": RowsWithin}
    lines = [
        "def take(rows, size_max):",
        " taken, total = [], 0",
        " take_one = taken.append",
        " for row in rows:",
        f"  total += (size := {size})",
        "  if total > size_max and taken:",
        "   return RowsWithin(taken, total - size, False)",
        "  take_one(row)",
        " return RowsWithin(taken, total, True)",
    ]
    exec("\n".join(lines), names)
    take: TakeWithin = names["take"]
    return take


def _is_long(hint: Any) -> bool:
    """Whether an annotation is of a text that may be longer than an id."""
    hint = present(hint)
    return get_origin(hint) is Annotated and any(
        isinstance(each, msgspec.Meta) and each.max_length == TEXT_BYTES_MAX for each in get_args(hint)[1:]
    )


def _is_valid(text: str, decode: Callable[[str], Any]) -> bool:
    try:
        decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _decoder(hint: Any) -> Callable[[str], Any]:
    """The decoder for the JSON of a field: JSON of another kind than the field's type is damaged too."""
    kind = plain(hint)
    if get_origin(kind) is list:
        kind = list[plain(get_args(kind)[0])]  # type: ignore[misc]  # made at run time
    return msgspec.json.Decoder(kind).decode


def _constructor(
    record_type: type[T],
    columns: Mapping[str, peewee.Field],
    documents: Mapping[int, Callable[[str], Any]],
    unless: Callable[..., T] | None = None,
) -> Callable[..., T]:
    """A function that constructs a record from a row, with every field written out; it runs for every row read.

    `unless` constructs the record of a row that has another column after these, which is set. It is compiled from
    source text, as the standard library does for dataclasses and named tuples, because a loop over the fields takes
    twice as long.
    """
    arguments = ", ".join(f"{name}={_reading(column, at)}" for at, (name, column) in enumerate(columns.items()))
    names: dict[str, Any] = {f"decode_{at}": decode for at, decode in documents.items()} | {"record": record_type}
    source = f"record({arguments}, **children)"
    if unless is not None:
        names["unless"] = unless
        source = f"{source} if row[{len(columns)}] is None else unless(row, **children)"
    construct: Callable[..., T] = eval(f"lambda row, **children: {source}", names)
    return construct


def _row_maker(
    columns: Mapping[str, peewee.Field],
    parents: Sequence[str],
    flag: str,
    too_large: str,
    checked: Callable[[Any, Row], Row],
) -> Callable[..., tuple[Any, ...]]:
    """A function that makes a row from a record and the values of its parent columns; compiled like `_constructor`.

    Its last value is whether the expression `flag` is true, if there is one. A row for which the expression `too_large`
    is true is passed through `checked`.
    """
    values = ", ".join(_writing(column, name) for name, column in columns.items())
    arguments = ", ".join(["record", *parents])
    row = ", ".join([*parents, values, *([f"1 if {flag} else 0"] if flag else [])])
    source = f"lambda {arguments}: checked(record, row) if (row := ({row},)) and {too_large} else row"
    make: Callable[..., tuple[Any, ...]] = eval(source, {"to_json": to_json, "checked": checked})
    return make


def _writing(column: peewee.Field, name: str) -> str:
    """The source text of the expression for a column's value."""
    if isinstance(column, Json):
        return f"None if record.{name} is None else to_json(record.{name}).decode()"
    if isinstance(column, OptionalKey):
        return f"record.{name} or ''"
    return f"record.{name}"


def _reading(column: peewee.Field, at: int) -> str:
    """The source text of the expression for a field's value, read from the column at this position."""
    if isinstance(column, Flag):
        return f"None if row[{at}] is None else row[{at}] != 0"
    if isinstance(column, Json):
        return f"None if row[{at}] is None else decode_{at}(row[{at}])"
    if isinstance(column, OptionalKey):
        return f"row[{at}] or None"
    return f"row[{at}]"


def field_changes(updates: Record, stored: StoredRecord) -> dict[str, Any]:
    """The fields that an `…Updates` record sets or clears in a stored record, by name; None clears a field.

    Raises `Conflict` if another field is damaged, because writing the record again would lose what is left of its text.
    """
    values = ((name, getattr(updates, name)) for name in updates.__struct_fields__)
    changes = {name: value for name, value in values if value is not msgspec.UNSET}
    if stored.damaged:
        wire_names = dict(zip(updates.__struct_fields__, updates.__struct_encode_fields__, strict=True))
        for name in sorted(set(stored.damaged) - {wire_names[each] for each in changes}):
            raise Conflict.at(
                "$.payload.updates", f"the stored {name!r} is damaged; set or clear it in the same update"
            )
    return changes
