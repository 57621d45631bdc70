"""ULIDs: ids of 26 characters that sort by time; each is greater than the one before even if the clock goes back.

48 bits of milliseconds, then 80 random bits that are incremented within a millisecond (monotonic ULIDs). Clients use
them as request ids: ids that grow with time keep the daemon's indexes compact.
"""

import secrets
import threading
import time
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TO_BASE_32 = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # the digits that `int` reads
_RANDOM_BITS = 80


class UlidGenerator:
    """Generates ULIDs, each greater than the one before. Safe to use from several threads.

    `now_ms` returns milliseconds since the epoch, `random_bits` a random integer with the given number of bits.
    """

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._now_ms = now_ms
        self._random_bits = random_bits
        self._last = -1  # before the epoch, so that the first millisecond gets random bits, too
        self._lock = threading.Lock()

    def __call__(self, now_ms: int | None = None) -> str:
        """The next ULID, for `now_ms` (milliseconds since the epoch) or else for the current time."""
        with self._lock:
            self._last = _next(self._last, self._now_ms() if now_ms is None else now_ms, self._random_bits)
            return _encode(self._last)


def ulid_after(last: str, now_ms: int, random: int) -> str:
    """A ULID for `now_ms` that is greater than `last`, which may be empty; `random` has 80 bits."""
    return _encode(_next(_decode(last) if last else -1, now_ms, lambda _: random))


def _next(last: int, now_ms: int, random_bits: Callable[[int], int]) -> int:
    if now_ms <= last >> _RANDOM_BITS:
        return last + 1
    return now_ms << _RANDOM_BITS | random_bits(_RANDOM_BITS)


def _encode(value: int) -> str:
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


def time_of(ulid: str) -> int:
    """The time of a ULID in milliseconds since the epoch."""
    return _decode(ulid) >> _RANDOM_BITS


def _decode(ulid: str) -> int:
    return int(ulid.translate(_TO_BASE_32), 32)
