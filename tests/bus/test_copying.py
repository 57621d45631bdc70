"""Copies of a database in use, made by another process while checkpoints pause."""

import itertools
import random
import shutil
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import pytest

from backscroll.bus.files import make_directory
from backscroll.bus.inprocess import InProcess
from backscroll.bus.progress import Stopped
from backscroll.bus.sqlite import store as store_module
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.maintenance import copying
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, DamagedCopy, copy_database, copy_file
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers import HANDLERS
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.bus.test_crashes import FLAGS, at_work, check_copy, filled, is_past, seed_of, set_up
from tests.support.callers import Ledger
from tests.support.long_tasks import back_up
from tests.support.notes import say
from tests.support.tables import all_rows
from tests.support.waiting import wait_until


def nothing(*_: object) -> None:
    """Progress that nobody looks at."""


@pytest.mark.timeout(3_600)
def test_a_copy_under_full_load_has_all_acknowledged_commands(tmp_path: Path, long: bool) -> None:
    """A daemon's worker copies the files while callers write as fast as they can: the copy is intact, has every command
    that was acknowledged before it was begun, and repeats their replies.
    """
    seed = seed_of(long)
    draw = random.Random(seed)
    ledger, copies = Ledger(DEFAULT_SCOPE), 200 if long else 2
    with DaemonProcess(tmp_path / "d", *FLAGS) as daemon, Client(daemon.endpoint) as client:
        set_up(ledger, daemon.endpoint)
        with at_work(daemon.endpoint, [ledger], seed, bytes_max=40_000):
            for number in range(copies):
                wait_until(partial(is_past, [ledger], len(ledger.replies) + draw.randrange(100)))
                before, copy = dict(ledger.replies), tmp_path / f"copy-{number}"
                made = tmp_path / "b" / back_up(client, tmp_path / "b", full=True)
                make_directory(copy)
                (made / "default.db").rename(copy / "default.db")
                check_copy(copy, before, ledger, draw)
                shutil.rmtree(copy)
                shutil.rmtree(made)
        assert ledger.problems == []
    say(f"{copies} copies, {len(ledger.replies)} commands")


def test_no_checkpoint_changes_the_file_in_a_pause(tmp_path: Path) -> None:
    """Commits go on, into the log; the checkpoint that is due is made afterwards."""
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(10))
        with transport.scopes.copying(DEFAULT_SCOPE) as files:
            before = files.database.read_bytes()
            filled(transport, range(10, 500))
            assert files.database.read_bytes() == before
            assert files.end()
        filled(transport, range(500, 501))
        assert files.database.read_bytes() != before


