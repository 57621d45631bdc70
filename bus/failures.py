"""The reasons why a daemon cannot start, with their exit codes."""

from typing import ClassVar


class CannotStart(Exception):
    """The daemon cannot start; the message says why and what to do."""

    exit_code: ClassVar[int]


class BadSettings(CannotStart):
    exit_code = 2


class AlreadyRunning(CannotStart):
    exit_code = 3


class CannotOpen(CannotStart):
    exit_code = 4
