"""The cost of operations in counts that do not depend on the machine's speed, compared with stored figures.

A gate for changes: an operation that takes more statements, encodings or messages than are stored in counts.json, or
noticeably more steps or calls, fails here, on a slow machine as on a fast one. An operation that takes fewer is
reported in the summary of the run, so that the lower figures can be stored with `pytest tests/laws/test_counts.py
--store-counts`; the diff of that file shows what a change costs or saves. The dispatcher is counted in the test's
thread; the daemon in its own threads, with 64 requests in flight that wait behind one, so that they are answered
together however the threads are scheduled.

    statements  that SQLite ran, transactions included, and `steps` of its virtual machine for them
    encodes     by msgspec, of whatever it is, and `decodes`
    calls       of functions and resumptions of generators of backscroll; in the daemon, of those inside `IN_DAEMON`
    sends       of messages on ZeroMQ sockets, `receives` of messages that were there, and `wakes` of the daemon's loop

Not counted: time itself, and what takes time inside one call or step, such as copies, allocations, pages read and
written, syncs, and waiting for locks and for the interpreter; calls into C other than those above; lambdas,
comprehensions and generator expressions, which are frames only in some versions of Python; the iterations of the
daemon's loop, and how many requests arrive together when nothing delays them, which depend on the scheduler. The
benchmark is for those.
"""

import gc
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import apsw
import msgspec
import pytest
import zmq
from msgspec.structs import replace

from backscroll.bus import dispatch
from backscroll.bus.daemon import Daemon
from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.bus.router import RouterSocket
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
    MessageUpdates,
    Ping,
    Reaction,
    RemoveMember,
    Room,
    RoomMember,
    SaveMember,
    SaveMessage,
    SaveRoom,
    SaveUser,
    UpdateMessage,
    User,
)
from backscroll.schema.operations import Command, Operation
from backscroll.schema.wire import MSGPACK, Envelope, read_reply
from tests.support.clocks import Clock
from tests.support.handlers import replacing
from tests.support.messages import message_record
from tests.support.notes import add_note, notes_in
from tests.support.peers import Peer, running
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.undescribed,  # that check would be counted
    pytest.mark.xdist_group("counts"),  # in one process, which counts once
]

STORED = Path(__file__).parent / "counts.json"
STORE = "pytest tests/laws/test_counts.py --store-counts"
TOLERANCE = {"steps": 0.05, "calls": 0.05}  # of the stored figure; 0 for the rest
OF_ANOTHER_SQLITE = {"steps": 0.25}  # than the one that ran when the figures were stored
IN_FLIGHT = 64
IN_DAEMON = (
    Daemon._handle_message,
    Daemon._start_queries,
    Daemon._send_finished,
    Dispatcher.answer_commands,
    Dispatcher.answer_queries,
)
"""What the daemon's threads do for requests, and not because they were woken. Private, as parts of the loop are."""
MESSAGES = 200
PAGE = 50
PATIENCE_MS = 60_000
RISING = count(1)

Counts = dict[str, int]
Figures = dict[str, Counts]


# Counting


class Tally:
    """Counts events from any thread; of backscroll's functions only those called by `within`, if it is given.

    Events are appended to a list and summed later, because appending is atomic between threads and adding is not.
    """

    def __init__(self, within: Sequence[Callable[..., Any]] = ()) -> None:
        self._within = {function.__code__ for function in within}
        self._entered: dict[int, FrameType] = {}  # by thread
        self._notes: list[tuple[str, int]] = []

    def counts(self) -> Counts:
        """The sums of all events since the last `clear()`."""
        sums: Counter[str] = Counter()
        for what, number in list(self._notes):
            sums[what] += number
        return dict(sums)

    def clear(self) -> None:
        self._notes.clear()

    @contextmanager
    def of_statements(self) -> Iterator[None]:
        """Count the statements of connections that are opened inside the block."""

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
        """Count the calls of this thread."""
        before = sys.getprofile()
        with without_garbage_collection():
            sys.setprofile(self._profile)
            try:
                yield
            finally:
                sys.setprofile(before)

    @contextmanager
    def of_new_threads(self) -> Iterator[None]:
        """Count the calls of threads that are started inside the block."""
        before = threading.getprofile()
        with without_garbage_collection():
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
        elif is_send_on_zmq_socket(frame) and not frame.f_locals.get("flags", 0) & zmq.SNDMORE:
            self._notes.append(("sends", 1))

    def _note_return(self, frame: FrameType, result: Any) -> None:
        if self._entered.get(threading.get_ident()) is frame:
            del self._entered[threading.get_ident()]
        elif result is not None and frame.f_code is RouterSocket.receive.__code__:
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


