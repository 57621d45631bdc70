"""Validation beyond types: sizes of text in bytes, free JSON, duplicate keys, and every limit at its edge."""

from typing import Any

import msgspec
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import Attachment, GetMessages, Invalid, SaveAttachment, TooLarge
from backscroll.schema.limits import ID_BYTES_MAX, INTEGER_MAX, JSON_DEPTH_MAX, LIST_ITEMS_MAX, PAGE_ITEMS_MAX
from backscroll.schema.wire import MSGPACK, Codec
from tests.support.messages import message_document, save_message
from tests.support.requests import CODECS, body, result, send

both = pytest.mark.parametrize("codec", CODECS, ids=repr)

MESSAGE = message_document()
ROOM = {"id": "r1", "name": "Home"}


def refusal(transport: InProcess, request: bytes) -> tuple[str, str]:
    """The code and path of the error that a request gets."""
    error = send(transport, request)["error"]
    return error["code"], error["details"]["path"]


def saving(metadata: Any, codec: Codec) -> bytes:
    """A `save-message` with this metadata."""
    return body("save-message", {"message": {**MESSAGE, "metadata": metadata}}, codec)


def nested(levels: int, innermost: Any = 1) -> Any:
    """A value nested so many levels deep, objects and lists alternating, beginning with an object."""
    value = innermost
    for level in range(levels, 0, -1):
        value = {"a": value} if level % 2 else [value]
    return value


# --- text ---


@both
@pytest.mark.parametrize("text", ["x" * 512, "é" * 256, "€" * 170, "🙂" * 128], ids=["1", "2", "3", "4"])
def test_an_id_of_exactly_the_size_limit_is_accepted(transport: InProcess, codec: Codec, text: str) -> None:
    """An id may have 512 bytes, however many bytes each character takes."""
    assert len(text.encode()) in (ID_BYTES_MAX, ID_BYTES_MAX - 2)
    result(transport, "save-message", {"message": {**MESSAGE, "id": text}}, codec)
    assert result(transport, "get-message-by-id", {"messageId": text}, codec)["id"] == text


@both
@pytest.mark.parametrize("text", ["x" * 513, "é" * 256 + "x", "€" * 171, "🙂" * 128 + "x"], ids=["1", "2", "3", "4"])
@pytest.mark.parametrize("field", ["id", "roomId", "senderId", "channelId", "replyToId"])
def test_an_id_over_the_limit_in_bytes_is_too_large(transport: InProcess, codec: Codec, text: str, field: str) -> None:
    """The limit counts bytes, not characters."""
    request = body("save-message", {"message": {**MESSAGE, field: text}}, codec)
    assert refusal(transport, request) == ("too-large", f"$.payload.message.{field}")


@both
@pytest.mark.parametrize(
    ("operation", "payload", "path"),
    [
        (
            "save-room",
            {"room": {**ROOM, "channels": [{"id": "é" * 257, "name": "", "type": "text"}]}},
            "channels[0].id",
        ),
        (
            "save-room",
            {"room": {**ROOM, "members": [{"oderId": "a", "roleIds": ["x", "é" * 257]}]}},
            "members[0].roleIds[1]",
        ),
        ("save-room", {"room": {**ROOM, "members": [{"oderId": "a"}, {"oderId": "é" * 257}]}}, "members[1].oderId"),
    ],
)
def test_text_in_nested_records_is_measured(
    transport: InProcess, codec: Codec, operation: str, payload: dict[str, Any], path: str
) -> None:
    """A nested text has the limit of its field, and the error gives its path."""
    assert refusal(transport, body(operation, payload, codec)) == ("too-large", f"$.payload.room.{path}")


@both
def test_an_operations_own_ids_are_measured_in_bytes(transport: InProcess, codec: Codec) -> None:
    """Fields of an operation have the same limits as fields of records."""
    assert refusal(transport, body("get-room", {"roomId": "é" * 257}, codec)) == ("too-large", "$.payload.roomId")


@both
def test_text_in_updates_is_measured_in_bytes(transport: InProcess, codec: Codec) -> None:
    """Fields of updates have the limits of the entity's fields."""
    request = body("update-message", {"messageId": "m1", "updates": {"channelId": "é" * 257}}, codec)
    assert refusal(transport, request) == ("too-large", "$.payload.updates.channelId")


# --- free JSON ---


@both
def test_metadata_nested_to_the_limit_is_accepted(transport: InProcess, codec: Codec) -> None:
    """32 levels are stored and returned unchanged."""
    metadata = nested(JSON_DEPTH_MAX)
    result(transport, "save-message", {"message": {**MESSAGE, "metadata": metadata}}, codec)
    assert result(transport, "get-message-by-id", {"messageId": "m1"}, codec)["metadata"] == metadata


