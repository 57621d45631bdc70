"""A refusal has the id of its request and the path of the wrong field, however broken the rest of the body is."""

import json
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backscroll.bus.inprocess import InProcess
from backscroll.schema.limits import BODY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.salvage import STEPS_MAX
from backscroll.schema.wire import JSON, MSGPACK, Codec, codec_of
from tests.support.messages import message_document
from tests.support.requests import CODECS, example, send

Plain = dict[str, Any]


def short(value: Any) -> str:
    return re.sub(r"[^\w.\[\]$]+", " ", repr(value))[:40]


IDS: list[Any] = ["request-1", "é" * 32, '"\\/\b\n', "a\0b", "", "x" * 65, "é" * 5_000, 0, 7, -1, 1.5, 2**63, 2**64 - 1]
"""Strings and numbers, most of which are not valid ids; each is returned as it was sent."""

HALVES = [rb"\ud83d", rb"\ude00", rb"\uDBFF", rb"\uDC00"]
"""Escapes for one half of a surrogate pair, as they remain when a text is cut inside an emoji."""

BAD_UTF8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"]
BAD_TEXTS = [*((MSGPACK, bad) for bad in BAD_UTF8), *((JSON, bad) for bad in (*BAD_UTF8, *HALVES))]
"""Texts that are not Unicode. Only JSON has escapes."""

CPU_SECONDS_MAX = 10  # for a hostile body on a slow machine
MIB = 2**20
FULL = BODY_BYTES_MAX - 100  # fills a body beside a few fields
DEPTH = 100_000

both = pytest.mark.parametrize("codec", CODECS, ids=repr)
any_id = pytest.mark.parametrize("request_id", IDS, ids=lambda each: repr(each)[:20])
each_bad_text = pytest.mark.parametrize(("codec", "bad"), BAD_TEXTS, ids=lambda each: short(each).strip())
fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def request(request_id: Any, payload: Any, operation: str = "save-message", **envelope: Any) -> Plain:
    return {"id": request_id, "type": operation, "payload": payload, **envelope}


def check_refusal(
    transport: InProcess, body: bytes, request_id: Any, code: str | None = None, path: str | None = None
) -> Plain:
    """Send a body that must be refused with this id, and with this code and path if given; the error's details."""
    reply = send(transport, body)
    assert not reply["ok"]
    assert (type(reply["id"]), reply["id"]) == (type(request_id), request_id)
    error = reply["error"]
    assert error["code"] in ((code,) if code else ("malformed", "invalid", "too-large"))
    if path is not None:
        assert error["details"]["path"] == path
        assert error["message"].startswith(f"{path}: ")
    details: Plain = error["details"]
    return details


def text(content: bytes, codec: Codec) -> msgspec.Raw:
    """A text of these bytes, which need not be valid. In JSON they are written between quotation marks as they are."""
    return msgspec.Raw(b'"' + content + b'"' if codec is JSON else b"\xd9" + bytes([len(content)]) + content)


# --- the id ---


@both
@any_id
def test_the_id_is_returned_when_a_field_is_wrong(transport: InProcess, codec: Codec, request_id: Any) -> None:
    """The path is that of the first wrong field: the id itself if it is not valid, else the field after it."""
    is_valid = isinstance(request_id, str) and 0 < len(request_id.encode()) <= 64 and "\0" not in request_id
    too_large = isinstance(request_id, str) and len(request_id) > 64
    if not is_valid:
        code = "too-large" if too_large else "invalid"
        check_refusal(transport, codec.encode(request(request_id, {})), request_id, code, "$.id")
        return
    for field, wrong in (("deadlineMs", "soon"), ("scope", 5), ("traceparent", []), ("colour", "red"), ("level", -1)):
        body = codec.encode(request(request_id, {}) | {field: wrong})
        check_refusal(transport, body, request_id, "invalid", f"$.{field}")
    wrong_payload = codec.encode(request(request_id, {"message": message_document(1, timestamp="soon")}))
    check_refusal(transport, wrong_payload, request_id, "invalid", "$.payload.message.timestamp")


