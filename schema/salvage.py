"""What can be read from a body that cannot be decoded: its id, and the path of text that is not valid Unicode.

Used only after decoding has failed, so simple code matters more than speed. The work that a hostile body can cause is
bounded.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct

from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import Invalid

if TYPE_CHECKING:
    from backscroll.schema.wire import Codec

SEARCHED_BYTES_MAX = 4 * 1024 * 1024  # of one value; larger ones are not searched for the path
SCANNED_VALUES_MAX = 1_000_000  # tokens of JSON or values of MessagePack that are searched for the id
ID_BYTES_RETURNED_MAX = 64 * 1024
DEPTH_MAX = 64

PLACEHOLDER = "\ufdd0"
"""Replaces lone surrogates. A Unicode noncharacter, reserved for use inside programs."""

_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
# An unterminated string is one token and nothing is matched twice, or the time would grow with the square of the size.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)


class _AnyId(Struct):
    id: Any = None


def read_id(body: bytes, codec: "Codec") -> Any:
    """The id in a body as it was sent, a string or a number; None if it has none."""
    try:
        found = codec.decode(body, _AnyId).id
    except DECODE_ERRORS:
        found = _scan_json(body) if codec.name == "json" else _scan_msgpack(body, codec)
    if isinstance(found, str) and len(found.encode(errors="replace")) > ID_BYTES_RETURNED_MAX:
        return None
    return found if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def replace_lone_surrogates(body: bytes) -> bytes | None:
    """JSON with every unpaired `\\uD800` … `\\uDFFF` replaced by a placeholder; None if there is none."""
    placeholder = json.dumps(PLACEHOLDER)[1:-1].encode()
    lone = 0

    def mend(match: "re.Match[bytes]") -> bytes:
        nonlocal lone
        if match[2]:
            return match[0]
        lone += 1
        return match[1] + placeholder

    mended = _LONE_SURROGATE.sub(mend, body)
    return mended if lone else None


def find_bad_text(body: bytes | Raw, codec: "Codec", path: str) -> Invalid:
    """The error for text that is not valid Unicode, with its path and, inside a batch, the command's index."""
    where, surrogate = _find(bytes(body), codec, path, 0)
    problem = (
        "the text contains an unpaired surrogate; was it cut inside an emoji?"
        if surrogate
        else "the text is not valid UTF-8"
    )
    index = re.match(r"\$\.payload\.(?:commands|entries)\[(\d+)\]", where)
    return Invalid.at(where, problem, **({"index": int(index[1])} if index else {}))


def _find(value: bytes, codec: "Codec", path: str, depth: int) -> tuple[str, bool]:
    """The path of the first bad text in a value that contains one, and whether it is a placeholder."""
    for step, child in _children(value, codec) if depth < DEPTH_MAX else ():
        bad = _bad(bytes(child), codec)
        if bad is not None:
            return _find(bytes(child), codec, path + step, depth + 1)
    return path, bool(_bad(value, codec))


def _children(value: bytes, codec: "Codec") -> Iterator[tuple[str, Raw]]:
    if len(value) > SEARCHED_BYTES_MAX:
        return
    try:
        for key, child in codec.decode(value, dict[str, Raw]).items():
            yield f".{key}", child
        return
    except DECODE_ERRORS:
        pass
    try:
        for index, child in enumerate(codec.decode(value, list[Raw])):
            yield f"[{index}]", child
    except DECODE_ERRORS:
        return


def _bad(value: bytes, codec: "Codec") -> bool | None:
    """True if a value contains a placeholder, False if it contains text that is not valid UTF-8, None if it is fine."""
    if codec.name == "json" and (json.dumps(PLACEHOLDER)[1:-1].encode() in value or PLACEHOLDER.encode() in value):
        return True
    if len(value) > SEARCHED_BYTES_MAX:
        return None
    try:
        codec.decode(value, object)
    except UnicodeError:
        return False
    except DECODE_ERRORS:
        return None
    return None


def _scan_json(body: bytes) -> Any:
    """The id at the top level of JSON that is invalid somewhere after it."""
    depth, key, expecting = 0, b"", False
    for match in islice(_TOKEN.finditer(body, 0, SEARCHED_BYTES_MAX), SCANNED_VALUES_MAX):
        token = match[0]
        if expecting and depth == 1:
            return _json_scalar(token)
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif token == b":" and depth == 1:
            expecting = key == b'"id"'
        key = token
    return None


def _json_scalar(token: bytes) -> Any:
    try:
        value = json.loads(token)
    except ValueError:
        return None
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _scan_msgpack(body: bytes, codec: "Codec") -> Any:
    """The id at the top level of MessagePack that is invalid somewhere after it."""
    try:
        (count, at), left = _map_header(body), SCANNED_VALUES_MAX
        for _ in range(count):
            key_end, left = _end_of_value(body, at, left)
            value_end, left = _end_of_value(body, key_end, left)
            if body[at:key_end] == b"\xa2id":
                return codec.decode(body[key_end:value_end], object)
            at = value_end
    except (*DECODE_ERRORS, IndexError):
        pass
    return None


def _map_header(body: bytes) -> tuple[int, int]:
    """The number of a map's entries, and the offset of the first."""
    first = body[0]
    if 0x80 <= first <= 0x8F:
        return first & 0x0F, 1
    size = {0xDE: 2, 0xDF: 4}.get(first)
    if size is None:
        raise IndexError
    return int.from_bytes(body[1 : 1 + size], "big"), 1 + size


_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_SIZED |= {0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_NESTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _end_of_value(body: bytes, at: int, left: int) -> tuple[int, int]:
    """The end offset of the MessagePack value at `at`, and how many of `left` values may still be scanned after it.

    Raises IndexError if the value is invalid or truncated, or contains more than `left` values.
    """
    pending = 1
    while pending:
        if not left:
            raise IndexError
        first = body[at]
        at, pending, left = at + 1, pending - 1, left - 1
        if first <= 0x7F or first >= 0xE0:
            continue
        if first <= 0x8F:
            pending += 2 * (first & 0x0F)
        elif first <= 0x9F:
            pending += first & 0x0F
        elif first <= 0xBF:
            at += first & 0x1F
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _SIZED:
            width, extra = _SIZED[first]
            at += width + extra + int.from_bytes(body[at : at + width], "big")
        else:
            width, each = _NESTED[first] if first in _NESTED else (len(body), 0)  # 0xc1 is never used
            pending += each * int.from_bytes(body[at : at + width], "big")
            at += width
    if at > len(body):
        raise IndexError
    return at, left
