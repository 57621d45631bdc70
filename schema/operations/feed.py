"""The feed: what changed in a scope, in order."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.command_log import NounName
from backscroll.schema.limits import CHANGED_ROOMS_MAX, Cursor, Id, PageSize
from backscroll.schema.operations.base import WaitingQuery
from backscroll.schema.replies import ChangePage

NOW = "now"
"""Instead of a cursor: the end of the feed."""

Rooms = Annotated[list[Id], Meta(min_length=1, max_length=CHANGED_ROOMS_MAX)]
Nouns = Annotated[list[NounName], Meta(min_length=1, max_length=16)]


class GetChanges(WaitingQuery[ChangePage], frozen=True):
    """What changed after a cursor, in order, with what is stored now: about `limit` changes, fewer if they are large.

    Without `after` from the first command of the log on; with `after: "now"` a cursor and no changes. With `rooms` only
    what is in these rooms, with `nouns` only these kinds; without `values` which items changed and not what they are.
    If nothing has changed, the reply comes with the next change, or after `waitMs`. `gap: true` means that the cursor
    is of another history: read anew.

    Example: {"waitMs": 100, "after": "now", "limit": 50, "rooms": ["r1"], "nouns": ["message"], "values": false}
    """

    run_max = 4  # each page can have several megabytes

    after: Cursor | None = None
    limit: PageSize = 100
    rooms: Rooms | None = None
    nouns: Nouns | None = None
    values: bool = True
