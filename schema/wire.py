"""Encoding and decoding of envelopes in MessagePack and JSON; pure functions without I/O.

A body is one map. Its first byte tells the encoding: below 0x80 is JSON, everything else MessagePack. `PROTOCOL.md` in
this folder specifies the protocol.
"""

import hashlib
import hmac
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from backscroll.schema.decode_errors import DECODE_ERRORS, explain
from backscroll.schema.errors import BackscrollError, Fault, Internal, Invalid, Malformed, error_from
from backscroll.schema.integral_floats import decode_integral_floats, is_integral_float
from backscroll.schema.limits import (
    AUTH_BYTES_MAX,
    REQUEST_ID_BYTES_MAX,
    TRACEPARENT_BYTES_MAX,
    ClientId,
    Count,
    OperationName,
    PositiveCount,
    ScopeName,
)
from backscroll.schema.salvage import find_bad_text, find_lone_surrogate
from backscroll.schema.validation import validate

PROTOCOL_LEVEL: Final = 1
LOWEST_COMPATIBLE_LEVEL: Final = 1
DEFAULT_SCOPE = "default"
HELLO_PREFIX = "backscroll-hello"
"""The first line of what the proof in the result of `hello` is about."""
UNKNOWN_FIELD = f" (this daemon speaks protocol level {PROTOCOL_LEVEL})"
"""Appended to error messages about unknown fields."""

T = TypeVar("T")
RequestId = Annotated[str, Meta(min_length=1, max_length=REQUEST_ID_BYTES_MAX)]


