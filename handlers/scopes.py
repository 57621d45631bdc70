"""Whole scopes: what one holds, which there are, and how one ends or takes over an older file."""

from contextlib import AbstractContextManager
from typing import Protocol

from peewee import fn

from backscroll.handlers.sql import statement
from backscroll.handlers.storage import Database
from backscroll.handlers.users import current_user_id
from backscroll.schema.errors import Conflict, Forbidden, Invalid
from backscroll.schema.operations import AdoptLegacyDatabase, CompactScope, DeleteScope, GetScopeInfo, ListScopes
from backscroll.schema.replies import ScopeInfo
from backscroll.schema.tables import TABLES, Mentions, Scope, Sequence
from backscroll.schema.wire import DEFAULT_SCOPE

COUNTS = {
    table._meta.table_name: statement(table.select(fn.COUNT(table._meta.sorted_fields[0])))
    for table in TABLES
    if table not in (Sequence, Scope, Mentions)
}


class LegacyFile(Protocol):
    """A copy of a file that may be taken over."""

    @property
    def db(self) -> Database: ...

    def take_over(self) -> None:
        """Make the copy the scope's database."""


class ScopeAdmin(Protocol):
    """The scope that a request is in, as a whole."""

    @property
    def name(self) -> str: ...

    @property
    def schema_version(self) -> int: ...

    def snapshot(self) -> AbstractContextManager[Database]: ...

    def bytes_on_disk(self) -> int: ...

    def all_names(self) -> list[str]:
        """The names of all scopes, in order."""

    def transaction(self) -> AbstractContextManager[Database]:
        """What happens inside happens wholly, in one durable commit, or not at all."""

    def compact(self) -> None:
        """Write the scope's files anew, with nothing in them of what was deleted."""

    def erase(self) -> None:
        """Remove the scope's files."""

    def legacy_file(self, path: str) -> AbstractContextManager[LegacyFile]:
        """A copy of a file outside the data directory; raises `Invalid`, `Forbidden` or `NotFound`."""


def get_scope_info(_query: GetScopeInfo, scope: ScopeAdmin) -> ScopeInfo:
    return ScopeInfo(
        scope=scope.name, bytes=scope.bytes_on_disk(), rows=_counts(scope), schema_version=scope.schema_version
    )


def list_scopes(_query: ListScopes, scope: ScopeAdmin) -> list[str]:
    if scope.name != DEFAULT_SCOPE:
        raise Forbidden.at("$.scope", f"only the scope {DEFAULT_SCOPE!r} is told of others")
    return scope.all_names()


def delete_scope(_command: DeleteScope, scope: ScopeAdmin) -> None:
    scope.erase()


def compact_scope(_command: CompactScope, scope: ScopeAdmin) -> None:
    scope.compact()


def adopt_legacy_database(command: AdoptLegacyDatabase, scope: ScopeAdmin) -> None:
    if any(_counts(scope).values()):  # commands included: their ids must stay known
        raise Conflict.at("$.scope", "the scope was used before; delete-scope empties it")
    with scope.legacy_file(command.path) as legacy:
        if current_user_id(legacy.db) != command.user_id:
            raise Forbidden.at("$.payload.userId", "the file's current user is somebody else")
        if legacy.db.row(COUNTS["media"]) != (0,):
            raise Invalid.at("$.payload.path", "the file has media beside it, so it is of no older layout")
        legacy.take_over()


def _counts(scope: ScopeAdmin) -> dict[str, int]:
    """RowMapper by table."""
    with scope.snapshot() as db:
        counts = {name: db.row(count) for name, count in COUNTS.items()}
    return {name: int(row[0]) for name, row in counts.items() if row}
