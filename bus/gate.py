"""Who may connect, who is calling, and what they may do.

    handshake ──▶ may_connect: ipc by the peer's uid, tcp any (requests have a token), curve by the client's key
    request ────▶ admit: token ──▶ caller ──▶ has it the operation's right, and the scope?

Nothing is queued, and no payload decoded, before `admit` has answered. Tokens are stored by their SHA-256, keys as they
are, in two documents: in files, or in a database for all of its daemons. Methods that change them are called by writer
threads and wait for storage; the others are called by the loop too, and use what is in memory: a change replaces a
dictionary as a whole, whoever made it.
"""

import hashlib
import os
import secrets
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import zmq
from msgspec import Struct
from zmq.utils import z85

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.failures import BadSettings
from backscroll.bus.stores import KEYS, TOKENS, AccessDocuments
from backscroll.schema.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge, Unauthenticated
from backscroll.schema.limits import CLIENT_KEYS_MAX, TOKENS_MAX
from backscroll.schema.operations import RIGHTS, AddKey, CreateToken, Operation
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.replies import AccessToken, ClientKey, KeyList, Proof
from backscroll.schema.wire import proof_of

TRANSPORTS: Final = ("ipc", "tcp", "curve")
IPC, TCP, CURVE = range(len(TRANSPORTS))

RANKS: Final[Mapping[str, int]] = {right: rank for rank, right in enumerate(RIGHTS)}
REMEDY = "send the token as `auth`: the `token` in endpoint.json, or one made by `backscroll token create`"

T = TypeVar("T")


class StoredToken(AccessToken, frozen=True, kw_only=True):
    """A token as it is stored."""

    token_hash: str


class _Tokens(Struct, frozen=True):
    tokens: list[StoredToken] = []


class _Keys(Struct, frozen=True, rename="camel"):
    server_secret_key: str
    keys: list[ClientKey] = []


class _Caller(NamedTuple):
    """Whoever has a token. `name` is None for the start token, whose owner is that of the daemon."""

    name: str | None
    right: str
    scopes: frozenset[str] | None
    expires_at: float


