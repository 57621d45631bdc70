"""Backups of a daemon that saves meanwhile: how long its saves take, what a backup costs, and what an increment does.

Backups are full ones, of a scope with media. Periods with and without a backup alternate; each is as long as its
backup takes. The client saves by a bare socket, and asks in both kinds of periods equally often whether the end has
come.
"""

import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import PutMedia, PutMediaPart, SaveMessage
from backscroll.schema.operations import GetTasks, StartBackup
from tests.bench.bench import Bench
from tests.bench.daemon import QUIET, body_of, check_all_ok
from tests.bench.importing import history, import_messages
from tests.bench.measuring import (
    Figure,
    Outcome,
    Target,
    alternate,
    compare,
    peak_megabytes,
    percentile,
    plain,
    seconds,
)
from tests.bench.sockets import TIMEOUT_MS, Dealer
from tests.bench.work import stream

PART_BYTES = 2**20
PART_OF_MESSAGES = 850  # messages for each part of media: 100 MiB beside 500 MB of messages
IN_FLIGHT = (1, 256)
LOOK_SECONDS = 0.1
CHANGED = 1_000  # messages
AT_MOST = Target(1.5, at_least=False)
MINUTES = Target(180, at_least=False, unit="s")
LITTLE = Target(2, at_least=False)


def wait_during_backup(bench: Bench) -> Outcome:
    """The p99 of saves during backups, compared with that in the periods between them."""
    figures, rows = [], []
    with closing(Saved(bench.directory / "backup", bench.sizes.backed_up)) as saved:
        for in_flight in IN_FLIGHT:
            periods = Periods(saved, in_flight, bench.sizes.latency_seconds)
            found = alternate({"quiet": periods.quiet, "backup": periods.backup}, bench.sizes.latency_rounds)
            what = f"p99 of saves during a backup, {in_flight} in flight"
            figures += [Figure(what, name, "s", rounds) for name, rounds in found.items()]
            figures.append(Figure(f"backups with {in_flight} in flight", "daemon", "s each", periods.took[1:]))
            rows.append(compare(what, "between backups", AT_MOST, found["backup"], found["quiet"]))
    return Outcome(figures, rows)


def back_up_large_scope(bench: Bench) -> Outcome:
    """The time, bytes and memory of a backup of a large scope, and what an increment after it costs."""
    with closing(Saved(bench.directory / "backup-large", bench.sizes.backed_up_large)) as saved:
        full = seconds(saved.back_up)
        whole = _bytes_in(saved.backups)
        large = (saved.directory / "default.db").stat().st_size
        messages = history("changed", CHANGED)
        import_messages(saved.process.endpoint, messages)
        changed = sum(len(body_of(SaveMessage(message))) for message in messages)
        part = seconds(lambda: saved.back_up(full=False))
        added = _bytes_in(saved.backups) - whole
        what = f"{bench.sizes.backed_up_large:,} messages with media"
        figures = [
            Figure("the database", what, "MB", [large / 1e6]),
            Figure("full backup", what, "s", [full]),
            Figure("full backup", what, "MB", [whole / 1e6]),
            Figure("peak memory during backups", "the daemon", "MB", [peak_megabytes(saved.process.process.pid) or 0]),
            Figure("peak memory during backups", "their workers", "MB", [saved.worker_megabytes]),
            Figure(f"increment after {CHANGED:,} saves", what, "s", [part]),
            Figure(f"increment after {CHANGED:,} saves", what, "MB", [added / 1e6]),
        ]
        rows = [
            plain(f"full backup, {what}", "", MINUTES, [full]),
            compare(f"bytes of an increment after {CHANGED:,} saves", "their requests", LITTLE, [added], [changed]),
        ]
    return Outcome(figures, rows)


class Saved:
    """A daemon with a scope of so many messages, and media."""

    def __init__(self, directory: Path, messages: int) -> None:
        self.directory, self.backups = directory, directory.with_name(f"{directory.name}-backups")
        self.process = DaemonProcess(directory, *QUIET)
        self.client = Client(self.process.endpoint, timeout_ms=TIMEOUT_MS)
        self.worker_megabytes = 0.0
        import_messages(self.process.endpoint, history("large", messages))
        for _ in range(messages // PART_OF_MESSAGES):
            part = self.client.execute(PutMediaPart(os.urandom(PART_BYTES)))
            self.client.execute(PutMedia([part], mime="application/octet-stream"))

    def is_idle(self) -> bool:
        """Whether no backup is running; looks at the memory of the worker, too."""
        for child in _children(self.process.process.pid):
            self.worker_megabytes = max(self.worker_megabytes, peak_megabytes(child) or 0)
        return self.client.ask(GetTasks()).running is None

    def start(self, *, full: bool = True) -> None:
        self.client.execute(StartBackup(directory=str(self.backups), full=full))

    def back_up(self, *, full: bool = True) -> None:
        self.start(full=full)
        while not self.is_idle():
            time.sleep(LOOK_SECONDS)
        self.check()

    def check(self) -> None:
        """End the benchmark if the last backup failed, because errors are quick."""
        [last] = [task for task in self.client.ask(GetTasks()).last if task.task == "backup"]
        assert last.state == "ok", last

    def close(self) -> None:
        self.client.close()
        self.process.stop()


class Periods:
    """Periods of saving with so many in flight; each gives the p99."""

    def __init__(self, saved: Saved, in_flight: int, least_seconds: float) -> None:
        self._saved, self._in_flight = saved, in_flight
        self.took = [least_seconds]
        self._bodies = (body_of(SaveMessage(each)) for each in stream(f"during-{in_flight}", ["during"]))

    def quiet(self, _number: int) -> float:
        until = time.perf_counter() + self.took[-1]
        return self._p99(lambda: self._saved.is_idle() and time.perf_counter() > until)

    def backup(self, _number: int) -> float:
        started = time.perf_counter()
        self._saved.start()
        p99 = self._p99(self._saved.is_idle)
        self.took.append(time.perf_counter() - started)
        self._saved.check()
        shutil.rmtree(self._saved.backups)
        return p99

    def _p99(self, is_over: Callable[[], bool]) -> float:
        """Save until it is over."""
        times: list[float] = []
        sent: deque[float] = deque()
        replies: list[bytes] = []
        with closing(Dealer(self._saved.process.endpoint)) as dealer:
            look = time.perf_counter() + LOOK_SECONDS
            while True:
                now = time.perf_counter()
                if now > look:
                    if is_over():
                        break
                    look = time.perf_counter() + LOOK_SECONDS
                if len(sent) >= self._in_flight:
                    replies[:] = [dealer.receive()]
                    times.append(time.perf_counter() - sent.popleft())
                body = next(self._bodies)
                sent.append(time.perf_counter())
                dealer.send(body)
            while sent:
                replies[:] = [dealer.receive()]
                sent.popleft()
        check_all_ok(replies)
        return percentile(times, 99)


def _children(pid: int) -> list[int]:
    """The processes that a process has started; none where the system does not tell."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def _bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
