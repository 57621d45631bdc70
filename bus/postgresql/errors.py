"""Translation of PostgreSQL's errors into errors for callers."""

import msgspec
import psycopg
from psycopg import errors as pg
from psycopg_pool import PoolTimeout, TooManyRequests

from backscroll.bus.stores import TAKES_TOO_LONG
from backscroll.schema.errors import BackscrollError, Busy, Conflict, Storage, TooLarge, Unavailable

REFUSED_WHILE_STARTING = (pg.CannotConnectNow, pg.AdminShutdown, pg.CrashShutdown)
CREATED_TWICE = "sequence_pkey"
TO_REPEAT = (pg.SerializationFailure, pg.DeadlockDetected, pg.ReadOnlySqlTransaction, *REFUSED_WHILE_STARTING)
"""Errors after which the same transaction succeeds a little later, perhaps on another server."""
ENDED = (
    *(psycopg.InterfaceError, pg.AdminShutdown, pg.CrashShutdown, pg.DatabaseDropped),
    *(pg.IdleInTransactionSessionTimeout, pg.IdleSessionTimeout),
)
CONNECTION_EXCEPTION = "08"
"""How the codes of errors of connections begin; poolers use them."""
UNREADABLE = (pg.DataCorrupted, pg.IndexCorrupted)


class ScopeReplaced(Exception):
    """Another daemon deleted the scope, or the server has an earlier state: what was known of it is not true."""


class StatementInterrupted(Exception):
    """A statement of a transaction that writes took too long, or was cancelled; nothing took effect."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the connection is gone, so that it is not known whether a commit took effect."""
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return True  # libpq's own: there was no answer
    if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(CONNECTION_EXCEPTION):
        return True
    return isinstance(error, ENDED)


def may_succeed_later(error: BaseException) -> bool:
    """Whether the same transaction may succeed if it is repeated at once, on another connection if need be."""
    if isinstance(error, pg.UniqueViolation):
        return error.diag.constraint_name == CREATED_TWICE  # two daemons made the scope
    return is_lost(error) or isinstance(error, TO_REPEAT)


def ends_transaction(error: BaseException) -> bool:
    """Whether an error ends a whole transaction, not only the command that met it.

    One that waited for a lock, or for a server that is too slow, is not the last to do so: each would wait as long.
    """
    return may_succeed_later(error) or isinstance(error, pg.LockNotAvailable | pg.QueryCanceled)


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, pg.DiskFull)


def wire_error(error: Exception) -> BackscrollError | None:
    """The error that a caller gets for an error of PostgreSQL; None for any other error."""
    match error:
        case PoolTimeout() | TooManyRequests():
            return Unavailable("the database does not answer, or all connections to it are in use; try again")
        case ScopeReplaced():
            return Unavailable("the scope was replaced by another daemon; try again")
        case pg.LockNotAvailable() | pg.SerializationFailure() | pg.DeadlockDetected():
            return Busy("another session of the database is in the way for long; try again")
        case StatementInterrupted():
            return Busy("a statement took too long, or was cancelled; try again")
        case pg.QueryCanceled():
            return TooLarge(TAKES_TOO_LONG)
        case pg.DiskFull():
            return Storage("the disk of the database server is full", retryable=True)
        case pg.IntegrityError() if not may_succeed_later(error):
            return Conflict("the change contradicts what is stored")
        case pg.InsufficientPrivilege():
            return Storage("the database refuses this to the daemon's role; README.md says which rights it needs")
        case UnicodeDecodeError() | msgspec.DecodeError():
            return Storage("what the database returned cannot be decoded: it is damaged, or another program changed it")
        case _:
            return _other_error(error)


def _other_error(error: Exception) -> BackscrollError | None:
    if isinstance(error, UNREADABLE):
        return Storage("the database is damaged; its operator restores it with PostgreSQL's own tools")
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return Unavailable("the database is read-only now; try again")
    if isinstance(error, pg.UniqueViolation):
        return Busy("another daemon is making this scope; try again")
    if may_succeed_later(error):
        return Unavailable("the connection to the database was lost; try again")
    if isinstance(error, psycopg.Error):
        return Storage(f"the database refused ({error.sqlstate or type(error).__name__})", retryable=True)
    return None
