"""What keeps data safe: checks, backups and their verification, by request or when one is due."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.stores import BackupPlan, Scopes
from backscroll.bus.tasks import Tasks
from backscroll.schema.errors import BackscrollError, Invalid, NotFound
from backscroll.schema.replies import Backup, Task, TaskList

WARNINGS = {
    (
        "check",
        "damaged",
    ): "the last check found damage; get-tasks says where. `backscroll repair` saves what it can",
    ("backup", "damaged"): "the last backup lacks what is damaged; get-tasks says what that is",
    ("verify-backup", "damaged"): "a backup that was verified is damaged; get-tasks says which. Make a new one",
}


class Schedule(NamedTuple):
    """When tasks begin by themselves, in milliseconds from one to the next, and which backups are kept.

    Without `backup_dir` no backups are made, and with `check_ms=0` no checks.
    """

    backup_dir: Path | None = None
    backup_ms: int = 0
    backups_daily: int = 7
    backups_weekly: int = 4
    check_ms: int = 0


class Upkeep:
    """The `Upkeep` that handlers get: it starts tasks on the scopes of a data directory."""

    def __init__(
        self,
        data_dir: Path,
        scopes: Scopes,
        schedule: Schedule = Schedule(),  # noqa: B008  # immutable
        *,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._data_dir = data_dir
        self._scopes = scopes
        self._schedule = schedule
        self._clock = clock
        self._tasks = Tasks(data_dir, scopes.wire_error, clock=clock)

    def check(self, scope: str | None = None) -> Task:
        maintenance = self._scopes.maintenance
        self._check_scope(scope)
        task = replace(self._task("check"), scope=scope)
        return self._tasks.start(task, partial(maintenance.check, scope), scheduled=scope is None)

    def back_up(self, directory: str | None = None, scope: str | None = None, *, full: bool = False) -> Task:
        maintenance = self._scopes.maintenance
        self._check_scope(scope)
        schedule = self._schedule
        plan = BackupPlan(self._directory(directory), full, schedule.backups_daily, schedule.backups_weekly)
        task = replace(self._task("backup"), scope=scope, directory=str(plan.directory))
        scheduled = scope is None and plan.directory == schedule.backup_dir
        return self._tasks.start(task, partial(maintenance.back_up, plan, scope), scheduled=scheduled)

    def verify(self, directory: str | None, name: str | None) -> Task:
        maintenance = self._scopes.maintenance
        backups = self._directory(directory)
        names = [backup.name for backup in maintenance.backups_in(backups)]
        if name is not None and name not in names:
            raise NotFound.at("$.payload.name", f"{backups} has no such backup; list-backups shows which it has")
        if not names:
            raise NotFound.at("$.payload.directory", f"{backups} has no backup that is complete")
        task = replace(self._task("verify-backup"), directory=str(backups), backup=name or names[-1])
        return self._tasks.start(task, partial(maintenance.verify_backup, backups, name))

    def backups(self, directory: str | None) -> list[Backup]:
        maintenance = self._scopes.maintenance
        return maintenance.backups_in(self._directory(directory))

    def tasks(self) -> TaskList:
        return self._tasks.list()

    def begin_due(self) -> None:
        """Start a check or a backup, if one is due."""
        intervals = {}
        if self._schedule.backup_dir is not None:
            intervals["backup"] = self._schedule.backup_ms
        if self._schedule.check_ms:
            intervals["check"] = self._schedule.check_ms
        with suppress(BackscrollError):  # another task has just begun
            match self._tasks.due(intervals):
                case "backup":
                    self.back_up()
                case "check":
                    self.check()

    def warnings(self) -> list[str]:
        """That the last tasks found damage or failed, for `health`. Names and paths are told to administrators only."""
        found = ((each.task, each.state) for each in self._tasks.list().last if each.state != "ok")
        return [WARNINGS.get(each, f"the last {each[0]} failed; get-tasks says why") for each in dict.fromkeys(found)]

    def stop(self) -> None:
        """End the running task."""
        self._tasks.stop()

    def _task(self, kind: str) -> Task:
        return Task(task=kind, state="running", started_at=self._clock())

    def _check_scope(self, scope: str | None) -> None:
        if scope is not None and not self._scopes.has_files(scope):
            raise NotFound.at("$.payload.scope", "there is no scope of this name")

    def _directory(self, named: str | None) -> Path:
        if named is None:
            if self._schedule.backup_dir is None:
                raise Invalid.at("$.payload.directory", "name a directory, or start the daemon with --backup-dir")
            return self._schedule.backup_dir
        if "\0" in named:
            raise Invalid.at("$.payload.directory", "no path has a NUL in it")
        directory = Path(named)
        if not directory.is_absolute():
            raise Invalid.at("$.payload.directory", "the path must be absolute: the daemon runs somewhere else")
        if directory.resolve().is_relative_to(self._data_dir.resolve()):
            raise Invalid.at("$.payload.directory", "backups must be outside of the data directory")
        return directory
