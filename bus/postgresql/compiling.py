"""The handlers' statements as SQL text for PostgreSQL, each limited to one scope.

All scopes are in the same tables, and `scope` is the first column of every key. Handlers know nothing of it: when a
statement is compiled, each table in it gets the condition `scope = $1`, and each inserted row the value, wherever in
the statement they are. So no statement can forget it, and none touches two scopes. (Row-level security in the database
guards the same once more.)
"""

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Final, NamedTuple

import peewee

from backscroll.handlers.sql import STATEMENTS, Named, Positional, Statement

SCOPE: Final = "scope"
LONG_BYTES: Final = 4096  # a column with more is one of long texts: ids have at most 512, other texts are shorter
NAMED_AFTER: Final = 1  # parameters before the first one of a statement: the scope


class Compiled(NamedTuple):
    """The text of a statement, and the names of its parameters `$2`, `$3` … (`$1` is the scope).

    A statement with positional parameters has no names.
    """

    text: str
    names: tuple[str, ...]

    def values(self, scope: str, named: dict[str, Any]) -> list[Any]:
        """What to bind, given the values by name."""
        return [scope, *(named[name] for name in self.names)]


class ScopedContext(peewee.Context):
    """Writes SQL, and adds the scope to every query while it does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.names: list[str] = []

    def sql(self, obj: Any) -> Any:
        if isinstance(obj, Named):
            return self.literal(f"${self._number(obj.name)}")
        if isinstance(obj, Positional):
            return self.literal(f"${obj.number + NAMED_AFTER}")
        for kind, scoped in SCOPED:
            if isinstance(obj, kind):
                return scoped(obj).__sql__(self)
        return super().sql(obj)  # type: ignore[no-untyped-call]

    def _number(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + NAMED_AFTER + 1


def _scoped_select(query: Any) -> Any:
    scoped = query.clone()
    for source in query._from_list:
        scoped._where = _and(scoped._where, *_outer_conditions(source))
    if query._order_by:
        scoped._order_by = tuple(_nulls_first(each) for each in query._order_by)
    return scoped


def _outer_conditions(source: Any) -> Iterator[Any]:
    """The conditions on the tables of a FROM that belong into the WHERE: those of joins with ON are in there."""
    if not isinstance(source, peewee.Join):
        yield _of_scope(source)
        return
    join: Any = source
    yield from _outer_conditions(join.lhs)
    if join._on is None:
        yield _of_scope(join.rhs)


def _scoped_join(join: Any) -> Any:
    scoped = copy(join)
    if join._on is not None:
        scoped._on = _and(join._on, _of_scope(join.rhs))
    return scoped


def _scoped_change(query: Any) -> Any:
    scoped = query.clone()
    scoped._where = _and(query._where, _of_scope(query.table))
    return scoped


class ScopedDialect(peewee.PostgresqlDatabase):
    """PostgreSQL's SQL with the scope in every query. Never opened."""

    context_class = ScopedContext

    def get_context_options(self) -> dict[str, Any]:
        options: dict[str, Any] = super().get_context_options()
        return options | {"dialect": "postgresql"}


DIALECT: Final = ScopedDialect(None)
IS_SCOPE: Final = peewee.SQL("$1")


class CompiledStatements(dict[Statement, Compiled]):
    """The text of each statement; one that is not compiled yet is compiled when it is first used."""

    def compile_all(self) -> None:
        for statement in STATEMENTS:
            self[statement]

    def __missing__(self, statement: Statement) -> Compiled:
        compiled = self[statement] = compiled_for_scope(statement.query)
        return compiled


def compiled_for_scope(query: peewee.BaseQuery) -> Compiled:
    """The text of a query with the scope in every part of it."""
    context: Any = DIALECT.get_sql_context()
    text, values = context.sql(query).query()
    assert not values, f"the query contains the literal values {values}: bind them with Named"
    return Compiled(text, tuple(context.names))


COMPILED = CompiledStatements()


class StatementsWithin(dict[Statement, Compiled]):
    """The text of SELECTs that end when their rows have more characters than fit: then no more are sent.

    The row with which the sum of long texts exceeds the parameter `size_max` is the last one. If that is the first,
    the second comes too, so that it is seen whether there is one.
    """

    def __missing__(self, statement: Statement) -> Compiled:
        names, rows, sized = _sized(statement, "length", peewee.TextField)
        where = f"WHERE total - size <= ${len(names) + NAMED_AFTER + 1}::bigint OR number = 2"
        within = f"SELECT {rows} FROM ({_summed(sized)}) AS t {where}"
        compiled = self[statement] = Compiled(within, (*names, "size_max"))
        return compiled


