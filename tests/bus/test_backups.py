"""Backups of scopes in use: complete, small, provable, and kept as long as they are wanted."""

import base64
import itertools
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from backscroll.bus.progress import Stopped
from backscroll.bus.sqlite import store as store_module
from backscroll.bus.sqlite.maintenance.backups import remove_old, take_backup, verify
from backscroll.bus.sqlite.maintenance.catalog import LOCK_FILE, Backup, CannotBackUp, read_catalog
from backscroll.bus.sqlite.maintenance.restoring import restore
from backscroll.bus.sqlite.maintenance.worker import Worker
from backscroll.bus.sqlite.wal_lineage import FRAME_HEADER_BYTES, HEADER_BYTES
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers import HANDLERS
from backscroll.handlers.storage import Retention
from backscroll.schema.errors import Storage
from backscroll.schema.operations import StartBackup
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.bus.test_crashes import FLAGS, acknowledged, at_work, is_past, seed_of, set_up
from tests.support.callers import Ledger
from tests.support.clocks import Clock
from tests.support.local import Local
from tests.support.long_tasks import back_up
from tests.support.messages import save_payload
from tests.support.mounts import fill, small_disk_at
from tests.support.notes import say
from tests.support.recorded_histories import nothing
from tests.support.tables import all_rows
from tests.support.waiting import wait_until

DAY_MS = 86_400_000
LONG_SECONDS = 240  # of the long form


@pytest.mark.timeout(3_600)
def test_backups_of_a_daemon_that_is_killed_have_all_acknowledged_commands(tmp_path: Path, long: bool) -> None:
    """Callers write as fast as they can, while backups are made one after the other and the daemon is killed at random
    moments, also in the middle of a backup. Every backup that is listed verifies, and restores everything that was
    acknowledged before it was begun; what the killed ones left is removed by the next.
    """
    draw = random.Random(seed := seed_of(long))
    data_dir, backups, ledger = tmp_path / "d", tmp_path / "b", Ledger(DEFAULT_SCOPE)
    kinds = Counter[str]()
    seen: set[str] = set()
    killed = 0
    until = time.monotonic() + LONG_SECONDS
    with ExitStack() as stack:
        daemon = stack.enter_context(DaemonProcess(data_dir, *FLAGS))
        set_up(ledger, daemon.endpoint)
        with at_work(daemon.endpoint, [ledger], seed, bytes_max=3_000):
            for number in itertools.count():
                if number >= 3 and (not long or time.monotonic() > until):
                    break
                wait_until(partial(is_past, [ledger], acknowledged([ledger]) + draw.randrange(60)), 60)
                before, full = set(ledger.replies), number > 2 and draw.random() < 0.4
                with Client(daemon.endpoint) as client:
                    if number % 3 != 1:
                        back_up(client, backups, full=full)
                        assert not list(backups.glob(".*"))
                    else:
                        client.execute(StartBackup(directory=str(backups), full=full))
                        time.sleep(draw.uniform(0, 2))  # kill at a random moment, not to synchronise
                        daemon.kill()
                        killed += 1
                        daemon = stack.enter_context(DaemonProcess(data_dir, *FLAGS))
                for each in read_catalog(backups).backups:  # at once, because later ones make the daemon remove it
                    if each.name not in seen:
                        seen.add(each.name)
                        kinds[each.manifest.kind] += 1
                        assert verify(backups, nothing, name=each.name) == []
                        assert lost_in(each, before, tmp_path / "again") == set()
    assert ledger.problems == []
    assert set(kinds) == {"full", "increment"}
    say(f"{dict(kinds)} backups, {killed} kills, {len(ledger.replies)} commands acknowledged, none lost")


def lost_in(backup: Backup, known: set[str], into: Path) -> set[str]:
    """Which of these commands are not there when a backup is restored."""
    restore(backup.path.parent, into, nothing, name=backup.name, prove=False)
    found = {row[1] for row in all_rows(into / "default.db")["commands"]}
    shutil.rmtree(into)
    return known - found


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    with Local(tmp_path / "data", clock=Clock()) as local:
        yield local


