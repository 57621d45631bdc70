"""Log files: what is written can be read again, hand-written lines are completed, and errors name their line."""

import re
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from backscroll.schema import DeleteMessage, Generated, Initialize, LogEntry, Message, PutMediaPart, SaveMessage
from backscroll.schema.command_log import CHAIN_START, Change
from backscroll.schema.limits import INTEGER_MAX, MILLIS_MAX
from backscroll.schema.log_file import (
    FIRST_AT,
    BadLine,
    HeaderLine,
    LogHeader,
    LogLine,
    LogReader,
    entry_text,
    header_text,
    time_of,
)
from backscroll.schema.operations import Command
from backscroll.schema.operations.decoding import decode_payload
from backscroll.schema.wire import JSON
from tests.support.strategies import ids, integers, json_objects, records, texts

S = TypeVar("S", bound=Struct)

DIGEST, ULID = "ab" * 32, "01KDVDNK00SVZ77XBJPKBFK8R2"
SALT = "cd" * 16
HEADER = '{"format": "backscroll-log", "version": 1}'


def read(*lines: str) -> list[LogLine]:
    return list(LogReader().read(f"{line}\n".encode() for line in lines))


def entries(*lines: str) -> list[LogEntry]:
    return [line.entry for line in read(*lines)]


def problem(*lines: str) -> str:
    """The message about the first bad one of these lines."""
    with pytest.raises(BadLine) as caught:
        read(*lines)
    return str(caught.value)


def received(value: S) -> S:
    """A command or record as it is decoded from what is sent, into a stricter class."""
    return decode_payload(Raw(JSON.encode(value)), JSON, type(value))


def commands() -> st.SearchStrategy[Command[Any]]:
    return st.one_of(
        records(Message).map(SaveMessage),
        ids().map(DeleteMessage),
        st.binary(max_size=50).map(PutMediaPart),
        st.just(Initialize()),
    )


@st.composite
def log_entries(draw: st.DrawFn) -> LogEntry:
    command = received(draw(commands()))
    kept, redacted = draw(st.booleans()), draw(st.booleans())
    made = st.lists(st.just(ULID), max_size=2)
    client, n = draw(st.just((None, None)) | st.tuples(texts(1, 16), integers(1, INTEGER_MAX)))
    return LogEntry(
        seq=draw(integers(1, INTEGER_MAX)),
        at=draw(integers(0, MILLIS_MAX)),
        id=draw(texts(1, 16)),
        type=command.wire_name,
        payload=command if kept else None,
        changes=draw(st.lists(records(Change).map(received), max_size=2)),
        generated=draw(st.none() | st.builds(Generated, ids=made).map(received)),
        principal=draw(st.none() | ids()),
        client=client,
        n=n,
        salt=None if redacted else draw(st.none() | st.just(SALT)),
        redacted=redacted,
        digest=DIGEST if redacted or not kept else None,
    )


@given(log_entries(), st.none() | texts(1, 32))
def test_an_entry_survives_a_round_trip_as_a_line(entry: LogEntry, scope: str | None) -> None:
    """An entry written as a line is one line in every language, whatever its texts hold, and is read back unchanged."""
    text = entry_text(entry, scope)
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    [line] = read(text)
    assert (line.number, line.scope, line.entry) == (1, scope or "default", entry)
    assert entry_text(line.entry, scope) == text


@given(json_objects())
def test_free_json_is_read_back_exactly(metadata: dict[str, Any]) -> None:
    """`1` and `1.0` stay different, and the order of keys is preserved."""
    message = Message(id="m", room_id="r", sender_id="a", content="", timestamp=0, metadata=metadata)
    entry = LogEntry(seq=1, at=0, id="i", type="save-message", payload=received(SaveMessage(message)))
    [read_again] = entries(entry_text(entry))
    assert repr(read_again) == repr(entry)


