"""Queries that wait until there is something new: beside the lanes, where they are in nobody's way.

    lane ──▶ nothing new ──park──▶ asleep ──a commit that concerns it──▶ due ──▶ reader ──▶ telling ──▶ reply
                                     ▲  └── waitMs over, too many, a stop ──▶ empty page   │
                                     └─────────────── nothing new after all ◀─────────────┘

Equal queries, those with the same scope, cursor and filter, are one group, which is answered by one query: a thousand
windows that wait for the same change cost one. Groups are found by the rooms that they wait for, so a commit costs as
much as it has changes, however many wait for other rooms.

Commands go first: replies are sent in short slices, and where many wait while there are many commits, all of this gets
a thirtieth of a processor. When that is spent there is a pause, and whoever asks in it is answered afterwards. So a
lone commit is told at once, and of commits in quick succession some are told together. Used only by the loop thread.
"""

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from backscroll.bus.dispatch import Seen, WaitingRequest
from backscroll.bus.processor_share import ProcessorShare
from backscroll.bus.recent_commits import RecentCommit, RecentCommits, Wanted
from backscroll.bus.stores import Commit, Store
from backscroll.handlers.feed import Head, cursor_at, seen_until
from backscroll.schema.limits import WAITING_BYTES_MAX, WAITING_QUERIES_MAX, WAITING_QUERIES_OF_CLIENT_MAX
from backscroll.schema.operations.feed import NOW
from backscroll.schema.wire import MSGPACK

TICK_SECONDS = 0.01  # queries wait at most so much longer than they should
LONGER_SECONDS = 0.05  # after its time, for a query that is due
SLICE_SECONDS = 0.002
RUNNING_MAX = 4  # groups that readers answer at a time
STUCK_SECONDS = 0.1  # a reader that takes longer holds up no others: its scope may be closed to it
CROWD = 64  # so many queries wait before they have to share
CROWD_SECONDS = 1.0
SHARE, SAVED_SECONDS, PAUSE_SECONDS_MAX = 1 / 30, 0.05, 1.0  # of a processor
MANY_COMMITS, MANY_SECONDS = 10, 1.0
ASK_SECONDS = 60e-6  # to receive a query, with what libzmq's thread does for it and for its reply
SCOPES_MAX = 64  # whose last commits are known, besides those in which queries wait
UNKNOWN = -1  # the seq of who has seen nobody knows what


