"""The entries of the command log, how they are hashed and chained, and how deleted text is erased from them.

`PROTOCOL.md` in this folder specifies the log, with test vectors for the hashes.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, cast, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, field
from msgspec.structs import replace

from backscroll.schema.limits import ClientId, Count, HexDigest, Id, Many, Millis, OperationName, PositiveCount, Seq
from backscroll.schema.markers import OneOf
from backscroll.schema.records import Record
from backscroll.schema.wire import MSGPACK, RequestId

if TYPE_CHECKING:  # a circular import at run time: the operations on the log contain its entries
    from backscroll.schema.operations.base import Command

Ulid = Annotated[str, Meta(pattern="^[0-7][0-9A-HJKMNP-TV-Z]{25}$", max_length=26)]
Salt = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]

FORMAT: Final = 1
"""The version of the format that rows of the log are hashed in."""
SENDER: Final = 5
"""The place of the sender in `Facts`."""
DIGEST_BYTES = 32
SALT_BYTES = 16
CHAIN_START = bytes(DIGEST_BYTES)
"""The chain value before a scope's first entry."""

Noun = Literal["message", "room", "member", "user", "current-user", "ban", "media"]
NOUNS_IN_ROOMS: Final = frozenset({"message", "room", "member", "ban"})
"""The nouns whose items are in rooms."""
NounName = Annotated[str, OneOf(*get_args(Noun))]
ChangeKind = Literal["saved", "gone", "cleared", "replaced"]

_encode_canonically = msgspec.msgpack.Encoder(order="sorted").encode


class Change(Record, frozen=True, kw_only=True):
    """One item that a command changed: which one and where, without any user text.

    Attributes:
        noun: What kind of item. Reactions and attachments count as changes of their message, channels and categories as
            changes of their room.
        kind: `saved`: it was written and can be read. `gone`: it no longer exists, at least not in this room.
            `cleared`: all items of this noun are gone, in the room, in one of its channels, or everywhere. `replaced`:
            all items of this noun in the room were rewritten.
        id: The id of the item; of a user, member or ban the `oderId`. Absent if it is about all items, or about no
            current user.
        room_id: The room that the item is in; of a room its own id. Users, the current user and media are in none.
        channel_id: The channel whose messages were cleared.
    """

    noun: NounName
    kind: Annotated[str, OneOf(*get_args(ChangeKind))] = "saved"
    id: Id | None = None
    room_id: Id | None = None
    channel_id: Id | None = None


class Generated(Record, frozen=True, kw_only=True):
    """The values that the daemon generated for a command, in order. A replay uses them instead of new ones.

    Attributes:
        ids: The generated ids, in order.
    """

    ids: list[Ulid] = field(default_factory=list)


class LogEntry(Record, frozen=True, kw_only=True):
    """A command that took effect: its number, time (ms), id, type and payload, and what it changed and generated.

    Attributes:
        seq: The number of the command: 1, 2, 3 … in its scope.
        at: The time that the command took for the current one.
        id: The id of its request.
        payload: Null if it was not kept, or was erased as a whole. Without secrets: hashes are in place of tokens and
            of the bytes of files that no longer exist.
        generated: Absent if the daemon generated nothing for it.
        principal: The name of the token that the command was sent with; absent over ipc, and for the start token.
        client: The `client` of its request, if it had one.
        n: The `n` of its request, if it had one.
        salt: 16 random bytes in hex; gone if the entry is `redacted`.
        redacted: Whether the payload, or the part of its text that was deleted later, was erased.
        digest: The SHA-256 of the salt and the canonical payload as it was, in hex.
        chain: A SHA-256 that covers this entry and all before it, in hex.
    """

    seq: Seq
    at: Millis
    id: RequestId
    type: OperationName
    payload: Any = None
    changes: Many[Change] = field(default_factory=list)
    generated: Generated | None = None
    principal: Id | None = None
    client: ClientId | None = None
    n: PositiveCount | None = None
    salt: Salt | None = None
    redacted: bool = False
    digest: HexDigest | None = None
    chain: HexDigest | None = None

    @property
    def sender(self) -> "Sender | None":
        """`client` and `n`, if the entry has both."""
        return None if self.client is None or self.n is None else Sender(self.client, self.n)


class LogPage(Record, frozen=True, kw_only=True):
    """A page of the log. `chainStart` is the chain value before its first entry.

    Attributes:
        first_seq: The number of the first entry of the whole log; `lastSeq` + 1 if it is empty.
        last_seq: The number of the last entry of the whole log.
    """

    entries: list[LogEntry]
    chain_start: HexDigest
    first_seq: Count
    last_seq: Count


class Sender(NamedTuple):
    """The client that sent a command, and the command's number among those of this client, which rises."""

    client: str
    n: int


class Facts(NamedTuple):
    """The fields of an entry that are hashed into the chain besides seq, time, type and id, in this order.

    `sender` is left out if there is none.
    """

    format: int
    principal: str | None
    digest: bytes
    changes: list[Change]
    generated: Generated | None
    sender: Sender | None = None


