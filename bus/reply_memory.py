"""The memory of replies to queries, from the rows that are read for them until the loop has sent them.

A result of megabytes is in memory about three times while its reply is made: its rows, the result encoded, the reply.
So one is made at a time, which costs nothing, since encoding holds the interpreter. A run that needs its turn for it
is put aside, so that no thread waits for that, and small results wait for no large one. And the loop, one thread,
may get less of the processors than the readers; so these wait when it has many replies to send. What has been sent is
counted by `InFlight`.
"""

import threading
from collections import deque
from collections.abc import Callable

MADE_BYTES_MAX = 16 * 2**20
"""Of replies that are made and not sent; with as many, no run is begun."""


class TurnNeeded(BaseException):
    """A result is large, and another large one is being made. Not an `Exception`: it is not the failure of a query."""


class ReplyMemory:
    """Counts the bytes of replies that are made and not sent, and lets one large result be made at a time.

    May be used from any thread. `end()` must be called before the loop stops sending, else readers wait for ever.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._has_large = False
        self._put_aside: deque[Callable[[], None]] = deque()
        self._ended = False
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        """Whether no more replies are to be made before some have been sent."""
        return self.bytes >= MADE_BYTES_MAX

    def add(self, replies: list[bytes]) -> None:
        """Count replies that are made."""
        with self._changed:
            self.bytes += sum(map(len, replies))

    def remove(self, replies: list[bytes]) -> None:
        """Count off replies that are sent, or dropped."""
        with self._changed:
            was_full = self.is_full
            self.bytes -= sum(map(len, replies))
            if was_full:
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait while the loop has many replies to send."""
        if self.is_full:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or not self.is_full)

    def begin_large(self) -> None:
        """Begin to make a large result, which `end_large` ends; raises `TurnNeeded`."""
        self.wait_for_room()
        with self._changed:
            if self._has_large and not self._ended:
                raise TurnNeeded
            self._has_large = True

    def end_large(self) -> None:
        """End what was begun: the next run that was put aside has its turn."""
        with self._changed:
            self._has_large = bool(self._put_aside)
            resume = self._put_aside.popleft() if self._put_aside else None
        if resume is not None:
            resume()

    def put_aside(self, resume: Callable[[], None]) -> None:
        """Have `resume` called when it is the turn of a run; the large result has then begun."""
        with self._changed:
            if self._has_large and not self._ended:
                self._put_aside.append(resume)
                return
            self._has_large = True
        resume()

    def end(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            put_aside, self._put_aside = self._put_aside, deque()
        for resume in put_aside:
            resume()


class RunMemory:
    """The memory of one run of queries, as a context: its beginning waits for room, at its end replies are delivered.

    `is_large`: it has its turn. `before_large` is called in the run before a result becomes large.
    """

    def __init__(self, memory: ReplyMemory, *, is_large: bool) -> None:
        self._memory = memory
        self._is_large = is_large

    def before_large(self) -> None:
        if not self._is_large:
            self._memory.begin_large()
            self._is_large = True

    def __enter__(self) -> Callable[[], None]:
        self._memory.wait_for_room()
        return self.before_large

    def __exit__(self, *_: object) -> None:
        if self._is_large:
            self._memory.end_large()
