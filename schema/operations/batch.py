"""Batches: several commands that are executed as one."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from msgspec import Meta, Raw, field
from msgspec.structs import replace

from backscroll.schema.command_log import as_logged
from backscroll.schema.errors import CallerError, Invalid, inside
from backscroll.schema.limits import BATCH_COMMANDS_MAX, OperationName
from backscroll.schema.operations.base import Budget, Command, DecodeCommand, DeferredCommands, Operation
from backscroll.schema.records import Record

Commands = Annotated[list["BatchedCommand"], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]


class BatchedCommand(Record, frozen=True, kw_only=True):
    """A command inside a batch: its type and payload."""

    type: OperationName
    payload: Any = field(default_factory=dict)


class Batch(Command[list[Any]], frozen=True):
    """Execute commands of one scope in order, all or none; the result is the list of their results.

    They share one id, one `seq` and one row in the log. If one fails, none takes effect; the error's path and
    `details.index` identify it. A batch cannot contain `batch`, `clear-all-data`, `put-media-part` or `put-media`.

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


class _DeferredCommand(BatchedCommand, frozen=True, kw_only=True, forbid_unknown_fields=True):
    payload: Raw = Raw()


class _DeferredBatch(DeferredCommands, frozen=True, forbid_unknown_fields=True):
    commands: Annotated[list[_DeferredCommand], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]

    def with_commands(self, decode: DecodeCommand) -> Operation[Any]:
        return Batch([_decoded(member, index, decode) for index, member in enumerate(self.commands)])

    def encoded_commands(self) -> list[tuple[str, Raw]]:
        return [(member.type, member.payload) for member in self.commands]

    def budget(self) -> Budget:
        return Budget(subject="the batch")


Batch.deferred_type = _DeferredBatch


def _as_logged(member: BatchedCommand) -> BatchedCommand:
    payload = as_logged(member.payload)
    return member if payload is member.payload else replace(member, payload=payload)


def _decoded(member: _DeferredCommand, index: int, decode: DecodeCommand) -> BatchedCommand:
    try:
        if member.type == Batch.wire_name:
            raise Invalid.at("$.type", "a batch cannot contain a batch")
        command = decode(member.type, member.payload)
        if command.ALONE:
            raise Invalid.at("$.type", f"{member.type!r} cannot be part of a batch; send it separately")
    except CallerError as error:
        raise inside(f"$.payload.commands[{index}]", index, error) from error
    return BatchedCommand(type=member.type, payload=command)
