"""The generator of clients: what is committed is what it writes, and it leaves out nothing of the language."""

import re

import pytest

from backscroll.clients.generator.__main__ import generated
from backscroll.clients.generator.model import read_language
from backscroll.schema.description import describe
from tests import ROOT

GENERATED = generated()
TYPESCRIPT = "clients/typescript/src/generated"


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_generated_files_are_current(path: str) -> None:
    """`python -m backscroll.clients.generator` would change nothing."""
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path]


def test_no_other_file_is_among_the_generated() -> None:
    """A file that is no longer generated is removed."""
    assert {each.relative_to(ROOT).as_posix() for each in (ROOT / TYPESCRIPT).iterdir()} == set(GENERATED)


def test_every_operation_is_a_documented_method() -> None:
    """In TypeScript each has a method after a comment, which ends with its example."""
    methods = GENERATED[f"{TYPESCRIPT}/methods.ts"]
    assert len(re.findall(r"\n   \*/\n  \w+\(", methods)) == len(describe()["operations"])
    assert methods.count("@example") == len(describe()["operations"])


def test_every_field_of_the_language_is_read() -> None:
    """The model has each record and payload with all fields, except those that only a reply may fill."""
    language, described = read_language(describe()), describe()
    for operation in language.operations:
        assert {field.name for field in operation.payload} == set(
            described["operations"][operation.name]["payload"]["properties"]
        )
    message = next(each for each in language.records if each.name == "Message")
    allowed = next(each for each in language.records if each.name == "MessageInput")
    assert {each.name for each in message.fields} - {each.name for each in allowed.fields} == {"damaged", "attachments"}


def test_a_cleared_field_differs_from_an_unchanged_one() -> None:
    """In updates a field may be null only where it can be cleared, and left out always."""
    updates = next(each for each in read_language(describe()).records if each.name == "MessageUpdates")
    fields = {each.name: each for each in updates.fields}
    assert not any(each.required for each in updates.fields)
    assert (fields["content"].type.nullable, fields["senderId"].type.nullable) == (False, True)
