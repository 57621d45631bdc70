"""Operations on whole scopes: size, names, deletion, compaction, and import of a database file."""

from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

from peewee import SQL, fn

from backscroll.handlers.aliases import HIDDEN
from backscroll.handlers.lists import Items
from backscroll.handlers.registry import Handlers, handles
from backscroll.handlers.sql import statement
from backscroll.handlers.storage import Reads, Writes
from backscroll.handlers.users import current_user_id
from backscroll.schema.errors import Conflict, Forbidden, Invalid
from backscroll.schema.operations import AdoptLegacyDatabase, CompactScope, DeleteScope, GetScopeInfo, ListScopes
from backscroll.schema.replies import ScopeInfo
from backscroll.schema.tables import TABLES, LogReferences, Messages, Scope, Sequence, UnnamedMedia
from backscroll.schema.wire import DEFAULT_SCOPE

COUNTS = {
    table._meta.table_name: statement(table.select(fn.COUNT(table._meta.sorted_fields[0])))
    for table in TABLES
    if table not in (Sequence, UnnamedMedia, Scope, LogReferences)
}

COUNT_BARE_TOMBSTONES = statement(
    Messages.select(fn.COUNT(Messages.id)).where(
        (Messages.room_id == SQL(f"'{HIDDEN}'")) & Messages.channel_id.is_null() & (Messages.is_deleted == SQL("1"))
    )
)


class LegacyFile(Protocol):
    """A copy of a database file that can become the scope's database."""

    @property
    def db(self) -> Reads: ...

    def take_over(self) -> None:
        """Make the copy the scope's database."""


class ScopeAdmin(Protocol):
    """The scope of a request, as a whole."""

    @property
    def name(self) -> str: ...

    @property
    def handlers(self) -> Handlers:
        """The handlers that log entries are executed with."""

    @property
    def schema_version(self) -> int: ...

    def snapshot(self) -> AbstractContextManager[Reads]: ...

    def bytes_on_disk(self) -> int: ...

    def all_names(self) -> list[str]:
        """The names of all scopes, in order."""

    def transaction(self) -> AbstractContextManager[Writes]:
        """One durable transaction; on any error it has no effect."""

    def compact(self) -> None:
        """Rewrite the scope's files so that they contain no deleted data."""

    def erase(self) -> None:
        """Remove the scope's files."""

    def legacy_file(self, path: str) -> AbstractContextManager[LegacyFile]:
        """A copy of a file outside the data directory; raises `NotFound` or `Busy`."""


@handles(GetScopeInfo)
def get_scope_info(_query: GetScopeInfo, scope: ScopeAdmin) -> ScopeInfo:
    with scope.snapshot() as db:
        rows, [(bare_tombstones,)] = _counts(db), db.rows(COUNT_BARE_TOMBSTONES)
    return ScopeInfo(
        scope=scope.name,
        bytes=scope.bytes_on_disk(),
        rows=rows,
        schema_version=scope.schema_version,
        bare_tombstones=bare_tombstones,
    )


@handles(ListScopes)
def list_scopes(query: ListScopes, scope: ScopeAdmin) -> Items[str]:
    if scope.name != DEFAULT_SCOPE:
        raise Forbidden.at("$.scope", f"scopes can only be listed from the scope {DEFAULT_SCOPE!r}")
    names = (name for name in scope.all_names() if query.after is None or name > query.after)
    return Items(islice(names, query.limit), is_page=query.limit is not None)


@handles(DeleteScope)
def delete_scope(_command: DeleteScope, scope: ScopeAdmin) -> None:
    scope.erase()


@handles(CompactScope)
def compact_scope(_command: CompactScope, scope: ScopeAdmin) -> None:
    scope.compact()


@handles(AdoptLegacyDatabase)
def adopt_legacy_database(command: AdoptLegacyDatabase, scope: ScopeAdmin) -> None:
    with scope.snapshot() as db:
        is_empty = not any(_counts(db).values())  # including commands, whose ids must stay known
    if not is_empty:
        raise Conflict.at("$.scope", "the scope is not empty; delete-scope empties it")
    with scope.legacy_file(command.path) as legacy:
        if current_user_id(legacy.db) != command.user_id:
            raise Forbidden.at("$.payload.userId", "this is not the current user of the file")
        if legacy.db.row(COUNTS["media"]) != (0,):
            raise Invalid.at("$.payload.path", "the database has media; copy its whole data directory instead")
        legacy.take_over()


def _counts(db: Reads) -> dict[str, int]:
    """The number of rows by table."""
    counts = {name: db.row(count) for name, count in COUNTS.items()}
    return {name: int(row[0]) for name, row in counts.items() if row}
