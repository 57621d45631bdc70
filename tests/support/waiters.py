"""Queries that wait, without a socket and without threads: each step of the daemon's loop is one of the test."""

import math
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from backscroll.bus import waiting
from backscroll.bus.dispatch import WaitingRequest
from backscroll.bus.processor_share import ProcessorShare
from backscroll.bus.stores import Commit, Store
from backscroll.bus.waiting import Answers, WaitingQueries
from backscroll.schema.limits import WAIT_MS_MAX
from backscroll.schema.wire import DEFAULT_SCOPE, codec_of
from tests.support.local import Local
from tests.support.messages import save_payload
from tests.support.requests import body

Plain = dict[str, Any]


class LoopTime:
    """A module `time` that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now


class Waiters:
    """`WaitingQueries` with a real dispatcher and real stores. Clients are named by bytes, requests by their ids.

    A reader answers what it is asked in `read`; each answer takes `page_seconds` of a processor.
    """

    def __init__(self, local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
        self.local = local
        self.time = LoopTime()
        monkeypatch.setattr(waiting, "time", self.time)
        monkeypatch.setattr(waiting, "ProcessorShare", partial(ProcessorShare, clock=self.time.monotonic))
        self.page_seconds = 0.0
        self.asked: deque[WaitingRequest] = deque()
        """What readers are asked, and have not answered."""
        self.evaluated: list[str] = []
        """The ids of all that readers were asked."""
        self.replies: dict[str, Plain] = {}
        self._commits: list[tuple[Commit, Store]] = []
        answers = Answers(
            evaluate=self._evaluate,
            send=self._send,
            success=local.dispatcher.repeat,
            nothing=local.dispatcher.nothing_new,
            refusal=lambda _: None,
        )
        scopes = local.scopes
        self.queries = WaitingQueries(answers, scopes.seq, lambda scope: scopes.store_if_open(scope, used=False))
        scopes.on_commit(self._committed)

    def receive(
        self, request_id: str, after: str | None, client: bytes = b"c", scope: str = DEFAULT_SCOPE, **payload: Any
    ) -> WaitingRequest:
        """A query that has arrived, and waits as long as it may."""
        payload = {"waitMs": WAIT_MS_MAX} | payload | ({} if after is None else {"after": after})
        request = self.local.dispatcher.receive(body("get-changes", payload, id=request_id, scope=scope), [client])
        assert isinstance(request, WaitingRequest)
        return request

    def ask(self, request_id: str, after: str | None, client: bytes = b"c", **payload: Any) -> None:
        """Receive a query, and let it wait or answer it."""
        request = self.receive(request_id, after, client, **payload)
        if self.queries.prepare(request):
            self.queries.park(request)
            return
        [reply] = self.local.dispatcher.answer_queries([request])
        if request.may_wait:
            self.queries.park(request)
        else:
            self._send(request, reply)

    def cursor(self, scope: str = DEFAULT_SCOPE) -> str:
        """The end of the feed."""
        cursor: str = self.local.result("get-changes", {"after": "now"}, scope=scope)["cursor"]
        return cursor

    def save(self, *names: int | str, room: str = "r1", scope: str = DEFAULT_SCOPE) -> None:
        """Save messages, each with a commit of its own, which the loop has not noted yet."""
        for name in names:
            self.local.result("save-message", save_payload(name, room_id=room), scope=scope)

    def note(self) -> None:
        """Note the commits."""
        commits, self._commits = self._commits, []
        self.queries.note_commits(commits)

    def read(self) -> None:
        """Answer what readers are asked."""
        while self.asked:
            request = self.asked.popleft()
            [reply] = self.local.dispatcher.answer_queries([request])
            request.seconds = self.page_seconds
            self.queries.evaluated(request, reply)

    def turn(self) -> None:
        """Turns of the loop, with all commits and all answers of readers, until it would wait."""
        self.note()
        for _ in range(1_000):
            self.queries.turn()
            if not self.asked and self.queries.wait_seconds() > 0:
                return
            self.read()
        pytest.fail("the loop never comes to rest")

    def turn_until(self, wanted: Iterable[str]) -> float:
        """Turns of the loop until these are answered; the seconds for which it waited meanwhile."""
        started = self.time.now
        self.turn()
        while not self.replies.keys() >= set(wanted):
            seconds = self.queries.wait_seconds()
            assert math.isfinite(seconds), "nothing will ever happen"
            self.time.now += seconds
            self.turn()
        return self.time.now - started

    def page(self, request_id: str) -> Plain:
        """The page that a query was answered."""
        reply = self.replies[request_id]
        assert reply["ok"], reply
        page: Plain = reply["result"]
        return page

    def ids(self, request_id: str) -> list[str]:
        """The items of the changes that a query was told."""
        return [change["id"] for change in self.page(request_id)["changes"]]

    def _evaluate(self, request: WaitingRequest) -> None:
        self.asked.append(request)
        self.evaluated.append(request.id)

    def _send(self, request: WaitingRequest, reply: bytes) -> bool:
        assert request.id not in self.replies, "answered twice"
        self.replies[request.id] = codec_of(reply).decode(reply, Plain)
        return True

    def _committed(self, commit: Commit, store: Store) -> None:
        if commit.scope in self.queries.recent:
            self._commits.append((commit, store))