class Gate:
    """Decides about connections and requests, from stored tokens and keys; raises `CannotOpen` if they are damaged.

    `allowed_uids` may connect over ipc besides the daemon's own. `clock` returns milliseconds since the epoch.
    """

    def __init__(
        self,
        documents: AccessDocuments,
        allowed_uids: Sequence[int] = (),
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.start_token = secrets.token_urlsafe(32)
        self.endpoints: list[str] = []
        """The tcp endpoints that are bound."""
        self.on_change: Callable[[], None] = _do_nothing
        """Called by any thread after tokens or keys have changed."""
        self._uids = {*allowed_uids, os.getuid()} if hasattr(os, "getuid") else set()
        self.admits_others = bool(allowed_uids)
        self._clock = clock
        self._documents = documents
        self._lock = threading.Lock()  # held while documents are read or changed, so that the newest are used
        self._contents: Mapping[str, bytes] = {}  # of the documents
        self._tokens: dict[str, StoredToken] = {}
        self._callers: dict[str, _Caller] = {}  # by the hash of their token
        self._keys = _Keys("")
        self._curve_keys: frozenset[bytes] = frozenset()
        self._use(documents.read())
        documents.watch(self.refresh)

    # Connections

    def may_connect(self, domain: bytes, address: bytes, mechanism: bytes, credentials: Sequence[bytes]) -> bool:
        """Whether a peer may connect. `domain` is its transport, the rest is what libzmq tells about it."""
        if domain == b"curve":
            return mechanism == b"CURVE" and len(credentials) == 1 and credentials[0] in self._curve_keys
        if mechanism != b"NULL":
            return False
        return domain == b"tcp" or _uid_of(address) in self._uids

    def server_secret_key(self) -> bytes:
        """The daemon's CURVE secret; raises `BadSettings` if no client has a key."""
        if not self._keys.keys:
            raise BadSettings(
                f"no client may connect to a curve:// endpoint, as no key is listed: run {self._documents.keys_command}"
            )
        return self._keys.server_secret_key.encode()

    # Requests

    def admit(self, auth: str | None, operation: type[Operation[Any]], scope: str) -> str | None:
        """The name of the token that a request came with, None for the start token.

        Raises `Unauthenticated` or `Forbidden`.
        """
        if operation.RIGHT == "none":
            return None
        if auth is None:
            raise Unauthenticated.at("$.auth", f"a request over tcp needs a token; {REMEDY}")
        caller = self._callers.get(hash_of(auth))
        if caller is None:
            raise Unauthenticated.at("$.auth", f"this token is unknown, or was revoked; {REMEDY}")
        if caller.expires_at <= self._clock():
            raise Unauthenticated.at("$.auth", f"the token {caller.name!r} has expired; {REMEDY}")
        if RANKS[operation.RIGHT] > RANKS[caller.right]:
            needed = f"{operation.wire_name} needs the right {operation.RIGHT!r}"
            raise Forbidden.at("$.type", f"{needed}; the token {caller.name!r} has {caller.right!r}")
        if caller.scopes is not None and operation.RIGHT != "any":
            if operation.DAEMON_WIDE:
                needed = f"{operation.wire_name} needs a token for all scopes"
                raise Forbidden.at("$.type", f"{needed}; the token {caller.name!r} is limited to some")
            if scope not in caller.scopes:
                raise Forbidden.at("$.scope", f"the token {caller.name!r} is not for the scope {scope!r}")
        return caller.name

    def credential(self, name: str | None) -> object:
        """What stands for the token of this name as long as nobody revokes it, also if another one gets the name."""
        return None if name is None else self._tokens.get(name)

    def refusal(self, name: str | None, credential: object) -> Unauthenticated | None:
        """Why the caller who was admitted with a token is refused now; None if not."""
        token = None if name is None else self._tokens.get(name)
        if name is None or (token is not None and token == credential and not _has_expired(token, self._clock())):
            return None
        return Unauthenticated.at("$.auth", f"the token {name!r} was revoked, or has expired; {REMEDY}")

    # Operations

    def prove(self, nonce: str, name: str | None) -> Proof:
        key = hashlib.sha256(self.start_token.encode()).digest()
        if name is not None:
            token = self._tokens.get(name)
            if token is None or _has_expired(token, self._clock()):
                problem = f"there is no token {name!r}: it was revoked, or has expired"
                raise Unauthenticated.at("$.payload.name", problem)
            key = bytes.fromhex(token.token_hash)
        return Proof(proof=proof_of(key, nonce, self.endpoints), endpoints=self.endpoints)

    def create_token(self, wanted: CreateToken) -> None:
        now = self._clock()
        new = StoredToken(
            name=wanted.name,
            right=wanted.right,
            created_at=now,
            scopes=wanted.scopes,
            expires_at=wanted.expires_at,
            token_hash=wanted.token_hash,
        )

        def change(tokens: dict[str, StoredToken]) -> dict[str, StoredToken]:
            kept = {name: each for name, each in tokens.items() if not _has_expired(each, now)}
            if new.name in kept:
                raise Conflict.at("$.payload.name", f"there is a token {new.name!r} already; revoke it first")
            if new.token_hash in {each.token_hash for each in kept.values()} | {hash_of(self.start_token)}:
                raise Conflict.at("$.payload.tokenHash", "this token has another name already")
            if len(kept) >= TOKENS_MAX:
                raise TooLarge.at("$.payload", f"there are {TOKENS_MAX} tokens, the most there may be; revoke some")
            return kept | {new.name: new}

        self._change_tokens(change)

    def tokens(self) -> list[AccessToken]:
        return [
            AccessToken(
                name=each.name,
                right=each.right,
                created_at=each.created_at,
                scopes=each.scopes,
                expires_at=each.expires_at,
            )
            for _, each in sorted(self._tokens.items())
        ]

    def revoke_token(self, name: str) -> None:
        def change(tokens: dict[str, StoredToken]) -> dict[str, StoredToken]:
            if name not in tokens:
                raise NotFound.at("$.payload.name", f"there is no token {name!r}")
            return {each: token for each, token in tokens.items() if each != name}

        self._change_tokens(change)

    def add_key(self, wanted: AddKey) -> None:
        try:
            z85.decode(wanted.public_key)
        except struct.error:
            raise Invalid.at("$.payload.publicKey", "this is not a public key in Z85") from None
        new = ClientKey(name=wanted.name, public_key=wanted.public_key, created_at=self._clock())

        def change(keys: dict[str, ClientKey]) -> dict[str, ClientKey]:
            if new.name in keys:
                raise Conflict.at("$.payload.name", f"there is a key {new.name!r} already; revoke it first")
            if len(keys) >= CLIENT_KEYS_MAX:
                raise TooLarge.at("$.payload", f"there are {CLIENT_KEYS_MAX} keys, the most there may be; revoke some")
            return keys | {new.name: new}

        self._change_keys(change)

    def keys(self) -> KeyList:
        if not self._keys.server_secret_key:
            self._change_keys(dict)
        stored = self._keys
        server_key = zmq.curve_public(stored.server_secret_key.encode()).decode()
        return KeyList(server_key=server_key, keys=sorted(stored.keys, key=lambda key: key.name))

    def revoke_key(self, name: str) -> None:
        def change(keys: dict[str, ClientKey]) -> dict[str, ClientKey]:
            if name not in keys:
                raise NotFound.at("$.payload.name", f"there is no key {name!r}")
            return {each: key for each, key in keys.items() if each != name}

        self._change_keys(change)

    # Documents

    def refresh(self) -> None:
        """Learn what was changed by others. Raises `CannotOpen` if it cannot be read; then what is known stays."""
        with self._lock:
            contents = self._documents.read()
            if contents != self._contents:
                self._use(contents)

    def _change_tokens(self, change: Callable[[dict[str, StoredToken]], dict[str, StoredToken]]) -> None:
        def changed(stored: bytes | None) -> bytes:
            tokens = change({token.name: token for token in self._tokens_in(stored).tokens})
            return msgspec.json.encode(_Tokens(list(tokens.values())))

        self._change(TOKENS, changed)

    def _change_keys(self, change: Callable[[dict[str, ClientKey]], dict[str, ClientKey]]) -> None:
        """Change the client keys. The server's own secret key is made when it is first needed."""

        def changed(stored: bytes | None) -> bytes:
            secret, listed = msgspec.structs.astuple(self._keys_in(stored))
            keys = change({key.name: key for key in listed})
            return msgspec.json.encode(_Keys(secret or zmq.curve_keypair()[1].decode(), list(keys.values())))

        self._change(KEYS, changed)

    def _change(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        with self._lock:
            contents = self._documents.change(name, change)
            self._use({**self._contents, name: contents})

    def _use(self, contents: Mapping[str, bytes]) -> None:
        tokens = {token.name: token for token in self._tokens_in(contents.get(TOKENS)).tokens}
        keys = self._keys_in(contents.get(KEYS))
        curve_keys = frozenset(z85.decode(key.public_key) for key in keys.keys)
        self._contents = contents
        self._tokens = tokens
        self._callers = {
            **{each.token_hash: _caller(each) for each in tokens.values()},
            hash_of(self.start_token): _Caller(None, "admin", None, float("inf")),
        }
        self._keys, self._curve_keys = keys, curve_keys
        self.on_change()

    def _tokens_in(self, stored: bytes | None) -> _Tokens:
        return self._decoded(TOKENS, stored, _Tokens())

    def _keys_in(self, stored: bytes | None) -> _Keys:
        return self._decoded(KEYS, stored, _Keys(""))

    def _decoded(self, name: str, stored: bytes | None, default: T) -> T:
        if stored is None:
            return default
        try:
            return msgspec.json.decode(stored, type=type(default))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._documents.unreadable(name, error) from error


def _do_nothing() -> None:
    """Tell nobody."""


def _has_expired(token: StoredToken, now: int) -> bool:
    return token.expires_at is not None and token.expires_at <= now


def _caller(token: StoredToken) -> _Caller:
    scopes = None if token.scopes is None else frozenset(token.scopes)
    return _Caller(token.name, token.right, scopes, float("inf") if token.expires_at is None else token.expires_at)


def _uid_of(address: bytes) -> int | None:
    """The user id of an ipc peer, from an address such as `localhost:1000:1000:4711`; None if it has none."""
    uid = address.split(b":")[1:2]
    return int(uid[0]) if uid and uid[0].isdigit() else None
