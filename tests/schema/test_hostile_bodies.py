"""Bodies made to cost much work are refused after little of it."""

import pytest
from msgspec import Raw

from backscroll.schema.errors import Invalid
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
