"""Batches: several commands that are executed as one."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, Raw, Struct, field
from msgspec.structs import replace

from backscroll.schema.command_log import as_logged
from backscroll.schema.errors import CallerError, Invalid, inside
from backscroll.schema.limits import BATCH_COMMANDS_MAX, FAILURES_BYTES_MAX, OperationName
from backscroll.schema.operations.base import Budget, Command, DecodeCommand, DeferredCommands, Operation
from backscroll.schema.records import Record

Commands = Annotated[list["BatchedCommand"], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]


class BatchedCommand(Record, frozen=True, kw_only=True):
    """A command inside a batch: its type and payload.

    Attributes:
        type: The name of the command.
        payload: The fields of the command, as in a request of its own.
    """

    type: OperationName
    payload: Any = field(default_factory=dict)


class Batch(Command[list[Any]], frozen=True):
    """Execute commands of one scope in order, all or none; the result is the list of their results.

    They share one id, one `seq` and one row in the log. If one fails, none takes effect; the error is that of the first
    that fails, and `details.failures` lists all of them. A batch cannot contain `batch`, `clear-all-data`,
    `put-media-part` or `put-media`.

    Example: {"commands": [{"type": "save-ban", "payload": {"ban": {"roomId": "r1", "oderId": "eve",
        "timestamp": 1767225600000}}}, {"type": "delete-message", "payload": {"messageId": "m1"}}]}
    """

    ERRORS = ("not-found", "conflict")

    commands: Commands

    @classmethod
    def of(cls, commands: Iterable[Command[Any]]) -> Self:
        """Create a batch of these commands."""
        return cls([BatchedCommand(type=command.wire_name, payload=command) for command in commands])

    def as_logged(self) -> Self:
        return replace(self, commands=[_as_logged(member) for member in self.commands])


def adds(operation: Operation[Any]) -> bool:
    """Whether an operation, or a command in a batch, stores something new."""
    if isinstance(operation, Batch):
        return any(member.payload.ADDS for member in operation.commands)
    return operation.ADDS


def refusal(failures: Mapping[int, CallerError]) -> CallerError:
    """The error of a batch: that of the first of its commands that fail, with all of them, by index, in its details."""
    first = failures[min(failures)]
    listed, left = [], FAILURES_BYTES_MAX
    for index, error in sorted(failures.items()):
        item = _listed(index, error)
        left -= len(msgspec.json.encode(item))
        listed.append(item if left >= 0 else {"index": index, "code": error.code})
    return type(first)(first.message, details=(first.details or {}) | {"failures": listed})


def _listed(index: int, error: CallerError) -> dict[str, Any]:
    """A failed command in `details.failures`. What is the same for all of them is in `describe`."""
    rest = dict(error.details or {})
    path = rest.pop("path", "")
    details = {name: value for name, value in rest.items() if name not in ("index", "known", "level")}
    item = {"index": index, "code": error.code, "message": error.message, "path": path}
    return item | ({"details": details} if details else {})


class BatchOfAnything(Struct, frozen=True, forbid_unknown_fields=True):
    """A batch whose commands may be anything, to find those that cannot be decoded."""

    commands: Annotated[list[Raw], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]


class DeferredCommand(BatchedCommand, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command inside a batch with its payload still encoded."""

    payload: Raw = Raw()


class DeferredBatch(DeferredCommands, frozen=True, forbid_unknown_fields=True):
    """A batch with the payloads of its commands still encoded."""

    commands: Annotated[list[DeferredCommand], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]

    def with_commands(self, decode: DecodeCommand) -> Operation[Any]:
        return Batch([decoded_member(member, index, decode) for index, member in enumerate(self.commands)])

    def encoded_commands(self) -> list[tuple[str, Raw]]:
        return [(member.type, member.payload) for member in self.commands]

    def budget(self) -> Budget:
        return Budget(subject="the batch")


Batch.deferred_type = DeferredBatch


def _as_logged(member: BatchedCommand) -> BatchedCommand:
    payload = as_logged(member.payload)
    return member if payload is member.payload else replace(member, payload=payload)


def decoded_member(member: DeferredCommand, index: int, decode: DecodeCommand) -> BatchedCommand:
    """A command of a batch with its payload decoded; raises the error of the batch."""
    try:
        if member.type == Batch.wire_name:
            raise Invalid.at("$.type", "a batch cannot contain a batch")
        command = decode(member.type, member.payload)
        if command.ALONE:
            raise Invalid.at("$.type", f"{member.type!r} cannot be part of a batch; send it separately")
    except CallerError as error:
        raise inside(f"$.payload.commands[{index}]", index, error) from error
    return BatchedCommand(type=member.type, payload=command)
