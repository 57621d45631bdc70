"""What each piece of work costs, in counts that do not depend on the machine's speed, held against stored ones.

A gate for changes: an operation that takes a statement, an encoding, a message or noticeably more steps and calls than
is stored in fixtures/counts.json fails here, on a slow machine as on a fast one. One that takes less fails too, for the
better figures are to be stored: `pytest tests/test_counts.py --store-counts`, and the diff of that file says what a
change has cost or saved. The dispatcher is counted in this thread; the daemon in its own threads, with 64 requests in
flight that wait behind one, so that they are answered together however the threads are scheduled.

    statements  that SQLite ran, transactions included, and `steps` of its virtual machine for them
    encodes     by msgspec, of whatever it is, and `decodes`
    calls       of functions and resumptions of generators of backscroll; in the daemon, of those inside `IN_DAEMON`
    sends       of messages on ZeroMQ sockets, `receives` of messages that were there, and `wakes` of the daemon's loop

What it cannot see: time itself, and what costs it inside one call or step, which are copies, allocations, pages read
and written, syncs, waits for locks and for the interpreter's; calls into C but those above; lambdas, comprehensions and
generator expressions, which are frames in some versions of Python only; the turns of the daemon's loop, and how many
requests come together when nothing holds them back, both of which are the scheduler's. The benchmark is for those.
"""

import gc
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import apsw
import msgspec
import pytest
import zmq
from msgspec.structs import replace

from backscroll.bus.daemon import Daemon
from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.handlers import changes as changed
from backscroll.handlers.storage import CommandContext, Reads
from backscroll.schema import (
    Batch,
    Category,
    Channel,
    CreateMessage,
    DeleteMessage,
    GetAllRooms,
    GetMessagePage,
    GetMessages,
    GetRoom,
    IsUserBanned,
    Message,
    MessageUpdates,
    Ping,
    Reaction,
    Room,
    RoomMember,
    SaveMessage,
    SaveRoom,
    SaveUser,
    UpdateMessage,
    User,
)
from backscroll.schema.operations import Operation
from backscroll.schema.wire import MSGPACK, Envelope, read_reply
from tests.support.clocks import Clock
from tests.support.handlers import replacing
from tests.support.peers import Peer, running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.undescribed  # that check calls functions of ours

STORED = Path(__file__).parent / "counts.json"
STORE = "pytest tests/laws/test_counts.py --store-counts"
TOLERANCE = {"steps": 0.05, "calls": 0.05}  # of the stored figure, either way; nothing for the rest
OF_ANOTHER_SQLITE = {"steps": 0.25}  # than the one that ran when the figures were stored
IN_FLIGHT = 64
IN_DAEMON = (
    Daemon._handle_message,
    Daemon._start_queries,
    Daemon._send_finished,
    Dispatcher.execute_commands,
    Dispatcher.answer_queries,
)
"""What the daemon's threads do for requests, and not because they were woken. Private, as parts of the loop are."""
MESSAGES = 200
PAGE = 50
PATIENCE_MS = 60_000

Counts = dict[str, int]
Figures = dict[str, Counts]


# Counting


