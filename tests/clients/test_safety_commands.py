"""`backscroll check`, `backup`, `restore` and `repair`: as somebody uses them who keeps a history safe."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.compare import differences
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessageById, GetTasks, Health, Reaction, SaveMessage, SaveReaction
from backscroll.schema.paths import OWN_TOOLS
from tests.clients.conftest import Run
from tests.support.messages import message_record
from tests.support.postgresql import Server

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of a stopped daemon, with 200 messages and some reactions in each of two scopes."""
    directory = tmp_path / "data"
    with InProcess(directory) as transport:
        for scope in ("default", "ada"):
            client = Client(transport=transport, scope=scope)
            for number in range(200):
                client.execute(SaveMessage(message_record(number)))
            client.execute(SaveReaction(Reaction(message_id=message_record(7).id, oder_id="bo", emoji="👋")))
    return directory


@pytest.fixture
def compared(tmp_path: Path) -> Callable[[Path, Path], list[str]]:
    """The differences between the rows of two stopped data directories, in words."""

    def compare(one: Path, other: Path) -> list[str]:
        found = []
        with InProcess(one) as ours, InProcess(other) as theirs:
            for scope in ("default", "ada"):
                first, second = Client(transport=ours, scope=scope), Client(transport=theirs, scope=scope)
                found += [line for each in differences(first, second) for line in each.lines()]
        return found

    return compare


def damage(path: Path, *places: float) -> None:
    """Change one bit at each of these places of a file, given as parts of its length."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def test_a_directory_that_was_deleted_is_restored(
    run: Run, data: Path, tmp_path: Path, compared: Callable[[Path, Path], list[str]]
) -> None:
    """Backup, delete, restore, compare; the second backup has only what changed."""
    backups, there = tmp_path / "backups", ("--data-dir", data)
    assert run("backup", "create", backups, *there)[0] == 0
    with InProcess(data) as transport:
        Client(transport=transport).execute(SaveMessage(message_record("later")))
    code, out, _ = run("backup", "create", backups, *there)
    assert (code, "what changed of 2 scopes" in out) == (0, True)
    code, out, _ = run("backup", "list", backups, *there)
    assert (code, out.count("everything"), out.count("what changed")) == (0, 1, 1)
    assert run("backup", "verify", backups, *there)[0] == 0
    before = tmp_path / "before"
    shutil.copytree(data, before)
    shutil.rmtree(data)
    code, out, _ = run("restore", backups, "--into", data)
    assert code == 0
    assert "default: restored up to command 202" in out
    assert compared(data, before) == []
    assert run("check", *there)[0] == 0


def test_an_earlier_state_is_restored_beside_the_present_one(run: Run, data: Path, tmp_path: Path) -> None:
    """Up to a command of one scope; without its scope that number says nothing."""
    assert run("backup", "create", tmp_path / "backups", "--data-dir", data)[0] == 0
    earlier = tmp_path / "earlier"
    code, _, err = run("restore", tmp_path / "backups", "--into", earlier, "--until", "8")
    assert (code, "--scope" in err) == (2, True)
    code, out, _ = run("restore", tmp_path / "backups", "--into", earlier, "--scope", "ada", "--until", "8")
    assert (code, "ada: restored up to command 8," in out) == (0, True)
    with InProcess(earlier) as transport:
        client = Client(transport=transport, scope="ada")
        assert client.ask(GetMessageById(message_record(7).id)) is not None
        assert client.ask(GetMessageById(message_record(8).id)) is None


def test_a_damaged_backup_is_found(run: Run, data: Path, tmp_path: Path) -> None:
    """With the file, and an exit code that scripts see."""
    backups = tmp_path / "backups"
    assert run("backup", "create", backups, "--data-dir", data)[0] == 0
    [copy] = backups.glob("*/default.db")
    damage(copy, 0.5)
    code, out, _ = run("backup", "verify", backups, "--data-dir", data)
    assert (code, f"{copy.parent.name}/default.db" in out) == (1, True)


def test_a_damaged_database_is_found_and_repaired(
    run: Run, data: Path, tmp_path: Path, compared: Callable[[Path, Path], list[str]]
) -> None:
    """With a backup everything is back; the damaged files are kept."""
    backups, before = tmp_path / "backups", tmp_path / "before"
    assert run("backup", "create", backups, "--data-dir", data)[0] == 0
    shutil.copytree(data, before)
    damage(data / "default.db", 0.3, 0.5, 0.8)
    damaged = (data / "default.db").read_bytes()
    code, out, _ = run("check", "--data-dir", data)
    assert (code, "default.db: 3 of" in out) == (1, True)
    code, out, _ = run("repair", "--data-dir", data, "--backups", backups)
    assert code == 0
    assert out.startswith("scope 'default': everything is back")
    assert "Start the daemon again." in out
    [aside] = data.glob("damaged-*")
    assert (aside / "default.db").exists()
    assert len((aside / "default.db").read_bytes()) == len(damaged)
    assert compared(data, before) == []
    code, out, _ = run("check", "--data-dir", data)
    assert (code, "nothing is damaged" in out) == (0, True)
    code, out, _ = run("repair", "--data-dir", data)
    assert (code, out) == (0, "Nothing is damaged, and nothing was changed.\n")


def test_the_files_of_a_running_daemon_are_left_alone(run: Run, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Neither restored over nor repaired: the message says that it has to be stopped."""
    daemon = start_daemon()
    with closing(Client(data_dir=daemon.data_dir)) as client:
        client.execute(SaveMessage(message_record(1)))
        assert run("backup", "create", tmp_path / "backups", "--data-dir", daemon.data_dir)[0] == 0
        for words in (("restore", tmp_path / "backups", "--into"), ("repair", "--data-dir")):
            code, _, err = run(*words, daemon.data_dir)
            assert (code, "another daemon" in err) == (1, True), err
        assert client.ask(GetMessageById(message_record(1).id)) is not None


