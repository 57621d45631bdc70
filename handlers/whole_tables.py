"""Every row of a scope with all its columns, in the order of the tables' keys: for copying it into another store.

What belongs to a file and not to its scope is left out: the scope's name, and the columns of `sequence` about the file.
"""

from typing import Any, NamedTuple

from peewee import SQL, BlobField, fn

from backscroll.handlers.sql import Named, Statement, insertion, statement
from backscroll.schema.tables import TABLES, Commands, Scope, Sequence, Table

OF_THE_STORE = (Sequence, Scope)


class WholeTable:
    """One table: the statements that select all its rows, count them, and insert one that was selected.

    `binary` are the positions of columns that hold bytes.
    """

    def __init__(self, table: type[Table]) -> None:
        meta: Any = table._meta
        self.name: str = meta.table_name
        self.columns: list[str] = [each.column_name for each in meta.sorted_fields]
        self.binary = [at for at, each in enumerate(meta.sorted_fields) if isinstance(each, BlobField)]
        key = meta.primary_key.field_names if meta.composite_key else (meta.primary_key.name,)
        in_order = [meta.fields[name] for name in key]
        self.select_all: Statement = statement(table.select(*meta.sorted_fields).order_by(*in_order))
        self.count_all: Statement = statement(table.select(fn.COUNT(SQL("*"))))
        self.insert: Statement = statement(insertion(table, self.columns))


WHOLE_TABLES = [WholeTable(table) for table in TABLES if table not in OF_THE_STORE]
"""A table comes after those that it references."""


class End(NamedTuple):
    """The end of a scope's log: the last seq and generated id, from which command on there are results and rows, and
    the chain after the last command, which is None if there is none.
    """

    seq: int = 0
    last_id: str = ""
    results_from: int = 1
    log_from: int = 1
    chain: bytes | None = None


SELECT_END = statement(
    Sequence.select(
        *(Sequence.seq, Sequence.last_id, Sequence.results_from, Sequence.log_from),
        Commands.select(Commands.chain).order_by(Commands.seq.desc()).limit(SQL("1")),
    )
)
UPDATE_END = statement(
    Sequence.update({getattr(Sequence, name): Named(name) for name in ("seq", "last_id", "results_from", "log_from")})
)