@both
@any_id
def test_the_id_is_returned_when_the_body_is_cut_off_after_it(
    transport: InProcess, codec: Codec, request_id: Any
) -> None:
    """At each byte: inside a text, a number, an escape, the header of a list."""
    free = {"a": [1, -2.5, None, True, {"b": "\n\u20ac"}], "é": {}}
    payload = {"message": message_document(1, metadata=free, reactions=[])}
    body = codec.encode(request(request_id, payload, scope="work"))
    id_end = body.index(codec.encode(request_id)) + len(codec.encode(request_id))
    for length in range(id_end, len(body)):
        check_refusal(transport, body[:length], request_id)


@both
@any_id
def test_the_id_is_returned_from_anywhere_in_the_body(transport: InProcess, codec: Codec, request_id: Any) -> None:
    """Between or after other fields, some of which contain an `id` of their own, or text that looks like one."""
    looks = {"id": "inner", "a": '{"id": "text"}', "b": ['"id": 5', {"id": [{"id": 6}]}], '"id"': 7, "": {"id": None}}
    fields = {"payload": {"message": message_document("inner", metadata=looks)}, "type": "save-message", "scope": "x"}
    for position in range(len(fields) + 1):
        items = list(fields.items())
        items.insert(position, ("id", request_id))
        body = codec.encode(dict(items))
        check_refusal(transport, body + b"\xc1}", request_id)
        if position < len(fields):
            check_refusal(transport, body[:-1], request_id)


@both
@pytest.mark.parametrize("request_id", [None, True, [], ["a"], {"id": "inner"}], ids=short)
def test_an_id_that_is_neither_text_nor_number_is_null(transport: InProcess, codec: Codec, request_id: Any) -> None:
    """A client could not match a reply by it."""
    check_refusal(transport, codec.encode(request(request_id, {})), None, "invalid", "$.id")
    check_refusal(transport, codec.encode(request(request_id, {}))[:-1], None)


@both
def test_an_id_that_was_cut_off_is_null(transport: InProcess, codec: Codec) -> None:
    """A part of an id is the id of another request."""
    body = codec.encode({"id": "request-1"})
    for length in range(1, len(body) - (codec is JSON)):
        check_refusal(transport, body[:length], None, "malformed")


@pytest.mark.parametrize("key", [rb'"id"', rb'"\u0069d"', rb'"i\u0064"', b'"id" ', b'"id"\n'], ids=short)
def test_a_key_may_be_written_in_several_ways(transport: InProcess, key: bytes) -> None:
    """Escapes and white space make no difference."""
    check_refusal(transport, b'{"type": "ping", ' + key + b': "x", "payload": {', "x", "malformed")


@pytest.mark.parametrize("key", [b"\xa2id", b"\xd9\x02id", b"\xda\x00\x02id", b"\xdb\x00\x00\x00\x02id"], ids=bytes.hex)
def test_a_key_may_have_a_header_of_any_size(transport: InProcess, key: bytes) -> None:
    """Some encoders of MessagePack always write the larger ones."""
    check_refusal(transport, b"\x83\xa4type\xa4ping" + key + b"\xa1x\xa7payload\x81", "x", "malformed")


@both
def test_a_huge_id_is_not_returned(transport: InProcess, codec: Codec) -> None:
    """The reply to a megabyte of id is not another megabyte."""
    check_refusal(transport, codec.encode(request("x" * MIB, {})), None, "too-large", "$.id")


# --- text that is not Unicode ---

BAD = "<bad>"
PLACES: list[tuple[str, Callable[[Any], Plain]]] = [
    ("$.payload.message.content", lambda bad: message_document(1, bad)),
    ("$.payload.message.id", lambda bad: message_document(1, id=bad)),
    ("$.payload.message.roomId", lambda bad: message_document(1, roomId=bad)),
    ("$.payload.message.senderName", lambda bad: message_document(1, senderName=bad)),
    ("$.payload.message.metadata.a", lambda bad: message_document(1, metadata={"a": bad})),
    (
        "$.payload.message.metadata.a[1].b[2]",
        lambda bad: message_document(1, metadata={"a": [0, {"b": ["", {}, bad]}]}),
    ),
    ("$.payload.message.linkMetadata.a b.é", lambda bad: message_document(1, linkMetadata={"a b": {"": 1, "é": bad}})),
    (
        "$.payload.message.reactions[1].emoji",
        lambda bad: message_document(
            1, reactions=[{"messageId": "m1", "oderId": "a", "emoji": each} for each in ("x", bad)]
        ),
    ),
]
each_place = pytest.mark.parametrize(("path", "message"), PLACES, ids=[path for path, _ in PLACES])


