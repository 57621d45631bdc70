"""The generator of clients: what is committed is what it writes, and it leaves out nothing of the language."""

import re
from itertools import chain

import pytest

from backscroll.clients.generator import browser
from backscroll.clients.generator.__main__ import TEMPLATES, generated
from backscroll.clients.generator.model import read_language
from backscroll.schema.description import describe
from backscroll.schema.limits import LIMITS
from tests import ROOT

GENERATED = generated()
RUST = "clients/rust/src/generated"
TYPESCRIPT = "clients/typescript/core/src/generated"
BROWSER = "clients/typescript/browser/src/generated"
COMMENT = re.compile(r"/\*\*(.*?)\*/", re.DOTALL)


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_generated_files_are_current(path: str) -> None:
    """`python -m backscroll.clients.generator` would change nothing."""
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path]


def test_no_other_file_is_among_the_generated() -> None:
    """A file that is no longer generated is removed."""
    found = chain.from_iterable((ROOT / folder).iterdir() for folder in TEMPLATES)
    assert {each.relative_to(ROOT).as_posix() for each in found} == set(GENERATED)


def test_the_browser_checks_all_that_the_daemon_does() -> None:
    """Its schemas have every record and field of its operations with their limits, and no operation twice."""
    written = GENERATED[f"{BROWSER}/schemas.ts"]
    assert len(set(browser.OPERATIONS)) == len(browser.OPERATIONS) == 32
    for name in browser.OPERATIONS:
        assert re.search(rf'\n  "?{name}"?: {{\n    kind: "(command|query)"', written)
    texts = [each for each in LIMITS.values() if each.subject.startswith("a text")]
    assert [f"max: {each.value}" in written for each in texts] == [True]
    assert "arrival" not in written


def test_every_operation_is_a_documented_method() -> None:
    """In TypeScript each has a method after a comment, which ends with its example."""
    methods = GENERATED[f"{TYPESCRIPT}/methods.ts"]
    assert len(re.findall(r"\n   \*/\n  \w+\(", methods)) == len(describe()["operations"])
    assert methods.count("@example") == len(describe()["operations"])


def test_every_operation_is_a_documented_function_in_rust() -> None:
    """Each has its method with an example, which the compiler checks, and is an `Operation`; some go into a batch."""
    operations = describe()["operations"]
    methods = GENERATED[f"{RUST}/methods.rs"]
    assert methods.count("    pub async fn ") == methods.count("/// ```no_run\n") == len(operations)
    assert GENERATED[f"{RUST}/operations.rs"].count("impl Operation for ") == len(operations)
    in_batch = sum(each.get("batch", False) for each in operations.values())
    assert GENERATED[f"{RUST}/payloads.rs"].count(" for BatchedCommand {") == in_batch


def test_an_update_has_three_states_in_rust() -> None:
    """What can be cleared is an option in an option, with a method that clears it."""
    records = GENERATED[f"{RUST}/records.rs"]
    assert "    pub topic: Option<Option<String>>,\n" in records
    assert "    pub fn clear_topic(mut self) -> Self {\n        self.topic = Some(None);\n" in records
    assert "clear_content" not in records


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


def test_what_fields_mean_is_in_their_comments() -> None:
    """Each text is in the generated file; a field's comment begins with it, and units and limits follow."""
    language = read_language(describe())
    fields = {
        "records.ts": chain.from_iterable(each.fields for each in language.records),
        "payloads.ts": chain.from_iterable(each.payload for each in language.operations),
    }
    for name, documented in fields.items():
        written = GENERATED[f"{TYPESCRIPT}/{name}"]
        comments = {" ".join(re.sub(r"^ +\* ?", "", each, flags=re.M).split()) for each in COMMENT.findall(written)}
        texts = {each.text for each in documented if each.text}
        assert len(texts) > 20
        assert [text for text in texts if not any(each.startswith(text) for each in comments)] == []
    [change] = [each for each in language.records if each.by]
    assert change.about_value.split(":")[0] in GENERATED[f"{TYPESCRIPT}/records.ts"]
    shown = "/** Whether the messages have their `attachments`. `false` if left out. */\n  attachments?: boolean;\n"
    assert shown in GENERATED[f"{TYPESCRIPT}/payloads.ts"]


def test_a_cleared_field_differs_from_an_unchanged_one() -> None:
    """In updates a field may be null only where it can be cleared, and left out always."""
    updates = next(each for each in read_language(describe()).records if each.name == "MessageUpdates")
    fields = {each.name: each for each in updates.fields}
    assert not any(each.required for each in updates.fields)
    assert (fields["content"].type.nullable, fields["senderId"].type.nullable) == (False, True)
