"""What every operation is: a frozen record of its payload that knows its wire name and its reply's type."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args

from msgspec import Raw, Struct

from backscroll.schema.limits import BODY_BYTES_MAX
from backscroll.schema.wire import Budget

R = TypeVar("R", covariant=True)


class Operation(Struct, Generic[R], frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A request. `class SaveMessage(Command[None])` is `save-message` on the wire and replies null."""

    wire_name: ClassVar[str]
    reply_type: ClassVar[Any]
    body_bytes_max: ClassVar[int] = BODY_BYTES_MAX
    deferred_type: ClassVar["type[DeferredCommands] | None"] = None
    """How it is first decoded, where commands are inside it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.wire_name = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        for base in getattr(cls, "__orig_bases__", ()):
            cls.reply_type = get_args(base)[0]


class Command(Operation[R], Generic[R], frozen=True):
    """Changes the file. Takes a `seq` of its own, and a row in the command log.

    `REDACTABLE` names the fields that hold what people said, with what stands there once it was deleted. `RESULT_SECRET` is
    the field of the result, if any, that the log must not keep: a token made by `new_token`. `ALONE` keeps it out of
    batches.
    """

    REDACTABLE: ClassVar[Mapping[str, Any]] = {}
    RESULT_SECRET: ClassVar[str | None] = None
    ALONE: ClassVar[bool] = False

    def as_logged(self) -> Self:
        """This command as the log keeps it: hashes in place of secrets and of the bytes of files."""
        return self


class Query(Operation[R], Generic[R], frozen=True):
    """Reads the file and changes nothing. `run_max` of them may be answered from one snapshot, replies in memory.

    `KEPT` says that its answer depends on the tables alone: it may be given again for as long as nothing was committed.
    `OF_ROOM` says besides that it depends on nothing but the messages and reactions of the room that `room_id` names:
    it may be given again until one of those changes.
    """

    KEPT: ClassVar[bool] = False
    OF_ROOM: ClassVar[bool] = False
    run_max: ClassVar[int] = 64


class Builtin(Query[R], Generic[R], frozen=True):
    """A query that is answered at once and without a database."""


class Maintenance(Operation[R], Generic[R], frozen=True):
    """About a whole scope; carried out alone, between the scope's commits, and takes no `seq`."""


ReadCommand = Callable[[str, Raw], Command[Any]]
"""Decodes the command of this wire name from its payload; complaints start at the command's own root."""


class DeferredCommands(Struct, frozen=True):
    """An operation as it is first decoded, with the commands inside it still encoded."""

    def opened(self, read: ReadCommand) -> Operation[Any]:
        """The operation with its commands decoded."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many commands are inside."""
        raise NotImplementedError

    def budget(self) -> Budget:
        """How much may be inside."""
        return Budget()