class _OnlySender(NamedTuple):
    """`Facts` of which only the last field is decoded."""

    format: msgspec.Raw
    principal: msgspec.Raw
    digest: msgspec.Raw
    changes: msgspec.Raw
    generated: msgspec.Raw
    sender: Sender | None = None


def as_logged(command: "Command[Any]") -> "Command[Any]":
    """The command as it is stored in the log: without secrets, and with hashes for tokens and the bytes of files."""
    replace_secrets = getattr(command, "as_logged", None)
    return command if replace_secrets is None else cast("Command[Any]", replace_secrets())


def canonical(command: "Command[Any]") -> bytes:
    """The canonical form of a decoded command's payload, which is what is hashed and compared.

    MessagePack with the keys of every map sorted by their bytes, at every depth; fields that are unset or have their
    default value are left out. It never contains a secret or the bytes of a file.
    """
    return canonical_form(as_logged(command))


def canonical_form(value: Any) -> bytes:
    """A value in MessagePack, with the keys of every map sorted by their bytes, at every depth."""
    return _encode_canonically(value)


def digest_of(salt: bytes, payload: bytes) -> bytes:
    """The digest of a command's payload. `payload` is in canonical form, `salt` has `SALT_BYTES` random bytes."""
    return hashlib.sha256(salt + payload).digest()


def encode_facts(facts: tuple[Any, ...]) -> bytes:
    """Encode the facts of an entry, the fields of `Facts` in order, with the keys of every map sorted."""
    return _encode_canonically(facts[:SENDER] if facts[SENDER] is None else facts)


def decode_facts(encoded: bytes) -> Facts:
    """Decode the facts of a stored row."""
    return MSGPACK.decode(encoded, Facts)


def sender_in(encoded: bytes) -> Sender | None:
    """The sender in the facts of a stored row; raises one of `DECODE_ERRORS` if they are damaged."""
    return MSGPACK.decode(encoded, _OnlySender).sender


def chain_after(before: bytes, seq: int, at: int, name: str, request_id: str, facts: bytes) -> bytes:
    """The chain after an entry: SHA-256 of the chain before it, the text `"seq at type id"`, and the encoded facts.

    The boundary between text and facts is unambiguous: facts begin with 0x95 or 0x96, which cannot start a UTF-8
    character.
    """
    return hashlib.sha256(before + f"{seq} {at} {name} {request_id}".encode() + facts).digest()


class Target(NamedTuple):
    """Identifies an item of a list inside a command by its record's `NOUN` and the values of its `KEY` fields.

    The last of these suffice where all such items in a command have the same others.
    """

    noun: str
    key: tuple[str | None, ...]


Fields = frozenset[str]
"""The names of fields whose text is erased, as in `REDACTABLE`."""


def erase_text(command: Any, target: Target | None, fields: Fields | None = None) -> Any:
    """The command without the text about `target`, or without any user text if `target` is None.

    If it does not contain the target, the whole command is about it, and all its text is erased. Only in these `fields`
    if they are given, and then only in the target.
    """
    if target is None:
        return redact(command, fields)
    erased = redact_item(command, target, fields)
    return redact(command) if erased is command and fields is None else erased


def redact(value: Any, fields: Fields | None = None) -> Any:
    """The command or record without user text. It keeps its structure, so that it can still be executed.

    With `fields`, a record that has text loses only that in these fields.
    """
    if isinstance(value, list):
        return [redact(item, fields) for item in value]
    if not isinstance(value, Struct):
        return value
    instead: Mapping[str, Any] = getattr(value, "REDACTABLE", {})
    present = {name: old for name, old in _fields_of(value) if old is not None and old is not UNSET}
    erased = {
        name: redact(old, fields) if name not in instead else instead[name]
        for name, old in present.items()
        if name not in instead or fields is None or name in fields
    }
    return replace(value, **erased)


def _fields_of(value: Struct) -> list[tuple[str, Any]]:
    return [(name, getattr(value, name)) for name in value.__struct_fields__]


def redact_item(value: Any, target: Target, fields: Fields | None = None) -> Any:
    """The command or record with only the items matching `target` redacted; the same object if there are none."""
    if not isinstance(value, Struct):
        return value
    changed = {name: new for name, old in _fields_of(value) if (new := _redact_in(old, target, fields)) is not old}
    return replace(value, **changed) if changed else value


def _redact_in(value: Any, target: Target, fields: Fields | None) -> Any:
    if not isinstance(value, list):
        return redact(value, fields) if _is(value, target) else redact_item(value, target, fields)
    if not any(_is(item, target) for item in value):
        return value
    return [redact(item, fields) if _is(item, target) else item for item in value]


def _is(item: Any, target: Target) -> bool:
    if getattr(item, "NOUN", None) != target.noun:
        return False
    return tuple(getattr(item, name) for name in item.KEY[-len(target.key) :]) == target.key
