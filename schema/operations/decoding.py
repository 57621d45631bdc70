"""Decoding of operations, including the commands inside them, from a wire name and an encoded payload."""

import difflib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from backscroll.schema.decode_errors import DECODE_ERRORS, explain
from backscroll.schema.errors import CallerError, Invalid, TooLarge, UnknownOperation
from backscroll.schema.integral_floats import decode_integral_floats, is_integral_float
from backscroll.schema.limits import FREE_JSON_BYTES_MAX
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.operations.base import Budget, Command, DeferredCommands, Operation
from backscroll.schema.operations.batch import (
    Batch,
    BatchedCommand,
    BatchOfAnything,
    DeferredBatch,
    DeferredCommand,
    decoded_member,
)
from backscroll.schema.salvage import find_bad_text
from backscroll.schema.size_probe import free_json_bytes, size_probe_of
from backscroll.schema.strict import strict
from backscroll.schema.validation import validate
from backscroll.schema.wire import PROTOCOL_LEVEL, UNKNOWN_FIELD, Codec

S = TypeVar("S", bound=Struct)

UNLIMITED = Budget(math.inf, math.inf)
"""For commands that were accepted before or whose budget was already checked."""


def operation_type(name: str) -> type[Operation[Any]]:
    """The operation with this wire name; raises `UnknownOperation`."""
    as_type = OPERATIONS.get(name)
    if as_type is None:
        details = {"path": "$.type", "level": PROTOCOL_LEVEL, "known": sorted(OPERATIONS)}
        problem = f"there is no operation {name!r} in protocol level {PROTOCOL_LEVEL}{_suggestion(name)}"
        raise UnknownOperation(f"$.type: {problem}", details=details)
    return as_type


def command_type(name: str) -> type[Command[Any]]:
    """The command with this wire name; raises `UnknownOperation` or `Invalid`."""
    as_type = operation_type(name)
    if not issubclass(as_type, Command):
        raise Invalid.at("$.type", f"{name!r} is not a command")
    return as_type


def decode_operation(name: str, payload: Raw, codec: Codec, budget: Budget | None = None) -> Operation[Any]:
    """Decode and check an operation; raises `UnknownOperation`, `Invalid`, `TooLarge` or `Malformed`.

    `budget` limits the free JSON and the commands in it; by default the limits of the protocol apply.
    """
    return decode_as(operation_type(name), payload, codec, budget)


def decode_as(
    as_type: type[Operation[Any]], payload: Raw, codec: Codec, budget: Budget | None = None
) -> Operation[Any]:
    """Like `decode_operation`, for an operation whose class is known."""
    if as_type.deferred_type is None:
        if len(payload) > FREE_JSON_BYTES_MAX:
            _check_free_json([(as_type.wire_name, payload)], codec, budget or Budget())
        return decode_payload(payload, codec, as_type)
    deferred = decode_payload(payload, codec, as_type.deferred_type)
    if as_type.deferred_type.may_nest or len(payload) > FREE_JSON_BYTES_MAX:
        _check_budget(deferred, codec, budget or deferred.budget())
    return deferred.with_commands(partial(_decode_command, codec))


def decode_flawed(payload: Raw, codec: Codec, known: Mapping[int, CallerError]) -> tuple[Batch, dict[int, CallerError]]:
    """A batch that was refused, without those of its commands that cannot be decoded, and their errors by index.

    `known` are errors that were found before. Raises an error that is about the batch as a whole.
    """
    flaws = dict(known)
    deferred: dict[int, DeferredCommand] = {}
    for index, encoded in enumerate(decode_payload(payload, codec, BatchOfAnything).commands):
        if index in known:
            continue
        try:
            deferred[index] = decode_payload(encoded, codec, DeferredCommand, root=f"$.payload.commands[{index}]")
        except CallerError as error:
            flaws[index] = type(error)(error.message, details=(error.details or {}) | {"index": index})
    whole = DeferredBatch(list(deferred.values()))
    _check_budget(whole, codec, whole.budget())
    commands: list[BatchedCommand] = []
    for index, member in deferred.items():
        try:
            commands.append(decoded_member(member, index, partial(_decode_command, codec)))
        except CallerError as error:
            flaws[index] = error.with_traceback(None)  # its frames have the body
    return Batch(commands), flaws


