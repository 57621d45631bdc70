"""`backscroll describe`: which operations there are, and what each takes, returns and refuses."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backscroll.clients.command_line import output
from backscroll.clients.command_line.exits import EXIT_USAGE, complain
from backscroll.clients.command_line.schemas import definitions_in, limits_of
from backscroll.clients.command_line.suggestions import did_you_mean
from backscroll.schema.description import describe as describe_language
from backscroll.schema.description import type_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Data = dict[str, Any]

PIPE_WIDTH = 1_000  # one operation, or one field, stays on one line for grep


def describe(options: argparse.Namespace) -> int:
    """Print all operations, or one of them."""
    language = describe_language()
    name = options.operation
    if name is not None and name not in language["operations"]:
        hint = did_you_mean(name, language["operations"]) or "; `backscroll describe` lists them"
        return complain(f"there is no operation {name!r}{hint}", EXIT_USAGE)
    if options.json:
        described = language if name is None else _only(name, language)
        sys.stdout.write(json.dumps(described, ensure_ascii=False, indent=2) + "\n")
        return 0
    out = output.console(sys.stdout, width_elsewhere=PIPE_WIDTH)
    if name is None:
        _show_all(language, out)
    else:
        _show_operation(name, language, out)
    return 0


def _only(name: str, language: Data) -> dict[str, Any]:
    """What the language says of one operation, with the definitions that it refers to."""
    operation = language["operations"][name]
    used = definitions_in([operation["payload"], operation["result"]], language["$defs"])
    return {"name": name, **operation, "$defs": {each: language["$defs"][each] for each in used}}


def _show_all(language: Data, out: "Console") -> None:
    rows = [(name, each["kind"], output.prose(_summary(each))) for name, each in language["operations"].items()]
    out.print(output.table(["operation", "kind", "summary"], rows))


def _summary(operation: Data) -> str:
    replaced = operation.get("replacedBy")
    return f"{operation['summary']} Replaced by {replaced}." if replaced else str(operation["summary"])


def _show_operation(name: str, language: Data, out: "Console") -> None:
    operation, definitions = language["operations"][name], language["$defs"]
    out.print(name, style="bold", end="")
    what = f"{operation['kind']}, right {operation['right']}, since protocol level {operation['since']}"
    out.print(f"  {what}", style="dim")
    for text in (_summary(operation), operation.get("description")):
        if text:
            out.print()
            out.print(output.prose(text))
    _show_fields("payload", operation["payload"], out)
    in_payload = definitions_in([operation["payload"]], definitions)
    for each in in_payload:
        _show_fields(_record_name(each), definitions[each], out)
    _title("result", out)
    out.print(output.prose(f"  {type_name(operation['result'])}"))
    for each in definitions_in([operation["result"]], definitions):
        if each not in in_payload:
            _show_fields(each, definitions[each], out)
    _show_errors(operation["errors"], language, out)
    _title("example", out)
    out.print(f"  {example_line(name, operation['example'])}", soft_wrap=True)


def _title(text: str, out: "Console") -> None:
    out.print()
    out.print(text, style="bold")


def _show_fields(title: str, schema: Data, out: "Console") -> None:
    """The fields of an object: name, type, whether it is required, its limits, and what it means."""
    _title(title, out)
    rows = list(_fields(schema))
    if rows:
        out.print(output.table([""] * len(rows[0]), rows, indent=2))
    else:
        out.print("  no fields" if "properties" in schema else f"  {type_name(schema)}")


def _record_name(definition: str) -> str:
    """The name of a record, also where what requests may hold of it differs from what replies hold."""
    return type_name({"$ref": definition})


def _fields(schema: Data) -> Iterator[list["str | Text"]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        about = ". ".join(filter(None, [limits_of(field), field.get("description")]))
        yield [name, output.prose(type_name(field)), _presence(name in required, field), output.prose(about)]


def _presence(required: bool, field: Data) -> str:
    if required:
        return "required"
    if field.get("default") is None:
        return "optional"
    return f"default {json.dumps(field['default'], ensure_ascii=False)}"


def _show_errors(codes: list[str], language: Data, out: "Console") -> None:
    """The errors of an operation, and the codes of those that every operation may have."""
    everywhere = set.intersection(*(set(each["errors"]) for each in language["operations"].values()))
    rows = [(code, output.prose(language["errors"][code]["summary"])) for code in codes if code not in everywhere]
    if rows or everywhere:
        _title("errors", out)
    if rows:
        out.print(output.table(["", ""], rows, indent=2))
    if everywhere:
        out.print(f"  as every operation: {', '.join(code for code in codes if code in everywhere)}")


def example_line(name: str, payload: Data) -> str:
    """The command that sends an example, as it is typed into a shell."""
    words = ["backscroll", "call", name]
    return shlex.join([*words, json.dumps(payload, ensure_ascii=False)] if payload else words)