def is_send_on_zmq_socket(frame: FrameType) -> bool:
    """Whether backscroll itself sends here, and not pyzmq internally."""
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_name.startswith("send") and module.startswith("zmq.") and is_ours(frame.f_back)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Prevent finalizers of other tests' objects from running, and being counted, inside the block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# The data


def save_with(name: str, *, reactions: int | None = None, at: int = 0) -> SaveMessage:
    """A `save-message`; `reactions` is the number of reactions in the message, None leaves the list out."""
    message = message_record(name, f"this is message {name}", channel_id="c1", sender_id="u0", timestamp=at)
    if reactions is None:
        return SaveMessage(message)
    each = [Reaction(message_id=name, oder_id=f"u{by}", emoji="👍", timestamp=at + by) for by in range(reactions)]
    return SaveMessage(replace(message, reactions=each))


def data() -> list[Operation[Any]]:
    """Users, rooms, and a room of messages of which the nth has n modulo 4 reactions."""
    members = [RoomMember(oder_id=f"u{at}", joined_at=at) for at in range(4)]
    channels = [Channel(id=f"c{at}", name="c", type="text", position=at) for at in range(3)]
    categories = [Category(id=f"k{at}", name="k", position=at) for at in range(2)]
    lists: dict[str, Any] = {"channels": channels, "categories": categories, "members": members}
    users = [SaveUser(User(oder_id=f"u{at}", id=f"id{at}", username="u", pubkey=f"key{at}")) for at in range(4)]
    rooms = [SaveRoom(Room(id=f"r{at}", name="r", created_at=at, **lists)) for at in range(5)]
    messages = [save_with(f"m{at}", reactions=at % 4, at=at) for at in range(MESSAGES)]
    return [*users, *rooms, *messages]


def body(operation: Operation[Any], request_id: str) -> bytes:
    """A request as the client encodes it."""
    envelope = Envelope(request_id, operation.wire_name, operation, deadline_ms=PATIENCE_MS)
    if isinstance(operation, Command):
        envelope = replace(envelope, client="client", n=next(RISING))
    return MSGPACK.encode(envelope)


def fill(transport: InProcess) -> None:
    """Save the data in one commit."""
    dispatcher = transport.dispatcher
    requests = [dispatcher.receive(body(each, f"data {at}")) for at, each in enumerate(data())]
    check_all_ok(dispatcher.answer_commands(requests))


def check_all_ok(replies: Sequence[bytes]) -> None:
    """Fail where a reply is an error, because the cost of an error is not what is measured."""
    refused = [reply for body in replies if not (reply := read_reply(body)[0]).ok]
    assert refused == []


# The work of the dispatcher: each prepares by doing similar work once, so that nothing is counted that is cached later

Measured = Callable[[], list[bytes]]
Work = Callable[[InProcess], Measured]


def answering(*operations: Operation[Any]) -> Work:
    """Measures the last of these operations, after the others were executed."""

    def prepare(transport: InProcess) -> Measured:
        answer = transport.dispatcher.answer
        *before, measured = [body(each, f"request {at}") for at, each in enumerate(operations)]
        check_all_ok([answer(each) for each in before])
        return lambda: [answer(measured)]

    return prepare


def repeating(operation: Operation[Any]) -> Work:
    """Measures a request that is sent again under the same id."""

    def prepare(transport: InProcess) -> Measured:
        answer, measured = transport.dispatcher.answer, body(operation, "request")
        check_all_ok([answer(measured), answer(measured)])
        return lambda: [answer(measured)]

    return prepare


def answering_from_cache(operation: Operation[Any]) -> Work:
    """Measures a query whose reply is cached, looked up as the daemon does before it uses a reader."""

    def prepare(transport: InProcess) -> Measured:
        dispatcher, measured = transport.dispatcher, body(operation, "request")

        def cached_reply() -> list[bytes]:
            request = dispatcher.receive(measured)
            reply = dispatcher.cached_reply(request)
            return dispatcher.answer_queries([request]) if reply is None else [reply]

        check_all_ok([dispatcher.answer(measured), *cached_reply()])
        return cached_reply

    return prepare


