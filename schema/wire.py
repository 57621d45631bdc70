"""Envelopes to bytes and back, in MessagePack and JSON; pure functions that never touch a socket.

A body is one map. Its first byte tells the encoding: below 0x80 is JSON, the rest MessagePack.
`PROTOCOL.md` beside this file is the page for people.
"""

import re
import threading
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final, Generic, NoReturn, TypeVar, cast

import msgspec
from msgspec import Meta, Raw, Struct

from backscroll.schema.errors import ERRORS, BackscrollError, CallerError, Internal, Invalid, Malformed, TooLarge
from backscroll.schema.limits import (
    BATCH_COMMANDS_MAX,
    FREE_JSON_BYTES_MAX,
    REQUEST_ID_BYTES_MAX,
    SCOPE_BYTES_MAX,
    TRACEPARENT_BYTES_MAX,
    Count,
)
from backscroll.schema.size_probe import free_json_bytes, size_probe_of
from backscroll.schema.validation import validate

PROTOCOL_VERSION = 1
DEFAULT_SCOPE = "default"

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
RequestId = Annotated[str, Meta(min_length=1, max_length=REQUEST_ID_BYTES_MAX)]


class Envelope(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A request. `deadlineMs` is how long the caller waits, counted from the daemon's receipt."""

    id: RequestId
    type: Annotated[str, Meta(max_length=REQUEST_ID_BYTES_MAX)]
    payload: Any = Raw()
    scope: Annotated[str, Meta(min_length=1, max_length=SCOPE_BYTES_MAX)] = DEFAULT_SCOPE
    traceparent: Annotated[str, Meta(max_length=TRACEPARENT_BYTES_MAX)] | None = None
    deadline_ms: Count | None = None


class _RawEnvelope(Envelope, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    payload: Raw = Raw()


class Success(Struct, frozen=True):
    """The reply to a request that was carried out. `seq` is the scope's commit number it reflects."""

    id: str
    ok: bool
    result: Any
    seq: int


class Failure(Struct, frozen=True):
    """The reply to a request that had no effect; `id` is null where the request was too broken to have one."""

    id: str | None
    ok: bool
    error: "ErrorBody"


class ErrorBody(Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    retryable: bool
    details: dict[str, Any] | None = None


class Reply(Struct, Generic[T], frozen=True):
    """Either reply as a client reads it, `Reply[Raw]` with its result still encoded; `Raw()` where there is none."""

    id: str | None
    ok: bool
    result: T = cast(Any, Raw())
    seq: int | None = None
    error: ErrorBody | None = None


MAKING_DECODERS = threading.Lock()
"""One at a time: msgspec gathers what it knows of a record on its type, and a second thread that meets the half of it
crashes the process."""


class Codec:
    """One of the two encodings. Safe to use from any thread."""

    def __init__(
        self, name: str, encode: Callable[[Any], bytes], decoder: Callable[[Any], Any], empty_map: bytes
    ) -> None:
        self.name = name
        self.encode: Final = encode
        self.empty_map = empty_map
        self._make_decoder: Final = decoder
        self._decoders: dict[Any, Callable[[bytes | Raw], Any]] = {}

    def __repr__(self) -> str:
        return self.name

    def decode(self, body: bytes | Raw, as_type: type[T]) -> T:
        """Decode strictly; raises what msgspec raises (see `DECODE_ERRORS`)."""
        decode = self._decoders.get(as_type) or self._new_decoder(as_type)
        value: T = decode(body)
        return value

    def decoder(self, as_type: Any) -> Callable[[bytes | Raw], Any]:
        """`decode` of one type."""
        return self._decoders.get(as_type) or self._new_decoder(as_type)

    def _new_decoder(self, as_type: Any) -> Callable[[bytes | Raw], Any]:
        with MAKING_DECODERS:
            if as_type not in self._decoders:
                self._decoders[as_type] = self._make_decoder(as_type).decode
        return self._decoders[as_type]


JSON: Final = Codec("json", msgspec.json.Encoder().encode, msgspec.json.Decoder, b"{}")
MSGPACK: Final = Codec("msgpack", msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder, b"\x80")

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError)
"""Everything that msgspec raises for bytes it cannot take."""


def codec_of(body: bytes) -> Codec:
    """The encoding that a body is written in. No MessagePack map starts below 0x80."""
    return MSGPACK if body and body[0] >= 0x80 else JSON


def read_envelope(body: bytes, codec: Codec) -> Envelope:
    """Decode a request's outside, its payload still encoded; raises `Malformed` or `TooLarge`."""
    try:
        envelope = codec.decode(body, _RawEnvelope)
    except DECODE_ERRORS as error:
        _refuse(error, "$", Malformed)
    validate(envelope, "$")
    return envelope


class Budget:
    """How much may be inside one request: bytes of free JSON and commands, over all that is nested in it.

    Free JSON is measured, before it is decoded, once there is so much of anything that it could be too much.
    """

    def __init__(self, free_json_bytes: float = FREE_JSON_BYTES_MAX, commands: float = BATCH_COMMANDS_MAX) -> None:
        self._free_json_max = free_json_bytes
        self._free_json = 0
        self._unmeasured = 0
        self._commands = commands

    def take_payload(self, body: bytes | Raw, codec: Codec, as_type: type[Struct]) -> None:
        """Count a payload that is still encoded; raises `TooLarge`, and what msgspec raises."""
        if self._unmeasured + len(body) <= self._free_json_max:
            self._unmeasured += len(body)
            return
        outline = size_probe_of(as_type)
        self._free_json += 0 if outline is None else free_json_bytes(codec.decode(body, outline))
        if self._free_json > self._free_json_max:
            problem = f"{self._free_json} bytes of free JSON, at most {self._free_json_max} are taken"
            raise TooLarge.at("$.payload", problem)

    def take_commands(self, number: int) -> None:
        """Count commands inside; raises `TooLarge`."""
        self._commands -= number
        if self._commands < 0:
            raise TooLarge.at("$.payload", "too many commands are in this request together")


def read_payload(payload: Raw, codec: Codec, as_type: type[S], budget: Budget | None = None) -> S:
    """Decode and check a request's payload; raises `Invalid`, `TooLarge` or `Malformed`."""
    body = payload or codec.empty_map
    if budget is None and len(body) > FREE_JSON_BYTES_MAX:  # a smaller one is within any budget
        budget = Budget()
    try:
        if budget is not None:
            budget.take_payload(body, codec, as_type)
        operation = codec.decode(body, as_type)
    except DECODE_ERRORS as error:
        _refuse(error, "$.payload", Invalid)
    validate(operation, "$.payload")
    return operation


def salvage_id(body: bytes, codec: Codec) -> str | None:
    """The id of a request whose envelope cannot be decoded, if that much can be read."""
    try:
        return codec.decode(body, _OnlyId).id
    except DECODE_ERRORS:
        return None


class _OnlyId(Struct):
    id: RequestId


def salvage_type(body: bytes, codec: Codec) -> str | None:
    """The operation that a body names, without decoding the rest, if that much can be read."""
    try:
        return codec.decode(body, _OnlyType).type
    except DECODE_ERRORS:
        return None


class _OnlyType(Struct):
    type: str


def write_failure(request_id: str | None, error: BackscrollError, codec: Codec) -> bytes:
    """Encode the reply that says why a request had no effect."""
    return codec.encode(Failure(request_id, False, error_body(error)))


def error_body(error: BackscrollError) -> ErrorBody:
    """The part of a failure that tells of the error."""
    return ErrorBody(error.code, error.message, error.retryable, error.details)


def read_reply(body: bytes, result_type: Any = Raw) -> tuple[Reply[Any], Codec]:
    """Decode a reply, or its outside; raises what msgspec raises for bytes that are no reply, or not of that type."""
    codec = codec_of(body)
    return _reply_decoder(codec, result_type)(body), codec


@cache
def _reply_decoder(codec: Codec, result_type: Any) -> Callable[[bytes], Reply[Any]]:
    """Kept for each type of result: to make `Reply[…]` of it anew takes longer than to decode a small one."""
    return codec.decoder(Reply[result_type])


def error_of(reply: Reply[Any]) -> BackscrollError:
    """The exception that a failure stands for."""
    if reply.error is None:
        return Internal("the daemon sent a failure without an error")
    error_class = ERRORS.get(reply.error.code, Internal)
    return error_class(reply.error.message, details=reply.error.details, retryable=reply.error.retryable)


# What msgspec says and where: "Expected `int` - at `$.message.timestamp`", or "… - at `key` in `$.metadata`".
_WHERE = re.compile(r"(?P<problem>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(?P<field>.*)`", re.DOTALL)


def _refuse(error: Exception, root: str, otherwise: type[CallerError]) -> NoReturn:
    """Raise the wire error for a decoding error: what is no encoding at all is malformed, whatever part."""
    if isinstance(error, RecursionError):
        raise Malformed.at(root, "nested too deeply to be decoded") from None
    if not isinstance(error, msgspec.ValidationError):
        raise Malformed.at(root, str(error)) from None
    match = _WHERE.fullmatch(str(error))
    assert match is not None  # the pattern takes any text
    problem, path = match["problem"], root + (match["path"] or "")
    if missing := _FIELD.fullmatch(problem):
        path += f".{missing['field']}"
    error_class = TooLarge if " of length <= " in problem else otherwise
    raise error_class.at(path, problem[0].lower() + problem[1:]) from None
