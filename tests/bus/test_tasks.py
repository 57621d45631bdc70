"""Long tasks of the daemon: checks, backups and verifications, by request and by themselves."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backscroll.bus.files import free_bytes
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance.worker import Worker
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.stores import BackupPlan, Outcome
from backscroll.bus.tasks import LAST_MAX, TASKS_FILE, Tasks
from backscroll.bus.upkeep import Schedule, Upkeep
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers.storage import Retention
from backscroll.schema import SaveMessage
from backscroll.schema.errors import BackscrollError, Busy, Invalid, NotFound, Storage
from backscroll.schema.operations import (
    GetTasks,
    Health,
    ListBackups,
    StartBackup,
    StartBackupVerification,
    StartCheck,
)
from backscroll.schema.replies import Task
from tests.support.clocks import Clock
from tests.support.local import Local
from tests.support.long_tasks import back_up, ended
from tests.support.messages import message_record, save_payload
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
HOUR_MS = 3_600_000


def nothing(_error: Exception) -> BackscrollError | None:
    return None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tasks(tmp_path: Path, clock: Clock) -> Iterator[Tasks]:
    made = Tasks(tmp_path, nothing, clock=clock)
    yield made
    made.stop()


def task(kind: str = "check", at: int = 0) -> Task:
    return Task(task=kind, state="running", started_at=at)


def fill(client: Client, number: int = 20) -> None:
    for each in range(number):
        client.execute(SaveMessage(message_record(each)))


def damage(path: Path) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)


# One task at a time


def test_one_task_runs_at_a_time_and_tells_how_far_it_is(tasks: Tasks) -> None:
    """A second one is `busy` until the first has ended; its steps are seen meanwhile, and its end afterwards."""
    told, go_on = threading.Event(), threading.Event()

    def work(progress: Progress) -> Outcome:
        progress("reading", 3, 10)
        told.set()
        go_on.wait(10)
        return Outcome([], "all is well")

    tasks.start(task(), work)
    assert told.wait(10)
    running = tasks.list().running
    assert running is not None
    assert (running.step, running.done, running.total) == ("reading", 3, 10)
    with pytest.raises(Busy, match="a check is running"):
        tasks.start(task("backup"), work)
    go_on.set()
    wait_until(lambda: tasks.list().running is None)
    [last] = tasks.list().last
    assert (last.task, last.state, last.message, last.step) == ("check", "ok", "all is well", None)


@pytest.mark.parametrize(
    ("result", "state", "message"),
    [
        (Outcome(["default.db: a page"], "1 problem"), "damaged", "1 problem"),
        (Storage("the disk is full"), "failed", "the disk is full"),
        (KeyError("x"), "failed", "it failed because of a bug in the daemon; see its log"),
    ],
    ids=["damaged", "failed", "bug"],
)
def test_how_a_task_ended_is_kept(
    tasks: Tasks, tmp_path: Path, clock: Clock, result: Any, state: str, message: str
) -> None:
    """Also for the next daemon; a task that fails, for whatever reason, ends itself and nothing else."""

    def work(_progress: Progress) -> Outcome:
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Outcome)
        return result

    tasks.start(task(), work)
    wait_until(lambda: tasks.list().running is None and (tmp_path / TASKS_FILE).exists())
    for each in (tasks, Tasks(tmp_path, nothing, clock=clock)):
        [last] = each.list().last
        assert (last.state, last.message, last.ended_at) == (state, message, clock.now)


def test_a_task_that_is_stopped_has_no_result(tasks: Tasks) -> None:
    """The daemon does not wait for its end, and the last result stays what it was."""
    started = threading.Event()

    def work(progress: Progress) -> Outcome:
        while True:
            started.set()
            progress("reading", 0, None)

    tasks.start(task(), work)
    assert started.wait(10)
    tasks.stop()
    assert tasks.list().running is None
    assert tasks.list().last == []


def test_problems_are_bounded(tasks: Tasks) -> None:
    """A task tells a hundred of them, and how many there are besides."""
    tasks.start(task(), lambda _progress: Outcome([str(number) for number in range(250)], "250 problems"))
    wait_until(lambda: tasks.list().running is None)
    [last] = tasks.list().last
    assert last.problems is not None
    assert (len(last.problems), last.problems[-1]) == (101, "and 150 more")


def test_tasks_are_due_an_interval_after_the_last_one(tmp_path: Path, clock: Clock) -> None:
    """Before the first one, after the first start. Those that are not scheduled do not count, nor does a time in the
    future.
    """
    for _ in range(2):  # a daemon that is started again goes on counting
        tasks = Tasks(tmp_path, nothing, clock=clock)
        assert tasks.due({"check": 10}) is None
        clock.now += 6
    for scheduled, due in ((False, "check"), (True, None)):
        assert tasks.due({"check": 10}) == "check"
        tasks.start(task(at=clock.now), lambda _progress: Outcome([], ""), scheduled=scheduled)
        wait_until(lambda: tasks.list().running is None)
        assert tasks.due({"check": 10}) == due
    clock.now += 10
    assert tasks.due({"check": 10}) == "check"
    clock.now -= 1_000
    assert tasks.due({"check": 10}) == "check"


@pytest.mark.parametrize("content", [b"{", b'{"since": 1, "last": [{"task": "\xff"}]}', b"[" * 100_000])
def test_a_damaged_list_of_tasks_counts_as_none(tmp_path: Path, clock: Clock, content: bytes) -> None:
    """Whatever is in the file, the daemon starts."""
    (tmp_path / TASKS_FILE).write_bytes(content)
    assert Tasks(tmp_path, nothing, clock=clock).list().last == []


def test_a_task_of_one_scope_tells_nothing_of_others(tasks: Tasks) -> None:
    """Damage that was found is told until a later task of that scope, or of all, finds none. The list is bounded."""

    def run(scope: str | None, *problems: str) -> list[tuple[str | None, str]]:
        made = replace(task(), scope=scope)
        tasks.start(made, lambda _progress: Outcome(list(problems), ""))
        wait_until(lambda: tasks.list().running is None)
        return [(each.scope, each.state) for each in tasks.list().last]

    assert run(None, "a page") == [(None, "damaged")]
    assert run("ada") == [("ada", "ok"), (None, "damaged")]
    assert run("bo", "a row") == [("bo", "damaged"), (None, "damaged")]
    assert run("ada") == [("ada", "ok"), ("bo", "damaged"), (None, "damaged")]
    assert run("bo") == [("bo", "ok"), (None, "damaged")]
    assert run(None) == [(None, "ok")]
    for number in range(LAST_MAX + 5):
        found = run(str(number), "a row")
    assert len(found) == LAST_MAX


# What a schedule begins


def test_backups_and_checks_begin_by_themselves(tmp_path: Path, clock: Clock) -> None:
    """A backup each hour and a check every two hours, one after the other."""
    with closing(SqliteScopes(tmp_path / "data", clock=clock)) as scopes:
        scopes.open("default")
        schedule = Schedule(tmp_path / "backups", HOUR_MS, check_ms=2 * HOUR_MS)
        upkeep = Upkeep(tmp_path / "data", scopes, schedule, clock=clock)
        hours: dict[str, list[int]] = {"backup": [], "check": []}
        for hour in range(1, 5):
            clock.now += HOUR_MS
            for _ in range(2):
                upkeep.begin_due()
                wait_until(lambda: upkeep.tasks().running is None)
            for last in upkeep.tasks().last:
                assert last.state == "ok", last
                if last.started_at == clock.now:
                    hours[last.task].append(hour)
        upkeep.stop()
        assert hours == {"backup": [1, 2, 3, 4], "check": [2, 4]}
        names = upkeep.backups(None)
        assert {each.incremental for each in names} == {True, False}


def test_no_task_keeps_another_from_its_turn(tmp_path: Path, clock: Clock) -> None:
    """Also where backups take longer than the time between them, a check begins when it is due."""
    with closing(SqliteScopes(tmp_path / "data", clock=clock)) as scopes:
        scopes.open("default")
        upkeep = Upkeep(tmp_path / "data", scopes, Schedule(tmp_path / "backups", 1_000, check_ms=5_000), clock=clock)
        upkeep.begin_due()
        for _ in range(6):
            clock.now += 1_500
            upkeep.begin_due()
            wait_until(lambda: upkeep.tasks().running is None)
        assert {each.task for each in upkeep.tasks().last} == {"backup", "check"}
        upkeep.stop()


def test_other_tasks_do_not_take_the_place_of_scheduled_ones(tmp_path: Path, clock: Clock) -> None:
    """Whoever backs up one scope, or into another directory, more often than the schedule does."""
    with closing(SqliteScopes(tmp_path / "data", clock=clock)) as scopes:
        scopes.open("ada")
        upkeep = Upkeep(tmp_path / "data", scopes, Schedule(tmp_path / "backups", 1_000), clock=clock)
        upkeep.begin_due()
        for directory, scope in ((tmp_path / "backups", "ada"), (tmp_path / "others", None)):
            clock.now += 900
            upkeep.back_up(str(directory), scope)
            wait_until(lambda: upkeep.tasks().running is None)
        upkeep.begin_due()
        wait_until(lambda: upkeep.tasks().running is None)
        [last, *_] = upkeep.tasks().last
        assert (last.started_at, last.scope, last.directory) == (clock.now, None, str(tmp_path / "backups"))
        upkeep.stop()


# In a daemon


def test_a_daemon_checks_backs_up_and_verifies(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """While it serves; the second backup has only what changed, and both are listed."""
    daemon, directory = start_daemon(), str(tmp_path / "backups")
    with Client(data_dir=daemon.data_dir) as client, Client(data_dir=daemon.data_dir, scope="ada") as other:
        fill(client)
        fill(other)
        assert client.execute(StartCheck()).state == "running"
        checked = ended(client, "check")
        assert (checked.state, checked.problems) == ("ok", [])
        assert "2 scopes" in (checked.message or "")
        for expected in (False, True):
            back_up(client, tmp_path / "backups")
            assert client.execute(ListBackups(directory=directory))[-1].incremental is expected
            fill(client, 3)
        first, second = client.execute(ListBackups(directory=directory))
        assert second.bytes < first.bytes
        assert client.execute(ListBackups(directory=directory, limit=1)) == [first]
        assert client.execute(ListBackups(directory=directory, after=first.name)) == [second]
        client.execute(StartBackupVerification(directory=directory))
        assert ended(client, "verify-backup").backup == second.name
        assert client.ask(Health()).storage.warnings == []


def test_damage_is_told_by_the_check_and_by_health(start_daemon: StartDaemon) -> None:
    """The file is named, and `health` warns until a later check finds everything whole."""
    daemon = start_daemon()
    with Client(data_dir=daemon.data_dir) as client:
        fill(client, 500)
    daemon.stop()
    damage(daemon.data_dir / "default.db")
    daemon = start_daemon()
    with Client(data_dir=daemon.data_dir) as client:
        client.execute(StartCheck())
        found = ended(client, "check")
        assert found.state == "damaged"
        assert any("default.db: 1 of" in problem for problem in found.problems or [])
        [warning] = client.ask(Health()).storage.warnings or []
        assert warning.startswith("the last check found damage")


def test_what_cannot_begin_is_refused(start_daemon: StartDaemon) -> None:
    """At once, with the field, and nothing is changed. Backups inside the data directory would be lost with it, and
    each would hold the ones before.
    """
    daemon = start_daemon()
    inside = str(daemon.data_dir / "backups")
    cases: list[tuple[Any, type[BackscrollError], str]] = [
        (StartCheck(scope="nobody"), NotFound, "$.payload.scope: "),
        (StartBackup(), Invalid, "$.payload.directory: "),
        (StartBackup(directory="backups"), Invalid, "$.payload.directory: "),
        (StartBackup(directory="/back\0ups"), Invalid, "$.payload.directory: "),
        (StartBackup(directory=inside), Invalid, "$.payload.directory: backups must be outside of the data directory"),
        (StartBackupVerification(directory="/nowhere"), NotFound, "$.payload.directory: "),
        (ListBackups(directory="/nowhere"), NotFound, "$.payload.directory: "),
    ]
    with Client(data_dir=daemon.data_dir) as client:
        for command, error, words in cases:
            with pytest.raises(error, match=re.escape(words)):
                client.execute(command)
        assert client.ask(GetTasks()).last == []


def test_a_daemon_that_is_stopped_ends_its_task(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Nothing of an unfinished backup or check is left after the next one."""
    daemon = start_daemon()
    with Client(data_dir=daemon.data_dir) as client:
        fill(client, 300)
        client.execute(StartBackup(directory=str(tmp_path / "backups")))
    daemon.kill()
    daemon = start_daemon()
    with Client(data_dir=daemon.data_dir) as client:
        back_up(client, tmp_path / "backups")
        assert not list((tmp_path / "backups").glob(".*"))
    daemon.stop()
    assert not list(daemon.data_dir.glob("checking-*"))