def backup(local: Local, into: Path, **how: Any) -> Backup:
    """Take a backup; the clock goes on."""
    local.clock.now += 1  # type: ignore[attr-defined]
    return take_backup(local.scopes, into, nothing, stopped=True, **how)


def save(local: Local, *numbers: int, text: str = "x" * 1_000, scope: str = DEFAULT_SCOPE) -> None:
    for number in numbers:
        local.result("save-message", save_payload(number, text), scope=scope)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_an_increment_costs_what_changed(tmp_path: Path, local: Local) -> None:
    """Commands, media and scopes that were backed up are not written again."""
    save(local, *range(500))
    save(local, 1, scope="unchanged")
    put(local, b"y" * 100_000)
    full = backup(local, tmp_path / "b")
    whole = size_of(tmp_path / "b")
    assert whole > 600_000
    save(local, *range(500, 510))
    put(local, b"z" * 1_000)
    changed = backup(local, tmp_path / "b")
    assert (full.manifest.kind, changed.manifest.kind) == ("full", "increment")
    added = size_of(tmp_path / "b") - whole
    assert 10_000 < added < 25_000
    whole = size_of(tmp_path / "b")
    backup(local, tmp_path / "b")
    assert size_of(tmp_path / "b") - whole < 2_000
    assert verify(tmp_path / "b", nothing) == []


def put(local: Local, data: bytes) -> None:
    part = local.result("put-media-part", {"data": base64.b64encode(data).decode()})
    local.result("put-media", {"parts": [part], "mime": "a/b"})


@pytest.mark.parametrize("why", ["asked", "old", "deleted", "no payloads", "no base", "larger"])
def test_a_scope_is_copied_whole_where_its_log_cannot_be_continued(tmp_path: Path, why: str) -> None:
    """The manifest says so for each scope."""
    retention = Retention(payloads=why != "no payloads")
    with Local(tmp_path / "data", clock=Clock(), retention=retention) as local:
        save(local, 1)
        first = backup(local, tmp_path / "b")
        save(local, 2)
        how: dict[str, Any] = {"full": why == "asked"}
        if why == "old":
            how["full_after_ms"] = 1
        elif why == "deleted":
            local.result("delete-scope", scope=DEFAULT_SCOPE)
            save(local, 3)
        elif why == "no base":
            shutil.rmtree(first.path)
        elif why == "larger":
            save(local, *range(3, 300))
            backup(local, tmp_path / "b")
            save(local, 300)
        [state] = backup(local, tmp_path / "b", **how).manifest.scopes
        assert state.base is None
        assert state.file == "default.db"
        assert verify(tmp_path / "b", nothing) == []


def test_one_scope_can_be_backed_up_alone(tmp_path: Path, local: Local) -> None:
    """The next backup of all continues it, and the others' earlier ones."""
    save(local, 1)
    save(local, 1, scope="other")
    first = backup(local, tmp_path / "b")
    save(local, 2)
    save(local, 2, scope="other")
    alone = backup(local, tmp_path / "b", names=["other"])
    assert [each.name for each in alone.manifest.scopes] == ["other"]
    save(local, 3)
    save(local, 3, scope="other")
    last = backup(local, tmp_path / "b")
    assert {each.name: each.base for each in last.manifest.scopes} == {DEFAULT_SCOPE: first.name, "other": alone.name}
    assert verify(tmp_path / "b", nothing) == []


