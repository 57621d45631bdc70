"""Representations of records without their secrets, for logs, tracebacks and the output of tests."""

from collections.abc import Collection
from typing import Any

from msgspec import UNSET, Struct


def shown_fields(record: Struct, secret: Collection[str]) -> list[tuple[str, Any]]:
    """The names and values of a record's fields, with `...` for the values of secret ones that are set."""
    values = ((name, getattr(record, name)) for name in record.__struct_fields__)
    return [(name, value if name not in secret or value in (None, UNSET) else ...) for name, value in values]


def shown(record: Struct, secret: Collection[str]) -> str:
    """The `repr` of a record, as msgspec writes it, with `...` for the values of secret fields that are set."""
    fields = ", ".join(
        f"{name}={'...' if value is ... else repr(value)}" for name, value in shown_fields(record, secret)
    )
    return f"{type(record).__name__}({fields})"
