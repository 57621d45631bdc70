"""The handlers' statements as SQL text for SQLite, compiled once for all stores of a process, and what they read."""

from typing import Any

import apsw
import msgspec
import peewee

from backscroll.handlers.sql import STATEMENTS, Row, Statement

DIALECT = peewee.SqliteDatabase(None)  # never opened
NO_BASE64 = (bytes,)
"""The types that msgspec takes as they are: it would decode a text where there should be bytes."""


class CompiledStatements(dict[Statement, str]):
    """The SQL text of each statement; one that is not compiled yet is compiled when it is first used."""

    def compile_all(self) -> None:
        for statement in STATEMENTS:
            if statement not in self:
                self[statement] = statement.compiled(DIALECT)

    def __missing__(self, statement: Statement) -> str:
        text = self[statement] = statement.compiled(DIALECT)
        return text


COMPILED = CompiledStatements()


def fetch(connection: apsw.Connection, statement: Statement, /, **values: Any) -> list[Row]:
    """The rows of a statement; raises `apsw.CorruptError` as `checked` does."""
    rows = connection.execute(COMPILED[statement], values).fetchall()
    return checked(statement, rows) if rows else rows


def checked(statement: Statement, rows: list[Row]) -> list[Row]:
    """Rows that SQLite read; raises `apsw.CorruptError` if a value has not the type of its column."""
    try:
        found: list[Row] = msgspec.convert((rows,), statement.rows_type, builtin_types=NO_BASE64).rows
    except msgspec.ValidationError as error:
        raise apsw.CorruptError(f"a stored row is damaged: {error}") from error
    return found
