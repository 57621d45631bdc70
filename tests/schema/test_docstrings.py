"""What docstrings say of records, operations and their fields, and how it gets into the description."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from backscroll.schema import command_log, positions, records, replies, wire
from backscroll.schema.description import describe
from backscroll.schema.docstrings import description_of, example_of, field_texts, own_field_texts, summary_of
from backscroll.schema.operations import OPERATIONS, base
from tests import ROOT

MODULES = {
    *(command_log, positions, records, replies, wire, base),
    *(sys.modules[each.__module__] for each in OPERATIONS.values()),
}
CLASSES = {
    f"{module.__name__}.{name}": each
    for module in sorted(MODULES, key=lambda module: module.__name__)
    for name, each in vars(module).items()
    if isinstance(each, type) and issubclass(each, Struct) and each.__module__ == module.__name__
}
DOCUMENTED = {name: each for name, each in CLASSES.items() if own_field_texts(each)}


class Cup(Struct):
    """A cup
    of tea.

    It is warm,
    mostly.

    It is full.

    Attributes:
        size: How large: `small`, or
            else `large`.
        handles: Most have one.

    Example:
        {"size": "small"}
    """

    size: str
    handles: int


class Mug(Cup):
    """A mug.

    Attributes:
        handles: Always one.
    """


class Glass(Cup):
    """A glass."""


class MugUpdates(Struct):
    """What may change."""

    UPDATES = Mug

    size: str


def test_a_docstring_is_read_in_parts() -> None:
    """Summary, paragraphs, fields and example, each on one line; what is not there is empty."""
    assert summary_of(Cup) == "A cup of tea."
    assert description_of(Cup) == "It is warm, mostly.\n\nIt is full."
    assert own_field_texts(Cup) == {"size": "How large: `small`, or else `large`.", "handles": "Most have one."}
    assert example_of(Cup) == {"size": "small"}
    assert (summary_of(Glass), description_of(Glass), own_field_texts(Glass)) == ("A glass.", "", {})
    assert (summary_of(_Bare), description_of(_Bare), field_texts(_Bare)) == ("", "", {})


class _Bare(Struct):
    size: str


def test_what_a_field_means_is_inherited() -> None:
    """By subclasses, which may say it anew, and by the record of the updates."""
    assert field_texts(Glass) == field_texts(Cup)
    assert field_texts(Mug) == {**field_texts(Cup), "handles": "Always one."}
    assert field_texts(MugUpdates) == field_texts(Mug)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_names_are_fields_of_the_class(name: str) -> None:
    """Each is a field that the class itself has, in its order, with a sentence that it does not inherit already."""
    documented = DOCUMENTED[name]
    texts = own_field_texts(documented)
    assert list(texts) == [each for each in documented.__annotations__ if each in texts]
    assert all(text.endswith((".", "…")) for text in texts.values())
    inherited: dict[str, str] = {}
    for each in documented.__mro__[1:]:
        inherited |= own_field_texts(each)
    assert not texts.items() & inherited.items()


def test_what_fields_mean_is_in_the_description() -> None:
    """Each text is the description of some property, in replies, requests, payloads and envelopes."""
    described = {text for _, text in _described(describe())}
    texts = {text for each in DOCUMENTED.values() for text in own_field_texts(each).values()}
    assert texts - described == set()
    definitions = describe()["$defs"]
    for form in ("Message", "MessageInput", "MessageUpdatesInput"):
        assert definitions[form]["properties"]["sentAt"]["description"] == field_texts(records.Message)["sent_at"]
    assert "description" in definitions["Message"]["properties"]["damaged"]
    assert "description" in describe()["operations"]["get-changes"]["payload"]["properties"]["waitMs"]
    assert "description" in describe()["envelopes"]["request"]["properties"]["deadlineMs"]


def test_no_other_text_has_the_sections() -> None:
    """Neither summaries nor the pages that are made of them show the section about fields."""
    assert "Attributes:" not in json.dumps(describe())
    assert "Attributes:" not in (ROOT / "schema" / "PROTOCOL.md").read_text(encoding="utf-8")


def _described(value: Any) -> Iterator[tuple[str, str]]:
    """The names of all properties that have a description, with it."""
    if isinstance(value, list):
        for each in value:
            yield from _described(each)
    elif isinstance(value, dict):
        for name, schema in value.get("properties", {}).items():
            if "description" in schema:
                yield name, schema["description"]
        for each in value.values():
            yield from _described(each)
