"""Full, failing, read-only and damaged disks: the errors are typed, and nothing acknowledged is lost."""

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.store import WAL_PAGES_BEFORE_CHECKPOINT, SqliteStore
from backscroll.clients.python import Client
from backscroll.clients.python.log_export import Broken, verify_scope
from backscroll.schema import Busy, GetMessages, Storage
from backscroll.schema.wire import JSON
from tests.support.disks import FaultyDisk
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer, running
from tests.support.requests import body
from tests.support.sql import sql
from tests.support.stores import command

Reply = dict[str, Any]


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def on_disk(tmp_path: Path, disk: FaultyDisk) -> Iterator[InProcess]:
    """A transport whose file is on `disk`, with one message in it."""
    transport = InProcess(tmp_path / "data", vfs=disk.name)
    assert commit(transport, 0)[0]["ok"]
    yield transport
    disk.full, disk.read_only, disk.failing_syncs, disk.writes_until_full = False, False, 0, None
    transport.close()


def commit(transport: InProcess, *numbers: int, content: str = "hello") -> list[Reply]:
    """Save messages in one commit; the replies."""
    bodies = [body("save-message", save_payload(number, content), id=f"{number}") for number in numbers]
    requests = [transport.dispatcher.receive(each) for each in bodies]
    return [JSON.decode(reply, Reply) for reply in transport.dispatcher.answer_commands(requests)]


def stored(transport: InProcess) -> list[str]:
    with transport.store.read() as snapshot:
        return [row[0] for row in snapshot.rows(sql("SELECT id FROM messages ORDER BY timestamp"))]


def codes(replies: list[Reply]) -> set[tuple[str, bool]]:
    return {(reply["error"]["code"], reply["error"]["retryable"]) for reply in replies if not reply["ok"]}


def stored_in_copy(data_dir: Path, copy: Path) -> list[str]:
    """The messages a daemon would find after a crash at this moment: in a copy of the file and its WAL."""
    copy.mkdir()
    for name in ("default.db", "default.db-wal"):
        shutil.copy(data_dir / name, copy / name)
    with closing(apsw.Connection(str(copy / "default.db"))) as connection:
        assert connection.pragma("integrity_check") == "ok"
        return [row[0] for row in connection.execute("SELECT id FROM messages ORDER BY timestamp")]


# Full disks


@pytest.mark.parametrize("content", ["small", "large " * 50_000])
def test_a_full_disk_fails_a_commit_as_a_whole(on_disk: InProcess, disk: FaultyDisk, content: str) -> None:
    """Every command of the commit is answered `storage`, retryable, and succeeds once there is space.

    Large commands overflow SQLite's cache, so that the disk fills up in the middle of a command.
    """
    disk.full = True
    replies = commit(on_disk, *range(1, 61), content=content)
    assert [reply["id"] for reply in replies] == [str(number) for number in range(1, 61)]
    assert not any(reply["ok"] for reply in replies)
    assert codes(replies) == {("storage", True)}
    assert "full" in replies[0]["error"]["message"]
    assert (on_disk.store.seq, stored(on_disk)) == (1, ["m0"])
    disk.full = False
    assert [reply["seq"] for reply in commit(on_disk, *range(1, 61), content=content)] == list(range(2, 62))
    assert len(stored(on_disk)) == 61


def test_a_commit_is_atomic_at_any_failing_write(on_disk: InProcess, disk: FaultyDisk, tmp_path: Path) -> None:
    """For every n the n-th write of a commit fails: the replies match what a crash at that moment would leave."""
    done = ["m0"]
    for writes in range(30):
        disk.writes_until_full = writes
        replies = commit(on_disk, 2 * writes + 1, 2 * writes + 2)
        disk.writes_until_full, disk.full = None, False
        assert len({reply["ok"] for reply in replies}) == 1
        if replies[0]["ok"]:
            done += [f"m{2 * writes + 1}", f"m{2 * writes + 2}"]
        assert stored(on_disk) == done
        assert stored_in_copy(tmp_path / "data", tmp_path / f"copy-{writes}") == done
    assert 1 < len(done) < 61