def test_a_line_has_a_fixed_key_order_and_omits_defaults() -> None:
    """The keys after `payload` are written only where they are set."""
    entry = LogEntry(
        seq=1, at=2, id="i", type="delete-message", payload={"messageId": "ü"}, digest=DIGEST, chain=DIGEST
    )
    assert entry_text(entry) == (
        '{"seq": 1, "at": 2, "id": "i", "type": "delete-message", "payload": {"messageId": "ü"}}\n'
    )
    full = LogEntry(
        seq=1,
        at=2,
        id="i",
        type="initialize",
        changes=[Change(noun="message")],
        generated=Generated(ids=[ULID]),
        principal="ada",
        client="ada's",
        n=7,
        salt=SALT,
        redacted=True,
        digest=DIGEST,
    )
    assert re.findall(r'"(\w+)": ', entry_text(full, "ada")) == [
        *("seq", "at", "id", "type", "payload", "changes", "noun", "generated", "ids", "principal", "client", "n"),
        *("salt", "redacted", "digest", "scope"),
    ]


def test_a_header_survives_a_round_trip_as_a_line() -> None:
    """A header names the scope, the first and last number, and the chain before and after."""
    header = LogHeader(scope="ada", from_seq=3, chain_start=DIGEST, to=4, chain_end=DIGEST)
    text = header_text(header)
    assert re.findall(r'"(\w+)": ', text) == ["format", "version", "scope", "from", "chainStart", "to", "chainEnd"]
    reader = LogReader()
    [line] = reader.read([text.encode(), b'{"type": "initialize"}'])
    assert reader.header == header
    assert (line.scope, line.entry.seq) == ("ada", 3)
    assert "chainEnd" not in header_text(LogHeader())
    assert CHAIN_START.hex() in header_text(LogHeader())


def test_missing_fields_are_filled_in_deterministically() -> None:
    """Header, blank lines and comments are optional; `seq` counts up, `at` advances by a second, `id` is the line's
    number.
    """
    lines = [
        "# a conversation",
        '{"type": "initialize"}',
        "",
        "  // later that day",
        '{"at": "2026-02-01T00:00:00+01:00", "type": "initialize"}',
        '{"type": "initialize", "id": "mine"}',
    ]
    found = [(entry.seq, entry.at, entry.id) for entry in entries(*lines)]
    later = FIRST_AT + 31 * 24 * 3_600_000 - 3_600_000
    assert found == [(1, FIRST_AT, "line-2"), (2, later, "line-5"), (3, later + 1_000, "mine")]
    assert entries(*lines) == entries(*lines)


def test_a_byte_order_mark_and_crlf_are_ignored() -> None:
    """A byte order mark and carriage returns, as some editors write them, are not part of a line."""
    [line] = LogReader().read([b'\xef\xbb\xbf{"type": "initialize"}\r\n', b"\r\n"])
    assert line.entry.payload == received(Initialize())


def test_each_scope_is_numbered_separately() -> None:
    """Lines of several scopes may be interleaved in one file."""
    lines = read(HEADER, *('{"type": "initialize", "scope": "ada"}', '{"type": "initialize"}') * 2)
    assert [(line.scope, line.entry.seq) for line in lines] == [("ada", 1), ("default", 1), ("ada", 2), ("default", 2)]


def test_log_files_can_be_concatenated() -> None:
    """Lines after a second header belong to that header's scope."""
    lines = read(HEADER, '{"type": "initialize"}', HEADER[:-1] + ', "scope": "ada"}', '{"type": "initialize"}')
    assert [(line.scope, line.entry.seq) for line in lines] == [("default", 1), ("ada", 1)]


def test_read_all_yields_every_header() -> None:
    """Each header comes with its line number, also a last one that no command follows."""
    ada = HEADER[:-1] + ', "scope": "ada", "to": 3}'
    lines = [f"{line}\n".encode() for line in (HEADER, '{"type": "initialize"}', "", ada)]
    first, command, last = LogReader().read_all(lines)
    assert (first, last) == (HeaderLine(1, LogHeader()), HeaderLine(4, LogHeader(scope="ada", to=3)))
    assert [command] == list(LogReader().read(lines))


def test_a_line_may_exceed_the_request_size_limit() -> None:
    """The limit on free JSON applies to requests; as a line of JSON the same data may take more bytes."""
    metadata = {"said": "\x01" * 1_000_000}
    message = Message(id="m", room_id="r", sender_id="a", content="", timestamp=0, metadata=metadata)
    entry = LogEntry(seq=1, at=0, id="i", type="save-message", payload=received(SaveMessage(message)))
    assert entries(entry_text(entry)) == [entry]


