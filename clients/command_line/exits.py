"""How a command ends: its exit code, and the message that says why."""

import os
import sys
from collections.abc import Callable

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def complain(what: object, code: int) -> int:
    """Write a message to standard error; returns the exit code."""
    sys.stderr.write(f"backscroll: {what}\n")
    return code


def guarded(run: Callable[[], int]) -> int:
    """The exit code of a command; expected errors become messages."""
    try:
        return run()
    except BrokenPipeError:  # the reader has seen enough; point stdout elsewhere, or Python complains when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return complain("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
        return complain(error, code)


def _code_of(error: Exception) -> int | None:
    """The exit code for an expected error: 1 for what was refused or does not hold, 2 for what cannot be reached."""
    from backscroll.clients.python.daemon_access import CannotReach
    from backscroll.clients.python.log_export import Broken
    from backscroll.schema.errors import BackscrollError
    from backscroll.schema.log_file import BadLine

    if isinstance(error, BadLine | Broken | BackscrollError):
        return EXIT_FAILED
    return EXIT_USAGE if isinstance(error, CannotReach | OSError) else None