class Tally:
    """Counts what is noted from any thread. Of backscroll's functions only those called by `within`, where it is given.

    Notes are appended and added up later, because a sum is not safe between threads and a list is.
    """

    def __init__(self, within: Sequence[Callable[..., Any]] = ()) -> None:
        self._within = {function.__code__ for function in within}
        self._entered: dict[int, FrameType] = {}  # by thread
        self._notes: list[tuple[str, int]] = []

    def counts(self) -> Counts:
        """What was counted since the last `clear()`."""
        sums: Counter[str] = Counter()
        for what, number in list(self._notes):
            sums[what] += number
        return dict(sums)

    def clear(self) -> None:
        self._notes.clear()

    @contextmanager
    def of_statements(self) -> Iterator[None]:
        """Count what runs on connections that are opened inside the block."""

        def note(event: dict[str, Any]) -> None:
            self._notes.append(("statements", 1))
            self._notes.append(("steps", event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]))

        def trace(connection: apsw.Connection) -> None:
            connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)

        apsw.connection_hooks.append(trace)
        try:
            yield
        finally:
            apsw.connection_hooks.remove(trace)

    @contextmanager
    def of_this_thread(self) -> Iterator[None]:
        """Count what this thread calls."""
        before = sys.getprofile()
        with no_garbage():
            sys.setprofile(self._profile)
            try:
                yield
            finally:
                sys.setprofile(before)

    @contextmanager
    def of_new_threads(self) -> Iterator[None]:
        """Count what threads call that are started inside the block."""
        before = threading.getprofile()
        with no_garbage():
            threading.setprofile(self._profile)
            try:
                yield
            finally:
                threading.setprofile(before)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self._note_call(frame)
        elif event == "return":
            self._note_return(frame, arg)
        elif event == "c_call":
            self._note_call_of_c(arg)

    def _note_call(self, frame: FrameType) -> None:
        code, thread = frame.f_code, threading.get_ident()
        if code.co_name.startswith("<"):
            return
        if is_ours(frame):
            if not self._within or thread in self._entered:
                self._notes.append(("calls", 1))
            elif code in self._within:
                self._entered[thread] = frame
        elif is_on_zmq_socket(frame, "send") and not frame.f_locals.get("flags", 0) & zmq.SNDMORE:
            self._notes.append(("sends", 1))

    def _note_return(self, frame: FrameType, result: Any) -> None:
        if self._entered.get(threading.get_ident()) is frame:
            del self._entered[threading.get_ident()]
        elif result is not None and is_on_zmq_socket(frame, "recv"):
            self._notes.append(("receives", 1))

    def _note_call_of_c(self, function: Any) -> None:
        owner = getattr(function, "__self__", None)
        module = str(getattr(owner, "__name__", type(owner).__module__))  # a function's owner is its module itself
        verb = function.__name__.rpartition("_")[2]  # of `msgspec.json.encode` it is `json_encode`
        if verb in ("encode", "decode") and module.startswith("msgspec"):
            self._notes.append((f"{verb}s", 1))
        elif verb == "send" and module == "socket":
            self._notes.append(("wakes", 1))


def is_ours(frame: FrameType | None) -> bool:
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("backscroll.")


def is_on_zmq_socket(frame: FrameType, verb: str) -> bool:
    """Whether it is a call of ours to send or receive, and not one that pyzmq makes by itself."""
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_name.startswith(verb) and module.startswith("zmq.") and is_ours(frame.f_back)


