"""Handlers of tests in place of the product's."""

from collections.abc import Callable, Mapping
from typing import Any

from backscroll.handlers import HANDLERS, Handlers
from backscroll.schema.operations import Operation


def handler_of(operation: type[Operation[Any]]) -> Callable[..., Any]:
    """The product's handler of an operation."""
    return HANDLERS[operation.wire_name].function


def replacing(functions: Mapping[type[Operation[Any]], Callable[..., Any]]) -> Handlers:
    """All handlers, with these functions in place of the product's; their caching stays the same."""
    changed = {each.wire_name: HANDLERS[each.wire_name]._replace(function=new) for each, new in functions.items()}
    return {**HANDLERS, **changed}
