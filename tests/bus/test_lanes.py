"""Lanes alone: runs, limits, pauses, and that nothing of a client is left when it is done."""

import random

import pytest

from backscroll.bus.dispatch import Dispatcher, Request
from backscroll.bus.inprocess import InProcess
from backscroll.bus.lanes import RUN_COMMANDS_MAX, Bounds, Lanes
from backscroll.schema import Busy, Query
from tests.support.messages import save_payload
from tests.support.requests import body

WIDE = Bounds(10**6, 10**9, 10**6, 10**9)
A, B = b"A", b"B"


class Starts:
    """Lanes whose started runs are recorded instead of executed."""

    def __init__(self, dispatcher: Dispatcher, bounds: Bounds = WIDE) -> None:
        self.runs: list[tuple[str, list[str]]] = []
        self.started: list[Request] = []
        self.dispatcher = dispatcher
        self.lanes = Lanes(bounds, lambda run: self._note("commands", run), lambda run: self._note("queries", run))

    def _note(self, kind: str, run: list[Request]) -> None:
        self.runs.append((kind, [request.id for request in run]))
        self.started += run

    def request(self, request_id: str, client: bytes = A) -> Request:
        """A command if the id begins with `c`, else a query."""
        is_command = request_id.startswith("c")
        operation, payload = ("save-message", save_payload()) if is_command else ("get-all-rooms", {})
        text = body(operation, payload, id=request_id)
        return self.dispatcher.receive(text, [client])

    def add(self, *ids: str, client: bytes = A) -> None:
        for request_id in ids:
            self.lanes.add(self.request(request_id, client))
        self.lanes.advance()

    def answer(self, *ids: str) -> None:
        done = [request for request in self.started if request.id in ids]
        self.started = [request for request in self.started if request.id not in ids]
        self.lanes.answered(done)
        self.lanes.advance()

    def taken(self) -> list[tuple[str, list[str]]]:
        runs, self.runs = self.runs, []
        return runs

    @property
    def is_empty(self) -> bool:
        """Whether nothing is remembered of any client.

        Reads private tables: a lane that is left behind costs memory, and has no effect that can be seen from outside.
        """
        lanes = self.lanes
        return (lanes.requests, lanes.bytes, lanes._lanes, lanes.changed, lanes._paused) == (0, 0, {}, {}, set())


@pytest.fixture
def starts(transport: InProcess) -> Starts:
    return Starts(transport.dispatcher)


def test_queries_and_commands_of_a_client_run_in_turn(starts: Starts) -> None:
    """Queries wait for the commands before them, and commands for the queries before them."""
    starts.lanes.add(starts.request("c1"))
    starts.add("c2", "q1", "q2", "c3", "q3")
    assert starts.taken() == [("commands", ["c1", "c2"])]
    starts.answer("c1")
    assert starts.taken() == []
    starts.answer("c2")
    assert starts.taken() == [("queries", ["q1", "q2"])]
    starts.answer("q1", "q2")
    assert starts.taken() == [("commands", ["c3"])]
    starts.answer("c3")
    assert starts.taken() == [("queries", ["q3"])]
    starts.answer("q3")
    assert starts.is_empty


def test_a_run_of_commands_is_extended_but_not_one_of_queries(starts: Starts) -> None:
    """Commands join the current run so that commits are full; a run of queries has a single snapshot."""
    starts.add("c1")
    starts.add("c2")
    assert starts.taken() == [("commands", ["c1"]), ("commands", ["c2"])]
    starts.answer("c1", "c2")
    starts.add("q1")
    starts.add("q2")
    assert starts.taken() == [("queries", ["q1"])]
    starts.answer("q1")
    assert starts.taken() == [("queries", ["q2"])]


def test_clients_do_not_wait_for_each_other(starts: Starts) -> None:
    """Each client has its own lane."""
    starts.add("q1", "c1")
    starts.add("c2", "q2", client=B)
    assert starts.taken() == [("queries", ["q1"]), ("commands", ["c2"])]


@pytest.mark.parametrize(("letter", "most"), [("c", RUN_COMMANDS_MAX), ("q", Query.run_max)])
def test_the_length_of_a_run_is_limited(starts: Starts, letter: str, most: int) -> None:
    """A client has at most one run of that length in flight."""
    for at in range(most + 5):
        starts.lanes.add(starts.request(f"{letter}{at}"))
    starts.lanes.advance()
    assert [len(run) for _, run in starts.taken()] == [most]
    starts.answer(*[f"{letter}{at}" for at in range(most)])
    assert [len(run) for _, run in starts.taken()] == [5]


@pytest.mark.parametrize("bounds", [WIDE._replace(client_requests=3), WIDE._replace(queue_requests=3)], ids=str)
def test_requests_over_the_limit_are_busy_until_others_finish(transport: InProcess, bounds: Bounds) -> None:
    """Waiting and running requests both count, and a refused request leaves nothing behind."""
    starts = Starts(transport.dispatcher, bounds)
    starts.add("q1", "c1", "q2")
    with pytest.raises(Busy) as caught:
        starts.add("c2")
    assert caught.value.retryable
    assert starts.lanes.requests == 3
    starts.answer("q1")
    starts.add("c2")
    assert starts.lanes.requests == 3


