"""SQL written by tests, to look at what the store did or to damage it."""

import re
from functools import cache
from typing import Any

import peewee

from backscroll.handlers.sql import Named, Statement, rows_type


class RawSql(Statement):
    """A statement that is the same text for every dialect."""

    def __init__(self, text: str) -> None:
        self.text = text
        # Where all scopes are in the same tables, only the rows of one are visible.
        parts = re.split(r":(\w+)", text)
        nodes = [Named(part) if at % 2 else peewee.SQL(part) for at, part in enumerate(parts)]
        before, after = peewee.SQL("SELECT * FROM ("), peewee.SQL(") AS found WHERE $1::text IS NOT NULL")
        self.query: Any = peewee.NodeList([before, *nodes, after], glue="")
        self.rows_type = rows_type(tuple)

    def compiled(self, dialect: peewee.Database) -> str:  # noqa: ARG002  # the same for all
        return self.text


@cache
def sql(text: str) -> Statement:
    """The statement of a text; one object for each text, because stores cache compiled statements."""
    return RawSql(text)
