"""Pages of the feed: values that do not fit, and cursors that nobody was given."""

import base64
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.handlers.feed import CHAIN_BYTES, FORMAT, Cursor, Place
from backscroll.schema.command_log import CHAIN_START
from backscroll.schema.limits import PAGE_BYTES_MAX, REPLY_BYTES_MAX
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.messages import large_room, save_payload
from tests.support.requests import CODECS, body, result

Plain = dict[str, Any]


def read(transport: InProcess, cursor: str, codec: Codec, **payload: Any) -> tuple[list[Plain], list[int]]:
    """All changes after a cursor, page by page, and the sizes of the replies."""
    changes: list[Plain] = []
    sizes: list[int] = []
    while True:
        answer = transport.dispatcher.answer(body("get-changes", {"after": cursor} | payload, codec))
        reply = codec.decode(answer, Plain)
        assert reply["ok"], reply
        page = reply["result"]
        changes += page["changes"]
        sizes.append(len(answer))
        assert page["cursor"] != cursor or not page["more"], "it does not go on"
        cursor = page["cursor"]
        if not page["more"]:
            return changes, sizes


def forge(last: int, chain: bytes) -> str:
    """The cursor of whoever has seen everything of a log that ends so."""
    cursor = Cursor(FORMAT, Place(last + 1), last, chain[:CHAIN_BYTES])
    return base64.urlsafe_b64encode(MSGPACK.encode(cursor)).decode().rstrip("=")


@pytest.mark.parametrize("wait_ms", [0, 1_000])
def test_a_value_larger_than_a_reply_is_left_out(transport: InProcess, wait_ms: int) -> None:
    """It has to be read in parts. What follows is told with its value, in both encodings, whether or not it waits."""
    cursor = result(transport, "get-changes", {"after": "now"})["cursor"]
    for command in large_room():
        result(transport, command["type"], command["payload"])
    result(transport, "save-message", save_payload(1, room_id="large"))
    for codec in CODECS:
        changes, sizes = read(transport, cursor, codec, waitMs=wait_ms)
        assert [(each["noun"], each["id"]) for each in changes] == [("room", "large"), ("message", "m1")]
        room, message = changes
        assert "value" not in room
        assert "gone" not in room
        assert message["value"]["content"] == "hello"
        assert max(sizes) < REPLY_BYTES_MAX


@pytest.mark.undescribed  # to compare so many numbers takes long
def test_a_page_fits_in_the_longer_encoding(transport: InProcess) -> None:
    """Values that are larger in MessagePack than in JSON fit into replies in either, and all of them are told."""
    numbers = [1.5] * 49_000
    assert len(MSGPACK.encode(numbers)) > 2 * len(JSON.encode(numbers))
    cursor = result(transport, "get-changes", {"after": "now"})["cursor"]
    ids = [f"r{number}" for number in range(10)]
    for room_id in ids:
        room = {"id": room_id, "name": "n", "roles": numbers, "roleAssignments": numbers}
        result(transport, "save-room", {"room": room})
    for codec in CODECS:
        changes, sizes = read(transport, cursor, codec)
        assert [each["id"] for each in changes] == ids
        assert all(each["value"]["roles"] == numbers for each in changes)
        assert max(sizes) < PAGE_BYTES_MAX + 1_024


def test_a_forged_cursor_beyond_the_end_is_a_gap(transport: InProcess) -> None:
    """Also with the chain of an empty log; and it is no cursor later, when there are as many commands."""
    result(transport, "save-message", save_payload(1))
    for last in (2, 999):
        for chain in (CHAIN_START, b"c" * 32):
            forged = forge(last, chain)
            page = result(transport, "get-changes", {"after": forged})
            assert (page["gap"], page["changes"], page["more"]) == (True, [], False)
            after = result(transport, "get-changes", {"after": page["cursor"]})
            assert after == {"changes": [], "cursor": page["cursor"], "more": False}
    forged = forge(2, CHAIN_START)
    result(transport, "save-message", save_payload(2))
    assert result(transport, "get-changes", {"after": forged})["gap"]
