"""The canonical form of payloads: written in any way, a command is the same command; another value makes another one.

The form is held against a second implementation, which follows `PROTOCOL.md` and knows of types and defaults only what
`describe` says.
"""

import base64
import hashlib
import json
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from backscroll.bus.inprocess import InProcess
from backscroll.schema.command_log import canonical
from backscroll.schema.description import describe
from backscroll.schema.limits import INTEGER_MAX
from backscroll.schema.operations import OPERATIONS, Command
from backscroll.schema.operations.decoding import decode_operation
from backscroll.schema.records import Attachment, Ban, Message, Reaction, Record, Room, User
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests import ROOT
from tests.support.local import REPLAYED, Local
from tests.support.messages import message_document, save_payload
from tests.support.random_commands import RandomCommands
from tests.support.requests import CODECS, body, send
from tests.support.sql import sql
from tests.support.strategies import documents

Schema = dict[str, Any]
Plain = dict[str, Any]

SEED = 20261126
COMMANDS, COMMANDS_LONG = 2_500, 20_000

both = pytest.mark.parametrize("codec", CODECS, ids=repr)


def canonical_of(name: str, payload: Any, codec: Codec) -> bytes:
    """The canonical form of a payload that was sent in this encoding."""
    command = decode_operation(name, Raw(codec.encode(with_bytes(name, payload, codec))), codec)
    assert isinstance(command, Command)
    return canonical(command)


def with_bytes(name: str, payload: Any, codec: Codec) -> Any:
    """A payload whose binary data is written as the encoding writes it: base64 in JSON."""
    if name == "put-media-part" and codec is MSGPACK and payload.get("data") is not None:
        return {**payload, "data": base64.b64decode(payload["data"])}
    return payload


# --- the second implementation ---


def by_the_book(name: str, payload: Plain) -> bytes:
    """The canonical form as PROTOCOL.md describes it."""
    return packed(reduced_payload(name, payload))


def reduced_payload(name: str, payload: Plain) -> Plain:
    if name == "batch":
        commands = [(each["type"], each.get("payload") or {}) for each in payload["commands"]]
        return {"commands": [{"type": kind, "payload": reduced_payload(kind, inner)} for kind, inner in commands]}
    if name in ("create-session", "delete-session") and payload.get("token") is not None:
        token_hash = hashlib.sha256(payload["token"].encode()).hexdigest()
        return reduced_payload(name, payload | {"token": None, "tokenHash": token_hash})
    if name == "put-media-part" and payload.get("data") is not None:
        return {"sha256": hashlib.sha256(base64.b64decode(payload["data"])).hexdigest()}
    reduced: Plain = reduced_value(payload, describe()["operations"][name]["payload"])
    return reduced


def reduced_value(value: Any, schema: Schema) -> Any:
    """A value without secrets and fields that equal their default, and with integers in typed fields."""
    schema = resolved(schema)
    if value is None:
        return None
    if "properties" in schema:
        fields = {
            name: (reduced_value(each, schema["properties"][name]), schema["properties"][name])
            for name, each in value.items()
            if "x-secret" not in schema["properties"][name]
        }
        return {
            name: each for name, (each, field) in fields.items() if "default" not in field or each != field["default"]
        }
    if isinstance(value, list) and "$ref" in schema.get("items", {}):
        return [reduced_value(each, schema["items"]) for each in value]
    return int(value) if schema.get("type") == "integer" else value


def resolved(schema: Schema) -> Schema:
    """A schema without its null alternative and without references."""
    alternatives = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    found: Schema = alternatives[0] if alternatives else schema
    return resolved(describe()["$defs"][found["$ref"].rpartition("/")[2]]) if "$ref" in found else found


