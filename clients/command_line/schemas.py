"""JSON Schema in words: what a value must keep to, and which definitions a schema refers to."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

REFERENCE = "#/$defs/"
INTEGER_MAX = 2**53 - 1
UNITS = {"Length": "characters", "Items": "items"}


def limits_of(schema: Schema) -> str:
    """What a value must keep to, such as `1 to 128 characters`; empty where that is nothing."""
    if "anyOf" in schema:
        return ", ".join(dict.fromkeys(filter(None, map(limits_of, schema["anyOf"]))))
    if "x-unit" in schema:
        return str(schema["x-unit"])
    parts = [
        _range(schema.get("minimum"), schema.get("maximum"), ""),
        *(_range(schema.get(f"min{what}"), schema.get(f"max{what}"), f" {unit}") for what, unit in UNITS.items()),
        f"matches {schema['pattern']}" if "pattern" in schema else "",
        f"known values: {', '.join(schema['x-known-values'])}" if "x-known-values" in schema else "",
    ]
    return ", ".join(filter(None, parts))


def _range(low: int | None, high: int | None, unit: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low:,}{unit}"
    if low is None:
        return f"at most {_number(high)}{unit}"
    return f"{_number(low)} to {_number(high)}{unit}"


def _number(value: int) -> str:
    return {INTEGER_MAX: "2^53-1", -INTEGER_MAX: "-(2^53-1)"}.get(value, f"{value:,}")


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
