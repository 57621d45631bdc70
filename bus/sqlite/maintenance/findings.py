"""What work on whole databases finds: a bounded list of problems, and what errors of damaged files say in words."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import apsw

from backscroll.bus.failures import CannotOpen
from backscroll.bus.sqlite.checksums import is_mismatch
from backscroll.handlers.log_check import DAMAGED_ROW, words

DAMAGE = (apsw.Error, CannotOpen, OSError, *DAMAGED_ROW)
"""What reading a damaged file raises."""
PROBLEMS_MAX = 100
PROBLEMS_MAX_OF_STEP = 20


class Problem(NamedTuple):
    """Something damaged: the scope, the file relative to the directory that was examined, and what is wrong with it."""

    scope: str
    file: str
    what: str


class Findings:
    """The problems found so far, each once: at most `PROBLEMS_MAX`, and `PROBLEMS_MAX_OF_STEP` of a step.

    `more` is the number of others, and `met` how often damage was met, also when it was told before.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.step = ""
        self.more = self.met = 0
        self._found: dict[tuple[str, str], None] = {}
        self._of_step: Counter[str] = Counter()

    def add(self, what: str, file: str = "") -> None:
        """Note what is wrong with a file, or with the database if none is given."""
        self.met += 1
        problem = file or self.file, what
        if problem in self._found:
            return
        self._of_step[self.step] += 1
        if self._of_step[self.step] > PROBLEMS_MAX_OF_STEP or len(self._found) >= PROBLEMS_MAX:
            self.more += 1
        else:
            self._found[problem] = None

    @contextmanager
    def reading(self, what: str, file: str = "") -> Iterator[None]:
        """The block reads something that may be damaged; it ends at the first damage, which is noted."""
        try:
            yield
        except DAMAGE as error:
            self.add(f"{what} cannot be read: {explained(error)}", file)

    def problems(self, scope: str) -> list[Problem]:
        return [Problem(scope, file, what) for file, what in self._found]


def explained(error: Exception) -> str:
    """What an error of a damaged file says."""
    if is_mismatch(error):
        return "a page does not match its checksum"
    if isinstance(error, OSError):
        return error.strerror or words(error)
    return words(error)
