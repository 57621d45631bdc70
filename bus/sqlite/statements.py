"""The handlers' statements as SQL text for SQLite, compiled once for all stores of a process."""

import peewee

from backscroll.handlers.sql import STATEMENTS, Statement

DIALECT = peewee.SqliteDatabase(None)  # never opened


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