def test_backups_are_kept_by_day_and_week(tmp_path: Path, local: Local) -> None:
    """With a clock that goes on: the newest of each of the last days, the last weeks' full ones with what continues
    them, and whatever those continue; media that none has any more go as well.
    """
    clock = local.clock
    assert isinstance(clock, Clock)
    clock.now = 1_767_571_200_000  # 2026-01-05, a Monday
    put(local, b"of the first week")
    for day in range(28):
        save(local, day)
        if day == 1:
            [media] = local.result("list-media")
            local.result("delete-media", {"mediaId": media["id"]})
            clock.now += 1
        for _ in range(2):
            clock.now += 3_600_000
            backup(local, tmp_path / "b", full=day % 7 == 0)
        clock.now += DAY_MS - 2 * 3_600_000
    assert len(read_catalog(tmp_path / "b").backups) == 56
    assert len(list((tmp_path / "b" / "media").glob("*/*"))) == 1
    removed = remove_old(tmp_path / "b", daily=3, weekly=2)
    left = [each.name[:10] for each in read_catalog(tmp_path / "b").backups]
    assert len(removed) + len(left) == 56
    assert left[0] == "2026-01-19"
    assert set(left) == {f"2026-01-{day}" for day in range(19, 32)} | {"2026-02-01"}
    assert verify(tmp_path / "b", nothing) == []
    assert list((tmp_path / "b" / "media").glob("*/*")) == []
    remove_old(tmp_path / "b", daily=1, weekly=0)
    left = [each.name[:10] for each in read_catalog(tmp_path / "b").backups]
    assert left[0] == "2026-01-26"  # the full one that the newest continues
    assert verify(tmp_path / "b", nothing) == []
    remove_old(tmp_path / "b", daily=0, weekly=0)
    assert read_catalog(tmp_path / "b").backups[-1].name[:10] == "2026-02-01"
    assert verify(tmp_path / "b", nothing) == []


def test_a_clock_that_went_back_gives_later_names(tmp_path: Path, local: Local) -> None:
    """The order of backups is that in which they were taken."""
    save(local, 1)
    first = backup(local, tmp_path / "b")
    local.clock.now -= DAY_MS  # type: ignore[attr-defined]
    save(local, 2)
    second = backup(local, tmp_path / "b")
    assert second.name > first.name
    assert second.manifest.scopes[0].base == first.name


def test_a_removal_that_was_interrupted_is_finished(tmp_path: Path, local: Local) -> None:
    """What a crash left of a removed backup, or of one that was being written, goes with the next; its media too."""
    put(local, b"of the first")
    first = backup(local, tmp_path / "b")
    local.result("delete-media", {"mediaId": local.result("list-media")[0]["id"]})
    backup(local, tmp_path / "b", full=True)
    first.path.rename(first.path.with_name(f".removed-{first.name}"))
    (tmp_path / "b" / ".partial-x").mkdir()
    (tmp_path / "b" / ".partial-x" / "default.db").touch()
    backup(local, tmp_path / "b")
    assert not list((tmp_path / "b").glob(".*"))
    assert not list((tmp_path / "b" / "media").glob("*/*"))
    assert verify(tmp_path / "b", nothing) == []


