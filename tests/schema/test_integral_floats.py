"""Integers that are written as floats are accepted, as by programs with one type of number."""

import pytest

from backscroll.schema.errors import Invalid
from backscroll.schema.wire import Codec, read_envelope
from tests.support.requests import CODECS


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_an_envelope_may_have_integers_written_as_floats(codec: Codec) -> None:
    """This applies to `deadlineMs` and `level` as it does to payloads; the payload is passed on as it was sent."""
    fields = {"id": "x", "type": "ping", "deadlineMs": 5000.0, "level": 1.0}
    envelope = read_envelope(codec.encode(fields), codec)
    assert (envelope.deadline_ms, envelope.level, bytes(envelope.payload)) == (5000, 1, b"")
    payload = {"a": [1, 2.5]}
    assert bytes(read_envelope(codec.encode(fields | {"payload": payload}), codec).payload) == codec.encode(payload)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("deadline", [0.5, -1.0, 1e300])
def test_an_envelope_with_another_float_is_invalid(codec: Codec, deadline: float) -> None:
    """The error names the field."""
    with pytest.raises(Invalid, match=r"^\$\.deadlineMs: "):
        read_envelope(codec.encode({"id": "x", "type": "ping", "deadlineMs": deadline}), codec)
