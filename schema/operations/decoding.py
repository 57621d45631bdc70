"""From a name and an encoded payload to the operation, the commands inside it included."""

import difflib
import math
from functools import partial
from typing import Any

from msgspec import Raw

from backscroll.schema.errors import Invalid, UnknownOperation
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.operations.base import Command, Operation
from backscroll.schema.wire import Budget, Codec, read_payload

UNLIMITED = Budget(math.inf, math.inf)
"""For what was taken once already, and lies in the caller's own memory."""


def operation_type(name: str) -> type[Operation[Any]]:
    """The operation of a wire name; raises `UnknownOperation`."""
    as_type = OPERATIONS.get(name)
    if as_type is None:
        details = {"path": "$.type", "known": sorted(OPERATIONS)}
        raise UnknownOperation(f"$.type: there is no operation {name!r}{_meant(name)}", details=details)
    return as_type


def read_operation(name: str, payload: Raw, codec: Codec, budget: Budget | None = None) -> Operation[Any]:
    """Decode and check an operation; raises `UnknownOperation`, `Invalid`, `TooLarge` or `Malformed`."""
    as_type = operation_type(name)
    if as_type.deferred_type is None:
        return read_payload(payload, codec, as_type, budget)
    received = read_payload(payload, codec, as_type.deferred_type, UNLIMITED)
    budget = budget or received.budget()
    budget.take_commands(received.size)
    return received.opened(partial(_read_command, codec, budget))


def _read_command(codec: Codec, budget: Budget, name: str, payload: Raw) -> Command[Any]:
    operation = read_operation(name, payload, codec, budget)
    if not isinstance(operation, Command):
        raise Invalid.at("$.type", f"{name!r} is no command")
    return operation


def _meant(name: str) -> str:
    """A guess at what was meant, for people."""
    close = difflib.get_close_matches(name, OPERATIONS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
