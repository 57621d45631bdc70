"""Check whether a client written for one protocol level still works with another one.

Compares two descriptions (see `description.py`). A client sends what the old description allows and reads replies
tolerantly, so requests may accept more, replies may gain fields and values, and nothing may be renamed or removed.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from backscroll.schema.operations.base import RIGHTS

Schema = Mapping[str, Any]
Direction = Literal["request", "reply"]

LOWER_BOUNDS, UPPER_BOUNDS = ("minimum", "minLength", "minItems"), ("maximum", "maxLength", "maxItems")
EXACT = ("pattern", "contentEncoding", "additionalProperties", "x-unit")


class Comparison(NamedTuple):
    """The changes that break a client of the old level, and the additions, as text."""

    breaking: list[str]
    additions: list[str]


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two descriptions, as returned by `describe()`."""
    found = _Differences(old["$defs"], new["$defs"])
    found.operations(old["operations"], new["operations"])
    found.errors(old["errors"], new["errors"])
    found.limits(old["limits"], new["limits"])
    for name, direction in (("request", "request"), ("success", "reply"), ("failure", "reply")):
        found.schemas(f"envelope {name}", old["envelopes"][name], new["envelopes"][name], direction)  # type: ignore[arg-type]
    return Comparison(found.breaking, found.additions)


class _Differences:
    def __init__(self, old_definitions: Schema, new_definitions: Schema) -> None:
        self._old, self._new = old_definitions, new_definitions
        self._compared: set[tuple[str, str, str]] = set()
        self.breaking: list[str] = []
        self.additions: list[str] = []

    def operations(self, old: Schema, new: Schema) -> None:
        for name in self._both("operation", old, new):
            before, after = old[name], new[name]
            for key in ("kind", "meaning", "order"):
                if before[key] != after[key]:
                    self.breaking.append(f"{name}: {key} was {before[key]!r} and is {after[key]!r}")
            if RIGHTS.index(after["right"]) > RIGHTS.index(before["right"]):
                self.breaking.append(f"{name}: needed the right {before['right']!r} and needs {after['right']!r}")
            if before.get("batch") and not after.get("batch"):
                self.breaking.append(f"{name}: may no longer be part of a batch")
            self.schemas(name, before["payload"], after["payload"], "request")
            self.schemas(f"{name} result", before["result"], after["result"], "reply")

    def errors(self, old: Schema, new: Schema) -> None:
        for code in self._both("error code", old, new):
            for key in ("fault", "retryable"):
                if old[code][key] != new[code][key]:
                    self.breaking.append(f"{code}: {key} was {old[code][key]!r} and is {new[code][key]!r}")

    def limits(self, old: Schema, new: Schema) -> None:
        for name in self._both("limit", old, new):
            if new[name]["value"] < old[name]["value"]:
                self.breaking.append(f"limit {name}: was {old[name]['value']} and is {new[name]['value']}")

    def schemas(self, where: str, old: Schema, new: Schema, direction: Direction) -> None:
        """Compare the schemas of one place, such as a field."""
        if "anyOf" in old or "anyOf" in new:  # before resolving: alternatives are matched by the names of references
            self._alternatives(where, old, new, direction)
            return
        pair = (old.get("$ref", ""), new.get("$ref", ""), direction)
        if "$ref" in old and "$ref" in new:
            if pair in self._compared:
                return
            self._compared.add(pair)
            where = pair[0].rpartition("/")[2]
        old, new = self._resolved(old, self._old), self._resolved(new, self._new)
        if _type(old) != _type(new):
            self.breaking.append(f"{where}: type was {_type(old)} and is {_type(new)}")
            return
        self._bounds(where, old, new, direction)
        self._values(where, old, new, direction)
        if "properties" in old:
            self._fields(where, old, new, direction)
        if "items" in old and "items" in new:
            self.schemas(f"{where}[]", old["items"], new["items"], direction)

    def _both(self, what: str, old: Schema, new: Schema) -> Iterator[str]:
        """Yield the names that both have; note the others as removed or added."""
        for name in old:
            if name in new:
                yield name
            else:
                self.breaking.append(f"{what} {name} was removed or renamed")
        self.additions += [f"{what} {name}" for name in new if name not in old]

    def _resolved(self, schema: Schema, definitions: Schema) -> Schema:
        resolved: Schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        return resolved

    def _alternatives(self, where: str, old: Schema, new: Schema, direction: Direction) -> None:
        before, after = ({_kind(each): each for each in schema.get("anyOf", [schema])} for schema in (old, new))
        for kind, schema in before.items():
            if kind in after:
                self.schemas(where, schema, after[kind], direction)
            elif direction == "request":
                self.breaking.append(f"{where}: may no longer be {kind}")
        for kind in after:
            if kind not in before and direction == "reply":
                self.breaking.append(f"{where}: may now also be {kind}")

    def _bounds(self, where: str, old: Schema, new: Schema, direction: Direction) -> None:
        for key in EXACT:
            if old.get(key) != new.get(key):
                self.breaking.append(f"{where}: {key} was {old.get(key)!r} and is {new.get(key)!r}")
        if direction == "reply":  # clients do not check replies against limits
            return
        for key in LOWER_BOUNDS:
            if key in new and new[key] > old.get(key, -math.inf):
                self.breaking.append(f"{where}: {key} was {old.get(key)} and is {new[key]}")
        for key in UPPER_BOUNDS:
            if key in new and new[key] < old.get(key, math.inf):
                self.breaking.append(f"{where}: {key} was {old.get(key)} and is {new[key]}")

    def _values(self, where: str, old: Schema, new: Schema, direction: Direction) -> None:
        before, after = set(old.get("enum", ())), set(new.get("enum", ()))
        if direction == "request" and (gone := before - after):
            self.breaking.append(f"{where}: may no longer be {', '.join(sorted(map(str, gone)))}")
        added = after - before | {*new.get("x-known-values", ())} - {*old.get("x-known-values", ())}
        self.additions += [f"{where}: value {value}" for value in sorted(map(str, added))]

    def _fields(self, where: str, old: Schema, new: Schema, direction: Direction) -> None:
        before, after = old["properties"], new.get("properties", {})
        required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
        for name in self._both(f"{where}: field", before, after):
            self.schemas(f"{where}.{name}", before[name], after[name], direction)
            if direction == "request" and name in required_after - required_before:
                self.breaking.append(f"{where}.{name}: is now required")
            if direction == "reply" and name in required_before - required_after:
                self.breaking.append(f"{where}.{name}: is no longer always present")
            if direction == "request" and before[name].get("default") != after[name].get("default"):
                self.breaking.append(f"{where}.{name}: the default was {before[name].get('default')!r}")
        for name in required_after - set(before) if direction == "request" else ():
            self.breaking.append(f"{where}.{name}: is new and required")


def _type(schema: Schema) -> str:
    return "enum" if "enum" in schema else str(schema.get("type", "any"))


def _kind(schema: Schema) -> str:
    """What alternatives are matched by: the name of a reference, or a type."""
    return schema["$ref"].rpartition("/")[2] if "$ref" in schema else _type(schema)
