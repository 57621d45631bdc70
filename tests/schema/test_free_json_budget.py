"""The limit on free JSON is one of the whole request, a batch included, and is enforced exactly."""

from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.schema.limits import FREE_JSON_BYTES_MAX
from backscroll.schema.wire import Codec
from tests.support.requests import CODECS, body, send

COMMANDS = 1_000


def batch(codec: Codec, free_json_bytes: int) -> dict[str, Any]:
    """A batch of saves whose metadata has so many bytes as sent, about the same for each message."""
    empty = len(codec.encode({"x": ""}))
    each, rest = divmod(free_json_bytes, COMMANDS)
    sizes = [each + (1 if number < rest else 0) for number in range(COMMANDS)]
    commands = [
        {"type": "save-message", "payload": {"message": message(number, {"x": text(codec, size - empty)})}}
        for number, size in enumerate(sizes)
    ]
    return {"commands": commands}


def text(codec: Codec, size: int) -> str:
    """A text that adds so many bytes to the one of an empty text."""
    longer = size - (len(codec.encode("x" * 300)) - 300 - len(codec.encode("")))
    return "x" * longer


def message(number: int, metadata: dict[str, Any]) -> dict[str, Any]:
    named = {"id": f"m{number}", "roomId": "r", "senderId": "a", "content": "", "timestamp": number}
    return named | {"metadata": metadata}


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_batch_with_too_much_free_json_is_refused(transport: InProcess, codec: Codec) -> None:
    """One byte more than the limit, spread over all commands: the batch is blamed, and none of its commands."""
    reply = send(transport, body("batch", batch(codec, FREE_JSON_BYTES_MAX + 1), codec))
    assert reply["error"]["code"] == "too-large"
    assert reply["error"]["details"] == {"path": "$.payload"}
    words = f"$.payload: {FREE_JSON_BYTES_MAX + 1} bytes of free JSON in the batch; the limit is {FREE_JSON_BYTES_MAX}"
    assert reply["error"]["message"] == words


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_batch_at_the_limit_of_free_json_is_accepted(transport: InProcess, codec: Codec) -> None:
    """The limit itself is allowed, however large the rest of the batch is."""
    reply = send(transport, body("batch", batch(codec, FREE_JSON_BYTES_MAX), codec))
    assert reply["ok"], reply


def test_a_batch_with_little_free_json_may_be_large(transport: InProcess) -> None:
    """Several megabytes of other text are not counted."""
    commands = [
        {"type": "save-message", "payload": {"message": {**message(number, {}), "content": "x" * 5_000}}}
        for number in range(COMMANDS)
    ]
    assert send(transport, body("batch", {"commands": commands}))["ok"]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_one_command_has_the_same_limit(transport: InProcess, codec: Codec) -> None:
    """All free JSON fields of one payload count together."""
    half = FREE_JSON_BYTES_MAX // 2
    metadata = {"x": "x" * half}
    refused = {"message": message(1, metadata) | {"linkMetadata": metadata}}
    assert send(transport, body("save-message", refused, codec))["error"]["code"] == "too-large"
    assert send(transport, body("save-message", {"message": message(1, metadata)}, codec))["ok"]