@each_place
@pytest.mark.parametrize("half", HALVES, ids=bytes.decode)
@pytest.mark.parametrize("before", [b"", rb"\\", b"caf\xc3\xa9 ", rb"\ud83d\ude00"], ids=short)
def test_half_a_surrogate_pair_is_named(
    transport: InProcess, path: str, message: Callable[[Any], Plain], half: bytes, before: bytes
) -> None:
    """The path is that of the text, also after an escaped backslash or a whole pair."""
    body = JSON.encode(request("request-1", {"message": message(text(before + half + b"x", JSON))}))
    check_refusal(transport, body, "request-1", "invalid", path)


@pytest.mark.parametrize("fine", [rb"\ud83d\ude00", rb"\\ud83d", rb"\\\\ude00", rb"\uFDD0\uffff", rb"\\\ud83d\ude00"])
def test_what_only_looks_like_half_a_pair_is_accepted(transport: InProcess, fine: bytes) -> None:
    """Pairs, escaped backslashes before the letters of an escape, and noncharacters are text."""
    content = json.loads(b'"' + fine + b'"')
    message = message_document(1, metadata={"a": content}) | {"content": text(fine, JSON)}
    body = JSON.encode(request("request-1", {"message": message}))
    assert send(transport, body)["ok"]
    stored = send(transport, JSON.encode(request("r", {"messageId": "m1"}, "get-message-by-id")))["result"]
    assert stored["content"] == stored["metadata"]["a"] == content
    broken = body.replace(b'"sender', rb'"topic": "\ud83d", "sender', 1)
    check_refusal(transport, broken, "request-1", "invalid", "$.payload.message.topic")


@both
@each_place
@pytest.mark.parametrize("bad", BAD_UTF8, ids=bytes.hex)
def test_invalid_utf8_is_named(
    transport: InProcess, codec: Codec, path: str, message: Callable[[Any], Plain], bad: bytes
) -> None:
    """In both encodings the path is that of the text."""
    body = codec.encode(request("request-1", {"message": message(text(b"a" + bad + b"b", codec))}))
    check_refusal(transport, body, "request-1", "invalid", path)


@each_bad_text
@pytest.mark.parametrize("field", ["type", "scope", "traceparent"])
def test_bad_text_outside_the_payload_is_named(transport: InProcess, codec: Codec, field: str, bad: bytes) -> None:
    """Together with the id."""
    body = codec.encode(request("request-1", {}) | {field: text(bad, codec)})
    check_refusal(transport, body, "request-1", "invalid", f"$.{field}")


@each_bad_text
def test_an_id_that_is_not_unicode_is_null(transport: InProcess, codec: Codec, bad: bytes) -> None:
    """It cannot be returned as it was sent; the path says why."""
    check_refusal(transport, codec.encode(request(text(bad, codec), {}, "ping")), None, "invalid", "$.id")


@each_bad_text
def test_bad_text_in_a_key_has_the_path_of_the_map(transport: InProcess, codec: Codec, bad: bytes) -> None:
    """A key that is not Unicode cannot be part of a path."""
    key = codec.encode("the key")
    body = codec.encode(request("request-1", {"message": message_document(1, metadata={"a": {"the key": 1}})}))
    check_refusal(
        transport, body.replace(key, bytes(text(bad, codec))), "request-1", "invalid", "$.payload.message.metadata.a"
    )


