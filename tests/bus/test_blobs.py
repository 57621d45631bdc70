"""BlobDirectory of media on the disk: whole or not at all, named by their hash, and nothing left lying around."""

import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.errors import DamagedBlob, wire_error
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import CreateSession, GetMediaPart, PutMedia, PutMediaPart, SaveUser, User
from tests.support.peers import Peer, log_lines
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
DAY_SECONDS = 24 * 60 * 60


@pytest.fixture
def parts(tmp_path: Path) -> BlobDirectory:
    return BlobDirectory(tmp_path / "scope.media")


def path_of(parts: BlobDirectory, sha256: str) -> Path:
    return parts.directory / sha256[:2] / sha256


def age(path: Path, seconds: float) -> None:
    """Make a file look as if it had been written so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def in_an_hour() -> int:
    return int((time.time() + 3_600) * 1000)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 16_384], ids=len)
def test_what_is_put_is_read_under_its_hash(parts: BlobDirectory, data: bytes) -> None:
    """A part's name is the SHA-256 of its bytes in hex, and its bytes come back as they were."""
    sha256 = parts.put(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert parts.read(sha256) == data
    assert parts.size() == len(data)


def test_a_part_that_is_not_there_is_none_and_removing_it_is_nothing(parts: BlobDirectory) -> None:
    """Nothing is made by asking."""
    assert parts.read("0" * 64) is None
    parts.remove("0" * 64)
    assert (list(parts.put_before(in_an_hour())), parts.size()) == ([], 0)
    assert not parts.directory.exists()


def test_a_removed_part_is_gone_and_can_be_put_again(parts: BlobDirectory) -> None:
    """Its file is off the disk; the others stay."""
    one, other = parts.put(b"one"), parts.put(b"other")
    parts.remove(one)
    assert (parts.read(one), parts.read(other)) == (None, b"other")
    assert [path for path in parts.directory.rglob("*") if path.is_file()] == [path_of(parts, other)]
    assert parts.put(b"one") == one
    assert parts.read(one) == b"one"


def test_the_same_bytes_are_kept_once(parts: BlobDirectory) -> None:
    """However often they are put, and from however many threads at once."""
    threads = [threading.Thread(target=parts.put, args=(b"the same" * 1_000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([path for path in parts.directory.rglob("*") if path.is_file()]) == 1
    assert parts.size() == 8_000


def test_a_part_is_there_whole_or_not_at_all(parts: BlobDirectory) -> None:
    """A reader at any moment while parts are put and removed finds nothing or all of it."""
    data = b"x" * 1_000_000
    sha256 = hashlib.sha256(data).hexdigest()
    done = threading.Event()

    def put_and_remove() -> None:
        for _ in range(50):
            parts.put(data)
            parts.remove(sha256)
        done.set()

    writer = threading.Thread(target=put_and_remove)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(parts.read(sha256))  # raises if it is not whole
    writer.join()
    assert seen <= {None, data}


def test_a_temporary_file_that_a_crash_left_is_never_read_and_goes_in_time(parts: BlobDirectory) -> None:
    """It has no part's name, so nobody can ask for it; once it is old it is removed, and a young one is left alone."""
    kept = parts.put(b"kept")
    directory = path_of(parts, kept).parent
    old, young = directory / "new-old", directory / "new-young"
    old.write_bytes(b"kep")
    young.write_bytes(b"kep")
    age(old, 2 * DAY_SECONDS)
    assert parts.read(kept) == b"kept"
    assert parts.read("new-old") is None
    assert list(parts.put_before(int((time.time() - DAY_SECONDS) * 1000))) == []
    assert (old.exists(), young.exists()) == (False, True)


def test_a_failed_put_leaves_nothing(parts: BlobDirectory) -> None:
    """When the part cannot take its place, the temporary file goes too."""
    sha256 = hashlib.sha256(b"data").hexdigest()
    path_of(parts, sha256).mkdir(parents=True)
    (path_of(parts, sha256) / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        parts.put(b"data")
    assert [path.name for path in path_of(parts, sha256).parent.iterdir()] == [sha256]


@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "empty"])
def test_a_damaged_part_is_named_and_whole_again_once_it_is_put_again(parts: BlobDirectory, harm: str) -> None:
    """Wrong bytes are never given out: reading raises, and callers are told `storage`. The same bytes put again mend
    it."""
    data = b"some bytes" * 100
    sha256 = parts.put(data)
    harmed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"x", "empty": b""}[harm]
    path_of(parts, sha256).write_bytes(harmed)
    with pytest.raises(DamagedBlob) as caught:
        parts.read(sha256)
    error = wire_error(caught.value)
    assert error is not None
    assert error.code == "storage"
    assert parts.put(data) == sha256
    assert parts.read(sha256) == data


def test_a_part_counts_as_put_when_it_was_last_put(parts: BlobDirectory) -> None:
    """Putting it again makes an old part young, so that an upload that names it later still finds it."""
    old, again = parts.put(b"old"), parts.put(b"again")
    for sha256 in (old, again):
        age(path_of(parts, sha256), 2 * DAY_SECONDS)
    yesterday = int((time.time() - DAY_SECONDS) * 1000)
    assert set(parts.put_before(yesterday)) == {old, again}
    parts.put(b"again")
    assert list(parts.put_before(yesterday)) == [old]
    assert set(parts.put_before(in_an_hour())) == {old, again}


def test_a_part_that_is_there_can_be_put_again_by_its_name(parts: BlobDirectory) -> None:
    """That makes it young as putting its bytes does; one that is not there is told so, and not made."""
    old = parts.put(b"old")
    age(path_of(parts, old), 2 * DAY_SECONDS)
    assert parts.put_again(old)
    assert list(parts.put_before(int((time.time() - DAY_SECONDS) * 1000))) == []
    assert not parts.put_again("0" * 64)
    assert parts.read("0" * 64) is None


def test_files_and_directories_of_parts_are_their_owners_alone(parts: BlobDirectory) -> None:
    """Every level that is made is closed to others."""
    path = path_of(parts, parts.put(b"x"))
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, parts.directory)] == [0o600, 0o700, 0o700]


