"""Connections below ZeroMQ: they greet as a DEALER does, and then send any bytes, or none."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER\x08Identity" + bytes(4)
MORE = 1  # flags of ZMTP
LARGE = 2


def frame(size: int, flags: int = 0) -> bytes:
    """The header of a frame with a size of eight bytes."""
    return bytes([flags | LARGE]) + size.to_bytes(8, "big")


def connected(endpoint: str, *, greets: bool = True) -> socket.socket:
    """A connection that has sent its part of the handshake, or nothing."""
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
    if greets:
        greet(connection)
    return connection


def greet(connection: socket.socket) -> None:
    with suppress(ConnectionError):  # refused already
        connection.sendall(GREETING + b"\x04" + bytes([len(READY)]) + READY)


def is_admitted(connection: socket.socket) -> bool:
    """Whether the daemon has completed the handshake; libzmq may not read what comes before. Reads nothing."""
    try:
        return len(connection.recv(1_000, socket.MSG_PEEK | socket.MSG_DONTWAIT)) > len(GREETING)
    except BlockingIOError:
        return False


def is_cut(connection: socket.socket) -> bool:
    """Whether the daemon has ended a connection."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def many(endpoint: str, number: int) -> Iterator[Sequence[socket.socket]]:
    """A number of connections, of which the daemon may refuse some."""
    connections: list[socket.socket] = []
    try:
        for _ in range(number):
            connections.append(connected(endpoint))
        yield connections
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def sending(
    endpoint: str, number: int, piece: bytes, *, first: bytes = b"", times: int | None = None
) -> Iterator[None]:
    """Connections that send `first`, and then a piece again and again, from threads; each until it is cut off."""
    stopping = threading.Event()

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(first)
            sent = 0
            while not stopping.is_set() and (times is None or sent < times):
                connection.sendall(piece)
                sent += 1

    connections = [connected(endpoint) for _ in range(number)]
    threads = [threading.Thread(target=send, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.close()


def processor_ticks(pid: int) -> int:
    """The processor time of a process, in hundredths of a second."""
    fields: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