def packed(value: Any) -> bytes:
    """MessagePack in its shortest forms, the keys of maps sorted by their bytes."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int() if value >= 0:
            return _unsigned(value)
        case int():
            if value >= -32:
                return struct.pack(">b", value)
            form = next(each for each in "bhiq" if -(1 << struct.calcsize(each) * 8 - 1) <= value)
            return bytes([0xD0 + "bhiq".index(form)]) + struct.pack(f">{form}", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            return _sized(value.encode(), 0xA0, 31, (0xD9, 0xDA, 0xDB))
        case list():
            return _counted(len(value), 0x90, (0xDC, 0xDD)) + b"".join(map(packed, value))
        case _:
            items = sorted(value.items(), key=lambda item: item[0].encode())
            return _counted(len(items), 0x80, (0xDE, 0xDF)) + b"".join(
                packed(key) + packed(each) for key, each in items
            )


def _unsigned(value: int) -> bytes:
    if value <= 0x7F:
        return bytes([value])
    form = next(each for each in "BHIQ" if value < 1 << struct.calcsize(each) * 8)
    return bytes([0xCC + "BHIQ".index(form)]) + struct.pack(f">{form}", value)


def _sized(content: bytes, small: int, small_max: int, headers: tuple[int, int, int]) -> bytes:
    if len(content) <= small_max:
        return bytes([small | len(content)]) + content
    at = next(at for at in range(3) if len(content) < 1 << (8 << at))
    return bytes([headers[at]]) + len(content).to_bytes(1 << at, "big") + content


def _counted(count: int, small: int, headers: tuple[int, int]) -> bytes:
    if count <= 15:
        return bytes([small | count])
    return bytes([headers[count >= 1 << 16]]) + count.to_bytes(4 if count >= 1 << 16 else 2, "big")


# --- other ways to write the same ---


def respelled(name: str, payload: Plain, draw: random.Random) -> Plain:
    """The same payload, written in another way."""
    if name == "batch":
        commands = [
            {"payload": respelled(each["type"], each["payload"], draw), "type": each["type"]}
            for each in payload["commands"]
        ]
        return {"commands": commands}
    rewritten: Plain = respelled_value(payload, describe()["operations"][name]["payload"], draw)
    return rewritten


def respelled_value(value: Any, schema: Schema, draw: random.Random) -> Any:
    """Fields in another order, defaults and nulls spelled out or left out, integers in typed fields as floats."""
    schema = resolved(schema)
    if isinstance(value, dict) and "properties" in schema:
        fields = {each: respelled_value(inner, schema["properties"][each], draw) for each, inner in value.items()}
        for each, field in schema["properties"].items():
            if "default" in field and fields.get(each, field["default"]) == field["default"]:
                fields.pop(each, None)
                if draw.random() < 0.5:
                    fields[each] = field["default"]
        return shuffled(fields, draw)
    if isinstance(value, list) and "$ref" in schema.get("items", {}):
        return [respelled_value(each, schema["items"], draw) for each in value]
    if schema.get("type") == "integer" and value is not None and draw.random() < 0.5:
        return float(value)
    return reordered(value, draw)


def reordered(value: Any, draw: random.Random) -> Any:
    """Free JSON with the keys of every map in another order."""
    if isinstance(value, list):
        return [reordered(each, draw) for each in value]
    return (
        shuffled({key: reordered(each, draw) for key, each in value.items()}, draw)
        if isinstance(value, dict)
        else value
    )


def shuffled(fields: Plain, draw: random.Random) -> Plain:
    items = list(fields.items())
    draw.shuffle(items)
    return dict(items)


# --- the form ---


def test_the_example_of_the_protocol_is_right() -> None:
    """The bytes that PROTOCOL.md shows are those of both implementations."""
    text = (ROOT / "schema" / "PROTOCOL.md").read_text(encoding="utf-8")
    found = re.search(r"For example `(\{.*?\})` becomes,\s+in hex, `([0-9a-f]+)`", text, re.DOTALL)
    assert found is not None
    payload = json.loads(found[1])
    assert canonical_of("save-message", payload, JSON).hex() == found[2]
    assert by_the_book("save-message", payload).hex() == found[2]


@both
def test_every_command_has_the_form_of_the_protocol(codec: Codec, long: bool) -> None:
    """Random commands of every type, alone and in batches, as they are and written in another way."""
    print(f"seed {SEED}")  # noqa: T201  # shown when it fails
    commands, draw, seen = RandomCommands(SEED), random.Random(SEED), set()
    for _ in range(COMMANDS_LONG if long else COMMANDS):
        name, payload = commands.next()
        expected = by_the_book(name, payload)
        assert canonical_of(name, payload, codec) == expected, (name, payload)
        other = respelled(name, payload, draw)
        assert by_the_book(name, other) == expected, (name, payload, other)
        assert canonical_of(name, other, codec) == expected, (name, payload, other)
        seen.add(name)
    assert seen == {name for name, each in OPERATIONS.items() if issubclass(each, Command)}


RECORDS: list[tuple[str, str, type[Record]]] = [
    ("save-message", "message", Message),
    ("save-reaction", "reaction", Reaction),
    ("save-user", "user", User),
    ("save-room", "room", Room),
    ("save-ban", "ban", Ban),
    ("save-attachment", "attachment", Attachment),
]


@pytest.mark.parametrize(("name", "noun", "record_type"), RECORDS, ids=[noun for _, noun, _ in RECORDS])
@given(data=st.data())
def test_any_record_has_the_form_of_the_protocol(
    name: str, noun: str, record_type: type[Record], data: st.DataObject
) -> None:
    """Text of every kind, numbers of every size, free JSON of every shape, in both encodings."""
    payload = {noun: data.draw(documents(record_type))}
    draw = random.Random(data.draw(st.integers(0, 2**32)))
    expected = by_the_book(name, payload)
    for written in (payload, respelled(name, payload, draw)):
        for codec in CODECS:
            assert canonical_of(name, written, codec) == expected


@both
@pytest.mark.parametrize(
    ("name", "short", "spelled_out"),
    [
        ("create-channel", {"name": "c"}, {"roomId": "default", "type": "text", "position": 0, "topic": None}),
        ("create-category", {"name": "c"}, {"roomId": "default", "position": 0.0}),
        (
            "create-message",
            {"channelId": "c", "authorId": "a", "content": ""},
            {"roomId": "default", "replyToId": None},
        ),
        ("delete-channel", {"channelId": "c"}, {"roomId": "default", "cascade": False}),
        (
            "create-session",
            {"userId": "a", "durationMs": 5, "tokenHash": "0" * 64},
            {"durationMs": 5.0, "readOnly": None},
        ),
    ],
)
def test_a_default_may_be_spelled_out(codec: Codec, name: str, short: Plain, spelled_out: Plain) -> None:
    """It is the same command as without."""
    assert canonical_of(name, short | spelled_out, codec) == canonical_of(name, short, codec)


# --- retries ---


def test_a_command_that_is_written_in_another_way_is_a_retry(tmp_path: Path) -> None:
    """Whichever encoding either was sent in: it gets the reply of the first, and there is one command in the log."""
    print(f"seed {SEED}")  # noqa: T201  # shown when it fails
    commands, draw = RandomCommands(SEED), random.Random(SEED)
    with Local(tmp_path / "data") as local:
        for number in range(COMMANDS // 2):
            name, payload = commands.next()
            codecs = [draw.choice(CODECS) for _ in range(2)]
            first, second = (
                with_bytes(name, each, codec)
                for each, codec in zip((payload, respelled(name, payload, draw)), codecs, strict=True)
            )
            reply = local.ask(name, first, f"id-{number:04}", codec=codecs[0])
            if not reply["ok"]:
                continue
            commands.learn(name, payload, reply["result"])
            before = local.store().seq
            assert local.ask(name, second, f"id-{number:04}", codec=codecs[1]) == reply, (name, payload, second)
            assert local.store().seq == before


FREE = {"b": [1, {"d": 1.5, "c": None}], "a": True}
SAVED = save_payload(1, metadata=FREE, channelId="c1", editedAt=5)
CHANGES: list[Plain] = [
    {"content": "other"},
    {"timestamp": 2},
    {"channelId": None},
    {"channelId": "c2"},
    {"isDeleted": True},
    {"senderName": ""},
    {"reactions": []},
    {"linkMetadata": {}},
    {"metadata": None},
    {"metadata": {}},
    {"metadata": FREE | {"a": 1}},
    {"metadata": FREE | {"a": "true"}},
    {"metadata": FREE | {"a": None}},
    {"metadata": FREE | {"e": None}},
    {"metadata": FREE | {"b": [1.0, {"d": 1.5, "c": None}]}},
    {"metadata": FREE | {"b": [1, {"d": 1.5}]}},
    {"metadata": FREE | {"b": [{"d": 1.5, "c": None}, 1]}},
    {"metadata": {"b": FREE["b"], "A": True}},
]


@both
@pytest.mark.parametrize("change", CHANGES, ids=lambda each: json.dumps(each)[:60])
def test_another_value_is_another_command(transport: InProcess, codec: Codec, change: Plain) -> None:
    """Its canonical form differs, and under the same id it is a conflict."""
    other = {"message": {**SAVED["message"], **change}}
    assert canonical_of("save-message", other, codec) != canonical_of("save-message", SAVED, codec)
    assert send(transport, body("save-message", SAVED, id="one"))["ok"]
    error = send(transport, body("save-message", other, codec, id="one"))["error"]
    assert (error["code"], error["details"]) == ("conflict", {"path": "$.id"})
    assert send(transport, body("save-message", SAVED, codec, id="one"))["ok"]


@both
@pytest.mark.parametrize("field", ["channelId", "metadata", "editedAt"])
def test_in_an_update_null_is_not_absent(codec: Codec, field: str) -> None:
    """Null clears a field and absence leaves it: these are two commands."""
    cleared, left = (
        {"messageId": "m1", "updates": updates} for updates in ({field: None, "content": "x"}, {"content": "x"})
    )
    assert canonical_of("update-message", cleared, codec) != canonical_of("update-message", left, codec)


# --- the order of free JSON ---


def maps_in(value: Any) -> Iterator[list[str]]:
    """The keys of every map, in their order."""
    if isinstance(value, dict):
        yield list(value)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from maps_in(each)


@both
def test_free_json_keeps_its_order(tmp_path: Path, codec: Codec) -> None:
    """In replies, in the file, in the log and after a replay the keys are as they were sent first; a retry with another
    order changes nothing.
    """
    free = {"zebra": 1, "apple": {"y": 1, "x": [{"2": 0, "10": 0, "1": 0}]}, "é": 1, "Zebra": INTEGER_MAX}
    message = message_document(1, metadata=free, linkMetadata={"b": 1, "a": 2})
    other = {"message": reordered(message, random.Random(1))}
    assert list(maps_in(other["message"]["metadata"])) != list(maps_in(free))
    with Local(tmp_path / "data") as local:
        local.result("save-message", {"message": message}, "one", codec=codec)
        local.result("save-message", other, "one", codec=codec)
        [entry] = local.entries(codec=codec)
        local.replay([entry], codec=codec)
        found = [entry["payload"]["message"]["metadata"]]
        for scope in ("default", REPLAYED):
            found.append(local.result("get-message-by-id", {"messageId": "m1"}, scope=scope, codec=codec)["metadata"])
            [row] = local.rows("messages", scope)
            found.append(row["metadata"])
            with local.store(scope).read() as snapshot:
                [[text]] = snapshot.rows(sql("SELECT metadata FROM messages"))
            found.append(json.loads(text))
        for each in found:
            assert list(maps_in(each)) == list(maps_in(free))
        assert local.entries(REPLAYED)[0]["chain"] == entry["chain"]
