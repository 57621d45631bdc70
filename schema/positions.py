"""Where the next page of a list begins: the fields that the list is ordered by, in the last item of the page before.

A position needs no stored item: it stays valid when items are saved or deleted meanwhile, its own item included. All
its fields are required: if a missing time meant an unset one, a list that is paged without it would never end.
"""

from typing import Any, TypeVar, get_type_hints

from msgspec.structs import replace

from backscroll.schema.limits import Id, Integer, Millis
from backscroll.schema.records import Record
from backscroll.schema.size_probe import plain

Q = TypeVar("Q")


class UserPosition(Record, frozen=True, kw_only=True):
    """A position in the order (createdAt, oderId); an unset time is null, which comes first."""

    created_at: Millis | None
    oder_id: Id


class RoomUserPosition(Record, frozen=True, kw_only=True):
    """A position in the order of oderId."""

    oder_id: Id


class MemberPosition(Record, frozen=True, kw_only=True):
    """A position in the order (joinedAt, oderId); an unset time is null, which comes first."""

    joined_at: Millis | None
    oder_id: Id


class RoomPosition(Record, frozen=True, kw_only=True):
    """A position in the order (createdAt, id); an unset time is null, which comes first."""

    created_at: Millis | None
    id: Id


class ChannelPosition(Record, frozen=True, kw_only=True):
    """A position in the order (position, id) of channels or of categories."""

    position: Integer
    id: Id


class ReactionPosition(Record, frozen=True, kw_only=True):
    """A position in the order (timestamp, oderId, emoji); an unset time or oderId is null, which comes first."""

    timestamp: Millis | None
    oder_id: Id | None
    emoji: Id


class BanPosition(Record, frozen=True, kw_only=True):
    """A position in the order (timestamp, oderId)."""

    timestamp: Millis
    oder_id: Id


class MediaPosition(Record, frozen=True, kw_only=True):
    """A position in the order of id, which is the order in which media were made."""

    id: Id


class AttachmentPosition(Record, frozen=True, kw_only=True):
    """A position in the order of id."""

    id: Id


def next_page(query: Q, last: Any) -> Q:
    """The query for the page after the one whose last item is `last`. The query has the field `after`."""
    kind = plain(get_type_hints(type(query), include_extras=True)["after"])
    if kind is str:
        return replace(query, after=last)  # type: ignore[type-var]  # every operation is a Struct
    return replace(query, after=kind(**{name: getattr(last, name) for name in kind.__struct_fields__}))  # type: ignore[type-var]
