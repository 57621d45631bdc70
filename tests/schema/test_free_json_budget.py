"""The limit on free JSON applies to the whole request, including batches, and is exact."""

from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.schema.limits import FREE_JSON_BYTES_MAX
from backscroll.schema.wire import Codec
from tests.support.messages import save_payload
from tests.support.requests import CODECS, body, send

COMMANDS = 1_000


def batch(codec: Codec, free_json_bytes: int) -> dict[str, Any]:
    """A batch of saves whose metadata has this many bytes as sent, distributed over the messages."""
    empty = len(codec.encode({"x": ""}))
    each, rest = divmod(free_json_bytes, COMMANDS)
    sizes = [each + (1 if number < rest else 0) for number in range(COMMANDS)]
    commands = [
        {"type": "save-message", "payload": save_payload(number, "", metadata={"x": text(codec, size - empty)})}
        for number, size in enumerate(sizes)
    ]
    return {"commands": commands}


def text(codec: Codec, size: int) -> str:
    """A text whose encoding is this much longer than that of an empty text."""
    longer = size - (len(codec.encode("x" * 300)) - 300 - len(codec.encode("")))
    return "x" * longer


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_too_much_free_json_in_a_batch_is_blamed_on_the_batch(transport: InProcess, codec: Codec) -> None:
    """One byte over the limit, distributed over all commands, is an error of the batch, and not of a command in it."""
    reply = send(transport, body("batch", batch(codec, FREE_JSON_BYTES_MAX + 1), codec))
    assert reply["error"]["code"] == "too-large"
    assert reply["error"]["details"] == {"path": "$.payload"}
    words = f"$.payload: {FREE_JSON_BYTES_MAX + 1} bytes of free JSON in the batch; the limit is {FREE_JSON_BYTES_MAX}"
    assert reply["error"]["message"] == words


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_batch_at_the_limit_of_free_json_is_accepted(transport: InProcess, codec: Codec) -> None:
    """Exactly the limit is accepted, however large the rest of the batch is."""
    reply = send(transport, body("batch", batch(codec, FREE_JSON_BYTES_MAX), codec))
    assert reply["ok"], reply


def test_a_batch_with_little_free_json_may_be_large(transport: InProcess) -> None:
    """Several megabytes of other text do not count."""
    commands = [
        {"type": "save-message", "payload": save_payload(number, "x" * 5_000, metadata={})}
        for number in range(COMMANDS)
    ]
    assert send(transport, body("batch", {"commands": commands}))["ok"]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_all_free_json_of_a_command_counts_together(transport: InProcess, codec: Codec) -> None:
    """All free JSON fields of one payload count together."""
    half = FREE_JSON_BYTES_MAX // 2
    metadata = {"x": "x" * half}
    refused = save_payload(1, "", metadata=metadata, linkMetadata=metadata)
    assert send(transport, body("save-message", refused, codec))["error"]["code"] == "too-large"
    assert send(transport, body("save-message", save_payload(1, "", metadata=metadata), codec))["ok"]