@contextmanager
def no_garbage() -> Iterator[None]:
    """Have nothing that another test left behind finalized, and counted, inside the block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# The data


def said(name: str, *, reactions: int | None = None, at: int = 0) -> SaveMessage:
    """A save; `reactions` is how many the message carries, None for no list of them."""
    message = Message(
        id=name, room_id="r1", channel_id="c1", sender_id="u0", content=f"this is message {name}", timestamp=at
    )
    if reactions is None:
        return SaveMessage(message)
    each = [Reaction(message_id=name, oder_id=f"u{by}", emoji="👍", timestamp=at + by) for by in range(reactions)]
    return SaveMessage(replace(message, reactions=each))


def data() -> list[Operation[Any]]:
    """Users, rooms, and a room with messages of which the nth has n modulo 4 reactions."""
    members = [RoomMember(oder_id=f"u{at}", joined_at=at) for at in range(4)]
    channels = [Channel(id=f"c{at}", name="c", type="text", position=at) for at in range(3)]
    categories = [Category(id=f"k{at}", name="k", position=at) for at in range(2)]
    lists: dict[str, Any] = {"channels": channels, "categories": categories, "members": members}
    users = [SaveUser(User(oder_id=f"u{at}", id=f"id{at}", username="u", pubkey=f"key{at}")) for at in range(4)]
    rooms = [SaveRoom(Room(id=f"r{at}", name="r", created_at=at, **lists)) for at in range(5)]
    messages = [said(f"m{at}", reactions=at % 4, at=at) for at in range(MESSAGES)]
    return [*users, *rooms, *messages]


def body(operation: Operation[Any], request_id: str) -> bytes:
    """A request as the client writes it."""
    return MSGPACK.encode(Envelope(request_id, operation.wire_name, operation, deadline_ms=PATIENCE_MS))


def fill(transport: InProcess) -> None:
    """Save the data in one commit."""
    dispatcher = transport.dispatcher
    requests = [dispatcher.receive(body(each, f"data {at}")) for at, each in enumerate(data())]
    check(dispatcher.execute_commands(requests))


def check(replies: Sequence[bytes]) -> None:
    """Fail where a reply is a failure: its cost is not what is asked for."""
    refused = [reply for body in replies if not (reply := read_reply(body)[0]).ok]
    assert refused == []


# The work of the dispatcher: each prepares by doing the like once, so that nothing is counted that is kept from then on

Measured = Callable[[], list[bytes]]
Work = Callable[[InProcess], Measured]


def answering(*operations: Operation[Any]) -> Work:
    """The last of these, after the others."""

    def prepare(transport: InProcess) -> Measured:
        answer = transport.dispatcher.answer
        *before, measured = [body(each, f"request {at}") for at, each in enumerate(operations)]
        check([answer(each) for each in before])
        return lambda: [answer(measured)]

    return prepare


def repeating(operation: Operation[Any]) -> Work:
    """A request that is sent once more, under the same id."""

    def prepare(transport: InProcess) -> Measured:
        answer, measured = transport.dispatcher.answer, body(operation, "request")
        check([answer(measured), answer(measured)])
        return lambda: [answer(measured)]

    return prepare


def recalling(operation: Operation[Any]) -> Work:
    """A query whose answer is kept, as the daemon asks for it before it gives it to a reader."""

    def prepare(transport: InProcess) -> Measured:
        dispatcher, measured = transport.dispatcher, body(operation, "request")

        def cached_reply() -> list[bytes]:
            request = dispatcher.receive(measured)
            reply = dispatcher.cached_reply(request)
            return dispatcher.answer_queries([request]) if reply is None else [reply]

        check([dispatcher.answer(measured), *cached_reply()])
        return cached_reply

    return prepare


def committing(number: int) -> Work:
    """So many saves in one commit, decoding included."""

    def prepare(transport: InProcess) -> Measured:
        dispatcher = transport.dispatcher

        def commit(bodies: list[bytes]) -> list[bytes]:
            return dispatcher.execute_commands([dispatcher.receive(each) for each in bodies])

        first, second = ([body(said(f"{turn}{at}"), f"{turn}{at}") for at in range(number)] for turn in "ab")
        check(commit(first))
        return lambda: commit(second)

    return prepare


def paging_before(name: str) -> Work:
    """The page before the cursor that the daemon gives for a message."""

    def prepare(transport: InProcess) -> Measured:
        around = GetMessagePage("r1", around=name, limit=1)
        reply, codec = read_reply(transport.dispatcher.answer(body(around, "around")))
        cursor = codec.decode(reply.result, dict[str, Any])["olderCursor"]
        page = GetMessagePage("r1", before=cursor, limit=PAGE)
        return answering(replace(page, limit=PAGE - 1), page)(transport)

    return prepare


def batch(turn: str) -> Batch:
    return Batch.of([said(f"{turn}{at}") for at in range(100)])


def edited(name: str) -> UpdateMessage:
    return UpdateMessage(name, MessageUpdates(content="said otherwise", edited_at=1))


def created(content: str) -> CreateMessage:
    return CreateMessage("c1", "u0", content, room_id="r1")


A_COMMAND = edited("m3")  # in the room that is read: no answer from before it is right
OLDEST = GetMessages("r1", limit=PAGE)
NEWEST = GetMessagePage("r1", limit=PAGE)
AROUND = GetMessagePage("r1", around="m100", limit=PAGE)

DISPATCHED: dict[str, Work] = {
    "save-message": answering(said("a"), said("b")),
    "save-message with 3 reactions": answering(said("a", reactions=3), said("b", reactions=3)),
    "save-message again": repeating(said("a")),
    "update-message": answering(edited("m3"), edited("m7")),
    "delete-message": answering(DeleteMessage("m3"), DeleteMessage("m7")),
    "create-message": answering(created("hello"), created("hello again")),
    "batch of 100 saves": answering(batch("a"), batch("b")),
    "commit of 256 saves": committing(256),
    "get-messages": answering(OLDEST, A_COMMAND, OLDEST),
    "get-messages kept": answering(OLDEST, OLDEST, OLDEST),
    "get-messages recalled": recalling(OLDEST),
    "get-message-page at the end": answering(NEWEST, A_COMMAND, NEWEST),
    "get-message-page in the middle": paging_before("m100"),
    "get-message-page around": answering(AROUND, A_COMMAND, AROUND),
    "get-room": answering(GetRoom("r2"), GetRoom("r1")),
    "get-all-rooms": answering(GetAllRooms(), A_COMMAND, GetAllRooms()),
    "ping": answering(Ping(), Ping()),
}


def count_dispatched(work: Work, directory: Path) -> Counts:
    """What a piece of work costs on the data, in a directory of its own."""
    tally = Tally()
    with tally.of_statements(), InProcess(directory, clock=Clock()) as transport:
        fill(transport)
        measured = work(transport)
        tally.clear()
        with tally.of_this_thread():
            replies = measured()
        counts = tally.counts()
    check(replies)
    return {"statements": 0, "steps": 0, "encodes": 0, "decodes": 0, "calls": 0} | counts


# The work of the daemon


class Flight(NamedTuple):
    """Requests in flight together, those of each turn; `behind` is what they wait for, which they share a lane with.

    They wait behind a command or a query, so that they are another run: what they are themselves, or what ends answers.
    """

    behind: Operation[Any] | None
    requests: Callable[[str], list[Operation[Any]]]


A_QUERY = IsUserBanned("u0", "r1")

IN_DAEMON_TOGETHER = {
    f"daemon: {IN_FLIGHT} saves": Flight(A_QUERY, lambda turn: [said(f"{turn}{at}") for at in range(IN_FLIGHT)]),
    f"daemon: {IN_FLIGHT} get-messages": Flight(
        A_COMMAND, lambda _: [GetMessages("r1", limit=PAGE, offset=at) for at in range(IN_FLIGHT)]
    ),
    f"daemon: {IN_FLIGHT} get-messages kept": Flight(A_QUERY, lambda _: [OLDEST] * IN_FLIGHT),
    f"daemon: {IN_FLIGHT} pings": Flight(None, lambda _: [Ping()] * IN_FLIGHT),
}


class Barrier:
    """A handler that is done when it is told, and that says when it has begun. As a command it ends kept answers."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self, _operation: Any, _db: Reads, context: CommandContext | None = None) -> None:
        if context is not None:
            changed.cleared(context, "message")
        self.begun.set()
        self.opened.wait(PATIENCE_MS / 1000)

    def close(self) -> None:
        self.begun.clear()
        self.opened.clear()


