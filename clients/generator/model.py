"""What templates need to know about the language: records, fields and operations, read from its description.

The description is JSON Schema; this is the small part of it that the language uses, without `$ref` and `anyOf`.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Schema = Mapping[str, Any]

Kind = Literal["string", "integer", "number", "boolean", "bytes", "object", "any", "null", "list", "map", "record"]


class Type(NamedTuple):
    """The type of a value.

    `item` is that of the values of a list or a map, `record` the name of a record. A string may have `values`: if it is
    `open`, those are only the ones that this level knows.
    """

    kind: Kind
    nullable: bool = False
    item: "Type | None" = None
    record: str = ""
    values: tuple[str, ...] = ()
    open: bool = False

    @property
    def innermost(self) -> "Type":
        """The type of the values in a list or map, at any depth; otherwise this type."""
        return self if self.item is None else self.item.innermost


class Field(NamedTuple):
    """A field of a record or of a payload, with what it means, if its name does not say it, and its limits."""

    name: str
    type: Type
    required: bool
    text: str = ""
    unit: str = ""
    minimum: int | None = None
    maximum: int | None = None
    default: Any = None


class Record(NamedTuple):
    """A record as replies contain it, or where that differs, as requests may contain it (`MessageInput`).

    `in_requests`: its limits are checked, so they are worth saying.
    `by` is the name of a field whose value tells the type of another one, `variants` the records for its values, None
    where there is none, and `about_value` what that other field means.
    """

    name: str
    summary: str
    fields: tuple[Field, ...]
    in_requests: bool = False
    by: str = ""
    variants: tuple[tuple[str, "Type | None"], ...] = ()
    about_value: str = ""


class Operation(NamedTuple):
    """An operation with its documentation. `errors` are the codes that not every operation has."""

    name: str
    kind: str
    right: str
    summary: str
    description: str
    payload: tuple[Field, ...]
    result: Type
    errors: tuple[str, ...]
    example: Any
    in_batch: bool
    reads: tuple[str, ...]
    replaced_by: str

    @property
    def needs_payload(self) -> bool:
        return any(field.required for field in self.payload)

    @property
    def bytes_fields(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.payload if field.type.kind == "bytes")


class ErrorCode(NamedTuple):
    """An error code, on whose side its reason lies, and what it means."""

    code: str
    fault: str
    summary: str


class Limit(NamedTuple):
    """A limit of the language."""

    name: str
    value: int
    subject: str
    unit: str


class Language(NamedTuple):
    """The whole language of one level."""

    level: int
    records: tuple[Record, ...]
    operations: tuple[Operation, ...]
    errors: tuple[ErrorCode, ...]
    limits: tuple[Limit, ...]


JSON_TYPES = {
    "string": "string",
    "bytes": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "object": "object",
    "map": "object",
    "record": "object",
    "list": "array",
    "null": "null",
}
"""The type of a value in JSON, as JavaScript calls it."""
ENUM_NAMES = {
    "right": "Right",
    "noun": "Noun",
    "nouns": "Noun",
    "kind": "ChangeKind",
    "arrival": "Arrival",
    "task": "TaskKind",
    "state": "TaskState",
}
"""The type of each field whose values are known, in languages in which it has one."""
LEFT_OUT = ("ErrorBody", "BatchedCommandInput")
"""Records that each template writes in its own way: errors, and commands inside a batch."""


def read_language(description: Schema) -> Language:
    """The language from the result of `describe`."""
    definitions = description["$defs"]
    names = {name: _record_name(name, definitions) for name in definitions}
    every = [set(each["errors"]) for each in description["operations"].values() if each["right"] not in ("none", "any")]
    common = set.intersection(*every)
    return Language(
        description["level"],
        tuple(_record(name, schema, names) for name, schema in definitions.items() if name not in LEFT_OUT),
        tuple(_operation(name, each, names, common) for name, each in description["operations"].items()),
        tuple(ErrorCode(code, each["fault"], each["summary"]) for code, each in description["errors"].items()),
        tuple(
            Limit(name, each["value"], each["subject"], each["unit"]) for name, each in description["limits"].items()
        ),
    )


def camel_case(name: str) -> str:
    """`save-message` as `saveMessage`."""
    return re.sub(r"-(\w)", lambda found: found[1].upper(), name)


def pascal_case(name: str) -> str:
    """`save-message` as `SaveMessage`."""
    return camel_case(f"-{name}")


def _record_name(name: str, definitions: Schema) -> str:
    """`MessageInput` beside a `Message` keeps its name; what only requests contain needs no suffix."""
    plain = name.removesuffix("Input")
    return name if plain in definitions else plain


def _record(name: str, schema: Schema, names: Mapping[str, str]) -> Record:
    in_requests = name.endswith("Input")
    fields = _fields(schema, names)
    if not in_requests:
        fields = tuple(_in_reply(field) for field in fields)
    for field, described in schema["properties"].items():
        if "x-by-noun" in described:
            references = {noun: _type(each, names) for noun, each in described["x-by-noun"].items()}
            known = schema["properties"]["noun"]["x-known-values"]
            variants = tuple((noun, references.get(noun)) for noun in known)
            others = tuple(each for each in fields if each.name not in ("noun", field))
            about_value = described.get("description", "")
            return Record(
                names[name], schema["description"], others, by="noun", variants=variants, about_value=about_value
            )
    return Record(names[name], schema["description"], fields, in_requests=in_requests)


def _operation(name: str, described: Schema, names: Mapping[str, str], common: set[str]) -> Operation:
    return Operation(
        name,
        described["kind"],
        described["right"],
        described["summary"],
        described["description"],
        _fields(described["payload"], names),
        _type(described["result"], names),
        tuple(code for code in described["errors"] if code not in common),
        described["example"],
        described.get("batch", False),
        tuple(described.get("reads", ())),
        described.get("replacedBy", ""),
    )


def _fields(schema: Schema, names: Mapping[str, str]) -> tuple[Field, ...]:
    """The fields of a record, without those that a request may only leave out, because only replies have them."""
    fields = (
        _field(name, described, name in schema["required"], names) for name, described in schema["properties"].items()
    )
    return tuple(field for field in fields if field.type.kind != "null")


def _in_reply(field: Field) -> Field:
    """A field as replies have it: one that is unset is left out, and never null."""
    return field if field.required else field._replace(type=field.type._replace(nullable=False))


def _field(name: str, schema: Schema, required: bool, names: Mapping[str, str]) -> Field:
    [inner] = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"][:1] or [schema]
    return Field(
        name,
        _type(schema, names),
        required,
        schema.get("description", ""),
        inner.get("x-unit", schema.get("x-unit", "")),
        inner.get("minimum", inner.get("minLength", inner.get("minItems"))),
        inner.get("maximum", inner.get("maxLength", inner.get("maxItems"))),
        schema.get("default"),
    )


def _type(schema: Schema, names: Mapping[str, str]) -> Type:
    if "anyOf" in schema:
        parts = [_type(each, names) for each in schema["anyOf"]]
        [part] = [each for each in parts if each.kind != "null"][:1]
        return part._replace(nullable=any(each.kind == "null" for each in parts))
    if "$ref" in schema:
        return Type("record", record=names[schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return Type("string", values=tuple(schema["enum"]))
    if "x-known-values" in schema:
        return Type("string", values=tuple(schema["x-known-values"]), open=True)
    if schema.get("contentEncoding") == "base64":
        return Type("bytes")
    if schema.get("type") == "array":
        return Type("list", item=_type(schema.get("items") or {}, names))
    if isinstance(schema.get("additionalProperties"), dict):
        return Type("map", item=_type(schema["additionalProperties"], names))
    return Type(schema.get("type", "any"))
