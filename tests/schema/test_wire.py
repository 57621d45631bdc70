"""Request bodies as any caller may send them: each gets a success or a typed error, and only a success changes data."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.schema.errors import ERRORS, Internal
from backscroll.schema.limits import BODY_BYTES_MAX, INTEGER_MAX, MILLIS_MAX, TEXT_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Operation
from backscroll.schema.wire import JSON, MSGPACK, PROTOCOL_LEVEL, Codec, Envelope, Failure, Reply, codec_of, with_auth
from tests.support.clocks import Clock
from tests.support.messages import message_document
from tests.support.requests import CODECS, body, example, fresh_id, in_sensible_order, result, send
from tests.support.stores import in_process

THREADS = """
import sys, threading
import msgspec
from backscroll.schema.wire import MSGPACK

sys.setswitchinterval(1e-6)
fields = [(f"field_{number}", str) for number in range(20)]
for _ in range(200):
    inner = msgspec.defstruct("Inner", fields)
    outer = msgspec.defstruct("Outer", [("one", inner), ("many", list[inner])])
    body = MSGPACK.encode({"one": {name: "x" for name, _ in fields}, "many": []})
    together = threading.Barrier(3)
    threads = [threading.Thread(target=lambda: (together.wait(), MSGPACK.decode(body, outer))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
MESSAGE = message_document()
PING = [body("ping", codec=codec) for codec in CODECS]
SAVE = [body("save-message", {"message": MESSAGE}, codec) for codec in CODECS]
EMPTY_ARRAY_BOMB = b"\xdd\xff\xff\xff\xff"  # claims four thousand million items
DEPTH = 100_000

both = pytest.mark.parametrize("codec", CODECS, ids=repr)
fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_threads_can_decode_a_new_type_concurrently() -> None:
    """First decodings of a type are serialised, because msgspec crashes the process when they run concurrently."""
    done = subprocess.run([sys.executable, "-c", THREADS], check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Refusal(NamedTuple):
    code: str
    path: str | None
    id: str | int | float | None


Refuse = Callable[[bytes], Refusal]


@pytest.fixture
def refuse(transport: InProcess) -> Refuse:
    """Sends a body that must be refused, and checks that it has no effect besides the error reply."""
    result(transport, "save-message", {"message": {**MESSAGE, "id": "stored"}})

    def send_it(request: bytes) -> Refusal:
        before = contents(transport)
        answer = transport.dispatcher.answer(request)
        codec = codec_of(request)
        assert codec_of(answer) is codec
        reply = codec.decode(answer, Failure)
        assert not reply.ok
        assert reply.error.retryable is (reply.error.code == "deadline-exceeded")
        assert contents(transport) == before
        assert result(transport, "ping", codec=codec) == {"pong": True}
        path = (reply.error.details or {}).get("path")
        assert path is None or reply.error.message.startswith(f"{path}: ")
        return Refusal(reply.error.code, path, reply.id)

    return send_it


def request_1(operation: str, payload: Any = msgspec.UNSET, codec: Codec = JSON, **envelope: Any) -> bytes:
    """The body of a request whose id is `request-1`, unless `envelope` replaces it."""
    return body(operation, payload, codec, **({"id": "request-1"} | envelope))


def contents(transport: InProcess) -> list[dict[str, Any]]:
    """The stored messages, rooms and attachments, each with the scope's `seq`."""
    queries: dict[str, Any] = {"get-messages": {"roomId": "r1"}, "get-all-rooms": {}, "get-all-attachments": {}}
    return [send(transport, body(name, payload, id="looking")) for name, payload in queries.items()]


def save(metadata: bytes, codec: Codec, content: bytes | None = None) -> bytes:
    """A `save-message` whose metadata, or content, is given in its encoded form."""
    message = {**MESSAGE, "metadata": {"a": msgspec.Raw(metadata)}}
    if content is not None:
        message = {**MESSAGE, "content": msgspec.Raw(content)}
    return request_1("save-message", {"message": message}, codec)


# --- what is no envelope ---


def test_an_empty_body_is_malformed(refuse: Refuse) -> None:
    """A body of no bytes is refused; the reply is JSON, because there is nothing to tell the encoding by."""
    assert refuse(b"") == ("malformed", "$", None)


@pytest.mark.parametrize("request_body", SAVE, ids=map(repr, CODECS))
def test_every_truncation_of_a_valid_body_is_malformed(refuse: Refuse, request_body: bytes) -> None:
    """A valid body cut off after any byte is refused."""
    for length in range(1, len(request_body)):
        assert refuse(request_body[:length]).code == "malformed"


@pytest.mark.parametrize("request_body", SAVE, ids=map(repr, CODECS))
@pytest.mark.parametrize("more", [b"\x00", b"\xc0", b"{}", b"x"])
def test_bytes_after_the_body_are_malformed(refuse: Refuse, request_body: bytes, more: bytes) -> None:
    """A body is exactly one map; trailing bytes are refused."""
    assert refuse(request_body + more).code == "malformed"


def test_json_whitespace_around_a_body_is_accepted(transport: InProcess) -> None:
    """JSON allows white space before and after the object."""
    assert send(transport, b" \r\n\t" + PING[0] + b" \n")["ok"]


@both
@pytest.mark.parametrize("value", [None, True, 7, -1, 1.5, "ping", [], ["ping"]], ids=repr)
def test_a_body_that_is_not_a_map_is_malformed(refuse: Refuse, codec: Codec, value: Any) -> None:
    """A request is a map; a scalar or a list is refused at path `$`."""
    assert refuse(codec.encode(value))[:2] == ("malformed", "$")


@pytest.mark.parametrize(
    ("name", "payload", "form"),
    [
        ("revoke-token", {"name": "bad name"}, "1 to 64 letters, digits, dots, hyphens or underscores"),
        ("add-key", {"name": "a", "publicKey": "~" * 40}, "a public key of 40 characters (Z85)"),
        ("hello", {"nonce": "x" * 32}, "32 hexadecimal digits"),
    ],
)
def test_the_form_of_a_text_is_said_in_words(
    transport: InProcess, name: str, payload: dict[str, str], form: str
) -> None:
    """A text that does not match its pattern is refused with what it should look like."""
    error = send(transport, request_1(name, payload))["error"]
    assert (error["code"], f"expected {form}" in error["message"]) == ("invalid", True)


@pytest.mark.parametrize("request_body", [b"\x00", b"\x7f", b"\xc1", b"\xff", b"\xef\xbb\xbf{}", EMPTY_ARRAY_BOMB])
def test_bytes_that_are_neither_json_nor_msgpack_are_malformed(refuse: Refuse, request_body: bytes) -> None:
    """Bytes that are valid in neither encoding, and headers that claim more data than follows, are refused."""
    assert refuse(request_body).code == "malformed"


@pytest.mark.parametrize(
    "request_body",
    [
        b"[" * DEPTH,
        b'{"a":' * DEPTH,
        b'{"id":"x","type":"ping","payload":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"payload":' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b',"id":"x","type":"ping"}',
        b"\x91" * DEPTH,
        b"\x81\xa1a" * DEPTH,
        b"\x83\xa2id\xa1x\xa4type\xa4ping\xa7payload" + b"\x91" * DEPTH + b"\x90",
    ],
    ids=["json lists", "json maps", "json payload", "json payload first", "lists", "maps", "payload"],
)
def test_a_deeply_nested_body_is_malformed(refuse: Refuse, request_body: bytes) -> None:
    """A hundred thousand levels of nesting are refused without overflowing the stack."""
    unknown_field_first = request_body.startswith((b'{"a"', b"\x81\xa1a"))
    assert refuse(request_body).code == ("invalid" if unknown_field_first else "malformed")


@both
def test_a_body_over_the_size_limit_is_too_large(refuse: Refuse, codec: Codec) -> None:
    """The size of a body is checked before it is decoded."""
    assert refuse(request_1("ping", {"a": "x" * BODY_BYTES_MAX}, codec)) == ("too-large", "$", "request-1")


# --- the envelope ---


@both
@pytest.mark.parametrize("request_id", ["a-b", "a:b", "é" * 32, "\x01", "x" * 64, "'; --"], ids=repr)
def test_a_request_id_is_echoed_unchanged(transport: InProcess, codec: Codec, request_id: str) -> None:
    """Any text of 1 to 64 bytes is a valid request id."""
    assert send(transport, body("ping", codec=codec, id=request_id))["id"] == request_id


@both
@pytest.mark.parametrize(
    ("request_id", "code"),
    [
        *(("", "invalid"), (7, "invalid"), (-1.5, "invalid"), (None, "invalid"), ("a\0b", "invalid")),
        *(("x" * 65, "too-large"), ("x" * 10_240, "too-large")),
    ],
    ids=["empty", "number", "fraction", "null", "NUL", "65 bytes", "10 kB"],
)
def test_an_invalid_request_id_is_refused(refuse: Refuse, codec: Codec, request_id: Any, code: str) -> None:
    """An id that is no text, empty or too long is refused, and still echoed as it was sent."""
    refusal = refuse(request_1("ping", codec=codec, id=request_id))
    assert type(refusal.id) is type(request_id)
    assert refusal == (code, "$.id", request_id)


@both
def test_a_request_id_is_measured_in_bytes(refuse: Refuse, codec: Codec) -> None:
    """33 characters of two bytes each exceed the limit of 64 bytes."""
    assert refuse(request_1("ping", codec=codec, id="é" * 33))[:2] == ("too-large", "$.id")


@both
@pytest.mark.parametrize("name", ["id", "type"])
def test_an_envelope_without_id_or_type_is_malformed(refuse: Refuse, codec: Codec, name: str) -> None:
    """The error names the missing field, and the reply echoes the id if there is one."""
    expected_id = None if name == "id" else "request-1"
    assert refuse(request_1("ping", codec=codec, **{name: msgspec.UNSET})) == ("invalid", f"$.{name}", expected_id)


@both
@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("colour", "red", "invalid"),
        ("Id", "x", "invalid"),
        ("deadline_ms", 1, "invalid"),
        ("type", 5, "invalid"),
        ("scope", "", "invalid"),
        ("scope", None, "invalid"),
        ("scope", "x" * 129, "too-large"),
        ("traceparent", 5, "invalid"),
        ("traceparent", "x" * 257, "too-large"),
        ("deadlineMs", -1, "invalid"),
        ("deadlineMs", "5", "invalid"),
        ("deadlineMs", 1.5, "invalid"),
        ("deadlineMs", 2**53, "invalid"),
    ],
)
def test_an_invalid_envelope_field_is_named(refuse: Refuse, codec: Codec, field: str, value: Any, code: str) -> None:
    """Unknown envelope fields and wrong types are refused with the path of the field."""
    assert refuse(request_1("ping", codec=codec, **{field: value})) == (code, f"$.{field}", "request-1")


@both
def test_unknown_operation_error_lists_the_known_operations(transport: InProcess, codec: Codec) -> None:
    """The details of `unknown-operation` list every operation that the daemon has."""
    error = send(transport, body("fly-to-the-moon", codec=codec))["error"]
    assert error["code"] == "unknown-operation"
    assert error["details"]["known"] == sorted(OPERATIONS)


@both
@pytest.mark.parametrize("name", ["", "SaveMessage", "save_message", "save-message ", "SAVE-MESSAGE", "__init__"])
def test_an_operation_name_has_only_one_spelling(refuse: Refuse, codec: Codec, name: str) -> None:
    """Only the exact wire name selects an operation; class names, other cases and trailing spaces do not."""
    assert refuse(request_1(name, {"message": MESSAGE}, codec)).code == "unknown-operation"


@both
def test_a_request_reads_only_the_scope_it_names(transport: InProcess, codec: Codec) -> None:
    """A request sees the data of the scope in its envelope; without one it uses `default`."""
    assert send(transport, body("save-message", {"message": MESSAGE}, codec, scope="other"))["seq"] == 1
    get = ("get-message-by-id", {"messageId": "m1"}, codec)
    assert send(transport, body(*get, scope="other"))["result"]["id"] == "m1"
    envelopes: list[dict[str, Any]] = [{}, {"scope": "default"}, {"scope": "Other"}]
    for envelope in envelopes:
        reply = send(transport, body(*get, **envelope))
        assert (reply["result"], reply["seq"]) == (None, 0)


@both
@pytest.mark.parametrize("operation", ["save-message", "get-messages", "ping"])
def test_a_request_whose_deadline_has_passed_has_no_effect(refuse: Refuse, codec: Codec, operation: str) -> None:
    """A request with `deadlineMs` 0 is refused with `deadline-exceeded`."""
    payload = example(OPERATIONS[operation])
    assert refuse(request_1(operation, payload, codec, deadlineMs=0)) == ("deadline-exceeded", None, "request-1")


@both
def test_the_largest_deadline_is_accepted(transport: InProcess, codec: Codec) -> None:
    """A request with the largest `deadlineMs` and a `traceparent` is executed."""
    assert send(transport, body("ping", codec=codec, deadlineMs=2**53 - 1, traceparent="00-ab-cd-01"))["ok"]


# --- the payload ---


@both
def test_a_payload_without_required_fields_may_be_omitted(transport: InProcess, codec: Codec) -> None:
    """A missing payload, or null, is the same as an empty one."""
    assert result(transport, "get-all-rooms", codec=codec) == []
    assert result(transport, "get-all-rooms", None, codec) == []


@both
def test_a_missing_payload_is_validated_as_an_empty_one(refuse: Refuse, codec: Codec) -> None:
    """Where the payload has a required field, the error names that field."""
    payloads: list[Any] = [msgspec.UNSET, None, {}]
    for payload in payloads:
        assert refuse(request_1("save-message", payload, codec)) == ("invalid", "$.payload.message", "request-1")


@both
@pytest.mark.parametrize("payload", [[], "x", 5, False], ids=repr)
def test_a_payload_that_is_not_a_map_is_invalid(refuse: Refuse, codec: Codec, payload: Any) -> None:
    """A payload of any other type is refused at path `$.payload`."""
    assert refuse(request_1("ping", payload, codec)) == ("invalid", "$.payload", "request-1")


@both
@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"colour": "red"}, "$.payload.message.colour"),
        ({"room_id": "r1"}, "$.payload.message.room_id"),
        ({"timestamp": "1"}, "$.payload.message.timestamp"),
        ({"timestamp": 1.5}, "$.payload.message.timestamp"),
        ({"timestamp": -1.0}, "$.payload.message.timestamp"),
        ({"timestamp": -1}, "$.payload.message.timestamp"),
        ({"timestamp": None}, "$.payload.message.timestamp"),
        ({"timestamp": MILLIS_MAX + 1}, "$.payload.message.timestamp"),
        ({"timestamp": 2**53}, "$.payload.message.timestamp"),
        ({"timestamp": 2**63}, "$.payload.message.timestamp"),
        ({"timestamp": 2**64 - 1}, "$.payload.message.timestamp"),
        ({"revision": -1}, "$.payload.message.revision"),
        ({"revision": 2**53}, "$.payload.message.revision"),
        ({"damaged": ["metadata"]}, "$.payload.message.damaged"),
        ({"content": None}, "$.payload.message.content"),
        ({"isDeleted": 1}, "$.payload.message.isDeleted"),
        ({"isDeleted": None}, "$.payload.message.isDeleted"),
        ({"id": ""}, "$.payload.message.id"),
        ({"id": 5}, "$.payload.message.id"),
        ({"metadata": []}, "$.payload.message.metadata"),
        ({"reactions": {}}, "$.payload.message.reactions"),
        ({"reactions": [{"oderId": "b", "emoji": "x"}]}, "$.payload.message.reactions[0].messageId"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_payload_field_is_named(refuse: Refuse, codec: Codec, change: dict[str, Any], path: str) -> None:
    """The error gives the path of the invalid field, from the root of the body."""
    request = request_1("save-message", {"message": {**MESSAGE, **change}}, codec)
    assert refuse(request) == ("invalid", path, "request-1")


@both
def test_the_largest_integer_is_stored_unchanged(transport: InProcess, codec: Codec) -> None:
    """2**53 - 1, the largest integer of JSON in every language, is stored unchanged, and so is the last valid time."""
    largest = {"revision": INTEGER_MAX, "timestamp": MILLIS_MAX}
    result(transport, "save-message", {"message": {**MESSAGE, **largest}}, codec)
    stored = result(transport, "get-message-by-id", {"messageId": "m1"}, codec)
    assert {name: stored[name] for name in largest} == largest


@both
@pytest.mark.parametrize("number", [1.0, 0.0, float(MILLIS_MAX)], ids=repr)
def test_an_integral_float_is_stored_as_an_integer(transport: InProcess, codec: Codec, number: float) -> None:
    """Languages with one type of number write `1767225600000.0`; it is stored and returned as an integer."""
    reaction = {"messageId": "m1", "oderId": "bob", "emoji": "x", "timestamp": number}
    message = {**MESSAGE, "timestamp": number, "reactions": [reaction], "metadata": {"a": 1.0}}
    result(transport, "save-message", {"message": message}, codec)
    stored = result(transport, "get-message-by-id", {"messageId": "m1"}, codec)
    for integer in (stored["timestamp"], stored["reactions"][0]["timestamp"]):
        assert (type(integer), integer) == (int, number)
    assert repr(stored["metadata"]) == "{'a': 1.0}"


@pytest.mark.parametrize("number", [b"1767225600000.0", b"1.7672256e12", b"1.7672256E+12", b"17672256e5"])
def test_an_integral_float_may_have_an_exponent_in_json(transport: InProcess, number: bytes) -> None:
    """Some languages write large numbers that way."""
    request = request_1("save-message", {"message": {**MESSAGE, "timestamp": msgspec.Raw(number)}}, JSON)
    assert send(transport, request)["ok"]
    assert result(transport, "get-message-by-id", {"messageId": "m1"})["timestamp"] == 1_767_225_600_000


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "1" + "0" * 5_000], ids=len)
def test_json_integers_of_hundreds_of_digits_are_invalid(refuse: Refuse, number: str) -> None:
    """An integer literal of any length is refused at the path of its field."""
    request = b'{"id":"x","type":"get-messages","payload":{"roomId":"r1","offset":%b}}' % number.encode()
    assert refuse(request) == ("invalid", "$.payload.offset", "x")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"01", b"0x1", b"+1", b"1.", b".5"])
