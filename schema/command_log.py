"""The command log's entries, what each is known by, and the chain that ties each to all before it.

A command's payload is kept, compared and hashed in one form, whatever encoding it came in: the MessagePack of the
decoded command, so null and absent optional fields, white space and the order of a record's fields make no difference.
`PROTOCOL.md` beside this file describes the log for people.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import UNSET, Meta, Struct, field
from msgspec.structs import replace

from backscroll.schema.limits import Count, HexDigest
from backscroll.schema.records import Record
from backscroll.schema.wire import MSGPACK, RequestId

if TYPE_CHECKING:  # operations about the log are made of its entries
    from backscroll.schema.operations.base import Command

Ulid = Annotated[str, Meta(pattern="^[0-9A-HJKMNP-TV-Z]{26}$", max_length=26)]

DIGEST_BYTES = 32
CHAIN_START = bytes(DIGEST_BYTES)
"""What the first entry of a scope is chained to."""


class Generated(Record, frozen=True, kw_only=True):
    """What a command generated beyond its payload and time, in the order of deciding: without it a replay would differ.

    `ids` are those that it made, `tokenHashes` the SHA-256 of the tokens. A token itself is nowhere.
    """

    ids: list[Ulid] = field(default_factory=list)
    token_hashes: list[HexDigest] = field(default_factory=list)


class LogEntry(Record, frozen=True, kw_only=True):
    """A command that took effect: its number, time (ms), id, type and payload.

    `payload` is null where it is not kept. `redacted` says that text which was deleted since is left out of it, or that
    all of it is. `digest` is the SHA-256 of the payload as it was received, in hex, and `chain` that of the entry
    together with all before it.
    """

    seq: Annotated[int, Meta(ge=1)]
    at: Annotated[int, Meta(ge=0, le=2**48 - 1)]  # what a ULID can hold
    id: RequestId
    type: Annotated[str, Meta(max_length=64)]
    payload: Any = None
    generated: Generated | None = None
    redacted: bool = False
    digest: HexDigest | None = None
    chain: HexDigest | None = None


class LogPage(Record, frozen=True, kw_only=True):
    """A stretch of the log. `chainStart` is the chain before its first entry.

    `firstSeq` and `lastSeq` are those of the whole log; an empty one begins after its end.
    """

    entries: list[LogEntry]
    chain_start: HexDigest
    first_seq: Count
    last_seq: Count


def canonical(command: "Command[Any]") -> bytes:
    """The form of a command's payload that is kept and hashed. It never holds a secret or the bytes of a file."""
    return MSGPACK.encode(command.as_logged())


def digest_of(payload: bytes) -> bytes:
    """What a payload in its canonical form is known by."""
    return hashlib.sha256(payload).digest()


def link(before: bytes, seq: int, at: int, request_id: str, name: str, digest: bytes, generated: bytes | None) -> bytes:
    """The chain after an entry: SHA-256 of the chain `before` it and of the MessagePack list of what it says."""
    return hashlib.sha256(before + MSGPACK.encode((seq, at, request_id, name, digest, generated))).digest()


def redacted(said: Any) -> Any:
    """A command or record without what people said in it; its structure stays, so it can still be carried out."""
    if isinstance(said, list):
        return [redacted(item) for item in said]
    if not isinstance(said, Struct):
        return said
    instead: Mapping[str, Any] = getattr(said, "REDACTABLE", {})
    fields = ((name, getattr(said, name)) for name in said.__struct_fields__)
    present = {name: value for name, value in fields if value is not None and value is not UNSET}
    return replace(said, **{name: instead.get(name, redacted(value)) for name, value in present.items()})
