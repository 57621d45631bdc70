"""The watch on memory that nothing else bounds: libzmq holds messages that are not complete, and shows them to nobody.

A message may have any number of frames, a frame is allocated when it is announced, and both may never end. So when the
process has more memory than it should, caches are emptied, and then connections are cut off that may hold some of it.
Over tcp the kernel counts what each has sent: without complete messages, that is what it holds, and one that holds
nothing is left alone. Over ipc nothing tells, so it is those that send and complete nothing, then those that never
completed a message, then those that were silent for ten seconds without waiting for a reply, then for shorter times.
"""

import array
import ctypes
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from backscroll.bus.connections import BYTES_RECEIVED, CHECK_SECONDS, Connections, tcp_bytes
from backscroll.bus.in_flight import Peer, inode_of
from backscroll.bus.logging import log
from backscroll.bus.router import RouterSocket

if sys.platform != "win32":
    import fcntl
    import resource
    import termios

STATM = Path("/proc/self/statm")
STATM_BYTES = 256
CHECK_SECONDS_GROWING = 0.02  # from half of the bound on, while there is ever more
QUIET_CHECKS, CHECK_SECONDS_QUIET = 10, 10.0  # when nothing has happened in so many checks
UNFINISHED_BYTES_MIN = 64 * 1024  # fewer are in buffers
SENDING_SECONDS = 0.3  # without a complete message
FIRST_SECONDS = 0.05  # the same for the first one, which is small if it is a client of ours
LOOKS, LOOK_SECONDS = 4, 0.003
NEW_SECONDS = 1.0
SILENT_SECONDS_MAX, SILENT_SECONDS_MIN = 10.0, 0.5
FUTILE_SECONDS = 60.0  # until silent connections are cut off again, after that has not helped


