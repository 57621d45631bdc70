"""Files that must stay the ones that were opened, also if they are examined only after a change of their directory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backscroll.bus import watched_files
from backscroll.bus.watched_files import WatchedFiles
from tests.support.waiting import wait_until

NAME = "messages.db-wal"


def removed(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").replace(path)


def restored(path: Path) -> None:
    """What a program does that restores a backup: the times of the directory are what they were."""
    before = path.parent.stat()
    replaced(path)
    os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def directory_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def directory_replaced(path: Path) -> None:
    aside = path.parent.with_name("aside")
    path.parent.rename(aside)
    shutil.copytree(aside, path.parent)  # with all times


def wait_for_another_time(directory: Path) -> None:
    """Wait until a change of the directory would give it another time; many systems count in milliseconds."""
    probe = directory.with_name("probe")

    def is_later() -> bool:
        probe.touch()
        return probe.stat().st_ctime_ns > directory.stat().st_ctime_ns

    wait_until(is_later)


LOSSES = [removed, renamed, replaced, restored, directory_removed, directory_replaced]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a directory of its own."""
    path = tmp_path / "data" / NAME
    path.parent.mkdir()
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("seconds", [0.0, 3600.0], ids=["settled", "changing"])
@pytest.mark.parametrize("lose", LOSSES, ids=lambda each: each.__name__)
def test_a_lost_file_is_noticed(
    path: Path, lose: Callable[[Path], None], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once and from then on, whether its directory has been the same for long or has just changed."""
    monkeypatch.setattr(watched_files, "SETTLED_SECONDS", seconds)
    files = WatchedFiles(path.parent)
    files.note(path)
    for _ in range(3):
        assert not files.problem()
        with path.open("ab") as file:
            file.write(b"more")
    wait_for_another_time(path.parent)
    lose(path)
    for _ in range(3):
        assert NAME in files.problem()


def test_other_files_come_and_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of the directory that do not concern the file are no problem, and a later loss is noticed after them."""
    monkeypatch.setattr(watched_files, "SETTLED_SECONDS", 0.0)
    files = WatchedFiles(path.parent)
    files.note(path)
    for _ in range(3):
        wait_for_another_time(path.parent)
        path.with_name("other").touch()
        assert not files.problem()
        path.with_name("other").unlink()
        assert not files.problem()
        assert not files.problem()
    wait_for_another_time(path.parent)
    removed(path)
    assert files.problem() == f"{NAME} was removed or moved away"
