"""The template of the schemas that the store for browsers checks payloads with: a compact form of the JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from backscroll.clients.generator.typescript import HEADER, WIDTH
from backscroll.schema.records import Category, Channel, Reaction, RoomMember

Schema = Mapping[str, Any]

OPERATIONS = (
    *("save-message", "get-messages", "get-message-by-id", "get-message-page", "delete-message", "update-message"),
    *("clear-room-messages", "save-reaction", "remove-reaction", "get-reactions-for-message", "save-user", "get-user"),
    *("get-current-user", "set-current-user-id", "get-users-by-room", "update-user", "save-room", "get-room"),
    *("get-all-rooms", "delete-room", "update-room", "save-ban", "remove-ban", "get-bans-for-room", "is-user-banned"),
    *("save-attachment", "get-attachments-for-message", "get-all-attachments", "delete-attachments-for-message"),
    *("get-changes", "initialize", "clear-all-data"),
)
"""What the store for browsers can do."""
KEYS = {f"{each.__name__}Input": each.KEY for each in (Reaction, Channel, Category, RoomMember)}
"""The fields that may not be the same in two items of one list."""
PREFIX = "#/$defs/"


def files(description: Schema) -> dict[str, str]:
    """The generated files by name."""
    return {"schemas.ts": HEADER + "\n" + "\n".join(_schemas(description))}


def _schemas(description: Schema) -> Iterator[str]:
    operations = {name: description["operations"][name] for name in OPERATIONS}
    definitions = description["$defs"]
    yield 'import type { OperationSchema, RecordSchema } from "../validate.js";'
    yield ""
    yield "/** The records in payloads. */"
    yield "export const RECORDS: Readonly<Record<string, RecordSchema>> = {"
    for name in _records_in([each["payload"] for each in operations.values()], definitions):
        yield f"  {_plain(name)}: {{"
        if "Updates" in name:
            yield "    keepsNull: true,"
        yield from _fields(definitions[name], definitions.get(_plain(name)), "    ")
        yield "  },"
    yield "};"
    yield ""
    yield "/** The operations of a store in a browser. */"
    yield "export const SCHEMAS = {"
    for name, operation in operations.items():
        yield f"  {json.dumps(name) if '-' in name else name}: {{"
        yield f'    kind: "{operation["kind"]}",'
        yield from _fields(operation["payload"], None, "    ", without="arrival")
        yield "  },"
    yield "} as const satisfies Record<string, OperationSchema>;"
    yield ""


def _records_in(schemas: list[Schema], definitions: Schema) -> list[str]:
    """The names of the records in schemas, and in these records."""
    found: set[str] = set()
    pending: list[Any] = list(schemas)
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).removeprefix(PREFIX)
            if name and name not in found:
                found.add(name)
                pending.append(definitions[name])
            pending += each.values()
        elif isinstance(each, list):
            pending += each
    return sorted(found)


def _plain(name: str) -> str:
    return name.removesuffix("Input")


def _fields(schema: Schema, reply: Schema | None, indent: str, without: str = "") -> Iterator[str]:
    """The fields of a record; `reply` is its schema in replies, which always have some fields with a default."""
    spelled_out = reply["required"] if reply is not None else ()
    fields = {name: each for name, each in schema["properties"].items() if each.get("type") != "null"}
    written = {
        name: _field(each, name in schema["required"], name in spelled_out)
        for name, each in fields.items()
        if name != without
    }
    if not written:
        yield f"{indent}fields: {{}},"
        return
    yield f"{indent}fields: {{"
    for name, parts in written.items():
        line = f"{indent}  {name}: {_literal(parts)},"
        if len(line) <= WIDTH:
            yield line
        else:
            yield f"{indent}  {name}: {{"
            yield from (f"{indent}    {part}: {_literal(each)}," for part, each in parts.items())
            yield f"{indent}  }},"
    yield f"{indent}}},"


def _field(schema: Schema, required: bool, spelled_out: bool) -> dict[str, Any]:
    alternatives = schema.get("anyOf", [schema])
    [value] = [each for each in alternatives if each.get("type") != "null"]
    parts = _value(value)
    if len(alternatives) > 1:
        parts["nullable"] = True
    if required:
        parts["required"] = True
    elif schema.get("default") is not None:
        parts["default"] = schema["default"]
        if spelled_out:
            parts["always"] = True
    return parts


def _value(schema: Schema) -> dict[str, Any]:
    """The compact form of a schema."""
    if "$ref" in schema:
        return {"type": "record", "record": _plain(schema["$ref"].removeprefix(PREFIX))}
    if "enum" in schema:
        return {"type": "string", "values": schema["enum"]}
    parts: dict[str, Any] = {"type": schema["type"]}
    for short, names in (("min", ("minimum", "minLength", "minItems")), ("max", ("maximum", "maxLength", "maxItems"))):
        for name in names:
            if name in schema:
                parts[short] = schema[name]
    if schema.get("items"):
        parts["items"] = _value(schema["items"])
        key = KEYS.get(schema["items"].get("$ref", "").removeprefix(PREFIX))
        if key:
            parts["key"] = [_camel(each) for each in key]
    return parts


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.capitalize() for each in others)


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name}: {_literal(each)}' for name, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value)
