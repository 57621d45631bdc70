"""The p99 latency of a reader while others keep the daemon busy, compared with its p99 when the daemon is idle.

The reader queries the newest page of rooms, one at a time, by a bare socket; quiet and busy periods alternate. The
daemon is kept busy by another client in a process of its own.
"""

import json
import statistics
import subprocess
import sys
import time
from contextlib import closing
from itertools import cycle
from pathlib import Path

import apsw

from backscroll.bus.query_cache import BYTES_MAX
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import open_reply
from backscroll.schema import Health, SaveMessage
from backscroll.schema.replies import HealthReport
from tests.bench import tables
from tests.bench.bench import Bench
from tests.bench.daemon import QUIET, body_of, check_all_ok, queries_of
from tests.bench.load import load
from tests.bench.measuring import Figure, Outcome, Target, alternate, compare, percentile, seconds
from tests.bench.reading import MESSAGES_OF_ROOM, ROOMS
from tests.bench.serving import COUNT
from tests.bench.sockets import Dealer
from tests.bench.work import Work, make_work

SYNC_MS = 20
SETTLE_SECONDS = 0.05
STEPS_TRIED = 1_000_000
NO_VFS, NO_STEPS = -1, 0
LESS_THAN_A_LIST = 2**20  # so that pages are cached and the list is not
SLOWEST = Target(3, at_least=False)
WITH = "quiet p99"


def wait_during_import(bench: Bench) -> Outcome:
    """Another client imports at full rate. Cached pages are those of a screen that is refreshed; others are new."""
    what = "reader's p99 during an import"
    with closing(Served(bench, "latency-import")) as served:
        kept = served.compare(what, "import")
    with closing(Served(bench, "latency-import-built", query_cache_bytes=0)) as served:
        built = served.compare(f"{what}, each page built", "import")
    return Outcome([*kept.figures, *built.figures], [*kept.rows, *built.rows])


def wait_during_statement(bench: Bench) -> Outcome:
    """Another client's query is a single statement that takes SQLite a second."""
    steps = _steps_of(1.0) if bench.sizes.latency_seconds >= 1 else STEPS_TRIED
    with closing(Served(bench, "latency-statement", steps=steps)) as served:
        return served.compare("reader's p99 during a 1-second statement", "statement")


def wait_during_list(bench: Bench) -> Outcome:
    """Another client's query is a long list that takes Python about a second."""
    with closing(Served(bench, "latency-list", users=bench.sizes.users, query_cache_bytes=LESS_THAN_A_LIST)) as served:
        return served.compare(f"reader's p99 during list-users of {bench.sizes.users:,}", "list-users")


def wait_during_syncs(bench: Bench) -> Outcome:
    """Each sync takes 20 ms more, and another client saves one message at a time, so that a sync is nearly always
    running.
    """
    with closing(Served(bench, "latency-sync", sync_ms=SYNC_MS)) as served:
        return served.compare(f"reader's p99 with {SYNC_MS} ms syncs", "save")


class Served:
    """A daemon for one workload, with the rooms that are read."""

    def __init__(
        self,
        bench: Bench,
        name: str,
        *,
        sync_ms: float = NO_VFS,
        steps: int = NO_STEPS,
        users: int = 0,
        query_cache_bytes: int = BYTES_MAX,
    ) -> None:
        directory = bench.directory / name
        self._sizes = bench.sizes
        self._work = make_work("latency", ROOMS * MESSAGES_OF_ROOM, ROOMS * 10, ROOMS)
        _fill(directory, self._work, users)
        command = [
            sys.executable,
            "-m",
            "tests.bench.serving",
            str(directory),
            *map(str, (sync_ms, steps, query_cache_bytes)),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        assert self._process.stdout is not None
        self._endpoint = json.loads(self._process.stdout.readline())["endpoints"][0]
        self._dealer = Dealer(self._endpoint)

    def compare(self, what: str, kind: str) -> Outcome:
        """The p99 under a load of this kind, compared with the p99 without."""
        pieces: list[float] = []

        def busy(_number: int) -> float:
            with load(self._endpoint, kind) as found:
                p99 = self._p99()
            self._settle()
            pieces.extend(found)
            return p99

        found = alternate({"quiet": lambda _number: self._p99(), "busy": busy}, self._sizes.latency_rounds)
        row = compare(what, WITH, SLOWEST, found["busy"], found["quiet"])
        figures = [Figure(what, name, "s", rounds) for name, rounds in found.items()]
        if pieces:
            figures.append(Figure(what, f"the other client: {kind}", "s each", [statistics.median(pieces)]))
        return Outcome(figures, [row])

    def _settle(self) -> None:
        """Wait until nothing is left of the load's requests."""
        while self._waiting():
            time.sleep(SETTLE_SECONDS)

    def _waiting(self) -> int:
        reply, codec = open_reply(self._dealer.ask(body_of(Health())))
        return codec.decode(reply.result, HealthReport).queues["requests"]

    def close(self) -> None:
        self._dealer.close()
        self._process.terminate()
        self._process.communicate()

    def _p99(self) -> float:
        """The p99 of a reader that runs for a fixed time."""
        queries, answer = cycle(queries_of(self._work, "get-messages")), b""
        times: list[float] = []
        until = time.perf_counter() + self._sizes.latency_seconds
        while not times or time.perf_counter() < until:
            body = body_of(next(queries))
            started = time.perf_counter()
            answer = self._dealer.ask(body)
            times.append(time.perf_counter() - started)
        check_all_ok([answer])
        return percentile(times, 99)


def _fill(directory: Path, work: Work, users: int) -> None:
    """A data directory with the rooms, and a number of users."""
    with DaemonProcess(directory, *QUIET) as daemon, closing(Dealer(daemon.endpoint)) as dealer:
        check_all_ok(dealer.exchange(([body_of(SaveMessage(message))] for message in work.messages), 256))
    with closing(tables.connect(directory / "default.db")) as connection, connection:
        rows = ((f"oder-{number:07}", f"id-{number}", f"user {number}", number) for number in range(users))
        connection.executemany(tables.insert("users", ["oder_id", "id", "username", "created_at"]), rows)


def _steps_of(duration: float) -> int:
    """The number of steps of the statement that take this long here."""
    with closing(apsw.Connection(":memory:")) as connection:
        took = seconds(lambda: connection.execute(COUNT, {"steps": STEPS_TRIED}).fetchall())
    return int(STEPS_TRIED * duration / took)
