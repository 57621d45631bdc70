"""The table of operations that README.md shows, made from the registry so that it cannot go stale."""

import re
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from backscroll.schema.operations.base import Builtin, Command, Maintenance, Operation


def operations_table(operations: Iterable[type[Operation[Any]]]) -> str:
    """A Markdown table with a row an operation: kind, payload, result and what it does."""
    rows = [
        f"| `{operation.wire_name}` | {_kind(operation)} | {_payload(operation)} | {_name(operation.reply_type)} "
        f"| {_first_sentences(operation)} |"
        for operation in operations
    ]
    return "\n".join(["| operation | | payload | result | |", "|---|---|---|---|---|", *rows]) + "\n"


def _kind(operation: type[Operation[Any]]) -> str:
    if issubclass(operation, Command):
        return "command"
    if issubclass(operation, Maintenance):
        return "maintenance"
    return "built-in" if issubclass(operation, Builtin) else "query"


def _payload(operation: type[Operation[Any]]) -> str:
    fields = msgspec.structs.fields(operation)
    return "`{" + ", ".join(_field(field) for field in fields) + "}`"


def _field(field: msgspec.structs.FieldInfo) -> str:
    return field.encode_name if field.required else f"{field.encode_name}={msgspec.json.encode(field.default).decode()}"


def _name(hint: Any) -> str:
    """A reply's type in words: `Message[]`, `User or null`."""
    if hint in (None, NoneType):
        return "null"
    if get_origin(hint) is Annotated:
        return _name(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_name(member) for member in get_args(hint))
    if get_origin(hint) is list:
        return f"{_name(get_args(hint)[0])}[]"
    return str(hint.__name__)


def _first_sentences(operation: type[Operation[Any]]) -> str:
    summary = (operation.__doc__ or "").split("\n\n")[0]
    return re.sub(r"\s+", " ", summary).strip()
