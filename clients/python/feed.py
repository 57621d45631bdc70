"""What both clients have in common to follow the feed, without any I/O: what to ask next, and what to give the caller.

    changes() ──▶ ChangeSteps ──┐                          ┌──▶ Ask    send a query; its answer or error comes back
    watch()   ──▶ WatchSteps  ──┴──▶ a generator of steps ─┼──▶ Pause  wait a little
                                                           └──▶ Item   for the caller

A client carries out one step at a time, and only while its caller waits for the next item: nothing is queued for a slow
caller, and a step that was interrupted is repeated. The first question shows whether a daemon answers: its errors are
raised. From then on the steps wait for the daemon, however long it is away. Nothing is lost with a connection, because
the daemon pushes nothing: whatever happened, the next question has the same cursor.
"""

from collections.abc import Generator
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from backscroll.schema.command_log import NOUNS_IN_ROOMS
from backscroll.schema.errors import BackscrollError, Internal, NoReply
from backscroll.schema.operations import NOW, Builtin, GetChanges, Ping, Query, WaitingQuery
from backscroll.schema.replies import RECORD_OF_NOUN, ChangePage, ItemChange

R = TypeVar("R")
T = TypeVar("T")

WAIT_MS = 30_000
"""How long one question waits for a change. A connection that was lost without notice is found after that time."""
PAUSE_SECONDS = 0.02
PAUSE_SECONDS_MAX = 1.0
POLL_SECONDS = 0.05
"""The longest pause between questions to a transport that cannot wait, such as the in-process one."""


class FeedGap(Exception):
    """A cursor belongs to another history of the scope, so what changed since is unknown; `cursor` is the new one."""

    def __init__(self, cursor: str) -> None:
        super().__init__(
            "the cursor belongs to another history of this scope, because its files were restored from a copy or it was"
            " deleted: read everything anew, and then go on with changes(after=error.cursor)"
        )
        self.cursor = cursor


class Watched(NamedTuple, Generic[R]):
    """A result of a watched query, and the scope's commit number that it reflects.

    `gap`: the scope has another history than at the result before, and may have fewer commits.
    """

    result: R
    seq: int
    gap: bool = False


class Ask(NamedTuple):
    """Send a query. The steps go on with an `Answer`, or with the error thrown into them."""

    query: Query[Any]


class Pause(NamedTuple):
    """Wait before the next step."""

    seconds: float


class Item(NamedTuple):
    """Give this to the caller, and go on when it asks for the next one."""

    value: Any


class Answer(NamedTuple):
    """The result of a query, the commit number that it reflects, and how long it took."""

    result: Any
    seq: int
    seconds: float


Step = Ask | Pause | Item
Steps = Generator[Step, Any, T]


class ChangeSteps:
    """Follows the feed, change by change. Without `waits`, it asks again and again instead of waiting in the daemon.

    `cursor` is the one after the pages whose changes were all given to the caller; None while it is not known yet.
    `at_page_end`: it includes the latest change.
    """

    def __init__(self, query: GetChanges, *, waits: bool) -> None:
        self.cursor = None if query.after == NOW else query.after
        self.at_page_end = True
        self._query = query
        self._waits = waits

    def run(self) -> Steps[None]:
        pace = _Pace(self._waits)
        yield Ask(Ping())
        if self._query.after == NOW:
            self.cursor = yield from _now()
        while True:
            page = yield from _next_page(self._query, self.cursor, pace)
            if page.gap:
                raise FeedGap(page.cursor)
            for number, change in enumerate(page.changes, 1):
                self.at_page_end = number == len(page.changes)
                if self.at_page_end:
                    self.cursor = page.cursor
                yield Item(change)
            self.cursor = page.cursor


class FeedPosition:
    """What an iterator over changes knows of its place in the feed."""

    _steps_of_changes: ChangeSteps

    @property
    def cursor(self) -> str | None:
        """Where to begin the next time: after the latest page of changes of which all were given out.

        After `changes("now")` it is None until the end of the feed was found, which is while the first item is awaited.
        """
        return self._steps_of_changes.cursor

    @property
    def at_page_end(self) -> bool:
        """Whether `cursor` is after the latest change, and not after one before it."""
        return self._steps_of_changes.at_page_end


