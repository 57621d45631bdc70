"""Workloads of `save-message`: many in flight, eight callers, one at a time, and the import of a whole history."""

from collections.abc import Callable, Iterator, Mapping

from tests.bench.bench import Bench
from tests.bench.daemon import ByBareSocket, ByClient
from tests.bench.echo import Echo
from tests.bench.importing import ROOMS, history, import_messages, replay_messages, save_one_by_one
from tests.bench.limits import Apsw, sync_seconds
from tests.bench.measuring import Figure, Outcome, Row, Target, alternate, compare, missing
from tests.bench.orm import Orm
from tests.bench.rx import SqliteRx
from tests.bench.tables import totals_of
from tests.bench.work import ONE, Peer, Way, make_work
from tests.bench.worker import Worker

PIPELINED, EIGHT = Way(in_flight=256), Way(callers=8)
SYNC = "disk sync"
SYNCS = 100


def save_pipelined(bench: Bench) -> Outcome:
    """One client with 256 requests in flight, or as many as the peer can have: in process there is only one."""
    what = f"save-message, one client, {PIPELINED.title}"
    peers = bench.available(ByClient.name, ByBareSocket.name, Echo.name, Worker.name, Orm.name, SqliteRx.name)
    figures = _rates(bench, what, peers, PIPELINED, bench.sizes.pipelined)
    targets = {Worker.name: 10, Orm.name: 5, SqliteRx.name: 20}
    return Outcome(figures, list(rows_of_rates(bench, what, figures, targets)))


def save_by_eight(bench: Bench) -> Outcome:
    """Eight callers that wait for each reply. The daemon's have eight connections; the worker's share its channel."""
    what = f"save-message, {EIGHT.title}"
    figures = _rates(bench, what, bench.available(ByClient.name, Worker.name), EIGHT, bench.sizes.pipelined)
    return Outcome(figures, list(rows_of_rates(bench, what, figures, {Worker.name: 3})))


def save_single(bench: Bench) -> Outcome:
    """One at a time, compared with what cannot be avoided: sending the bytes, and one sync of the disk."""
    what, count = "save-message, one at a time", bench.sizes.single
    peers = bench.available(ByClient.name, ByBareSocket.name, Echo.name, Worker.name, Orm.name, SqliteRx.name)

    def job(peer: Peer) -> Callable[[int], float]:
        return lambda number: peer.save(make_work(f"single-{number}", count, rooms=ROOMS), ONE) / count

    jobs = {name: job(peer) for name, peer in peers.items()}
    jobs[SYNC] = lambda _number: sync_seconds(bench.directory, SYNCS)
    times = alternate(jobs, bench.sizes.rounds)
    floor = [echo + sync for echo, sync in zip(times[Echo.name], times[SYNC], strict=True)]
    rows = [
        compare(f"{what}{how}", "echo + one disk sync", Target(1.5, at_least=False), times[name], floor)
        for name, how in ((ByClient.name, ""), (ByBareSocket.name, " (bare socket)"))
    ]
    return Outcome([Figure(what, name, "s", found) for name, found in times.items()], rows)


def import_history(bench: Bench) -> Outcome:
    """A whole history by one client at full rate, compared with prepared rows in one transaction; a new one in each
    round.
    """
    what, count = f"import of {bench.sizes.imported:,} messages", bench.sizes.imported
    daemon, apsw = bench.peer(ByClient.name), bench.peer(Apsw.name)
    assert isinstance(daemon, ByClient)
    assert isinstance(apsw, Apsw)
    jobs = {
        ByClient.name: lambda number: import_messages(daemon.process.endpoint, history(f"import-{number}", count)),
        Apsw.name: lambda number: apsw.save(make_work(f"import-{number}", count, rooms=ROOMS), ONE),
    }
    times = alternate(jobs, bench.sizes.import_rounds)
    rates = {name: [count / each for each in found] for name, found in times.items()}
    rooms = make_work("import-0", 0, rooms=ROOMS).rooms
    assert totals_of(daemon.file, rooms) == totals_of(apsw.file, rooms), "the imports differ"
    row = compare(what, "apsw", Target(0.4), rates[ByClient.name], rates[Apsw.name])
    return Outcome([Figure(what, name, "messages/s", found) for name, found in rates.items()], [row])


def replay_history(bench: Bench) -> Outcome:
    """The rates of replays and of batches beside that of single saves, with new messages in each round."""
    daemon = bench.peer(ByClient.name)
    assert isinstance(daemon, ByClient)
    many, few = bench.sizes.imported // 4, bench.sizes.single
    endpoint = daemon.process.endpoint
    counts = {"replay of a log file": many, "batches": many, "one by one": few}
    jobs = {
        "replay of a log file": lambda number: replay_messages(bench.directory, history(f"replay-{number}", many)),
        "batches": lambda number: import_messages(endpoint, history(f"batches-{number}", many)),
        "one by one": lambda number: save_one_by_one(endpoint, history(f"singly-{number}", few)),
    }
    times = alternate(jobs, bench.sizes.import_rounds)
    rates = {name: [counts[name] / each for each in found] for name, found in times.items()}
    return Outcome([Figure("bringing in", name, "messages/s", found) for name, found in rates.items()], [])


def rows_of_rates(bench: Bench, what: str, figures: list[Figure], targets: Mapping[str, float]) -> Iterator[Row]:
    """The ratio of the daemon's rate to that of each peer that has a target."""
    rates = {figure.peer: figure.rounds for figure in figures}
    for name, bound in targets.items():
        if name in rates:
            yield compare(what, name, Target(bound), rates[ByClient.name], rates[name])
        else:
            yield missing(what, name, Target(bound), bench.missing[name])


def _rates(bench: Bench, what: str, peers: dict[str, Peer], way: Way, count: int) -> list[Figure]:
    """Saves per second; the work differs between rounds and is the same for all peers. Also how quick the disk was."""

    def job(peer: Peer) -> Callable[[int], float]:
        name = f"{way.callers}x{way.in_flight}"
        return lambda number: peer.save(make_work(f"{name}-{number}", count, rooms=ROOMS), way)

    jobs = {name: job(peer) for name, peer in peers.items()}
    jobs[SYNC] = lambda _number: sync_seconds(bench.directory, SYNCS)
    times = alternate(jobs, bench.sizes.rounds)
    syncs = Figure(what, SYNC, "s", times.pop(SYNC))
    rates = {name: [count / each for each in found] for name, found in times.items()}
    return [*(Figure(what, name, "messages/s", found) for name, found in rates.items()), syncs]
