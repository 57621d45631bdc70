"""The base classes of operations: frozen records of the payload that know their wire name and result type."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, get_args

from msgspec import Raw, Struct

from backscroll.schema.hidden import shown, shown_fields
from backscroll.schema.limits import BATCH_COMMANDS_MAX, BODY_BYTES_MAX, FREE_JSON_BYTES_MAX, WaitMs

R = TypeVar("R", covariant=True)

Right = Literal["none", "any", "read", "write", "admin"]
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
"""What a caller needs for an operation; each includes those before it. `none`: not even a token; `any`: a valid one."""


class Operation(Struct, Generic[R], frozen=True, rename="camel", omit_defaults=True):
    """A request's payload. `class SaveMessage(Command[None])` is `save-message` on the wire, and its result is null.

    `SINCE` is the protocol level that added it. `MEANING` is incremented when its behaviour changes but its fields do
    not. `REPLACED_BY` is the wire name of the operation that new code should use instead. `ERRORS` lists its error
    codes besides those that every operation can have. `RIGHT` is what the caller's token must allow; an operation that
    is `DAEMON_WIDE` also needs a token that is not limited to scopes. An operation with `ADDS = False` stores nothing
    new, or less than it removes: it is executed when there is no room for others.
    """

    RIGHT: ClassVar[Right]
    DAEMON_WIDE: ClassVar[bool] = False

    SINCE: ClassVar[int] = 1
    MEANING: ClassVar[int] = 1
    REPLACED_BY: ClassVar[str | None] = None
    ERRORS: ClassVar[tuple[str, ...]] = ()
    ADDS: ClassVar[bool] = True
    SECRET: ClassVar[tuple[str, ...]] = ()
    """The fields whose values are not shown in a `repr`."""

    wire_name: ClassVar[str]
    reply_type: ClassVar[Any]
    body_bytes_max: ClassVar[int] = BODY_BYTES_MAX
    deferred_type: ClassVar["type[DeferredCommands] | None"] = None
    """For operations that contain commands: the type that is decoded first."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.wire_name = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        for base in getattr(cls, "__orig_bases__", ()):
            cls.reply_type = get_args(base)[0]

    def __repr__(self) -> str:
        return shown(self, self.SECRET)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return shown_fields(self, self.SECRET)


class Command(Operation[R], Generic[R], frozen=True):
    """Changes the database. Each command takes the next `seq` and a row in the command log.

    `REDACTABLE` maps the fields whose text is erased from the log when the item they are about is deleted to their
    replacements. Commands with `ALONE` cannot be part of a batch. A command that contains secrets or the bytes of files
    has a method `as_logged`, which returns the command as it is stored in the log, without them or with hashes in their
    place. No result may contain a secret: results are stored in the log as they are.
    """

    RIGHT: ClassVar[Right] = "write"

    REDACTABLE: ClassVar[Mapping[str, Any]] = {}
    ALONE: ClassVar[bool] = False


class Query(Operation[R], Generic[R], frozen=True):
    """Reads only. Up to `run_max` queries are answered from one snapshot, with all their replies in memory.

    `READS` are the nouns of the changes that can change the result, as in `get-changes`; empty if no change tells.
    """

    RIGHT: ClassVar[Right] = "read"
    READS: ClassVar[tuple[str, ...]] = ()

    run_max: ClassVar[int] = 64


class WaitingQuery(Query[R], Generic[R], frozen=True):
    """A query that can wait: if there is nothing new, it is answered when there is, or after `waitMs`.

    Attributes:
        wait_ms: How long the reply may wait for something new where there is nothing; 0 does not wait.
    """

    wait_ms: WaitMs = 0


class Builtin(Query[R], Generic[R], frozen=True):
    """A query that is answered immediately and without a database."""

    RIGHT: ClassVar[Right] = "any"


class Maintenance(Operation[R], Generic[R], frozen=True):
    """Concerns a whole scope. Executed exclusively, between the scope's commits; takes no `seq`."""

    RIGHT: ClassVar[Right] = "admin"


class Administration(Maintenance[R], Generic[R], frozen=True):
    """Concerns the daemon and no scope: who may connect and call. Needs no database."""

    DAEMON_WIDE = True
    ADDS = False  # tokens and keys are few


DecodeCommand = Callable[[str, Raw], Command[Any]]
"""Decodes a command from its wire name and payload; the paths of errors start at the command."""


class Budget:
    """The limits on all commands inside one request together: bytes of free JSON, and number of commands.

    `subject` names the request in error messages.
    """

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
    """An operation that contains commands, with these commands still encoded.

    With `may_nest`, these commands may themselves contain commands.
    """

    may_nest: ClassVar[bool] = False

    def with_commands(self, decode: DecodeCommand) -> Operation[Any]:
        """The operation with its commands decoded."""
        raise NotImplementedError

    def encoded_commands(self) -> list[tuple[str, Raw]]:
        """The wire names and encoded payloads of the commands."""
        raise NotImplementedError

    def budget(self) -> Budget:
        """The limits on the commands."""
        return Budget()
