"""What the checksums of pages cost: the same daemon with two files of the same messages, one of which has none.

Neither the daemon's query cache nor its readers' page caches hold the pages that are asked for, so each is read from
the file, which the system has in memory. What is compared is the processor time of the daemons: the time of a save is
the disk's, and differs more between two rounds than checksums cost.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import Figure, Outcome, Row, Target, alternate, compare, missing
from tests.bench.sizes import NO_PROC, Server, data_directory, queries, start_seconds

WITH, WITHOUT = "with checksums", "without"
PAGES, PIPELINED, SINGLE, START = (
    "pages that are read",
    "saves, 256 in flight",
    "saves, one at a time",
    "start to ready",
)
AT_MOST = {PAGES: 1.25, PIPELINED: 1.1, SINGLE: 1.1, START: 1.1}
Job = Callable[[Server, int], object]


def price_checksums(bench: Bench) -> Outcome:
    """The daemon's processor time for pages and saves in proportion to that without checksums; starts, and memory."""
    count = max(bench.sizes.small, bench.sizes.large // 10)
    files = {name: data_directory(bench, count, with_checksums=name == WITH) for name in (WITH, WITHOUT)}
    starts: dict[str, Callable[[int], float]] = {name: partial(_start, directory) for name, directory in files.items()}
    times = {START: alternate(starts, bench.sizes.starts)}
    with closing(Server(files[WITH])) as checked, closing(Server(files[WITHOUT])) as unchecked:
        servers = {WITH: checked, WITHOUT: unchecked}
        for what, job in _jobs(bench, count).items():
            by_server = {name: partial(_processor_seconds, server, job) for name, server in servers.items()}
            times[what] = alternate(by_server, bench.sizes.rounds * 3)
        memory = {name: server.peak_megabytes() for name, server in servers.items()}
    figures = [Figure(what, name, "s", found) for what, each in times.items() for name, found in each.items()]
    figures += [Figure("peak memory", name, "MB", [found]) for name, found in memory.items() if found is not None]
    return Outcome(figures, list(_rows(times)))


def _jobs(bench: Bench, count: int) -> dict[str, Job]:
    sizes = bench.sizes
    return {
        PAGES: lambda server, number: server.page_seconds(list(queries("middle", count, sizes.visits, number))),
        PIPELINED: lambda server, number: server.save_seconds(f"many-{number}", sizes.pipelined, 256),
        SINGLE: lambda server, number: server.save_seconds(f"single-{number}", sizes.single, 1),
    }


def _rows(times: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    for what, found in times.items():
        target = Target(AT_MOST[what], at_least=False)
        if all(found[WITHOUT]):
            yield compare(f"{what}, checksums", WITHOUT, target, found[WITH], found[WITHOUT])
        else:
            yield missing(f"{what}, checksums", WITHOUT, target, NO_PROC)


def _start(directory: Path, _number: int) -> float:
    return start_seconds(directory)


def _processor_seconds(server: Server, job: Job, number: int) -> float:
    before = server.processor_seconds()
    job(server, number)
    return server.processor_seconds() - before