# What is wrong with one scope says nothing of the others


def test_a_scope_that_cannot_be_checked_hides_no_damage(tmp_path: Path) -> None:
    """What the others have is told, and so is why it was not checked; if nothing else is wrong, the check failed."""
    with closing(SqliteScopes(tmp_path)) as scopes:
        scopes.open("default")
        scopes.open("ada")
    with closing(SqliteScopes(tmp_path)) as scopes:
        large = scopes.scope_named("ada").path
        with large.open("ab") as file:
            file.truncate(free_bytes(tmp_path) or 0)  # a hole
        with pytest.raises(Storage, match=r"1 scope could not be; scopes/.*bytes for copies"):
            scopes.check(None, lambda *_: None)
        damage(tmp_path / "default.db")
        outcome = scopes.check(None, lambda *_: None)
    assert outcome.problems[0].startswith("default.db: 1 of")
    assert "1 scope could not be; scopes/" in outcome.message


def test_the_summary_of_a_check_is_bounded(tmp_path: Path) -> None:
    """However many scopes have something to say."""
    with Local(tmp_path, retention=Retention(payloads=False)) as local:
        for number in range(6):
            local.result("save-message", save_payload(1), scope=f"{number}")
        message = local.scopes.check(None, lambda *_: None).message
    assert message.count("logged without their payload") == 3
    assert message.endswith("and so for 3 more")


