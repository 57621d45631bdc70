"""The benchmark: saves and reads a second, of the daemon and of what it could be replaced with.

    python tests/bench/run.py [--messages N] [--pages N] [--rounds N] [--directory DIR] [--json FILE]

Every peer gets the same work and must read the same pages before anything is timed. Rounds alternate between the
peers, each starting with another one, so that a slow minute of the machine hits all of them; medians are quoted, with
the least and the most beside them. Throughput depends on the disk under `--directory`: what it takes to make 4 KiB
durable there is printed first.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import zmq
from daemon import ByBareSocket, ByClient
from echo import Echo
from orm import Orm
from work import PAGE, SEED, Peer, Work, expected_pages, make_work

SAVES_IN_FLIGHT, READS_IN_FLIGHT = 256, 32
CHECKED_MESSAGES = 120
SYNCS = 100
PEERS = (ByClient, ByBareSocket, Echo, Orm)


class Mode(NamedTuple):
    """How many requests are under way at once, of each kind."""

    name: str
    saves: int
    reads: int


ONE, MANY = Mode("one", 1, 1), Mode("many", SAVES_IN_FLIGHT, READS_IN_FLIGHT)


class Measure(NamedTuple):
    """What one figure tells."""

    kind: str
    mode: Mode
    peer: str

    @property
    def title(self) -> str:
        in_flight = getattr(self.mode, self.kind)
        how = "one at a time" if in_flight == 1 else f"{in_flight} in flight"
        what = "saves" if self.kind == "saves" else f"pages of {PAGE}"
        return f"{what}, {how}"


RATIOS = (
    (Measure("saves", ONE, ByClient.name), Measure("saves", ONE, Orm.name)),
    (Measure("saves", MANY, ByClient.name), Measure("saves", ONE, Orm.name)),
    (Measure("reads", ONE, ByClient.name), Measure("reads", ONE, Orm.name)),
    (Measure("reads", MANY, ByClient.name), Measure("reads", ONE, Orm.name)),
    (Measure("saves", MANY, ByBareSocket.name), Measure("saves", MANY, Echo.name)),
    (Measure("reads", MANY, ByBareSocket.name), Measure("reads", MANY, Echo.name)),
)

Rates = dict[Measure, list[float]]


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory)))
        about = _about(options, directory)
        print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
        peers = [stack.enter_context(closing(peer(directory / str(place)))) for place, peer in enumerate(PEERS)]
        check_equal(peers)
        print(f"equal data: {len(peers)} peers read the same {CHECKED_MESSAGES} messages", flush=True)
        rates = measure(peers, options.messages, options.pages, options.rounds)
    print("\n".join(table(rates)))
    if options.json:
        options.json.write_text(json.dumps(_as_json(about, rates), indent=2) + "\n", encoding="utf-8")


def check_equal(peers: list[Peer]) -> None:
    """Let every peer save and read the same room; end the benchmark where one reads anything else than was saved."""
    work = make_work("check", CHECKED_MESSAGES, 2)
    expected = expected_pages(work)
    for peer in peers:
        peer.jobs(work, 1, 1).save()
        if peer.read_back(work) != expected:
            sys.exit(f"{peer.name} does not read back what was saved: nothing was measured")


def measure(peers: list[Peer], messages: int, pages: int, rounds: int) -> Rates:
    """Saves and reads a second, round by round."""
    rates: Rates = {}
    for round_number in range(rounds):
        start = round_number % len(peers)
        for mode in (ONE, MANY):
            work = make_work(f"round-{round_number}-{mode.name}", messages, pages)
            for peer in peers[start:] + peers[:start]:
                if mode is ONE or peer.pipelines:
                    for kind, rate in _rates_of(peer, work, mode):
                        rates.setdefault(Measure(kind, mode, peer.name), []).append(rate)
    return rates


def table(rates: Rates) -> Iterator[str]:
    """The figures, a second; then the ratios of their medians."""
    yield f"\n{'a second':28}{'':20}{'median':>10}   {'min–max':>17}"
    for kind in ("saves", "reads"):
        for mode in (ONE, MANY):
            for peer in PEERS:
                if found := rates.get(which := Measure(kind, mode, peer.name)):
                    spread = f"{min(found):,.0f}–{max(found):,.0f}"
                    yield f"{which.title:28}{peer.name:20}{statistics.median(found):10,.0f}   {spread:>17}"
    yield "\nratios of medians"
    for above, below in RATIOS:
        yield f"{_ratio(rates, above, below):8.2f}  {_ratio_name(above, below)}"


def _rates_of(peer: Peer, work: Work, mode: Mode) -> Iterator[tuple[str, float]]:
    jobs = peer.jobs(work, mode.saves, mode.reads)
    yield "saves", len(work.messages) / _seconds(jobs.save)
    yield "reads", len(work.pages) / _seconds(jobs.read)


def _seconds(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def _ratio(rates: Rates, above: Measure, below: Measure) -> float:
    return statistics.median(rates[above]) / statistics.median(rates[below])


def _ratio_name(above: Measure, below: Measure) -> str:
    return f"{above.peer}: {above.title}  /  {below.peer}: {below.title}"


def _about(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("backscroll", "msgspec", "peewee", "pyzmq")
    return {
        "work": f"{options.messages} messages and {options.pages} pages a round, {options.rounds} rounds, seed {SEED}",
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                f"SQLite {apsw.sqlite_lib_version()}",
                f"libzmq {zmq.zmq_version()}",
                *(f"{package} {version(package)}" for package in packages),
            ]
        ),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "making 4 KiB durable": f"{_sync_us(directory):.0f} µs",
    }


def _sync_us(directory: Path) -> float:
    """The median time of a small write and fsync, in microseconds."""
    times = []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _as_json(about: dict[str, Any], rates: Rates) -> dict[str, Any]:
    return {
        "about": about,
        "perSecond": [
            {"measure": which.title, "peer": which.peer, "median": statistics.median(found), "rounds": found}
            for which, found in rates.items()
        ],
        "ratios": {_ratio_name(above, below): _ratio(rates, above, below) for above, below in RATIOS},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--messages", type=int, default=1_500, help="saved in each round and mode")
    parser.add_argument("--pages", type=int, default=300, help="read in each round and mode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where the files are made; else the system's temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures of every round here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
