"""A cache for functions that several threads may call at once."""

import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def computed_once(function: F) -> F:
    """Like `functools.cache`, but two threads never compute the same value: a type that is made twice is two types."""
    lock, computed = threading.RLock(), cache(function)

    @cache
    @wraps(function)
    def get(*arguments: Any) -> Any:
        with lock:
            return computed(*arguments)

    return cast(F, get)
