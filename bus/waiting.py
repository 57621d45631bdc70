"""Queries that wait until there is something new: beside the lanes, where they are in nobody's way.

    lane ──▶ reader ──nothing new──▶ asleep ──a commit that concerns it──▶ due ──▶ reader ──▶ telling ──▶ reply
                                       ▲  └── waitMs over, too many, a stop ──▶ empty reply       │
                                       └──────────────────── nothing new after all ◀─────────────┘

Equal queries, those with the same scope, cursor and filter, are one group, which is answered by one query: a thousand
windows that wait for the same change cost one. Groups are found by what they wait for, so a commit costs as much as it
has changes, however many wait for other things.

Commands go first: replies are sent in short slices, and while there are many commits, all of this gets a twentieth of a
processor. When that is spent there is a pause, in which those who ask wait for the next round. So a lone commit is told
at once, and of commits in quick succession some are told together. Used only by the loop thread.
"""

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from backscroll.bus.dispatch import WaitingRequest
from backscroll.bus.processor_share import ProcessorShare
from backscroll.bus.recent_commits import RecentCommits
from backscroll.bus.stores import Commit
from backscroll.handlers.feed import Head, Key, cursor_at, seen_until, wanted_by
from backscroll.schema.limits import WAITING_QUERIES_MAX, WAITING_QUERIES_OF_CLIENT_MAX
from backscroll.schema.operations.feed import NOW
from backscroll.schema.wire import MSGPACK

TICK_SECONDS = 0.01  # queries wait at most so much longer than they should
SLICE_SECONDS = 0.002
SHARE, SAVED_SECONDS = 0.05, 0.05  # of a processor, while there are many commits
MANY_COMMITS, MANY_SECONDS = 10, 1.0
ASK_SECONDS = 60e-6  # to receive a query, with what libzmq's thread does for it and for its reply
RUNNING_MAX = 4  # groups that readers answer at a time
SCOPES_MAX = 256  # whose last commits are known, besides those in which queries wait
UNKNOWN = -1  # the seq of who has seen nobody knows what


class Seen(NamedTuple):
    """Until where nothing is new: the seq, and the cursor there."""

    seq: int
    cursor: str


class Group:
    """Equal queries that wait for the same (`wanted`), and until where there is nothing new for them.

    `is_due`: there may be something new by now.
    """

    __slots__ = ("codec_name", "is_due", "key", "query", "requests", "scope", "seen", "wanted")

    def __init__(self, scope: str, codec_name: str, query: Any, seen: Seen) -> None:
        self.scope = scope
        self.codec_name = codec_name
        self.wanted = wanted_by(query)
        self.requests: dict[WaitingRequest, None] = {}
        self.is_due = False
        self.see(seen, query)
        self.key = (scope, codec_name, MSGPACK.encode(self.query))

    def see(self, seen: Seen, query: Any) -> None:
        self.seen = seen
        self.query = replace(query, after=seen.cursor, wait_ms=0)


class Telling(NamedTuple):
    """A group that is to be sent an encoded result, and the seq that this reflects."""

    group: Group
    result: bytes
    seq: int


class Answers(NamedTuple):
    """How queries that wait are answered.

    `evaluate` has a reader answer a request; `evaluated()` is to be called then. `send` returns False if there is no
    room for a reply. `success` makes a reply from a result and its seq; `nothing` that of an empty page, with its seq,
    its cursor, and whether to ask again at once. `refusal` is the reply to who may not be answered any more, or None.
    """

    evaluate: Callable[[WaitingRequest], None]
    send: Callable[[WaitingRequest, bytes], bool]
    success: Callable[[WaitingRequest, bytes, int], bytes]
    nothing: Callable[[WaitingRequest, int, str, bool], bytes]
    refusal: Callable[[WaitingRequest], bytes | None]