class StatementsBegun(dict[Statement, Compiled]):
    """The text of SELECTs that end after a number of rows, or of bytes in long values: `rows_max` and `bytes_max`.

    A last column says whether it was that row with which the bytes were exceeded.
    """

    def __missing__(self, statement: Statement) -> Compiled:
        names, rows, sized = _sized(statement, "octet_length", peewee.TextField, peewee.BlobField)
        bytes_max, rows_max = (f"${len(names) + NAMED_AFTER + at}::bigint" for at in (1, 2))
        summed = _summed(f"{sized} LIMIT {rows_max}")  # in there: the sum is over all rows, however many are returned
        begun = f"SELECT {rows}, total > {bytes_max} FROM ({summed}) AS t WHERE total - size <= {bytes_max}"
        compiled = self[statement] = Compiled(begun, (*names, "bytes_max", "rows_max"))
        return compiled


class StatementsSizes(dict[Statement, Compiled]):
    """The text of SELECTs that return, in place of each row, the bytes in its long values."""

    def __missing__(self, statement: Statement) -> Compiled:
        names, _, sized = _sized(statement, "octet_length", peewee.TextField, peewee.BlobField)
        compiled = self[statement] = Compiled(f"SELECT size FROM ({sized}) AS s", names)
        return compiled


def _sized(statement: Statement, length: str, *long_types: type[peewee.Field]) -> tuple[tuple[str, ...], str, str]:
    """The names and columns of a SELECT, and its text with the size of long values in each row."""
    text, names = COMPILED[statement]
    query: Any = statement.query
    columns = query.selected_columns
    rows = ", ".join(f"c{at}" for at in range(len(columns)))
    long = [at for at, column in enumerate(columns) if isinstance(_column(column), long_types)]
    size = " + ".join(f"CASE WHEN octet_length(c{at}) > {LONG_BYTES} THEN {length}(c{at}) ELSE 0 END" for at in long)
    return names, rows, f"SELECT *, {size or '0'} AS size FROM ({text}) AS r ({rows})"


def _summed(sized: str) -> str:
    """The text with these sizes added up to each row, and its number."""
    summed = "sum(size) OVER (ROWS UNBOUNDED PRECEDING) AS total, row_number() OVER () AS number"
    return f"SELECT *, {summed} FROM ({sized}) AS s"


WITHIN, BEGUN, SIZES = StatementsWithin(), StatementsBegun(), StatementsSizes()


def _column(selected: Any) -> Any:
    return getattr(selected, "column", selected) if not isinstance(selected, peewee.Field) else selected


def _scoped_insert(query: Any) -> Any:
    scoped = query.clone()
    column = _scope_column(query.table)
    if isinstance(query._insert, dict):
        scoped._columns = [column, *query._insert]
        scoped._insert = [{column: IS_SCOPE, **query._insert}]
    else:
        scoped._columns = [column, *query._columns]
        selected = query._insert.clone()
        selected._returning = (IS_SCOPE, *query._insert._returning)
        scoped._insert = selected
    conflict = query._on_conflict
    if conflict is not None and conflict._conflict_target:
        scoped._on_conflict = copy(conflict)
        scoped._on_conflict._conflict_target = [SCOPE, *conflict._conflict_target]
    return scoped


def _scope_column(source: Any) -> Any:
    return peewee.Column(source if isinstance(source, peewee.ModelAlias) else source._meta.table, SCOPE)


def _of_scope(source: Any) -> Any:
    return peewee.Expression(_scope_column(source), "=", IS_SCOPE)


def _and(*conditions: Any) -> Any:
    combined: Any = None
    for condition in conditions:
        if condition is not None:
            combined = condition if combined is None else combined & condition
    return combined


def _nulls_first(order: Any) -> Any:
    """What is ordered by, with the unset ones first, as in SQLite."""
    ordering = order if isinstance(order, peewee.Ordering) else peewee.Ordering(order, "ASC")
    if not getattr(ordering.node, "null", False):
        return order
    return peewee.Ordering(ordering.node, ordering.direction, nulls="first" if ordering.direction == "ASC" else "last")


SCOPED: Final[tuple[tuple[type[Any], Callable[[Any], Any]], ...]] = (
    (peewee.Select, _scoped_select),
    (peewee.Join, _scoped_join),
    (peewee.Update, _scoped_change),
    (peewee.Delete, _scoped_change),
    (peewee.Insert, _scoped_insert),
)
"""How each part of a query gets its scope."""
