"""The tables of README.md and PROTOCOL.md, generated from the description so that they cannot go stale.

A generated part of a page begins with `<!-- generated: NAME -->` and ends with `<!-- /generated -->`.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from backscroll.schema.decode_errors import FORMS
from backscroll.schema.description import describe, type_name
from backscroll.schema.limits import MEDIA_PART_BYTES_MAX
from backscroll.schema.operations import OPERATIONS

PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)

REPLY_RECORDS = (
    *("Session", "Media", "MessagePage", "MessageList", "ScopeInfo", "LogPage", "LogEntry", "Change", "Generated"),
    *(
        "ChangePage",
        "ItemChange",
        "RowPage",
        "AccessToken",
        "ClientKey",
        "KeyList",
        "Proof",
        "Pong",
        "HealthReport",
        "StorageHealth",
    ),
)
"""The records that occur only in replies and logs; all others can be saved too."""


def generate(page: str) -> str:
    """The page with its generated parts brought up to date."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part['name']]()}\n{part[3]}", page)


def operations_table() -> str:
    """A row for each operation: kind, right, payload, result and what it does."""
    rows = ["| operation | | right | payload | result | |", "|---|---|---|---|---|---|"]
    for name, operation in describe()["operations"].items():
        about = operation["summary"]
        if "replacedBy" in operation:
            about += f" New code should use `{operation['replacedBy']}`."
        result = type_name(operation["result"])
        what = f"{operation['kind']} | {operation['right']} | {_payload(operation['payload'])} | {result}"
        rows.append(f"| `{name}` | {what} | {about} |")
    return _lines(rows)


def payload_tables() -> str:
    """A row for each payload field of each operation."""
    rows = ["| operation | field | type | | |", "|---|---|---|---|---|"]
    for name, operation in describe()["operations"].items():
        for field, schema in operation["payload"]["properties"].items():
            required = field in operation["payload"]["required"]
            default = "required" if required else f"default {_json(schema.get('default'))}"
            kind = f"{_type(schema)} or null" if required and _may_be_null(schema) else _type(schema)
            rows.append(f"| `{name}` | `{field}` | {kind} | {_limits(schema)} | {default} |")
    return _lines(rows)


def errors_of_operations_table() -> str:
    """A row for each operation that has error codes of its own."""
    rows = ["| operation | error codes of its own |", "|---|---|"]
    for name, operation in OPERATIONS.items():
        if operation.ERRORS:
            rows.append(f"| `{name}` | {', '.join(f'`{code}`' for code in operation.ERRORS)} |")
    return _lines(rows)


def records_tables() -> str:
    """A table for each record that can be saved: type and unit, required in a save, present in replies."""
    definitions = describe()["$defs"]
    names = [name for name in definitions if f"{name}Input" in definitions and name not in REPLY_RECORDS]
    return "\n".join(_record_table(name, definitions[name], definitions[f"{name}Input"]) for name in names)


def replies_tables() -> str:
    """A table for each record that occurs only in replies and logs."""
    definitions = describe()["$defs"]
    return "\n".join(_record_table(name, definitions[name], None) for name in REPLY_RECORDS)


def errors_table() -> str:
    """A row for each error code."""
    rows = ["| code | fault | retryable | when |", "|---|---|---|---|"]
    for code, error in describe()["errors"].items():
        rows.append(f"| `{code}` | {error['fault']} | {error['retryable']} | {error['summary']} |")
    return _lines(rows)


def limits_table() -> str:
    """A row for each limit."""
    rows = ["| limit on | value | error if exceeded | |", "|---|---|---|---|"]
    for limit in describe()["limits"].values():
        code = f"`{limit['error']}`" if limit["error"] else ""
        rows.append(f"| {limit['subject']} | {_amount(limit['value'], limit['unit'])} | {code} | {limit['note']} |")
    return _lines(rows)


PARTS: Mapping[str, Callable[[], str]] = {
    "operations": operations_table,
    "payloads": payload_tables,
    "operation-errors": errors_of_operations_table,
    "records": records_tables,
    "replies": replies_tables,
    "errors": errors_table,
    "limits": limits_table,
}


def _record_table(name: str, reply: Mapping[str, Any], request: Mapping[str, Any] | None) -> str:
    heading = ["| field | type | in a save | in a reply |", "|---|---|---|---|"]
    if request is None:
        heading = ["| field | type | |", "|---|---|---|"]
    rows = [f"**{name}**: {reply['description']}", "", *heading]
    for field, schema in reply["properties"].items():
        present = "always" if field in reply["required"] else "if set"
        saved = f" {_saved(field, request)} |" if request is not None else ""
        rows.append(f"| `{field}` | {_type(schema)} |{saved} {present} |")
    return _lines(rows)


def _saved(field: str, request: Mapping[str, Any]) -> str:
    if request["properties"][field].get("type") == "null":
        return "refused"
    return "required" if field in request["required"] else "optional"


def _payload(payload: Mapping[str, Any]) -> str:
    fields = (
        name if name in payload["required"] else f"{name}={_json(schema.get('default'))}"
        for name, schema in payload["properties"].items()
    )
    return "`{" + ", ".join(fields) + "}`"


def _type(schema: Mapping[str, Any]) -> str:
    """The name of a type with its unit and known values, without `or null`: unset fields are left out of replies."""
    alternatives = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    words = " or ".join(type_name(each) for each in alternatives) or "null"
    known = [f"`{value}`" for each in alternatives for value in each.get("x-known-values", ())]
    units = [each["x-unit"] for each in alternatives if "x-unit" in each]
    secret = ["secret"] if schema.get("x-secret") else []
    return ", ".join([words, *units, *([f"known: {', '.join(known)}"] if known else []), *secret])


def _may_be_null(schema: Mapping[str, Any]) -> bool:
    return any(each.get("type") == "null" for each in schema.get("anyOf", ()))


def _limits(schema: Mapping[str, Any]) -> str:
    found: dict[str, Any] = {}
    for each in schema.get("anyOf", [schema]):
        found |= each
    if found.get("contentEncoding") == "base64":  # its maxLength counts characters of base64; only parts are binary
        return f"at most {MEDIA_PART_BYTES_MAX} bytes"
    if "pattern" in found:
        return FORMS.get(found["pattern"], "")
    parts = [
        f"{found[least]}–{found[most]}{unit}" if least in found else f"at most {found[most]}{unit}"
        for least, most, unit in (
            ("minLength", "maxLength", " bytes"),
            ("minItems", "maxItems", " items"),
            ("minimum", "maximum", ""),
        )
        if most in found
    ]
    return ", ".join(parts)


def _amount(value: int, unit: str) -> str:
    """A number of bytes in the largest binary unit that divides it; other numbers with their unit."""
    if unit == "bytes":
        for factor, name in ((2**20, "MiB"), (2**10, "KiB")):
            if value >= factor and value % factor == 0:
                return f"{value // factor} {name}"
    return f"{value:,} {unit}".rstrip()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"
