"""Requests and replies as bytes, for tests below the client."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from backscroll.bus.dispatch import Dispatcher, Request
from backscroll.bus.inprocess import InProcess
from backscroll.schema.operations import OPERATIONS, Operation
from backscroll.schema.wire import JSON, MSGPACK, Codec, codec_of

CODECS = (JSON, MSGPACK)
NUMBERS = itertools.count(1)

FIRST = ("initialize", "save", "create", "put", "set")
LAST = ("remove", "batch", "compact", "delete", "append", "adopt", "clear")
"""First words of operations whose examples have to run before or after all others, in this order."""


def fresh_id() -> str:
    """A new request id; a request that is sent again under its id gets the reply of the first."""
    return f"request-{next(NUMBERS)}"


def body(operation: str, payload: Any = msgspec.UNSET, codec: Codec = JSON, **envelope: Any) -> bytes:
    """The body of a request; `envelope` adds or replaces fields outside the payload, such as the id, which is new by
    default.
    """
    fields = {"id": fresh_id(), "type": operation, "payload": payload, **envelope}
    return codec.encode({name: value for name, value in fields.items() if value is not msgspec.UNSET})


def send(transport: InProcess, request: bytes) -> dict[str, Any]:
    """The reply to a body as plain values."""
    answer = transport.dispatcher.answer(request)
    return codec_of(answer).decode(answer, dict[str, Any])


def answer_all(dispatcher: Dispatcher, requests: Sequence[Request]) -> list[bytes]:
    """The replies to commands that wait together: some are given again, where others wait for the scope."""
    replies: list[bytes] = []
    while len(replies) < len(requests):
        replies += dispatcher.answer_commands(requests[len(replies) :])
    return replies


def result(transport: InProcess, operation: str, payload: Any = msgspec.UNSET, codec: Codec = JSON) -> Any:
    """The result of a request that must succeed."""
    reply = send(transport, body(operation, payload, codec))
    assert reply["ok"], reply
    return reply["result"]


def example(operation: type[Operation[Any]]) -> dict[str, Any]:
    """The payload that an operation's docstring shows."""
    _, _, text = (operation.__doc__ or "").partition("Example:")
    payload: dict[str, Any] = json.loads(text)
    return payload


def harmless_example(operation: type[Operation[Any]]) -> dict[str, Any]:
    """The example of an operation that is to be executed: a directory that it names is none of this machine."""
    payload = example(operation)
    return payload | {"directory": "backups"} if "directory" in payload else payload


def in_sensible_order() -> list[type[Operation[Any]]]:
    """All operations: those that save first, then those that read, and those that delete last."""
    return sorted(OPERATIONS.values(), key=lambda operation: _rank(operation.wire_name.split("-")[0]))


def _rank(verb: str) -> int:
    return FIRST.index(verb) if verb in FIRST else len(FIRST) + (LAST.index(verb) + 1 if verb in LAST else 0)