BATCHES: list[tuple[str, str, Callable[[list[Plain]], Plain]]] = [
    ("batch", "commands", lambda commands: {"commands": commands}),
    (
        "append-log",
        "entries",
        lambda commands: {
            "entries": [{"seq": at, "at": 1, "id": f"line-{at}", **each} for at, each in enumerate(commands, 1)]
        },
    ),
]


@pytest.mark.parametrize(("codec", "bad"), [(MSGPACK, b"\xff"), (JSON, b"\xff"), (JSON, rb"\ud83d")], ids=short)
@pytest.mark.parametrize(("operation", "field", "payload"), BATCHES, ids=["batch", "append-log"])
@pytest.mark.parametrize("position", [0, 500, 999])
def test_bad_text_in_one_of_a_thousand_commands_is_named(
    transport: InProcess,
    codec: Codec,
    operation: str,
    field: str,
    payload: Callable[[list[Plain]], Plain],
    position: int,
    bad: bytes,
) -> None:
    """The path and `details.index` lead to the command; none of them is executed."""
    messages = [message_document(number, f"é {number} \U0001f600" * 20) for number in range(1_000)]
    messages[position]["content"] = text(bad, codec)
    commands = [{"type": "save-message", "payload": {"message": each}} for each in messages]
    body = codec.encode(request("request-1", payload(commands), operation))
    path = f"$.payload.{field}[{position}].payload.message.content"
    details = check_refusal(transport, body, "request-1", "invalid", path)
    assert details["index"] == position
    assert send(transport, JSON.encode(request("r", {"roomId": "r1"}, "get-messages")))["result"] == []


# --- hostile bodies ---


