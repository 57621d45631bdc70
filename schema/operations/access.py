"""Who may connect and call: tokens, keys, and the proof that a daemon gives of itself."""

from typing import Annotated, Literal, Self

from msgspec import Meta

from backscroll.schema.errors import Invalid
from backscroll.schema.limits import TOKEN_SCOPES_MAX, CallerName, CurveKey, HexDigest, Millis, Nonce, ScopeName
from backscroll.schema.operations.base import Administration, Builtin
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.replies import AccessToken, KeyList, Proof

ScopeNames = Annotated[list[ScopeName], Meta(min_length=1, max_length=TOKEN_SCOPES_MAX)]


class Hello(Builtin[Proof], frozen=True):
    """Have the daemon prove that it knows a token, before the token is sent: that of this name, or its start token.

    `unauthenticated` if there is no token of this name, or if it has expired. Needs no token itself.

    Attributes:
        nonce: 16 random bytes in hex, which the client makes for this connection.
        name: The name of the token that will be sent; left out for the start token.

    Example: {"nonce": "00112233445566778899aabbccddeeff"}
    """

    RIGHT = "none"
    ERRORS = ("unauthenticated",)

    nonce: Nonce
    name: CallerName | None = None


class CreateToken(Administration[None], frozen=True):
    """Let whoever has a token call over tcp. The caller makes the token and sends only its SHA-256 (in hex).

    A token must be 256 random bits: whoever can connect may ask `hello` for a proof, and try tokens on it. `conflict`
    if another token has the name or the hash.

    Attributes:
        name: Unique. Clients expect the token to be this name, a dot and a secret without dots.
        token_hash: The SHA-256 of the whole token, in hex.
        right: What the token allows. Each right includes those before it: `read`, `write`, `admin`.
        scopes: The scopes that the token is limited to; without them it has no limit.
        expires_at: From then on the token is refused; left out, it does not expire.

    Example: {"name": "bot", "tokenHash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
              "right": "write"}
    """

    ERRORS = ("conflict",)

    name: CallerName
    token_hash: HexDigest
    right: Literal["read", "write", "admin"]
    scopes: ScopeNames | None = None
    expires_at: Millis | None = None

    @classmethod
    def of(
        cls,
        token: str,
        name: str,
        right: Literal["read", "write", "admin"],
        scopes: list[str] | None = None,
        expires_at: int | None = None,
    ) -> Self:
        """The operation for a token, which it does not contain. `expires_at` is in milliseconds since the epoch.

        Raises `Invalid` if the token is not the name, a dot and a secret without dots: clients read the name from it.
        """
        prefix, _, secret = token.rpartition(".")
        if prefix != name or not secret:
            raise Invalid(f"a token named {name!r} must be {name!r}, a dot and a secret without dots")
        return cls(name, hash_of(token), right, scopes, expires_at)


class ListTokens(Administration[list[AccessToken]], frozen=True):
    """The tokens of the daemon by name, without their hashes, and without the start token.

    Example: {}
    """


class RevokeToken(Administration[None], frozen=True):
    """Refuse a token from now on. `not-found` if there is none of this name.

    Attributes:
        name: The name of the token, and not the token itself.

    Example: {"name": "bot"}
    """

    ERRORS = ("not-found",)

    name: CallerName


class AddKey(Administration[None], frozen=True):
    """Let the client with a CURVE key connect to `curve://` endpoints. `conflict` if another key has the name.

    Attributes:
        public_key: The client's public CURVE key, in Z85.

    Example: {"name": "laptop", "publicKey": "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"}
    """

    ERRORS = ("conflict",)

    name: CallerName
    public_key: CurveKey


class ListKeys(Administration[KeyList], frozen=True):
    """The daemon's own public CURVE key, and those of the clients that may connect, by name.

    Example: {}
    """


class RevokeKey(Administration[None], frozen=True):
    """Let no more connections in with a key; revoke the token as well to stop those there are. `not-found` if unknown.

    Example: {"name": "laptop"}
    """

    ERRORS = ("not-found",)

    name: CallerName
