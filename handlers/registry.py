"""Registration of handlers, with how long their replies may be cached.

@handles(GetMessages, cached=Cached.UNTIL_ROOM_CHANGES)
def get_messages(query: GetMessages, db: Reads) -> list[Message]: ...
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple, TypeVar

from backscroll.schema.operations import Operation

F = TypeVar("F", bound=Callable[..., Any])


class Cached(Enum):
    """How long a reply to a query stays correct."""

    NOT = auto()
    """Not cached: the reply depends on the clock or on files, or caching would save little."""
    UNTIL_COMMIT = auto()
    """Until the next commit of the scope: the reply depends on the tables."""
    UNTIL_ROOM_CHANGES = auto()
    """Until a message or reaction changes in the room `room_id` of the query: the reply depends only on those."""


class Handler(NamedTuple):
    """The function that executes an operation, and how long its replies may be cached."""

    function: Callable[..., Any]
    cached: Cached = Cached.NOT


Handlers = Mapping[str, Handler]
"""Handlers by wire name."""

_REGISTERED: dict[str, Handler] = {}


def handles(operation: type[Operation[Any]], *, cached: Cached = Cached.NOT) -> Callable[[F], F]:
    """Register the decorated function as the handler of an operation."""

    def register(function: F) -> F:
        assert operation.wire_name not in _REGISTERED, f"{operation.wire_name} has two handlers"
        _REGISTERED[operation.wire_name] = Handler(function, cached)
        return function

    return register


def collect(package: str, path: list[str]) -> Handlers:
    """The handlers registered in all modules of a package."""
    for module in iter_modules(path):
        import_module(f"{package}.{module.name}")
    return dict(_REGISTERED)
