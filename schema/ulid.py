"""ULIDs: ids of 26 characters that sort by time; each is greater than the one before even if the clock goes back.

48 bits of milliseconds, then 80 random bits that are incremented within a millisecond (monotonic ULIDs). Clients use
them as request ids: ids that grow with time keep the daemon's indexes compact.
"""

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TO_BASE_32 = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # the digits that `int` reads
_RANDOM_BITS = 80
_GREATEST = 2**128 - 1


class UlidGenerator:
    """Generates ULIDs, each greater than the one before. Safe to use from several threads, and in forked processes.

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
        _GENERATORS.add(self)

    def __call__(self, now_ms: int | None = None) -> str:
        """The next ULID, for `now_ms` (milliseconds since the epoch) or else for the current time."""
        with self._lock:
            self._last = _next(self._last, self._now_ms() if now_ms is None else now_ms, self._random_bits)
            return _encode(self._last)

    def _continue_in_child(self) -> None:
        """After a fork, continue from a random value of the next millisecond: the parent continues from the last one.

        The lock may have been held by another thread, which does not exist in the child.
        """
        self._lock = threading.Lock()
        self._last = ((self._last >> _RANDOM_BITS) + 1) << _RANDOM_BITS | self._random_bits(_RANDOM_BITS)


_GENERATORS: "weakref.WeakSet[UlidGenerator]" = weakref.WeakSet()


def _continue_all_in_child() -> None:
    for generator in list(_GENERATORS):
        generator._continue_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_continue_all_in_child)


def ulid_after(last: str, now_ms: int, random: int) -> str:
    """A ULID for `now_ms` that is greater than `last`, which may be empty; `random` has 80 bits.

    Raises OverflowError if `last` is the greatest ULID.
    """
    return _encode(_next(_decode(last) if last else -1, now_ms, lambda _: random))


def _next(last: int, now_ms: int, random_bits: Callable[[int], int]) -> int:
    if last >= _GREATEST:
        raise OverflowError("there is no ULID after the greatest one")
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