def count_in_flight(flight: Flight, directory: Path) -> Counts:
    """What the requests of a flight cost all together, and what they wait behind; counted when it is flown again."""
    with InProcess(directory, clock=Clock()) as transport:
        fill(transport)
    tally, barrier = Tally(IN_DAEMON), Barrier()
    handlers = replacing({type(A_QUERY): barrier, type(A_COMMAND): barrier})
    with (
        tally.of_statements(),
        tally.of_new_threads(),
        running(directory, handlers=handlers) as (endpoint, daemon, _, _),
        Peer(endpoint) as peer,
    ):
        for turn in ("first", "second"):
            tally.clear()
            check(fly(flight, turn, tally, peer, barrier))
            wait_until(lambda: is_idle(daemon))
        counts = tally.counts()
    return dict.fromkeys(("statements", "steps", "encodes", "decodes", "calls", "wakes"), 0) | counts


def fly(flight: Flight, turn: str, tally: Tally, peer: Peer, barrier: Barrier) -> list[bytes]:
    """Send the requests of a turn, have them answered when all have come, and give the replies."""
    bodies = [body(each, f"{turn} {at}") for at, each in enumerate(flight.requests(turn))]
    if flight.behind is not None:
        barrier.close()
        peer.send(body(flight.behind, turn))
        wait_until(barrier.begun.is_set)
    for each in bodies:
        peer.send(each)
    if flight.behind is None:
        return [peer.frames()[-1] for _ in bodies]
    try:
        wait_until(lambda: tally.counts().get("receives") == len(bodies) + 1)
    finally:
        barrier.opened.set()
    return [peer.frames()[-1] for _ in (flight.behind, *bodies)]


