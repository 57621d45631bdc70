"""bus/files.py: files that are written atomically and durably, and private directories."""

import os
import stat
import threading
from pathlib import Path

import pytest

from backscroll.bus.files import make_directory, sync_file, write_whole


def test_a_written_file_is_private(tmp_path: Path) -> None:
    """Whether it is new or replaces another file, whatever its mode and content; no other file is left."""
    path = tmp_path / "file"
    for data in (b"first, and longer", b"second", b""):
        write_whole(path, data)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        assert list(tmp_path.iterdir()) == [path]


def test_temporary_files_of_a_crash_are_replaced(tmp_path: Path) -> None:
    """A process that has such a file open sees nothing of the new content."""
    path, left = tmp_path / "file", tmp_path / "file.new"
    left.write_bytes(b"left over, and longer than what follows")
    left.chmod(0o666)
    with left.open("rb") as by_another:
        write_whole(path, b"new")
        assert by_another.read() == b"left over, and longer than what follows"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_a_complete_old_or_new_file(tmp_path: Path) -> None:
    """However often the file is written meanwhile."""
    path, contents = tmp_path / "file", {b"a" * 100_000, b"b" * 200_000}
    write_whole(path, b"a" * 100_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(25):
            for content in contents:
                write_whole(path, content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= contents


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk neither damages the old file nor leaves a partial one."""
    path = tmp_path / "file"
    write_whole(path, b"older")

    def fail(_descriptor: int) -> None:
        raise OSError("a failing disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="a failing disk"):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_synced_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash at any moment leaves the old file or the complete new one."""
    path, synced = tmp_path / "file", []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(path, b"data")
    assert synced == [(False, False), (True, True)]


def test_an_existing_file_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself is synced, and its content does not change."""
    path, synced = tmp_path / "file", []
    path.write_bytes(b"data")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sync_file(path)
    assert synced == [path.stat().st_ino]
    assert path.read_bytes() == b"data"


def test_directories_are_created_private_with_their_parents(tmp_path: Path) -> None:
    """Every new level has mode 0700; an existing directory is not changed."""
    for _ in range(2):
        make_directory(tmp_path / "a" / "b" / "c")
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
