"""`DaemonProcess`: a daemon as a child process of an application."""

import sys
import threading
from pathlib import Path

import pytest

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Ping, Unavailable
from tests.support.peers import is_alive


def test_the_daemon_runs_for_the_length_of_the_block(tmp_path: Path) -> None:
    """Inside the block it serves requests; after the block it has exited with 0."""
    with DaemonProcess(tmp_path / "data") as daemon, Client(daemon.endpoint) as client:
        assert client.ask(Ping()).pong
        assert daemon.endpoints == daemon.ready["endpoints"]
    assert daemon.process.poll() == 0
    assert not (tmp_path / "data" / "endpoint.json").exists()


def test_a_daemon_stops_when_the_block_fails(tmp_path: Path) -> None:
    """An exception in the block stops the daemon, and is raised unchanged."""
    with pytest.raises(ZeroDivisionError), DaemonProcess(tmp_path / "data") as daemon:
        raise ZeroDivisionError
    assert daemon.process.poll() == 0


def test_flags_are_passed_to_serve(tmp_path: Path) -> None:
    """The arguments after the directory are flags of `backscroll serve`."""
    with DaemonProcess(tmp_path / "data", "--endpoint", "tcp://127.0.0.1:*") as daemon:
        assert daemon.endpoint.startswith("tcp://127.0.0.1:")


def test_a_daemon_that_fails_to_start_raises_unavailable(tmp_path: Path) -> None:
    """The error has the exit code, and is raised without waiting for a reply."""
    with (tmp_path / "log").open("w+") as log:
        with pytest.raises(Unavailable, match="exit code 2"):
            DaemonProcess(tmp_path / "data", "--no-such-flag", log=log)
        with DaemonProcess(tmp_path / "data"), pytest.raises(Unavailable, match="exit code 3"):
            DaemonProcess(tmp_path / "data", log=log)
        log.seek(0)
        text = log.read()
    assert "--no-such-flag" in text
    assert "another daemon" in text


def test_what_is_no_daemon_is_ended(tmp_path: Path) -> None:
    """A command that prints something else than the ready line does not go on running in the background."""
    code = f"import os, sys; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); print('x', flush=True)"
    command = (sys.executable, "-c", f"{code}; import signal; signal.pause()")
    with pytest.raises(ValueError, match="Expecting value"):
        DaemonProcess(tmp_path / "data", command=command)
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_kill_is_a_crash_and_not_a_shutdown(tmp_path: Path) -> None:
    """The exit code shows it, and the next daemon starts with the files that are left."""
    daemon = DaemonProcess(tmp_path / "data")
    assert daemon.kill() == -9
    with DaemonProcess(tmp_path / "data") as again, Client(again.endpoint) as client:
        assert client.ask(Ping()).pong


def test_threads_can_start_daemons_concurrently(tmp_path: Path) -> None:
    """One application can have several daemons, each with a directory of its own."""
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
