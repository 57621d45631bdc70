"""Notices when the wall clock jumps forward, so that nothing is removed that has not really expired.

After a jump, removals are suspended for an hour: time for whoever set the clock wrong to set it right.
"""

import threading
import time
from collections.abc import Callable

from backscroll.bus.logging import log

JUMP_MS = 60_000
"""How far the wall clock may run ahead of the monotonic clock between two looks: more than any adjustment by NTP."""
SUSPENDED_SECONDS = 3_600


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def running_seconds() -> float:
    """A monotonic clock that goes on while the machine sleeps, where the system has one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ClockWatch:
    """Compares the wall clock with a monotonic clock (in seconds). Safe to use from any thread."""

    def __init__(self, now_ms: int, clock: Callable[[], float] = running_seconds) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._offset_ms = now_ms - clock() * 1000
        self._suspended_until = clock()

    def trusts(self, now_ms: int) -> bool:
        """Whether what is over at this time of the wall clock may be removed now."""
        with self._lock:
            elapsed = self._clock()
            ahead_ms = now_ms - elapsed * 1000 - self._offset_ms
            self._offset_ms += ahead_ms
            if ahead_ms > JUMP_MS:
                log.error("the clock jumped forward; nothing is removed for an hour", ms=round(ahead_ms))
                self._suspended_until = elapsed + SUSPENDED_SECONDS
            return elapsed >= self._suspended_until
