"""A share of a processor, for work that may wait: what is not used is saved up for a while."""

import time
from collections.abc import Callable


class ProcessorShare:
    """`share` of each second may be spent, and up to `saved_max` seconds at once after a while.

    After more was spent there is a pause, of `pause_max` seconds at most.
    """

    def __init__(
        self, share: float, saved_max: float, pause_max: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share, self._saved_max, self._saved_min, self._clock = share, saved_max, -pause_max * share, clock
        self._saved, self._as_of = saved_max, clock()

    def spend(self, seconds: float) -> None:
        """Note that work took so long, which may be more than is left."""
        now = self._clock()
        saved = min(self._saved_max, self._saved + (now - self._as_of) * self._share)
        self._saved = max(self._saved_min, saved - seconds)
        self._as_of = now

    def left_at(self) -> float:
        """The time of the clock from which on something may be spent."""
        return self._as_of - min(0.0, self._saved) / self._share

    def is_left(self) -> bool:
        """Whether something may be spent now."""
        return self._saved >= 0 or self._clock() >= self.left_at()
