"""A data directory that cannot be written: queries are answered, commands are refused, and clients find the daemon."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backscroll.bus.directory import locked, place_for_endpoint
from backscroll.bus.failures import AlreadyRunning, CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import COMMAND, DaemonProcess
from backscroll.schema import GetMessages
from backscroll.schema.operations import OPERATIONS, Builtin, Query
from backscroll.schema.paths import runtime_dir
from tests.support.messages import save_payload
from tests.support.mounts import remount, small_disk_at
from tests.support.peers import Peer
from tests.support.requests import body, example, result, send
from tests.support.waiting import wait_until

MIB = 2**20
Start = Callable[..., DaemonProcess]
WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Starts a program of the superuser that is subject to permissions, as those of other users are."""


READING = ("list-scopes", "get-scope-info", "list-tokens")
ABOUT_BACKUPS = ("start-check", "start-backup", "start-backup-verification", "list-backups")  # they write elsewhere


@pytest.fixture(autouse=True)
def _runtime_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory for runtime files, whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="run-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "disk", 24 * MIB) as disk:
        yield disk


def fill_in(data_dir: Path, tmp_path: Path) -> str:
    """What a daemon leaves that is killed: messages in the logs of two scopes, and a medium, whose id is returned."""
    with InProcess(tmp_path / "killed") as transport:
        for scope in ("default", "s"):
            assert send(transport, body("save-message", save_payload(1), scope=scope))["ok"]
        part = result(transport, "put-media-part", {"data": "aGVsbG8="})
        media = result(transport, "put-media", {"parts": [part], "mime": "text/plain"})
        shutil.copytree(tmp_path / "killed", data_dir, ignore=shutil.ignore_patterns("*-shm", "pid", "lock"))
    return str(media["id"])


def check_read_only(peer: Peer, media_id: str) -> None:
    """Every query works in every scope, and everything else is refused with `storage`."""
    for scope in ("default", "s"):
        [message] = peer.ask("get-messages", {"roomId": "r1"}, scope=scope)["result"]
        assert message["content"] == "hello"
    assert peer.ask("get-media-part", {"mediaId": media_id})["result"] == "aGVsbG8="
    assert peer.ask("list-scopes")["result"] == ["default", "s"]
    assert peer.ask("get-scope-info", scope="s")["result"]["rows"]["messages"] == 1
    for name, operation in sorted(OPERATIONS.items()):
        if issubclass(operation, Builtin) or name in (*READING, *ABOUT_BACKUPS):
            continue
        for scope in ("default", "s"):
            reply = peer.ask(name, example(operation), scope=scope)
            if issubclass(operation, Query):
                assert reply["ok"] or reply["error"]["fault"] == "caller", (name, reply)
            elif name not in ("revoke-token", "revoke-key", "list-keys", "adopt-legacy-database"):
                assert reply["error"]["code"] == "storage", (name, reply)
                assert "read-only" in reply["error"]["message"], (name, reply)
    assert peer.ask("start-check")["ok"]
    wait_until(lambda: peer.ask("get-tasks")["result"].get("running") is None)
    [checked] = peer.ask("get-tasks")["result"]["last"]
    assert checked["state"] == "ok", checked
    health = peer.ask("health")["result"]
    assert not health["ready"]
    assert "read-only" in health["storage"]["state"]


def test_a_read_only_disk_is_served(disk: Path, start_daemon: Start, tmp_path: Path) -> None:
    """Without a byte written: the socket and the endpoint file are in a runtime directory, where clients find them, and
    which is removed at the end. When the disk can be written, commands are executed without a restart.
    """
    data_dir = disk / "data"
    media_id = fill_in(data_dir, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in disk.rglob("*")}
    remount(disk, "ro")
    daemon = start_daemon(data_dir=data_dir)
    place = runtime_dir(data_dir)
    assert place.is_relative_to(os.environ["XDG_RUNTIME_DIR"])
    assert daemon.endpoint == f"ipc://{place}/backscroll.sock"
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    with Client(data_dir=data_dir) as client, Peer(daemon.endpoint) as peer:
        assert [message.id for message in client.ask(GetMessages("r1"))] == ["m1"]
        check_read_only(peer, media_id)
        assert {path: path.stat().st_mtime_ns for path in disk.rglob("*")} == before
        remount(disk, "rw")
        assert peer.ask("save-message", save_payload(2))["ok"]
        assert peer.ask("save-message", save_payload(2), scope="s")["ok"]
        assert peer.ask("health")["result"]["ready"]
        assert len(client.ask(GetMessages("r1"))) == 2
    daemon.stop()
    assert not place.exists()


