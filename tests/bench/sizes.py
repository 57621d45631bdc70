"""A file of a million messages: its pages compared with those of a small file, its start, and its memory.

The files are written by SQLite alone, into the tables that a daemon created, in the order in which a chat grows: by
time, with the rooms in turn, so that the rows of a room are spread over the file. Rooms have the same size in both.
"""

import random
import statistics
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from backscroll.bus.sqlite.checksums import has_checksums
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessagePage, SaveMessage
from tests.bench import tables
from tests.bench.bench import Bench
from tests.bench.daemon import CACHE_OFF, QUIET, body_of, check_all_ok
from tests.bench.importing import history
from tests.bench.measuring import (
    Figure,
    Outcome,
    Rounds,
    Row,
    Target,
    alternate,
    compare,
    missing,
    peak_megabytes,
    plain,
    processor_seconds,
    seconds,
)
from tests.bench.sockets import Dealer
from tests.bench.work import EMOJIS, PAGE, PEOPLE, SEED, START_MS, WORDS

MESSAGES_OF_ROOM = 2_500
TEXTS = 2_000
WORDS_MAX = 60
ROOMS_READ, LARGEST_PAGES = 4, 64
PLACES = ("end", "middle", "start")
START, MEMORY = "start to ready", "peak memory serving it"
AT_MOST = {START: Target(0.5, at_least=False, unit="s"), MEMORY: Target(120, at_least=False, unit="MB")}
NO_PROC = "only Linux tells a process's peak memory in /proc"


def read_large_file(bench: Bench) -> Outcome:
    """Pages of 50 at three places of a room; then the time to start with that file, and the memory used to serve it."""
    files = {count: data_directory(bench, count) for count in (bench.sizes.small, bench.sizes.large)}
    large = f"a file of {bench.sizes.large:,}"
    starts = [start_seconds(files[bench.sizes.large]) for _ in range(bench.sizes.starts)]
    with closing(Server(files[bench.sizes.small])) as small_server, closing(Server(files[bench.sizes.large])) as server:
        times = _page_times(bench, {bench.sizes.small: small_server, bench.sizes.large: server})
        server.work_hard(bench.sizes.pipelined)
        memory = server.peak_megabytes()
    rows = list(_rows_of_places(bench, times))
    rows.append(plain(f"{START}, {large}", "", AT_MOST[START], starts))
    if memory is None:
        rows.append(missing(f"{MEMORY}, {large}", "", AT_MOST[MEMORY], NO_PROC))
    else:
        rows.append(plain(f"{MEMORY}, {large}", "", AT_MOST[MEMORY], [memory]))
    figures = [Figure(f"page at the {key}", "daemon, bare socket", "s", found) for key, found in times.items()]
    return Outcome(figures, rows)


class Server:
    """A daemon on one of the files, used by a bare socket."""

    def __init__(self, directory: Path) -> None:
        self._process = DaemonProcess(directory, *QUIET, *CACHE_OFF)  # or the pages of a small file would all be cached
        self._dealer = Dealer(self._process.endpoint)

    def page_seconds(self, queries: list[GetMessagePage]) -> float:
        """The median time of a page, one at a time."""
        bodies = [body_of(query) for query in queries]
        check_all_ok([self._dealer.ask(body) for body in bodies[:1]])
        return statistics.median(seconds(partial(self._dealer.ask, body)) for body in bodies)

    def save_seconds(self, name: str, messages: int, in_flight: int) -> float:
        """The time that new messages take."""
        saves = [[body_of(SaveMessage(message))] for message in history(name, messages)]
        return seconds(lambda: check_all_ok(self._dealer.exchange(iter(saves), in_flight)))

    def work_hard(self, messages: int) -> None:
        """Saves, and pages of the largest size, with many in flight."""
        saves = ([body_of(SaveMessage(message))] for message in history("hard", messages))
        pages = ([body_of(GetMessagePage(_room(number % ROOMS_READ), limit=500))] for number in range(LARGEST_PAGES))
        check_all_ok(self._dealer.exchange(saves, 256))
        check_all_ok(self._dealer.exchange(pages, 32))

    def processor_seconds(self) -> float:
        """The processor time of the daemon so far; 0 where the system does not tell."""
        return processor_seconds(self._process.process.pid)

    def peak_megabytes(self) -> float | None:
        """The peak memory of the daemon so far."""
        return peak_megabytes(self._process.process.pid)

    def close(self) -> None:
        self._dealer.close()
        self._process.stop()


