"""What can go wrong, one class for each code of the protocol; both ends use the same classes.

    BackscrollError
    ├── CallerError                fault "caller": the request cannot succeed as it is
    │   ├── Malformed              malformed          the body cannot be decoded
    │   ├── UnknownOperation       unknown-operation  no operation has this name
    │   ├── Invalid                invalid            a field has the wrong type or a value that is not allowed
    │   ├── TooLarge               too-large          a body, text or list exceeds its limit
    │   ├── NotFound               not-found          the thing named does not exist
    │   ├── Conflict               conflict           a unique key is taken, the message was deleted, …
    │   └── Forbidden              forbidden          not allowed in this scope
    ├── DaemonError                fault "daemon": the request may be right, the daemon could not execute it
    │   ├── DeadlineExceeded       deadline-exceeded  not started before the caller's deadline
    │   ├── Busy                   busy               a queue is full, or another process holds the lock; try again
    │   ├── Unavailable            unavailable        the daemon is starting or stopping; try again
    │   ├── Storage                storage            disk full, I/O error, damaged file
    │   └── Internal               internal           a bug in the daemon
    └── NoReply                    (never sent)       the client stopped waiting; the outcome is unknown

An error reply means that nothing happened. `NoReply` means that the outcome is unknown. A code that a client does not
know is a plain `CallerError` or `DaemonError`, by the reply's `fault`, with the code in `code`.
"""

from typing import Any, ClassVar, Literal, Self

QUOTED_CHARACTERS_MAX = 500

Fault = Literal["caller", "daemon"]


class BackscrollError(Exception):
    """Base of all errors. `details` is a JSON object; `retryable` says that the same request may succeed later."""

    code: str = ""
    fault: ClassVar[Fault]
    since: ClassVar[int] = 1
    retries: ClassVar[Literal["never", "always", "depends"]] = "never"
    """Whether errors of this class are retryable: what the documentation says of `retryable`."""

    def __init__(
        self, message: str, *, details: dict[str, Any] | None = None, retryable: bool = False, code: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retryable = retryable
        if code:
            self.code = code


class CallerError(BackscrollError):
    """The request cannot succeed as it is; sending it again changes nothing."""

    fault = "caller"

    @classmethod
    def at(cls, path: str, problem: str, **details: Any) -> Self:
        """The error of one field: `path` from the body's root, as in `$.payload.message.id`. Long text is cut."""
        path, problem = _cut(path), _cut(problem)
        return cls(f"{path}: {problem}", details={"path": path} | details)


def inside(path: str, index: int, error: CallerError) -> CallerError:
    """The error of a command inside a list, at `path` and `index`: its field is named from the body's root.

    `error` names the field from the command's own root, as in `$.payload.message.id`.
    """
    inner = str((error.details or {}).get("path", "$"))
    outer = _cut(path + inner.removeprefix("$"))
    problem = error.message.removeprefix(f"{inner}: ")
    details = (error.details or {}) | {"path": outer, "index": index}
    return type(error)(f"{outer}: {problem}", details=details)


def _cut(text: str) -> str:
    """At most so much of what a caller sent."""
    return text if len(text) <= QUOTED_CHARACTERS_MAX else text[: QUOTED_CHARACTERS_MAX - 1] + "…"


class Malformed(CallerError):
    """The body cannot be decoded: it is not one JSON object or MessagePack map, or has too many frames before it."""

    code = "malformed"


class UnknownOperation(CallerError):
    """No operation has this name; `details.known` lists those there are."""

    code = "unknown-operation"


class Invalid(CallerError):
    """A field has the wrong type or a value that is not allowed; `details.path` names it."""

    code = "invalid"


class TooLarge(CallerError):
    """A body, text or list exceeds its limit, or the reply would: ask for fewer items."""

    code = "too-large"


class NotFound(CallerError):
    """The thing named does not exist."""

    code = "not-found"


class Conflict(CallerError):
    """The request contradicts what is stored: a unique key is taken, the message was deleted, the id was used."""

    code = "conflict"


class Forbidden(CallerError):
    """Not allowed in this scope, or not for this file."""

    code = "forbidden"


class DaemonError(BackscrollError):
    """The daemon could not execute the request; `retryable` says whether the same request may succeed later."""

    fault = "daemon"


class DeadlineExceeded(DaemonError):
    """The request was not started within its `deadlineMs`; it had no effect."""

    code = "deadline-exceeded"
    retries = "always"


class Busy(DaemonError):
    """A queue is full, or another process holds the lock of the database file."""

    code = "busy"
    retries = "always"


class Unavailable(DaemonError):
    """The daemon is starting or stopping."""

    code = "unavailable"
    retries = "always"


class Storage(DaemonError):
    """The disk is full or failed (retryable), or a file is damaged or read-only (not retryable)."""

    code = "storage"
    retries = "depends"


class Internal(DaemonError):
    """A bug in the daemon; its log has the request's id."""

    code = "internal"


class NoReply(BackscrollError, TimeoutError):
    """No reply came within the client's time-out: the outcome is unknown. Raised by clients only."""

    code = "no-reply"
    fault = "daemon"


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


def error_from(
    code: str, message: str, *, fault: str | None, retryable: bool, details: dict[str, Any] | None
) -> BackscrollError:
    """The exception for an error reply. An unknown code keeps its name, in the class that its fault says."""
    error_class = ERRORS.get(code) or (CallerError if fault == "caller" else DaemonError)
    return error_class(message, details=details, retryable=retryable, code=code)
