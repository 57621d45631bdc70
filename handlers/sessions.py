"""Sessions. The table knows a token by its hash alone, so a copy of the file lets nobody in."""

import hashlib

from backscroll.handlers import users
from backscroll.handlers.database import Database
from backscroll.handlers.sql import Param, Rows, statement
from backscroll.schema.errors import Invalid, NotFound
from backscroll.schema.limits import INTEGER_MAX
from backscroll.schema.operations import CreateSession, DeleteExpiredSessions, DeleteSession, GetSession
from backscroll.schema.records import Session
from backscroll.schema.tables import Sessions

ROWS = Rows(Session, Sessions)

INSERT = statement(Sessions.insert({field: Param(name) for name, field in Sessions._meta.fields.items()}))
DELETE = statement(Sessions.delete().where(Sessions.token_hash == Param("token_hash")))
DELETE_EXPIRED = statement(Sessions.delete().where(Sessions.expires_at <= Param("now")))
SELECT_LIVE = statement(
    Sessions.select(*ROWS.columns).where(
        (Sessions.token_hash == Param("token_hash")) & (Sessions.expires_at > Param("now"))
    )
)


def create_session(command: CreateSession, db: Database) -> Session:
    user = users.find(command.user_id, db)
    if user is None:
        raise NotFound.at("$.payload.userId", f"there is no user {command.user_id!r}")
    expires_at = db.now + command.duration_ms
    if expires_at > INTEGER_MAX:
        raise Invalid.at("$.payload.durationMs", "the session would end after the end of time")
    session = Session(
        token=db.new_token(),
        user_id=user.oder_id,
        created_at=db.now,
        expires_at=expires_at,
        read_only=command.read_only,
    )
    db.run(INSERT, token_hash=_hash(session.token), **ROWS.to_row(session))
    return session


def delete_session(command: DeleteSession, db: Database) -> None:
    db.run(DELETE, token_hash=_hash(command.token))


def delete_expired_sessions(_command: DeleteExpiredSessions, db: Database) -> int:
    return db.run(DELETE_EXPIRED, now=db.now)


def get_session(query: GetSession, db: Database) -> Session | None:
    row = db.row(SELECT_LIVE, token_hash=_hash(query.token), now=db.now)
    return ROWS.to_record(row, token=query.token) if row else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
