"""The reasons why a daemon cannot start, with their exit codes."""

from typing import ClassVar

RESCUE = (
    "With the daemon stopped, `backscroll repair` saves what can be saved, and `backscroll restore` goes back to a"
    " backup."
)
"""What to do about a damaged database."""


class CannotStart(Exception):
    """The daemon cannot start; the message says why and what to do."""

    exit_code: ClassVar[int]


class BadSettings(CannotStart):
    exit_code = 2


class AlreadyRunning(CannotStart):
    exit_code = 3


class CannotOpen(CannotStart):
    exit_code = 4
