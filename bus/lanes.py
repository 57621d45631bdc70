"""Scheduling of requests: those of one client in the order sent, those of different clients in parallel, all bounded.

Each client has a lane. The requests at the head of a lane are started in runs of one kind and scope: commands go to a
writer, queries to a reader; the next run starts when the previous one has been answered. So a query sees its client's
earlier commands and none of the later ones, and no client waits for another client's lane. A run of queries that takes
too long is given back in part, so that clients take turns. Uses neither sockets nor threads: the daemon's loop calls
it, from one thread.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

from backscroll.bus.dispatch import Request
from backscroll.schema.errors import Busy

RUN_COMMANDS_MAX = 1_024  # of one client: two full batches, so that the writer does not become idle


class Bounds(NamedTuple):
    """The limits on waiting requests: number and bytes, of one client and of all clients."""

    client_requests: int
    client_bytes: int
    queue_requests: int
    queue_bytes: int


class Lane:
    """One client's requests: those waiting, and how many of the current run are not answered yet."""

    __slots__ = ("bytes", "client", "gone", "paused", "running", "running_kind", "waiting")

    def __init__(self, client: bytes) -> None:
        self.client = client
        self.waiting: deque[Request] = deque()
        self.bytes = 0
        self.running = 0
        self.running_kind = (False, "", 0)  # see `Request.kind`
        self.paused = False
        self.gone = False  # forgotten while requests were running

    def next_run(self) -> list[Request]:
        """Remove and return the waiting requests that may start now; often none."""
        if not self.waiting or self.paused:
            return []
        kind = commands, _, queries_max = self.waiting[0].kind
        if self.running and not (commands and self.running_kind == kind):
            return []
        room = (RUN_COMMANDS_MAX if commands else queries_max) - self.running
        same_kind = takewhile(lambda each: each.kind == kind, self.waiting)
        run = [request for _, request in zip(range(room), same_kind, strict=False)]
        for _ in run:
            self.waiting.popleft()
        self.running += len(run)
        self.running_kind = kind
        return run


class Lanes:
    """The lanes of all clients. `start_commands` and `start_queries` are called with runs that may start.

    `changed` are the lanes that the next `advance()` has to examine.
    """

    def __init__(
        self,
        bounds: Bounds,
        start_commands: Callable[[list[Request]], None],
        start_queries: Callable[[list[Request]], None],
    ) -> None:
        self._bounds = bounds
        self._start_commands = start_commands
        self._start_queries = start_queries
        self._lanes: dict[bytes, Lane] = {}
        self.changed: dict[bytes, Lane] = {}
        self._paused: set[bytes] = set()
        self.requests = 0
        self.bytes = 0

    def add(self, request: Request) -> None:
        """Append a request to its client's lane; raises `Busy` if the client or all clients have too many waiting."""
        client = request.route[0]
        lane = self._lanes.get(client) or self._new_lane(client)
        self._check_bounds(lane, request)
        lane.waiting.append(request)
        lane.gone = False
        self._count(lane, 1, request.size)
        self.changed[client] = lane

    def has_requests(self, client: bytes) -> bool:
        """Whether requests of a client wait or are being executed. May be called from any thread."""
        lane = self._lanes.get(client)
        return lane is not None and bool(lane.waiting or lane.running)

    def answered(self, requests: Sequence[Request]) -> None:
        """Note that these requests of started runs have been answered."""
        for request in requests:
            lane = self._lanes[request.route[0]]
            lane.running -= 1
            self._count(lane, -1, -request.size)
            self.changed[lane.client] = lane

    def give_back(self, requests: Sequence[Request]) -> None:
        """Return the last requests of a started run, of one client, to the head of their lane."""
        lane = self._lanes[requests[0].route[0]]
        lane.running -= len(requests)
        if lane.gone:
            self._count(lane, -len(requests), -sum(request.size for request in requests))
        else:
            lane.waiting.extendleft(reversed(requests))
        self.changed[lane.client] = lane

    def advance(self) -> None:
        """Start every run that may start now, and remove empty lanes."""
        changed, self.changed = self.changed, {}
        for lane in changed.values():
            if run := lane.next_run():
                (self._start_commands if run[0].is_command else self._start_queries)(run)
            if not lane.running and not lane.waiting:
                self._lanes.pop(lane.client, None)

    def clear(self) -> list[Request]:
        """Remove and return all requests that were not started."""
        waiting = [request for lane in self._lanes.values() for request in lane.waiting]
        for client in list(self._lanes):
            self.forget(client)
        return waiting

    def pause(self, client: bytes) -> None:
        """Start nothing more for a client that does not read its replies."""
        self._paused.add(client)
        if lane := self._lanes.get(client):
            lane.paused = True

    def resume(self, client: bytes) -> None:
        """Start requests of a client again, because it reads its replies again."""
        self._paused.discard(client)
        if lane := self._lanes.get(client):
            lane.paused = False
            self.changed[client] = lane

    def forget(self, client: bytes) -> None:
        """Drop the waiting requests of a client that is gone."""
        if lane := self._lanes.get(client):
            self._count(lane, -len(lane.waiting), -sum(request.size for request in lane.waiting))
            lane.waiting.clear()
            lane.gone = True
        self.resume(client)

    def _new_lane(self, client: bytes) -> Lane:
        lane = self._lanes[client] = Lane(client)
        lane.paused = client in self._paused
        self.changed[client] = lane  # so that it is removed if its first request is refused
        return lane

    def _check_bounds(self, lane: Lane, request: Request) -> None:
        bounds = self._bounds
        if (
            len(lane.waiting) + lane.running >= bounds.client_requests
            or lane.bytes + request.size > bounds.client_bytes
        ):
            raise Busy("too many requests of this client are waiting")
        if self.requests >= bounds.queue_requests or self.bytes + request.size > bounds.queue_bytes:
            raise Busy("too many requests are waiting")

    def _count(self, lane: Lane, requests: int, size: int) -> None:
        lane.bytes += size
        self.bytes += size
        self.requests += requests
