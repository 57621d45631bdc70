"""A connection on which nothing arrives any more is given up, and at most so many requests wait for replies on one."""

import asyncio
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Ping, Pong
from backscroll.schema.errors import NoReply, Unavailable

StartDaemon = Callable[..., DaemonProcess]
SOON_MS = 200
LONG_MS = 20_000
MANY = 5_000

CLIENTS: list[Any] = [Client, AsyncClient]


class Ask:
    """Pings of either client, which may run out of time."""

    def __init__(self, client_class: Any, endpoint: str) -> None:
        self._runner = asyncio.Runner()
        self._client = client_class(endpoint, timeout_ms=LONG_MS)

    def __call__(self, timeout_ms: int = LONG_MS) -> Any:
        if isinstance(self._client, Client):
            return self._client.ask(Ping(), timeout_ms=timeout_ms)
        return self._runner.run(self._client.ask(Ping(), timeout_ms=timeout_ms))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._client, Client):
            self._client.close()
        else:
            self._runner.run(self._client.close())
        self._runner.close()


class Hole:
    """Forwards connections to a daemon. After `swallow`, nothing more is forwarded on those that are open, nor cut."""

    def __init__(self, path: Path, target: str) -> None:
        self.endpoint = f"ipc://{path}"
        self.connections = 0
        self._target = target.removeprefix("ipc://")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self._swallowed = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def swallow(self) -> None:
        self._swallowed = self.connections

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(self._target)
                self.connections += 1
                self._sockets += [client, daemon]
                for one, other in ((client, daemon), (daemon, client)):
                    thread = threading.Thread(target=self._forward, args=(self.connections, one, other))
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if number > self._swallowed:
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that the tests of this module share."""
    directory = tmp_path_factory.mktemp("daemon")
    with (directory / "log").open("w") as log, DaemonProcess(directory / "data", log=log) as daemon:
        yield daemon


@pytest.fixture
def hole(served: DaemonProcess) -> Iterator[Hole]:
    """The way to the daemon, which can swallow everything."""
    with tempfile.TemporaryDirectory(prefix="backscroll-") as directory:
        hole = Hole(Path(directory) / "s", served.endpoint)
        yield hole
        hole.close()


@pytest.mark.parametrize("client_class", CLIENTS)
def test_a_connection_that_swallows_all_is_given_up(client_class: Any, hole: Hole) -> None:
    """When a request's deadline has passed and nothing arrived since it was sent, the next one has a new connection."""
    with Ask(client_class, hole.endpoint) as ask:
        assert ask() == Pong(pong=True)
        hole.swallow()
        with pytest.raises(NoReply):
            ask(SOON_MS)
        assert ask() == Pong(pong=True)
        assert hole.connections == 2


def test_thousands_of_requests_at_once_are_answered(served: DaemonProcess) -> None:
    """An application need not count its requests: no more are in flight than the daemon holds replies for."""

    async def ask_all() -> list[Pong]:
        async with AsyncClient(served.endpoint, timeout_ms=LONG_MS) as client:
            return await asyncio.gather(*(client.ask(Ping()) for _ in range(MANY)))

    assert asyncio.run(ask_all()) == [Pong(pong=True)] * MANY


@pytest.mark.parametrize("client_class", CLIENTS)
def test_a_stopped_daemon_is_found_again(client_class: Any, served: DaemonProcess) -> None:
    """A daemon that hangs gives no reply, then no connection; when it goes on, so does the client."""
    with Ask(client_class, served.endpoint) as ask:
        assert ask() == Pong(pong=True)
        os.kill(served.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(NoReply):
                ask(SOON_MS)
            with pytest.raises(Unavailable, match="nothing was sent"):
                ask(SOON_MS)
        finally:
            os.kill(served.process.pid, signal.SIGCONT)
        assert ask() == Pong(pong=True)
