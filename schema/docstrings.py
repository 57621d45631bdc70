"""The parts of the docstrings of records and operations, which the description of the language shows.

After its paragraphs, of which the first is the summary, a docstring may have two sections, in this order: `Attributes:`
says what fields mean whose name and type do not tell, and `Example:`, of operations, is a payload. All is read from the
classes when the language is described, not from source files, which a packaged daemon does not have.
"""

import inspect
import json
import re
from typing import Any

from msgspec import Struct

SECTION = r"(?m)^(Attributes|Example):"  # compiled when it is used: the daemon starts without
ATTRIBUTE = r" {4}(?P<name>\w+): (?P<text>.*)"


def summary_of(documented: type) -> str:
    """The first paragraph, on one line."""
    return (_paragraphs(documented) or [""])[0]


def description_of(documented: type) -> str:
    """The paragraphs after the first one, each on one line."""
    return "\n\n".join(_paragraphs(documented)[1:])


def example_of(documented: type) -> Any:
    """The example payload of an operation."""
    return json.loads(_sections(documented)["Example"])


def field_texts(documented: type) -> dict[str, str]:
    """What fields mean, by their names in Python, also of fields that are inherited or those of the updated record."""
    updated = getattr(documented, "UPDATES", None)
    texts = {} if updated is None else field_texts(updated)
    for each in reversed(documented.__mro__):
        if issubclass(each, Struct) and each is not Struct:
            texts |= own_field_texts(each)
    return texts


def own_field_texts(documented: type) -> dict[str, str]:
    """What fields mean by this class's own docstring."""
    texts: dict[str, str] = {}
    if "Attributes:" not in (documented.__doc__ or ""):  # as in most; it saves taking the docstring apart
        return texts
    name = ""
    for line in filter(None, _sections(documented).get("Attributes", "").splitlines()):
        if (found := re.fullmatch(ATTRIBUTE, line)) is not None:
            name = found["name"]
            texts[name] = found["text"].strip()
        else:
            texts[name] += f" {line.strip()}"
    return texts


def _paragraphs(documented: type) -> list[str]:
    paragraphs = _sections(documented)[""].split("\n\n")
    return [" ".join(each.split()) for each in paragraphs if each.strip()]


def _sections(documented: type) -> dict[str, str]:
    """The text of each section by its title; what comes before the first one has none."""
    text, *rest = re.split(SECTION, inspect.cleandoc(documented.__doc__ or ""))
    return {"": text, **dict(zip(rest[::2], rest[1::2], strict=True))}
