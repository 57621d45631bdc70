"""What work on whole databases finds."""

from typing import NamedTuple

from backscroll.bus.progress import Progress, Stopped

__all__ = ["Problem", "Progress", "Stopped"]


class Problem(NamedTuple):
    """Something damaged: the scope, the file relative to the directory that was examined, and what is wrong with it."""

    scope: str
    file: str
    what: str
