"""The bound on connections, and cutting connections off.

libzmq accepts whatever connects until there are no descriptors left, and then aborts (ipc) or spins (tcp); it shows no
connection before its first message, and unbinding would cut off those that are there. So its monitor reports each
descriptor that it accepts, to a thread that shuts surplus ones down; libzmq closes them then. The thread also watches
the memory, for the same reason: only the monitor knows connections that never complete a message. And it answers the
handshakes, so that new peers neither wait for the loop nor cost it anything.
"""

import math
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq

from backscroll.bus.arrivals import Arrivals
from backscroll.bus.handshakes import Handshakes
from backscroll.bus.logging import log
from backscroll.bus.wake import Wake

if sys.platform != "win32":
    import resource

FILES_RESERVED = 500  # for databases and media, and for connections that are accepted before surplus ones are closed
FILES_MAX = 65_536  # more are not asked of the system
ACCEPTED, DISCONNECTED, STOPPED = (
    int(zmq.EVENT_ACCEPTED),
    int(zmq.EVENT_DISCONNECTED),
    int(zmq.EVENT_MONITOR_STOPPED),
)
NOBLOCK = int(zmq.NOBLOCK)
BYTES_ACKED, BYTES_RECEIVED = 120, 128  # offsets in Linux's `struct tcp_info`
LOG_SECONDS = 60.0  # between two lines about refused connections
CHECK_SECONDS = 0.1  # from an arrival to a check, at the latest


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one."""
    if sys.platform == "win32":  # which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS refuses some values below the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_max(wanted: int) -> int:
    """The number of connections that leaves enough files under the limit of the process; at most `wanted`."""
    if sys.platform == "win32":
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - min(FILES_RESERVED, soft // 2)))


def cut(descriptor: int) -> None:
    """Cut off the connection with this descriptor; libzmq closes it then. Anything but a connection is left alone.

    The descriptor is libzmq's: it is neither closed nor duplicated here, because closing a duplicate of a database file
    would drop SQLite's locks.
    """
    with_connection(descriptor, lambda connection: connection.shutdown(socket.SHUT_RDWR))


def with_connection(descriptor: int, use: Callable[[socket.socket], Any]) -> Any:
    """The result of `use` with the connection of this descriptor; None if it is closed, or used for a file since."""
    try:
        connection = socket.socket(fileno=descriptor)
    except (OSError, ValueError):
        return None
    try:
        return use(connection) if connection.getsockname() else None  # a socket pair has no name
    except OSError:
        return None
    finally:
        connection.detach()


def tcp_bytes(descriptor: int, counter: int) -> int | None:
    """`BYTES_ACKED` or `BYTES_RECEIVED` of a tcp connection; None if it is closed, or the kernel does not tell."""
    end = counter + 8

    def read(connection: socket.socket) -> int | None:
        if sys.platform != "linux" or connection.family == socket.AF_UNIX:
            return None
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, end)
        return int(struct.unpack_from("=Q", info, counter)[0]) if len(info) >= end else None

    value: int | None = with_connection(descriptor, read)
    return value


class Connections:
    """The open connections of ROUTER sockets, at most `limit`; surplus ones are cut off as soon as they are accepted.

    `check` is called while there are connections and once after the last has ended, again after the seconds that it
    returns, or at the latest CHECK_SECONDS after `check_soon` or after much has arrived, of which it is told. Call
    `watch` for each socket, then `start`; the thread ends when the sockets are closed. `crashed` gets the exception
    that ends it before.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        limit: int,
        handshakes: Handshakes,
        *,
        check: Callable[[bool], float],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._context = context
        self._crashed = crashed
        self.limit = limit
        self._handshakes = handshakes
        self._check = check
        self.accepted: dict[int, float] = {}  # the open descriptors, and when they were accepted
        self._arrivals, self._wake = Arrivals(), Wake()
        self._waits_long = False  # for the next check
        self._cut: set[int] = set()  # those that are cut off and not closed yet
        self._logged_at = -LOG_SECONDS
        self._monitors: list[zmq.Socket[bytes]] = []
        self._thread = threading.Thread(target=self._run, name="connections")

    def watch(self, router: zmq.Socket[bytes]) -> None:
        """Watch a socket from now on; call it before the socket is bound."""
        address = f"inproc://connections-{id(self)}-{len(self._monitors)}"
        router.monitor(address, ACCEPTED | DISCONNECTED | STOPPED)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(address)
        self._monitors.append(monitor)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended, after the sockets were closed."""
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join()

    def check_soon(self) -> None:
        """Let `check` be called within CHECK_SECONDS. For the loop's thread, while requests are answered."""
        if self._waits_long:
            self._waits_long = False
            self._wake.set()

    def cut(self, descriptor: int) -> None:
        """Cut off one of the open connections."""
        if descriptor in self.accepted:
            self._cut.add(descriptor)
            cut(descriptor)

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as error:  # noqa: BLE001
            self._crashed(error)
        finally:
            self._close()

    def _close(self) -> None:
        self._handshakes.socket.close()
        self._arrivals.close()
        self._wake.close()
        while self._monitors:
            self._monitors.pop().close()

    def _watch(self) -> None:
        poller = zmq.Poller()
        for readable in (self._handshakes.socket, *self._monitors, self._wake.reading):
            poller.register(readable, zmq.POLLIN)
        check_at = 0.0
        checked_last = True  # after the last connection has ended, since its memory is to be returned as well
        while self._monitors:
            seconds = max(0.0, check_at - time.monotonic())
            is_idle = checked_last and not self.accepted
            ready = [readable for readable, _ in poller.poll(None if is_idle else math.ceil(seconds * 1000))]
            for monitor in [each for each in self._monitors if each in ready]:  # first: a flood of connections is fatal
                if self._read(monitor):
                    poller.unregister(monitor)
                    self._monitors.remove(monitor)
                    monitor.close()
            if self._handshakes.socket in ready:
                self._handshakes.answer()
            now = time.monotonic()
            if self._wake.reading.fileno() in ready or self._arrivals.descriptor in ready:
                check_at = min(check_at, now + CHECK_SECONDS)
                self._end_long_wait(poller)
            if (self.accepted or not checked_last) and now >= check_at:
                checked_last = not self.accepted
                seconds = self._check(self._arrivals.seen(len(self.accepted)))
                check_at = time.monotonic() + seconds
                self._end_long_wait(poller)
                if seconds > CHECK_SECONDS:
                    self._begin_long_wait(poller)

    def _begin_long_wait(self, poller: zmq.Poller) -> None:
        self._waits_long = True
        if self._arrivals.descriptor is not None:
            poller.register(self._arrivals.descriptor, zmq.POLLIN)

    def _end_long_wait(self, poller: zmq.Poller) -> None:
        self._waits_long = False
        self._wake.clear()
        if self._arrivals.descriptor is not None and self._arrivals.descriptor in poller:
            poller.unregister(self._arrivals.descriptor)

    def _read(self, monitor: zmq.Socket[bytes]) -> bool:
        """Handle all events of a monitor; returns whether its socket was closed."""
        while True:
            try:
                event = monitor.recv(NOBLOCK)
            except zmq.Again:
                return False
            monitor.recv()  # the address
            kind, descriptor = int.from_bytes(event[:2], "little"), int.from_bytes(event[2:6], "little", signed=True)
            if kind == ACCEPTED:
                self._note_accepted(descriptor)
            elif kind == DISCONNECTED:
                self.accepted.pop(descriptor, None)
                self._cut.discard(descriptor)
            elif kind == STOPPED:
                return True

    def _note_accepted(self, descriptor: int) -> None:
        self._cut.discard(descriptor)
        self.accepted[descriptor] = time.monotonic()
        self._arrivals.add(descriptor)
        if len(self.accepted) - len(self._cut) <= self.limit:
            return
        self.cut(descriptor)
        if time.monotonic() - self._logged_at >= LOG_SECONDS:
            self._logged_at = time.monotonic()
            log.error("too many connections; further ones are refused", connections=self.limit)
