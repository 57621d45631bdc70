"""Workloads of a store in PostgreSQL: beside SQLite in the same run, and beside psycopg with the same statements.

The server is started for the run, on the disk where the files of SQLite are, and makes every commit durable (`fsync`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from math import ceil
from typing import Any

import psycopg

from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import DEFAULT_SCOPE, Call
from backscroll.schema import SaveMessage
from tests.bench.bench import Bench
from tests.bench.daemon import CACHE_OFF, QUIET, body_of, check_all_ok, page_in, queries_of
from tests.bench.importing import history, import_messages
from tests.bench.measuring import Figure, Outcome, Target, alternate, compare, seconds
from tests.bench.psycopg_program import ByHand, Recorder
from tests.bench.reading import MESSAGES_OF_ROOM, ROOMS
from tests.bench.sockets import TIMEOUT_MS, Dealer
from tests.bench.work import PAGE, Work, expected_pages, make_work
from tests.support.postgresql import Server, started

DURABLE = """
max_connections = 120
shared_buffers = 256MB
max_wal_size = 4GB
log_min_messages = fatal
"""
ONE_SCOPE, SCOPES = 1, 64  # more than a daemon on files keeps open
IN_FLIGHT, READ_IN_FLIGHT = 256, 32
SQLITE, ONE, TWO, UNCACHED = "SQLite", "one daemon", "two daemons", "one daemon without its cache"
BY_HAND, IN_PIPELINE = "psycopg, the same statements", "psycopg in pipeline mode"
OPERATION = "get-message-page"


class Daemons:
    """Daemons on the same data, each with a bare socket; requests are distributed over them in turn."""

    def __init__(self, *processes: DaemonProcess) -> None:
        self.processes = processes
        self._dealers = [Dealer(process.endpoint) for process in processes]
        self._threads = ThreadPoolExecutor(len(processes))

    def exchange(self, bodies: Sequence[bytes], in_flight: int) -> list[bytes]:
        """The replies of each daemon in the order they came, one daemon after the other."""
        number = len(self._dealers)
        shares = [[[body] for body in bodies[at::number]] for at in range(number)]
        exchanges = [dealer.exchange for dealer in self._dealers]
        each = max(1, in_flight // number)
        found = list(self._threads.map(lambda exchange, share: exchange(share, each), exchanges, shares))
        return [reply for replies in found for reply in replies]

    def timed(self, bodies: Sequence[bytes], in_flight: int) -> float:
        """The seconds that an exchange takes, all of which must succeed."""
        replies: list[bytes] = []
        took = seconds(lambda: replies.extend(self.exchange(bodies, in_flight)))
        check_all_ok(replies)
        return took

    def close(self) -> None:
        self._threads.shutdown()
        for dealer in self._dealers:
            dealer.close()
        for process in self.processes:
            process.stop()


def on_postgresql(bench: Bench) -> Outcome:
    """Saves, pages and an import, with 1 and 64 scopes, and with one and two daemons on one database."""
    with ExitStack() as stack:
        server = stack.enter_context(started(DURABLE, bench.directory))
        measure = _Measuring(bench, server, stack)
        outcomes = [measure.saves(1), measure.saves(IN_FLIGHT), measure.pages(1), measure.pages(READ_IN_FLIGHT)]
        outcomes.append(measure.imports())
    figures, rows = ([each for found in lists for each in found] for lists in zip(*outcomes, strict=True))
    return Outcome(figures, rows)


class _Measuring:
    """The peers of one run."""

    def __init__(self, bench: Bench, server: Server, stack: ExitStack) -> None:
        self._bench, self._server, self._stack = bench, server, stack
        self._directory = bench.directory / "on-postgresql"
        database = self._database()
        self._database_of_daemons = database
        one = self._daemon("one", "--store", database)
        self.daemons = {
            SQLITE: self._daemons(self._daemon("files")),
            ONE: self._daemons(one),
            TWO: self._daemons(one, self._daemon("two", "--store", database)),
            UNCACHED: self._daemons(self._daemon("uncached", "--store", database, *CACHE_OFF)),
        }

    def _database(self) -> str:
        return self._stack.enter_context(self._server.database())

    def _daemon(self, name: str, *flags: str) -> DaemonProcess:
        return DaemonProcess(self._directory / name, *QUIET, *flags)

    def _daemons(self, *processes: DaemonProcess) -> Daemons:
        return self._stack.enter_context(closing(Daemons(*processes)))

    def _recorder(self, name: str, database: str) -> Recorder:
        return self._stack.enter_context(closing(Recorder(self._directory / f"recorder {name}", database)))

    def _by_hand(self, database: str) -> ByHand:
        return self._stack.enter_context(closing(ByHand(database)))

    # Saves

    def saves(self, in_flight: int) -> Outcome:
        """One scope and many; the program in psycopg has as many commands in a transaction as the daemon had."""
        what = f"saves, PostgreSQL, {in_flight} in flight"
        count = self._bench.sizes.single if in_flight == 1 else self._bench.sizes.pipelined
        group = self._group(in_flight, count)
        ways = [(SQLITE, ONE_SCOPE), (ONE, ONE_SCOPE)]
        if in_flight > 1:
            ways += [(SQLITE, SCOPES), (ONE, SCOPES), (TWO, ONE_SCOPE), (TWO, SCOPES)]
        jobs = {self._titled(*way): self._saving(*way, in_flight, count) for way in ways}
        recorder = self._recorder(what, self._database())
        by_hand, pipelined = self._by_hand(self._database()), self._by_hand(self._database())
        recordings: dict[int, Any] = {}

        def recording(number: int) -> Any:
            if number not in recordings:
                recordings[number] = recorder.saves(self._commands(f"hand {in_flight}", number, count), group)
            return recordings[number]

        jobs[BY_HAND] = lambda number: count / by_hand.repeat(recording(number))
        jobs[IN_PIPELINE] = lambda number: count / pipelined.repeat_in_pipeline(recording(number))
        rates = alternate(jobs, self._bench.sizes.rounds)
        rows = [compare(what, BY_HAND, Target(0.7), rates[self._titled(ONE, ONE_SCOPE)], rates[BY_HAND])]
        figures = [Figure(what, name, "messages/s", found) for name, found in rates.items()]
        return Outcome([*figures, Figure(what, "of one daemon", "in a transaction", [group])], rows)

    @staticmethod
    def _titled(name: str, scopes: int) -> str:
        return name if scopes == ONE_SCOPE else f"{name}, {scopes} scopes"

    @staticmethod
    def _commands(name: str, number: int, count: int) -> list[SaveMessage]:
        return [SaveMessage(message) for message in make_work(f"{name} {number}", count, rooms=ROOMS).messages]

    def _saving(self, name: str, scopes: int, in_flight: int, count: int) -> Callable[[int], float]:
        names = [DEFAULT_SCOPE, *(f"scope{at}" for at in range(1, scopes))]

        def save(number: int) -> float:
            commands = self._commands(f"{name} {scopes} {in_flight}", number, count)
            calls = [
                Call(each, scope=names[at % scopes], timeout_ms=TIMEOUT_MS).body for at, each in enumerate(commands)
            ]
            return count / self.daemons[name].timed(calls, in_flight)

        return save

    def _group(self, in_flight: int, count: int) -> int:
        """How many commands the daemon executes in a transaction, on the average."""
        self._saving(ONE, ONE_SCOPE, in_flight, count)(-1)
        address = self._database_of_daemons.replace("//backscroll@", "//postgres@")
        with psycopg.connect(address) as connection:
            newest = (
                f"SELECT xmin::text AS x FROM commands WHERE scope = '{DEFAULT_SCOPE}' ORDER BY seq DESC LIMIT {count}"
            )
            [(transactions,)] = connection.execute(f"SELECT count(DISTINCT x) FROM ({newest}) AS c").fetchall()
        return ceil(count / int(transactions))

    # Pages

    def pages(self, in_flight: int) -> Outcome:
        """The newest 50 messages of rooms."""
        what = f"{OPERATION}, PostgreSQL, {in_flight} in flight"
        visits = self._bench.sizes.single_pages if in_flight == 1 else self._bench.sizes.pages
        rooms = make_work(f"pages {in_flight}", ROOMS * MESSAGES_OF_ROOM, visits, ROOMS)
        saves = [SaveMessage(message) for message in rooms.messages]
        for name in (SQLITE, ONE):
            self.daemons[name].timed([body_of(each) for each in saves], IN_FLIGHT)
        self._check_pages(rooms)
        database = self._database()
        recorder = self._recorder(what, database)
        recorder.saves(saves, IN_FLIGHT)
        recording = recorder.reads(queries_of(rooms, OPERATION))
        by_hand = self._by_hand(database)
        jobs: dict[str, Callable[[int], float]] = {
            name: partial(self._pages_per_second, name, rooms, in_flight) for name in self.daemons
        }
        jobs[BY_HAND] = lambda _number: visits / by_hand.repeat(recording)
        rates = alternate(jobs, self._bench.sizes.rounds)
        rows = [compare(what, BY_HAND, Target(1.0), rates[ONE], rates[BY_HAND])]
        return Outcome([Figure(what, name, "pages/s", found) for name, found in rates.items()], rows)

    def _pages_per_second(self, name: str, rooms: Work, in_flight: int, _number: int) -> float:
        bodies = [body_of(query) for query in queries_of(rooms, OPERATION)]
        return len(bodies) / self.daemons[name].timed(bodies, in_flight)

    def _check_pages(self, rooms: Work) -> None:
        """All daemons must read back what was saved."""
        visits = [body_of(query) for query in queries_of(rooms._replace(visits=rooms.rooms), "get-messages")]
        for daemons in self.daemons.values():
            found = [page_in(reply) for body in visits for reply in daemons.exchange([body], 1)]
            assert found == expected_pages(rooms), "other pages than were saved"
        assert len(expected_pages(rooms)[0]) == PAGE

    # Import

    def imports(self) -> Outcome:
        """A history in batches by one client."""
        count = self._bench.sizes.imported // 4
        what = f"import of {count:,} messages, PostgreSQL"
        jobs = {name: partial(self._imported_per_second, name, count) for name in (SQLITE, ONE)}
        rates = alternate(jobs, self._bench.sizes.import_rounds)
        return Outcome([Figure(what, name, "messages/s", found) for name, found in rates.items()], [])

    def _imported_per_second(self, name: str, count: int, number: int) -> float:
        endpoint = self.daemons[name].processes[0].endpoint
        return count / import_messages(endpoint, history(f"{name} {number}", count))
