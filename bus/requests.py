"""A request on its way through the daemon, from its envelope to its reply."""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from backscroll.bus.logging import log
from backscroll.schema.errors import BackscrollError, Internal, Malformed, TooLarge
from backscroll.schema.limits import BODY_BYTES_MAX, LOG_BODY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Builtin, Command, Maintenance, Operation
from backscroll.schema.operations.decoding import decode_operation, operation_type
from backscroll.schema.salvage import read_id
from backscroll.schema.wire import Codec, Envelope, Success, codec_of, read_envelope, read_type, salvage, write_failure


class Refused(Exception):
    """A body that is not a valid request; `reply` says why."""

    def __init__(self, reply: bytes, error: BackscrollError) -> None:
        super().__init__(error.message)
        self.reply = reply


class Request:
    """A request whose envelope is valid and names an operation, and the way its reply goes back.

    `operation` is None until `decode()`: a command's payload may be as large as a history, so its writer decodes it, and
    not the loop that everybody needs. `reply` is set once it is answered.
    """

    __slots__ = (
        "as_type",
        "codec",
        "deadline",
        "id",
        "is_command",
        "kind",
        "operation",
        "payload",
        "reply",
        "route",
        "scope",
        "size",
        "traceparent",
    )

    def __init__(
        self,
        envelope: Envelope,
        as_type: type[Operation[Any]],
        codec: Codec,
        size: int,
        route: Sequence[bytes],
        now: float,
    ) -> None:
        self.id = envelope.id
        self.scope = envelope.scope
        self.as_type = as_type
        self.codec = codec
        self.size = size
        self.route = route
        self.deadline = None if envelope.deadline_ms is None else now + envelope.deadline_ms / 1000
        self.traceparent = envelope.traceparent
        self.is_command = issubclass(as_type, Command | Maintenance)  # goes to a writer
        # What the requests of one run have in common: whether commands, of which scope, how many queries at most.
        self.kind = (self.is_command, self.scope, getattr(as_type, "run_max", 0))
        self.payload = envelope.payload
        self.operation: Any = None
        self.reply = b""

    @property
    def is_maintenance(self) -> bool:
        return issubclass(self.as_type, Maintenance)

    @property
    def is_builtin(self) -> bool:
        return issubclass(self.as_type, Builtin)

    def decode(self) -> None:
        """Decode and check the payload; raises `Invalid`, `TooLarge` or `Malformed`."""
        self.operation = decode_operation(self.as_type.wire_name, self.payload, self.codec)
        self.payload = Raw()  # the body need not stay in memory

    def success(self, result: Any, seq: int) -> bytes:
        """The reply to a request that was executed."""
        return self.codec.encode(Success(self.id, True, result, seq))

    def failure(self, error: BackscrollError) -> bytes:
        """The reply to a request that had no effect."""
        return write_failure(self.id, error, self.codec)


def receive(body: bytes, route: Sequence[bytes], now: float) -> Request:
    """The request in a body, a query with its payload decoded; raises `Refused` with the reply where there is none.

    `now` is when it arrived, in seconds of a clock that never goes back.
    """
    codec = codec_of(body)
    envelope: Envelope | None = None
    try:
        _check_size(body, codec)
        envelope = read_envelope(body, codec)
        request = Request(envelope, operation_type(envelope.type), codec, len(body), route, now)
        if not request.is_command:
            request.decode()
    except Exception as problem:  # noqa: BLE001  # whatever it is, the caller gets a reply
        raise _refused(body, codec, envelope, problem) from None
    return request


def _refused(body: bytes, codec: Codec, envelope: Envelope | None, problem: Exception) -> Refused:
    """The refusal of a body, with the id that it has, however broken the rest is."""
    error = problem if isinstance(problem, BackscrollError) else Internal("the request cannot be decoded: a bug")
    request_id = envelope.id if envelope is not None else read_id(body, codec)
    if isinstance(error, Internal):
        log.error("request cannot be decoded", id=request_id, exc_info=problem)
    elif isinstance(error, Malformed) and envelope is None:
        salvaged = salvage(body, codec)
        request_id, error = salvaged.id, salvaged.error or error
    log.debug("refused", id=request_id, outcome=error.code, reason=error.message)
    return Refused(write_failure(request_id, error, codec), error)


def _check_size(body: bytes, codec: Codec) -> None:
    """Raise `TooLarge` for a body over its limit; a piece of a log may be larger than others."""
    if not body:
        raise Malformed.at("$", "the body is empty")
    if len(body) <= BODY_BYTES_MAX:
        return
    operation = OPERATIONS.get(read_type(body, codec) or "") if len(body) <= LOG_BODY_BYTES_MAX else None
    bytes_max = operation.body_bytes_max if operation else BODY_BYTES_MAX
    if len(body) > bytes_max:
        raise TooLarge.at("$", f"the body has {len(body)} bytes; the limit is {bytes_max}")
