"""How a function becomes the handler of an operation, and for how long its replies may be cached.

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
    """It depends on the clock or on files: it is never cached."""
    UNTIL_COMMIT = auto()
    """It depends on the tables: until the next commit of the scope."""
    UNTIL_ROOM_CHANGES = auto()
    """It depends on the messages and reactions of the room that `room_id` names: until one of those changes."""


class Handler(NamedTuple):
    """The function that does an operation's work, and how long its replies may be cached."""

    function: Callable[..., Any]
    cached: Cached = Cached.NOT


Handlers = Mapping[str, Handler]
"""Handlers by the operations' wire names."""

_REGISTERED: dict[str, Handler] = {}


def handles(operation: type[Operation[Any]], *, cached: Cached = Cached.NOT) -> Callable[[F], F]:
    """Make a function the handler of an operation."""

    def register(function: F) -> F:
        assert operation.wire_name not in _REGISTERED, f"{operation.wire_name} has two handlers"
        _REGISTERED[operation.wire_name] = Handler(function, cached)
        return function

    return register


def collect(package: str, path: list[str]) -> Handlers:
    """The handlers that are declared in all modules of a package."""
    for module in iter_modules(path):
        import_module(f"{package}.{module.name}")
    return dict(_REGISTERED)
