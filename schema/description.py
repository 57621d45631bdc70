"""The whole language as data: what `describe` answers, what levels are compared by, what pages are generated from.

Everything is derived from the classes; schemas are JSON Schema 2020-12, made by msgspec. A record that requests and
replies share has two schemas where they differ: `Message` is what a reply holds, `MessageInput` what a request may hold.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from backscroll.schema.errors import ERRORS, BackscrollError
from backscroll.schema.limits import LIMITS
from backscroll.schema.markers import OneOf, ReplyOnly, Since, marker
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.operations.base import Builtin, Command, Maintenance, Operation
from backscroll.schema.size_probe import present
from backscroll.schema.strict import SPELLED_OUT, strict
from backscroll.schema.wire import LOWEST_COMPATIBLE_LEVEL, PROTOCOL_LEVEL, Envelope, Failure, Success

DIALECT = "https://json-schema.org/draft/2020-12/schema"

COMMON_ERRORS = (
    *("malformed", "unknown-operation", "invalid", "too-large"),
    *("deadline-exceeded", "busy", "unavailable", "internal"),
)
"""What every request may be refused with."""
STORAGE_ERRORS = ("storage",)
"""What requests that need the database may be refused with besides."""

Schema = dict[str, Any]


@cache
def describe() -> dict[str, Any]:
    """The description of the protocol level of this version; not to be changed."""
    operations = list(OPERATIONS.values())
    inputs, definitions = _schemas([strict(each) for each in operations], "Input")
    results, reply_definitions = _schemas([each.reply_type for each in operations], "")
    envelopes, envelope_definitions = _schemas([Envelope, Success, Failure], "")
    payloads = [_own(definitions, each) for each in inputs]
    envelopes = [_own(envelope_definitions, each) for each in envelopes]
    for payload in payloads:
        del payload["description"]  # it is the operation's own
    return {
        "level": PROTOCOL_LEVEL,
        "lowestCompatibleLevel": LOWEST_COMPATIBLE_LEVEL,
        "operations": {
            each.wire_name: _operation(each, payload, result)
            for each, payload, result in zip(operations, payloads, results, strict=True)
        },
        "errors": {code: _error(error) for code, error in ERRORS.items()},
        "limits": {name: limit._asdict() for name, limit in LIMITS.items()},
        "envelopes": dict(zip(("request", "success", "failure"), envelopes, strict=True)),
        "$schema": DIALECT,
        "$defs": dict(sorted((reply_definitions | definitions | envelope_definitions).items())),
    }


def kind_of(operation: type[Operation[Any]]) -> str:
    """What sort of operation it is, in the protocol's words."""
    if issubclass(operation, Command):
        return "command"
    if issubclass(operation, Maintenance):
        return "maintenance"
    return "built-in" if issubclass(operation, Builtin) else "query"


def errors_of(operation: type[Operation[Any]]) -> list[str]:
    """The codes that an operation may be refused with, in the order of `ERRORS`."""
    codes = {*COMMON_ERRORS, *operation.ERRORS}
    if not issubclass(operation, Builtin):
        codes |= set(STORAGE_ERRORS)
    if issubclass(operation, Command):
        codes.add("conflict")  # an id that another command took effect under
    return [code for code in ERRORS if code in codes]


