"""What every operation is: a frozen record of its payload that knows its wire name and the type of its result."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_args

from msgspec import Raw, Struct

from backscroll.schema.limits import BATCH_COMMANDS_MAX, BODY_BYTES_MAX, FREE_JSON_BYTES_MAX

R = TypeVar("R", covariant=True)


class Operation(Struct, Generic[R], frozen=True, rename="camel", omit_defaults=True):
    """A request. `class SaveMessage(Command[None])` is `save-message` in the protocol and its result is null.

    `SINCE` is the protocol level in which it appeared. `MEANING` goes up when what it does changes although its fields do
    not. `REPLACED_BY` is the operation that new code should use instead,
    by its name. `ERRORS` names the codes, besides those that every operation may get, that it is refused with.
    """

    SINCE: ClassVar[int] = 1
    MEANING: ClassVar[int] = 1
    REPLACED_BY: ClassVar[str | None] = None
    ERRORS: ClassVar[tuple[str, ...]] = ()

    wire_name: ClassVar[str]
    reply_type: ClassVar[Any]
    body_bytes_max: ClassVar[int] = BODY_BYTES_MAX
    deferred_type: ClassVar["type[DeferredCommands] | None"] = None
    """How it is decoded first, where it contains commands."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.wire_name = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        for base in getattr(cls, "__orig_bases__", ()):
            cls.reply_type = get_args(base)[0]


class Command(Operation[R], Generic[R], frozen=True):
    """Changes the database. Takes a `seq` of its own, and a row in the command log.

    `REDACTABLE` names the fields whose text is erased from the log when the thing that they are about is deleted, with
    what replaces it. `NOUN` and `KEY` say which thing that is, where the command names one without a record.
    `RESULT_SECRET` is the field of the result, if any, that the log must not keep: a token made by `new_token`.
    `ALONE` keeps it out of batches. A command that holds secrets or the bytes of files has a method `as_logged` that
    returns it as the log keeps it, with hashes in place of them.
    """

    NOUN: ClassVar[str] = ""
    KEY: ClassVar[tuple[str, ...]] = ()
    REDACTABLE: ClassVar[Mapping[str, Any]] = {}
    RESULT_SECRET: ClassVar[str | None] = None
    ALONE: ClassVar[bool] = False


class Query(Operation[R], Generic[R], frozen=True):
    """Reads and changes nothing. At most `run_max` of them are answered from one snapshot, their replies in memory."""

    run_max: ClassVar[int] = 64


class Builtin(Query[R], Generic[R], frozen=True):
    """A query that is answered at once and without a database."""


class Maintenance(Operation[R], Generic[R], frozen=True):
    """About a whole scope; executed alone, between the scope's commits, and takes no `seq`."""


DecodeCommand = Callable[[str, Raw], Command[Any]]
"""Decodes the command of this wire name from its payload; errors name fields from the command's own root."""


class Budget:
    """How much the commands inside one request may contain together: bytes of free JSON, and commands."""

    def __init__(
        self,
        free_json_bytes: float = FREE_JSON_BYTES_MAX,
        commands: float = BATCH_COMMANDS_MAX,
        subject: str = "the request",
    ) -> None:
        self.free_json_bytes = free_json_bytes
        self.commands = commands
        self.subject = subject


class DeferredCommands(Struct, frozen=True):
    """An operation as it is decoded first, with the commands inside it still encoded."""

    def with_commands(self, decode: DecodeCommand) -> Operation[Any]:
        """The operation with its commands decoded."""
        raise NotImplementedError

    def encoded_commands(self) -> list[tuple[str, Raw]]:
        """The commands' names and encoded payloads."""
        raise NotImplementedError

    def budget(self) -> Budget:
        """How much may be inside."""
        return Budget()