def test_a_full_disk_at_a_checkpoint_loses_nothing(tmp_path: Path, disk: FaultyDisk) -> None:
    """Commits continue in the WAL while the file cannot grow; the file catches up when there is space."""
    disk.only = ".db"
    with InProcess(tmp_path / "data", vfs=disk.name) as transport:
        disk.full = True
        numbers = range(1, WAL_PAGES_BEFORE_CHECKPOINT)
        for number in numbers:
            assert commit(transport, number, content="x" * 8_000)[0]["ok"]
            transport.store.checkpoint_if_due()
        assert len(stored(transport)) == len(numbers)
        assert stored_in_copy(tmp_path / "data", tmp_path / "copy") == [f"m{number}" for number in numbers]
        disk.full = False
        for number in range(10_000, 10_000 + WAL_PAGES_BEFORE_CHECKPOINT):
            commit(transport, number, content="x" * 8_000)
            transport.store.checkpoint_if_due()
    with InProcess(tmp_path / "data") as transport:
        assert len(stored(transport)) == len(numbers) + WAL_PAGES_BEFORE_CHECKPOINT


def test_a_daemon_on_a_full_disk_recovers(tmp_path: Path, disk: FaultyDisk) -> None:
    """Queries are answered, commands get `storage`, and the same commands succeed later."""
    with running(tmp_path / "data", vfs=disk.name) as daemon, Peer(daemon.endpoint) as peer:
        assert peer.ask("save-message", save_payload(0))["ok"]
        disk.full = True
        for number in range(1, 200):
            peer.request("save-message", save_payload(number), request_id=f"{number}")
        assert codes(list(peer.replies(199).values())) == {("storage", True)}
        assert len(peer.ask("get-messages", {"roomId": "r1"})["result"]) == 1
        disk.full = False
        for number in range(1, 200):
            peer.request("save-message", save_payload(number), request_id=f"{number}")
        assert all(reply["ok"] for reply in peer.replies(199).values())
        assert peer.ask("ping")["seq"] == 200


# Failing and read-only disks


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_commit_whose_sync_fails_has_no_effect(
    on_disk: InProcess, disk: FaultyDisk, tmp_path: Path, failures: int
) -> None:
    """The error is `storage`; readers do not see its commands, and later commands succeed."""
    disk.failing_syncs = failures
    replies = commit(on_disk, 1, 2)
    assert codes(replies) == {("storage", True)}
    assert "SQLITE_IOERR_FSYNC" in replies[0]["error"]["message"]
    assert (on_disk.store.seq, stored(on_disk)) == (1, ["m0"])
    disk.failing_syncs = 0
    assert commit(on_disk, 3)[0]["seq"] == 2
    assert stored(on_disk) == ["m0", "m3"]
    assert stored_in_copy(tmp_path / "data", tmp_path / "copy") == ["m0", "m3"]


def test_a_commit_whose_sync_fails_is_not_in_the_wal(on_disk: InProcess, disk: FaultyDisk, tmp_path: Path) -> None:
    """The next start after a crash does not find its commands there."""
    disk.failing_syncs = 1
    assert not commit(on_disk, 1)[0]["ok"]
    assert stored_in_copy(tmp_path / "data", tmp_path / "copy") == ["m0"]


def test_a_read_only_disk_is_not_retryable(on_disk: InProcess, disk: FaultyDisk) -> None:
    """Commands fail with an error that says so and have no effect; queries are answered."""
    disk.read_only = True
    replies = commit(on_disk, 1, 2)
    assert codes(replies) == {("storage", False)}
    assert "read-only" in replies[0]["error"]["message"]
    assert stored(on_disk) == ["m0"]
    disk.read_only = False
    assert commit(on_disk, 1)[0]["seq"] == 2


# Damaged files


