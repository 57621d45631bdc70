"""The bound on connections: surplus ones are refused, and everybody else is served."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import pytest

from backscroll.bus.connections import cut
from backscroll.bus.router import UNREADABLE_MAX
from backscroll.clients.python import Client
from backscroll.clients.python.address import announced_token
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessageById, GetRoom, Ping
from tests.support.floods import connected, frame, is_admitted, is_cut, many, processor_ticks
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer, log_lines
from tests.support.requests import body
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
CONNECTIONS = 1_500
IDLE_SECONDS = 1
IDLE_SHARE_MAX = 0.05  # of a processor
EMPTY_MESSAGE = bytes(2)  # a frame without flags and of no bytes
P99_SECONDS_MIN = 0.01  # below this, the figures of a busy machine say nothing

SERVE_WITH_LIMIT = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
sys.argv = ["backscroll.bus", *sys.argv[3:]]
runpy.run_module("backscroll.bus", run_name="__main__", alter_sys=True)
"""


def percentile_99(client: Client) -> float:
    """Of the times of small queries that are not cached, in seconds."""
    times = []
    for at in range(200):
        started = time.monotonic()
        client.ask(GetRoom(f"room {at}"))
        times.append(time.monotonic() - started)
    return sorted(times)[-3]


def endpoint_of(kind: str, directory: Path) -> str:
    return f"ipc://{directory}/many.sock" if kind == "ipc" else "tcp://127.0.0.1:*"


@pytest.mark.parametrize("hard", [4_096, 1_024], ids=["soft", "hard"])
@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_1500_connections_at_1024_files_harm_nobody(kind: str, hard: int, tmp_path: Path) -> None:
    """With a limit of 1,024 files, hard or soft only: the daemon lives, earlier clients are served as fast as before,
    it uses no processor time while the connections stay, and new clients are served afterwards.
    """
    daemon = DaemonProcess(
        tmp_path / "data",
        *("--endpoint", endpoint_of(kind, tmp_path)),
        log=subprocess.DEVNULL,
        command=(sys.executable, "-c", SERVE_WITH_LIMIT, "1024", str(hard)),
    )
    with daemon, Client(daemon.endpoint, data_dir=tmp_path / "data") as earlier:
        earlier.execute(save_message(1))
        quiet = percentile_99(earlier)
        pid = daemon.process.pid
        with many(daemon.endpoint, CONNECTIONS) as connections:
            wait_until(lambda: percentile_99(earlier) <= max(3 * quiet, P99_SECONDS_MIN))  # others use this machine too
            if hard == 1_024:
                wait_until(lambda: sum(map(is_cut, connections)) >= CONNECTIONS - 1_024 + 300)
            earlier.execute(save_message(2))
            before, started = processor_ticks(pid), time.monotonic()
            wait_until(lambda: time.monotonic() - started > IDLE_SECONDS)
            assert (processor_ticks(pid) - before) / 100 < IDLE_SHARE_MAX * IDLE_SECONDS
            assert daemon.process.poll() is None
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 100)  # noqa: PTH208
        with Client(daemon.endpoint, data_dir=tmp_path / "data") as later:
            assert later.ask(Ping()).pong
            later.execute(save_message(3))
        assert daemon.stop() == 0


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_surplus_connections_are_refused_until_others_leave(
    start_daemon: StartDaemon, kind: str, tmp_path: Path
) -> None:
    """Exactly those beyond `--connections` are cut off; when others leave, new ones are served."""
    daemon = start_daemon("--endpoint", endpoint_of(kind, tmp_path), "--connections", "10", "--log-format", "json")
    with many(daemon.endpoint, 10) as connections:
        wait_until(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) > 20)  # noqa: PTH208
        with many(daemon.endpoint, 5) as surplus:
            wait_until(lambda: all(map(is_cut, surplus)))
        assert not any(map(is_cut, connections))
        wait_until(lambda: log_lines(tmp_path / "daemon.log", "too many connections; further ones are refused"))
        connections[0].close()
        with Client(daemon.endpoint, data_dir=tmp_path / "data") as client:
            assert client.ask(Ping()).pong
        assert not any(map(is_cut, connections[1:]))


def test_a_client_that_is_refused_is_served_later(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """It connects again by itself, and its request is answered as soon as there is room."""
    daemon = start_daemon("--connections", "3", "--log-format", "json")
    connections = [connected(daemon.endpoint) for _ in range(3)]
    with Peer(daemon.endpoint) as refused:
        refused.request("ping")
        wait_until(lambda: log_lines(tmp_path / "daemon.log", "too many connections; further ones are refused"))
        for connection in connections:
            connection.close()
        wait_until(lambda: is_served(daemon))
        with Client(daemon.endpoint) as client:
            assert client.ask(Ping()).pong


def is_served(daemon: DaemonProcess) -> bool:
    with Peer(daemon.endpoint) as peer:
        return bool(peer.ask("ping")["ok"])


def test_cut_leaves_alone_what_is_no_connection(tmp_path: Path) -> None:
    """A file, a pipe, a socket pair and a closed descriptor are neither changed nor closed."""
    one, other = socket.socketpair()
    reading, writing = os.pipe()
    with (tmp_path / "file").open("w") as file, one, other:
        for descriptor in (file.fileno(), reading, writing, one.fileno(), 10_000, -1):
            cut(descriptor)
        file.write("still open")
        one.send(b"x")
        assert other.recv(1) == b"x"
        os.write(writing, b"y")
        assert os.read(reading, 1) == b"y"
    os.close(reading)
    os.close(writing)


def test_a_connection_that_ends_makes_room(start_daemon: StartDaemon) -> None:
    """Whether or not it has greeted."""
    daemon = start_daemon("--connections", "2")
    for greets in (True, False) * 3:
        connection = connected(daemon.endpoint, greets=greets)
        with Client(daemon.endpoint) as client:
            assert client.ask(Ping()).pong
        connection.close()
        assert is_served(daemon)


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_a_connection_that_sends_no_requests_is_cut_off(kind: str, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """After a number of messages of which not even an id can be read; what it sent after them is dropped, though it
    arrived. Others are served, and one message fewer does no harm.
    """
    daemon = start_daemon("--endpoint", endpoint_of(kind, tmp_path))
    token = announced_token(tmp_path / "data", daemon.endpoint) if kind == "tcp" else msgspec.UNSET
    with (
        Client(daemon.endpoint, data_dir=tmp_path / "data") as client,
        closing(connected(daemon.endpoint)) as allowed,
        closing(connected(daemon.endpoint)) as connection,
    ):
        assert client.ask(Ping()).pong  # it is connected before: descriptors are used again
        for sender, number in ((allowed, UNREADABLE_MAX - 1), (connection, UNREADABLE_MAX)):
            wait_until(partial(is_admitted, sender))
            save = body("save-message", save_payload(number), auth=token)
            sender.sendall(EMPTY_MESSAGE * number + frame(len(save)) + save)
        wait_until(partial(is_cut, connection))
        wait_until(lambda: client.ask(GetMessageById(f"m{UNREADABLE_MAX - 1}")) is not None)
        assert client.ask(GetMessageById(f"m{UNREADABLE_MAX}")) is None
        assert not is_cut(allowed)