class MemoryWatch:
    """Keeps resident memory, without the bytes that `accounted` returns, below `bytes_max`.

    Used by the thread of `Connections`.
    """

    def __init__(
        self,
        bytes_max: int,
        *,
        accounted: Callable[[], int],
        free: Callable[[], None],
        router: RouterSocket,
        has_requests: Callable[[bytes], bool],
    ) -> None:
        self._bytes_max = bytes_max
        self._accounted, self._free, self._router = accounted, free, router
        self._has_requests = has_requests
        self._excess_before, self._interval, self._quiet_checks = 0, CHECK_SECONDS, 0
        self._read_at = 0.0
        self._silent_seconds, self._silent_next_at = SILENT_SECONDS_MAX, 0.0
        self._page_bytes = resource.getpagesize() if sys.platform != "win32" else 0
        # Open all the time: opening it each time costs more than the rest of a check.
        self._statm = STATM.open("rb") if STATM.exists() else None  # None: not Linux
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def check(self, connections: Connections, *, is_active: bool) -> float:
        """Measure, and cut off connections if there is too much. Returns the seconds until the next check.

        `is_active`: whether much has arrived since the last check, or a request is being answered.
        """
        excess = self._excess()
        is_active = is_active or self._router.all_read_at > self._read_at
        self._read_at = self._router.all_read_at
        self._quiet_checks = 0 if is_active else self._quiet_checks + 1
        if excess <= 0:
            self._silent_seconds = SILENT_SECONDS_MAX
            return self._next_check(excess)
        self._free()
        self._trim()
        if (excess := self._excess()) > 0:
            self._cut(connections, excess)
        return CHECK_SECONDS_GROWING

    def _next_check(self, excess: int) -> float:
        is_growing, self._excess_before = excess > self._excess_before, excess
        if excess < -self._bytes_max // 2:
            self._interval = CHECK_SECONDS
        else:
            self._interval = CHECK_SECONDS_GROWING if is_growing else min(CHECK_SECONDS, self._interval * 2)
        is_quiet = self._interval == CHECK_SECONDS and self._quiet_checks >= QUIET_CHECKS
        return CHECK_SECONDS_QUIET if is_quiet else self._interval

    def close(self) -> None:
        if self._statm is not None:
            self._statm.close()

    def _cut(self, connections: Connections, excess: int) -> None:
        suspects = self._suspects(connections.accepted, excess)
        for descriptor in suspects:
            connections.cut(descriptor)
        if suspects:
            log.error(
                "connections with unfinished messages were cut off: too much memory",
                connections=len(suspects),
                excess_bytes=excess,
            )

    def _excess(self) -> int:
        if self._statm is None:
            return 0
        pages = int(os.pread(self._statm.fileno(), STATM_BYTES, 0).split()[1])
        return pages * self._page_bytes - self._accounted() - self._bytes_max

    def _trim(self) -> None:
        """Return freed memory to the system."""
        if self._libc is not None and hasattr(self._libc, "malloc_trim"):
            self._libc.malloc_trim(0)

    def _suspects(self, accepted: Mapping[int, float], excess: int) -> list[int]:
        """The descriptors to cut off next, by the first rule that finds one."""
        now = time.monotonic()
        if not self._router.has_read_all:
            now = min(now, self._router.all_read_at)  # of what has arrived since, complete messages may be unread
        clients = {peer.descriptor: (client, peer) for client, peer in list(self._router.peers.items())}
        open_now: dict[int, Peer | None] = {}
        waiting: set[int] = set()
        for at in list(accepted):
            client, peer = clients.get(at, (b"", None))
            if peer is not None and peer.inode != inode_of(at):  # of an earlier connection
                peer = None
            if _may_hold(at, peer):
                open_now[at] = peer
                if peer is not None and self._has_requests(client):
                    waiting.add(at)
        silent = {
            at: peer
            for at, peer in open_now.items()
            if (now - peer.received_at > SENDING_SECONDS if peer else now - accepted.get(at, now) > FIRST_SECONDS)
        }
        return (
            _with_most_bytes(silent, excess)
            or _sending(silent)
            or [at for at, peer in open_now.items() if peer is None and now - accepted.get(at, now) > NEW_SECONDS]
            or self._silent({at: peer for at, peer in open_now.items() if peer and at not in waiting}, now)
        )

    def _silent(self, open_now: Mapping[int, Peer], now: float) -> list[int]:
        """Those that were silent for long, then for shorter times; nobody any more if that has not helped."""
        if now < self._silent_next_at:
            return []
        found = [at for at, peer in open_now.items() if now - peer.received_at > self._silent_seconds]
        if self._silent_seconds > SILENT_SECONDS_MIN:
            self._silent_seconds /= 2
            self._silent_next_at = now + CHECK_SECONDS
        else:
            self._silent_next_at = now + FUTILE_SECONDS
        return found


def _unfinished_bytes(descriptor: int, peer: Peer | None) -> int | None:
    """What a connection has sent besides complete messages; None if the kernel does not tell."""
    received = tcp_bytes(descriptor, BYTES_RECEIVED)
    return None if received is None else received - (peer.received if peer else 0)


def _may_hold(descriptor: int, peer: Peer | None) -> bool:
    """Whether a connection may have sent more of an unfinished message than is in buffers."""
    unfinished = _unfinished_bytes(descriptor, peer)
    return unfinished is None or unfinished >= UNFINISHED_BYTES_MIN


def _with_most_bytes(silent: Mapping[int, Peer | None], excess: int) -> list[int]:
    """The tcp connections that sent most without completing a message, until together they have the excess."""
    unfinished = {at: _unfinished_bytes(at, peer) or 0 for at, peer in silent.items()}
    found: list[int] = []
    for at in sorted(unfinished, key=lambda each: -unfinished[each]):
        if excess <= 0 or unfinished[at] < UNFINISHED_BYTES_MIN:
            break
        found.append(at)
        excess -= unfinished[at]
    return found


def _sending(silent: Mapping[int, Peer | None]) -> list[int]:
    """The connections that are sending, and have completed nothing for a while."""
    found: set[int] = set()
    for _ in range(LOOKS):  # libzmq may just have read everything
        found.update(at for at in silent if _bytes_queued(at))
        time.sleep(LOOK_SECONDS)
    return list(found)


def _bytes_queued(descriptor: int) -> int:
    """The bytes that the kernel holds for a connection."""
    queued = array.array("i", [0])
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.ioctl(descriptor, termios.FIONREAD, queued)
    return queued[0]
