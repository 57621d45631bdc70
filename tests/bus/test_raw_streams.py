"""Random and damaged streams of bytes to the daemon's sockets: it lives, executes nothing, and serves its clients."""

import random
import socket
from collections.abc import Callable
from contextlib import closing, suppress

import pytest
from msgspec import UNSET

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetLog, Health, Ping
from tests.support.peers import is_alive, resident_bytes
from tests.support.requests import body
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
SEED = 20261125
STREAMS, STREAMS_LONG = 1_500, 40_000
EVERY = 250  # streams between two looks at how the daemon does
MEMORY_MAX = 150 * 2**20  # more than before the streams

SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
READY = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"


def greeting(draw: random.Random, mechanism: bytes = b"NULL") -> bytes:
    """A greeting of ZMTP/3, often complete and correct."""
    version = draw.choice((b"\x03\0", b"\x03\x01", b"\x03\x01", draw.randbytes(2)))
    return SIGNATURE + version + mechanism.ljust(20, b"\0") + draw.choice((b"\0", b"\x01")) + bytes(31)


def request(draw: random.Random) -> bytes:
    """The body of a command, without a token or with a wrong one."""
    auth = UNSET if draw.random() < 0.5 else draw.randbytes(8).hex()
    return body("create-user", {"pubkey": draw.randbytes(4).hex()}, auth=auth)


def frame(draw: random.Random, content: bytes) -> bytes:
    """A frame of ZMTP/3 (or 2), with flags that are often right."""
    flags = draw.choice((0, 0, 0, 1, 4, draw.randrange(256)))
    if len(content) < 256:
        return bytes([flags & ~2, len(content)]) + content
    return bytes([flags | 2]) + draw.choice((len(content), draw.randrange(2**63))).to_bytes(8, "big") + content


def old_frame(content: bytes) -> bytes:
    """A frame of ZMTP/1.0."""
    return bytes([len(content) + 1, 0]) + content if len(content) < 254 else b"\xff" + bytes(8)


def stream(draw: random.Random) -> bytes:
    """One stream: of some version of ZMTP, or of something else; a part of them damaged or cut off."""
    kind = draw.randrange(7)
    if kind == 0:
        found = draw.randbytes(draw.randrange(300))
    elif kind == 1:
        found = old_frame(b"") + b"".join(old_frame(request(draw)) for _ in range(draw.randrange(1, 4)))
    elif kind == 2:  # ZMTP/2.0: signature, revision 1, socket type DEALER, identity
        found = SIGNATURE + b"\x01\x05\0\0" + b"".join(frame(draw, request(draw)) for _ in range(3))
    elif kind == 3:
        found = (
            greeting(draw, draw.choice((b"PLAIN", b"CURVE", b"GSSAPI", draw.randbytes(20))))
            + READY
            + draw.randbytes(50)
        )
    elif kind == 4:
        found = b"POST / HTTP/1.1\r\nContent-Type: text/plain\r\n\r\n" + b"\x02" * 400 + old_frame(request(draw))
    else:
        contents = [draw.choice((request(draw), b"", draw.randbytes(20), b"[" * 400)) for _ in range(4)]
        found = greeting(draw) + READY + b"".join(frame(draw, each) for each in contents)
    if draw.random() < 0.3:
        damaged = bytearray(found)
        for _ in range(draw.randrange(1, 5)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        found = bytes(damaged)
    return found[: draw.randrange(len(found) + 1)] if draw.random() < 0.3 else found


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_raw_streams_do_no_harm(start_daemon: StartDaemon, transport: str, long: bool) -> None:
    """Whatever is sent, other clients are served, memory is freed, and over tcp nothing is executed without a token."""
    daemon = start_daemon(*(("--endpoint", "tcp://127.0.0.1:*") if transport == "tcp" else ()))
    draw = random.Random(f"{SEED} {transport}")
    address = daemon.endpoint.partition("://")[2]
    host, _, port = address.rpartition(":")
    connections: list[socket.socket] = []
    with Client(data_dir=daemon.data_dir) as client:
        assert client.ask(Ping()).pong
        before = resident_bytes(daemon.process.pid)
        for at in range(STREAMS_LONG if long else STREAMS):
            connection = socket.socket(socket.AF_INET if transport == "tcp" else socket.AF_UNIX)
            connections.append(connection)
            with suppress(OSError):
                connection.connect((host, int(port)) if transport == "tcp" else address)
                connection.sendall(stream(draw))
            if len(connections) > 50 or draw.random() < 0.5:
                connections.pop(draw.randrange(len(connections))).close()
            if at % EVERY == 0:
                assert client.ask(Ping()).pong, at
                assert is_alive(daemon.process.pid)
        for connection in connections:
            with closing(connection), suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not any(client.ask(Health()).queues.values()))
        if transport == "tcp":
            assert client.ask(GetLog()).last_seq == 0
        assert resident_bytes(daemon.process.pid) - before < MEMORY_MAX
    assert daemon.stop() == 0