@pytest.mark.parametrize("what", ["a long log", "a full disk", "compaction", "deletion", "another program"])
def test_a_copy_that_could_not_be_left_alone_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What cannot wait does not wait for a copy, and the copy says that it is to be repeated."""
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(300))
        with transport.scopes.copying(DEFAULT_SCOPE) as files:
            if what == "a long log":
                monkeypatch.setattr(store_module, "PAUSED_LOG_BYTES_MAX", 4_000_000)
                filled(transport, range(300, 700))
            elif what == "a full disk":
                monkeypatch.setattr(store_module, "PAUSED_DISK_BYTES_MIN", 2**60)
                filled(transport, range(300, 600))
            elif what == "compaction":
                transport.scopes.admin(DEFAULT_SCOPE, {}).compact()
            elif what == "deletion":
                transport.scopes.admin(DEFAULT_SCOPE, {}).erase()
            else:
                with closing(apsw.Connection(str(files.database))) as other:
                    other.execute("SELECT 1 FROM sqlite_schema").fetchall()
                    other.wal_checkpoint()
            assert not files.end()
        with transport.scopes.copying(DEFAULT_SCOPE) as files:
            assert files.end()


def test_a_scope_that_is_copied_is_not_closed(tmp_path: Path) -> None:
    """It counts as used, however long the copy takes."""
    with InProcess(tmp_path / "data") as transport:
        transport.scopes.open("other")
        with transport.scopes.copying("other") as files:
            transport.scopes.close_idle(-1)
            assert "other" in transport.scopes.open_names()
            assert files.end()
        transport.scopes.close_idle(-1)
        assert "other" not in transport.scopes.open_names()


def test_a_scope_without_files_is_not_made_by_copying(tmp_path: Path) -> None:
    """It is an error, and nothing is created."""
    with InProcess(tmp_path / "data") as transport:
        with pytest.raises(Exception, match="no scope"), transport.scopes.copying("never"):
            pass
        assert not transport.scopes.has_files("never")


def test_a_log_begun_anew_during_the_copy_is_copied_again(tmp_path: Path) -> None:
    """SQLite begins the log anew once in a pause, if it was in the database as a whole; the copy is complete anyway."""
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(20))
        store = transport.store
        store._checkpoint(apsw.SQLITE_CHECKPOINT_FULL)  # so that the next commit begins the log anew
        with transport.scopes.copying(DEFAULT_SCOPE) as files:
            begun: list[str] = []

            def write_meanwhile(step: str, *_: object) -> None:
                if "wal" in step and not begun:
                    begun.append(step)
                    filled(transport, range(20, 25))

            # copied by this process, which costs the daemon nothing but locks that nobody else asks for
            copy_database(files.database, tmp_path / "copy.db", write_meanwhile)
            assert begun
            assert files.end()
    assert {row[1] for row in all_rows(tmp_path / "copy.db")["commands"]} >= {f"save-{each}" for each in range(20)}


def test_without_a_pause_a_log_that_keeps_beginning_anew_is_an_error(tmp_path: Path) -> None:
    """It is said, instead of a copy that lacks pages."""
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(20))
        numbers = itertools.count(20)

        def restart(step: str, *_: object) -> None:
            if "wal" in step:
                transport.store._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART)
                filled(transport, range(number := next(numbers), number + 1))

        with pytest.raises(CannotCopy, match="begun anew"):
            copy_database(transport.store.path, tmp_path / "copy.db", restart)


@pytest.mark.parametrize("at", [0, 1])
def test_a_copy_can_be_stopped(tmp_path: Path, at: int) -> None:
    """What `progress` raises ends it between two pieces."""
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(300))
        steps = []

        def stop(step: str, *_: object) -> None:
            steps.append(step)
            if len(steps) > at:
                raise Stopped

        with pytest.raises(Stopped):
            copy_database(transport.store.path, tmp_path / "copy.db", stop)


def test_holes_of_a_file_stay_holes(tmp_path: Path) -> None:
    """A sparse file takes no more room in its copy."""
    source, target = tmp_path / "sparse", tmp_path / "copy"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(8 * 2**20)
        file.write(b"end")
        file.truncate(16 * 2**20)
    copy_file(source, target, nothing, "copying")
    assert target.stat().st_size == source.stat().st_size
    assert target.stat().st_blocks <= source.stat().st_blocks + 64
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("log_bytes", "rests"), [(None, 0), (100, 4), (2**20, 0)], ids=["no log", "short", "long"])
def test_a_copy_rests_while_commits_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_bytes: int | None, rests: int
) -> None:
    """After each piece, so that their syncs do not wait for it; unless the log is so long that the pause may end."""
    monkeypatch.setattr(copying, "HURRY_LOG_BYTES", 2**20)
    monkeypatch.setattr(copying, "_clone", lambda *_: False)  # which would leave nothing to copy
    rested: list[float] = []
    monkeypatch.setattr(time, "sleep", rested.append)
    source, log = tmp_path / "source", tmp_path / "log"
    source.write_bytes(random.Random(1).randbytes(4 * 2**20))
    if log_bytes is not None:
        log.write_bytes(bytes(log_bytes))
    copy_file(source, tmp_path / "copy", nothing, "copying", log)
    assert len(rested) == rests
    assert all(each > 0 for each in rested)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_copy_of_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    """It says that it is damaged, and is no error of SQLite, which another process could not pass on."""
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    with pytest.raises(DamagedCopy):
        copy_database(tmp_path / "a.db", tmp_path / "copy.db", nothing)


def test_a_copy_is_complete_without_a_log(tmp_path: Path) -> None:
    """It is of the same lineage, says that it was closed, and opens as the scope's database."""
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(5))
        lineage = transport.store._moment.lineage
        with transport.scopes.copying(DEFAULT_SCOPE, closed=True) as files:
            copy_database(files.database, tmp_path / "default.db", nothing)
            assert files.end()
    with closing(SqliteStore(tmp_path / "default.db", scope=DEFAULT_SCOPE)) as store:
        assert (store.seq, store._moment.lineage) == (5, lineage)


