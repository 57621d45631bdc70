"""Accounts: each scope's data is a database of its own, and these are about one whole database."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.limits import PATH_CHARS_MAX, Id
from backscroll.schema.operations.base import Maintenance
from backscroll.schema.replies import ScopeInfo

FilePath = Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]


class GetScopeInfo(Maintenance[ScopeInfo], frozen=True):
    """How much the request's own scope holds: bytes on disk, rows by table, the version of its tables.

    Example: {}
    """


class ListScopes(Maintenance[list[str]], frozen=True):
    """The names of all scopes, in order; asked in the scope `default`, elsewhere `forbidden`.

    Example: {}
    """

    ERRORS = ("forbidden",)


class DeleteScope(Maintenance[None], frozen=True):
    """Remove everything of the request's own scope from the disk; used again, it starts empty, at seq 0.

    Example: {}
    """


class AdoptLegacyDatabase(Maintenance[None], frozen=True):
    """Take over a database file of an older layout into the request's own, empty scope.

    Only when the file's current user is `userId`, else `forbidden`; `conflict` when the scope holds anything. The file
    itself is read and never changed. `path` is on the daemon's machine.

    Example: {"path": "/home/ada/.old/chat.db", "userId": "ada"}
    """

    ERRORS = ("conflict", "forbidden", "not-found")

    path: FilePath
    user_id: Id


class CompactScope(Maintenance[None], frozen=True):
    """Write the scope's files anew, so that no byte of what was deleted is left in any of them, and they are small.

    Example: {}
    """
