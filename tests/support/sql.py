"""SQL written by tests, to look at what the store did or to damage it."""

from functools import cache

import peewee

from backscroll.handlers.sql import Statement, rows_type


class RawSql(Statement):
    """A statement that is the same text for every dialect."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rows_type = rows_type(tuple)

    def compiled(self, dialect: peewee.Database) -> str:  # noqa: ARG002  # the same for all
        return self.text


@cache
def sql(text: str) -> Statement:
    """The statement of a text; one object for each text, because stores cache compiled statements."""
    return RawSql(text)
