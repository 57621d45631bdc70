"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.005


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once `condition()` is true; fail the test if it is not by the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is not met after {seconds} s"
        time.sleep(POLL_SECONDS)
