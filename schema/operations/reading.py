"""From a name and an encoded payload to the operation, the commands inside it included."""

import difflib
import math
import operator
from functools import cache, partial, reduce
from types import GenericAlias
from typing import Any

from msgspec import Raw, defstruct

from backscroll.schema.errors import CallerError, Invalid, UnknownOperation
from backscroll.schema.limits import BATCH_COMMANDS_MAX, FREE_JSON_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Batch
from backscroll.schema.operations.base import Command, Operation
from backscroll.schema.validation import validate
from backscroll.schema.wire import DECODE_ERRORS, Allowance, Codec, read_payload

UNLIMITED = Allowance(math.inf, math.inf)
"""For what was taken once already, and lies in the caller's own memory."""


def operation_type(name: str) -> type[Operation[Any]]:
    """The operation of a wire name; raises `UnknownOperation`."""
    as_type = OPERATIONS.get(name)
    if as_type is None:
        details = {"path": "$.type", "known": sorted(OPERATIONS)}
        raise UnknownOperation(f"$.type: there is no operation {name!r}{_meant(name)}", details=details)
    return as_type


def read_operation(name: str, payload: Raw, codec: Codec, allowance: Allowance | None = None) -> Operation[Any]:
    """Decode and check an operation; raises `UnknownOperation`, `Invalid`, `TooLarge` or `Malformed`."""
    as_type = operation_type(name)
    if as_type.received_as is None:
        return read_payload(payload, codec, as_type, allowance)
    if as_type is Batch and allowance is None and (batch := _read_at_once(payload, codec)):
        return batch
    received = read_payload(payload, codec, as_type.received_as, UNLIMITED)
    allowance = allowance or received.allowance()
    allowance.take_commands(received.size)
    return received.opened(partial(_read_command, codec, allowance))


def _read_at_once(payload: Raw, codec: Codec) -> Batch | None:
    """A batch that is right in everything, in two thirds of the time; None for one to be read member by member.

    That one is larger, or something may be wrong in it, which is then told as its member's.
    """
    if len(payload) > FREE_JSON_BYTES_MAX:
        return None
    try:
        members = codec.decode(payload, _typed_batch()).commands
        if not 1 <= len(members) <= BATCH_COMMANDS_MAX:
            return None
        for member in members:
            validate(member.payload, "$")
    except (*DECODE_ERRORS, CallerError):
        return None
    return Batch.of(member.payload for member in members)


@cache
def _typed_batch() -> type[Any]:
    """A batch whose members are decoded along with it: each a record of its own type, which its `type` tells."""
    commands = [each for each in OPERATIONS.values() if issubclass(each, Command) and not each.ALONE]
    members: list[Any] = [
        defstruct(each.__name__, [("payload", each)], tag_field="type", tag=each.wire_name, forbid_unknown_fields=True)
        for each in commands
        if each is not Batch
    ]
    many = GenericAlias(list, (reduce(operator.or_, members),))
    return defstruct("TypedBatch", [("commands", many)], forbid_unknown_fields=True)


def _read_command(codec: Codec, allowance: Allowance, name: str, payload: Raw) -> Command[Any]:
    operation = read_operation(name, payload, codec, allowance)
    if not isinstance(operation, Command):
        raise Invalid.at("$.type", f"{name!r} is no command")
    return operation


def _meant(name: str) -> str:
    """A guess at what was meant, for people."""
    close = difflib.get_close_matches(name, OPERATIONS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