def test_where_backups_are_has_to_be_said(run: Run, data: Path) -> None:
    """With a directory of backups, or the setting of the daemon."""
    code, _, err = run("backup", "create", "--data-dir", data)
    assert (code, "--backup-dir" in err) == (1, True)
    code, _, err = run("backup", "verify", data.parent / "none", "--data-dir", data)
    assert (code, "is not a directory of backups" in err) == (1, True)
    code, _, err = run("restore", data.parent / "none", "--into", data.parent / "new")
    assert (code, "is not a directory of backups" in err) == (1, True)


def test_data_in_a_database_are_left_to_its_own_tools(
    run: Run, start_daemon: StartDaemon, postgresql: Server, tmp_path: Path
) -> None:
    """Checks, backups, repairs and restores are refused with the same words, whether or not the daemon runs.

    Nothing of it begins, so `health` has no warning, and nothing is written.
    """
    directory, backups = tmp_path / "data", tmp_path / "backups"
    words: list[list[object]] = [
        ["check"],
        ["backup", "create", backups],
        ["backup", "list", backups],
        ["backup", "verify"],
    ]
    with postgresql.database() as address:
        daemon = start_daemon("--store", address, data_dir=directory)
        for each in words:
            code, out, err = run(*each, "--endpoint", daemon.endpoint)
            assert (code, out, err) == (1, "", f"backscroll: {OWN_TOOLS}\n"), each
        with Client(daemon.endpoint) as client:
            assert client.ask(Health()).storage.warnings == []
            assert client.ask(GetTasks()).last == []
        daemon.stop()
    before = sorted(path.name for path in directory.iterdir())
    words.append(["repair"])
    for each in words:
        code, out, err = run(*each, "--data-dir", directory)
        assert (code, out, err) == (1, "", f"backscroll: {OWN_TOOLS}\n"), each
    code, out, err = run("restore", backups, "--into", directory)
    assert (code, out, OWN_TOOLS in err) == (1, "", True)
    assert sorted(path.name for path in directory.iterdir()) == before
    assert not backups.exists()