def test_the_newest_backup_is_not_taken_for_an_earlier_one(tmp_path: Path, clock: Clock) -> None:
    """If its manifest is damaged, verifying the newest says so, although the one before is whole."""
    with closing(SqliteScopes(tmp_path / "data", clock=clock)) as scopes:
        scopes.open("default")
        for _ in range(2):
            scopes.back_up(BackupPlan(tmp_path / "backups"), None, lambda *_: None)
            clock.now += 24 * HOUR_MS
        earlier, newest = sorted((tmp_path / "backups").glob("*Z"))
        damage(newest / "manifest.json")
        outcome = scopes.verify_backup(tmp_path / "backups", None, lambda *_: None)
        assert outcome.backup == earlier.name
        [problem] = outcome.problems
        assert problem.startswith(f"{newest.name}/manifest.json: ")
        assert scopes.verify_backup(tmp_path / "backups", earlier.name, lambda *_: None).problems == []


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """In the error of a backup: it is not the data directory that cannot be written."""
    (tmp_path / "file").write_text("")
    with closing(SqliteScopes(tmp_path / "data")) as scopes:
        scopes.open("default")
        with pytest.raises(Storage, match=r"directory of backups .*/file/backups cannot be used"):
            scopes.back_up(BackupPlan(tmp_path / "file" / "backups"), None, lambda *_: None)


