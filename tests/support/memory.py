"""How much memory a block of a test allocates."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited_memory(peak_bytes_max: int) -> Iterator[None]:
    """The block allocates no more than this at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < peak_bytes_max
