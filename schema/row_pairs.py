"""Rows of two scopes, paired by their keys, for comparing them."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

R = TypeVar("R")


def pairs(ours: Iterator[R], theirs: Iterator[R], key_of: Callable[[R], Any]) -> Iterator[tuple[R | None, R | None]]:
    """Pairs of rows with the same key, None where one side has none. Both sides are in the order of their keys.

    SQLite's order of text, by UTF-8 bytes, is also Python's.
    """
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left != right and key_of(left) < key_of(right)):
            yield left, None
            left = next(ours, None)
        elif left is None or (left != right and key_of(right) < key_of(left)):
            yield None, right
            right = next(theirs, None)
        else:
            yield left, right
            left, right = next(ours, None), next(theirs, None)
