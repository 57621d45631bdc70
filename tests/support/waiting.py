"""Waiting for something to become true, in place of sleeping."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.005


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once `condition()` is true; fail the test when it is not by the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(POLL_SECONDS)
