"""Long tasks of the daemon on whole databases: one at a time, in a thread of its own, by request or when one is due.

start-check ──▶ Tasks.start ──▶ thread: work(progress) ──▶ Outcome ──▶ the last task of its kind, kept in tasks.json
                                    │ progress(step, done, total)
get-tasks ◀── Tasks.list ◀──────────┘
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec.structs import replace

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.files import write_whole
from backscroll.bus.logging import log
from backscroll.bus.progress import Progress, Stopped
from backscroll.bus.stores import Outcome
from backscroll.schema.errors import BackscrollError, Busy, Unavailable
from backscroll.schema.replies import Task, TaskList

TASKS_FILE = "tasks.json"
PROBLEMS_MAX = 100
STOP_SECONDS = 10.0

Work = Callable[[Progress], Outcome]


class _Kept(msgspec.Struct, frozen=True, rename="camel"):
    """What outlives the daemon: since when tasks may be due (ms), and the last one of each kind."""

    since: int
    last: list[Task] = msgspec.field(default_factory=list)


@dataclass
class _Running:
    task: Task
    thread: threading.Thread
    stopping: threading.Event = field(default_factory=threading.Event)


class Tasks:
    """The tasks of one daemon. Safe to use from any thread. `explain` translates errors of the store for callers."""

    def __init__(
        self,
        data_dir: Path,
        explain: Callable[[Exception], BackscrollError | None],
        *,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._file = data_dir / TASKS_FILE
        self._explain = explain
        self._clock = clock
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._ended = False
        self._kept = self._read()

    def start(self, task: Task, work: Work) -> Task:
        """Start a task and return it; raises `Busy` while another is running."""
        with self._lock:
            if self._ended:
                raise Unavailable("the daemon is stopping")
            if self._running is not None:
                raise Busy(f"a {self._running.task.task} is running; wait until get-tasks shows no running task")
            running = _Running(task, threading.Thread(target=self._run, args=(work,), name="task", daemon=True))
            self._running = running
        running.thread.start()
        return task

    def list(self) -> TaskList:
        """The task that is running, if one is, and the last one of each kind."""
        with self._lock:
            return TaskList(running=self._running.task if self._running else None, last=self._kept.last)

    def last(self, kind: str) -> Task | None:
        """The last task of a kind that has ended."""
        return next((task for task in self._kept.last if task.task == kind), None)

    def is_due(self, kind: str, interval_ms: int) -> bool:
        """Whether so much time has passed since the last task of a kind began; before the first, since the first start.

        A last time in the future, from a clock that was ahead, counts as none.
        """
        if not self._file.exists():
            self._keep()  # a daemon that is started again counts from the first start
        now, last = self._clock(), self.last(kind)
        began = self._kept.since if last is None else last.started_at
        return self._running is None and not 0 <= now - began < interval_ms

    def stop(self) -> None:
        """End the running task, which has no result, and start no more."""
        with self._lock:
            self._ended, running = True, self._running
        if running is not None:
            running.stopping.set()
            running.thread.join(STOP_SECONDS)

    def _run(self, work: Work) -> None:
        running = self._running
        assert running is not None

        def progress(step: str, done: int, total: int | None) -> None:
            if running.stopping.is_set():
                raise Stopped
            running.task = replace(running.task, step=step, done=done, total=total)

        try:
            ended = self._ended_with(running.task, work(progress))
        except Stopped:
            ended = None
        except Exception as error:  # noqa: BLE001  # of whatever kind: it ends the task and not the daemon
            ended = self._failed(running.task, error)
        with self._lock:
            self._running = None
            if ended is not None:
                last = [ended, *(task for task in self._kept.last if task.task != ended.task)]
                self._kept = _Kept(self._kept.since, last)
        if ended is not None:
            self._keep()
            report = log.info if ended.state == "ok" else log.error
            report("task ended", task=ended.task, state=ended.state, message=ended.message, problems=ended.problems)

    def _ended_with(self, task: Task, outcome: Outcome) -> Task:
        more = len(outcome.problems) - PROBLEMS_MAX
        return self._end(
            task,
            state="damaged" if outcome.problems else "ok",
            problems=[*outcome.problems[:PROBLEMS_MAX], *([f"and {more} more"] if more > 0 else [])],
            message=outcome.message,
            backup=outcome.backup,
        )

    def _failed(self, task: Task, error: Exception) -> Task:
        explained = error if isinstance(error, BackscrollError) else self._explain(error)
        if explained is None:
            log.error("task failed because of a bug", task=task.task, exc_info=error)
        message = "it failed because of a bug in the daemon; see its log" if explained is None else explained.message
        return self._end(task, state="failed", message=message)

    def _end(self, task: Task, **fields: object) -> Task:
        return replace(task, ended_at=self._clock(), step=None, done=None, total=None, **fields)

    def _read(self) -> _Kept:
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        return _Kept(self._clock())

    def _keep(self) -> None:
        """Write what is to outlive the daemon; a directory that cannot be written keeps nothing."""
        with suppress(OSError):
            write_whole(self._file, msgspec.json.encode(self._kept))
