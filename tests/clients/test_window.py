"""At most so many requests are in flight on a connection; the others wait their turn, in order."""

import math
import random
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python import pending_calls as module
from backscroll.clients.python.pending_calls import BEHIND, Call, PendingCalls
from backscroll.schema import Busy, DeleteScope, GetChanges, Operation, Ping, Pong, SaveUser, User
from backscroll.schema.errors import Unavailable
from backscroll.schema.wire import MSGPACK, Success, write_failure

IN_FLIGHT, IN_FLIGHT_BYTES, CALLS = 5, 1_000, 20
STEPS, STEPS_LONG = 2_000, 200_000


@pytest.fixture
def pending(monkeypatch: pytest.MonkeyPatch) -> PendingCalls:
    """A machine with small limits."""
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", IN_FLIGHT)
    monkeypatch.setattr(module, "IN_FLIGHT_BYTES_MAX", IN_FLIGHT_BYTES)
    monkeypatch.setattr(module, "CALLS_MAX", CALLS)
    return PendingCalls()


def save(size: int = 1) -> SaveUser:
    return SaveUser(User(oder_id="a", id="a", username="x" * size))


def made(operation: Operation[Any], call_id: str) -> Call:
    return Call(operation, scope="default", timeout_ms=1_000, call_id=call_id)


def added(pending: PendingCalls, *ids: str, operation: Operation[Any] | None = None) -> list[Call]:
    calls = [made(operation or save(), each) for each in ids]
    for call in calls:
        pending.add(call)
    return calls


def sent(pending: PendingCalls) -> list[Call]:
    """The calls that may be sent, which marks them as sent."""
    calls = []
    while (call := pending.next_call()) is not None:
        pending.mark_sent(call)
        calls.append(call)
    return calls


def ok(call_id: str) -> bytes:
    return MSGPACK.encode(Success(call_id, True, None, 1))


def busy(call_id: str) -> bytes:
    return write_failure(call_id, Busy("not now"), MSGPACK)


class Model:
    """What a client does with a machine, at random, and what must be true of that.

    `_in_flight` is what was sent on the current connection and has no reply, also if nobody waits for it any more.
    """

    def __init__(self, pending: PendingCalls, draw: random.Random) -> None:
        self._pending = pending
        self._draw = draw
        self._calls: list[Call] = []  # that somebody waits for, in their order
        self._in_flight: list[Call] = []
        self._highest = 0  # the number of the newest call that was sent on this connection
        self._made = 0

    def step(self) -> None:
        steps = (self.add, self.send, self.answer, self.forget, self.lose, self.wait)
        self._draw.choices(steps, (8, 6, 8, 2, 1, 1))[0]()
        self._calls = [call for call in self._calls if call.outcome is None]

    def add(self) -> None:
        self._made += 1
        size = self._draw.choice((1, 100, 400, 2_000))
        operation = self._draw.choice((save(size), save(size), GetChanges(wait_ms=100), DeleteScope()))
        call = made(operation, str(self._made))
        if len(self._calls) < CALLS:
            self._pending.add(call)
            self._calls.append(call)
        else:
            with pytest.raises(Busy):
                self._pending.add(call)

    def send(self) -> None:
        """Send what may be sent: no more than the window, in order, each once; and no less than the window."""
        for call in sent(self._pending):
            assert call in self._calls
            assert call not in self._in_flight
            assert call.number >= self._highest
            self._highest = call.number
            self._in_flight.append(call)
            counted = self._counted()
            assert len(counted) <= IN_FLIGHT
            assert call.waits or len(counted) == 1 or sum(counted) <= IN_FLIGHT_BYTES
        waiting = [call for call in self._calls if not call.awaiting_reply]
        if waiting and self._pending.retry_at == math.inf:
            assert not waiting[0].waits
            counted = self._counted()
            assert len(counted) == IN_FLIGHT or sum(counted) + len(waiting[0].body) > IN_FLIGHT_BYTES

    def answer(self) -> None:
        if self._in_flight:
            call = self._in_flight.pop(self._draw.randrange(len(self._in_flight)))
            reply = busy if self._draw.random() < 0.2 else ok
            self._pending.handle_reply(reply(call.id), 0.0)

    def forget(self) -> None:
        """Somebody stops waiting; the connection is given up only if nobody waits for any of a full window."""
        if self._calls:
            call = self._calls.pop(self._draw.randrange(len(self._calls)))
            is_silent = call.awaiting_reply and call.received_before == self._pending._received
            is_given_up = self._pending.time_out(call)
            awaited = [each for each in self._in_flight if not each.waits and each in self._calls]
            assert is_silent or not is_given_up or not awaited
            if is_given_up:
                self.lose()

    def lose(self) -> None:
        self._in_flight, self._highest = [], 0
        self._pending.reconnected()

    def wait(self) -> None:
        self._pending.queue_retry(math.inf)

    def finish(self) -> None:
        """With a peer that answers everything, all calls have an outcome."""
        for _ in range(10 * CALLS):
            self.wait()
            self.send()
            for call in self._in_flight:
                self._pending.handle_reply(ok(call.id), 0.0)
            self._in_flight = []
            self._calls = [call for call in self._calls if call.outcome is None]
        assert (self._calls, len(self._pending), list(self._pending.send_queue)) == ([], 0, [])

    def _counted(self) -> list[int]:
        return [len(each.body) for each in self._in_flight if not each.waits]


