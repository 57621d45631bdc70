"""Operations on whole scopes. A scope is an account, with a database of its own."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.limits import PATH_CHARS_MAX, Id, PageSize, ScopeName
from backscroll.schema.operations.base import Maintenance
from backscroll.schema.replies import ScopeInfo

FilePath = Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]


class GetScopeInfo(Maintenance[ScopeInfo], frozen=True):
    """The size of the request's scope: bytes on disk, rows by table, and the version of its tables.

    Example: {}
    """

    ADDS = False


class ListScopes(Maintenance[list[str]], frozen=True):
    """The names of all scopes, in order. Allowed only in the scope `default`, otherwise `forbidden`.

    Attributes:
        limit: The most items of a page. Without it the result is the whole list.
        after: The last name of the page before. The end is an empty page.

    Example: {}
    """

    DAEMON_WIDE = True
    ADDS = False
    ERRORS = ("forbidden",)

    limit: PageSize | None = None
    after: ScopeName | None = None


class DeleteScope(Maintenance[None], frozen=True):
    """Delete all files of the request's scope. When the scope is used again, it starts empty, at seq 0.

    Example: {}
    """

    ADDS = False


class AdoptLegacyDatabase(Maintenance[None], frozen=True):
    """Import a database file of an older layout into the request's scope, which must be empty.

    `not-found` if there is no suitable file. `forbidden` if the file's current user is not `userId`; `conflict` if the
    scope is not empty. The file is only read.

    Attributes:
        path: The path of the file on the daemon's machine, outside its data directory.
        user_id: The current user of that file, as a proof that it is the right one.

    Example: {"path": "/home/ada/.old/chat.db", "userId": "ada"}
    """

    DAEMON_WIDE = True  # the path is anywhere
    ERRORS = ("conflict", "forbidden", "not-found")

    path: FilePath
    user_id: Id


class CompactScope(Maintenance[None], frozen=True):
    """Rewrite the scope's files so that they are small and contain no byte of deleted data.

    Example: {}
    """

    ADDS = False
