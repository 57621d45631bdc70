"""The rules for events of a network that arrive in any order, with any duplicates: pure functions, without a database.

Everything known about a message is a `State`, and an event is a state as well: what it alone tells. `join` is their
least upper bound, so it makes no difference in which order events are joined, how often, and in which groups.

    a field       the value of the greatest version; of equal versions the greater value
    a deletion    joined with anything is a deletion, and has no text
    a reaction    the latest of what was saved and removed; of equal times the removal
    an attachment each field group by itself: the message it belongs to, and all the rest, the greater of two

No choice may depend on text where it decides about anything but that text: when the text is erased from the log, a
replay would choose differently.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backscroll.schema.records import Message, MessageUpdates

UNKNOWN = -1
"""The revision or time of an event that has none: less than all others."""


class Version(NamedTuple):
    """When a field was written, as the network says. Of an original and an edit that are otherwise equal, the edit."""

    revision: int = UNKNOWN
    edited_at: int = UNKNOWN
    is_edit: int = 0


class Field(NamedTuple):
    """The value of a column, and its version."""

    version: Version
    value: Any


class State(NamedTuple):
    """What is known about a message: fields by the names of their columns, and whether it was deleted."""

    fields: Mapping[str, Field]
    is_deleted: bool = False


NOTHING = State({})

LOST = frozenset([*Message.REDACTABLE, "pinned_at"])
"""The fields that a deletion removes: all text, and that the message is pinned."""


def version_of(event: Message | MessageUpdates, *, is_edit: bool) -> Version:
    """The version of everything that an event says."""
    return Version(_number(event.revision), _number(event.edited_at), int(is_edit))


def order(field: Field) -> tuple[Any, ...]:
    """Fields are compared by this."""
    return field.version, comparable(field.value)


def comparable(value: Any) -> tuple[bool, Any]:
    """A value of a column as it is compared: an unset one is the least."""
    return value is not None, value


def join(one: State, other: State) -> State:
    """What two states tell together."""
    fields = dict(one.fields)
    for name, field in other.fields.items():
        if name not in fields or order(fields[name]) < order(field):
            fields[name] = field
    return bare(fields) if one.is_deleted or other.is_deleted else State(fields)


def bare(fields: Mapping[str, Field]) -> State:
    """The state of a deleted message."""
    return State({name: field for name, field in fields.items() if name not in LOST}, is_deleted=True)


def saved_reaction_order(timestamp: int | None, row: Sequence[Any]) -> tuple[Any, ...]:
    """What is known about one user's emoji is compared by this: here a reaction, given as its columns but the key."""
    return _number(timestamp), False, tuple(map(comparable, row))


def removed_reaction_order(timestamp: int) -> tuple[Any, ...]:
    """The same for a removal, which goes before all reactions of its time."""
    return timestamp, True, ()


def joined_attachment(one: Sequence[Any], other: Sequence[Any], message_at: int) -> tuple[Any, ...]:
    """Of two rows of one attachment, one; `message_at` is the position of the message that it belongs to."""
    contents = [tuple(row[:message_at]) + tuple(row[message_at + 1 :]) for row in (one, other)]
    content = max(contents, key=lambda row: tuple(map(comparable, row)))
    return (*content[:message_at], max(one[message_at], other[message_at]), *content[message_at:])


def _number(value: Any) -> int:
    return value if isinstance(value, int) else UNKNOWN  # None or UNSET