class WatchSteps(Generic[R]):
    """Gives the results of a query: the first at once, and others when it may have changed and does differ."""

    def __init__(self, query: Query[R], *, waits: bool) -> None:
        if not isinstance(query, Query) or isinstance(query, Builtin | WaitingQuery):
            raise TypeError(f"watch takes a query about stored items, not {type(query).__name__}")
        self._query = query
        self._waits = waits
        nouns = list(query.READS)
        room_id: str | None = getattr(query, "room_id", None)
        in_room = room_id is not None and bool(nouns) and NOUNS_IN_ROOMS.issuperset(nouns)
        self.question = GetChanges(
            rooms=[room_id] if in_room and room_id is not None else None, nouns=nouns or None, values=False
        )
        """What tells that the result may have changed."""

    def run(self) -> Steps[None]:
        pace = _Pace(self._waits)
        yield Ask(Ping())
        cursor = yield from _now()  # first, so that what changes while the query is answered is asked for afterwards
        given: Watched[R] | None = None
        newest, gap = 0, False
        while True:
            answer = yield from _answer(self._query)
            gap = gap or answer.seq < newest  # requests are answered in order, so only another history has a lower one
            newest = answer.seq
            if gap or given is None or given.result != answer.result:
                given = Watched(answer.result, answer.seq, gap)
                yield Item(given)
            cursor, gap = yield from self._changed(cursor, pace)

    def _changed(self, cursor: str, pace: "_Pace") -> Steps[tuple[str, bool]]:
        """Wait for a change; the cursor to go on with, which is older than any later result, and if there is a gap."""
        while True:
            page = yield from _next_page(self.question, cursor, pace)
            cursor = page.cursor
            if page.gap:
                return cursor, True
            if page.more:
                return (yield from self._jump(cursor))
            if page.changes:
                return cursor, False

    def _jump(self, cursor: str) -> Steps[tuple[str, bool]]:
        """Leave out the changes that there are until now. That the old cursor still fits shows that this is no gap."""
        now = yield from _now()
        answer = yield from _answer(replace(self.question, after=cursor, limit=1))
        page: ChangePage = answer.result
        return (page.cursor, True) if page.gap else (now, False)


class _Pace:
    """How long to pause after questions that brought nothing: longer each time, until one does."""

    def __init__(self, waits: bool) -> None:
        self.wait_ms = WAIT_MS if waits else 0
        self._longest = PAUSE_SECONDS_MAX if waits else POLL_SECONDS
        self._next = PAUSE_SECONDS

    def pause(self) -> Pause:
        seconds = self._next
        self._next = min(self._next * 2, self._longest)
        return Pause(seconds)

    def reset(self) -> None:
        self._next = PAUSE_SECONDS


def _now() -> Steps[str]:
    """The cursor at the end of the feed."""
    answer = yield from _answer(GetChanges(after=NOW))
    page: ChangePage = answer.result
    return page.cursor


def _next_page(query: GetChanges, cursor: str | None, pace: _Pace) -> Steps[ChangePage]:
    """The page after a cursor.

    Where an empty one came long before its time, it pauses: the transport cannot wait, or the daemon has too many
    queries that do.
    """
    answer = yield from _answer(replace(query, after=cursor, wait_ms=pace.wait_ms))
    page: ChangePage = answer.result
    came_early = answer.seconds * 1000 <= WAIT_MS / 2
    if came_early and not (page.changes or page.more or page.gap):
        yield pace.pause()
    else:
        pace.reset()
    return page


def _answer(query: Query[Any]) -> Steps[Answer]:
    """The answer to a query, however long the daemon is away; raises an error that waiting does not end."""
    pace = _Pace(waits=True)
    while True:
        try:
            answer: Answer = yield Ask(query)
            return answer
        except BackscrollError as error:
            if not (error.retryable or isinstance(error, NoReply)):
                raise
        yield pace.pause()


def with_records(page: ChangePage) -> ChangePage:
    """The page with the record of its noun as the value of each change; raises `Internal` if that is not possible.

    The value of a noun of a later level stays as it was sent.
    """
    return replace(page, changes=[_with_record(change) for change in page.changes])


def _with_record(change: ItemChange) -> ItemChange:
    record = RECORD_OF_NOUN.get(change.noun)
    if record is None or change.value is None:
        return change
    try:
        return replace(change, value=msgspec.convert(change.value, record))
    except msgspec.ValidationError as error:
        raise Internal(f"the daemon sent an invalid {change.noun}: {error}") from error
