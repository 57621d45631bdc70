"""What can be read from a body that cannot be decoded: its id, and the path of text that is not valid Unicode.

Used only after decoding has failed, so simple code matters more than speed. The work that a hostile body can cause is
bounded: of each body at most `STEPS_MAX` values and brackets are visited, and nothing is found after them.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Raw, Struct

from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import CallerError, Invalid

if TYPE_CHECKING:
    from backscroll.schema.wire import Codec

STEPS_MAX = 100_000
SURROGATES_MAX = 10_000
ID_BYTES_RETURNED_MAX = 64 * 1024
UNPAIRED = "the text contains an unpaired surrogate; was it cut inside an emoji?"
REPLACEMENT = rb"\ufffd"  # as long as the escape in its place

# These patterns are possessive: they take linear time and constant memory, whatever the bytes are.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATE = re.compile(
    rb"(?:[^\\]++|\\(?!u[dD][89a-fA-F][0-9a-fA-F]{2}).|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
    rb"(?P<lone>\\u)",
    re.DOTALL,
)
_TOKEN = re.compile(
    rb'(?P<text>"(?:[^"\\]++|\\.)*+(?P<end>")?+)(?P<colon>\s*+:)?+|(?P<bracket>[{}\[\]])|(?P<comma>,)|[^\s"{}\[\],]++',
    re.DOTALL,
)

# MessagePack: how many bytes follow the first; how wide a length is, and how many bytes follow it besides; how wide a
# number of items is, and how many values an item has.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_SIZED |= {0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_TEXTS = (0xD9, 0xDA, 0xDB)
_NESTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


class _AnyId(Struct):
    id: Any = None


class _Value(NamedTuple):
    """A key or a value that is not a list or map. `path` changes while scanning goes on."""

    path: list[str | int]
    start: int
    encoded: bytes
    is_key: bool


def read_id(body: bytes, codec: "Codec") -> Any:
    """The id in a body as it was sent, a string or a number; None if it has none."""
    try:
        found = codec.decode(body, _AnyId).id
    except DECODE_ERRORS:
        found = _scan_for_id(body, codec)
    if isinstance(found, str) and len(found.encode()) > ID_BYTES_RETURNED_MAX:
        return None
    return found if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def find_lone_surrogate(body: bytes) -> Invalid | None:
    r"""The error for JSON in which a `\uD800` … `\uDFFF` is not part of a pair; None if there is none."""
    found = _LONE_SURROGATE.match(body) if _SURROGATE.search(body) else None
    if found is None:
        return None
    return _bad_text("$", _path_at(found.start("lone"), body), UNPAIRED)


class Mended(NamedTuple):
    """A batch in JSON with a replacement for each unpaired surrogate, and the errors about these by command."""

    body: bytes
    flaws: dict[int, CallerError]


def mend_batch(body: bytes) -> Mended | None:
    r"""JSON with `\ufffd` for each unpaired surrogate; None unless each that is found is in a command of a batch.

    So its other commands can be decoded, to find all that is wrong with it. Its text is not what was sent: it must be
    refused.
    """
    if not _SURROGATE.search(body):
        return None
    places: list[int] = []
    while lone := _LONE_SURROGATE.match(body, places[-1] + 2 if places else 0):
        places.append(lone.start("lone"))
        if len(places) > SURROGATES_MAX:
            return None
    flaws: dict[int, CallerError] = {}
    for path in _paths_at(places, body):
        error = _bad_text("$", path, UNPAIRED)
        if not path.startswith(".payload.commands[") or error.details is None or "index" not in error.details:
            return None
        flaws.setdefault(error.details["index"], error)
    mended = bytearray(body)
    for place in places:
        mended[place : place + len(REPLACEMENT)] = REPLACEMENT
    return Mended(bytes(mended), flaws) if flaws else None


def find_bad_text(body: bytes | Raw, codec: "Codec", root: str) -> Invalid:
    """The error for text that is not valid UTF-8, somewhere in what is at the path `root`."""
    body, path = bytes(body), ""
    if codec.name == "json":
        try:
            body.decode()
        except UnicodeDecodeError as error:
            path = _path_at(error.start, body)
    else:
        path = next((_path_of(value) for value in _scan_msgpack(body) if _is_bad_text(value.encoded)), "")
    return _bad_text(root, path, "the text is not valid UTF-8")


def _bad_text(root: str, path: str, problem: str) -> Invalid:
    """The error for bad text, with its path and, inside a batch, its command's index."""
    index = re.match(r"\$\.payload\.(?:commands|entries)\[(\d+)\]", root + path)
    return Invalid.at(root + path, problem, **({"index": int(index[1])} if index else {}))


