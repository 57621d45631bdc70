"""Waking a thread that polls."""

import contextlib
import socket


class Wake:
    """A socket pair with which other threads and signal handlers wake the thread that polls `reading`."""

    def __init__(self) -> None:
        self.reading, self.writing = socket.socketpair()
        self.reading.setblocking(False)
        self.writing.setblocking(False)

    def set(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: the thread has ended
            self.writing.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.reading.recv(4096)

    def close(self) -> None:
        self.reading.close()
        self.writing.close()
