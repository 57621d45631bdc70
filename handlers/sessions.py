"""Sessions. The table has only the hashes of tokens, so a copy of the database does not contain a valid token."""

from backscroll.handlers import users
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import Named, RowMapper, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import Conflict, Invalid, NotFound
from backscroll.schema.limits import MILLIS_MAX
from backscroll.schema.operations import CreateSession, DeleteExpiredSessions, DeleteSession, GetSession
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.replies import Session
from backscroll.schema.tables import Sessions

ROWS = RowMapper(Session, Sessions, ("token_hash",))

INSERT = statement(ROWS.insert().on_conflict_ignore())
DELETE = statement(Sessions.delete().where(Sessions.token_hash == Named("token_hash")))
DELETE_EXPIRED = statement(Sessions.delete().where(Sessions.expires_at <= Named("now")))
SELECT_LIVE = statement(
    Sessions.select(*ROWS.columns).where(
        (Sessions.token_hash == Named("token_hash")) & (Sessions.expires_at > Named("now"))
    )
)


@handles(CreateSession)
def create_session(command: CreateSession, db: Writes, context: CommandContext) -> Session:
    token_hash = _hash(command)
    user = users.find(command.user_id, db)
    if user is None:
        raise NotFound.at("$.payload.userId", f"there is no user {command.user_id!r}")
    expires_at = context.now + command.duration_ms
    if expires_at > MILLIS_MAX:
        raise Invalid.at("$.payload.durationMs", "the session would end after the year 9999")
    session = Session(
        user_id=user.oder_id,
        created_at=context.now,
        expires_at=expires_at,
        read_only=command.read_only,
    )
    if not db.write(INSERT, ROWS.to_row(session, token_hash)):
        raise Conflict.at("$.payload", "there is a session with this token; make a new token")
    return session


@handles(DeleteSession)
def delete_session(command: DeleteSession, db: Writes, _context: CommandContext) -> None:
    db.run(DELETE, token_hash=_hash(command))


@handles(DeleteExpiredSessions)
def delete_expired_sessions(_command: DeleteExpiredSessions, db: Writes, context: CommandContext) -> int:
    return db.run(DELETE_EXPIRED, now=context.now)


@handles(GetSession)
def get_session(query: GetSession, db: Reads) -> Session | None:
    row = db.row(SELECT_LIVE, token_hash=hash_of(query.token), now=db.now)
    return ROWS.to_record(row) if row else None


def _hash(command: CreateSession | DeleteSession) -> str | None:
    if (command.token is None) == (command.token_hash is None):
        raise Invalid.at("$.payload", "give exactly one of token and tokenHash")
    return command.hash()
