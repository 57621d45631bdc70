"""All operations by wire name: a module for each noun, a class for each operation.

`OPERATIONS` collects the classes automatically. The star imports make them importable from here (and from
`backscroll.schema`) for type checkers and editors; a new module needs a line, a new operation does not.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from backscroll.schema.operations.access import *
from backscroll.schema.operations.attachments import *
from backscroll.schema.operations.bans import *
from backscroll.schema.operations.base import *
from backscroll.schema.operations.batch import *
from backscroll.schema.operations.channels import *
from backscroll.schema.operations.feed import *
from backscroll.schema.operations.lifecycle import *
from backscroll.schema.operations.log import *
from backscroll.schema.operations.media import *
from backscroll.schema.operations.members import *
from backscroll.schema.operations.messages import *
from backscroll.schema.operations.reactions import *
from backscroll.schema.operations.rooms import *
from backscroll.schema.operations.scopes import *
from backscroll.schema.operations.sessions import *
from backscroll.schema.operations.tasks import *
from backscroll.schema.operations.users import *

NOUNS = (
    *("messages", "reactions", "users", "rooms", "members", "channels", "bans", "attachments", "sessions", "media"),
    *("feed", "scopes", "batch", "log", "lifecycle", "tasks", "access"),
)
"""The order of the modules in the documentation; a module that is missing here comes last."""


def _collect() -> dict[str, type[Operation[Any]]]:
    """The operations declared in the modules of this package, in the order of `NOUNS` and of declaration."""
    modules = [each.name for each in iter_modules(__path__)]
    ordered = sorted(modules, key=lambda name: NOUNS.index(name) if name in NOUNS else len(NOUNS))
    found: dict[str, type[Operation[Any]]] = {}
    for name in ordered:
        if name in ("base", "decoding"):
            continue
        module = import_module(f"{__name__}.{name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Operation) and value.__module__ == module.__name__:
                found[value.wire_name] = value
    return found


OPERATIONS: dict[str, type[Operation[Any]]] = _collect()
