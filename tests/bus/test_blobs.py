"""Parts of media on disk: complete or absent, named by their hash, and without leftovers."""

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
    """Set the modification time of a file into the past."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def in_an_hour() -> int:
    return int((time.time() + 3_600) * 1000)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 16_384], ids=len)
def test_a_part_is_stored_under_its_hash(parts: BlobDirectory, data: bytes) -> None:
    """Its name is the SHA-256 of its bytes in hex, and the bytes are read unchanged."""
    sha256 = parts.put(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert parts.read(sha256) == data
    assert parts.size() == len(data)


def test_a_missing_part_is_none_and_removing_it_succeeds(parts: BlobDirectory) -> None:
    """Reading creates nothing."""
    assert parts.read("0" * 64) is None
    parts.remove("0" * 64)
    assert (list(parts.put_before(in_an_hour())), parts.size()) == ([], 0)
    assert not parts.directory.exists()


def test_a_removed_part_is_gone_and_can_be_put_again(parts: BlobDirectory) -> None:
    """Its file is removed; other parts stay."""
    one, other = parts.put(b"one"), parts.put(b"other")
    parts.remove(one)
    assert (parts.read(one), parts.read(other)) == (None, b"other")
    assert [path for path in parts.directory.rglob("*") if path.is_file()] == [path_of(parts, other)]
    assert parts.put(b"one") == one
    assert parts.read(one) == b"one"


def test_the_same_bytes_are_stored_once(parts: BlobDirectory) -> None:
    """However often they are put, also from several threads at once."""
    threads = [threading.Thread(target=parts.put, args=(b"the same" * 1_000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([path for path in parts.directory.rglob("*") if path.is_file()]) == 1
    assert parts.size() == 8_000


def test_readers_see_a_complete_part_or_none(parts: BlobDirectory) -> None:
    """At any moment, while other threads put and remove it."""
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
        seen.add(parts.read(sha256))  # raises if it is incomplete
    writer.join()
    assert seen <= {None, data}


def test_temporary_files_of_a_crash_are_removed_when_old(parts: BlobDirectory) -> None:
    """Such a file does not have the name of a part, so it is never read; a recent one is kept."""
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


def test_a_failed_put_leaves_no_file(parts: BlobDirectory) -> None:
    """When the part cannot be renamed into place, the temporary file is removed."""
    sha256 = hashlib.sha256(b"data").hexdigest()
    path_of(parts, sha256).mkdir(parents=True)
    (path_of(parts, sha256) / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        parts.put(b"data")
    assert [path.name for path in path_of(parts, sha256).parent.iterdir()] == [sha256]


@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "empty"])
def test_a_damaged_part_raises_until_it_is_put_again(parts: BlobDirectory, harm: str) -> None:
    """Wrong bytes are never returned: callers get `storage`. Putting the same bytes again repairs the part."""
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


def test_putting_a_part_again_renews_its_age(parts: BlobDirectory) -> None:
    """An upload that uses an old part later still finds it."""
    old, again = parts.put(b"old"), parts.put(b"again")
    for sha256 in (old, again):
        age(path_of(parts, sha256), 2 * DAY_SECONDS)
    yesterday = int((time.time() - DAY_SECONDS) * 1000)
    assert set(parts.put_before(yesterday)) == {old, again}
    parts.put(b"again")
    assert list(parts.put_before(yesterday)) == [old]
    assert set(parts.put_before(in_an_hour())) == {old, again}


def test_an_existing_part_can_be_renewed_by_its_name(parts: BlobDirectory) -> None:
    """This renews its age like putting its bytes; a missing part is reported, and not created."""
    old = parts.put(b"old")
    age(path_of(parts, old), 2 * DAY_SECONDS)
    assert parts.put_again(old)
    assert list(parts.put_before(int((time.time() - DAY_SECONDS) * 1000))) == []
    assert not parts.put_again("0" * 64)
    assert parts.read("0" * 64) is None


def test_parts_are_accessible_to_their_owner_only(parts: BlobDirectory) -> None:
    """Every directory that is created has mode 0700."""
    path = path_of(parts, parts.put(b"x"))
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, parts.directory)] == [0o600, 0o700, 0o700]


# Periodic clean-up


def test_expired_sessions_are_removed_and_logged(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The daemon removes them in every open scope, and logs their number; other sessions stay."""
    daemon = start_daemon("--chores-ms", "200", "--log-format", "json")
    for scope, sessions in (("default", 3), ("other", 2)):
        with Client(daemon.endpoint, scope=scope) as client:
            client.execute(SaveUser(User(oder_id="ada", id="ada", username="ada")))
            for _ in range(sessions):
                client.execute(CreateSession.with_new_token("ada", duration_ms=1))
            client.execute(CreateSession.with_new_token("ada", duration_ms=DAY_SECONDS * 1000))

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


def test_parts_unused_for_a_day_are_removed(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Parts of an unfinished upload are removed after a day; recent parts, and parts of a media, stay."""
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
