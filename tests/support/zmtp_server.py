"""Plays a daemon byte by byte, as the steps of `schema/vectors/zmtp.json` say."""

import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from backscroll.schema.wire import codec_of

Step = dict[str, Any]
SECONDS = 10
SIGNATURE = bytes.fromhex("ff00000000000000007f")
GREETING_BYTES = 64
MORE, LONG, COMMAND = 1, 2, 4


class ZmtpServer:
    """Listens on a Unix socket and plays one connection after the other, in a thread. `end()` says what went wrong."""

    def __init__(self, path: Path, connections: list[list[Step]]) -> None:
        self.endpoint = f"ipc://{path}"
        self._connections = connections
        self._problem = "not all connections were played"
        self._played = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(SECONDS)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def end(self) -> str:
        """Wait until all connections were played or one failed; returns what was not as expected."""
        self._thread.join()
        return self._problem

    def _run(self) -> None:
        try:
            for number, steps in enumerate(self._connections, 1):
                connection, _ = self._listener.accept()
                connection.settimeout(SECONDS)
                with closing(connection):
                    self._play(connection, steps, is_last=number == len(self._connections))
                self._played = number
            self._problem = ""
        except (OSError, ValueError) as error:
            self._problem = f"connection {self._played + 1} of {len(self._connections)}: {error}"

    def _play(self, connection: socket.socket, steps: list[Step], *, is_last: bool) -> None:
        request = b""
        for step in steps:
            if "end" in step:
                return
            if step.get("receive") == "request":
                request = _received_request(connection)
            elif "receive" in step:
                {"greeting": _check_greeting, "ready": _check_ready}[step["receive"]](connection)
            elif "silent" in step:
                _check_silence(connection, step["silent"])
            elif "reply" in step:
                connection.sendall(_reply_frame(request, step["reply"], step.get("padding", 0)))
            elif "each" in step:
                for byte in bytes.fromhex(step["send"]):
                    connection.sendall(bytes([byte]))
            else:
                connection.sendall(bytes.fromhex(step["send"]))
        if not is_last and {"end": True} not in steps:
            _await_end(connection)


def _await_end(connection: socket.socket) -> None:
    """Read until the client closes the connection."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise ValueError("the client did not close the connection") from None


def _check_greeting(connection: socket.socket) -> None:
    greeting = _read(connection, GREETING_BYTES)
    if (greeting[:1], greeting[9:10]) != (SIGNATURE[:1], SIGNATURE[9:]) or greeting[10] != 3:
        raise ValueError(f"the client's greeting is not one of ZMTP 3: {greeting.hex()}")
    if greeting[12:32].rstrip(b"\0") != b"NULL":
        raise ValueError(f"the client's mechanism is {greeting[12:32]!r}")


def _check_ready(connection: socket.socket) -> None:
    flags, body = _frame(connection)
    if flags & COMMAND == 0 or not body.startswith(b"\x05READY"):
        raise ValueError(f"expected READY, got flags {flags} and {body!r}")
    if b"\x0bSocket-Type\0\0\0\x06DEALER" not in body:
        raise ValueError(f"the client's socket is no DEALER: {body!r}")


def _check_silence(connection: socket.socket, milliseconds: int) -> None:
    connection.settimeout(milliseconds / 1000)
    try:
        raise ValueError(f"the client sent {connection.recv(100)!r} where nothing may come")
    except TimeoutError:
        connection.settimeout(SECONDS)


def _received_request(connection: socket.socket) -> bytes:
    """The body of the client's next message, which must be one frame; commands are skipped."""
    while True:
        flags, body = _frame(connection)
        if flags & COMMAND == 0:
            if flags & MORE:
                raise ValueError("the client's request has more than one frame")
            return body


def _reply_frame(request: bytes, flags: int, padding: int) -> bytes:
    """A frame with the reply to a `ping`, in the encoding of the request."""
    codec = codec_of(request)
    reply = {"id": codec.decode(request, dict[str, Any])["id"], "ok": True, "result": {"pong": True}, "seq": 0}
    body = codec.encode(reply | ({"padding": "x" * padding} if padding else {}))
    return bytes([flags]) + len(body).to_bytes(8 if flags & LONG else 1, "big") + body


def _frame(connection: socket.socket) -> tuple[int, bytes]:
    [flags] = _read(connection, 1)
    size = int.from_bytes(_read(connection, 8 if flags & LONG else 1), "big")
    return flags, _read(connection, size)


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise ValueError(f"the client closed the connection after {len(found)} of {size} bytes")
        found += part
    return found
