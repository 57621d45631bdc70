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

    Attributes:
        after: The `cursor` of the page before. Without it the first change of the log comes first; with `now` there is
            a cursor for what comes from now on, and no change.
        limit: About how many changes a page has; fewer where they are large.
        rooms: Only what is in these rooms, and the rooms themselves.
        nouns: Only changes of these kinds of items.
        values: Whether the changes have their `value`, and not only which items changed.

    Example: {"waitMs": 100, "after": "now", "limit": 50, "rooms": ["r1"], "nouns": ["message"], "values": false}
    """

    run_max = 4  # each page can have several megabytes

    after: Cursor | None = None
    limit: PageSize = 100
    rooms: Rooms | None = None
    nouns: Nouns | None = None
    values: bool = True
