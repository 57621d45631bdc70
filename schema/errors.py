"""The errors of the protocol, one class for each code. The daemon and the clients use the same classes.

    BackscrollError
    ├── CallerError                fault "caller": the request cannot succeed as it is
    │   ├── Malformed              malformed          the body cannot be decoded
    │   ├── UnknownOperation       unknown-operation  no operation has this name
    │   ├── Invalid                invalid            a field has the wrong type or a value that is not allowed
    │   ├── TooLarge               too-large          a body, text or list exceeds its limit
    │   ├── NotFound               not-found          the named item does not exist
    │   ├── Conflict               conflict           a unique key is taken, the message was deleted, …
    │   ├── Superseded             superseded         a later command of the same client took effect
    │   ├── Unauthenticated        unauthenticated    no token, or one that is unknown, expired or revoked
    │   └── Forbidden              forbidden          the token lacks a right; not allowed in this scope
    ├── DaemonError                fault "daemon": the request may be valid, but the daemon could not execute it
    │   ├── DeadlineExceeded       deadline-exceeded  not started before the caller's deadline
    │   ├── Busy                   busy               a queue is full, or a lock is held; try again
    │   ├── Unavailable            unavailable        the daemon is starting or stopping; try again
    │   ├── Storage                storage            disk full, I/O error, damaged file
    │   └── Internal               internal           a bug in the daemon
    └── NoReply                    (never sent)       the client stopped waiting; the outcome is unknown

An error reply means that the request had no effect. `NoReply` means that the outcome is unknown. A code that the client
does not know is raised as a plain `CallerError` or `DaemonError`, depending on the reply's `fault`, with that `code`.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

QUOTED_CHARACTERS_MAX = 500
FAILURES_SHOWN = 10

Fault = Literal["caller", "daemon"]


@dataclass(frozen=True)
class FailedCommand:
    """One command of a batch that cannot be executed: its index, and its error.

    `message` and `path` are empty where the list became too long for them; `details` is what else its error says.
    """

    index: int
    code: str
    message: str = ""
    path: str = ""
    details: dict[str, Any] | None = None

    def __str__(self) -> str:
        problem = self.message.removeprefix(f"{self.path}: ") if self.path else self.message
        return f"{self.code} at {self.path or f'commands[{self.index}]'}: {problem}".removesuffix(": ")


class BackscrollError(Exception):
    """Base of all errors. `details` is a JSON object or None; if `retryable`, the same request may succeed later.

    Errors of a class with `retries = "always"` are retryable by default, all others are not.
    """

    code: str = ""
    fault: ClassVar[Fault]
    since: ClassVar[int] = 1
    retries: ClassVar[Literal["never", "always", "depends"]] = "never"
    """Whether errors of this class are retryable, for the documentation."""

    def __init__(
        self,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retryable: bool | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retryable = self.retries == "always" if retryable is None else retryable
        if code:
            self.code = code

    def __str__(self) -> str:
        """The message; if several commands of a batch failed, also the first of the others."""
        others = self.failures[1:]
        lines = [self.message, *(f"  {each}" for each in others[:FAILURES_SHOWN])]
        if len(others) > FAILURES_SHOWN:
            lines.append(f"  … and {len(others) - FAILURES_SHOWN} more")
        return "\n".join(lines)

    @property
    def failures(self) -> list[FailedCommand]:
        """The commands of a batch that failed, in their order; empty if the error is about something else."""
        listed = (self.details or {}).get("failures")
        if not isinstance(listed, list):
            return []
        return [_failed(each) for each in listed if isinstance(each, dict) and isinstance(each.get("index"), int)]


def _failed(listed: dict[str, Any]) -> FailedCommand:
    """An item of `details.failures`; a later level may add fields."""
    known = {field.name: listed[field.name] for field in fields(FailedCommand) if field.name in listed}
    return FailedCommand(**{"code": ""} | known)


class CallerError(BackscrollError):
    """The request cannot succeed as it is; sending it again does not help."""

    fault = "caller"

    @classmethod
    def at(cls, path: str, problem: str, **details: Any) -> Self:
        """An error about one field; `path` starts at the body's root: `$.payload.message.id`. Truncates long text."""
        path, problem = _cut(path), _cut(problem)
        return cls(f"{path}: {problem}", details={"path": path} | details)


def inside(path: str, index: int, error: CallerError) -> CallerError:
    """The error of a command inside a list, with its path starting at the body's root and the command's `index`.

    `path` is where the command is, such as `$.payload.commands[3]`. `error` has a path that starts at the command.
    """
    inner = str((error.details or {}).get("path", "$"))
    outer = _cut(path + inner.removeprefix("$"))
    problem = error.message.removeprefix(f"{inner}: ")
    details = (error.details or {}) | {"path": outer, "index": index}
    return type(error)(f"{outer}: {problem}", details=details)


def _cut(text: str) -> str:
    """Truncate text that may quote a request."""
    return text if len(text) <= QUOTED_CHARACTERS_MAX else text[: QUOTED_CHARACTERS_MAX - 1] + "…"


class Malformed(CallerError):
    """The body cannot be decoded: it is not one JSON object or MessagePack map, or has too many frames before it."""

    code = "malformed"


class UnknownOperation(CallerError):
    """No operation has this name; `details.known` lists all operations."""

    code = "unknown-operation"


class Invalid(CallerError):
    """A field has the wrong type or a value that is not allowed; `details.path` names it."""

    code = "invalid"


class TooLarge(CallerError):
    """A body, text or list exceeds its limit; or the reply would, or the query takes too long: then ask for less."""

    code = "too-large"


class NotFound(CallerError):
    """The named item does not exist."""

    code = "not-found"


class Conflict(CallerError):
    """The request contradicts what is stored: a unique key is taken, the message was deleted, the id was used."""

    code = "conflict"


class Superseded(CallerError):
    """A command of the same `client` with this `n` or a greater one took effect; `details.n` is the greatest."""

    code = "superseded"


class Unauthenticated(CallerError):
    """Over tcp: the request has no token (`auth`), or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(CallerError):
    """The caller's token lacks the right or the scope; or not allowed in this scope, or for this file."""

    code = "forbidden"


class DaemonError(BackscrollError):
    """The daemon could not execute the request; `retryable` says whether the same request may succeed later."""

    fault = "daemon"


class DeadlineExceeded(DaemonError):
    """The request was not started within its `deadlineMs` and had no effect."""

    code = "deadline-exceeded"
    retries = "always"


class Busy(DaemonError):
    """A queue is full, another process holds the lock of the database file, or a cleared room is being removed."""

    code = "busy"
    retries = "always"


class Unavailable(DaemonError):
    """The daemon is starting or stopping."""

    code = "unavailable"
    retries = "always"


class Storage(DaemonError):
    """The disk is full or failed (retryable), or a file is damaged, lost or read-only, or a bound is reached (not)."""

    code = "storage"
    retries = "depends"


class Internal(DaemonError):
    """A bug in the daemon; the daemon's log has the details under the request's id."""

    code = "internal"


class NoReply(BackscrollError, TimeoutError):
    """No reply came within the client's timeout, so the outcome is unknown. Raised by clients only."""

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
        Superseded,
        Unauthenticated,
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
    """The exception for an error reply. An unknown code keeps its name, in the base class of its `fault`."""
    error_class = ERRORS.get(code) or (CallerError if fault == "caller" else DaemonError)
    return error_class(message, details=details, retryable=retryable, code=code)