# The process that works on copies


def test_a_worker_raises_what_its_function_raises(tmp_path: Path) -> None:
    """And does the next job after it."""
    with Worker() as worker:
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="No such file"):
                worker.do("hash_file", tmp_path / "none", progress=lambda *_: None)
        (tmp_path / "file").write_bytes(b"abc")
        assert worker.do("hash_file", tmp_path / "file", progress=lambda *_: None).bytes == 3


def has_ended(pid: int) -> bool:
    """Whether a child process has ended; leaves its exit code to its parent."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_a_worker_that_is_killed_is_an_error(tmp_path: Path) -> None:
    """With its exit code; the daemon does not end, and the next job starts another one. Until it is killed, a worker
    takes the processor time that nobody else wants.
    """
    (tmp_path / "file").write_bytes(b"abc")
    with Worker() as worker:
        worker.do("hash_file", tmp_path / "file", progress=lambda *_: None)
        assert worker.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) == 19
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(partial(has_ended, worker.pid))
        with pytest.raises(Storage, match="ended with exit code -9"):
            worker.do("hash_file", tmp_path / "file", progress=lambda *_: None)
        assert worker.do("hash_file", tmp_path / "file", progress=lambda *_: None).bytes == 3


def test_a_worker_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon may be started in a directory that others can write."""
    (tmp_path / "msgspec.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with Worker() as worker:
        assert worker.do("hash_file", tmp_path / "msgspec.py", progress=lambda *_: None).bytes == 19


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """However that ends: its input is closed."""
    worker = Worker()
    (tmp_path / "file").write_bytes(b"abc")
    worker.do("hash_file", tmp_path / "file", progress=lambda *_: None)
    process = worker._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    worker.close()