def test_nonstandard_json_numbers_are_malformed(refuse: Refuse, number: bytes) -> None:
    """`NaN`, `Infinity`, leading zeros and other extensions of JSON are refused."""
    assert refuse(save(number, JSON)).code == "malformed"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_nan_in_messagepack_is_invalid(refuse: Refuse, number: float) -> None:
    """NaN and infinities, which JSON cannot represent, are refused in MessagePack too."""
    request = save(MSGPACK.encode(number), MSGPACK)
    assert refuse(request) == ("invalid", "$.payload.message.metadata.a", "request-1")
    request = request_1("save-message", {"message": {**MESSAGE, "timestamp": number}}, MSGPACK)
    assert refuse(request) == ("invalid", "$.payload.message.timestamp", "request-1")


@pytest.mark.parametrize(
    "text",
    [rb'"\ud800"', rb'"\udc00"', rb'"\udc00\ud800"', rb'"\ud800x"', rb'"\ud800\n"', b'"\xed\xa0\x80"'],
    ids=repr,
)
def test_lone_surrogates_in_json_are_malformed(refuse: Refuse, text: bytes) -> None:
    """Half a surrogate pair is not text, whether it is escaped or encoded in bytes; the error names the field."""
    refusal = refuse(save(b"", JSON, content=text))
    assert refusal == ("invalid", "$.payload.message.content", "request-1")