@both
@pytest.mark.parametrize("innermost", [{}, [], {"a": 1}], ids=repr)
def test_metadata_nested_deeper_is_invalid(transport: InProcess, codec: Codec, innermost: Any) -> None:
    """The 33rd level is refused by its path, empty or not."""
    code, path = refusal(transport, saving(nested(JSON_DEPTH_MAX, innermost), codec))
    assert code == "invalid"
    assert path == "$.payload.message.metadata" + ".a[0]" * (JSON_DEPTH_MAX // 2)


@both
@pytest.mark.parametrize("field", ["linkMetadata", "metadata"])
def test_every_free_json_field_has_the_depth_limit(transport: InProcess, codec: Codec, field: str) -> None:
    """The limit on nesting applies to every field of free JSON."""
    request = body("save-message", {"message": {**MESSAGE, field: nested(JSON_DEPTH_MAX + 1)}}, codec)
    assert refusal(transport, request)[0] == "invalid"


@both
@pytest.mark.parametrize("field", ["roles", "roleAssignments", "channelPermissions"])
def test_free_lists_have_the_depth_limit(transport: InProcess, codec: Codec, field: str) -> None:
    """In a list of free JSON the list itself is the first level."""
    fits, too_deep = [nested(JSON_DEPTH_MAX - 1)], [nested(JSON_DEPTH_MAX)]
    result(transport, "save-room", {"room": {**ROOM, field: fits}}, codec)
    assert result(transport, "get-room", {"roomId": "r1"}, codec)[field] == fits
    assert refusal(transport, body("save-room", {"room": {**ROOM, field: too_deep}}, codec))[0] == "invalid"


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xc4\x01a",  # bytes
        b"\xd4\x05a",  # an extension
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a timestamp out of bounds
        b"\x81\x01\x01",  # keys that are an integer,
        b"\x81\xc0\x01",  # nothing,
        b"\x81\xc4\x01a\x01",  # bytes,
        b"\x81\xc3\x01",  # a flag,
        b"\x81\x90\x01",  # a list
    ],
    ids=lambda encoded: encoded.hex(),
)
def test_msgpack_values_without_json_equivalent_are_invalid(transport: InProcess, encoded: bytes) -> None:
    """Free JSON fields take no MessagePack bytes, extensions, timestamps or keys other than text."""
    code, path = refusal(transport, saving({"a": msgspec.Raw(encoded)}, MSGPACK))
    assert code == "invalid"
    assert path in ("$.payload.message.metadata.a", "$.payload.message.metadata[...]")


@pytest.mark.parametrize("encoded", [b"\x81\x80\x01", b"\x81\x91\x80\x01"], ids=lambda encoded: encoded.hex())
def test_msgpack_maps_as_keys_are_malformed(transport: InProcess, encoded: bytes) -> None:
    """A map with maps or lists of maps as keys is not decoded."""
    assert refusal(transport, saving({"a": msgspec.Raw(encoded)}, MSGPACK)) == ("malformed", "$.payload")


@both
@pytest.mark.parametrize(
    "number", [-(2**63), 2**64 - 1, 2**53 + 1, 2**63, 0, 1.0, -0.0, 5e-324, 1.7e308, 1e22], ids=repr
)
def test_numbers_in_metadata_are_returned_exactly(transport: InProcess, codec: Codec, number: float) -> None:
    """64-bit integers stay integers, and floats stay the same floats."""
    result(transport, "save-message", {"message": {**MESSAGE, "metadata": {"a": number}}}, codec)
    back = result(transport, "get-message-by-id", {"messageId": "m1"}, codec)["metadata"]["a"]
    assert (type(back), repr(back)) == (type(number), repr(number))


@pytest.mark.parametrize("number", [b"-9223372036854775809", b"18446744073709551616", b"9" * 400])
def test_integers_beyond_64_bits_are_invalid(transport: InProcess, number: bytes) -> None:
    """Integers that MessagePack cannot represent are refused in JSON too."""
    request = body("save-message", {"message": {**MESSAGE, "metadata": {"a": msgspec.Raw(number)}}})
    assert refusal(transport, request)[0] == "invalid"


@both
def test_the_path_of_an_error_leads_into_metadata(transport: InProcess, codec: Codec) -> None:
    """The path names the keys and list positions on the way to the value."""
    deep = {"list": [1, {"here": nested(JSON_DEPTH_MAX)}]}
    assert refusal(transport, saving(deep, codec))[1].startswith("$.payload.message.metadata.list[1].here.a[0]")


