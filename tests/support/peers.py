"""Peers below the client library: raw sockets that can send anything, and daemons in a thread of this process."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import zmq

from backscroll.bus.daemon import Daemon
from backscroll.bus.directory import locked
from backscroll.bus.settings import Settings
from backscroll.handlers import HANDLERS, Handlers
from backscroll.schema.wire import DEFAULT_SCOPE, codec_of
from tests.support.requests import body, fresh_id
from tests.support.stores import scopes_in
from tests.support.waiting import wait_until

REPLY_SECONDS = 20
Reply = dict[str, Any]


class Peer:
    """A raw socket connected to a daemon, a DEALER by default."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, *, queue: int = 0) -> None:
        """`queue` bounds what the socket holds in each direction; 0 does not."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, queue)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        if queue:
            self.socket.setsockopt(zmq.RCVBUF, 4096)
        self.socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def request(self, operation: str, payload: Any = None, request_id: str = "", **envelope: Any) -> None:
        """Send a request; its id is a new one unless it is given."""
        envelope["id"] = request_id or fresh_id()
        self.send(body(operation, {} if payload is None else payload, **envelope))

    def frames(self, seconds: float = REPLY_SECONDS) -> list[bytes]:
        """The frames of the next message; fails the test when none comes in time."""
        assert self.socket.poll(int(seconds * 1000)), f"no reply within {seconds} s"
        return self.socket.recv_multipart()

    def reply(self, seconds: float = REPLY_SECONDS) -> Reply:
        """The next reply as plain values."""
        answer = self.frames(seconds)[-1]
        return codec_of(answer).decode(answer, dict[str, Any])

    def replies(self, number: int) -> dict[str, Reply]:
        """A number of replies, by their ids."""
        got = [self.reply() for _ in range(number)]
        return {reply["id"]: reply for reply in got}

    def ask(self, operation: str, payload: Any = None, **envelope: Any) -> Reply:
        """One request and its reply."""
        self.request(operation, payload, **envelope)
        return self.reply()

    def silent(self, milliseconds: int = 0) -> bool:
        """Whether no reply arrives within this time."""
        return not self.socket.poll(milliseconds)

    def close(self) -> None:
        self.socket.close()
        self.context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def several(endpoint: str, number: int, *, queue: int = 0) -> Iterator[list[Peer]]:
    """A number of raw sockets; see `Peer`."""
    with ExitStack() as stack:
        yield [stack.enter_context(Peer(endpoint, queue=queue)) for _ in range(number)]


class Running(NamedTuple):
    """A daemon that runs in a thread of this process."""

    endpoint: str
    daemon: Daemon
    scopes: Any
    thread: threading.Thread
    tcp_endpoint: str


@contextmanager
def running(
    data_dir: Path, *, handlers: Handlers = HANDLERS, vfs: str = "", tcp: bool = False, **settings: Any
) -> Iterator[Running]:
    """Run a real daemon on a data directory until the block ends; with `tcp` it has an endpoint that needs tokens, too.

    Its memory is that of this process, which has run many tests before, so it has no bound unless one is given.
    """
    chosen = Settings(data_dir=data_dir, **({"memory_bytes": 2**40} | settings))
    with ExitStack() as stack:
        stack.enter_context(locked(data_dir))
        scopes = scopes_in(data_dir, stack, lock_wait_ms=chosen.lock_wait_ms, vfs=vfs)
        daemon = stack.enter_context(closing(Daemon(chosen, scopes, handlers)))
        scopes.open(DEFAULT_SCOPE)
        wanted = [f"ipc://{data_dir}/thread.sock", *(["tcp://127.0.0.1:*"] if tcp else [])]
        endpoint, *others = daemon.bind(wanted)
        thread = threading.Thread(target=daemon.run, name="daemon")
        thread.start()
        try:
            yield Running(endpoint, daemon, scopes, thread, *(others or [""]))
        finally:
            daemon.stop()
            thread.join()


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    return _status_bytes(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """The most resident memory that a process ever had."""
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def log_lines(log: Path, event: str) -> list[dict[str, Any]]:
    """The complete lines of a daemon's JSON log with this event."""
    whole = log.read_text().rpartition("\n")[0]
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def is_alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


__all__ = [
    "Peer",
    "Running",
    "is_alive",
    "log_lines",
    "peak_resident_bytes",
    "resident_bytes",
    "running",
    "several",
    "wait_until",
]