def decode_payload(payload: Raw, codec: Codec, as_type: type[S], root: str = "$.payload") -> S:
    """Decode and check one record or operation, which is at the path `root`, ignoring budgets.

    An absent or null payload is an empty one. Raises `Invalid`, `TooLarge` or `Malformed`.
    """
    body = payload if payload and bytes(payload) != codec.null else codec.empty_map
    try:
        decoded: S = codec.decode(body, strict(as_type))
    except msgspec.ValidationError as error:
        decoded = _decode_loosely(error, body, codec, as_type, root)
    except UnicodeError:
        raise find_bad_text(body, codec, root) from None
    except DECODE_ERRORS as error:
        raise explain(error, root, strict(as_type), UNKNOWN_FIELD) from None
    validate(decoded, root)
    return decoded


def _decode_loosely(
    refusal: msgspec.ValidationError, body: bytes | Raw, codec: Codec, as_type: type[S], root: str
) -> S:
    """Decode a body that was refused because of a float in place of an integer; raise the error for other refusals."""
    if not is_integral_float(refusal):
        raise explain(refusal, root, strict(as_type), UNKNOWN_FIELD) from None
    try:
        converted: S = decode_integral_floats(body, codec.decode, as_type, strict(as_type), root)
    except DECODE_ERRORS as worse:
        raise explain(worse, root, strict(as_type), UNKNOWN_FIELD) from None
    return converted


def _check_budget(deferred: DeferredCommands, codec: Codec, budget: Budget) -> None:
    """Check the budget of a batch or of log entries, including batches in them, before their commands are decoded."""
    commands = _all_commands(deferred, codec)
    if len(commands) > budget.commands:
        problem = f"{len(commands)} commands in {budget.subject}; the limit is {budget.commands}"
        raise TooLarge.at("$.payload", problem)
    _check_free_json(commands, codec, budget)


def _all_commands(deferred: DeferredCommands, codec: Codec) -> list[tuple[str, Raw]]:
    """All commands inside, batches as well as their members. Invalid ones are refused later.

    Deeper nesting than that of the batches in a log is refused later too, so it is not followed: each level would be
    scanned again by the next.
    """
    found: list[tuple[str, Raw]] = []
    for name, payload in deferred.encoded_commands():
        found.append((name, payload))
        inner = OPERATIONS[name].deferred_type if deferred.may_nest and name in OPERATIONS else None
        if inner is not None and not inner.may_nest:
            try:
                found += _all_commands(codec.decode(payload or codec.empty_map, inner), codec)
            except DECODE_ERRORS:
                continue
    return found


def _check_free_json(commands: list[tuple[str, Raw]], codec: Codec, budget: Budget) -> None:
    """Raise `TooLarge` for more free JSON than the budget allows. Small payloads need not be measured."""
    if budget.free_json_bytes == math.inf or sum(len(payload) for _, payload in commands) <= FREE_JSON_BYTES_MAX:
        return
    measured = sum(_free_json_in(name, payload, codec) for name, payload in commands)
    if measured > budget.free_json_bytes:
        problem = f"{measured} bytes of free JSON in {budget.subject}; the limit is {budget.free_json_bytes}"
        raise TooLarge.at("$.payload", problem)


def _free_json_in(name: str, payload: Raw, codec: Codec) -> int:
    as_type = OPERATIONS.get(name)
    probe = None if as_type is None or as_type.deferred_type is not None else size_probe_of(as_type)
    if probe is None:
        return 0
    try:
        return free_json_bytes(codec.decode(payload or codec.empty_map, probe))
    except DECODE_ERRORS:
        return 0  # decoding refuses it later, with its path


def _decode_command(codec: Codec, name: str, payload: Raw) -> Command[Any]:
    """Decode a command inside another operation, whose budget has been checked."""
    return cast("Command[Any]", decode_as(command_type(name), payload, codec, UNLIMITED))


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, OPERATIONS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


__all__ = [
    "UNLIMITED",
    "command_type",
    "decode_as",
    "decode_flawed",
    "decode_operation",
    "decode_payload",
    "operation_type",
]