def filled(data_dir: Path) -> Path:
    """A database of some hundred messages; its path."""
    with InProcess(data_dir) as transport, Client(transport=transport) as client:
        for number in range(300):
            client.execute(save_message(number, f"text {number} " * 20, metadata={"n": number}))
    return data_dir / "default.db"


def every_request() -> list[bytes]:
    requests = [body("get-messages", {"roomId": "r1", "limit": 100, "offset": at}) for at in (0, 100, 200)]
    requests += [body("get-message-by-id", {"messageId": f"m{at}"}) for at in range(0, 300, 50)]
    requests += [body(f"get-{what}", {}) for what in ("all-rooms", "all-attachments", "current-user")]
    requests += [body("save-message", save_payload(1_000)), body("delete-message", {"messageId": "m7"})]
    requests += [body("clear-room-messages", {"roomId": "r1"}), body("get-messages", {"roomId": "r1"})]
    return requests


def check_damaged(data_dir: Path, about: str) -> str:
    """Open a damaged database and send every request; `ok`, `storage`, or why it was not opened."""
    try:
        transport = InProcess(data_dir)
    except CannotOpen as error:
        return str(error)
    allowed = {"storage", "not-found", "conflict", "busy"}  # busy: damage that looks like the mark of a cleared room
    ends = set()
    with transport:
        for request in every_request():
            transport.send(request)
            answer = transport.receive(0)
            assert answer is not None
            reply = JSON.decode(answer, Reply)
            ends.add(("damaged" if b'"damaged"' in answer else "ok") if reply["ok"] else reply["error"]["code"])
            assert reply["ok"] or reply["error"]["code"] in allowed, (about, request, reply)
        ends.add(end_of_log(transport))
    return "storage" if ends & {"storage", "damaged", "busy"} else "ok"


def end_of_log(transport: InProcess) -> str:
    """The outcome of reading the whole command log, which verifies its chain."""
    try:
        verify_scope(Client(transport=transport))
    except (Broken, Storage, Busy):
        return "storage"
    return "ok"


def test_flipped_bytes_never_crash_the_daemon(tmp_path: Path, long: bool) -> None:
    """A file with changed bytes is not opened, or each request gets a result or `storage`."""
    original = filled(tmp_path / "original").read_bytes()
    ends = set()
    for seed in range(10_000, 28_000):
        draw = random.Random(seed)
        damaged = bytearray(original)
        for _ in range(draw.choice((1, 1, 8, 64))):
            # every other time near the beginning, where the schema and the roots of the trees are
            damaged[draw.randrange(len(damaged) if seed % 2 else 16_384)] ^= draw.randrange(1, 256)
        data_dir = tmp_path / f"flipped-{seed}"
        data_dir.mkdir()
        (data_dir / "default.db").write_bytes(damaged)
        end = check_damaged(data_dir, f"seed {seed}")
        ends.add(end if end in ("ok", "storage") else "refused")
        shutil.rmtree(data_dir)
    assert ends == {"refused", "storage", "ok"}


def test_truncated_files_never_crash_the_daemon(tmp_path: Path) -> None:
    """A file cut off at any place is not opened or answered; an empty file is a new database."""
    original = filled(tmp_path / "original")
    size = original.stat().st_size
    draw = random.Random(11)
    # The last two bytes are the number of the command that saved a message; no reply shows it.
    lengths = [1, 99, 100, 511, 512, 4095, 4096, 4097, 8192, size - 4096, size - 3]
    for length in lengths + [draw.randrange(1, size) for _ in range(10)]:
        data_dir = tmp_path / f"cut-{length}"
        data_dir.mkdir()
        shutil.copy(original, data_dir / "default.db")
        os.truncate(data_dir / "default.db", length)
        assert check_damaged(data_dir, f"{length} bytes") != "ok"