@pytest.mark.parametrize("field", ["client_bytes", "queue_bytes"])
def test_the_limit_on_bytes_is_inclusive(transport: InProcess, field: str) -> None:
    """Requests of exactly the limit are accepted, and the next one is busy."""
    size = Starts(transport.dispatcher).request("q1").size
    starts = Starts(transport.dispatcher, WIDE._replace(**{field: 2 * size}))
    starts.add("q1", "q2")
    assert starts.lanes.bytes == 2 * size
    with pytest.raises(Busy):
        starts.add("q3")
    starts.answer("q1")
    starts.add("q3")


def test_limits_apply_per_client_and_in_total(transport: InProcess) -> None:
    """A full client leaves room for others until the total is reached."""
    starts = Starts(transport.dispatcher, WIDE._replace(client_requests=2, queue_requests=3))
    starts.add("q1", "q2")
    starts.add("q3", client=B)
    with pytest.raises(Busy, match="too many requests are waiting"):
        starts.add("q4", client=B)


def test_a_first_request_that_is_refused_leaves_no_lane(transport: InProcess) -> None:
    """A client whose only request was refused is not remembered."""
    starts = Starts(transport.dispatcher, WIDE._replace(queue_bytes=1))
    with pytest.raises(Busy):
        starts.add("q1")
    starts.lanes.advance()
    assert starts.is_empty


def test_a_paused_client_starts_nothing_until_it_is_resumed(starts: Starts) -> None:
    """Its running requests continue, its waiting ones stay, and other clients are not affected."""
    starts.add("q1")
    starts.lanes.pause(A)
    starts.add("q3")
    starts.add("q4", client=B)
    starts.answer("q1")
    assert starts.taken() == [("queries", ["q1"]), ("queries", ["q4"])]
    starts.lanes.resume(A)
    starts.lanes.advance()
    assert starts.taken() == [("queries", ["q3"])]


def test_a_pause_outlives_an_empty_lane(starts: Starts) -> None:
    """A client that is paused with nothing waiting stays paused for its next request."""
    starts.add("q1")
    starts.lanes.pause(A)
    starts.answer("q1")
    starts.taken()
    starts.add("q2")
    assert starts.taken() == []
    starts.lanes.resume(A)
    starts.lanes.advance()
    starts.answer("q2")
    assert starts.is_empty


def test_a_forgotten_client_keeps_only_running_requests(starts: Starts) -> None:
    """Waiting requests are dropped, running ones still count, and then nothing is left."""
    starts.add("q1", "c1", "q2")
    starts.lanes.pause(A)
    starts.lanes.forget(A)
    assert starts.lanes.requests == 1
    starts.answer("q1")
    assert starts.is_empty
    starts.lanes.forget(b"never seen")
    assert starts.is_empty


def test_what_is_given_back_goes_first_again(starts: Starts) -> None:
    """The end of a run that was not begun keeps its place, and counts as waiting."""
    starts.lanes.add(starts.request("q1"))
    starts.lanes.add(starts.request("q2"))
    starts.add("q3", "c1", "q4")
    assert starts.taken() == [("queries", ["q1", "q2", "q3"])]
    run = starts.started
    starts.lanes.give_back(run[1:])
    starts.lanes.answered(run[:1])
    starts.started = []
    starts.lanes.advance()
    assert starts.taken() == [("queries", ["q2", "q3"])]
    assert starts.lanes.requests == 4
    starts.answer("q2", "q3")
    starts.answer("c1")
    starts.answer("q4")
    assert starts.taken() == [("commands", ["c1"]), ("queries", ["q4"])]
    assert starts.is_empty


def test_what_is_given_back_of_a_forgotten_client_is_dropped(starts: Starts) -> None:
    """Nothing of it is started again, and nothing is left."""
    starts.lanes.add(starts.request("q1"))
    starts.add("q2")
    starts.lanes.forget(A)
    starts.lanes.give_back(starts.started[1:])
    starts.lanes.answered(starts.started[:1])
    starts.lanes.advance()
    assert starts.taken() == [("queries", ["q1", "q2"])]
    assert starts.is_empty


def random_event(starts: Starts, samples: dict[tuple[str, bytes], Request], draw: random.Random) -> None:
    """A request, a reply, a pause, a disconnect, or a query that is given back."""
    client = draw.choice((A, B, b"C"))
    match draw.randrange(9):
        case 0:
            starts.lanes.pause(client)
        case 1:
            starts.lanes.resume(client)
        case 2 if draw.random() < 0.3:
            starts.lanes.forget(client)
        case 3 | 4 if starts.started:
            starts.lanes.answered([starts.started.pop(draw.randrange(len(starts.started)))])
        case 5 if starts.started and not starts.started[-1].is_command:
            starts.lanes.give_back([starts.started.pop()])
        case _:
            try:
                starts.lanes.add(samples[draw.choice("cq"), client])
            except Busy:
                assert starts.lanes.requests >= 20
    starts.lanes.advance()


def test_no_lane_is_left_after_random_events(transport: InProcess) -> None:
    """After any sequence of requests, replies, pauses, disconnects and queries given back, nothing is kept."""
    for seed in range(20):
        draw = random.Random(seed)
        starts = Starts(transport.dispatcher, Bounds(20, 20_000, 60, 60_000))
        samples = {(kind, client): starts.request(kind, client) for kind in "cq" for client in (A, B, b"C")}
        for _ in range(400):
            random_event(starts, samples, draw)
        for client in (A, B, b"C"):
            starts.lanes.resume(client)
        starts.lanes.advance()
        while starts.started:
            done, starts.started = starts.started, []
            starts.lanes.answered(done)
            starts.lanes.advance()
        assert starts.is_empty, f"seed {seed}"
