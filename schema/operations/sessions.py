"""Sessions: proof of who somebody is, for a while. Only a hash of the token is in the file."""

import hashlib
from typing import Annotated, Self

from msgspec import Meta

from backscroll.schema.limits import TOKEN_BYTES_MAX, DurationMs, HexDigest, Id
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.replies import Session

Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_BYTES_MAX)]


def hash_of(token: str) -> str:
    """What a token is known by wherever it is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


class CreateSession(Command[Session], frozen=True):
    """Begin a session of a stored user, named by oderId or else by id, for so many milliseconds.

    Its reply is the only place where the token ever stands: the file has its hash.

    Example: {"userId": "ada", "durationMs": 86400000}
    """

    ERRORS = ("not-found",)

    RESULT_SECRET = "token"

    user_id: Id
    duration_ms: DurationMs
    read_only: bool | None = None


class DeleteSession(Command[None], frozen=True):
    """End a session, if there is one with this token, or whose token has this SHA-256 (in hex).

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    token: Token | None = None
    token_hash: HexDigest | None = None

    def as_logged(self) -> Self:
        return type(self)(token_hash=self.hash())

    def hash(self) -> str | None:
        """The SHA-256 of the token."""
        return self.token_hash if self.token is None else hash_of(self.token)


class DeleteExpiredSessions(Command[int], frozen=True):
    """Remove the sessions that are over; how many. The daemon does so by itself now and then.

    Example: {}
    """


class GetSession(Query[Session | None], frozen=True):
    """The session with this token, or null when there is none or it is over.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    token: Token
