"""Plays the events of `schema/vectors/retry.json` on the real `PendingCalls`, and notes what it does."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from backscroll.clients.python.pending_calls import CLOSED, Call, PendingCalls
from backscroll.schema import BackscrollError, DeleteScope, GetChanges, GetUser, Initialize, Operation, SaveUser, User
from backscroll.schema.errors import ERRORS
from backscroll.schema.wire import MSGPACK, Success, write_failure
from tests.support.vectors import Vector

Event = dict[str, Any]
TIMEOUT_MS = 5_000
EXACT = 1e-9
"""So many seconds earlier, what is left of a time is never a millisecond more because of how floats are rounded."""

OPERATIONS: dict[str, Operation[Any]] = {
    "command": Initialize(),
    "query": GetUser("ada"),
    "maintenance": DeleteScope(),
}


EVENTS = (
    *("it is sent", "success", "an error of the caller's", "an error of the daemon's", "a new connection"),
    *("the delay is over", "a later call", "its deadline", "close"),
)
"""The events of the table, as the names of its rows have them."""


class Machine:
    """A `PendingCalls` with named calls. Each event returns itself with what it led to."""

    def __init__(self) -> None:
        self._pending = PendingCalls()
        self._calls: dict[str, Call] = {}
        self._outcomes: dict[str, str] = {}
        self._clients: set[str] = set()
        self._gives_up = False

    def play(self, event: Event) -> Event:
        """The event with the `sends`, `outcomes` and `givesUp` that it has here."""
        before = set(self._outcomes)
        played = {key: value for key, value in event.items() if key not in ("sends", "outcomes", "givesUp")}
        self._gives_up = False
        sends = self._do(event, event["at"] / 1000)
        if event["do"] == "send":
            played["sends"] = list(_in_ranges(sends))
        self._note_settled()
        new = [{"call": name, "outcome": each} for name, each in self._outcomes.items() if name not in before]
        if outcomes := {each["call"]: each["outcome"] for each in _in_ranges(new)}:
            played["outcomes"] = outcomes
        if self._gives_up:
            played["givesUp"] = True
        return played

    def state(self, name: str) -> str:
        """The state of a call, in the words of the table."""
        call = self._calls[name]
        if name in self._outcomes:
            return "settled"
        if call in self._pending.send_queue:
            return "to-resend" if call.in_doubt else "to-send"
        if call.awaiting_reply:
            return "resent" if call.in_doubt else "sent"
        return "to-retry"

    def outcome(self, name: str) -> str | None:
        return self._outcomes.get(name)

    def _do(self, event: Event, now: float) -> list[Event]:
        """Do an event; returns what is sent."""
        match event["do"]:
            case "add" | "reply" | "deadline" as kind:
                do = {"add": self._add, "reply": self._reply, "deadline": self._end}[kind]
                for name in calls_in(event["call"]):
                    do(event, name, now)
            case "send":
                return self._send(now)
            case "connected":
                self._pending.reconnected()
            case "wait":
                self._pending.queue_retry(now)
            case "close":
                self._pending.closed = True
                self._pending.fail_all(lambda call: call.unanswered(CLOSED))
            case other:
                raise ValueError(f"unknown event {other!r}")
        return []

    def _add(self, event: Event, name: str, now: float) -> None:
        timeout_ms = event.get("timeoutMs", TIMEOUT_MS)
        call = self._pending.new_call(_operation_of(event), scope="default", timeout_ms=timeout_ms, call_id=name)
        call.deadline = now + call.timeout_ms / 1000 - EXACT
        self._calls[name] = call
        try:
            self._pending.add(call)
        except BackscrollError as error:
            call.outcome = error

    def _send(self, now: float) -> list[Event]:
        sends = []
        while (call := self._pending.next_call()) is not None:
            body = MSGPACK.decode(call.body_at(now), dict[str, Any])
            sent = {"call": call.id, "deadlineMs": body["deadlineMs"]}
            if call.waits:
                sent["waitMs"] = body["payload"].get("waitMs", 0)
            if "client" in body:
                self._clients.add(body["client"])
                sent["n"] = body["n"]
            sends.append(sent)
            self._pending.mark_sent(call)
        assert len(self._clients) <= 1, "the commands have not all the same `client`"
        return sends

    def _reply(self, event: Event, name: str, now: float) -> None:
        reply = MSGPACK.encode(Success(name, True, None, 1))
        if event["with"] != "ok":
            reply = write_failure(name, ERRORS[event["with"]]("refused"), MSGPACK)
        self._pending.handle_reply(reply, now)

    def _end(self, _event: Event, name: str, _now: float) -> None:
        """The caller stops waiting, as both clients do it at the deadline."""
        call = self._calls[name]
        if call.outcome is None:
            call.outcome = self._pending.unanswered(call)
            self._gives_up |= self._pending.time_out(call)

    def _note_settled(self) -> None:
        for name, call in self._calls.items():
            if call.outcome is not None and name not in self._outcomes:
                self._outcomes[name] = _outcome_of(call)


def _operation_of(event: Event) -> Operation[Any]:
    match event["kind"]:
        case "waiting":
            return GetChanges(wait_ms=event["waitMs"])
        case "large":
            return SaveUser(User(oder_id="ada", id="ada", username="x" * event["kilobytes"] * 1000))
        case kind:
            return OPERATIONS[kind]


def calls_in(names: str) -> Iterator[str]:
    """The names of the calls in `a`, or in `a-1 to a-1000`."""
    first, _, last = names.partition(" to ")
    if not last:
        yield first
        return
    group, _, low = first.rpartition("-")
    for number in range(int(low), int(last.rpartition("-")[2]) + 1):
        yield f"{group}-{number}"


def _in_ranges(entries: Iterable[Event]) -> Iterator[Event]:
    """Entries of calls with successive numbers, such as `a-1` and `a-2`, as one, if nothing but `n` differs, which has
    to rise with them.
    """
    for _, group in itertools.groupby(enumerate(entries), lambda each: _what_is_alike(*each)):
        run = [entry for _, entry in group]
        first, last = run[0], run[-1]
        yield first if first is last else {**first, "call": f"{first['call']} to {last['call']}"}


def _what_is_alike(index: int, entry: Event) -> tuple[Any, ...]:
    """What is the same for the entries of a range."""
    group, dash, number = entry["call"].rpartition("-")
    if not dash:
        return (index,)
    rest = tuple((key, each) for key, each in entry.items() if key not in ("call", "n"))
    return group, int(number) - index, entry["n"] - index if "n" in entry else None, rest


def _outcome_of(call: Call) -> str:
    if isinstance(call.outcome, BackscrollError):
        return call.outcome.code
    assert call.outcome is not None
    error = call.outcome[0].error
    return "ok" if error is None else error.code


def played_sequence(vector: Vector) -> Vector:
    """A sequence of events with what they lead to here."""
    machine = Machine()
    return {**vector, "events": [machine.play(event) for event in vector["events"]]}


def played_row(vector: Vector, states: dict[str, list[Event]]) -> Vector:
    """A row of the table with the state and outcome that its event leads to here."""
    machine = Machine()
    for event in states[vector["state"]]:
        machine.play(event)
    assert machine.state("a") == vector["state"].split(",")[0], f"its events lead to {machine.state('a')}"
    machine.play(vector["event"])
    row = {**vector, "to": machine.state("a")}
    row.pop("outcome", None)
    outcome = machine.outcome("a")
    return row | ({"outcome": outcome} if outcome and vector["state"] != "settled" else {})


def table_as_markdown(rows: list[Vector]) -> str:
    """The table as `PROTOCOL.md` shows it: a line for each state, except where what else matters changes nothing."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(row["state"], dict.fromkeys(EVENTS, "–"))[row["name"].partition(": ")[2]] = _cell(row)
    lines = [["state", *EVENTS]]
    for state, found in cells.items():
        plain, comma, condition = state.partition(",")
        if not comma or found != cells[plain]:
            lines.append([f"`{plain}`{comma}{condition}", *found.values()])
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(row: Vector) -> str:
    outcome = row.get("outcome")
    if outcome is not None:
        return "*the error*" if outcome not in ("ok", "no-reply", "unavailable") else f"`{outcome}`"
    return "–" if row["to"] == row["state"].partition(",")[0] else f"`{row['to']}`"
