"""Why a daemon cannot start, with the exit code that tells a script."""

from typing import ClassVar


class CannotStart(Exception):
    """The daemon stops before it is ready; the message is for a person and says what to do."""

    exit_code: ClassVar[int]


class BadSettings(CannotStart):
    exit_code = 2


class AlreadyRunning(CannotStart):
    exit_code = 3


class CannotOpen(CannotStart):
    exit_code = 4