@pytest.mark.parametrize("seed", range(3))
def test_the_window_holds_whatever_happens(pending: PendingCalls, seed: int, long: bool) -> None:
    """Additions, replies, refusals, losses and callers that give up, in any order: what is sent never exceeds the
    window, nothing overtakes what was added before it, and nothing waits while there is room.
    """
    model = Model(pending, random.Random(seed))
    for _ in range(STEPS_LONG if long else STEPS):
        model.step()
    model.finish()


def test_requests_that_nobody_waits_for_are_in_flight(pending: PendingCalls) -> None:
    """They count until their replies arrive."""
    calls = added(pending, *"abcdef")
    assert sent(pending) == calls[:5]
    for call in calls[:5]:
        pending.forget(call)
    assert sent(pending) == []
    pending.handle_reply(ok("b"), 0.0)
    assert sent(pending) == calls[5:]


def test_a_window_that_nobody_waits_for_is_given_up(pending: PendingCalls) -> None:
    """When a request behind it runs out of time; while somebody waits for one of them, a reply may still come."""
    *calls, awaited, behind, later = added(pending, *"abcdefg")
    sent(pending)
    pending.handle_reply(ok("nobody's"), 0.0)  # so the connection is not silent
    for call in calls:
        pending.forget(call)
    error = pending.unanswered(behind)
    assert isinstance(error, Unavailable)
    assert BEHIND in str(error)
    assert not pending.time_out(behind)
    pending.forget(awaited)
    assert pending.time_out(later)


def test_an_id_that_is_sent_again_has_two_replies(pending: PendingCalls) -> None:
    """The caller of the first stopped waiting, so the first reply is not the second one's outcome."""
    [first] = added(pending, "a")
    sent(pending)
    pending.forget(first)
    [second] = added(pending, "a")
    sent(pending)
    pending.handle_reply(busy("a"), 0.0)
    assert second.outcome is None
    pending.handle_reply(ok("a"), 0.0)
    assert second.result() is None
    assert sent(pending) == []
    assert len(added(pending, *"bcdef")) == len(sent(pending)) == IN_FLIGHT


def test_a_connection_is_silent_without_any_reply(pending: PendingCalls) -> None:
    """Since the request was sent: any reply counts, also one that nobody waits for."""
    first, second, third = added(pending, *"abc")
    sent(pending)
    pending.handle_reply(ok("c"), 0.0)
    assert not pending.time_out(first)
    added(pending, "d")
    [fourth] = sent(pending)
    assert third.outcome is not None
    assert not pending.time_out(second)
    assert pending.time_out(fourth)


def test_requests_of_a_lost_connection_are_in_doubt(pending: PendingCalls) -> None:
    """Nothing of it is in flight any more, and a refusal that is read only now is no answer to what is sent again."""
    abandoned, second = added(pending, "a", "b")
    sent(pending)
    pending.forget(abandoned)
    pending.reconnected()
    pending.handle_reply(busy("b"), 0.0)
    [again] = added(pending, "a")
    assert sent(pending) == [second, again]
    for call in (second, again):
        pending.handle_reply(ok(call.id), 0.0)
        assert call.result() is None


def test_calls_are_bounded_in_bytes_too(pending: PendingCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too much is refused before anything is sent, until there is room again."""
    monkeypatch.setattr(module, "CALLS_BYTES_MAX", 2_000)
    first, _ = added(pending, "a", "b", operation=save(800))
    with pytest.raises(Busy, match=r"2 requests of this client, of 1.* bytes, have no reply yet"):
        added(pending, "c", operation=save(800))
    pending.forget(first)
    added(pending, "c", operation=save(800))


def test_a_pipeline_waits_where_calls_are_too_many(transport: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its window: it takes no more operations until it has results."""
    monkeypatch.setattr(module, "CALLS_MAX", CALLS)
    with Client(transport=transport) as client:
        assert list(client.pipeline([Ping()] * 100, window=1_000)) == [Pong(pong=True)] * 100
