"""All rows of all tables in the order of their keys, for comparing a scope with what its command log leads to.

Left out is what the log does not tell: secrets, and what a file says of itself. Here are also the statements that tell
which of the rest is not comparable in a certain scope (`Incomparable`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from peewee import JOIN, SQL, Field

from backscroll.handlers.aliases import HIDDEN
from backscroll.handlers.sql import Row, Statement, statement
from backscroll.handlers.storage import MEMBERS
from backscroll.schema.operations import PutMedia
from backscroll.schema.records import SECRET_COLUMNS
from backscroll.schema.tables import (
    TABLES,
    ClearedRooms,
    Commands,
    InternalColumn,
    LogReferences,
    Media,
    Messages,
    Scope,
    Sequence,
    Table,
)

NOT_COMPARED = (Scope, ClearedRooms)
"""The file's own name, and marks of what is still to be removed, which is removed before."""
OF_THE_LOG = (Sequence.id, Sequence.seq, Sequence.last_id)
"""The other columns of this table are about the file, and about results that are no longer kept."""

WRITTEN_BEFORE_COUNTING = statement(
    Messages.select(SQL("1"))
    .where((Messages.written == SQL("0")) & (Messages.room_id != SQL(f"'{HIDDEN}'")))
    .limit(SQL("1"))
)
"""Finds a message of a time when messages did not have the number of the command that wrote them."""
LARGEST_SEQS = {
    "messages": statement(Messages.select(SQL(f"max(max(origin_seq), max(written) / {MEMBERS})"))),
    "log_references": statement(LogReferences.select(SQL("max(seq)"))),
}
"""The greatest number of a command that rows name."""


class TableRows:
    """The rows of one table: its columns, the statement that selects them all, and the key by which it orders them."""

    def __init__(self, table: type[Table]) -> None:
        meta: Any = table._meta
        self.name: str = meta.table_name
        secret = SECRET_COLUMNS.get(self.name, frozenset())
        fields: list[Field] = [each for name, each in meta.fields.items() if name not in secret]
        if table is Sequence:
            fields = list(OF_THE_LOG)
        self.columns = [each.name for each in fields]
        self.internal = [at for at, each in enumerate(fields) if isinstance(each, InternalColumn)]
        key = meta.primary_key.field_names if meta.composite_key else (meta.primary_key.name,)
        self.key: Callable[[Row], Any] = itemgetter(*map(self.columns.index, key))
        query = table.select(*fields).order_by(*(meta.fields[name] for name in key))
        self.select: Statement = statement(_with_command(query) if table is LogReferences else query)


def _with_command(query: Any) -> Any:
    """References to commands that have their payload, or do not exist; and those whose item does not exist.

    The payload of a `put-media` that found its file stored already was not kept, and a replay makes no reference to it.
    """
    is_of_media = (LogReferences.noun == SQL("'media'")) & Media.id.is_null(False)
    return (
        query.join(Commands, JOIN.LEFT_OUTER, on=Commands.seq == LogReferences.seq)
        .join(Media, JOIN.LEFT_OUTER, on=Media.id == LogReferences.subject)
        .where(Commands.payload.is_null(False) | ~is_of_media)
    )


ALL: Mapping[str, TableRows] = {
    rows.name: rows for rows in map(TableRows, (each for each in TABLES if each not in NOT_COMPARED))
}


@dataclass
class Incomparable:
    """What cannot be compared in a certain scope.

    Attributes:
        results_from: Results of commands before this one are no longer stored.
        internal: The numbers for the daemon's own use, and references for erasing text: they were written by an earlier
            version, which did not have them.
        unnamed_since: Since when media are named by no attachment: that is the moment when a cleared room was emptied.
        all_media: Everything about media, because their parts are not there.
        media: The ids of media of which parts are missing, so they cannot be made again; `puts` are the commands that
            made them.
    """

    results_from: int = 1
    internal: bool = False
    unnamed_since: bool = False
    all_media: bool = False
    media: set[str] = field(default_factory=set)
    puts: set[int] = field(default_factory=set)

    def of(self, table: TableRows) -> Callable[[Row], Row | None]:
        """The function that returns what is comparable of a row of a table; None if nothing is."""
        special = {
            "commands": self._command,
            "log_references": self._reference,
            "media": self._media,
            "media_parts": self._media,
            "unnamed_media": self._unnamed_media,
        }.get(table.name)
        if special is not None:
            return special
        if not table.internal or not self.internal:
            return lambda row: row
        hidden = set(table.internal)
        return lambda row: tuple(None if at in hidden else value for at, value in enumerate(row))

    def _command(self, row: Row) -> Row | None:
        seq, type_, redacted = row[_SEQ], row[_TYPE], row[_REDACTED]
        if seq in self.puts or (self.all_media and type_ == PutMedia.wire_name):
            return tuple(None if at in _ERASED else value for at, value in enumerate(row))
        if redacted or seq < self.results_from:
            return tuple(None if at == _RESULT else value for at, value in enumerate(row))
        return row

    def _reference(self, row: Row) -> Row | None:
        noun, _, subject = row[:3]
        is_lost = noun == "media" and (self.all_media or subject in self.media)
        return None if is_lost or self.internal else row

    def _media(self, row: Row) -> Row | None:
        return None if self.all_media or row[0] in self.media else row

    def _unnamed_media(self, row: Row) -> Row | None:
        return row[:1] if self.unnamed_since and row[0] not in self.media else self._media(row)


_SEQ, _TYPE, _REDACTED, _RESULT = map(ALL["commands"].columns.index, ("seq", "type", "redacted", "result"))
_ERASED = frozenset(map(ALL["commands"].columns.index, ("payload", "salt", "redacted", "result")))
