"""A daemon as a child of an application."""

import threading
from pathlib import Path

import pytest

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Ping, Unavailable


def test_a_daemon_lives_for_the_block_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Inside the block it serves; after it, it has stopped in good order."""
    with DaemonProcess(tmp_path / "data") as daemon, Client(daemon.endpoint) as client:
        assert client.ask(Ping()).pong
        assert daemon.endpoints == daemon.ready["endpoints"]
    assert daemon.process.poll() == 0
    assert not (tmp_path / "data" / "endpoint.json").exists()


def test_a_daemon_stops_when_the_block_fails(tmp_path: Path) -> None:
    """An error in the application ends the daemon too, and is not replaced by another."""
    with pytest.raises(ZeroDivisionError), DaemonProcess(tmp_path / "data") as daemon:
        raise ZeroDivisionError
    assert daemon.process.poll() == 0


def test_flags_are_passed_on(tmp_path: Path) -> None:
    """What stands after the directory goes to `backscroll serve`."""
    with DaemonProcess(tmp_path / "data", "--endpoint", "tcp://127.0.0.1:*") as daemon:
        assert daemon.endpoint.startswith("tcp://127.0.0.1:")


def test_a_daemon_that_gives_up_is_unavailable_with_its_exit_code(tmp_path: Path) -> None:
    """Whoever starts it is told at once, rather than waiting for a reply."""
    with (tmp_path / "log").open("w+") as log:
        with pytest.raises(Unavailable, match="exit code 2"):
            DaemonProcess(tmp_path / "data", "--no-such-flag", log=log)
        with DaemonProcess(tmp_path / "data"), pytest.raises(Unavailable, match="exit code 3"):
            DaemonProcess(tmp_path / "data", log=log)
        log.seek(0)
        text = log.read()
    assert "--no-such-flag" in text
    assert "another daemon" in text


def test_killing_is_not_stopping(tmp_path: Path) -> None:
    """`kill()` is a crash: its exit code says so, and the next daemon starts over what it left."""
    daemon = DaemonProcess(tmp_path / "data")
    assert daemon.kill() == -9
    with DaemonProcess(tmp_path / "data") as again, Client(again.endpoint) as client:
        assert client.ask(Ping()).pong


def test_threads_may_start_daemons_of_their_own(tmp_path: Path) -> None:
    """Several directories have several daemons, side by side in one application."""
    daemons: list[DaemonProcess] = []
    threads = [
        threading.Thread(target=lambda at=at: daemons.append(DaemonProcess(tmp_path / f"data-{at}"))) for at in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for daemon in daemons:
        with Client(daemon.endpoint) as client:
            assert client.ask(Ping()).pong
    assert [daemon.stop() for daemon in daemons] == [0, 0, 0]
