"""The data directory: made, locked, announced."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from backscroll.bus.directory import SOCKET_PATH_BYTES_MAX, announced, default_endpoint, locked
from backscroll.bus.failures import AlreadyRunning, CannotOpen
from backscroll.bus.inprocess import InProcess


def test_a_directory_is_made_with_all_above_it(tmp_path: Path) -> None:
    """A first start needs nothing prepared; the directory is its owner's alone."""
    directory = tmp_path / "a" / "b" / "c"
    with locked(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert (directory / "pid").read_text() == f"{os.getpid()}\n"
    assert not (directory / "pid").exists()


def test_a_directory_has_one_holder_at_a_time(tmp_path: Path) -> None:
    """A second one is refused, also through a link or another spelling, until the first lets go."""
    directory = tmp_path / "data"
    (tmp_path / "link").symlink_to(directory, target_is_directory=True)
    with locked(directory):
        for name in (directory, tmp_path / "link", tmp_path / "data" / ".." / "data"):
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as caught, locked(name):
                pass
            assert caught.value.exit_code == 3
    with locked(tmp_path / "link"):
        pass


def test_the_lock_is_let_go_when_the_holder_fails(tmp_path: Path) -> None:
    """An error inside ends the hold like an orderly end, and leaves no process id behind."""
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "data"):
        raise ZeroDivisionError
    assert not (tmp_path / "data" / "pid").exists()
    with locked(tmp_path / "data"):
        pass


def test_the_lock_can_be_let_go_by_another_thread(tmp_path: Path) -> None:
    """An application may open and close in different threads."""
    transport = InProcess(tmp_path / "data")
    thread = threading.Thread(target=transport.close)
    thread.start()
    thread.join()
    InProcess(tmp_path / "data").close()


def test_a_holder_that_has_not_said_its_number_is_still_a_holder(tmp_path: Path) -> None:
    """Without a readable pid file the refusal is the same, less the number."""
    with locked(tmp_path / "data"):
        (tmp_path / "data" / "pid").write_text("")
        with pytest.raises(AlreadyRunning, match=r"another daemon is using"), locked(tmp_path / "data"):
            pass


def test_what_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    """A file in its place, or above it, is a database that cannot be opened."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(CannotOpen, match="cannot be used") as caught, locked(place):
            pass
        assert str(place) in str(caught.value)


def test_an_announcement_is_whole_private_and_gone_at_the_end(tmp_path: Path) -> None:
    """Whatever a crash left in the way is replaced."""
    for name in ("endpoint.json", "endpoint.json.new"):
        (tmp_path / name).write_text("left over")
    with announced(tmp_path, {"endpoints": ["ipc:///x"]}):
        file = tmp_path / "endpoint.json"
        assert json.loads(file.read_text()) == {"endpoints": ["ipc:///x"]}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_an_announcement_ends_with_an_error_too(tmp_path: Path) -> None:
    """A daemon that fails no longer says that it is ready."""
    with pytest.raises(ZeroDivisionError), announced(tmp_path, {}):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_default_endpoint_is_in_the_directory_where_its_path_is_short_enough(tmp_path: Path) -> None:
    """A long path, counted in bytes, gets a short stand-in that only its owner can enter, and that goes again."""
    room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(Path("/") / "backscroll.sock"))
    with default_endpoint(Path("/" + "x" * (room - 1))) as endpoint:
        assert endpoint == f"ipc:///{'x' * (room - 1)}/backscroll.sock"
    for name in ("x" * room, "ü" * (room // 2 + 1)):
        with default_endpoint(Path("/" + name)) as endpoint:
            place = Path(endpoint.removeprefix("ipc://"))
            assert len(os.fsencode(place)) <= SOCKET_PATH_BYTES_MAX
            assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert not place.parent.exists()
