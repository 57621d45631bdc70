"""How work on whole databases tells how far it is, and what it found."""

from collections.abc import Callable
from typing import NamedTuple

Progress = Callable[[str, int, int | None], None]
"""Receives the current step in words, how much of it is done, and how much there is (None: unknown). May raise
`Stopped`."""


class Stopped(Exception):
    """The work is not wanted any more. It leaves nothing behind but files that are removed at the next start."""


class Problem(NamedTuple):
    """Something damaged: the scope, the file relative to the directory that was examined, and what is wrong with it."""

    scope: str
    file: str
    what: str
