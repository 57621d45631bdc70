"""What can go wrong, one class for each wire code; both ends of the wire use the same classes.

    BackscrollError
    ├── CallerError                the request cannot succeed as it is
    │   ├── Malformed              malformed          not a decodable envelope
    │   ├── UnknownOperation       unknown-operation  no operation of that name
    │   ├── Invalid                invalid            the payload fails its type or a limit
    │   ├── TooLarge               too-large          a body, text or list over its limit
    │   ├── NotFound               not-found          the thing named does not exist
    │   ├── Conflict               conflict           a unique key is taken, the message was deleted, …
    │   └── Forbidden              forbidden          not allowed for this scope
    ├── DeadlineExceeded           deadline-exceeded  not started in time; nothing happened
    ├── DaemonError                the request may be right; the daemon could not carry it out
    │   ├── Busy                   busy               a queue is full or the file is locked; try again
    │   ├── Unavailable            unavailable        the daemon is starting or stopping; try again
    │   ├── Storage                storage            disk full, I/O error, damaged file
    │   └── Internal               internal           a bug of ours
    └── NoReply                    (never sent)       the client stopped waiting; the outcome is unknown

An error reply means that nothing happened. `NoReply` means that nobody knows.
"""

from typing import Any, ClassVar, Self

QUOTED_CHARACTERS_MAX = 500


class BackscrollError(Exception):
    """Base of all errors: `message` for the caller, `details` a JSON object, `retryable` as a promise."""

    code: ClassVar[str] = ""

    def __init__(self, message: str, *, details: dict[str, Any] | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retryable = retryable


class CallerError(BackscrollError):
    """The request cannot succeed as it is; sending it again changes nothing."""

    @classmethod
    def at(cls, path: str, problem: str) -> Self:
        """The error of one field: `path` from the body's root, as in `$.payload.message.id`. Long text is cut."""
        path, problem = _cut(path), _cut(problem)
        return cls(f"{path}: {problem}", details={"path": path})


def inside(path: str, index: int, error: CallerError) -> CallerError:
    """The error of a command that stands at `path` among others, naming its field from the body's root, and its index.

    What `error` tells is from the command's own root, as in `$.payload.message.id`.
    """
    inner = str((error.details or {}).get("path", "$"))
    outer = _cut(path + inner.removeprefix("$"))
    problem = error.message.removeprefix(f"{inner}: ")
    details = (error.details or {}) | {"path": outer, "index": index}
    return type(error)(f"{outer}: {problem}", details=details)


def _cut(text: str) -> str:
    """Enough of what a caller sent to find it again."""
    return text if len(text) <= QUOTED_CHARACTERS_MAX else text[: QUOTED_CHARACTERS_MAX - 1] + "…"


class Malformed(CallerError):
    code = "malformed"


class UnknownOperation(CallerError):
    code = "unknown-operation"


class Invalid(CallerError):
    code = "invalid"


class TooLarge(CallerError):
    code = "too-large"


class NotFound(CallerError):
    code = "not-found"


class Conflict(CallerError):
    code = "conflict"


class Forbidden(CallerError):
    code = "forbidden"


class DeadlineExceeded(BackscrollError):
    code = "deadline-exceeded"


class DaemonError(BackscrollError):
    """The daemon's own trouble; `retryable` says whether the same request may succeed later."""


class Busy(DaemonError):
    code = "busy"


class Unavailable(DaemonError):
    code = "unavailable"


class Storage(DaemonError):
    code = "storage"


class Internal(DaemonError):
    code = "internal"


class NoReply(BackscrollError, TimeoutError):
    """No reply came within the client's time-out: the outcome is unknown. Raised by clients only."""

    code = "no-reply"


ERRORS: dict[str, type[BackscrollError]] = {
    error.code: error
    for error in (
        Malformed,
        UnknownOperation,
        Invalid,
        TooLarge,
        NotFound,
        Conflict,
        Forbidden,
        DeadlineExceeded,
        Busy,
        Unavailable,
        Storage,
        Internal,
    )
}
