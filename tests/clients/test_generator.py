"""The generator of clients: what is committed is what it writes, and it leaves out nothing of the language."""

import re
from itertools import chain

import pytest

from backscroll.clients.generator import browser
from backscroll.clients.generator.__main__ import BESIDE, TEMPLATES, generated
from backscroll.clients.generator.model import read_language
from backscroll.schema.description import describe
from backscroll.schema.limits import LIMITS
from tests import ROOT

GENERATED = generated()
RUST = "clients/rust/src/generated"
TYPESCRIPT = "clients/typescript/core/src/generated"
BROWSER = "clients/typescript/browser/src/generated"
GO = "clients/go/language"
C = "clients/c/include/backscroll"
JAVA = "clients/java/src/main/java/backscroll"
COMMENT = re.compile(r"/\*\*(.*?)\*/", re.DOTALL)


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_generated_files_are_current(path: str) -> None:
    """`python -m backscroll.clients.generator` would change nothing."""
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path]


def test_no_other_file_is_among_the_generated() -> None:
    """A file that is no longer generated is removed."""
    found = chain.from_iterable((ROOT / folder).iterdir() for folder in TEMPLATES)
    beside = {f"{folder}/{name}" for folder, files in BESIDE.items() for name in files()}
    assert {each.relative_to(ROOT).as_posix() for each in found} == GENERATED.keys() - beside


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


def test_java_has_every_operation_blocking_and_not() -> None:
    """Each is a documented method of both interfaces, with an example, and a record, and what is read may grow."""
    blocking, futures = (GENERATED[f"{JAVA}/requests/{name}.java"] for name in ("Operations", "AsyncOperations"))
    for name in describe()["operations"]:
        method = re.sub(r"-(.)", lambda found: found[1].upper(), name)
        assert re.search(rf"\*/\n(  @Deprecated\n)?  default [\w<>, \[\]]+ {method}\(", blocking)
        assert re.search(rf"  default CompletableFuture<[\w<>, \[\]]+>\s+{method}\(", futures)
        assert re.search(rf"<pre>\S*\n   \* client\.{method}\(", blocking)
        assert f"{JAVA}/requests/{method[0].upper()}{method[1:]}.java" in GENERATED
    assert "unknownFields" in GENERATED[f"{JAVA}/records/Message.java"]
    updates = GENERATED[f"{JAVA}/records/MessageUpdates.java"]
    assert "Update<String> senderId" in updates
    assert "clearSenderId()" in updates
    assert "clearContent()" not in updates


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


def test_every_operation_is_a_go_method_with_an_example() -> None:
    """In Go each has a method after a comment that begins with its name and has an example, which is also compiled."""
    written, examples = (GENERATED[f"clients/go/{name}"] for name in ("methods.go", "methods_test.go"))
    methods = re.findall(r"\n//\t.*client\.(\w+)\(.*\n(?://.*\n)*func \(c \*Client\) (\w+)\(", written)
    assert len(methods) == len(describe()["operations"])
    for example, name in methods:
        assert example == name
        assert f"\n// {name} executes " in written
        assert f"\nfunc ExampleClient_{name}() {{" in examples
        assert f"\n\t{name} " in GENERATED["clients/go/aliases.go"]


def test_go_has_a_type_for_each_state_of_a_field() -> None:
    """What is left out, cleared or set are three states of a field of an update, if it can be cleared at all."""
    updates = GENERATED[f"{GO}/records.go"].partition("type MessageUpdates struct {")[2].partition("\n}")[0]
    assert '\tSenderName update.Field[string] `json:"senderName,omitzero"`' in updates
    assert '\tContent *string `json:"content,omitzero"`' in updates
    assert "\tMentions update.Field[[]string] " in updates


def test_every_operation_is_a_documented_function_in_c() -> None:
    """Each waits or calls back; queries can be followed, commands go into a batch. Each has a comment before it."""
    operations = GENERATED[f"{C}/operations.h"]
    declared = re.findall(r"(\*/\n)?BS_API [\w ]+?\s(bs_\w+)\(", operations)
    assert [name for comment, name in declared if not comment] == []
    names = {name for _, name in declared}
    for name, described in describe()["operations"].items():
        function = f"bs_{name.replace('-', '_')}"
        assert {function, f"{function}_send"} <= names
        assert (f"{function}_watch" in names) == (described["kind"] == "query" and name != "get-changes")
        assert (f"{function}_command" in names) == described.get("batch", False)
    assert operations.count("@code") == operations.count("@endcode") == len(describe()["operations"])


def test_what_fields_mean_is_in_the_structs_of_c() -> None:
    """Each text is in a comment of the headers; a field that may be set, cleared or kept has a type that says so."""
    language = read_language(describe())
    written = GENERATED[f"{C}/records.h"] + GENERATED[f"{C}/payloads.h"]
    comments = "\n".join(
        " ".join(re.sub(r"^ +\* ?", "", each, flags=re.M).split()) for each in COMMENT.findall(written)
    )
    fields = chain(
        chain.from_iterable(each.fields for each in language.records),
        chain.from_iterable(each.payload for each in language.operations),
    )
    assert [each.text for each in fields if each.text not in comments] == []
    [updates] = re.findall(r"typedef struct bs_message_updates \{(.*?)\n\}", written, re.DOTALL)
    members = re.findall(r"^ +([a-z]\w+) \w+;", updates, re.M)
    assert len(members) > 10
    assert [each for each in members if not each.endswith("_update")] == []
    assert '.content = BS_TEXT("hello"),' in GENERATED[f"{C}/operations.h"]