def _scan_for_id(body: bytes, codec: "Codec") -> Any:
    for value in _scan_json(body) if codec.name == "json" else _scan_msgpack(body):
        if value.path == ["id"] and not value.is_key:
            try:
                return codec.decode(value.encoded, object)
            except DECODE_ERRORS:
                return None
    return None


def _path_at(position: int, body: bytes) -> str:
    """The path of the value in JSON that contains a byte; for a key the path of its map."""
    return next(_paths_at([position], body), "")


def _paths_at(positions: list[int], body: bytes) -> Iterator[str]:
    """The paths of the values in JSON that contain these bytes, which are in order; only of those that are found."""
    left = iter(positions)
    position = next(left, None)
    for value in _scan_json(body):
        while position is not None and value.start + len(value.encoded) > position:
            yield _path_of(value) if value.start <= position else ""
            position = next(left, None)
        if position is None:
            return


def _path_of(value: _Value) -> str:
    steps = value.path[:-1] if value.is_key else value.path
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _scan_json(body: bytes) -> Iterator[_Value]:
    """The keys and values in JSON, up to where it is broken or cut off inside a text."""
    path: list[str | int] = []
    for token in islice(_TOKEN.finditer(body), STEPS_MAX):
        match token.lastgroup, token[0]:
            case "colon", _:
                yield _Value(path, token.start(), token["text"], True)
                if path:
                    path[-1] = _text_of(token["text"])
            case "bracket", b"{" | b"[":
                path.append("" if token[0] == b"{" else 0)
            case "bracket", _:
                del path[-1:]
            case "comma", _:
                if path and isinstance(path[-1], int):
                    path[-1] += 1
            case _, encoded:
                yield _Value(path, token.start(), encoded, False)
                if token["text"] and not token["end"]:
                    return


def _text_of(key: bytes) -> str:
    try:
        return str(json.loads(key))
    except ValueError:
        return key.strip(b'"').decode(errors="replace")


def _scan_msgpack(body: bytes) -> Iterator[_Value]:
    """The keys and values in MessagePack, up to where it is broken or cut off."""
    path: list[str | int] = []
    missing: list[int] = []  # items, in each list or map around the present one; a map's keys and values count both
    at = 0
    for _ in range(STEPS_MAX):
        size, items = _header(body, at)
        if size == 0 or at + size > len(body):
            return
        encoded = body[at : at + size]
        is_key = bool(path) and isinstance(path[-1], str) and missing[-1] % 2 == 0
        if path and isinstance(path[-1], int):
            path[-1] += 1
        if items is None:
            yield _Value(path, at, encoded, is_key)
        if is_key:
            path[-1] = _text_in(encoded).decode(errors="replace")
        at += size
        if missing:
            missing[-1] -= 1
        if items is not None:
            path.append(-1 if _is_list(encoded) else "")
            missing.append(items)
        while missing and missing[-1] == 0:
            del path[-1], missing[-1]
        if not missing:
            return


def _header(body: bytes, at: int) -> tuple[int, int | None]:
    """The size of the MessagePack value at this position, and None; for a list or map that of its header, and how many
    items follow. The size is 0 if there is no value.
    """
    first = body[at] if at < len(body) else 0xC1  # which is no value
    if first <= 0x7F or first >= 0xE0:
        return 1, None
    if first <= 0x9F:
        return 1, (first & 0x0F) * (2 if first <= 0x8F else 1)
    if first <= 0xBF:
        return 1 + (first & 0x1F), None
    if first in _FIXED:
        return 1 + _FIXED[first], None
    if first in _SIZED:
        width, extra = _SIZED[first]
        return 1 + width + extra + int.from_bytes(body[at + 1 : at + 1 + width], "big"), None
    if first in _NESTED:
        width, each = _NESTED[first]
        return 1 + width, each * int.from_bytes(body[at + 1 : at + 1 + width], "big")
    return 0, None


def _is_list(header: bytes) -> bool:
    return 0x90 <= header[0] <= 0x9F or header[0] in (0xDC, 0xDD)


def _text_in(encoded: bytes) -> bytes:
    """The bytes of a MessagePack text; none if it is something else."""
    if 0xA0 <= encoded[0] <= 0xBF:
        return encoded[1:]
    return encoded[1 + _SIZED[encoded[0]][0] :] if encoded[0] in _TEXTS else b""


def _is_bad_text(encoded: bytes) -> bool:
    try:
        _text_in(encoded).decode()
    except UnicodeDecodeError:
        return True
    return False