@pytest.mark.parametrize("text", [b"\xa3\xed\xa0\x80", b"\xa1\xff", b"\xa2\xc0\x80", b"\xa4\xf5\x80\x80\x80"], ids=repr)
def test_invalid_utf8_in_messagepack_is_malformed(refuse: Refuse, text: bytes) -> None:
    """Text that is not UTF-8 is refused in record fields and in free JSON."""
    assert refuse(save(b"", MSGPACK, content=text)) == ("invalid", "$.payload.message.content", "request-1")
    assert refuse(save(text, MSGPACK)) == ("invalid", "$.payload.message.metadata.a", "request-1")


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xc0\x80"', b'"\xf5\x80\x80\x80"'], ids=repr)
def test_invalid_utf8_in_json_is_malformed(refuse: Refuse, text: bytes) -> None:
    """Text that is not UTF-8 is refused in the payload and in the envelope."""
    assert refuse(save(b"", JSON, content=text)) == ("invalid", "$.payload.message.content", "request-1")
    assert refuse(b'{"id":"x","type":%b}' % text).code == "invalid"


@both
@pytest.mark.parametrize("field", ["id", "roomId", "senderName", "content"])
@pytest.mark.parametrize("text", ["\0", "a\0b", "é" * 200 + "\0"], ids=repr)
def test_nul_in_a_text_is_invalid(refuse: Refuse, codec: Codec, field: str, text: str) -> None:
    """Some languages and databases end a text at NUL, so texts and ids with NUL are refused."""
    request = request_1("save-message", {"message": {**MESSAGE, field: text}}, codec)
    assert refuse(request) == ("invalid", f"$.payload.message.{field}", "request-1")


