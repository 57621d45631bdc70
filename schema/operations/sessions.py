"""Sessions: tokens that identify a user for a limited time. Only a hash of the token is stored."""

import hashlib
from typing import Annotated, Self

from msgspec import Meta

from backscroll.schema.limits import TOKEN_BYTES_MAX, DurationMs, HexDigest, Id
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.replies import Session

Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_BYTES_MAX)]


def hash_of(token: str) -> str:
    """The SHA-256 of a token in hex, which is stored in its place."""
    return hashlib.sha256(token.encode()).hexdigest()


class CreateSession(Command[Session], frozen=True):
    """Create a session of `durationMs` for a stored user, given by oderId or id. `not-found` if there is no such user.

    Only the reply contains the token; the database has its hash.

    Example: {"userId": "ada", "durationMs": 86400000}
    """

    ERRORS = ("not-found",)

    RESULT_SECRET = "token"

    user_id: Id
    duration_ms: DurationMs
    read_only: bool | None = None


class DeleteSession(Command[None], frozen=True):
    """End the session with this token, or whose token has this SHA-256 (in hex). Succeeds if there is none.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    ADDS = False
    token: Token | None = None
    token_hash: HexDigest | None = None

    def as_logged(self) -> Self:
        return type(self)(token_hash=self.hash())

    def hash(self) -> str | None:
        """The SHA-256 of the token."""
        return self.token_hash if self.token is None else hash_of(self.token)


class DeleteExpiredSessions(Command[int], frozen=True):
    """Remove expired sessions; the result is their number. The daemon also does this periodically.

    Example: {}
    """

    ADDS = False


class GetSession(Query[Session | None], frozen=True):
    """The session with this token, or null if there is none or it has expired.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    token: Token