def test_numbering_can_continue_after_another_file() -> None:
    """With `next_seq` the numbers continue from there, and the generated ids are distinct from earlier ones."""
    [line] = LogReader(next_seq=5).read([b'{"type": "initialize"}'])
    assert (line.entry.seq, line.entry.id) == (5, "after-4-line-1")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"type": "initialize"} {}', "not a JSON object"),
        ('{"payload": {}}', "$.type: required key is missing"),
        ('{"type": 5}', "$.type: input should be a valid string"),
        ('{"type": "save-mesage"}', "did you mean 'save-message'?"),
        ('{"type": "get-messages", "payload": {"roomId": "r"}}', "$.type: 'get-messages' is not a command"),
        ('{"type": "append-log", "payload": {"entries": []}}', "$.type: 'append-log' is not a command"),
        ('{"type": "delete-message"}', "$.payload.messageId: required field is missing"),
        ('{"type": "delete-message", "payload": []}', "$.payload: expected object, got array"),
        (
            '{"type": "batch", "payload": {"commands": [{"type": "delete-message", "payload": {"messageId": 5}}]}}',
            "$.payload.commands[0].payload.messageId: expected string, got integer",
        ),
        ('{"type": "initialize", "seq": "1"}', "$.seq: input should be a valid integer"),
        ('{"type": "initialize", "seq": 0}', "$.seq: input should be greater"),
        ('{"type": "initialize", "at": true}', "$.at: input should be a valid integer"),
        ('{"type": "initialize", "at": "today"}', "$.at: invalid isoformat string: 'today'"),
        ('{"type": "initialize", "at": "1969-12-31"}', "$.at: input should be greater"),
        ('{"type": "initialize", "id": ""}', "$.id: the text must have 1 to 64 bytes"),
        ('{"type": "initialize", "sequence": 1}', "$.sequence: unknown key"),
        ('{"type": "initialize", "generated": {"ids": [5]}}', "$.generated.ids[0]: expected string, got integer"),
        ('{"type": "initialize", "generated": {"tokens": []}}', "$.generated.tokens: unknown field"),
        ('{"type": "initialize", "changes": [{"noun": "mood"}]}', "$.changes[0].noun: 'mood' is not one of: message, "),
        ('{"type": "initialize", "salt": "00"}', "$.salt: "),
        ('{"type": "initialize", "principal": ""}', "$.principal: must not be empty"),
        ('{"type": "initialize", "client": "a"}', "$.n: required where `client` is given"),
        ('{"type": "initialize", "n": 1}', "$.client: required where `n` is given"),
        ('{"type": "initialize", "client": "a", "n": 0}', "$.n: "),
        ('{"type": "initialize", "redacted": true}', "$.digest: "),
        ('{"type": "initialize", "payload": null}', "$.payload: "),
        ('{"type": "initialize", "digest": "AB"}', "$.digest: "),
        ('{"format": "another-log", "version": 1}', "$.format: "),
        ('{"format": "backscroll-log", "version": 2}', "$.version: "),
    ],
)
def test_an_invalid_line_is_reported_with_number_and_path(line: str, expected: str) -> None:
    """The error gives the line number that an editor shows, and the path of the field."""
    complaint = problem(HEADER, "", '{"type": "initialize"}', line)
    assert complaint.startswith("line 4: ")
    assert expected in complaint


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ['{"type": "initialize", "seq": 3}', '{"type": "initialize", "seq": 5}'],
            "line 2: $.seq: expected 4, got 5",
        ),
        (
            ['{"type": "initialize", "seq": 3}', '{"type": "initialize", "seq": 3}'],
            "line 2: $.seq: expected 4, got 3",
        ),
        ([HEADER[:-1] + ', "from": 7}', '{"type": "initialize", "seq": 8}'], "line 2: $.seq: expected 7, got 8"),
    ],
)
def test_a_gap_or_duplicate_in_seq_is_an_error(lines: list[str], expected: str) -> None:
    """A missing or repeated number is reported with its line."""
    assert problem(*lines) == expected


@pytest.mark.parametrize(
    "text", ["1767225600000", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00"]
)
def test_times_are_milliseconds_or_iso_8601(text: str) -> None:
    """A time without an offset is UTC."""
    assert time_of(text) == FIRST_AT
