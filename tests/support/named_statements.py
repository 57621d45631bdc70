"""The registered statements, found in the modules that have them, with their names."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

from backscroll.handlers.lists import OrderedRows
from backscroll.handlers.message_rows import Deletion
from backscroll.handlers.rooms import ChildList
from backscroll.handlers.rows import TablePages
from backscroll.handlers.sql import Statement
from backscroll.handlers.table_rows import TableRows
from backscroll.handlers.whole_tables import WholeTable


def modules_of(package: ModuleType) -> list[ModuleType]:
    """All modules of a package and of those in it."""
    found = walk_packages(package.__path__, f"{package.__name__}.")
    return [import_module(each.name) for each in found if not each.ispkg]


def statements_in(value: Any) -> Iterator[tuple[str, Statement]]:
    """The statements in a value and in what it consists of, each with the way to it."""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Statement):
        yield "", value
    elif isinstance(value, dict):
        inside = [(getattr(key, "__name__", key), each) for key, each in value.items()]
    elif isinstance(value, tuple | list):
        inside = enumerate(value)
    elif isinstance(value, ModuleType | ChildList | Deletion | OrderedRows | TablePages | TableRows | WholeTable):
        inside = vars(value).items()
    for name, each in inside:
        if not str(name).startswith("__") and not isinstance(each, ModuleType):
            yield from ((f".{name}{path}", found) for path, found in statements_in(each))


def named_in(modules: Iterable[ModuleType]) -> dict[Statement, str]:
    """The statements of some modules, with their names."""
    return {
        found: f"{module.__name__.rpartition('.')[2]}{path}"
        for module in modules
        for path, found in statements_in(module)
        if not path.startswith(".STATEMENTS.")
    }
