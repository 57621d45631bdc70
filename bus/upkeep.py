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
        self._check_scope(scope)
        return self._tasks.start(replace(self._task("check"), scope=scope), partial(self._scopes.check, scope))

    def back_up(self, directory: str | None = None, scope: str | None = None, *, full: bool = False) -> Task:
        self._check_scope(scope)
        schedule = self._schedule
        plan = BackupPlan(self._directory(directory), full, schedule.backups_daily, schedule.backups_weekly)
        task = replace(self._task("backup"), scope=scope, directory=str(plan.directory))
        return self._tasks.start(task, partial(self._scopes.back_up, plan, scope))

    def verify(self, directory: str | None, name: str | None) -> Task:
        backups = self._directory(directory)
        found = self._scopes.backups_in(backups)
        if not found or (name is not None and name not in {backup.name for backup in found}):
            raise NotFound.at("$.payload", f"{backups} has no backup {name or ''}; list-backups shows which there are")
        task = replace(self._task("verify-backup"), directory=str(backups), backup=name or found[-1].name)
        return self._tasks.start(task, partial(self._scopes.verify_backup, backups, name))

    def backups(self, directory: str | None) -> list[Backup]:
        return self._scopes.backups_in(self._directory(directory))

    def tasks(self) -> TaskList:
        return self._tasks.list()

    def begin_due(self) -> None:
        """Start a check or a backup, if one is due."""
        schedule = self._schedule
        with suppress(BackscrollError):  # another task has just begun
            if schedule.backup_dir is not None and self._tasks.is_due("backup", schedule.backup_ms):
                self.back_up()
            elif schedule.check_ms and self._tasks.is_due("check", schedule.check_ms):
                self.check()

    def warnings(self) -> list[str]:
        """What the last tasks found wrong, for `health`."""
        return [
            f"the last {task.task} ended as {task.state}: {task.message}; get-tasks has more"
            for task in self._tasks.list().last
            if task.state != "ok"
        ]

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
        directory = Path(named)
        if not directory.is_absolute():
            raise Invalid.at("$.payload.directory", "the path must be absolute: the daemon runs somewhere else")
        if directory.resolve().is_relative_to(self._data_dir.resolve()):
            raise Invalid.at("$.payload.directory", "backups must be outside of the data directory")
        return directory