@pytest.mark.parametrize("cut", ["flip", "truncate"])
def test_a_damaged_wal_loses_only_commands_after_the_damage(tmp_path: Path, cut: str) -> None:
    """The WAL is replayed up to the damage, and the commands before it are complete."""
    store = SqliteStore(tmp_path / "default.db")
    for number in range(50):
        with store.write() as transaction, command(transaction):
            transaction.run(sql("INSERT INTO meta (key, value) VALUES (:key, 'null')"), key=f"{number:02}")
    log = (tmp_path / "default.db-wal").read_bytes()
    file = (tmp_path / "default.db").read_bytes()
    store.close()
    draw = random.Random(5)
    for at in range(20):
        place = draw.randrange(32, len(log))
        spoiled = log[:place] + (b"" if cut == "truncate" else bytes([log[place] ^ 255]) + log[place + 1 :])
        copy = tmp_path / f"copy-{at}"
        copy.mkdir()
        (copy / "default.db").write_bytes(file)
        (copy / "default.db-wal").write_bytes(spoiled)
        try:
            again = SqliteStore(copy / "default.db")
        except CannotOpen:  # the WAL held the first page
            continue
        with again.read() as snapshot:
            keys = [row[0] for row in snapshot.rows(sql("SELECT key FROM meta ORDER BY key"))]
        again.close()
        assert keys == [f"{number:02}" for number in range(len(keys))]
        assert again.seq == len(keys)


# Copied files


def test_copies_without_checkpoints_have_acknowledged_commands(tmp_path: Path, long: bool) -> None:
    """Without a checkpoint, a copy of the database and then of its WAL has every command acknowledged before the copy
    began, because commits only append to the WAL. (Under checkpoints the file changes while it is read.)
    """
    acknowledged = 0
    stop = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        while not stop.is_set():
            commit(transport, acknowledged, content="x" * 2_000)
            acknowledged += 1

    with InProcess(tmp_path / "data") as transport:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for at in range(100 if long else 10):
                before = acknowledged
                found = stored_in_copy(tmp_path / "data", tmp_path / f"copy-{at}")
                assert found == [f"m{number}" for number in range(len(found))]
                assert len(found) >= before
        finally:
            stop.set()
            writer.join()
    assert acknowledged


def test_a_copied_directory_opens_like_one_of_a_killed_daemon(tmp_path: Path) -> None:
    """A copy of a directory in use can be opened with its WAL."""
    with InProcess(tmp_path / "data") as transport:
        commit(transport, *range(10))
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
    with InProcess(tmp_path / "copy") as copy, Client(transport=copy) as client:
        assert len(client.ask(GetMessages("r1"))) == 10


HARMS: dict[str, Callable[[FaultyDisk], None]] = {
    "full": lambda disk: setattr(disk, "full", True),
    "failing": lambda disk: setattr(disk, "failing_syncs", 3),
    "read-only": lambda disk: setattr(disk, "read_only", True),
    "filling": lambda disk: setattr(disk, "writes_until_full", 3),
}


def test_random_disk_faults_lose_nothing_acknowledged(tmp_path: Path, long: bool) -> None:
    """With random faults between random commits, and reopening now and then, exactly the acknowledged commands are
    there.
    """
    for seed in range(50 if long else 5):
        draw = random.Random(seed)
        disk, data_dir = FaultyDisk(), tmp_path / f"seed-{seed}"
        expected: list[str] = []
        transport = InProcess(data_dir, vfs=disk.name)
        for step in range(80):
            if draw.random() < 0.5:
                HARMS[draw.choice(list(HARMS))](disk)
            numbers = [step * 10 + at for at in range(draw.randrange(1, 6))]
            replies = commit(transport, *numbers, content="x" * draw.choice((5, 5_000)))
            transport.store.checkpoint_if_due()
            expected += [f"m{number}" for number, reply in zip(numbers, replies, strict=True) if reply["ok"]]
            disk.full, disk.read_only, disk.failing_syncs, disk.writes_until_full = False, False, 0, None
            assert stored(transport) == expected, f"seed {seed}, step {step}"
            if draw.random() < 0.1:
                transport.close()
                transport = InProcess(data_dir, vfs=disk.name)
        assert transport.store.seq == len(expected)
        transport.close()
