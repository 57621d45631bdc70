"""Translation of errors of SQLite, the disk and files into errors for callers."""

import errno

import apsw
import msgspec

from backscroll.bus.failures import RESCUE, CannotOpen
from backscroll.bus.sqlite.checksums import is_mismatch
from backscroll.schema.errors import BackscrollError, Busy, Conflict, Storage, Unavailable


class DamagedBlob(Exception):
    """The bytes of a part of a file do not match the hash that they were stored under."""


NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
DAMAGED = f"the database file is damaged. {RESCUE}"
UNREAD = (apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_READ)
"""The extended result codes of a page that the disk does not read."""
TEMPORARY = (apsw.BusyError, apsw.FullError, apsw.IOError, OSError)
"""Errors that can prevent an intact file from being opened, but are temporary."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full."""
    if isinstance(error, CannotOpen) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in NO_SPACE)


def is_damage(error: BaseException) -> bool:
    """Whether an error says that what is in a database file is not what was written into it."""
    return isinstance(error, apsw.CorruptError | apsw.NotADBError) or is_mismatch(error)


def is_unreadable(error: BaseException) -> bool:
    """Whether an error is that of a page which is damaged or cannot be read: what does not need the page succeeds."""
    return is_damage(error) or _code(error) in UNREAD


def wire_error(error: Exception) -> BackscrollError | None:
    """The error that a caller gets for an error of SQLite or the disk; None for any other error."""
    if isinstance(error, CannotOpen) and isinstance(error.__cause__, TEMPORARY) and not is_damage(error.__cause__):
        error = error.__cause__
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return Busy("another process holds the lock of the database file; try again")
        case apsw.InterruptError():
            return Unavailable("the daemon is stopping")
        case apsw.ConstraintError():
            return Conflict("the change contradicts what is stored")
        case _ if is_damage(error):
            return Storage(DAMAGED)
        case _:
            return _storage_error(error)


def _storage_error(error: Exception) -> Storage | None:
    match error:
        case apsw.FullError() | OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Storage("the disk is full", retryable=True)
        case OSError(errno=errno.EROFS | errno.EACCES | errno.EPERM):
            return Storage("the data directory cannot be written: it is read-only for this user")
        case apsw.ReadOnlyError():
            return Storage("the database file is read-only")
        case apsw.IOError() | apsw.CantOpenError():
            return Storage(f"the disk reported an error ({_symbol(error)})", retryable=True)
        case OSError():
            return Storage(f"the disk reported an error ({error.strerror})", retryable=True)
        case CannotOpen():
            return Storage("the scope's database cannot be opened; the daemon's log says why")
        case DamagedBlob():
            return Storage("a part of the file is damaged on the disk; put the part again")
        # Handlers decode only stored data, which was valid when it was stored.
        case UnicodeDecodeError() | msgspec.DecodeError():
            return Storage(f"the database file is damaged: a stored text cannot be decoded. {RESCUE}")
        case _:
            return None


def _code(error: BaseException) -> int:
    """The extended result code of an input or output error; else 0."""
    return getattr(error, "extendedresult", 0) if isinstance(error, apsw.IOError) else 0


def _symbol(error: apsw.Error) -> str:
    """SQLite's own name of an extended result code, such as SQLITE_IOERR_FSYNC."""
    code = getattr(error, "extendedresult", getattr(error, "result", 0))
    return str(apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code & 255, code))
