"""Validators of payloads and replies, from the JSON Schema that `describe` gives."""

from collections import Counter
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec

from backscroll.schema.description import describe, errors_of
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.wire import codec_of

CHECKED_WHOLE, CHECKED_EVERY, CHECKED_BYTES_MAX = 100, 25, 200_000


def validator(schema: dict[str, Any]) -> Any:
    """A validator of a schema that may refer to the description's definitions."""
    return jsonschema_rs.Draft202012Validator({**schema, "$defs": describe()["$defs"]})


@cache
def input_validator(operation: str) -> Any:
    """A validator of an operation's payload."""
    return validator(describe()["operations"][operation]["payload"])


@cache
def result_validator(operation: str) -> Any:
    """A validator of an operation's result."""
    return validator(describe()["operations"][operation]["result"])


@cache
def envelope_validator(name: str) -> Any:
    """A validator of a success or failure."""
    return validator(describe()["envelopes"][name])


class ReplyChecker:
    """Compares replies with the description: the first of each kind, and a sample of the others."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []

    def check(self, operation: str, reply: bytes) -> None:
        """Record what is wrong with the reply to an operation."""
        if len(reply) > CHECKED_BYTES_MAX:
            return
        decoded = codec_of(reply).decode(reply, dict[str, Any])
        kind = (operation, decoded["error"]["code"] if not decoded["ok"] else "")
        self._seen[kind] += 1
        if self._seen[kind] > CHECKED_WHOLE and self._seen[kind] % CHECKED_EVERY:
            return
        document = msgspec.to_builtins(decoded, builtin_types=())
        envelope = envelope_validator("success" if decoded["ok"] else "failure")
        errors = list(envelope.iter_errors(document))
        if decoded["ok"]:
            errors += list(result_validator(operation).iter_errors(document["result"]))
        elif kind[1] not in errors_of(OPERATIONS[operation]):
            errors.append(f"the code {kind[1]} is not among those that {operation} is described with")
        self.problems += [f"{operation}: {str(error)[:300]}" for error in errors]