# Tidied up without being asked


def test_expired_sessions_are_removed_and_counted_in_the_log(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon removes the sessions that are over, in every open scope, and logs how many; others stay."""
    daemon = start_daemon("--chores-ms", "200", "--log-format", "json")
    for scope, sessions in (("default", 3), ("other", 2)):
        with Client(daemon.endpoint, scope=scope) as client:
            client.execute(SaveUser(User(oder_id="ada", id="ada", username="ada")))
            for _ in range(sessions):
                client.execute(CreateSession("ada", duration_ms=1))
            client.execute(CreateSession("ada", duration_ms=DAY_SECONDS * 1000))

    def counted() -> dict[str, int]:
        totals: dict[str, int] = {}
        for line in log_lines(tmp_path / "daemon.log", "chores done"):
            totals[line["scope"]] = totals.get(line["scope"], 0) + line["delete-expired-sessions"]
        return totals

    wait_until(lambda: counted() == {"default": 3, "other": 2})
    with Peer(daemon.endpoint) as peer:
        for scope in ("default", "other"):
            assert peer.ask("get-scope-info", scope=scope)["result"]["rows"]["sessions"] == 1
            assert peer.ask("delete-expired-sessions", scope=scope)["result"] == 0


def test_parts_that_no_media_names_for_a_day_are_removed(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """An upload that was never finished goes after a day; what is younger, or named, stays, however old."""
    daemon = start_daemon("--chores-ms", "200", "--log-format", "json")
    media = BlobDirectory(tmp_path / "data" / "default.media")
    with Client(daemon.endpoint) as client:
        orphan, young, named = (client.execute(PutMediaPart(data)) for data in (b"orphan", b"young", b"named"))
        made = client.execute(PutMedia(parts=[named], mime="text/plain"))
        left = path_of(media, orphan).with_name("new-left")
        left.write_bytes(b"left by a crash")
        for path in (path_of(media, orphan), path_of(media, named), left):
            age(path, 2 * DAY_SECONDS)
        wait_until(lambda: not path_of(media, orphan).exists() and not left.exists())
        assert path_of(media, young).exists()
        assert client.ask(GetMediaPart(made.id)) == b"named"
    wait_until(lambda: log_lines(tmp_path / "daemon.log", "chores done"))
    assert [line["unused_media_parts"] for line in log_lines(tmp_path / "daemon.log", "chores done")] == [1]