class WaitingQueries:
    """All queries that wait. `seq_of` returns the last seq of a scope.

    A writer gives commits of the scopes in `recent` to the loop; it wakes the loop for that while it `has_sleepers`.
    Both may be read by any thread.
    """

    def __init__(self, answers: Answers, seq_of: Callable[[str], int]) -> None:
        self._answers = answers
        self._seq_of = seq_of
        self.has_sleepers = False
        self.recent: dict[str, RecentCommits] = {}  # by scope
        self._parked: dict[WaitingRequest, tuple[Group, int]] = {}  # and the tick, in the order in which they came
        self._of_client: dict[bytes, dict[WaitingRequest, None]] = {}
        self._asleep: dict[Any, Group] = {}  # by key
        self._sleepers: dict[str, dict[Key, dict[Group, None]]] = {}  # the same, by scope and by what they want
        self._due: dict[Any, Group] = {}  # to be answered in the next round, by key
        self._round: deque[Group] = deque()  # to be answered in this one
        self._running: dict[WaitingRequest, Group] = {}  # by the request that a reader answers
        self._telling: deque[Telling] = deque()
        self._ticks: dict[int, dict[WaitingRequest, None]] = {}  # who is answered at the latest, by tick
        self._next_ticks: list[int] = []
        self._share = ProcessorShare(SHARE, SAVED_SECONDS)
        self._committed_at = deque([-math.inf] * MANY_COMMITS, MANY_COMMITS)  # the times of the last commits

    def __len__(self) -> int:
        return len(self._parked)

    def has(self, client: bytes) -> bool:
        """Whether queries of a client wait. May be called from any thread."""
        return client in self._of_client

    def can_park(self, request: WaitingRequest) -> bool:
        """Whether a query goes on from a cursor, so that it can be parked at once; if so, note what it has seen."""
        after = request.operation.after
        if after in (None, NOW):
            return False
        seq, recent = seen_until(after), self.recent.get(request.scope)
        is_known = recent is not None and seq is not None and recent.knows(seq, after)
        request.nothing_new = (seq if is_known and seq is not None else UNKNOWN, after)
        return True

    def park(self, request: WaitingRequest) -> None:
        """Let a query wait that has seen what `request.nothing_new` says; if there may be more, for the next round."""
        assert request.nothing_new is not None
        client = request.route[0]
        self._make_room(client)
        request.is_parked = True
        self._of_client.setdefault(client, {})[request] = None
        until = time.monotonic() + request.operation.wait_ms / 1000
        tick = self._wake_at(request, until if request.deadline is None else min(until, request.deadline))
        group = Group(request.scope, request.codec.name, request.operation, Seen(*request.nothing_new))
        self._join(group, {request: tick})

    @property
    def is_telling(self) -> bool:
        return bool(self._telling)

    def note_commits(self, commits: Iterable[Commit]) -> None:
        """Wake the queries that commits concern."""
        now = time.monotonic()
        for commit in commits:
            self._committed_at.append(now)
            recent, sleepers = self.recent.get(commit.scope), self._sleepers.get(commit.scope, {})
            if recent is None:
                continue
            before, added = recent.last, recent.add(commit)
            if added is None:
                continue
            keys = sleepers if added.keys is None else added.keys
            for group in list(dict.fromkeys(each for key in keys for each in sleepers.get(key, ()))):
                if group.seen.seq < commit.seq:
                    self._see(before, group)
                    self._set_due(group)

    def wake_scope(self, scope: str) -> None:
        """Ask all queries of a scope again, because it may have become another one."""
        self.recent.pop(scope, None)
        for group in [each for each in self._asleep.values() if each.scope == scope]:
            self._set_due(group)

    def check_rights(self) -> None:
        """Refuse the queries of callers who may not ask them any more."""
        for request in list(self._parked):
            if request in self._parked and (refused := self._answers.refusal(request)) is not None:
                self._remove(request)
                self._answers.send(request, refused)

    def forget(self, client: bytes) -> None:
        """Drop the queries of a client that is gone."""
        for request in list(self._of_client.get(client, ())):
            self._remove(request)

    def answer_all(self) -> None:
        """Answer all queries with an empty page."""
        for request in list(self._parked):
            self._answer_nothing(request)

    def evaluated(self, request: WaitingRequest, reply: bytes) -> None:
        """A reader has answered the query of a group: tell all of it, or let it wait on."""
        group = self._running.pop(request)
        self._spend(request.seconds)
        if request.nothing_new is not None:
            waiting = {each: self._parked[each][1] for each in group.requests}
            if waiting:
                self._join(Group(group.scope, group.codec_name, group.query, Seen(*request.nothing_new)), waiting)
        elif request.result is not None:
            self._telling.append(Telling(group, *request.result))
        else:  # an error, which the others may not get
            if request in self._parked:
                self._remove(request)
                self._answers.send(request, reply)
            self._due[group.key] = group

    def turn(self) -> None:
        """Do what there is to do, for a short time. Call it in each turn of the loop."""
        now = time.monotonic()
        if self._next_ticks:
            self._answer_late(now)
        if self._due and not self._is_resting():
            self._round, self._due = deque(self._due.values()), {}
        if self._round:
            self._start_some()
        if self._telling:
            self._tell_some(now)

    def wait_seconds(self) -> float:
        """The time until there is something to do for `turn`."""
        if self._telling:
            return 0.0
        at = self._next_ticks[0] * TICK_SECONDS if self._next_ticks else math.inf
        if self._due and not self._is_in_round():
            at = min(at, self._share.left_at())
        return max(0.0, at - time.monotonic())

    # Sleeping and waking

    def _join(self, group: Group, requests: dict[WaitingRequest, int]) -> None:
        """Let queries, given with their ticks, sleep as this group or as an equal one; or be due, if there is news."""
        recent = self.recent.get(group.scope) or self._follow(group.scope)
        if recent.has_news(group.seen.seq, group.wanted):
            due = self._due.setdefault(group.key, group)
            due.is_due = True
            self._adopt(due, requests)
            return
        asleep = self._asleep.setdefault(group.key, group)
        if asleep is group:
            sleepers = self._sleepers.setdefault(group.scope, {})
            for key in group.wanted:
                sleepers.setdefault(key, {})[group] = None
            self.has_sleepers = True
        self._adopt(asleep, requests)

    def _follow(self, scope: str) -> RecentCommits:
        """Get to know all commits of a scope from now on."""
        if len(self.recent) >= SCOPES_MAX:
            for each in [each for each in self.recent if each not in self._sleepers]:
                del self.recent[each]
        self.recent[scope] = RecentCommits(-1)
        self.recent[scope].since = self._seq_of(scope)  # in this order: none is missed in between
        return self.recent[scope]

    def _adopt(self, group: Group, requests: dict[WaitingRequest, int]) -> None:
        for request, tick in requests.items():
            group.requests[request] = None
            self._parked[request] = (group, tick)

    def _set_due(self, group: Group) -> None:
        self._leave_sleep(group)
        group.is_due = True
        due = self._due.setdefault(group.key, group)
        if due is not group:
            self._adopt(due, {request: self._parked[request][1] for request in group.requests})

    def _leave_sleep(self, group: Group) -> None:
        if self._asleep.get(group.key) is not group:
            return
        del self._asleep[group.key]
        sleepers = self._sleepers[group.scope]
        for key in group.wanted:
            del sleepers[key][group]
            if not sleepers[key]:
                del sleepers[key]
        if not sleepers:
            del self._sleepers[group.scope]
        self.has_sleepers = bool(self._asleep)

    def _see(self, head: Head | None, group: Group) -> None:
        """Let a group see the commits that did not concern it while it slept: they are not to be looked at again."""
        if head is not None and head.seq > group.seen.seq:
            group.see(Seen(head.seq, cursor_at(head)), group.query)

    # Answering

    def _is_in_round(self) -> bool:
        return bool(self._round or self._running or self._telling)

    def _is_resting(self) -> bool:
        """Whether a round is not over, or a pause."""
        return self._is_in_round() or not self._share.is_left()

    def _spend(self, seconds: float) -> None:
        """Note how long something took; while few write, it may take what it needs."""
        if time.monotonic() - self._committed_at[0] < MANY_SECONDS:
            self._share.spend(seconds)

    def _start_some(self) -> None:
        """Have readers answer the queries of some groups."""
        while self._round and len(self._running) < RUNNING_MAX:
            group = self._round.popleft()
            if not group.requests:
                continue
            request = next(iter(group.requests))
            request.operation, request.result, request.nothing_new, request.deadline = group.query, None, None, None
            self._running[request] = group
            self._answers.evaluate(request)

    def _tell_some(self, started: float) -> None:
        """Send results for a short time."""
        used, number = time.thread_time(), 0
        while self._telling and time.monotonic() < started + SLICE_SECONDS:
            group, result, seq = self._telling[0]
            if not group.requests:
                self._telling.popleft()
                continue
            request = next(iter(group.requests))
            self._remove(request)
            number += 1
            reply = self._answers.refusal(request) or self._answers.success(request, result, seq)
            if not self._answers.send(request, reply):
                self._answers.send(request, self._answers.nothing(request, seq, group.seen.cursor, True))
        self._spend(time.thread_time() - used + number * ASK_SECONDS)

    def _answer_nothing(self, request: WaitingRequest) -> None:
        """Answer with an empty page; if there may be something new, with one that says to ask again at once.

        Does nothing if the query does not wait any more, as when its client turns out to be gone.
        """
        if request not in self._parked:
            return
        group, _ = self._parked[request]
        if not group.is_due and group.scope in self.recent:
            self._see(self.recent[group.scope].last, group)
        self._remove(request)
        seq = self._seq_of(group.scope) if group.is_due else group.seen.seq
        self._answers.send(request, self._answers.nothing(request, seq, group.seen.cursor, group.is_due))

    def _answer_late(self, now: float) -> None:
        """Answer the queries that have waited long enough."""
        while self._next_ticks and self._next_ticks[0] * TICK_SECONDS <= now:
            for request in list(self._ticks[self._next_ticks[0]]):
                self._answer_nothing(request)
            del self._ticks[heapq.heappop(self._next_ticks)]

    def _wake_at(self, request: WaitingRequest, until: float) -> int:
        tick = math.ceil(until / TICK_SECONDS)
        if tick not in self._ticks:
            self._ticks[tick] = {}
            heapq.heappush(self._next_ticks, tick)
        self._ticks[tick][request] = None
        return tick

    def _make_room(self, client: bytes) -> None:
        """Answer the oldest query, of the client or of all, if they are too many."""
        own = self._of_client.get(client, {})
        if len(own) >= WAITING_QUERIES_OF_CLIENT_MAX:
            self._answer_nothing(next(iter(own)))
        if len(self._parked) >= WAITING_QUERIES_MAX:
            self._answer_nothing(next(iter(self._parked)))

    def _remove(self, request: WaitingRequest) -> None:
        (group, tick), client = self._parked.pop(request), request.route[0]
        del self._ticks[tick][request]
        del group.requests[request]
        if not group.requests:
            self._leave_sleep(group)
            if self._due.get(group.key) is group:
                del self._due[group.key]
        own = self._of_client[client]
        del own[request]
        if not own:
            del self._of_client[client]