class Envelope(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A request. `deadlineMs` is how long the caller waits, counted from when the daemon receives the request.

    Attributes:
        id: Made by the caller: the reply has it, and a command that is sent again under it is executed once.
        type: The name of the operation.
        payload: The fields of the operation; may be left out, or null, if all of them are optional.
        scope: The account that the request is about: each has a database of its own.
        traceparent: The W3C trace context, which is written to the daemon's log.
        deadline_ms: A request that was not started by then is answered `deadline-exceeded` and has no effect. Without
            it the request waits as long as it takes.
        level: The protocol level that the client was made for; for information only.
        client: Who sends the command: an id that the sending object, process or connection pool makes for itself. It is
            stored in the log. Needs `n`.
        n: The number of the command among those of its `client` and scope. It rises with each new command; gaps do no
            harm.
        auth: The caller's token, which a request over ipc does not need. It is neither logged nor stored.
    """

    id: RequestId
    type: OperationName
    payload: Any = UNSET
    scope: ScopeName = DEFAULT_SCOPE
    traceparent: Annotated[str, Meta(max_length=TRACEPARENT_BYTES_MAX)] | None = None
    deadline_ms: Count | None = None
    level: Count | None = None
    client: ClientId | None = None
    n: PositiveCount | None = None
    auth: Annotated[str, Meta(max_length=AUTH_BYTES_MAX)] | None = None


class _RawEnvelope(Envelope, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    payload: Raw = Raw()


class Success(Struct, frozen=True):
    """The reply to a request that was executed. `seq` is the scope's commit number that the result reflects."""

    id: str
    ok: bool
    result: Any
    seq: int


class ErrorBody(Struct, frozen=True, omit_defaults=True):
    """Why a request had no effect. `fault` classifies the error for clients that do not know the code.

    Attributes:
        code: What is wrong, such as `not-found`; a client may meet codes of a later level.
        message: What is wrong in words, for people.
        fault: On whose side the reason lies.
        retryable: Whether the same request may succeed later.
        details: More about it as data, by code: `path` of the field, `index` and `failures` of a batch, …
    """

    code: str
    message: str
    fault: Fault
    retryable: bool
    details: dict[str, Any] | None = None


class Failure(Struct, frozen=True):
    """The reply to a request that had no effect.

    `id` is the request's id as it was sent, even if it is not valid; null if none can be read.
    """

    id: str | int | float | None
    ok: bool
    error: ErrorBody


class ReceivedError(Struct, frozen=True):
    """An `ErrorBody` as a client decodes it: tolerant of what later levels may change."""

    code: str
    message: str
    fault: str | None = None
    retryable: bool = False
    details: dict[str, Any] | None = None


class Reply(Struct, Generic[T], frozen=True):
    """Either kind of reply as a client decodes it. `Reply[Raw]` keeps the result encoded; a failure has `Raw()`."""

    id: str | int | float | None
    ok: bool
    result: T = cast(Any, Raw())
    seq: int | None = None
    error: ReceivedError | None = None


MAKING_DECODERS = threading.Lock()
"""Held while a decoder is created: msgspec crashes if two threads create decoders of one type at the same time."""


LIST_BYTES = 5  # what a list takes besides its items, at most


class EncodedItems(NamedTuple):
    """An encoded list, the number of its items, and whether all are in it."""

    encoded: bytes
    number: int
    complete: bool


class Codec:
    """One of the two encodings. Safe to use from any thread."""

    def __init__(
        self,
        name: str,
        encoder: msgspec.json.Encoder | msgspec.msgpack.Encoder,
        decoder: Callable[[Any], Any],
        *,
        empty_map: bytes,
        null: bytes,
        separator: bytes,
        list_of: Callable[[int, bytearray], bytes],
    ) -> None:
        self.name = name
        self.encode: Final[Callable[[Any], bytes]] = encoder.encode
        self.empty_map = empty_map
        self.null = null
        self._encode_into = encoder.encode_into
        self._separator = separator
        self._list_of = list_of
        self._make_decoder: Final = decoder
        self._decoders: dict[Any, Callable[[bytes | Raw], Any]] = {}

    def __repr__(self) -> str:
        return self.name

    def encode_items(
        self, items: Iterable[Any], bytes_max: int, *, bytes_small: int, before_large: Callable[[], None]
    ) -> EncodedItems:
        """Encode a list item by item, as many as fit into `bytes_max`.

        `before_large` is called when it has more bytes than `bytes_small`, after each further item.
        """
        encoded, number, end = bytearray(), 0, 0
        for item in items:
            if number:
                encoded += self._separator
            self._encode_into(item, encoded, -1)
            if len(encoded) > bytes_small:
                before_large()
            if len(encoded) > bytes_max - LIST_BYTES:
                del encoded[end:]
                return EncodedItems(self._list_of(number, encoded), number, complete=False)
            number, end = number + 1, len(encoded)
        return EncodedItems(self._list_of(number, encoded), number, complete=True)

    def decode(self, body: bytes | Raw, as_type: type[T]) -> T:
        """Decode a body as this type; raises one of `DECODE_ERRORS`."""
        decode = self._decoders.get(as_type) or self._new_decoder(as_type)
        value: T = decode(body)
        return value

    def decoder(self, as_type: Any) -> Callable[[bytes | Raw], Any]:
        """The function that decodes this type."""
        return self._decoders.get(as_type) or self._new_decoder(as_type)

    def _new_decoder(self, as_type: Any) -> Callable[[bytes | Raw], Any]:
        with MAKING_DECODERS:
            if as_type not in self._decoders:
                self._decoders[as_type] = self._make_decoder(as_type).decode
        return self._decoders[as_type]


def _json_list(_number: int, items: bytearray) -> bytes:
    return b"".join((b"[", items, b"]"))


def _msgpack_list(number: int, items: bytearray) -> bytes:
    if number < 2**4:
        header = bytes([0x90 | number])
    elif number < 2**16:
        header = b"\xdc" + number.to_bytes(2, "big")
    else:
        header = b"\xdd" + number.to_bytes(4, "big")
    return b"".join((header, items))


JSON: Final = Codec(
    "json",
    msgspec.json.Encoder(),
    msgspec.json.Decoder,
    empty_map=b"{}",
    null=b"null",
    separator=b",",
    list_of=_json_list,
)
MSGPACK: Final = Codec(
    "msgpack",
    msgspec.msgpack.Encoder(),
    msgspec.msgpack.Decoder,
    empty_map=b"\x80",
    null=b"\xc0",
    separator=b"",
    list_of=_msgpack_list,
)


def codec_of(body: bytes) -> Codec:
    """The encoding of a body. No MessagePack map starts below 0x80."""
    return MSGPACK if body and body[0] >= 0x80 else JSON


def with_auth(body: bytes, token: str) -> bytes:
    """An encoded request with a token as its `auth`; its envelope has none yet, and at most 14 fields."""
    if codec_of(body) is JSON:
        return b'{"auth":' + JSON.encode(token) + b"," + body[1:]
    return bytes([body[0] + 1]) + b"\xa4auth" + MSGPACK.encode(token) + body[1:]


def proof_of(token_hash: bytes, nonce: str, endpoints: Sequence[str]) -> str:
    """What proves in the result of `hello` that its sender knows the SHA-256 of a token, in hex."""
    said = "\n".join((HELLO_PREFIX, nonce, *endpoints)).encode()
    return hmac.digest(token_hash, said, hashlib.sha256).hex()


def read_envelope(body: bytes, codec: Codec) -> Envelope:
    """Decode a request's envelope, but not its payload; raises `Malformed`, `Invalid` or `TooLarge`."""
    try:
        envelope = _decode_envelope(body, codec)
    except UnicodeError:
        raise find_bad_text(body, codec, "$") from None
    except DECODE_ERRORS as error:
        raise _explained(error, body, codec) from None
    validate(envelope, "$")
    if (envelope.client is None) is not (envelope.n is None):
        raise half_a_sender(envelope.client)
    return envelope


def half_a_sender(client: str | None) -> Invalid:
    """The error of a request or entry that has only one of `client` and `n`."""
    missing, given = ("client", "n") if client is None else ("n", "client")
    return Invalid.at(f"$.{missing}", f"required where `{given}` is given")


def _explained(error: Exception, body: bytes, codec: Codec) -> BackscrollError:
    """The error to raise. It must not be a local of the frame that raises it: that cycle would keep the body."""
    explained = explain(error, "$", _RawEnvelope, UNKNOWN_FIELD)
    unpaired = find_lone_surrogate(body) if codec is JSON and isinstance(explained, Malformed) else None
    return unpaired or explained


def _decode_envelope(body: bytes, codec: Codec) -> Envelope:
    try:
        return codec.decode(body, _RawEnvelope)
    except msgspec.ValidationError as error:
        if not is_integral_float(error):
            raise
    return decode_integral_floats(body, codec.decode, _RawEnvelope, _RawEnvelope, "$")


def read_type(body: bytes, codec: Codec) -> str | None:
    """The operation name in a body, without decoding the rest; None if it cannot be read."""
    try:
        return codec.decode(body, _OnlyType).type
    except DECODE_ERRORS:
        return None


class _OnlyType(Struct):
    type: str


def write_failure(request_id: Any, error: BackscrollError, codec: Codec) -> bytes:
    """Encode the reply to a request that had no effect."""
    return codec.encode(Failure(request_id, False, error_body(error)))


def error_body(error: BackscrollError) -> ErrorBody:
    """The part of a failure that describes the error."""
    return ErrorBody(error.code, error.message, error.fault, error.retryable, error.details)


def read_reply(body: bytes, result_type: Any = Raw) -> tuple[Reply[Any], Codec]:
    """Decode a reply; raises one of `DECODE_ERRORS` if it is not a reply or its result has another type."""
    codec = codec_of(body)
    return _reply_decoder(codec, result_type)(body), codec


@cache
def _reply_decoder(codec: Codec, result_type: Any) -> Callable[[bytes], Reply[Any]]:
    """Cached per result type, because creating `Reply[…]` takes longer than decoding a small reply."""
    return codec.decoder(Reply[result_type])


def error_of(reply: Reply[Any]) -> BackscrollError:
    """The exception for a failure reply."""
    error = reply.error
    if error is None:
        return Internal("the daemon sent a failure without an error")
    return error_from(error.code, error.message, fault=error.fault, retryable=error.retryable, details=error.details)