def test_damage_is_found_by_verify(tmp_path: Path, local: Local) -> None:
    """Whichever file has a changed byte, lacks its end or is missing: it names the file."""
    put(local, b"a file")
    (tmp_path / "data" / "keys.json").write_text("{}")
    save(local, *range(20))
    backup(local, tmp_path / "b")
    put(local, b"another")
    save(local, *range(20, 40))
    last = backup(local, tmp_path / "b")
    assert verify(tmp_path / "b", nothing) == []
    files = [path for path in (tmp_path / "b").rglob("*") if path.is_file() and path.parent != tmp_path / "b"]
    assert {path.suffix for path in files} >= {".db", ".log", ".media", ".passwords", ".json", ""}
    draw = random.Random(1)
    for path in files:
        content = path.read_bytes()
        name = path.relative_to(tmp_path / "b").as_posix()
        for how in ("changed", "shorter", "missing"):
            if how == "missing":
                path.unlink()
            elif content:
                at = draw.randrange(len(content))
                changed = content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]
                path.write_bytes(changed if how == "changed" else content[: len(content) // 2])
            else:
                continue
            found = verify(tmp_path / "b", nothing)
            assert name in [problem.file for problem in found], (name, how, found)
            path.write_bytes(content)
            path.chmod(0o600)
    assert verify(tmp_path / "b", nothing, name=last.name) == []
    first = read_catalog(tmp_path / "b").backups[0]
    shutil.rmtree(first.path)
    assert "is missing" in verify(tmp_path / "b", nothing)[0].what


def test_files_are_private(tmp_path: Path, local: Local) -> None:
    """Nobody else can read a backup, nor look into its directory."""
    put(local, b"a file")
    backup(local, tmp_path / "b")
    for path in [tmp_path / "b", *(tmp_path / "b").rglob("*")]:
        if path.name != LOCK_FILE:
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("where", ["inside", "around", "same", "not empty", "in use"])
def test_a_directory_that_cannot_be_one_of_backups_is_refused(tmp_path: Path, local: Local, where: str) -> None:
    """With words; nothing is written there."""
    into, lock = tmp_path / "b", FileLock(tmp_path / "b" / LOCK_FILE)
    match where:
        case "inside":
            into = tmp_path / "data" / "backups"
        case "around":
            into = tmp_path
        case "same":
            into = tmp_path / "data"
        case "not empty":
            into.mkdir()
            (into / "letters.txt").touch()
        case "in use":
            backup(local, into)
            lock.acquire()
    with pytest.raises(CannotBackUp, match=r"inside|not empty|another process"):
        backup(local, into)
    assert not list(into.glob(".partial-*"))
    lock.release()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, local: Local) -> None:
    """The error says which disk; earlier backups stay, and the next one succeeds when there is room."""
    save(local, *range(300))
    with small_disk_at(tmp_path / "disk", 4 * 2**20) as disk:
        backup(local, disk / "b")
        filler = fill(disk)
        with pytest.raises(CannotBackUp, match=r"disk is full: 0 bytes are free"):
            backup(local, disk / "b", full=True)
        assert [each.name for each in (disk / "b").glob(".*")] == []
        assert len(read_catalog(disk / "b").backups) == 1
        assert verify(disk / "b", nothing) == []
        filler.unlink()
        backup(local, disk / "b", full=True)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_stopped_backup_leaves_nothing(tmp_path: Path, local: Local, at: int) -> None:
    """It ends between two pieces of work."""
    save(local, *range(20))
    put(local, b"a file")
    steps: list[str] = []

    def stop(step: str, *_: object) -> None:
        steps.append(step)
        if len(steps) > at:
            raise Stopped

    with pytest.raises(Stopped):
        take_backup(local.scopes, tmp_path / "b", stop, stopped=True)
    assert read_catalog(tmp_path / "b").backups == []
    assert not list((tmp_path / "b").glob(".*"))
    backup(local, tmp_path / "b")


def test_a_child_that_is_killed_leaves_nothing(tmp_path: Path, local: Local) -> None:
    """The backup fails with words, and the next one succeeds."""
    save(local, *range(20))
    with Worker() as worker:

        def kill(step: str, *_: object) -> None:
            if worker.pid is not None and step != "starting":
                os.kill(worker.pid, signal.SIGKILL)

        with pytest.raises(CannotBackUp, match="failed"):
            take_backup(local.scopes, tmp_path / "b", kill, work=worker.work)
    assert not list((tmp_path / "b").glob(".*"))
    backup(local, tmp_path / "b")


def test_a_damaged_scope_is_left_out(tmp_path: Path, local: Local) -> None:
    """The others are backed up, the manifest says what is wrong, and its earlier backup is kept."""
    save(local, 1)
    save(local, *range(400), scope="other")
    first = backup(local, tmp_path / "b")
    with local.scopes.exclusive("other") as scope:
        content = bytearray(scope.path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 8_192] = bytes(8_192)
        scope.path.write_bytes(content)
    second = backup(local, tmp_path / "b", full=True)
    assert [each.name for each in second.manifest.scopes] == [DEFAULT_SCOPE]
    assert {each.scope for each in second.manifest.problems} == {"other"}
    remove_old(tmp_path / "b", daily=1, weekly=0)
    assert [each.name for each in read_catalog(tmp_path / "b").backups] == [first.name, second.name]


def test_a_damaged_part_of_media_is_left_out(tmp_path: Path, local: Local) -> None:
    """Of a full copy, and where commands since the last one put it: the manifest says so, the rest is backed up."""
    backup(local, tmp_path / "b")
    put(local, b"a file")
    [part] = local.store().blobs.directory.glob("*/*")
    part.write_bytes(b"a flea")
    taken = backup(local, tmp_path / "b")
    assert [each.what for each in taken.manifest.problems] == [f"the part {part.name} of a media is missing"]
    assert taken.states[DEFAULT_SCOPE].seq == local.store().seq


@pytest.mark.parametrize("step", ["copy_database", "copy_media"])
def test_a_scope_that_is_deleted_meanwhile_is_left_out(tmp_path: Path, local: Local, step: str) -> None:
    """In the middle of its copy; the others are backed up, and nothing is wrong."""
    save(local, 1)
    with local.scopes.use("ada") as store:
        store.blobs.put(b"part")

    with Worker() as worker:

        def delete_first(source: Path, *rest: Any) -> Any:
            if source in (local.scopes.scope_named("ada").path, local.scopes.scope_named("ada").media):
                local.scopes.admin("ada", HANDLERS).erase()
            return getattr(worker.work, step)(source, *rest)

        work = worker.work._replace(**{step: delete_first})
        taken = take_backup(local.scopes, tmp_path / "b", nothing, work=work)
        assert list(taken.states) == [DEFAULT_SCOPE]
        assert taken.manifest.problems == []
        assert sorted(each.name for each in taken.path.iterdir()) == ["default.db", "manifest.json"]


def test_a_scope_that_cannot_be_read_any_more_fails_alone(tmp_path: Path, local: Local) -> None:
    """Its log was damaged on the disk, so its latest commands are missing: the manifest says so, and has the others."""
    save(local, 1)
    save(local, 1, scope="ada")
    backup(local, tmp_path / "b")
    save(local, 2)
    save(local, 2, scope="ada")
    with local.scopes.use("ada") as store:
        log = store.path.with_name(f"{store.path.name}-wal")
        with log.open("r+b") as file:
            file.seek(HEADER_BYTES + FRAME_HEADER_BYTES + 100)
            file.write(b"damage")
        with pytest.raises(Storage, match="was damaged on the disk"):
            store.checkpoint_fully()
    with Worker() as worker:
        taken = take_backup(local.scopes, tmp_path / "b", nothing, work=worker.work)
    assert list(taken.states) == [DEFAULT_SCOPE]
    assert [(each.scope, "its write-ahead log is damaged" in each.what) for each in taken.manifest.problems] == [
        ("ada", True)
    ]


def test_a_scope_that_does_not_exist_is_said(tmp_path: Path, local: Local) -> None:
    """It is not created, and nothing is backed up."""
    with pytest.raises(CannotBackUp, match="no scope 'never'"):
        backup(local, tmp_path / "b", names=[DEFAULT_SCOPE, "never"])
    assert read_catalog(tmp_path / "b").backups == []


def test_a_copy_that_is_void_is_repeated_and_then_given_up(
    tmp_path: Path, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three attempts, and an error that says why."""
    save(local, *range(20))
    monkeypatch.setattr(store_module, "PAUSED_LOG_BYTES_MAX", 100_000)
    number, attempts = iter(range(1_000, 2_000)), list[str]()

    def write(step: str, *_: object) -> None:
        if step == "copying default.db":
            attempts.append(step)
            save(local, *[next(number) for _ in range(60)])
            local.store().checkpoint_due = True  # as after a thousand pages
            local.dispatcher.checkpoint(DEFAULT_SCOPE)

    with pytest.raises(CannotBackUp, match="3 attempts"):
        take_backup(local.scopes, tmp_path / "b", write)
    assert len(attempts) >= 3
    assert not list((tmp_path / "b").glob(".*"))


def test_a_media_that_is_deleted_meanwhile_is_in_the_backup(tmp_path: Path, local: Local) -> None:
    """The copied database names its parts, so their files stay until they are copied."""
    put(local, b"a file")
    done = threading.Event()

    def delete(step: str, *_: object) -> None:
        if "wal" in step and not done.is_set():
            done.set()
            local.result("delete-media", {"mediaId": local.result("list-media")[0]["id"]})

    taken = take_backup(local.scopes, tmp_path / "b", delete)
    assert done.is_set()
    assert taken.manifest.problems == []
    assert taken.manifest.scopes[0].media_parts == 1
    assert not list(local.store().blobs.directory.glob("*/*"))
