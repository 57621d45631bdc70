"""Many commands as one."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from msgspec import Meta, Raw, field
from msgspec.structs import replace

from backscroll.schema.errors import CallerError, Invalid, inside
from backscroll.schema.limits import BATCH_COMMANDS_MAX
from backscroll.schema.operations.base import Command, DeferredCommands, Operation, ReadCommand
from backscroll.schema.records import Record

OperationName = Annotated[str, Meta(max_length=64)]
Commands = Annotated[list["BatchedCommand"], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]


class BatchedCommand(Record, frozen=True, kw_only=True):
    """A command inside a batch: its type and its payload."""

    type: OperationName
    payload: Any = field(default_factory=dict)


class Batch(Command[list[Any]], frozen=True):
    """Carry out commands of one scope in their order, all or none of them; the result lists theirs.

    They share one id, one `seq` and one place in the log. If one fails nothing happens, and the error's path and
    `details.index` name it. Batches are not nested, and what is about files or the whole scope is sent alone.

    Example: {"commands": [{"type": "save-ban", "payload": {"ban": {"roomId": "r1", "oderId": "eve",
        "timestamp": 1767225600000}}}, {"type": "delete-message", "payload": {"messageId": "m1"}}]}
    """

    commands: Commands

    @classmethod
    def of(cls, commands: Iterable[Command[Any]]) -> Self:
        """The batch of these commands."""
        return cls([BatchedCommand(type=command.wire_name, payload=command) for command in commands])

    def as_logged(self) -> Self:
        return replace(self, commands=[_as_logged(member) for member in self.commands])


class _ReceivedCommand(BatchedCommand, frozen=True, kw_only=True):
    payload: Raw = Raw()


class _ReceivedBatch(DeferredCommands, frozen=True, forbid_unknown_fields=True):
    commands: Annotated[list[_ReceivedCommand], Meta(min_length=1, max_length=BATCH_COMMANDS_MAX)]

    def opened(self, read: ReadCommand) -> Operation[Any]:
        return Batch([_opened(member, index, read) for index, member in enumerate(self.commands)])

    @property
    def size(self) -> int:
        return len(self.commands)


Batch.deferred_type = _ReceivedBatch


def _as_logged(member: BatchedCommand) -> BatchedCommand:
    payload = member.payload.as_logged()
    return member if payload is member.payload else replace(member, payload=payload)


def _opened(member: _ReceivedCommand, index: int, read: ReadCommand) -> BatchedCommand:
    try:
        if member.type == Batch.wire_name:
            raise Invalid.at("$.type", "a batch holds no batch")
        command = read(member.type, member.payload)
        if command.ALONE:
            raise Invalid.at("$.type", f"{member.type!r} is no part of a batch: send it alone")
    except CallerError as error:
        raise inside(f"$.payload.commands[{index}]", index, error) from error
    return BatchedCommand(type=member.type, payload=command)
