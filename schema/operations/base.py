"""What every operation is: a frozen record of its payload that knows its wire name and its reply's type."""

import re
from typing import Any, ClassVar, Generic, TypeVar, get_args

from msgspec import Struct

R = TypeVar("R", covariant=True)


class Operation(Struct, Generic[R], frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A request. `class SaveMessage(Command[None])` is `save-message` on the wire and replies null."""

    wire_name: ClassVar[str]
    reply_type: ClassVar[Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.wire_name = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        for base in getattr(cls, "__orig_bases__", ()):
            cls.reply_type = get_args(base)[0]


class Command(Operation[R], Generic[R], frozen=True):
    """Changes the file. Takes a `seq` of its own."""


class Query(Operation[R], Generic[R], frozen=True):
    """Reads the file and changes nothing. `run_max` of them may be answered from one snapshot, replies in memory."""

    run_max: ClassVar[int] = 64


class Builtin(Query[R], Generic[R], frozen=True):
    """A query that is answered at once and without a database."""


class Maintenance(Operation[R], Generic[R], frozen=True):
    """About a whole scope; carried out alone, between the scope's commits, and takes no `seq`."""