def nested(levels: int, innermost: bytes, *, wide: int) -> bytes:
    """JSON lists inside each other, with so many empty lists before each."""
    return (b"[" + b"[]," * wide) * levels + innermost + b"]" * levels


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty lists, cut off": lambda: b"\x83\xa2id\xa1x\xa7payload\xdd\x00\xff\xff\xf0" + b"\x90" * FULL,
    "empty lists before the id": lambda: (
        b"\x83\xa7payload\xdd" + FULL.to_bytes(4, "big") + b"\x90" * FULL + b"\xa2id\xa1x\xa4ty"
    ),
    "empty maps": lambda: b"\x82\xa2id\xa1x\xa7payload\xdd\x00\xff\xff\xff" + b"\x80" * FULL,
    "lists in lists": lambda: b"\x83\xa2id\xa1x\xa4type\xa4ping\xa7payload" + b"\x91" * FULL,
    "maps as keys": lambda: b"\x83\xa2id\xa1x\xa4type\xa4ping\xa7payload" + b"\x81\x81" * (FULL // 2),
    "a length of four gigabytes": lambda: b"\x83\xa2id\xa1x\xa4type\xdb\xff\xff\xff\xff" + b"x" * MIB,
    "empty JSON lists, cut off": lambda: b'{"id":"x","payload":[' + b"[]," * (FULL // 3),
    "empty JSON lists before the id": lambda: b'{"payload":[' + b"[]," * (FULL // 3) + b'[]],"id":"x","type":',
    "JSON lists in lists": lambda: b'{"id":"x","payload":' + b"[" * FULL,
    "JSON maps in maps": lambda: b'{"id":"x","payload":' + b'{"a":' * (FULL // 5),
    "quotation marks": lambda: b'{"id":"x","payload":' + b'"' * FULL,
    "open texts": lambda: b'{"id":"x","payload":' + b'"a\\' * (FULL // 3),
    "backslashes": lambda: b'{"id":"x","payload":"' + b"\\" * FULL,
    "an open text": lambda: b'{"id":"x","payload":"' + b"a" * FULL,
    "white space": lambda: b'{"id":"x",' + b" " * FULL,
    "colons": lambda: b'{"id":"x"' + b":" * FULL,
    "commas": lambda: b'{"id":"x"' + b"," * FULL,
    "closing brackets": lambda: b'{"id":"x"' + b"}" * FULL,
    "halves of pairs": lambda: b'{"id":"x","payload":["' + rb"\ud800" * (FULL // 6) + b'"]}',
    "pairs and a half": lambda: b'{"id":"x","payload":["' + rb"\ud800\udc00" * (FULL // 12) + rb'\ud800"]}',
    "half a pair after empty lists": lambda: (
        b'{"id":"x","type":"save-message","payload":' + nested(1, rb'"\ud800"', wide=MIB) + b"}"
    ),
    "half a pair in 60 levels": lambda: b'{"id":"x","payload":' + nested(60, rb'"\ud800"', wide=20_000) + b"}",
    "half a pair in many levels": lambda: b'{"id":"x","payload":' + nested(DEPTH, rb'"\ud800"', wide=0) + b"}",
    "bad UTF-8 after empty lists": lambda: (
        b'{"id":"x","type":"save-room","payload":{"room":{"roles":' + nested(1, b'"\xff"', wide=MIB // 4) + b"}}}"
    ),
    "bad text after many": lambda: (
        b"\x83\xa2id\xa1x\xa4type\xa9save-room\xa7payload\x81\xa4room\x81\xa5roles\xdd\x00\x0f\x00\x01"
        + b"\x90" * 0xF0000
        + b"\xa1\xff"
    ),
    "an endless number": lambda: b'{"id":"x","type":"ping","payload":' + b"9" * FULL,
    "an endless id": lambda: b'{"id":' + b"9" * FULL,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_answered_within_bounds(transport: InProcess, name: str) -> None:
    """In seconds, whatever it contains: deep nesting, millions of values, texts that never end."""
    body = HOSTILE[name]()
    assert len(body) <= BODY_BYTES_MAX
    started = time.process_time()
    reply = send(transport, body)
    assert time.process_time() - started < CPU_SECONDS_MAX
    assert reply["error"]["code"] in ("malformed", "invalid", "too-large")
    assert reply["id"] in ("x", None)
    if body.startswith((b'{"id":"x",', b"\x83\xa2id\xa1x", b"\x82\xa2id\xa1x")):
        assert reply["id"] == "x"


@both
def test_the_search_for_an_id_ends(transport: InProcess, codec: Codec) -> None:
    """Up to so many values and brackets before the id it is found, and no longer after more than that."""
    for values, expected in ((STEPS_MAX - 100, "x"), (STEPS_MAX + 100, None)):
        body = codec.encode({"payload": [0] * (values // (2 if codec is JSON else 1)), "id": "x", "type": "ping"})
        check_refusal(transport, body[:-1], expected, "malformed")


# --- any broken body ---


def ids_in_json(body: bytes) -> list[Any]:
    """The ids that a lenient parser finds in an object, up to where it is broken."""
    text, decoder, found = body.decode(errors="replace"), json.JSONDecoder(strict=False), []

    def after_space(at: int) -> int:
        return at + len(text[at:]) - len(text[at:].lstrip(" \t\n\r"))

    at = after_space(0)
    more = text[at : at + 1] == "{"
    try:
        while more:
            key, end = decoder.raw_decode(text, after_space(at + 1))
            at = after_space(end)
            if not isinstance(key, str) or text[at] != ":":
                break
            start = after_space(at + 1)
            _, end = decoder.raw_decode(text, start)
            at = after_space(end)
            if key == "id" and text[at] in ",}":
                found.append(json.loads(text[start:end]))  # strictly: an id with a line break in it is not valid
            more = text[at] == ","
    except (ValueError, IndexError, RecursionError):
        pass
    return list(filter(is_returnable, found))


def ids_in_msgpack(body: bytes) -> list[Any]:
    """The ids that a lenient parser finds in a map, up to where it is broken."""
    found: list[Any] = []
    try:
        items, at = unpacked_header(body)
        for _ in range(items):
            key, at = unpacked(body, at)
            value, at = unpacked(body, at)
            found += [value] if key == "id" else []
    except (ValueError, IndexError, struct.error, RecursionError):
        pass
    return list(filter(is_returnable, found))


def unpacked_header(body: bytes) -> tuple[int, int]:
    if 0x80 <= body[0] <= 0x8F:
        return body[0] & 15, 1
    if body[0] not in (0xDE, 0xDF):
        raise ValueError("not a map")
    size = 2 if body[0] == 0xDE else 4
    return int.from_bytes(body[1 : 1 + size], "big"), 1 + size


NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
EXTENSIONS = {0xC7: ">B", 0xC8: ">H", 0xC9: ">I"}
COUNTS = {0xDC: (">H", 1), 0xDD: (">I", 1), 0xDE: (">H", 2), 0xDF: (">I", 2)}


def unpacked(body: bytes, at: int) -> tuple[Any, int]:  # noqa: C901  # a table of formats
    """A MessagePack value and the position after it; None for what is neither text nor a number."""

    def number(form: str) -> int:
        return int(struct.unpack_from(form, body, at + 1)[0])

    first = body[at]
    if first <= 0x7F or first >= 0xE0:
        return (first if first <= 0x7F else first - 256), at + 1
    if first <= 0x9F:
        return skipped(body, at + 1, (first & 15) * (2 if first <= 0x8F else 1))
    if first <= 0xBF:
        return text_at(body, at + 1, first & 31)
    if first in (0xC0, 0xC2, 0xC3):
        return None, at + 1
    if form := NUMBERS.get(first):
        return struct.unpack_from(form, body, at + 1)[0], at + 1 + struct.calcsize(form)
    if form := LENGTHS.get(first):
        value, end = text_at(body, at + 1 + struct.calcsize(form), number(form))
        return (value if first >= 0xD9 else None), end
    if form := EXTENSIONS.get(first):
        return None, text_at(body, at + 2 + struct.calcsize(form), number(form))[1]
    if 0xD4 <= first <= 0xD8:
        return None, text_at(body, at + 2, 1 << (first - 0xD4))[1]
    if first not in COUNTS:
        raise ValueError("0xc1 is not a value")
    form, each = COUNTS[first]
    return skipped(body, at + 1 + struct.calcsize(form), number(form) * each)


def skipped(body: bytes, at: int, items: int) -> tuple[None, int]:
    for _ in range(items):
        _, at = unpacked(body, at)
    return None, at


def text_at(body: bytes, at: int, length: int) -> tuple[str, int]:
    if at + length > len(body):
        raise IndexError
    return body[at : at + length].decode(errors="replace"), at + length


def is_returnable(value: Any) -> bool:
    """Whether an id is a text that is Unicode, or a number that both encodings have."""
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff\ufffd]", value)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """Requests whose fields are in any order, with some bytes replaced, removed, doubled or taken from elsewhere."""
    codec, operation = draw(st.sampled_from(CODECS)), draw(st.sampled_from(list(OPERATIONS.values())))
    request_id = draw(st.sampled_from(IDS) | st.text(max_size=8) | st.integers(-(2**63), 2**64 - 1) | st.floats(-9, 9))
    fields = request(request_id, example(operation), operation.wire_name, scope="work", deadlineMs=5_000)
    body = codec.encode(dict(draw(st.permutations(list(fields.items())))))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 6)))
        other = draw(st.integers(0, len(body)))
        new = draw(st.sampled_from([b"", body[start:end] * 2, body[other : other + 9]]) | st.binary(max_size=6))
        body = body[:start] + new + (b"" if draw(st.integers(0, 9)) == 0 else body[end:])
    return body


@fuzzed
@given(broken_bodies())
def test_an_id_that_a_lenient_parser_finds_is_returned(transport: InProcess, body: bytes) -> None:
    """Whatever was done to a body: if the id at its top level can be read, the reply has it."""
    codec = codec_of(body)
    found = ids_in_json(body) if codec is JSON else ids_in_msgpack(body)
    reply = send(transport, body)
    if found:
        assert reply["id"] in found


@given(broken_bodies())
def test_the_lenient_parsers_find_ids(body: bytes) -> None:
    """The property above is about something: these parsers read whole bodies as the product does."""
    codec = codec_of(body)
    try:
        fields = codec.decode(body, dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError):
        return
    found = ids_in_json(body) if codec is JSON else ids_in_msgpack(body)
    if is_returnable(fields.get("id")):
        assert fields["id"] in found
