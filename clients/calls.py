"""What both clients do alike, without any I/O: find the daemon, write requests, read replies."""

import json
from pathlib import Path
from typing import Any, TypeVar

from backscroll.schema.errors import Internal, Invalid, TooLarge, Unavailable
from backscroll.schema.limits import BODY_BYTES_MAX
from backscroll.schema.operations import Operation
from backscroll.schema.places import ENDPOINT_FILE, default_data_dir
from backscroll.schema.ulid import UlidGenerator
from backscroll.schema.wire import (
    DECODE_ERRORS,
    DEFAULT_SCOPE,
    MSGPACK,
    Codec,
    Envelope,
    Reply,
    error_of,
    read_reply,
)

R = TypeVar("R")

TIMEOUT_MS = 5_000

new_id = UlidGenerator()


def find_endpoint(endpoint: str | None, data_dir: Path | str | None) -> str:
    """The address to connect to: the one given, or the one a daemon wrote into its data directory.

    Raises `Unavailable` where no daemon has said that it is ready.
    """
    if endpoint is not None:
        return endpoint
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    try:
        ready = json.loads((directory / ENDPOINT_FILE).read_text(encoding="utf-8"))
        return str(ready["endpoints"][0])
    except (OSError, ValueError, LookupError, TypeError):  # missing, unreadable, or not what a daemon writes
        raise Unavailable(
            f"no daemon is ready in {directory}: start one with `backscroll serve --data-dir {directory}`",
            retryable=True,
        ) from None


class Call:
    """One request that is on its way."""

    def __init__(
        self, operation: Operation[Any], *, scope: str, timeout_ms: int, codec: Codec = MSGPACK, call_id: str = ""
    ) -> None:
        """Raises `Invalid` for text that is no Unicode and `TooLarge` for a body over its limit."""
        self.id = call_id or new_id()
        self._reply_type = operation.reply_type
        envelope = Envelope(
            id=self.id,
            type=operation.wire_name,
            payload=operation,
            scope=scope,
            deadline_ms=timeout_ms,
        )
        try:
            self.body = codec.encode(envelope)
        except (UnicodeEncodeError, OverflowError, TypeError, RecursionError) as error:
            raise Invalid(f"the payload cannot be written: {error}") from error
        if len(self.body) > BODY_BYTES_MAX:
            raise TooLarge(f"a body of {len(self.body)} bytes, at most {BODY_BYTES_MAX} are taken")

    def result(self, reply: Reply, codec: Codec) -> Any:
        """The typed result, or the error that the reply stands for."""
        if not reply.ok:
            raise error_of(reply)
        try:
            return codec.decode(reply.result, self._reply_type)
        except DECODE_ERRORS as error:
            raise Internal(f"the daemon's result is not of the declared type: {error}") from error


def open_reply(body: bytes) -> tuple[Reply, Codec]:
    """A reply's outside; raises `Internal` where the bytes are none."""
    try:
        return read_reply(body)
    except DECODE_ERRORS as error:
        raise Internal(f"the daemon sent what is no reply: {error}") from error


__all__ = ["DEFAULT_SCOPE", "TIMEOUT_MS", "Call", "find_endpoint", "new_id", "open_reply"]
