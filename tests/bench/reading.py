"""Workloads of pages: the newest 50 messages of rooms with their reactions, as full payloads."""

from collections.abc import Callable, Iterator

from tests.bench.bench import Bench
from tests.bench.daemon import CACHE_OFF, ByBareSocket, ByClient, Uncached
from tests.bench.echo import Echo
from tests.bench.measuring import Figure, Outcome, Row, Target, alternate, missing
from tests.bench.orm import Orm
from tests.bench.saving import rows_of_rates
from tests.bench.work import ONE, PAGE, Peer, Way, Work, make_work
from tests.bench.worker import Worker

ROOMS, MESSAGES_OF_ROOM = 20, 100
PIPELINED = Way(in_flight=32)
NO_CACHE = "there is no cache yet"
OPERATIONS = ("get-messages", "get-message-page")


def read_pipelined(bench: Bench) -> Outcome:
    """One client with 32 requests in flight, or as many as the peer can have."""
    names = [ByClient.name, ByBareSocket.name, Echo.name, Worker.name, Orm.name]
    peers = bench.available(*names, *([Uncached.name] if CACHE_OFF else []))
    outcome = Outcome([], [])
    for operation in OPERATIONS:
        what = f"{operation} of {PAGE}, {PIPELINED.title}"
        figures = _rates(bench, what, peers, operation, PIPELINED, bench.sizes.pages)
        outcome.figures.extend(figures)
        outcome.rows.extend(rows_of_rates(bench, what, figures, {Worker.name: 10, Orm.name: 15}))
        outcome.rows.extend(_against_uncached(bench, what, figures))
    return outcome


def read_single(bench: Bench) -> Outcome:
    """One request at a time."""
    what = f"get-messages of {PAGE}, one at a time"
    peers = bench.available(ByClient.name, ByBareSocket.name, Echo.name, Worker.name, Orm.name)
    figures = _rates(bench, what, peers, "get-messages", ONE, bench.sizes.single_pages)
    return Outcome(figures, list(rows_of_rates(bench, what, figures, {Worker.name: 2})))


def _against_uncached(bench: Bench, what: str, figures: list[Figure]) -> Iterator[Row]:
    if CACHE_OFF:
        yield from rows_of_rates(bench, what, figures, {Uncached.name: 2})
    else:
        yield missing(what, Uncached.name, Target(2), NO_CACHE)


def _rates(bench: Bench, what: str, peers: dict[str, Peer], operation: str, way: Way, visits: int) -> list[Figure]:
    """Pages per second. The rooms are saved beforehand and the same in each round; the visits differ."""
    rooms = make_work("read", ROOMS * MESSAGES_OF_ROOM, rooms=ROOMS)
    for peer in peers.values():
        bench.save_once(peer, rooms)

    def job(peer: Peer) -> Callable[[int], float]:
        return lambda number: visits / peer.read(_visited(rooms, number, visits), way, operation)

    rates = alternate({name: job(peer) for name, peer in peers.items()}, bench.sizes.rounds)
    return [Figure(what, name, "pages/s", found) for name, found in rates.items()]


def _visited(rooms: Work, number: int, visits: int) -> Work:
    chosen = make_work("read", 0, visits * (number + 1), ROOMS).visits[-visits:]
    return rooms._replace(name=f"read {number}", visits=chosen)