def _page_times(bench: Bench, servers: dict[int, Server]) -> Rounds:
    jobs = {
        f"{place} of {count:,}": lambda number, place=place, count=count, server=server: server.page_seconds(
            list(queries(place, count, bench.sizes.visits, number))
        )
        for place in PLACES
        for count, server in servers.items()
    }
    return alternate(jobs, bench.sizes.rounds)


def _rows_of_places(bench: Bench, times: Rounds) -> Iterator[Row]:
    large, small = f"{bench.sizes.large:,}", f"{bench.sizes.small:,}"
    for place in PLACES:
        above, below = times[f"{place} of {large}"], times[f"{place} of {small}"]
        what = f"page of {PAGE} at the {place}, a file of {large}"
        yield compare(what, f"a file of {small}", Target(1.3, at_least=False), above, below)


def queries(place: str, messages: int, count: int, number: int) -> Iterator[GetMessagePage]:
    """Pages of randomly drawn rooms."""
    rooms = messages // MESSAGES_OF_ROOM
    draw = random.Random(f"{SEED} {place} {number}")
    for _ in range(count):
        room = draw.randrange(rooms)
        if place == "end":
            yield GetMessagePage(_room(room), limit=PAGE)
        else:
            at = 0 if place == "start" else MESSAGES_OF_ROOM // 2
            yield GetMessagePage(_room(room), around=_id(at * rooms + room), limit=PAGE)


def start_seconds(directory: Path) -> float:
    """From starting the process to its ready line."""
    daemons: list[DaemonProcess] = []
    took = seconds(lambda: daemons.append(DaemonProcess(directory, *QUIET)))
    daemons[0].stop()
    return took


def data_directory(bench: Bench, messages: int, *, with_checksums: bool = True) -> Path:
    """A data directory with a file of this many messages; created once in a run."""
    directory = bench.directory / f"messages-{messages}{'' if with_checksums else '-unchecked'}"
    if directory.exists():
        return directory
    if not with_checksums:
        directory.mkdir()
        with closing(apsw.Connection(str(directory / "default.db"))) as connection:
            connection.pragma("journal_mode", "wal")  # a page without room for a checksum, and so are all others
    DaemonProcess(directory, *QUIET).stop()
    with closing(tables.connect(directory / "default.db")) as connection:
        connection.pragma("synchronous", "off")
        with connection:
            connection.executemany(tables.insert("messages", tables.MESSAGE), _messages(messages))
            connection.executemany(tables.insert("reactions", tables.REACTION), _reactions(messages))
        assert has_checksums(connection) == with_checksums
    return directory


def _messages(count: int) -> Iterator[tuple[Any, ...]]:
    draw = random.Random(f"{SEED} texts")
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(4, WORDS_MAX))) for _ in range(TEXTS)]
    rooms = count // MESSAGES_OF_ROOM
    for number in range(rooms * MESSAGES_OF_ROOM):
        sender = f"user-{number * 7 % PEOPLE}"
        known = (_id(number), _room(number % rooms), sender, texts[number * 31 % TEXTS], START_MS + number * 1_000)
        yield (*known, "general", None, None, 0, None, None, None, None, None)


def _reactions(count: int) -> Iterator[tuple[Any, ...]]:
    """Three on every second message."""
    for number in range(0, count, 2):
        for place in range(3):
            person, emoji = f"user-{(number + place) % PEOPLE}", EMOJIS[(number + place) % len(EMOJIS)]
            yield (_id(number), person, emoji, None, None, START_MS + number * 1_000 + place)


def _room(number: int) -> str:
    return f"room-{number:03}"


def _id(number: int) -> str:
    return f"message-{number:08}"