class Group:
    """Equal queries that wait for the same, and until where there is nothing new for them.

    `is_due`: there may be something new by now.
    """

    __slots__ = ("codec_name", "is_due", "key", "query", "requests", "scope", "seen", "wanted")

    def __init__(self, scope: str, codec_name: str, query: Any, seen: Seen) -> None:
        self.scope = scope
        self.codec_name = codec_name
        self.wanted = _wanted_by(query)
        self.requests: dict[WaitingRequest, None] = {}
        self.is_due = False
        self.see(seen, query)
        self.key = (scope, codec_name, MSGPACK.encode(self.query))

    def see(self, seen: Seen, query: Any) -> None:
        self.seen = seen
        self.query = replace(query, after=seen.cursor, wait_ms=0)

    @property
    def rooms(self) -> Iterable[str | None]:
        """The rooms that can wake it; None for all."""
        return self.wanted.rooms or (None,)


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
    """All queries that wait. `seq_of` returns the last seq of a scope, `store_of` its store if it is open.

    A writer gives commits of the scopes in `recent` to the loop; it wakes the loop for that while it `has_sleepers`.
    Both may be read by any thread. `bytes` is the size of the queries as they were sent.
    """

    def __init__(self, answers: Answers, seq_of: Callable[[str], int], store_of: Callable[[str], Store | None]) -> None:
        self._answers = answers
        self._seq_of, self._store_of = seq_of, store_of
        self.has_sleepers = False
        self.bytes = 0
        self.recent: dict[str, RecentCommits] = {}  # by scope
        self._parked: dict[WaitingRequest, tuple[Group, int]] = {}  # and the tick, in the order in which they came
        self._of_client: dict[bytes, dict[WaitingRequest, None]] = {}
        self._asleep: dict[Any, Group] = {}  # by key
        self._sleepers: dict[str, dict[str | None, dict[Group, None]]] = {}  # the same, by scope and room
        self._due: dict[Any, Group] = {}  # to be answered, by key, in the order in which they became that
        self._running: dict[WaitingRequest, tuple[Group, float]] = {}  # by who asks for the group, and since when
        self._telling: deque[Telling] = deque()
        self._ticks: dict[int, dict[WaitingRequest, None]] = {}  # who is answered at the latest, by tick
        self._next_ticks: list[int] = []  # a heap; some may have nobody any more
        self._share = ProcessorShare(SHARE, SAVED_SECONDS, PAUSE_SECONDS_MAX)
        self._committed_at = deque([-math.inf] * MANY_COMMITS, MANY_COMMITS)  # the times of the last commits
        self._crowded_until = 0.0

    def __len__(self) -> int:
        return len(self._parked)

    def has(self, client: bytes) -> bool:
        """Whether queries of a client wait. May be called from any thread."""
        return client in self._of_client

    def prepare(self, request: WaitingRequest) -> bool:
        """Whether a query can be parked without asking a reader first; if so, note in it what it has seen.

        It can if it has certainly seen everything up to one of the last commits. In a crowd all can that go on from a
        cursor, so that they are answered together.
        """
        after = request.operation.after
        if after in (None, NOW):
            return False
        seq, recent = seen_until(after), self._recent(request.scope)
        if recent is None or seq is None or not recent.knows(seq, after):
            seq = UNKNOWN
        elif not recent.may_have_news(seq, _wanted_by(request.operation)):
            request.nothing_new = Seen(seq, after, recent.store)
            return True
        if self._is_crowded():
            request.nothing_new = Seen(seq, after, None if recent is None else recent.store)
        return self._is_crowded()

    def park(self, request: WaitingRequest) -> None:
        """Let a query wait that has seen what `request.nothing_new` says; if there may be more, it is answered soon."""
        assert request.nothing_new is not None
        client = request.route[0]
        self._make_room(client, request.size)
        request.is_parked = True
        self.bytes += request.size
        self._of_client.setdefault(client, {})[request] = None
        until = time.monotonic() + request.operation.wait_ms / 1000
        tick = self._wake_at(request, until if request.deadline is None else min(until, request.deadline))
        group = Group(request.scope, request.codec.name, request.operation, request.nothing_new)
        self._join(group, {request: tick})
        if len(self._parked) > CROWD:
            self._crowded_until = time.monotonic() + CROWD_SECONDS

    def note_commits(self, commits: Iterable[tuple[Commit, Store]]) -> None:
        """Wake the queries that commits concern."""
        now = time.monotonic()
        for commit, store in commits:
            self._committed_at.append(now)
            recent = self.recent.get(commit.scope)
            if recent is not None and recent.store is not store:
                self._wake_all(commit.scope)
            elif recent is not None:
                before = recent.last
                if (added := recent.add(commit)) is not None:
                    self._wake(commit.scope, before, added)

    def check_scope(self, scope: str) -> None:
        """Ask all queries of a scope again if it may have become another one."""
        recent = self.recent.get(scope)
        if recent is not None and (recent.store is None or recent.store is not self._store_of(scope)):
            self._wake_all(scope)

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
        group, _ = self._running.pop(request)
        self._spend(request.seconds)
        if request.nothing_new is not None:
            waiting = {each: self._parked[each][1] for each in group.requests}
            if waiting:
                self._join(Group(group.scope, group.codec_name, group.query, request.nothing_new), waiting)
        elif request.result is not None:
            self._telling.append(Telling(group, *request.result))
        else:  # an error, which the others may not get
            if request in self._parked:
                self._remove(request)
                self._answers.send(request, reply)
            if group.requests:
                self._set_due(group)

    @property
    def is_telling(self) -> bool:
        return bool(self._telling)

    def turn(self) -> None:
        """Do what there is to do, for a short time. Call it in each turn of the loop."""
        if self._next_ticks:
            self._answer_late(time.monotonic())
        if self._due:
            self._start_some(time.monotonic())
        if self._telling:
            self._tell_some(time.monotonic())

    def wait_seconds(self) -> float:
        """The time until there is something to do for `turn`."""
        if self._telling:
            return 0.0
        at = self._next_ticks[0] * TICK_SECONDS if self._next_ticks else math.inf
        if self._due:
            stuck = [since + STUCK_SECONDS for _, since in self._running.values()]
            at = min(at, max(self._share.left_at(), min(stuck) if len(stuck) >= RUNNING_MAX else 0.0))
        return max(0.0, at - time.monotonic())

    # Sleeping and waking

    def _join(self, group: Group, requests: dict[WaitingRequest, int]) -> None:
        """Let queries, given with their ticks, sleep as this group or as an equal one; or be due, if there is news."""
        recent = self._recent(group.scope) or self._follow(group.scope)
        if recent.store is not group.seen.store or recent.may_have_news(group.seen.seq, group.wanted):
            due = self._due.setdefault(group.key, group)
            due.is_due = True
            self._adopt(due, requests)
            return
        asleep = self._asleep.setdefault(group.key, group)
        if asleep is group:
            sleepers = self._sleepers.setdefault(group.scope, {})
            for room_id in group.rooms:
                sleepers.setdefault(room_id, {})[group] = None
            self.has_sleepers = True
        self._adopt(asleep, requests)

    def _recent(self, scope: str) -> RecentCommits | None:
        """The last commits of a scope, if they are known, and if they are those of its store as it is now."""
        recent = self.recent.get(scope)
        if recent is not None and recent.store is not self._store_of(scope):
            self._wake_all(scope)
            return None
        return recent

    def _follow(self, scope: str) -> RecentCommits:
        """Get to know all commits of a scope from now on."""
        if len(self.recent) - len(self._sleepers) >= SCOPES_MAX:
            for each in [each for each in self.recent if each not in self._sleepers]:
                del self.recent[each]
        recent = self.recent[scope] = RecentCommits(self._store_of(scope), 0)
        recent.since = self._seq_of(scope)  # afterwards, so that no commit is missed in between
        return recent

    def _adopt(self, group: Group, requests: dict[WaitingRequest, int]) -> None:
        for request, tick in requests.items():
            group.requests[request] = None
            self._parked[request] = (group, tick)

    def _wake(self, scope: str, before: Head | None, commit: RecentCommit) -> None:
        """Wake the groups that a commit is news for; `before` is the end of the log before it."""
        sleepers = self._sleepers.get(scope)
        if not sleepers:
            return
        rooms: Iterable[str | None] = sleepers
        if commit.pairs is not None and all(room_id is not None for _, room_id in commit.pairs):
            rooms = {None, *(room_id for _, room_id in commit.pairs)}
        for group in list(dict.fromkeys(each for room_id in rooms for each in sleepers.get(room_id, ()))):
            if group.seen.seq < commit.head.seq and commit.is_news_for(group.wanted):
                self._see(before, group)
                self._set_due(group)

    def _wake_all(self, scope: str) -> None:
        """Ask all queries of a scope again, because what was known of it is not true any more."""
        self.recent.pop(scope, None)
        for group in list(dict.fromkeys(each for those in self._sleepers.get(scope, {}).values() for each in those)):
            self._set_due(group)

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
        for room_id in group.rooms:
            del sleepers[room_id][group]
            if not sleepers[room_id]:
                del sleepers[room_id]
        if not sleepers:
            del self._sleepers[group.scope]
        self.has_sleepers = bool(self._asleep)

    def _see(self, head: Head | None, group: Group) -> None:
        """Let a group see the commits that did not concern it while it slept: they are not to be looked at again."""
        if head is not None and head.seq > group.seen.seq:
            group.see(Seen(head.seq, cursor_at(head), group.seen.store), group.query)

    # Answering

    def _is_crowded(self) -> bool:
        """Whether many wait, or did so a moment ago."""
        return time.monotonic() < self._crowded_until

    def _spend(self, seconds: float) -> None:
        """Note how long something took; without a crowd, and while few write, it may take what it needs."""
        if self._is_crowded() and time.monotonic() - self._committed_at[0] < MANY_SECONDS:
            self._share.spend(seconds)

    def _start_some(self, now: float) -> None:
        """Have readers answer the queries of some groups."""
        running = sum(now - since < STUCK_SECONDS for _, since in self._running.values())
        while self._due and running < RUNNING_MAX and self._share.is_left():
            group = self._due.pop(next(iter(self._due)))
            request = next(iter(group.requests))
            request.operation, request.result, request.nothing_new, request.deadline = group.query, None, None, None
            self._running[request] = (group, now)
            running += 1
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
        """Answer the queries that have waited long enough. Those that are due are answered soon anyway."""
        while self._next_ticks and (
            self._next_ticks[0] not in self._ticks or self._next_ticks[0] * TICK_SECONDS <= now
        ):
            tick = heapq.heappop(self._next_ticks)
            for request in list(self._ticks.get(tick, ())):
                if request in self._parked and self._parked[request][0].is_due:
                    self._wait_longer(request, now)
                else:
                    self._answer_nothing(request)
            self._ticks.pop(tick, None)

    def _wait_longer(self, request: WaitingRequest, now: float) -> None:
        group, tick = self._parked[request]
        del self._ticks[tick][request]
        self._parked[request] = (group, self._wake_at(request, now + LONGER_SECONDS))

    def _wake_at(self, request: WaitingRequest, until: float) -> int:
        tick = math.ceil(until / TICK_SECONDS)
        if tick not in self._ticks:
            self._ticks[tick] = {}
            heapq.heappush(self._next_ticks, tick)
        self._ticks[tick][request] = None
        return tick

    def _make_room(self, client: bytes, size: int) -> None:
        """Answer the oldest queries, of the client or of all, if they are too many or too large."""
        own = self._of_client.get(client, {})
        if len(own) >= WAITING_QUERIES_OF_CLIENT_MAX:
            self._answer_nothing(next(iter(own)))
        while self._parked and (len(self) >= WAITING_QUERIES_MAX or self.bytes + size > WAITING_BYTES_MAX):
            self._answer_nothing(next(iter(self._parked)))

    def _remove(self, request: WaitingRequest) -> None:
        (group, tick), client = self._parked.pop(request), request.route[0]
        self.bytes -= request.size
        at_tick = self._ticks.get(tick, {})
        at_tick.pop(request, None)
        if not at_tick:
            self._ticks.pop(tick, None)
        del group.requests[request]
        if not group.requests:
            self._leave_sleep(group)
            if self._due.get(group.key) is group:
                del self._due[group.key]
        own = self._of_client[client]
        del own[request]
        if not own:
            del self._of_client[client]


def _set_of(items: Iterable[str] | None) -> frozenset[str] | None:
    return None if items is None else frozenset(items)


def _wanted_by(query: Any) -> Wanted:
    return Wanted(_set_of(query.nouns), _set_of(query.rooms))
