"""Whether much arrives at connections, told by the kernel: an edge-triggered epoll, which costs nothing while idle.

libzmq reads the connections, and shows only complete messages; but what it holds can only grow when something arrives.
"""

import select
import sys
from contextlib import suppress


class Arrivals:
    """The connections that something has arrived at since `seen`, and that libzmq has not read empty yet.

    So what arrives slowly is missed often; a flood, which keeps libzmq reading, is not. Closed connections leave by
    themselves. Where there is no epoll, everything is missed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll() if sys.platform == "linux" else None

    @property
    def descriptor(self) -> int | None:
        """Readable while there are some; None where there is no epoll."""
        return self._epoll.fileno() if self._epoll else None

    def add(self, connection: int) -> None:
        """Watch a descriptor from now on. One that was closed, or is a file by now, is ignored."""
        if self._epoll is not None:
            with suppress(OSError):
                self._epoll.register(connection, select.EPOLLIN | select.EPOLLET)

    def seen(self, connections: int) -> bool:
        """Whether there are some, of at most so many `connections`; those do not count again until more arrives."""
        return bool(self._epoll is not None and self._epoll.poll(0, max(1, connections)))

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