# --- lists ---

REACTION = {"messageId": "m1", "oderId": "bob", "emoji": "👍"}
CHANNEL = {"id": "general", "name": "general", "type": "text"}
DOUBLED = [
    ("save-message", "message", MESSAGE, "reactions", [REACTION, {**REACTION, "emoji": "x"}, {**REACTION, "id": "7"}]),
    ("save-room", "room", ROOM, "channels", [CHANNEL, {**CHANNEL, "id": "b"}, {**CHANNEL, "type": "voice"}]),
    (
        "save-room",
        "room",
        ROOM,
        "categories",
        [{"id": "c", "name": "c"}, {"id": "d", "name": "c"}, {"id": "c", "name": "e"}],
    ),
    ("save-room", "room", ROOM, "members", [{"oderId": "a"}, {"oderId": "b"}, {"oderId": "a", "role": "host"}]),
]


@both
@pytest.mark.parametrize(("operation", "noun", "parent", "field", "items"), DOUBLED, ids=[each[3] for each in DOUBLED])
def test_a_duplicate_key_in_a_list_is_invalid(
    transport: InProcess,
    codec: Codec,
    operation: str,
    noun: str,
    parent: dict[str, Any],
    field: str,
    items: list[dict[str, Any]],
) -> None:
    """The second of two items with the same key is named; items that share only other fields are accepted."""
    request = body(operation, {noun: {**parent, field: items}}, codec)
    assert refusal(transport, request) == ("invalid", f"$.payload.{noun}.{field}[2]")
    result(transport, operation, {noun: {**parent, field: items[:2]}}, codec)


@both
def test_a_duplicate_key_in_updates_is_invalid(transport: InProcess, codec: Codec) -> None:
    """Lists in updates are validated like those in saves."""
    request = body("update-room", {"roomId": "r1", "updates": {"channels": [CHANNEL, CHANNEL]}}, codec)
    assert refusal(transport, request) == ("invalid", "$.payload.updates.channels[1]")


@both
def test_a_list_over_the_length_limit_is_too_large(transport: InProcess, codec: Codec) -> None:
    """The length of a list is limited, also where the body is small enough."""
    request = body("save-room", {"room": {**ROOM, "roles": [0] * (LIST_ITEMS_MAX + 1)}}, codec)
    assert refusal(transport, request) == ("too-large", "$.payload.room.roles")


# --- numbers ---


@pytest.mark.parametrize("limit", [1, 2, 100, PAGE_ITEMS_MAX])
@pytest.mark.parametrize("offset", [0, 2, 3, INTEGER_MAX])
def test_limit_and_offset_select_a_slice(client: Client, limit: int, offset: int) -> None:
    """A page is what a slice of the whole list would be."""
    for number in range(3):
        client.execute(save_message(str(number), timestamp=number))
    page = client.ask(GetMessages("r1", limit=limit, offset=offset))
    assert [each.id for each in page] == ["0", "1", "2"][offset : offset + limit]


@pytest.mark.parametrize("limit", [0, -1, PAGE_ITEMS_MAX + 1, 1_000_000, 2**63 - 1, 2**64 - 1, -(2**63)])
def test_a_page_size_out_of_bounds_is_invalid(client: Client, limit: int) -> None:
    """A `limit` must be from 1 to 500."""
    with pytest.raises(Invalid, match=r"^\$\.payload\.limit: ") as caught:
        client.ask(GetMessages("r1", limit=limit))
    assert caught.value.details == {"path": "$.payload.limit"}


@pytest.mark.parametrize("offset", [-1, -(2**63), INTEGER_MAX + 1, 2**64 - 1])
def test_an_offset_out_of_bounds_is_invalid(client: Client, offset: int) -> None:
    """An `offset` must be from 0 to 2**53 - 1."""
    with pytest.raises(Invalid, match=r"^\$\.payload\.offset: "):
        client.ask(GetMessages("r1", offset=offset))


def test_typed_records_are_validated_by_the_daemon(client: Client) -> None:
    """Records are not validated when they are constructed, but before they are stored."""
    with pytest.raises(TooLarge, match=r"\$\.payload\.message\.id"):
        client.execute(save_message("x" * 513))
    attachment = Attachment(id="a", message_id="m", filename="f", size=-1, mime="text/plain")
    with pytest.raises(Invalid, match=r"\$\.payload\.attachment\.size"):
        client.execute(SaveAttachment(attachment))
