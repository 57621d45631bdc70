"""What the documentation comments of all templates say about fields, limits and operations."""

import json

from backscroll.clients.generator.model import Field, Limit, Operation

UNITS = {"ms since 1970-01-01 UTC": "Milliseconds since 1970 (UTC)", "ms": "Milliseconds", "bytes": "Bytes"}
INTEGER_MAX = 2**53 - 1
ABOUT_ENUMS = {
    "Arrival": "In which order what other programs sent arrives here.",
    "ChangeKind": "What happened to an item.",
    "Noun": "A kind of item.",
    "Right": "What a token allows; each right includes those before it.",
    "TaskKind": "What a long task of the daemon does.",
    "TaskState": "Whether a task is running, or how it ended.",
}
"""What each enumeration of `ENUM_NAMES` is."""


def about_field(field: Field, *, in_requests: bool) -> str:
    """What a field means, and then its unit, bounds and default, in one sentence."""
    parts = [UNITS[field.unit]] if field.unit else []
    if in_requests and (bounds := _bounds(field)):
        parts.append(bounds if not parts else lower(bounds))
    if not field.required and field.default not in (None, [], {}):
        parts.append(f"`{json.dumps(field.default)}` if left out")
    return " ".join(filter(None, [field.text, "; ".join(parts) + "." if parts else ""]))


def _bounds(field: Field) -> str:
    kind, least, most = field.type.kind, field.minimum, field.maximum
    if field.type.values or field.unit.startswith("ms since"):
        return ""
    if kind == "integer":
        bounded = most is not None and most < INTEGER_MAX
        if bounded:
            return f"{least:,} to {most:,}" if least is not None else f"At most {most:,}"
        return f"At least {least}" if least is not None and least >= 0 else ""
    unit = {"string": "bytes", "list": "items", "bytes": "characters in base64"}.get(kind)
    if unit is None or most is None:
        return ""
    return f"{least:,} to {most:,} {unit}" if least else f"At most {most:,} {unit}"


def about_limit(limit: Limit) -> str:
    """What a limit holds for, and its unit."""
    unit = f", in {limit.unit}" if limit.unit and not limit.subject.startswith(limit.unit) else ""
    return f"{limit.subject[0].upper()}{limit.subject[1:]}{unit}."


def about_kind(operation: Operation) -> str:
    """The kind of an operation and the right that it needs."""
    rights = {"none": "needs no token", "any": "needs any token over tcp"}
    right = rights.get(operation.right, f"needs the right `{operation.right}` over tcp")
    return f"{operation.kind.capitalize()}; {right}."


def lower(sentence: str) -> str:
    """A sentence that goes on another one; a name in capitals stays."""
    return sentence if sentence[1:2].isupper() else sentence[0].lower() + sentence[1:]
