"""What arrives at connections is noticed without asking again and again."""

import socket
from contextlib import closing
from pathlib import Path

import zmq

from backscroll.bus.access_files import AccessFiles
from backscroll.bus.arrivals import Arrivals
from backscroll.bus.connections import Connections
from backscroll.bus.gate import Gate
from backscroll.bus.handshakes import Handshakes
from tests.support.waiting import wait_until


def test_an_arrival_is_told_once() -> None:
    """It is told until `seen`, and again when more arrives; what was read meanwhile is missed."""
    arrivals = Arrivals()
    here, there = socket.socketpair()
    with here, there, closing(arrivals):
        arrivals.add(here.fileno())
        assert not arrivals.seen(1)
        for _ in range(2):
            there.send(b"x")
            assert arrivals.seen(1)
            assert not arrivals.seen(1)
        there.send(b"x")
        here.recv(10)
        assert not arrivals.seen(1)


def test_files_and_closed_descriptors_are_ignored(tmp_path: Path) -> None:
    """By the time that libzmq's monitor reports a descriptor, it may have been closed and used for a database."""
    arrivals = Arrivals()
    with closing(arrivals), (tmp_path / "file").open("wb") as file:
        arrivals.add(file.fileno())
        arrivals.add(file.fileno() + 1000)
        assert not arrivals.seen(2)


def test_a_flood_ends_the_wait_for_the_next_check(tmp_path: Path) -> None:
    """When more arrives than libzmq reads, or by `check_soon`, the check is due soon, though in an hour otherwise."""
    checks: list[bool] = []
    crashes: list[BaseException] = []

    def check(arrived: bool) -> float:
        checks.append(arrived)
        return 3600.0

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    handshakes = Handshakes(context, Gate(AccessFiles(tmp_path)))
    connections = Connections(context, 10, handshakes, check=check, crashed=crashes.append)
    router, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.set_hwm(1)
    client.set_hwm(0)
    connections.watch(router)
    router.bind(f"ipc://{tmp_path}/s")
    connections.start()
    try:
        client.connect(f"ipc://{tmp_path}/s")
        wait_until(lambda: checks)
        for _ in range(10_000):
            client.send(bytes(1000))
        wait_until(lambda: True in checks)
        assert len(checks) < 10
        count = len(checks)
        connections.check_soon()
        wait_until(lambda: len(checks) > count)
    finally:
        client.close(linger=0)
        router.close(linger=0)
        connections.join()
        context.term()
    assert crashes == []
