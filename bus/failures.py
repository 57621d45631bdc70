"""Why a daemon cannot start, with the exit code that tells a script; and what SQLite's errors mean to callers."""

import errno
from typing import ClassVar

import apsw
import msgspec

from backscroll.schema.errors import BackscrollError, Busy, Conflict, Internal, Storage, Unavailable


class CannotStart(Exception):
    """The daemon stops before it is ready; the message is for a person and says what to do."""

    exit_code: ClassVar[int]


class BadSettings(CannotStart):
    exit_code = 2


class AlreadyRunning(CannotStart):
    exit_code = 3


class CannotOpen(CannotStart):
    exit_code = 4


class DamagedBlob(Exception):
    """A part of media whose bytes no longer have the hash that they were stored under."""


PASSING = (apsw.BusyError, apsw.FullError, apsw.IOError, OSError)
"""Why a sound file cannot be opened for the moment."""


def as_wire_error(error: Exception) -> BackscrollError:
    """The error that a caller is told: theirs as it is, SQLite's translated, anything else a bug of ours."""
    if isinstance(error, CannotOpen) and isinstance(error.__cause__, PASSING):
        error = error.__cause__
    match error:
        case BackscrollError():
            return error
        case apsw.BusyError() | apsw.LockedError():
            return Busy("another process holds the lock of the database file", retryable=True)
        case apsw.InterruptError():
            return Unavailable("the daemon is stopping", retryable=True)
        case apsw.ConstraintError():
            return Conflict("the change contradicts what is stored")
        case _:
            return _storage(error) or Internal("the daemon failed to carry this out; its log says more")


def _storage(error: Exception) -> Storage | None:
    """What is wrong with the disk or the files on it, if that is what the error says."""
    match error:
        case apsw.FullError() | OSError(errno=errno.ENOSPC):
            return Storage("the disk is full", retryable=True)
        case apsw.ReadOnlyError():
            return Storage("the database file is read-only")
        case apsw.CorruptError() | apsw.NotADBError():
            return Storage("the database file is damaged")
        case apsw.IOError() | apsw.CantOpenError():
            return Storage(f"the disk answered with an error ({_symbol(error)})", retryable=True)
        case OSError():
            return Storage(f"the disk answered with an error ({error.strerror})", retryable=True)
        case CannotOpen():
            return Storage("the scope's database cannot be opened; the daemon's log says why")
        case DamagedBlob():
            return Storage("a part of the media is damaged on the disk")
        # Handlers decode nothing but what is stored, and it was valid when it was stored.
        case UnicodeDecodeError() | msgspec.DecodeError():
            return Storage("the database file is damaged: stored text cannot be decoded")
        case _:
            return None


def _symbol(error: apsw.Error) -> str:
    """SQLite's own name of an extended result code, such as SQLITE_IOERR_FSYNC."""
    code = getattr(error, "extendedresult", getattr(error, "result", 0))
    return str(apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code & 255, code))