def test_a_directory_without_write_permission_is_served(start_daemon: Start, tmp_path: Path) -> None:
    """Like a read-only disk; a second daemon is refused although there is no lock file to write."""
    data_dir = tmp_path / "data"
    media_id = fill_in(data_dir, tmp_path)
    command: tuple[str, ...] = COMMAND
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("the superuser needs setpriv to be subject to permissions")
        command = (*WITHOUT_OVERRIDE, *COMMAND)
    for directory in (data_dir, data_dir / "scopes"):
        directory.chmod(0o500)
    try:
        with DaemonProcess(data_dir, command=command) as daemon, Peer(daemon.endpoint) as peer:
            check_read_only(peer, media_id)
            words = [*command, "--data-dir", str(data_dir)]
            second = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            assert second.returncode == 3
            assert "another daemon" in second.stderr
    finally:
        for directory in (data_dir, data_dir / "scopes"):
            directory.chmod(0o700)
    with DaemonProcess(data_dir) as daemon, Peer(daemon.endpoint) as peer:
        assert peer.ask("save-message", save_payload(2))["ok"]


def test_a_read_only_directory_without_a_database_is_refused(disk: Path, tmp_path: Path) -> None:
    """There is nothing to serve: exit code 4 with what to do."""
    remount(disk, "ro")
    words = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(disk)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "is read-only and has no database. Name another data directory." in done.stderr


def test_a_daemon_that_was_killed_while_read_only_misleads_nobody(
    disk: Path, start_daemon: Start, tmp_path: Path
) -> None:
    """Its runtime directory is removed by the next daemon of the data directory, which clients then find there."""
    data_dir = disk / "data"
    fill_in(data_dir, tmp_path)
    remount(disk, "ro")
    start_daemon(data_dir=data_dir).kill()
    assert runtime_dir(data_dir).exists()
    remount(disk, "rw")
    daemon = start_daemon(data_dir=data_dir)
    assert not runtime_dir(data_dir).exists()
    assert daemon.endpoint == f"ipc://{data_dir}/backscroll.sock"
    with Client(data_dir=data_dir) as client:
        assert len(client.ask(GetMessages("r1"))) == 1


def test_the_runtime_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may make a directory of its name before: it is refused unless only this user can use it."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    monkeypatch.setattr("backscroll.bus.directory._has_room_for_a_file", lambda _directory: False)
    runtime_dir(data_dir).parent.mkdir(mode=0o755)
    with pytest.raises(CannotOpen, match="others can write it"), place_for_endpoint(data_dir):
        pass
    runtime_dir(data_dir).parent.chmod(0o700)
    with place_for_endpoint(data_dir) as place:
        assert place == runtime_dir(data_dir)
    assert not place.exists()


def test_a_read_only_directory_is_locked_by_itself(disk: Path) -> None:
    """Without a lock file two daemons still exclude each other."""
    remount(disk, "ro")
    with locked(disk), pytest.raises(AlreadyRunning), locked(disk):
        pass
    assert not any(disk.iterdir())


def test_a_scope_to_be_migrated_is_refused_on_a_read_only_disk(disk: Path, start_daemon: Start, tmp_path: Path) -> None:
    """Its queries would need tables that it does not have: `storage`, and the other scopes are served."""
    data_dir = disk / "data"
    fill_in(data_dir, tmp_path)
    [path] = (data_dir / "scopes").glob("*.db")
    for each in (data_dir / "scopes").glob(f"{path.name}*"):
        each.unlink()
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("VACUUM")  # writes a database without tables
    remount(disk, "ro")
    daemon = start_daemon(data_dir=data_dir)
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("get-messages", {"roomId": "r1"}, scope="s")["error"]["code"] == "storage"
        assert peer.ask("get-messages", {"roomId": "r1"})["ok"]
