"""Bodies made to cost much work are refused after little of it."""

import gc
import sys

import pytest
from msgspec import Raw

from backscroll.bus.dispatch import Refused, receive
from backscroll.schema.errors import BackscrollError, Invalid
from backscroll.schema.operations.decoding import decode_operation
from backscroll.schema.salvage import read_id
from backscroll.schema.wire import JSON, MSGPACK


@pytest.mark.timeout(30)
def test_the_id_of_broken_json_is_searched_in_linear_time() -> None:
    """A megabyte of escaped quotes without an end is scanned once, and the id before it is found."""
    assert read_id(b'{"id":"x","type":"' + b'\\"' * 500_000, JSON) == "x"
    assert read_id(b'{"type":"' + b'\\"' * 500_000, JSON) is None


@pytest.mark.timeout(30)
def test_the_id_behind_too_many_values_is_not_found() -> None:
    """Only a limited number of values of a broken body is scanned, in either encoding."""
    many = 2_000_000
    assert read_id(b'{"type":[' + b"1," * many + b'],"id":"x",', JSON) is None
    assert read_id(b"\x83\xa1a\xdd" + many.to_bytes(4, "big") + b"\xc0" * many + b"\xa2id\xa1x", MSGPACK) is None
    assert read_id(b"\x83\xa1a\xdd" + (9).to_bytes(4, "big") + b"\xc0" * 9 + b"\xa2id\xa1x", MSGPACK) == "x"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("name", "items"), [("append-log", "entries"), ("batch", "commands")])
def test_nested_lists_of_commands_are_refused_at_the_first_level(name: str, items: str) -> None:
    """They are refused without decoding, because each level would scan the levels inside it again."""
    payload = JSON.encode({"padding": "x" * 2_000_000})
    for _ in range(300):
        payload = b'{"%s":[{"seq":1,"at":1,"id":"x","type":"%s","payload":%s}]}' % (
            items.encode(),
            name.encode(),
            payload,
        )
    if name == "batch":
        payload = payload.replace(b'"seq":1,"at":1,"id":"x",', b"")
    with pytest.raises(Invalid, match=rf"^\$\.payload\.{items}\[0\]\.type: "):
        decode_operation(name, Raw(payload), JSON)


LONG = b"x" * 1_000
SAVE = b'{"id":"1","type":"save-message","payload":'
MESSAGE = b'{"message":{"id":"m","roomId":"r","senderId":"s","content":"%b","timestamp":%b}}}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(LONG, id="no-json"),
        pytest.param(b"\xff" + LONG, id="no-messagepack"),
        pytest.param(b'{"id":"1","type":"ping","unknown":"%b"}' % LONG, id="unknown-field"),
        pytest.param(b'{"id":"1","type":"ping","x":"\xff%b"}' % LONG, id="no-utf-8"),
        pytest.param(b'{"id":"1","type":"ping","x":"\\ud800%b"}' % LONG, id="lone-surrogate"),
        pytest.param(b'{"id":"%b","type":"ping"}' % LONG, id="long-id"),
        pytest.param(b'{"id":"1","type":"ping","level":1.5,"x":"%b"}' % LONG, id="fraction"),
        pytest.param(b'{"id":"1","type":"ping","level":1.0,"x":"%b"}' % LONG, id="float-and-unknown-field"),
        pytest.param(SAVE + MESSAGE % (LONG, b'"t"'), id="payload"),
        pytest.param(SAVE + MESSAGE % (LONG, b"1.5"), id="payload-fraction"),
        pytest.param(SAVE + MESSAGE % (LONG, b'1.0,"x":1'), id="payload-float-and-unknown-field"),
        pytest.param(SAVE + MESSAGE % (LONG, b'1,"metadata":{"x":"\\ud800"}'), id="payload-lone-surrogate"),
        pytest.param(SAVE.replace(b"save-message", b"nothing") + MESSAGE % (LONG, b"1"), id="unknown-operation"),
    ],
)
def test_a_refused_body_is_freed_at_once(body: bytes) -> None:
    """Nothing refers to it any more: the garbage collector seldom runs, and a body may have megabytes."""
    body = bytes(bytearray(body))  # not shared with the parameters

    def is_refused() -> bool:
        try:
            receive(body, [], 0.0).decode()
        except (Refused, BackscrollError):
            return True
        return False

    assert is_refused()
    before = sys.getrefcount(body)
    gc.disable()
    try:
        assert all(is_refused() for _ in range(100))
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