def test_no_part_of_media_is_removed_while_files_are_copied(tmp_path: Path) -> None:
    """A part that is removed meanwhile is gone for everybody else at once, and its file is gone afterwards, unless the
    part was put again.
    """
    blobs = BlobDirectory(tmp_path / "media")
    one, two = blobs.put(b"one"), blobs.put(b"two")
    with blobs.kept():
        with blobs.kept():
            blobs.remove(one)
            blobs.remove(two)
        assert len(list(blobs.directory.glob("*/*"))) == 2
        assert blobs.read(one) is None
        assert not blobs.put_again(one)
        assert blobs.put(b"two") == two
    assert [path.name for path in blobs.directory.glob("*/*")] == [two]
    assert blobs.read(two) == b"two"


@pytest.mark.parametrize("meanwhile", ["idle", "compaction"])
def test_parts_stay_when_their_scope_is_closed_meanwhile(tmp_path: Path, meanwhile: str) -> None:
    """A scope may be closed and opened again while its media are kept. A part that is removed before or after that
    keeps its file until the end; one that was removed and put again is kept for ever.
    """
    with closing(SqliteScopes(tmp_path)) as scopes:
        with scopes.use("ada") as store:
            one, two, three = (store.blobs.put(data) for data in (b"one", b"two", b"three"))
        with scopes.keeping_media("ada"):
            with scopes.use("ada") as store:
                store.blobs.remove(one)
                store.blobs.remove(two)
            if meanwhile == "idle":
                scopes.close_idle(0)
            else:
                scopes.admin("ada", HANDLERS).compact()
            assert scopes.store_if_open("ada") is None
            with scopes.use("ada") as store:
                store.blobs.remove(three)
                assert store.blobs.read(one) is None
                assert store.blobs.put(b"two") == two
            assert len(list(scopes.scope_named("ada").media.glob("*/*"))) == 3
        with scopes.use("ada") as store:
            assert [store.blobs.read(each) for each in (one, two, three)] == [None, b"two", None]


def test_media_of_a_deleted_scope_are_not_kept(tmp_path: Path) -> None:
    """What is put into a scope of the same name afterwards is another part, which stays."""
    with closing(SqliteScopes(tmp_path)) as scopes:
        with scopes.use("ada") as store:
            one = store.blobs.put(b"one")
        with scopes.keeping_media("ada"):
            with scopes.use("ada") as store:
                store.blobs.remove(one)
            scopes.admin("ada", HANDLERS).erase()
            with scopes.use("ada") as store:
                assert store.blobs.put(b"one") == one
        with scopes.use("ada") as store:
            assert store.blobs.read(one) == b"one"


def test_scopes_close_while_files_are_copied(tmp_path: Path) -> None:
    """Stopping does not wait for a copy, which is then void."""
    scopes = SqliteScopes(tmp_path)
    scopes.open(DEFAULT_SCOPE)
    with scopes.copying(DEFAULT_SCOPE) as files:
        thread = threading.Thread(target=scopes.close)
        started = time.monotonic()
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert time.monotonic() - started < 10
        assert not files.end()
