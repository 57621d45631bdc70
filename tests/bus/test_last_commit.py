"""What was acknowledged last is known beside the database: a start that lacks it is refused with words."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.sqlite.last_commit import FILE_BYTES, LastCommitFile
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.handlers.storage import LogPosition
from tests.support.local import Local
from tests.support.messages import save_payload

MESSAGES = 10
Change = Callable[[Path], object]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The database of a daemon that was killed with everything in its write-ahead log."""
    with Local(tmp_path / "data") as local:
        local.store().checkpoint_fully()
        for number in range(MESSAGES):
            local.result("save-message", save_payload(number))
        shutil.copytree(tmp_path / "data", tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm", "pid", "lock"))
    return tmp_path / "killed" / "default.db"


def last_commit_of(database: Path) -> Path:
    return database.with_name("default.db-last-commit")


def cut_log(database: Path) -> None:
    wal = database.with_name("default.db-wal")
    os.truncate(wal, wal.stat().st_size - 1)


def saved(database: Path) -> int:
    with closing(SqliteStore(database, scope="default")) as store:
        return store.seq


def test_each_commit_is_noted_with_its_end(killed: Path) -> None:
    """The file has 64 bytes and the seq of the last command, also after a kill."""
    found = LastCommitFile(killed).read()
    assert found is not None
    assert found.seq == MESSAGES
    assert last_commit_of(killed).stat().st_size == FILE_BYTES == 64
    assert saved(killed) == MESSAGES


def test_a_log_without_its_end_is_refused(killed: Path) -> None:
    """The error says up to which command changes are missing and which file to remove; then the rest is served."""
    cut_log(killed)
    before = {each.name: each.read_bytes() for each in killed.parent.iterdir() if each.is_file()}
    with pytest.raises(CannotOpen, match=rf"lacks its end: changes up to command {MESSAGES} were acknow") as caught:
        saved(killed)
    assert f"remove {last_commit_of(killed).name}" in str(caught.value)
    assert {each.name: each.read_bytes() for each in killed.parent.iterdir() if each.is_file()} == before
    last_commit_of(killed).unlink()
    assert saved(killed) == MESSAGES - 1
    assert saved(killed) == MESSAGES - 1


def torn(path: Path) -> None:
    os.truncate(path, 40)


def flipped(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])


def of_another(path: Path) -> None:
    other = LastCommitFile(path.with_name("default.db"))
    other.write("f" * 32, 10**6, LogPosition(10**6))
    other.close()


@pytest.mark.parametrize("change", [torn, flipped, of_another, Path.unlink, lambda path: os.truncate(path, 0)])
def test_a_note_that_cannot_be_read_is_ignored(killed: Path, change: Change) -> None:
    """It is not synced, so a crash of the system can leave anything in it; the next commit writes it again."""
    change(last_commit_of(killed))
    assert saved(killed) == MESSAGES
    found = LastCommitFile(killed).read()
    assert found is not None
    assert found.seq == MESSAGES


def test_another_end_after_as_many_commits_is_refused(killed: Path) -> None:
    """A copy of the files in which other commands were executed since is not what was acknowledged here."""
    before = saved(killed)
    copy = shutil.copytree(killed.parent, killed.parent.with_name("copy"))
    for directory, name in ((killed.parent, "here"), (copy, "there")):
        with Local(directory) as local:
            local.result("save-message", save_payload(name), name)
    assert saved(killed) == saved(copy / "default.db") == before + 1
    shutil.copy(copy / "default.db", killed)
    shutil.copy(copy / "default.db-wal-lineage", killed.parent)
    with pytest.raises(CannotOpen, match=rf"should end with another command {before + 1}"):
        saved(killed)


def test_a_disk_that_refuses_the_note_fails_no_commit(tmp_path: Path) -> None:
    """A commit is durable without it."""
    (tmp_path / "data" / "default.db-last-commit").mkdir(parents=True)
    with Local(tmp_path / "data") as local:
        local.result("save-message", save_payload(1))
        assert local.store().seq == 1
    shutil.rmtree(tmp_path / "data" / "default.db-last-commit")
    assert saved(tmp_path / "data" / "default.db") == 1


def test_compaction_and_removal_keep_the_note_right(tmp_path: Path) -> None:
    """The compact copy has all that was noted; a removed scope leaves no note, and starts again at 0."""
    with Local(tmp_path / "data") as local:
        local.result("save-message", save_payload(1), scope="s")
        local.result("compact-scope", scope="s")
        local.result("save-message", save_payload(2), scope="s")
        local.result("compact-scope", scope="s")
        path = local.store("s").path
    with Local(tmp_path / "data") as local:
        assert local.store("s").seq == 2
        local.result("delete-scope", scope="s", request_id="delete")
        assert not path.with_name(f"{path.name}-last-commit").exists()
        local.result("save-message", save_payload(1), scope="s", request_id="again")
        assert local.store("s").seq == 1
