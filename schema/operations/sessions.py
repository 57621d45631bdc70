"""Sessions: proof of who somebody is, for a while. Only a hash of the token is in the file."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.limits import Id, Millis
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Session

Token = Annotated[str, Meta(min_length=1, max_length=128)]


class CreateSession(Command[Session], frozen=True):
    """Begin a session of a stored user, named by oderId or else by id, for so many milliseconds.

    Its reply is the only place where the token ever stands: the file has its hash.

    Example: {"userId": "ada", "durationMs": 86400000}
    """

    user_id: Id
    duration_ms: Millis
    read_only: bool | None = None


class DeleteSession(Command[None], frozen=True):
    """End a session, if there is one with this token.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    token: Token


class DeleteExpiredSessions(Command[int], frozen=True):
    """Remove the sessions that are over; how many. The daemon does so by itself now and then.

    Example: {}
    """


class GetSession(Query[Session | None], frozen=True):
    """The session with this token, or null when there is none or it is over.

    Example: {"token": "bm90IGEgcmVhbCB0b2tlbg"}
    """

    token: Token
