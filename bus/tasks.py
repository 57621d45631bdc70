"""Long tasks of the daemon on whole databases: one at a time, in a thread of its own, by request or when one is due.

start-check ──▶ Tasks.start ──▶ thread: work(progress) ──▶ Outcome ──▶ one of the last tasks, kept in tasks.json
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
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import BackscrollError, Busy, Unavailable
from backscroll.schema.replies import Task, TaskList

TASKS_FILE = "tasks.json"
PROBLEMS_MAX = 100
LAST_MAX = 20
STOP_SECONDS = 10.0

Work = Callable[[Progress], Outcome]


class _Kept(msgspec.Struct, frozen=True, rename="camel"):
    """What outlives the daemon: how tasks ended, the newest first; and for the schedule, in ms since the epoch, when
    the daemon was first started and when the last task of each kind began that counts for it.
    """

    since: int
    last: list[Task] = []
    began: dict[str, int] = {}


@dataclass
class _Running:
    task: Task
    scheduled: bool
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
        self._thread = threading.Thread()
        self._ended = False
        self._kept = self._read()

    def start(self, task: Task, work: Work, *, scheduled: bool = False) -> Task:
        """Start a task and return it; raises `Busy` while another is running.

        A `scheduled` one is what the schedule would begin, whoever asked for it: the next is due an interval later.
        """
        with self._lock:
            if self._ended:
                raise Unavailable("the daemon is stopping")
            if self._running is not None:
                raise Busy(f"a {self._running.task.task} is running; wait until get-tasks shows no running task")
            running = _Running(task, scheduled)
            self._thread = threading.Thread(target=self._run, args=(running, work), name="task", daemon=True)
            self._thread.start()
            self._running = running
        return task

    def list(self) -> TaskList:
        """The task that is running, if one is, and how the last ones ended."""
        with self._lock:
            return TaskList(running=self._running.task if self._running else None, last=self._kept.last)

    def due(self, intervals_ms: dict[str, int]) -> str | None:
        """The kind of task to begin now, by the intervals between those that are scheduled; None if there is none.

        It is one that began so long ago, and of several the one that began first. Before its first, a kind counts from
        the first start. A time in the future, from a clock that was ahead, counts as none.
        """
        if not self._file.exists():
            self._keep()  # a daemon that is started again counts from the first start
        now, kept = self._clock(), self._kept
        began = {kind: kept.began.get(kind, kept.since) for kind in intervals_ms}
        due = [kind for kind, interval_ms in intervals_ms.items() if not 0 <= now - began[kind] < interval_ms]
        return min(due, key=began.__getitem__, default=None) if self._running is None else None

    def stop(self) -> None:
        """End the running task, which has no result, and start no more."""
        with self._lock:
            self._ended, running = True, self._running
        if running is not None:
            running.stopping.set()
            self._thread.join(STOP_SECONDS)

    def _run(self, running: _Running, work: Work) -> None:
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
                self._kept = _with(ended, self._kept, scheduled=running.scheduled)
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
        with suppress(OSError, *DECODE_ERRORS):
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        return _Kept(self._clock())

    def _keep(self) -> None:
        """Write what is to outlive the daemon; a directory that cannot be written keeps nothing."""
        with suppress(OSError):
            write_whole(self._file, msgspec.json.encode(self._kept))


def _with(ended: Task, kept: _Kept, *, scheduled: bool) -> _Kept:
    """What is kept, with a task that has ended, in place of those of its kind that it says something newer of.

    A good check of one scope says nothing of the damage that was found in others.
    """
    others = [
        each
        for each in kept.last
        if each.task != ended.task
        or (ended.scope not in (None, each.scope) and (each.scope is None or each.state != "ok"))
    ]
    began = kept.began | {ended.task: ended.started_at} if scheduled else kept.began
    return _Kept(kept.since, [ended, *others][:LAST_MAX], began)
