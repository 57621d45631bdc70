"""Markers for field annotations that express more than types and limits; see `records.py` for their use."""

from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin


class OneOf:
    """Text with known values. A request must use one of them; a reply may contain a value of a later level."""

    def __init__(self, *values: str) -> None:
        self.values = values


class ByNoun:
    """A value whose type depends on the field `noun` beside it: a record for each noun that has one."""

    def __init__(self, **records: Any) -> None:
        self.records = records


class Since(NamedTuple):
    """The protocol level that added a field; a field without this marker belongs to level 1."""

    level: int


class ReplyOnly:
    """A field that only the daemon sets: a request that sets it is refused."""


REPLY_ONLY: Final = ReplyOnly()


def marker(hint: Any, kind: type) -> Any:
    """The marker of this class in an annotation, or None."""
    if get_origin(hint) is not Annotated:
        return None
    return next((each for each in get_args(hint)[1:] if isinstance(each, kind)), None)
