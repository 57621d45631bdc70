"""JSON Schema in words: the type of a value, its limits, and which definitions it refers to."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

REFERENCE = "#/$defs/"
POWERS = {2**53 - 1: "2^53-1", 2**63 - 1: "2^63-1", 2**64 - 1: "2^64-1"}
UNITS = {"Length": "characters", "Items": "items"}


def type_of(schema: Schema) -> str:
    """The type in JSON's words: `string`, `Message[]`, `User or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REFERENCE)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(type_of(each) for each in schema[several]))
    if "enum" in schema:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        item = type_of(schema.get("items", {}))
        return f"({item})[]" if " or " in item else f"{item}[]"
    return "base64 string" if schema.get("contentEncoding") == "base64" else str(kind)


def limits_of(schema: Schema) -> str:
    """The limits of a value, such as `1 to 128 characters`; empty where there are none."""
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return ", ".join(dict.fromkeys(filter(None, (limits_of(each) for each in schema[several]))))
    parts = [
        _range(schema.get("minimum"), schema.get("maximum"), ""),
        *(_range(schema.get(f"min{what}"), schema.get(f"max{what}"), f" {unit}") for what, unit in UNITS.items()),
        f"matches {schema['pattern']}" if "pattern" in schema else "",
    ]
    return ", ".join(filter(None, parts))


def _range(low: int | None, high: int | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low}{unit}"
    if low is None:
        return f"at most {_number(high)}{unit}"
    return f"{_number(low)} to {_number(high)}{unit}"


def _number(value: int) -> str:
    if value < 0:
        return f"-{_number(-value)}"
    return POWERS.get(value, f"{value:,}")


def definitions_in(schemas: Iterable[Schema], definitions: Schema) -> list[str]:
    """The names of all definitions that schemas refer to, by themselves or through others, in the order first met."""
    found: dict[str, None] = {}
    waiting = [name for schema in schemas for name in _references(schema)]
    while waiting:
        name = waiting.pop(0)
        if name not in found and name in definitions:
            found[name] = None
            waiting += _references(definitions[name])
    return list(found)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(REFERENCE)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