@both
def test_nul_in_free_json_is_preserved(transport: InProcess, codec: Codec) -> None:
    """The content of free JSON is not checked: every JSON value is returned unchanged."""
    result(transport, "save-message", {"message": {**MESSAGE, "metadata": {"a\0": "a\0b\0"}}}, codec)
    stored = result(transport, "get-message-by-id", {"messageId": "m1"}, codec)
    assert stored["metadata"] == {"a\0": "a\0b\0"}


@both
def test_text_of_exactly_the_size_limit_is_accepted(transport: InProcess, codec: Codec) -> None:
    """A megabyte of four-byte characters is stored and returned."""
    text = "🙂" * (TEXT_BYTES_MAX // 4)
    result(transport, "save-message", {"message": {**MESSAGE, "content": text}}, codec)
    assert result(transport, "get-message-by-id", {"messageId": "m1"}, codec)["content"] == text


@both
@pytest.mark.parametrize(
    "text", ["🙂" * (TEXT_BYTES_MAX // 4) + ".", "x" * (TEXT_BYTES_MAX + 1)], ids=["emoji", "ascii"]
)
def test_text_one_byte_over_the_limit_is_too_large(refuse: Refuse, codec: Codec, text: str) -> None:
    """The limit of a text counts bytes, whatever number of characters they are."""
    request = request_1("save-message", {"message": {**MESSAGE, "content": text}}, codec)
    assert refuse(request) == ("too-large", "$.payload.message.content", "request-1")


# --- laws ---


def test_both_encodings_give_equal_results(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of every operation gets the same reply in JSON and in MessagePack, result or error.

    With the same clock and salts both sides make the same ids and log chain.
    """
    monkeypatch.setitem(cast(Any, SqliteStore.__init__).__kwdefaults__, "random_bytes", bytes)
    in_both = (tmp_path / "json", tmp_path / "msgpack")
    for directory in in_both:
        directory.mkdir()
    with in_process(in_both[0], clock=Clock()) as json_side, in_process(in_both[1], clock=Clock()) as msgpack_side:
        for operation in in_sensible_order():
            payload = msgspec.convert(example(operation), operation)
            in_json = send(json_side, body(operation.wire_name, payload, JSON, id=operation.wire_name))
            in_msgpack = send(msgpack_side, body(operation.wire_name, payload, MSGPACK, id=operation.wire_name))
            assert without_volatile_fields(in_json) == without_volatile_fields(in_msgpack), operation


BY_CHANCE = {"uptimeMs", "bytes", "diskFreeBytes", "directory", "proof", "serverKey"}


@both
@pytest.mark.parametrize("token", ["t", "bot.q8JxYf3m", "ü" * 100, '"\\\n'])
def test_a_token_is_added_to_an_encoded_request(codec: Codec, token: str) -> None:
    """The request is the same as if it had been encoded with its `auth`."""
    for operation in OPERATIONS.values():
        plain = Envelope("id", operation.wire_name, example(operation), "a", "00-trace", 5_000, PROTOCOL_LEVEL)
        sent = with_auth(codec.encode(plain), token)
        assert codec.decode(sent, Envelope) == replace(plain, auth=token)
    assert codec.decode(with_auth(codec.encode(Envelope("i", "ping")), token), Envelope).auth == token


def without_volatile_fields(value: Any) -> Any:
    """A reply without the fields that differ between two daemons: uptime, sizes of files, the disk, secrets."""
    if isinstance(value, list):
        return [without_volatile_fields(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: without_volatile_fields(each) for name, each in value.items() if name not in BY_CHANCE}


VALID = [body(op.wire_name, example(op), codec) for op in OPERATIONS.values() for codec in CODECS]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A valid body with some of its bytes replaced, removed, doubled or taken from another body."""
    mutated = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(mutated)))
        end = draw(st.integers(start, min(len(mutated), start + 8)))
        other = draw(st.sampled_from(VALID))
        new = draw(st.sampled_from([b"", mutated[start:end] * 2, other[start : end + 8]]) | st.binary(max_size=8))
        mutated = mutated[:start] + new + mutated[end:]
    return mutated


@fuzzed
@given(st.one_of(mutations(), st.binary(), st.binary().map(b"{".__add__), st.binary().map(b"\x83\xa2id\xa1x".__add__)))
def test_any_bytes_get_a_reply(transport: InProcess, request_body: bytes) -> None:
    """Any bytes at all get a success or a typed error in their own encoding, and never `internal`."""
    answer = transport.dispatcher.answer(request_body)
    assert codec_of(answer) is codec_of(request_body)
    reply = codec_of(answer).decode(answer, Reply)
    if reply.ok:
        assert reply.error is None
        assert reply.id
    else:
        assert reply.error is not None
        assert reply.error.code in ERRORS
        assert reply.error.code != Internal.code


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@fuzzed
@given(st.data(), st.sampled_from(CODECS), st.sampled_from(list(OPERATIONS.values())))
def test_any_value_in_any_field_gets_a_reply(
    transport: InProcess, data: st.DataObject, codec: Codec, operation: type[Operation[Any]]
) -> None:
    """A well-formed payload with arbitrary values is executed, or refused with an error for its content."""
    names = operation.__struct_encode_fields__
    payload = {**example(operation), **data.draw(st.dictionaries(st.sampled_from([*names, "other"]), json_like))}
    request_id = fresh_id()
    reply = send(transport, body(operation.wire_name, payload, codec, id=request_id))
    assert reply["id"] == request_id
    assert reply["ok"] or reply["error"]["code"] in {"invalid", "too-large", "not-found", "conflict"}