def summary_of(documented: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((documented.__doc__ or "").split("\n\n")[0].split())


def example_of(operation: type[Operation[Any]]) -> Any:
    """The payload that an operation's docstring shows."""
    _, _, text = (operation.__doc__ or "").partition("Example:")
    return json.loads(text)


def _operation(operation: type[Operation[Any]], payload: Schema, result: Schema) -> dict[str, Any]:
    paragraphs = (operation.__doc__ or "").partition("Example:")[0].split("\n\n")[1:]
    described = {
        "kind": kind_of(operation),
        "since": operation.SINCE,
        "meaning": operation.MEANING,
        "summary": summary_of(operation),
        "description": "\n\n".join(" ".join(each.split()) for each in paragraphs if each.strip()),
        "payload": payload,
        "result": result,
        "errors": errors_of(operation),
        "order": _order(operation),
        "example": example_of(operation),
    }
    if issubclass(operation, Command):
        described["batch"] = not operation.ALONE and operation.wire_name != "batch"
    if operation.REPLACED_BY is not None:
        described["replacedBy"] = operation.REPLACED_BY
    return described


def _order(operation: type[Operation[Any]]) -> str:
    """`client`: in the order in which its client sent it; `immediate`: at once; `exclusive`: alone in its scope."""
    if issubclass(operation, Maintenance):
        return "exclusive"
    return "immediate" if issubclass(operation, Builtin) else "client"


def _error(error: type[BackscrollError]) -> dict[str, Any]:
    return {"fault": error.fault, "retryable": error.retries, "since": error.since, "summary": summary_of(error)}


def _schemas(types: Iterable[Any], suffix: str) -> tuple[list[Schema], dict[str, Schema]]:
    """The schemas of types, and the definitions they refer to; the names of these get a suffix."""
    types = list(types)
    schemas, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}" + suffix)
    records = _records_in(types)
    for name, schema in definitions.items():
        _complete(schema, records[name], is_reply=not suffix)
    return list(schemas), {f"{name}{suffix}": schema for name, schema in definitions.items()}


def _own(definitions: dict[str, Schema], reference: Schema) -> Schema:
    """A schema in place of a reference to it, which is taken out of the definitions."""
    return definitions.pop(reference["$ref"].rpartition("/")[2])


def _complete(schema: Schema, record: type[Struct], *, is_reply: bool) -> None:
    """Add what msgspec does not know: known values, levels, and which fields a reply always has."""
    schema.pop("description", None)
    schema.pop("title", None)
    if record.__doc__:
        schema["description"] = summary_of(record)
    hints = get_type_hints(record, include_extras=True)
    for field in msgspec.structs.fields(record):
        described = schema["properties"][field.encode_name]
        hint = present(hints[field.name])
        if is_reply and (known := marker(hint, OneOf)) is not None:
            described["x-known-values"] = list(known.values)
        if (since := marker(hint, Since)) is not None:
            described["x-since"] = since.level
        if is_reply and field.default_factory in SPELLED_OUT:
            schema["required"].append(field.encode_name)
    order = _declared_order(record)
    schema["properties"] = {name: schema["properties"][name] for name in order}
    schema["required"] = [name for name in order if name in schema["required"]]


def _declared_order(record: type[Struct]) -> list[str]:
    """The wire names of a record's fields in the order of its class, those that only the daemon sets last."""
    bases = [base for base in record.__mro__ if issubclass(base, Struct) and base.__name__ == record.__name__]
    hints = get_type_hints(bases[-1], include_extras=True)
    names = zip(bases[-1].__struct_encode_fields__, bases[-1].__struct_fields__, strict=True)
    return [
        wire_name for wire_name, name in sorted(names, key=lambda each: marker(hints[each[1]], ReplyOnly) is not None)
    ]


def _records_in(types: Iterable[Any]) -> dict[str, type[Struct]]:
    """The record types that types are made of, by name."""
    found: dict[str, type[Struct]] = {}
    pending = list(types)
    while pending:
        hint = pending.pop()
        if isinstance(hint, type) and issubclass(hint, Struct):
            if hint.__name__ not in found:
                found[hint.__name__] = hint
                pending += get_type_hints(hint).values()
        else:
            pending += getattr(hint, "__args__", ())
    return found


def type_name(schema: Schema) -> str:
    """A schema in few words: `string`, `Message[]`, `User or null`."""
    if "$ref" in schema:
        return re.sub(r"Input$", "", schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(type_name(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"{type_name(schema['items'])}[]" if schema.get("items") else "array"
    if schema.get("contentEncoding") == "base64":
        return "binary"
    return str(schema.get("type", "any"))
