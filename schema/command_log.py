"""The entries of the command log, how they are hashed and chained, and how deleted text is erased from them.

`PROTOCOL.md` beside this file describes the log for people, with test vectors for the hashes.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, cast, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, field
from msgspec.structs import replace

from backscroll.schema.limits import Count, HexDigest, Id, Many, Millis, OperationName, Seq
from backscroll.schema.markers import OneOf
from backscroll.schema.records import Record
from backscroll.schema.wire import MSGPACK, RequestId

if TYPE_CHECKING:  # operations about the log are made of its entries
    from backscroll.schema.operations.base import Command

Ulid = Annotated[str, Meta(pattern="^[0-9A-HJKMNP-TV-Z]{26}$", max_length=26)]
Salt = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]

FORMAT: Final = 1
"""The number of the form that rows of the log have."""
DIGEST_BYTES = 32
SALT_BYTES = 16
CHAIN_START = bytes(DIGEST_BYTES)
"""The chain before a scope's first entry."""

Noun = Literal["message", "room", "member", "user", "current-user", "ban", "media"]
ChangeKind = Literal["saved", "gone", "cleared", "replaced"]

_encode_canonically = msgspec.msgpack.Encoder(order="sorted").encode


class Change(Record, frozen=True, kw_only=True):
    """One thing that a command changed: no text of people, only what it is and where.

    `saved`: it was written and can be read. `gone`: it no longer exists, in this room at least. `cleared`: all of its
    kind are gone, in the room, in one channel of it, or everywhere. `replaced`: all of its kind in the room were written
    anew. Reactions and attachments are changes of their message; channels and categories are changes of their room.
    """

    noun: Annotated[str, OneOf(*get_args(Noun))]
    kind: Annotated[str, OneOf(*get_args(ChangeKind))] = "saved"
    id: Id | None = None
    room_id: Id | None = None
    channel_id: Id | None = None


class Generated(Record, frozen=True, kw_only=True):
    """What the daemon generated for a command, in the order of generating: without it a replay would differ.

    `ids` are the ids it made, `tokenHashes` the SHA-256 of the tokens. A token itself is not stored.
    """

    ids: list[Ulid] = field(default_factory=list)
    token_hashes: list[HexDigest] = field(default_factory=list)


class LogEntry(Record, frozen=True, kw_only=True):
    """A command that took effect: its number, time (ms), id, type and payload, and what it changed and generated.

    `payload` is null where it was not kept. `redacted` says that text which was deleted since was erased from it, or all
    of it; then `salt` is gone too. `digest` is the SHA-256 of the salt and the canonical payload, `chain` that of the
    entry and of all entries before it, both in hex. `principal` is who sent the command, where that is known.
    """

    seq: Seq
    at: Millis
    id: RequestId
    type: OperationName
    payload: Any = None
    changes: Many[Change] = field(default_factory=list)
    generated: Generated | None = None
    principal: Id | None = None
    salt: Salt | None = None
    redacted: bool = False
    digest: HexDigest | None = None
    chain: HexDigest | None = None


class LogPage(Record, frozen=True, kw_only=True):
    """A page of the log. `chainStart` is the chain before its first entry.

    `firstSeq` and `lastSeq` are those of the whole log; an empty log begins after its end.
    """

    entries: list[LogEntry]
    chain_start: HexDigest
    first_seq: Count
    last_seq: Count


class Facts(NamedTuple):
    """What is chained of an entry besides its number, time, type and id: a MessagePack array in this order."""

    format: int
    principal: str | None
    digest: bytes
    changes: list[Change]
    generated: Generated | None


def as_logged(command: "Command[Any]") -> "Command[Any]":
    """A command as the log keeps it: hashes in place of secrets and of the bytes of files."""
    replace_secrets = getattr(command, "as_logged", None)
    return command if replace_secrets is None else cast("Command[Any]", replace_secrets())


def canonical(command: "Command[Any]") -> bytes:
    """The payload of a command that was decoded from a request, in the one form that is hashed and compared.

    MessagePack with the keys of every map sorted by their bytes, at every depth; fields that are unset or have their
    default are left out. It never holds a secret or the bytes of a file.
    """
    return _encode_canonically(as_logged(command))


def digest_of(salt: bytes, payload: bytes) -> bytes:
    """The hash that a command's payload is known by. `payload` is canonical, `salt` has `SALT_BYTES` random bytes."""
    return hashlib.sha256(salt + payload).digest()


def encode_facts(facts: tuple[Any, ...]) -> bytes:
    """The facts of an entry, the fields of `Facts` in their order, with the keys of every map sorted."""
    return _encode_canonically(facts)


def decode_facts(encoded: bytes) -> Facts:
    """The facts of a stored row."""
    return MSGPACK.decode(encoded, Facts)


def chain_after(before: bytes, seq: int, at: int, name: str, request_id: str, facts: bytes) -> bytes:
    """The chain after an entry: SHA-256 of the chain before it, the text `"seq at type id"`, and the encoded facts.

    The text cannot run into the facts, which begin with the byte 0x95: no UTF-8 text goes on with that.
    """
    return hashlib.sha256(before + f"{seq} {at} {name} {request_id}".encode() + facts).digest()


class Target(NamedTuple):
    """One item of a list inside a command: what it is (a record's `NOUN`), and its `KEY` there."""

    noun: str
    key: tuple[str, ...]


def erase_text(command: Any, target: Target | None) -> Any:
    """A command without the text about `target`, or without any text of people where that is None.

    A command in which no list holds the item is about that item alone, except that a reaction is always an item.
    """
    if target is None:
        return redact(command)
    erased = redact_item(command, target)
    return redact(command) if erased is command and target.noun != "reaction" else erased


def redact(value: Any) -> Any:
    """A command or record without the text of people; its structure stays, so that it can still be executed."""
    if isinstance(value, list):
        return [redact(item) for item in value]
    if not isinstance(value, Struct):
        return value
    instead: Mapping[str, Any] = getattr(value, "REDACTABLE", {})
    fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
    present = {name: field for name, field in fields if field is not None and field is not UNSET}
    return replace(value, **{name: instead.get(name, redact(field)) for name, field in present.items()})


def redact_item(value: Any, target: Target) -> Any:
    """A command or record in which only the list items that `target` names are redacted; the same object without any.

    A reaction is taken out of its list, since two that were redacted would be duplicates.
    """
    if not isinstance(value, Struct):
        return value
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    changed = {name: new for name, old in fields.items() if (new := _redact_in(old, target)) is not old}
    return replace(value, **changed) if changed else value


def _redact_in(value: Any, target: Target) -> Any:
    if not isinstance(value, list):
        return redact_item(value, target)
    if not any(_is(item, target) for item in value):
        return value
    if target.noun == "reaction":
        return [item for item in value if not _is(item, target)]
    return [redact(item) if _is(item, target) else item for item in value]


def _is(item: Any, target: Target) -> bool:
    if getattr(item, "NOUN", None) != target.noun:
        return False
    return tuple(getattr(item, name) for name in item.KEY) == target.key