def committing(number: int) -> Work:
    """Measures a number of saves in one commit, including their decoding."""

    def prepare(transport: InProcess) -> Measured:
        dispatcher = transport.dispatcher

        def commit(bodies: list[bytes]) -> list[bytes]:
            return dispatcher.answer_commands([dispatcher.receive(each) for each in bodies])

        first, second = ([body(save_with(f"{turn}{at}"), f"{turn}{at}") for at in range(number)] for turn in "ab")
        check_all_ok(commit(first))
        return lambda: commit(second)

    return prepare


def paging_before(name: str) -> Work:
    """Measures the page before the cursor that the daemon gives for a message."""

    def prepare(transport: InProcess) -> Measured:
        around = GetMessagePage("r1", around=name, limit=1)
        reply, codec = read_reply(transport.dispatcher.answer(body(around, "around")))
        cursor = codec.decode(reply.result, dict[str, Any])["olderCursor"]
        page = GetMessagePage("r1", before=cursor, limit=PAGE)
        return answering(replace(page, limit=PAGE - 1), page)(transport)

    return prepare


def batch(turn: str) -> Batch:
    return Batch.of([save_with(f"{turn}{at}") for at in range(100)])


def edited(name: str) -> UpdateMessage:
    return UpdateMessage(name, MessageUpdates(content="edited", edited_at=1))


def created(content: str) -> CreateMessage:
    return CreateMessage("c1", "u0", content, room_id="r1")


def joined(name: str) -> SaveMember:
    return SaveMember("r1", RoomMember(oder_id=name, display_name="New", joined_at=9))


A_COMMAND = edited("m3")  # in the room that is read, so it invalidates the cached pages
OLDEST = GetMessages("r1", limit=PAGE)
NEWEST = GetMessagePage("r1", limit=PAGE)
AROUND = GetMessagePage("r1", around="m100", limit=PAGE)