def is_idle(daemon: Daemon) -> bool:
    """Whether nothing is waiting and no worker is about to wake anybody.

    Reads private numbers: `health` would be counted itself, and no query tells that a worker has still to wake the loop
    after its replies were sent.
    """
    crews = daemon._writers._pool, daemon._readers._pool
    return not daemon._queues()["requests"] and not any(crew._unfinished for crew in crews)


# Comparing


class Change(NamedTuple):
    """A figure that is another than the stored one."""

    work: str
    what: str
    stored: int
    counted: int


def changes(stored: Figures, counted: Figures, tolerance: dict[str, float]) -> list[Change]:
    """The figures that differ by more than they may, in order; of what is in both."""
    both = [
        Change(work, what, stored[work][what], counted[work][what]) for work, what in sorted(names(stored, counted))
    ]
    return [each for each in both if abs(each.counted - each.stored) > each.stored * tolerance.get(each.what, 0)]


def names(stored: Figures, counted: Figures) -> set[tuple[str, str]]:
    one, other = (
        {(work, what) for work, counts in figures.items() for what in counts} for figures in (stored, counted)
    )
    return one & other


def table(found: Sequence[Change]) -> str:
    """Changes for people."""
    lines = [f"{'':36} {'':10} {'stored':>8} {'counted':>8}"]
    for work, what, stored, counted in found:
        percent = f" {(counted - stored) / stored:+8.1%}" if stored else ""
        lines.append(f"{work:36} {what:10} {stored:8} {counted:8}{percent}")
    return "\n".join(lines)


class Stored(NamedTuple):
    """The file of figures."""

    sqlite: str
    figures: Figures

    @property
    def tolerance(self) -> dict[str, float]:
        return TOLERANCE if self.sqlite == apsw.sqlite_lib_version() else TOLERANCE | OF_ANOTHER_SQLITE


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """All figures, counted now; and stored, if that was asked for."""

    def directory() -> Path:
        return tmp_path_factory.mktemp("counts")

    figures = {name: count_dispatched(work, directory()) for name, work in DISPATCHED.items()}
    figures |= {name: count_in_flight(flight, directory()) for name, flight in IN_DAEMON_TOGETHER.items()}
    if request.config.getoption("--store-counts"):
        content = {"sqlite": apsw.sqlite_lib_version(), "figures": figures}
        STORED.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return figures


@pytest.fixture
def stored(counted: Figures) -> Stored:
    """What the file says, read after it may have been written."""
    return Stored(**json.loads(STORED.read_text(encoding="utf-8")))


# The gate


def test_nothing_costs_more_than_is_stored(stored: Stored, counted: Figures) -> None:
    """No figure is above the stored one by more than its tolerance, which is nothing for all but steps and calls."""
    grown = [each for each in changes(stored.figures, counted, stored.tolerance) if each.counted > each.stored]
    if grown:
        pytest.fail(f"this grew; if it is worth it, store it with `{STORE}`:\n{table(grown)}", pytrace=False)


def test_what_costs_less_is_stored(stored: Stored, counted: Figures) -> None:
    """No figure is below the stored one either: else it could grow back unseen."""
    shrunk = [each for each in changes(stored.figures, counted, stored.tolerance) if each.counted < each.stored]
    if shrunk:
        pytest.fail(f"better than stored; keep it so, with `{STORE}`:\n{table(shrunk)}", pytrace=False)


