"""Who may connect, who is calling, and what they may do.

    handshake ──▶ may_connect: ipc by the peer's uid, tcp any (requests have a token), curve by the client's key
    request ────▶ admit: token ──▶ caller ──▶ has it the operation's right, and the scope?

Nothing is queued, and no payload decoded, before `admit` has answered. Tokens are in `tokens.json` in the data
directory, by their SHA-256; keys in `keys.json`. Methods that change them are called by writer threads, the others by
the loop too: a change replaces a dictionary as a whole.
"""

import hashlib
import os
import secrets
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import zmq
from msgspec import Struct
from zmq.utils import z85

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.failures import BadSettings, CannotOpen
from backscroll.bus.files import write_whole
from backscroll.schema.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge, Unauthenticated
from backscroll.schema.limits import CLIENT_KEYS_MAX, TOKENS_MAX
from backscroll.schema.operations import RIGHTS, AddKey, CreateToken, Operation
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.replies import AccessToken, ClientKey, KeyList, Proof
from backscroll.schema.wire import proof_of

TRANSPORTS: Final = ("ipc", "tcp", "curve")
IPC, TCP, CURVE = range(len(TRANSPORTS))

TOKENS_FILE, KEYS_FILE = "tokens.json", "keys.json"
RANKS: Final[Mapping[str, int]] = {right: rank for rank, right in enumerate(RIGHTS)}
REMEDY = "send the token as `auth`: the `token` in endpoint.json, or one made by `backscroll token create`"


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
    """Decides about connections and requests, from the files in a data directory; raises `CannotOpen` if damaged.

    `allowed_uids` may connect over ipc besides the daemon's own. `clock` returns milliseconds since the epoch.
    """

    def __init__(
        self,
        directory: Path,
        allowed_uids: Sequence[int] = (),
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.start_token = secrets.token_urlsafe(32)
        self.endpoints: list[str] = []
        """The tcp endpoints that are bound."""
        self._uids = {*allowed_uids, os.getuid()} if hasattr(os, "getuid") else set()
        self.admits_others = bool(allowed_uids)
        self._clock = clock
        self._lock = threading.Lock()  # held while something is changed
        self._tokens_path, self._keys_path = directory / TOKENS_FILE, directory / KEYS_FILE
        self._tokens: dict[str, StoredToken] = {}
        self._callers: dict[str, _Caller] = {}  # by the hash of their token
        self._server_secret = ""
        self._keys: dict[str, ClientKey] = {}
        self._curve_keys: frozenset[bytes] = frozenset()
        self._use_tokens({token.name: token for token in _read(self._tokens_path, _Tokens, _Tokens()).tokens})
        stored = _read(self._keys_path, _Keys, _Keys(""))
        self._use_keys(stored.server_secret_key, {key.name: key for key in stored.keys})

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
        if not self._keys:
            raise BadSettings(
                "no client may connect to a curve:// endpoint, as no key is listed: run"
                f" `backscroll keys create NAME --data-dir {self._keys_path.parent}`"
            )
        return self._server_secret.encode()

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
        if name is None or (token is not None and token is credential and not _has_expired(token, self._clock())):
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
        with self._lock:
            now = self._clock()
            new = StoredToken(
                name=wanted.name,
                right=wanted.right,
                created_at=now,
                scopes=wanted.scopes,
                expires_at=wanted.expires_at,
                token_hash=wanted.token_hash,
            )
            kept = {name: each for name, each in self._tokens.items() if not _has_expired(each, now)}
            if new.name in kept:
                raise Conflict.at("$.payload.name", f"there is a token {new.name!r} already; revoke it first")
            if new.token_hash in {each.token_hash for each in kept.values()} | {hash_of(self.start_token)}:
                raise Conflict.at("$.payload.tokenHash", "this token has another name already")
            if len(kept) >= TOKENS_MAX:
                raise TooLarge.at("$.payload", f"there are {TOKENS_MAX} tokens, the most there may be; revoke some")
            self._store_tokens(kept | {new.name: new})

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
        with self._lock:
            if name not in self._tokens:
                raise NotFound.at("$.payload.name", f"there is no token {name!r}")
            self._store_tokens({each: token for each, token in self._tokens.items() if each != name})

    def add_key(self, wanted: AddKey) -> None:
        try:
            z85.decode(wanted.public_key)
        except struct.error:
            raise Invalid.at("$.payload.publicKey", "this is not a public key in Z85") from None
        with self._lock:
            if wanted.name in self._keys:
                raise Conflict.at("$.payload.name", f"there is a key {wanted.name!r} already; revoke it first")
            if len(self._keys) >= CLIENT_KEYS_MAX:
                raise TooLarge.at("$.payload", f"there are {CLIENT_KEYS_MAX} keys, the most there may be; revoke some")
            new = ClientKey(name=wanted.name, public_key=wanted.public_key, created_at=self._clock())
            self._store_keys(self._secret(), self._keys | {new.name: new})

    def keys(self) -> KeyList:
        with self._lock:
            if not self._server_secret:
                self._store_keys(self._secret(), self._keys)
            server_key = zmq.curve_public(self._server_secret.encode()).decode()
            return KeyList(server_key=server_key, keys=[key for _, key in sorted(self._keys.items())])

    def revoke_key(self, name: str) -> None:
        with self._lock:
            if name not in self._keys:
                raise NotFound.at("$.payload.name", f"there is no key {name!r}")
            self._store_keys(self._secret(), {each: key for each, key in self._keys.items() if each != name})

    def _secret(self) -> str:
        """The daemon's own secret key, which is made when it is first needed."""
        return self._server_secret or zmq.curve_keypair()[1].decode()

    def _store_tokens(self, tokens: dict[str, StoredToken]) -> None:
        write_whole(self._tokens_path, msgspec.json.encode(_Tokens(list(tokens.values()))))
        self._use_tokens(tokens)

    def _store_keys(self, secret: str, keys: dict[str, ClientKey]) -> None:
        write_whole(self._keys_path, msgspec.json.encode(_Keys(secret, list(keys.values()))))
        self._use_keys(secret, keys)

    def _use_tokens(self, tokens: dict[str, StoredToken]) -> None:
        self._tokens = tokens
        self._callers = {
            hash_of(self.start_token): _Caller(None, "admin", None, float("inf")),
            **{each.token_hash: _caller(each) for each in tokens.values()},
        }

    def _use_keys(self, secret: str, keys: dict[str, ClientKey]) -> None:
        self._server_secret, self._keys = secret, keys
        self._curve_keys = frozenset(z85.decode(key.public_key) for key in keys.values())


def _has_expired(token: StoredToken, now: int) -> bool:
    return token.expires_at is not None and token.expires_at <= now


def _caller(token: StoredToken) -> _Caller:
    scopes = None if token.scopes is None else frozenset(token.scopes)
    return _Caller(token.name, token.right, scopes, float("inf") if token.expires_at is None else token.expires_at)


def _uid_of(address: bytes) -> int | None:
    """The user id of an ipc peer, from an address such as `localhost:1000:1000:4711`; None if it has none."""
    uid = address.split(b":")[1:2]
    return int(uid[0]) if uid and uid[0].isdigit() else None


def _read(path: Path, as_type: type[Any], default: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=as_type)
    except FileNotFoundError:
        return default
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CannotOpen(
            f"{path} cannot be read: {error}. Restore it, or remove it and make new tokens or keys."
        ) from error
