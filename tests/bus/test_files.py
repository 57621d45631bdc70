"""bus/files.py: files that are there whole or not at all, and closed to others."""

import os
import stat
import threading
from pathlib import Path

import pytest

from backscroll.bus.files import make_directory, sync_file, write_whole


def test_what_is_written_is_there_for_its_owner_alone(tmp_path: Path) -> None:
    """New or in place of another file, whose mode and content make no difference; nothing else is left."""
    path = tmp_path / "file"
    for data in (b"first, and longer", b"second", b""):
        write_whole(path, data)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_is_written_over(tmp_path: Path) -> None:
    """Whoever has it open sees nothing of what is written now."""
    path, left = tmp_path / "file", tmp_path / "file.new"
    left.write_bytes(b"left over, and longer than what follows")
    left.chmod(0o666)
    with left.open("rb") as by_another:
        write_whole(path, b"new")
        assert by_another.read() == b"left over, and longer than what follows"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_finds_one_whole_content_or_another(tmp_path: Path) -> None:
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


def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not take the bytes costs neither the older file nor a place for a half one."""
    path = tmp_path / "file"
    write_whole(path, b"older")

    def fail(_descriptor: int) -> None:
        raise OSError("a failing disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="a failing disk"):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_synced_before_it_has_its_name_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash at any moment finds the older file or the whole newer one."""
    path, synced = tmp_path / "file", []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(path, b"data")
    assert synced == [(False, False), (True, True)]


def test_a_file_that_somebody_wrote_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the file itself that is, and it stays what it was."""
    path, synced = tmp_path / "file", []
    path.write_bytes(b"data")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sync_file(path)
    assert synced == [path.stat().st_ino]
    assert path.read_bytes() == b"data"


def test_directories_are_made_with_all_above_them_for_their_owner_alone(tmp_path: Path) -> None:
    """Every level that is made is closed to others; making one that is there changes nothing."""
    for _ in range(2):
        make_directory(tmp_path / "a" / "b" / "c")
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