DISPATCHED: dict[str, Work] = {
    "save-message": answering(save_with("a"), save_with("b")),
    "save-message with 3 reactions": answering(save_with("a", reactions=3), save_with("b", reactions=3)),
    "save-message again": repeating(save_with("a")),
    "update-message": answering(edited("m3"), edited("m7")),
    "delete-message": answering(DeleteMessage("m3"), DeleteMessage("m7")),
    "create-message": answering(created("hello"), created("hello again")),
    "batch of 100 saves": answering(batch("a"), batch("b")),
    "commit of 256 saves": committing(256),
    "get-messages": answering(OLDEST, A_COMMAND, OLDEST),
    "get-messages cached": answering(OLDEST, OLDEST, OLDEST),
    "get-messages by cached_reply": answering_from_cache(OLDEST),
    "get-message-page at the end": answering(NEWEST, A_COMMAND, NEWEST),
    "get-message-page in the middle": paging_before("m100"),
    "get-message-page around": answering(AROUND, A_COMMAND, AROUND),
    "save-member": answering(joined("a"), joined("b")),
    "remove-member": answering(joined("a"), joined("b"), RemoveMember("r1", "a"), RemoveMember("r1", "b")),
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
    check_all_ok(replies)
    return {"statements": 0, "steps": 0, "encodes": 0, "decodes": 0, "calls": 0} | counts


# The work of the daemon


class Flight(NamedTuple):
    """Requests that are in flight together in each turn; `behind` is the request in the same lane that they wait for.

    It is a command for queries and a query for commands, so that they are not part of its run.
    """

    behind: Operation[Any] | None
    requests: Callable[[str], list[Operation[Any]]]


A_QUERY = IsUserBanned("u0", "r1")

IN_DAEMON_TOGETHER = {
    f"daemon: {IN_FLIGHT} saves": Flight(A_QUERY, lambda turn: [save_with(f"{turn}{at}") for at in range(IN_FLIGHT)]),
    f"daemon: {IN_FLIGHT} get-messages": Flight(
        A_COMMAND, lambda _: [GetMessages("r1", limit=PAGE, offset=at) for at in range(IN_FLIGHT)]
    ),
    f"daemon: {IN_FLIGHT} get-messages cached": Flight(A_QUERY, lambda _: [OLDEST] * IN_FLIGHT),
    f"daemon: {IN_FLIGHT} pings": Flight(None, lambda _: [Ping()] * IN_FLIGHT),
}


class Barrier:
    """A handler that finishes when it is released, and signals when it has begun. As a command it invalidates the
    cache.
    """

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
    """What all requests of a flight cost, together with the one they wait behind, on the second turn."""
    with InProcess(directory, clock=Clock()) as transport:
        fill(transport)
    tally, barrier = Tally(IN_DAEMON), Barrier()
    handlers = replacing({type(A_QUERY): barrier, type(A_COMMAND): barrier})
    with (
        pytest.MonkeyPatch.context() as patch,
        tally.of_statements(),
        tally.of_new_threads(),
        running(directory, handlers=handlers) as (endpoint, daemon, *_),
        Peer(endpoint) as peer,
    ):
        patch.setattr(dispatch, "RUN_SECONDS", PATIENCE_MS)  # counting makes runs so slow that they would be cut
        peer.ask("ping")  # so that its handshake is not counted
        for turn in ("first", "second"):
            tally.clear()
            check_all_ok(fly(flight, turn, tally, peer, barrier))
            wait_until(lambda: is_idle(daemon))
        counts = tally.counts()
    return dict.fromkeys(("statements", "steps", "encodes", "decodes", "calls", "wakes"), 0) | counts


def fly(flight: Flight, turn: str, tally: Tally, peer: Peer, barrier: Barrier) -> list[bytes]:
    """Send the requests of a turn, release them when all have arrived, and return the replies."""
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
    """Whether no request is waiting and no worker is about to wake the loop.

    Reads private numbers: `health` would be counted itself, and no query tells that a worker has still to wake the loop
    after its replies were sent.
    """
    pools = daemon._writers._pool, daemon._writers._maintenance, daemon._readers._pool
    return not daemon._queues()["requests"] and not any(pool._unfinished for pool in pools)


# Comparing


class Change(NamedTuple):
    """A figure that differs from the stored one."""

    work: str
    what: str
    stored: int
    counted: int


def changes(stored: Figures, counted: Figures, tolerance: dict[str, float]) -> list[Change]:
    """The figures present on both sides that differ by more than the tolerance, in order."""
    both = [
        Change(work, what, stored[work][what], counted[work][what]) for work, what in sorted(names(stored, counted))
    ]
    return [each for each in both if abs(each.counted - each.stored) > each.stored * tolerance.get(each.what, 0)]


def refuse_dearer(found: Sequence[Change]) -> None:
    """Fail where a figure is above the stored one."""
    if dearer := [each for each in found if each.counted > each.stored]:
        pytest.fail(f"this grew; if it is worth it, store it with `{STORE}`:\n{table(dearer)}", pytrace=False)


def report_cheaper(found: Sequence[Change], stash: pytest.Stash) -> None:
    """Note the figures below the stored ones for the summary of the run."""
    if cheaper := [each for each in found if each.counted < each.stored]:
        add_note(stash, "cheaper than stored", f"{table(cheaper)}\nstore the new figures with `{STORE}`")


def names(stored: Figures, counted: Figures) -> set[tuple[str, str]]:
    one, other = (
        {(work, what) for work, counts in figures.items() for what in counts} for figures in (stored, counted)
    )
    return one & other


def table(found: Sequence[Change]) -> str:
    """Changes as a table for people."""
    lines = [f"{'':36} {'':10} {'stored':>8} {'counted':>8}"]
    for work, what, stored, counted in found:
        percent = f" {(counted - stored) / stored:+8.1%}" if stored else ""
        lines.append(f"{work:36} {what:10} {stored:8} {counted:8}{percent}")
    return "\n".join(lines)


class Stored(NamedTuple):
    """The content of the file of figures."""

    sqlite: str
    figures: Figures

    @property
    def tolerance(self) -> dict[str, float]:
        return TOLERANCE if self.sqlite == apsw.sqlite_lib_version() else TOLERANCE | OF_ANOTHER_SQLITE


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """All figures counted in this run, stored first if `--store-counts` was given."""

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
    """The stored figures, read after `counted` may have written them."""
    return Stored(**json.loads(STORED.read_text(encoding="utf-8")))


# Comparison with the stored figures


def test_no_figure_exceeds_the_stored_one(stored: Stored, counted: Figures, pytestconfig: pytest.Config) -> None:
    """A figure may exceed the stored one by its tolerance, which is 0 for all but steps and calls.

    Lower figures are reported in the summary of the run.
    """
    found = changes(stored.figures, counted, stored.tolerance)
    report_cheaper(found, pytestconfig.stash)
    refuse_dearer(found)


def test_stored_and_counted_figures_have_the_same_names(stored: Stored, counted: Figures) -> None:
    """The file lists each piece of work with everything that is counted of it, and nothing else."""
    assert {work: set(counts) for work, counts in stored.figures.items()} == {
        work: set(counts) for work, counts in counted.items()
    }, f"store the figures with `{STORE}`"


# The counting itself


def test_each_request_costs_one_message_in_each_direction(counted: Figures) -> None:
    """With any requests in flight; the loop is woken once for each run of requests, and not for each request."""
    for name, flight in IN_DAEMON_TOGETHER.items():
        runs = 0 if flight.behind is None else 2
        requests = IN_FLIGHT + (flight.behind is not None)
        assert counted[name]["receives"] == counted[name]["sends"] == requests, name
        assert counted[name]["wakes"] <= runs, name


@pytest.mark.parametrize("name", ["save-message with 3 reactions", "get-message-page in the middle"])
def test_counting_the_same_work_again_gives_equal_figures(counted: Figures, tmp_path: Path, name: str) -> None:
    """Another store gives exactly the same figures: tolerances are for changes of the code, and not for noise."""
    assert count_dispatched(DISPATCHED[name], tmp_path) == counted[name]


def test_counting_a_daemon_again_gives_equal_figures(counted: Figures, tmp_path: Path) -> None:
    """The scheduling of its threads makes no difference."""
    name = f"daemon: {IN_FLIGHT} get-messages"
    assert count_in_flight(IN_DAEMON_TOGETHER[name], tmp_path) == counted[name]


def test_statement_counts_match_the_exec_trace(tmp_path: Path) -> None:
    """SQLite profiles each statement that is run, including each row of an `executemany`."""
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
            measured = answering(save_with("a", reactions=3), save_with("b", reactions=3))(transport)
            tally.clear()
            run.clear()
            check_all_ok(measured())
            assert tally.counts()["statements"] == len(run)
    finally:
        apsw.connection_hooks.remove(trace)


def test_calls_encodes_and_decodes_are_counted_individually() -> None:
    """Each call of a backscroll function and each encoding and decoding of msgspec counts, and nothing of other
    packages.
    """
    tally = Tally()
    MSGPACK.decode(b"\x90", list[int])  # which makes the decoder
    with tally.of_this_thread():
        for _ in range(3):
            encoded = MSGPACK.encode([1, 2])
            MSGPACK.decode(encoded, list[int])
        assert msgspec.json.decode(msgspec.json.encode(1)) == int(b"1".decode())
        assert json.loads(json.dumps([1])) == [1]
    assert tally.counts() == {"calls": 3, "encodes": 4, "decodes": 4}


def test_changes_within_the_tolerance_are_ignored() -> None:
    """A single statement more or less is a change; steps and calls may differ by their tolerance."""
    before = {"save": {"statements": 6, "steps": 100, "calls": 1_000}, "gone": {"statements": 1}}
    after = {"save": {"statements": 7, "steps": 105, "calls": 949}, "new": {"statements": 1}}
    found = changes(before, after, TOLERANCE)
    assert found == [Change("save", "calls", 1_000, 949), Change("save", "statements", 6, 7)]
    assert "+16.7%" in table(found)
    assert "-5.1%" in table(found)
    assert changes(before, before, TOLERANCE) == []


def test_only_dearer_figures_fail_and_cheaper_ones_are_noted() -> None:
    """A figure below the stored one passes and is noted with the command that stores it; one above fails."""
    stash = pytest.Stash()
    dearer, cheaper = Change("save", "statements", 6, 7), Change("save", "calls", 1_000, 949)
    refuse_dearer([cheaper])
    report_cheaper([cheaper, dearer], stash)
    [(title, text)] = notes_in(stash)
    assert title == "cheaper than stored"
    assert STORE in text
    assert "calls" in text
    assert "statements" not in text
    with pytest.raises(pytest.fail.Exception, match="statements"):
        refuse_dearer([cheaper, dearer])


def test_another_sqlite_version_has_a_wider_step_tolerance() -> None:
    """Its planner and virtual machine may differ, but the number of statements may not, and a plan that became a scan
    shows.
    """
    other = Stored("3.0.0", {"save": {"statements": 6, "steps": 100}})
    assert changes(other.figures, {"save": {"statements": 6, "steps": 120}}, other.tolerance) == []
    assert changes(other.figures, {"save": {"statements": 7, "steps": 126}}, other.tolerance) == [
        Change("save", "statements", 6, 7),
        Change("save", "steps", 100, 126),
    ]
