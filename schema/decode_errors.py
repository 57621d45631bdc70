"""Translates msgspec's errors into errors of the protocol: a code, the path of the field, and a readable message.

msgspec reports "Expected `int`, got `str` - at `$.message.timestamp`"; callers get
"$.payload.message.timestamp: expected integer, got string".
"""

import ast
import re
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from backscroll.schema.errors import CallerError, Invalid, Malformed, TooLarge
from backscroll.schema.limits import MILLIS_MAX
from backscroll.schema.size_probe import plain

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError)
"""All exceptions that msgspec raises for bytes it cannot decode."""

JSON_NAMES = {
    "int": "integer",
    "str": "string",
    "float": "number",
    "bool": "boolean",
    "bytes": "binary data",
    "None": "null",
}
FORMS = {
    "^[0-9a-f]{64}$": "64 hexadecimal digits (a SHA-256)",
    "^[0-9A-HJKMNP-TV-Z]{26}$": "a ULID of 26 characters",
    "^[0-9a-f]{32}$": "32 hexadecimal digits",
    "^[A-Za-z0-9._-]{1,64}$(?!\\n)": "1 to 64 letters, digits, dots, hyphens or underscores",
    r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$": "a public key of 40 characters (Z85)",
}
UNITS = {"str": "characters", "array": "items", "bytes": "bytes", "object": "keys"}

_WHERE = re.compile(r"(?P<problem>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<field>.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_LENGTH = re.compile(r"Expected `(?P<type>\w+)` of length (?P<sign>[<>]=) (?P<number>\d+)")
_RANGE = re.compile(r"Expected `\w+` (?P<sign>[<>]=) (?P<number>-?\d+)")
_FORM = re.compile(r"Expected `str` matching regex (?P<literal>'.*'|\".*\")", re.DOTALL)
_ENUM = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_SYNTAX = re.compile(r"(?P<format>JSON|MessagePack data) is malformed: (?P<problem>.*?)(?: \(byte (?P<byte>\d+)\))?")


def explain(error: Exception, root: str, as_type: type[Struct], unknown_field: str = "") -> CallerError:
    """The protocol error for `error`, which msgspec raised while decoding `as_type` at the path `root`.

    `unknown_field` is appended to the message about an unknown field.
    """
    if isinstance(error, RecursionError):
        return Malformed.at(root, "nested too deeply to be decoded")
    if isinstance(error, UnicodeError):
        return Invalid.at(root, "a text is not valid UTF-8")
    if not isinstance(error, msgspec.ValidationError):
        return Malformed.at(root, _syntax_problem(str(error)))
    match = _WHERE.fullmatch(str(error))
    assert match is not None  # the pattern matches any text
    problem, path = match["problem"], root + (match["path"] or "")
    if path == "$" and _TYPE.fullmatch(problem):
        return Malformed.at("$", "the body is not an object (a map of fields)")
    if field := _FIELD.fullmatch(problem):
        inner = f"{match['path'] or ''}.{field['field']}"
        missing = f"required field is missing{_or_null(as_type, inner)}"
        is_missing = field["what"].startswith("missing")
        return Invalid.at(f"{path}.{field['field']}", missing if is_missing else f"unknown field{unknown_field}")
    error_class = TooLarge if " of length <= " in problem else Invalid
    plain_problem = _plain(problem, lambda: known_values(as_type, match["path"] or ""))
    return error_class.at(path, plain_problem + _fields_wanted(problem, as_type, match["path"] or ""))


def known_values(as_type: type[Struct], path: str) -> tuple[str, ...]:
    """The allowed values of the field at `path`, if its type lists them."""
    hint = plain(_hint_at(as_type, path))
    return tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()


def _hint_at(as_type: type[Struct], path: str) -> Any:
    """The annotation of the field at `path`."""
    hint: Any = as_type
    for step in re.findall(r"\.(\w+)|\[", path):
        hint = _inner(hint, step)
    return hint


def _or_null(as_type: type[Struct], path: str) -> str:
    """What to say about a missing field that may be null."""
    return "; give null if it is unset" if NoneType in get_args(_hint_at(as_type, path)) else ""


def _fields_wanted(problem: str, as_type: type[Struct], path: str) -> str:
    """The required fields of the object that is expected at `path`, where something else was found."""
    hint = plain(_hint_at(as_type, path))
    is_record = isinstance(hint, type) and issubclass(hint, Struct)
    if not path or not is_record or not problem.startswith("Expected `object"):
        return ""
    required = [each.encode_name for each in msgspec.structs.fields(hint) if each.required]
    return f"; the object needs {', '.join(required)}" if required else ""


def _inner(hint: Any, field: str) -> Any:
    """The annotation of a record's field, or of a list's items."""
    hint = plain(hint)
    if not field:
        return get_args(hint)[0] if get_args(hint) else Any
    if not (isinstance(hint, type) and issubclass(hint, Struct)):
        return Any
    names = dict(zip(hint.__struct_encode_fields__, hint.__struct_fields__, strict=True))
    return get_type_hints(hint, include_extras=True).get(names.get(field, ""), Any)


def _plain(problem: str, values: Callable[[], tuple[str, ...]]) -> str:
    """msgspec's message about a value in JSON terms."""
    if match := _TYPE.fullmatch(problem):
        if match["expected"] == "null":  # the type of a field that is only in replies; see `strict.py`
            return "only the daemon sets this field; leave it out"
        return f"expected {_type_names(match['expected'])}, got {_type_names(match['got'])}"
    if match := _LENGTH.fullmatch(problem):
        number, unit = int(match["number"]), UNITS.get(match["type"], "items")
        if match["sign"] == ">=":
            return "must not be empty" if number == 1 else f"must have at least {number} {unit}"
        return f"must have at most {number} {unit}"
    if match := _RANGE.fullmatch(problem):
        return _range_problem(match["sign"], int(match["number"]))
    if match := _FORM.fullmatch(problem):
        return f"expected {FORMS.get(ast.literal_eval(match['literal']), 'text in another format')}"
    if match := _ENUM.fullmatch(problem):
        return f"{match['value']} is not one of: {', '.join(values())}"
    return "not valid base64" if "base64" in problem else problem[0].lower() + problem[1:]


def _range_problem(sign: str, number: int) -> str:
    if sign == ">=":
        return f"must be at least {number}"
    if number == MILLIS_MAX:
        end = "the end of the year 9999"
        return f"must be at most {number}, {end}: times are in milliseconds; is this one in microseconds?"
    return f"must be at most {number}"


def _type_names(names: str) -> str:
    """Turn `int | null` into "integer or null"."""
    return " or ".join(JSON_NAMES.get(name, name) for name in names.split(" | "))


def _syntax_problem(problem: str) -> str:
    if problem == "Input data was truncated":
        return "the body ends too early"
    match = _SYNTAX.fullmatch(problem)
    if match is None:
        return problem[0].lower() + problem[1:]
    name = "JSON" if match["format"] == "JSON" else "MessagePack"
    where = f" at byte {match['byte']}" if match["byte"] else ""
    return f"not valid {name}: {match['problem']}{where}"
