"""ULIDs: 26 characters that sort by time, and never backwards even when the clock does.

Forty-eight bits of milliseconds, then eighty random bits that count up within a millisecond; see the ULID
specification, version of 2016. Clients name their requests with them: ids that grow with time keep the
daemon's indexes compact.
"""

import secrets
import threading
import time
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


class UlidGenerator:
    """Makes ULIDs, each greater than the one before. Safe to share between threads.

    `now_ms` gives milliseconds since the epoch, `random_bits` a random integer of so many bits; `after` is a ULID that
    all are to be greater than.
    """

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bits: Callable[[int], int] = secrets.randbits,
        after: str = "",
    ) -> None:
        self._now_ms = now_ms
        self._random_bits = random_bits
        # Before the first millisecond where none is named, so that even that one gets its random bits.
        self._last = _decode(after) if after else -1
        self._lock = threading.Lock()

    def __call__(self, now_ms: int | None = None) -> str:
        """The next ULID, of this time or of the clock's."""
        with self._lock:
            fresh = (self._now_ms() if now_ms is None else now_ms) << _RANDOM_BITS | self._random_bits(_RANDOM_BITS)
            same_or_earlier = fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS
            self._last = self._last + 1 if same_or_earlier else fresh
            return _encode(self._last)


def _encode(value: int) -> str:
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def time_of(ulid: str) -> int:
    """The milliseconds since the epoch that a ULID was made at."""
    return _decode(ulid) >> _RANDOM_BITS


def _decode(ulid: str) -> int:
    value = 0
    for character in ulid:
        value = value << 5 | _ALPHABET.index(character)
    return value
