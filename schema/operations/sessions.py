"""Sessions: tokens that identify a user for a limited time. The caller makes the token; only its hash is stored."""

import hashlib
import secrets
from typing import Annotated, Self

from msgspec import Meta
from msgspec.structs import replace

from backscroll.schema.limits import NEW_TOKEN_CHARS_MIN, TOKEN_BYTES_MAX, DurationMs, HexDigest, Id
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.replies import Session

Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_BYTES_MAX)]
NewToken = Annotated[str, Meta(min_length=NEW_TOKEN_CHARS_MIN, max_length=TOKEN_BYTES_MAX)]
NEW_TOKEN_BYTES = 32


def hash_of(token: str) -> str:
    """The SHA-256 of a token in hex, which is stored in its place."""
    return hashlib.sha256(token.encode()).hexdigest()


class CreateSession(Command[Session], frozen=True):
    """Create a session of `durationMs` for a stored user, given by oderId or id. `not-found` if there is no such user.

    Exactly one of `token` and `tokenHash` is given. Only the hash is stored and logged. `conflict` if there is a
    session with this token.

    Attributes:
        user_id: The `oderId`, or else the `id`, of the user.
        token: At least 128 random bits as text, made by the caller.
        token_hash: Instead of `token`: its SHA-256, in hex.
        read_only: Kept for the application; the daemon does nothing with it.

    Example: {"userId": "ada", "durationMs": 86400000, "token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    ERRORS = ("not-found", "conflict")
    SECRET = ("token",)

    user_id: Id
    duration_ms: DurationMs
    token: NewToken | None = None
    token_hash: HexDigest | None = None
    read_only: bool | None = None

    @classmethod
    def with_new_token(cls, user_id: str, duration_ms: int, *, read_only: bool | None = None) -> Self:
        """The command with a new random token of 256 bits, which is its `token`."""
        return cls(user_id, duration_ms, secrets.token_urlsafe(NEW_TOKEN_BYTES), read_only=read_only)

    def as_logged(self) -> Self:
        return replace(self, token=None, token_hash=self.hash())

    def hash(self) -> str | None:
        """The SHA-256 of the token."""
        return _hash_in(self)


class DeleteSession(Command[None], frozen=True):
    """End the session with this token, or whose token has this SHA-256 (in hex). Succeeds if there is none.

    Attributes:
        token_hash: Instead of `token`: its SHA-256, in hex.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    ADDS = False
    SECRET = ("token",)

    token: Token | None = None
    token_hash: HexDigest | None = None

    def as_logged(self) -> Self:
        return type(self)(token_hash=self.hash())

    def hash(self) -> str | None:
        """The SHA-256 of the token."""
        return _hash_in(self)


def _hash_in(command: CreateSession | DeleteSession) -> str | None:
    return command.token_hash if command.token is None else hash_of(command.token)


class DeleteExpiredSessions(Command[int], frozen=True):
    """Remove expired sessions; the result is their number. The daemon also does this periodically.

    Example: {}
    """

    ADDS = False


class GetSession(Query[Session | None], frozen=True):
    """The session with this token, or null if there is none or it has expired.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    SECRET = ("token",)

    token: Token
