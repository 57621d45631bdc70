"""Queries that wait: how soon they are told of a commit, what they cost, and what bad ones do to others.

The many watchers are in a process of their own, each with a connection (`watchers.py`).
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import open_reply
from backscroll.schema import GetChanges, Health, Message, SaveMessage
from backscroll.schema.replies import ChangePage, HealthReport
from tests import ROOT
from tests.bench.bench import Bench
from tests.bench.daemon import QUIET, body_of, check_all_ok
from tests.bench.measuring import (
    Figure,
    Outcome,
    Row,
    Target,
    alternate,
    compare,
    missing,
    percentile,
    plain,
    processor_seconds,
)
from tests.bench.sockets import Dealer
from tests.bench.watchers import Watcher
from tests.support.peers import resident_bytes

WAIT_MS = 60_000
LONE_COMMITS = 20
COMMIT_SECONDS = 0.5  # between lone commits
BATCH = 256
TOLD = Target(1, at_least=False, unit="ms")
ALL_TOLD = Target(50, at_least=False, unit="ms")
IDLE = Target(0.5, at_least=False, unit="%")
RATE = Target(0.85)
SLOWEST = Target(3, at_least=False)
LARGE_TEXT = "x" * 20_000
NO_PROC = "only Linux tells a process's time and memory in /proc"


class Watched:
    """A daemon, a bare socket that saves, and what has been saved."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._process = DaemonProcess(bench.directory / name, *QUIET)
        self.endpoint = self._process.endpoint
        self.dealer = Dealer(self.endpoint)
        self.pid = int(json.loads((self._process.data_dir / "endpoint.json").read_text())["pid"])
        self._saved = 0

    def save(self, room: str = "a room", content: str = "hi") -> float:
        """Save one message; the seconds that took."""
        started = time.perf_counter()
        check_all_ok([self.dealer.ask(*self._next(room, content))])
        return time.perf_counter() - started

    def save_many(self, number: int) -> float:
        """The rate of saves with many in flight."""
        messages = [self._next(f"room {at % 50}", "hi") for at in range(number)]
        started = time.perf_counter()
        check_all_ok(self.dealer.exchange(messages, BATCH))
        return number / (time.perf_counter() - started)

    def waiting(self) -> int:
        reply, codec = open_reply(self.dealer.ask(body_of(Health())))
        return codec.decode(reply.result, HealthReport).queues["waiting"]

    def close(self) -> None:
        self.dealer.close()
        self._process.stop()

    def _next(self, room: str, content: str) -> tuple[bytes]:
        self._saved += 1
        message = Message(id=f"m{self._saved}", room_id=room, content=content, timestamp=self._saved)
        return (body_of(SaveMessage(message)),)


Load = Callable[[Watched], AbstractContextManager[None]]
"""Does something to a daemon while a block is executed."""