def test_the_stored_figures_are_those_that_are_counted(stored: Stored, counted: Figures) -> None:
    """Each piece of work and each thing counted of it is stored, and nothing else is."""
    assert {work: set(counts) for work, counts in stored.figures.items()} == {
        work: set(counts) for work, counts in counted.items()
    }, f"store the figures with `{STORE}`"


# The gauge


def test_a_request_costs_the_daemon_one_message_each_way(counted: Figures) -> None:
    """Whatever is in flight; and runs of requests, not requests, wake the loop."""
    for name, flight in IN_DAEMON_TOGETHER.items():
        runs = 0 if flight.behind is None else 2
        requests = IN_FLIGHT + (flight.behind is not None)
        assert counted[name]["receives"] == counted[name]["sends"] == requests, name
        assert counted[name]["wakes"] <= runs, name


@pytest.mark.parametrize("name", ["save-message with 3 reactions", "get-message-page in the middle"])
def test_the_same_work_costs_the_same_again(counted: Figures, tmp_path: Path, name: str) -> None:
    """Another store gives the same figures to the last step and call: tolerances are for changes, not for noise."""
    assert count_dispatched(DISPATCHED[name], tmp_path) == counted[name]


def test_daemons_cost_the_same_again(counted: Figures, tmp_path: Path) -> None:
    """However its threads are scheduled."""
    name = f"daemon: {IN_FLIGHT} get-messages"
    assert count_in_flight(IN_DAEMON_TOGETHER[name], tmp_path) == counted[name]


def test_statements_are_counted_as_the_connection_itself_reports_them(tmp_path: Path) -> None:
    """What SQLite says it profiled is what was run, each row of an `executemany` included."""
    run: list[str] = []

    def note(_cursor: apsw.Cursor, sql: str, _bindings: Any) -> bool:
        run.append(sql)
        return True

    def trace(connection: apsw.Connection) -> None:
        connection.exec_trace = note

    tally = Tally()
    apsw.connection_hooks.append(trace)
    try:
        with tally.of_statements(), InProcess(tmp_path, clock=Clock()) as transport:
            measured = answering(said("a", reactions=3), said("b", reactions=3))(transport)
            tally.clear()
            run.clear()
            check(measured())
            assert tally.counts()["statements"] == len(run)
    finally:
        apsw.connection_hooks.remove(trace)


def test_calls_encodes_and_decodes_are_counted_one_by_one() -> None:
    """Each call of a function of backscroll, each encoding and decoding of msgspec, and nothing of others."""
    tally = Tally()
    MSGPACK.decode(b"\x90", list[int])  # which makes the decoder
    with tally.of_this_thread():
        for _ in range(3):
            encoded = MSGPACK.encode([1, 2])
            MSGPACK.decode(encoded, list[int])
        assert msgspec.json.decode(msgspec.json.encode(1)) == int(b"1".decode())
        assert json.loads(json.dumps([1])) == [1]
    assert tally.counts() == {"calls": 3, "encodes": 4, "decodes": 4}


def test_the_gate_tells_growth_from_noise() -> None:
    """One statement more or less is a change; of steps and calls it takes more than their tolerance."""
    before = {"save": {"statements": 6, "steps": 100, "calls": 1_000}, "gone": {"statements": 1}}
    after = {"save": {"statements": 7, "steps": 105, "calls": 949}, "new": {"statements": 1}}
    found = changes(before, after, TOLERANCE)
    assert found == [Change("save", "calls", 1_000, 949), Change("save", "statements", 6, 7)]
    assert "+16.7%" in table(found)
    assert "-5.1%" in table(found)
    assert changes(before, before, TOLERANCE) == []


def test_another_sqlite_may_take_other_steps_but_no_other_statements() -> None:
    """Its planner and its virtual machine are its own; a plan that became a scan is still seen."""
    other = Stored("3.0.0", {"save": {"statements": 6, "steps": 100}})
    assert changes(other.figures, {"save": {"statements": 6, "steps": 120}}, other.tolerance) == []
    assert changes(other.figures, {"save": {"statements": 7, "steps": 126}}, other.tolerance) == [
        Change("save", "statements", 6, 7),
        Change("save", "steps", 100, 126),
    ]
