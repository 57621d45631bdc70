"""A process with many watchers: each a connection of its own that waits for changes, over and over.

    python -m tests.bench.watchers ENDPOINT NUMBER ROOMS

Each watcher speaks ZeroMQ's protocol on a plain socket, so that a thousand cost little here. With ROOMS > 0 watcher n
waits for room n % ROOMS, else for every change. For each reply with changes it takes the time since its `at`. A line on
standard input has it print the delays in ms since the last one, as JSON; the end of input ends it.
"""

import json
import selectors
import socket
import sys
import time
from typing import Any

from backscroll.schema.wire import MSGPACK

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
READY = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
WAIT_MS = 60_000
LONG = 2
IDLE_SECONDS = 0.005


class Watcher:
    """One connection, and the cursor that it asks with next."""

    def __init__(self, endpoint: str, number: int, rooms: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(endpoint.removeprefix("ipc://"))
        self.socket.sendall(GREETING + READY)
        self._read_exactly(len(GREETING))
        header = self.socket.recv(2)
        self._read_exactly(header[1])
        self._unread = b""
        self._number, self._asked = number, 0
        self._filter = {"rooms": [f"room-{number % rooms}"]} if rooms else {}
        self._cursor = "now"
        self.changes: list[dict[str, Any]] = []

    def ask(self, **fields: Any) -> None:
        """Ask for the changes after the cursor, or with other fields of the query."""
        self._asked += 1
        payload = {"after": self._cursor, "waitMs": WAIT_MS, "values": False} | self._filter | fields
        body = MSGPACK.encode({"id": f"w{self._number}-{self._asked}", "type": "get-changes", "payload": payload})
        self.socket.sendall(_frame(body))

    def receive(self) -> bool:
        """Take what has arrived; returns whether there is a whole reply."""
        self._unread += self.socket.recv(2**20)
        message = self._next_message()
        if message is None:
            return False
        reply = MSGPACK.decode(message, dict[str, Any])
        assert reply["ok"], reply
        self._cursor, self.changes = reply["result"]["cursor"], reply["result"]["changes"]
        return True

    def _next_message(self) -> bytes | None:
        if len(self._unread) < 2:
            return None
        start = 9 if self._unread[0] & LONG else 2
        if len(self._unread) < start:
            return None
        end = start + int.from_bytes(self._unread[1:start], "big")
        if len(self._unread) < end:
            return None
        message, self._unread = self._unread[start:end], self._unread[end:]
        return message

    def _read_exactly(self, number: int) -> None:
        while number:
            number -= len(self.socket.recv(number))


def main() -> None:
    endpoint, number, rooms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    delays: list[float] = []
    told: list[Watcher] = []
    with selectors.DefaultSelector() as selector:
        for at in range(number):
            watcher = Watcher(endpoint, at, rooms)
            selector.register(watcher.socket, selectors.EVENT_READ, watcher)
            watcher.ask()
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("started", flush=True)
        while True:
            ready = selector.select(IDLE_SECONDS if told else None)
            for key, _ in ready:
                if key.data is None:
                    if not sys.stdin.readline():
                        return
                    print(json.dumps(delays), flush=True)
                    delays.clear()
                elif key.data.receive():
                    delays += [time.time() * 1000 - change["at"] for change in key.data.changes[-1:]]
                    told.append(key.data)
            if not ready:  # what has arrived is read first, so that nobody's delay is that of this process
                for watcher in told:
                    watcher.ask()
                told.clear()


def _frame(body: bytes) -> bytes:
    header = bytes([0, len(body)]) if len(body) < 256 else bytes([LONG]) + len(body).to_bytes(8, "big")
    return header + body


if __name__ == "__main__":
    main()