class Watchers:
    """The process with many watchers, each of which waits when this is made."""

    def __init__(self, watched: Watched, number: int) -> None:
        command = [sys.executable, "-m", "tests.bench.watchers", watched.endpoint, str(number), "0"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8", cwd=ROOT)
        self._readline()
        while watched.waiting() < number:
            time.sleep(0.01)

    def delays(self) -> list[float]:
        """How late, in ms, they were told of commits since the last report."""
        assert self._process.stdin is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._readline())
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _readline(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def watch(bench: Bench) -> Outcome:
    """One watcher is told of lone commits, then many are; then saves at full rate, with and without these."""
    sizes = bench.sizes
    if not sys.platform.startswith("linux"):
        return Outcome([], [missing("told of a commit, one watcher", "", TOLD, NO_PROC)])
    with closing(Watched(bench, "watch")) as watched:
        one = [_told(watched, sizes.single) for _ in range(sizes.rounds)]
        watched.save_many(sizes.pipelined)
        before = resident_bytes(watched.pid)
        with closing(Watchers(watched, sizes.watchers)) as watchers:
            kilobytes = (resident_bytes(watched.pid) - before) / sizes.watchers / 1_000
            idle = _idle_percent(watched, sizes.latency_seconds * 5)
            many = _told_many(watched, watchers, 2 if sizes.rounds == 1 else LONE_COMMITS)
        rates = _rates(watched, bench)
    name = f"{sizes.watchers:,} watchers"
    rows = [
        plain("told of a commit, one watcher", "", TOLD, one),
        plain(f"p99 told of a commit, {name}", "", ALL_TOLD, many),
        plain(f"processor while idle, {name}", "", IDLE, [idle]),
        compare(f"save-message, 256 in flight, {name}", "without them", RATE, rates["watched"], rates["alone"]),
    ]
    figures = [
        Figure("told of a commit, one watcher", "daemon, bare socket", "ms", one),
        *([Figure(f"memory of each of {name}", "daemon", "KB", [kilobytes])] if kilobytes > 0 else []),
        *(Figure("saves a second", name, "/s", rate) for name, rate in rates.items()),
    ]
    return Outcome(figures, rows)


def endure_watchers(bench: Bench) -> Outcome:
    """Another client's saves while a watcher does not read, many are gone, and one reads the whole feed at once."""
    loads: dict[str, Load] = {
        "a watcher that does not read": _unread,
        "queries of watchers that are gone": _gone,
        "a client that asks for the whole feed": _greedy,
    }
    figures: list[Figure] = []
    rows: list[Row] = []
    with closing(Watched(bench, "endure")) as watched:
        watched.save_many(bench.sizes.history)
        for what, load in loads.items():
            seconds = bench.sizes.latency_seconds
            jobs = {"quiet": partial(_p99, watched, seconds), what: partial(_p99_beside, load, watched, seconds)}
            found = alternate(jobs, bench.sizes.latency_rounds)
            rows.append(compare(f"p99 of saves beside {what}", "quiet p99", SLOWEST, found[what], found["quiet"]))
            figures += [Figure("p99 of a save of 20 KB", name, "s", each) for name, each in found.items()]
        if sys.platform.startswith("linux"):
            figures.append(Figure("memory afterwards", "daemon", "MB", [resident_bytes(watched.pid) / 1e6]))
    return Outcome(figures, rows)


def _told(watched: Watched, number: int) -> float:
    """The median time in ms from the reply to a save until a query that waited has its reply."""
    times: list[float] = []
    with closing(Dealer(watched.endpoint)) as dealer:
        cursor = _page(dealer.ask(body_of(GetChanges(after="now")))).cursor
        for _ in range(number):
            question = body_of(GetChanges(after=cursor, wait_ms=WAIT_MS))
            dealer.send(question)
            while not watched.waiting():
                time.sleep(0.0005)
            watched.save()
            saved = time.perf_counter()
            cursor = _page(dealer.receive()).cursor
            times.append((time.perf_counter() - saved) * 1000)
    return statistics.median(times)


def _told_many(watched: Watched, watchers: Watchers, commits: int) -> list[float]:
    """The p99 of the time in ms from the beginning of a commit until a watcher has read it, for each commit."""
    delays: list[float] = []
    watchers.delays()
    for _ in range(commits):
        watched.save()
        time.sleep(COMMIT_SECONDS)
        delays.append(percentile(watchers.delays(), 99))
    return delays


def _idle_percent(watched: Watched, seconds: float) -> float:
    before = processor_seconds(watched.pid)
    time.sleep(seconds)
    return (processor_seconds(watched.pid) - before) * 100 / seconds


def _rates(watched: Watched, bench: Bench) -> dict[str, list[float]]:
    def with_watchers(_number: int) -> float:
        with closing(Watchers(watched, bench.sizes.watchers)):
            return watched.save_many(bench.sizes.pipelined * 5)

    jobs = {"alone": lambda _number: watched.save_many(bench.sizes.pipelined * 5), "watched": with_watchers}
    return alternate(jobs, bench.sizes.rounds)


def _p99(watched: Watched, seconds: float, _number: int) -> float:
    """The p99 of saves for a time, one after the other."""
    until = time.monotonic() + seconds
    times: list[float] = []
    while time.monotonic() < until:
        times.append(watched.save(content=LARGE_TEXT))
    return percentile(times, 99)


def _p99_beside(load: Load, watched: Watched, seconds: float, number: int) -> float:
    with load(watched):
        return _p99(watched, seconds, number)


@contextmanager
def _unread(watched: Watched) -> Iterator[None]:
    """A connection with as many waiting queries as it may have, whose replies nobody reads."""
    watcher = _ready(watched, 0)
    for _ in range(64):
        watcher.ask(values=True)
    yield
    watcher.socket.close()


@contextmanager
def _gone(watched: Watched) -> Iterator[None]:
    """Connections that are closed while their queries wait."""
    for number in range(100):
        watcher = _ready(watched, number)
        for _ in range(64):
            watcher.ask()
        watcher.socket.close()
    yield


@contextmanager
def _greedy(watched: Watched) -> Iterator[None]:
    """A connection that asks for the largest pages from the first change on, many times at once."""
    watcher = Watcher(watched.endpoint, 0, 0)
    for _ in range(200):
        watcher.ask(after=None, values=True, limit=500)
    yield
    watcher.socket.close()


def _ready(watched: Watched, number: int) -> Watcher:
    """A watcher that knows the end of the feed."""
    watcher = Watcher(watched.endpoint, number, 0)
    watcher.ask()
    while not watcher.receive():
        pass
    return watcher


def _page(body: bytes) -> ChangePage:
    reply, codec = open_reply(body)
    assert reply.ok, reply.error
    return codec.decode(reply.result, ChangePage)
