"""The data directory: creating it, locking it, and announcing the endpoint."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from backscroll.bus.directory import SOCKET_PATH_BYTES_MAX, announced, default_endpoint, locked
from backscroll.bus.failures import AlreadyRunning, CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.messages import save_message


def test_a_data_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    """It is accessible to its owner only."""
    directory = tmp_path / "a" / "b" / "c"
    with locked(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert (directory / "pid").read_text() == f"{os.getpid()}\n"
    assert not (directory / "pid").exists()


def test_a_directory_has_one_holder_at_a_time(tmp_path: Path) -> None:
    """A second one is refused, also through a link or another spelling, until the first releases it."""
    directory = tmp_path / "data"
    (tmp_path / "link").symlink_to(directory, target_is_directory=True)
    with locked(directory):
        for name in (directory, tmp_path / "link", tmp_path / "data" / ".." / "data"):
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as caught, locked(name):
                pass
            assert caught.value.exit_code == 3
    with locked(tmp_path / "link"):
        pass


def test_the_lock_is_released_when_the_holder_fails(tmp_path: Path) -> None:
    """An exception releases it like a regular end, and leaves no process id."""
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "data"):
        raise ZeroDivisionError
    assert not (tmp_path / "data" / "pid").exists()
    with locked(tmp_path / "data"):
        pass


def test_the_lock_can_be_released_by_another_thread(tmp_path: Path) -> None:
    """An application may open and close in different threads."""
    transport = InProcess(tmp_path / "data")
    thread = threading.Thread(target=transport.close)
    thread.start()
    thread.join()
    InProcess(tmp_path / "data").close()


def test_a_lock_without_a_pid_file_is_still_held(tmp_path: Path) -> None:
    """The refusal is the same, without the process id."""
    with locked(tmp_path / "data"):
        (tmp_path / "data" / "pid").write_text("")
        with pytest.raises(AlreadyRunning, match=r"another daemon is using"), locked(tmp_path / "data"):
            pass


@pytest.mark.parametrize("lost", ["lock", "pid", "default.db", "everything"])
def test_a_second_daemon_is_refused_whatever_was_removed(tmp_path: Path, lost: str) -> None:
    """The lock on the directory itself outlives the removal of every file in it."""
    with DaemonProcess(tmp_path / "data"):
        for path in [*(tmp_path / "data").iterdir()] if lost == "everything" else [tmp_path / "data" / lost]:
            path.unlink()
        command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(tmp_path / "data")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, second.stdout) == (3, "")
        assert "another daemon" in second.stderr


def test_a_daemon_leaves_the_files_of_its_successor(tmp_path: Path) -> None:
    """A directory that was removed and made anew may have another daemon, whose files the first one does not remove:
    its socket is among them, so new clients find it.
    """
    data_dir = tmp_path / "data"
    with DaemonProcess(data_dir) as first:
        shutil.rmtree(data_dir)
        with DaemonProcess(data_dir) as second:
            with Client(second.endpoint) as client:
                client.execute(save_message(1))
            before = {each.name for each in data_dir.iterdir()}
            first.stop()
            assert {each.name for each in data_dir.iterdir()} == before
            with Client(data_dir=data_dir) as client:
                client.execute(save_message(2))
            second.kill()
    with InProcess(data_dir) as transport:
        assert transport.store.seq == 2


def test_the_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    """Also after an error."""
    tmp_path.joinpath("backscroll.sock").touch()
    with pytest.raises(ZeroDivisionError), default_endpoint(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_data_directory_is_named_in_the_error(tmp_path: Path) -> None:
    """A file in its place, or as its parent, raises `CannotOpen`."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(CannotOpen, match="cannot be used") as caught, locked(place):
            pass
        assert str(place) in str(caught.value)


def test_endpoint_json_is_complete_private_and_temporary(tmp_path: Path) -> None:
    """It replaces what a crash left, and is removed at the end."""
    for name in ("endpoint.json", "endpoint.json.new"):
        (tmp_path / name).write_text("left over")
    with announced(tmp_path, {"endpoints": ["ipc:///x"]}):
        file = tmp_path / "endpoint.json"
        assert json.loads(file.read_text()) == {"endpoints": ["ipc:///x"]}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_endpoint_json_is_removed_after_an_error(tmp_path: Path) -> None:
    """A daemon that fails does not look ready."""
    with pytest.raises(ZeroDivisionError), announced(tmp_path, {}):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_default_endpoint_of_a_long_path_is_a_short_one(tmp_path: Path) -> None:
    """A path that is too long in bytes is replaced by a private temporary one, which is removed at the end."""
    room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(Path("/") / "backscroll.sock"))
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / ("x" * (room - len(parent) - 1))
        directory.mkdir()
        with default_endpoint(directory) as endpoint:
            assert endpoint == f"ipc://{directory}/backscroll.sock"
    for name in ("x" * room, "ü" * (room // 2 + 1)):
        with default_endpoint(Path("/" + name)) as endpoint:
            place = Path(endpoint.removeprefix("ipc://"))
            assert len(os.fsencode(place)) <= SOCKET_PATH_BYTES_MAX
            assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert not place.parent.exists()
