"""The files of `schema/vectors`: reading, checking and writing them. What they mean is said in their README."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests import ROOT

Vector = dict[str, Any]
VectorFile = dict[str, Any]

DIRECTORY = ROOT / "schema" / "vectors"
LISTS = {
    "codec": ("requests", "replies"),
    "canonical": ("vectors",),
    "hello": ("vectors",),
    "refusals": ("vectors",),
    "zmtp": ("vectors",),
    "retry": ("table", "sequences"),
    "scenarios": ("vectors",),
}
"""The sets in the order of the table, and where in its file each has its vectors."""
KEYS = {
    ("codec", "requests"): {"name", "type", "json", "msgpack", "canonical", "error", "needs"},
    ("codec", "replies"): {"name", "type", "json", "msgpack", "result", "kept", "error", "invalid", "needs"},
    ("canonical", "vectors"): {"name", "type", "json", "canonical", "salt", "digest", "needs"},
    ("hello", "vectors"): {"name", "token", "nonce", "endpoints", "proof"},
    ("refusals", "vectors"): {"name", "before", "json", "hex", "expand", "id", "error", "needs"},
    ("zmtp", "vectors"): {"name", "connections"},
    ("retry", "table"): {"name", "state", "event", "to", "outcome"},
    ("retry", "sequences"): {"name", "events"},
    ("scenarios", "vectors"): {"name", "steps"},
}
"""The keys that a vector may have."""
WIDTH = 120


class Result(NamedTuple):
    """What a runner prints of a vector; `ok` is None where the language cannot express what it needs."""

    set: str
    name: str
    ok: bool | None
    why: str = ""


def load(directory: Path, name: str) -> VectorFile:
    """The content of a set's file; raises `ValueError` if it is not well formed."""
    found: VectorFile = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    names = [vector.get("name") for _, vector in vectors_in(found, name)]
    if any(not each for each in names) or len(set(names)) < len(names):
        raise ValueError(f"{name}.json: every vector needs a name of its own")
    for which, vector in vectors_in(found, name):
        if unknown := set(vector) - KEYS[name, which]:
            raise ValueError(f"{name}.json: {vector['name']}: unknown keys {sorted(unknown)}")
    return found


def vectors_in(content: VectorFile, name: str) -> Iterator[tuple[str, Vector]]:
    """The vectors of a set, each with the list in which it is."""
    return ((which, vector) for which in LISTS[name] for vector in content[which])


def write(directory: Path, name: str, content: VectorFile) -> None:
    """Write a set's file."""
    (directory / f"{name}.json").write_text(pretty(content) + "\n", encoding="utf-8")


def pretty(value: Any, indent: int = 0) -> str:
    """JSON that people can read: a value on one line where it fits."""
    text = json.dumps(value, ensure_ascii=False)
    if indent + len(text) <= WIDTH or not value or not isinstance(value, dict | list):
        return text
    pairs = value.items() if isinstance(value, dict) else [("", each) for each in value]
    heads = [f"{json.dumps(key, ensure_ascii=False)}: " if isinstance(value, dict) else "" for key, _ in pairs]
    lines = [" " * (indent + 1) + head + pretty(each, indent + 1) for head, (_, each) in zip(heads, pairs, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(lines) + "\n" + " " * indent + closing


def expanded(text: str, expand: dict[str, tuple[str, int]]) -> str:
    """A text with its placeholders replaced by what they stand for."""
    for placeholder, (part, times) in expand.items():
        text = text.replace(placeholder, part * times)
    return text


def difference(expected: Vector, actual: Vector) -> str:
    """The parts of a vector that are not as expected; empty if there are none."""
    if "failed" in actual:
        return str(actual["failed"])
    return "; ".join(
        f"{key}: expected {json.dumps(expected.get(key))}, got {json.dumps(actual.get(key))}"
        for key in {**expected, **actual}
        if expected.get(key) != actual.get(key) or (key in expected) != (key in actual)
    )
