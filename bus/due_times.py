"""When each scope next has something to delete because it expires, so that the loop wakes in time."""

import threading
from collections.abc import Callable

SCOPES_MAX = 256
"""As many as are remembered, the soonest; the periodic chores find what expires in the others."""


class DueTimes:
    """Times of the wall clock by scope, in milliseconds since the epoch. Safe to use from any thread.

    `next_at` is the earliest of them. `on_earlier` is called, by the thread that notes it, when another becomes that.
    """

    def __init__(self) -> None:
        self.next_at: int | None = None
        self.on_earlier: Callable[[], None] = _do_nothing
        self._times: dict[str, int] = {}
        self._lock = threading.Lock()

    def note(self, scope: str, at: int | None) -> None:
        """Note when something expires in a scope; None if nothing does."""
        if self._times.get(scope) == at:
            return
        with self._lock:
            before = self.next_at
            if at is None:
                self._times.pop(scope, None)
            else:
                self._times[scope] = at
            if len(self._times) > SCOPES_MAX:
                del self._times[max(self._times, key=lambda each: self._times[each])]
            self.next_at = min(self._times.values(), default=None)
            is_earlier = self.next_at is not None and (before is None or self.next_at < before)
        if is_earlier:
            self.on_earlier()

    def take(self, now: int) -> list[str]:
        """The scopes in which something has expired, which are forgotten until they are noted again."""
        if self.next_at is None or self.next_at > now:
            return []
        with self._lock:
            due = [scope for scope, at in self._times.items() if at <= now]
            for scope in due:
                del self._times[scope]
            self.next_at = min(self._times.values(), default=None)
        return due


def _do_nothing() -> None:
    """Tell nobody."""
