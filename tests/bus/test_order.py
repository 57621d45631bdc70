"""Order: requests of one client take effect in the order sent, and clients do not wait for each other."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.dispatch import Request
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Conflict, DeleteMessage, GetRoom, SaveMessage
from backscroll.schema.wire import JSON
from tests.support.handlers import handler_of, replacing
from tests.support.held_commits import HELD_MS, HeldCommits
from tests.support.messages import save_payload
from tests.support.model import Model, Refused
from tests.support.peers import Peer, running
from tests.support.requests import answer_all, body
from tests.support.sql import sql
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
PROMPT_SECONDS = 2


class Gate:
    """The handler of a query that waits until it is opened, and signals when it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self, _query: GetRoom, _db: Any) -> None:
        self.begun.set()
        assert self.open.wait(60)


@contextmanager
def opened(gate: Gate) -> Iterator[Gate]:
    """Open the gate at the end, also after a failure."""
    try:
        yield gate
    finally:
        gate.open.set()


@contextmanager
def lock_of_another_process(database: Path) -> Iterator[None]:
    """A write transaction of another process on a database, for the length of the block."""
    script = f"""
import apsw, sys
connection = apsw.Connection({str(database)!r})
connection.set_busy_timeout(10_000)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        other.stdin.close()
        other.wait()
        other.stdout.close()


def one_of(draw: random.Random, at: int) -> tuple[str, dict[str, Any]]:
    """A random command on the same few messages."""
    name = draw.choice(["a", "b", "c"]) if draw.random() < 0.9 else f"n{at}"
    kind = draw.random()
    if kind < 0.6:
        return "save-message", save_payload(f"m{name}", f"text {at}")
    if kind < 0.95:
        return "update-message", {"messageId": f"m{name}", "updates": {"content": f"edit {at}"}}
    if kind < 0.99:
        return "clear-room-messages", {"roomId": "r1"}
    return "delete-message", {"messageId": f"m{name}"}


def test_pipelined_commands_equal_a_sequential_model(start_daemon: StartDaemon, long: bool) -> None:
    """Ten thousand pipelined saves, updates and deletes have the outcomes and the final state of a sequential model;
    `seq` grows by one with each success and with nothing else.
    """
    draw = random.Random(7)
    commands = [one_of(draw, at) for at in range(50_000 if long else 10_000)]
    model, expected = Model(), []
    for operation, payload in commands:
        outcome = model.execute(operation, payload)
        expected.append(outcome.code if isinstance(outcome, Refused) else None)
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for at, (operation, payload) in enumerate(commands):
            peer.request(operation, payload, request_id=str(at))
        replies = peer.replies(len(commands))
        seqs = [replies[str(at)]["seq"] for at, code in enumerate(expected) if code is None]
        outcomes = [
            None if (reply := replies[str(at)])["ok"] else reply["error"]["code"] for at in range(len(commands))
        ]
        stored = peer.ask("get-messages", {"roomId": "r1", "limit": 500})
    assert outcomes == expected
    assert seqs == list(range(1, len(seqs) + 1))
    assert stored["seq"] == len(seqs)
    shown = [(each["id"], each["content"]) for each in stored["result"]]
    assert shown == [(each["id"], each["content"]) for each in model.get_messages("r1")]


def test_a_pipelined_query_sees_exactly_the_commands_before_it(start_daemon: StartDaemon) -> None:
    """All requests are sent before any reply is read, and no query sees more or less."""
    daemon = start_daemon()
    rounds = 200
    with Peer(daemon.endpoint) as peer:
        for at in range(rounds):
            get = ("get-message-by-id", {"messageId": f"m{at}"})
            peer.request("save-message", save_payload(at, "first"), request_id=f"{at}-save")
            peer.request(*get, request_id=f"{at}-saved")
            peer.request("update-message", {"messageId": f"m{at}", "updates": {"content": "second"}}, f"{at}-update")
            peer.request(*get, request_id=f"{at}-updated")
            peer.request("delete-message", {"messageId": f"m{at}"}, request_id=f"{at}-delete")
            peer.request(*get, request_id=f"{at}-deleted")
        replies = peer.replies(rounds * 6)
    for at in range(rounds):
        seen = [replies[f"{at}-{moment}"] for moment in ("saved", "updated", "deleted")]
        assert [reply["result"]["content"] for reply in seen] == ["first", "second", "[Message deleted]"]
        assert [reply["seq"] for reply in seen] == [at * 3 + 1, at * 3 + 2, at * 3 + 3]


def test_replies_come_in_the_order_of_requests(start_daemon: StartDaemon) -> None:
    """A client that only sends commands and queries can match replies by counting."""
    daemon = start_daemon()
    draw = random.Random(3)
    with Peer(daemon.endpoint) as peer:
        for at in range(1_000):
            if draw.random() < 0.5:
                peer.request("save-message", save_payload(at), request_id=str(at))
            else:
                peer.request("get-messages", {"roomId": "none"}, request_id=str(at))
        assert [peer.reply()["id"] for _ in range(1_000)] == [str(at) for at in range(1_000)]


def user(name: str, pubkey: str) -> dict[str, Any]:
    return {"user": {"oderId": name, "id": f"u-{name}", "username": name, "pubkey": pubkey}}


def two_hundred_with_one_conflict() -> list[tuple[str, dict[str, Any]]]:
    commands = [("save-user", user(f"user-{at:03}", f"key-{at}")) for at in range(200)]
    commands[99] = ("save-user", user("thief", "key-42"))
    return commands


def decoded(transport: InProcess, commands: list[tuple[str, dict[str, Any]]]) -> list[Request]:
    bodies = (body(operation, payload, id=str(at)) for at, (operation, payload) in enumerate(commands))
    return [transport.dispatcher.receive(each) for each in bodies]


def test_one_conflict_among_200_commands_fails_alone(transport: InProcess) -> None:
    """The other 199 commands of the transaction succeed in order, with numbers without gaps."""
    requests = decoded(transport, two_hundred_with_one_conflict())
    replies = [JSON.decode(reply, dict[str, Any]) for reply in answer_all(transport.dispatcher, requests)]
    assert [reply["id"] for reply in replies] == [str(at) for at in range(200)]
    assert [at for at, reply in enumerate(replies) if not reply["ok"]] == [99]
    assert replies[99]["error"]["code"] == "conflict"
    assert [reply["seq"] for reply in replies if reply["ok"]] == list(range(1, 200))
    assert transport.store.seq == 199
    with transport.store.read() as snapshot:
        stored = [row[0] for row in snapshot.rows(sql("SELECT oder_id FROM users ORDER BY oder_id"))]
    assert stored == [f"user-{at:03}" for at in range(200) if at != 99]


def test_a_conflict_among_pipelined_commands_is_the_only_failure(start_daemon: StartDaemon) -> None:
    """However the commands are grouped into commits, the same one fails."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for at, (operation, payload) in enumerate(two_hundred_with_one_conflict()):
            peer.request(operation, payload, request_id=str(at))
        replies = peer.replies(200)
    assert [at for at in range(200) if not replies[str(at)]["ok"]] == [99]
    assert [replies[str(at)]["seq"] for at in range(200) if at != 99] == list(range(1, 200))


@pytest.mark.parametrize("error", [Conflict("no"), ValueError("a bug"), KeyError(1), RecursionError()])
def test_a_command_that_fails_after_writing_is_rolled_back(tmp_path: Path, error: Exception) -> None:
    """Whatever exception its handler raises; the other commands of the commit succeed."""

    def write_then_raise(command: DeleteMessage, db: Any, context: Any) -> None:
        handler_of(DeleteMessage)(command, db, context)
        db.run(sql("DELETE FROM messages"))
        raise error

    handlers = replacing({DeleteMessage: write_then_raise})
    with running(tmp_path / "data", handlers=handlers) as daemon, Peer(daemon.endpoint) as peer:
        for at in range(20):
            peer.request("save-message", save_payload(at), request_id=f"save-{at}")
            peer.request("delete-message", {"messageId": "m0"}, request_id=f"delete-{at}")
        replies = peer.replies(40)
        assert {replies[f"delete-{at}"]["ok"] for at in range(20)} == {False}
        assert [replies[f"save-{at}"]["seq"] for at in range(20)] == list(range(1, 21))
        stored = peer.ask("get-messages", {"roomId": "r1"})["result"]
    assert [(each["id"], each["content"]) for each in stored] == [(f"m{at}", "hello") for at in range(20)]


def test_a_result_that_cannot_be_encoded_rolls_back_its_command(tmp_path: Path) -> None:
    """A command has its effect only if it has its reply."""

    def return_what_no_codec_knows(command: SaveMessage, db: Any, context: Any) -> object:
        handler_of(SaveMessage)(command, db, context)
        return object()

    handlers = replacing({SaveMessage: return_what_no_codec_knows})
    with running(tmp_path / "data", handlers=handlers) as daemon, Peer(daemon.endpoint) as peer:
        assert peer.ask("save-message", save_payload(1))["error"]["code"] == "internal"
        assert peer.ask("get-messages", {"roomId": "r1"})["result"] == []


def test_commands_are_busy_while_another_process_has_the_lock(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A lock held for longer than `--lock-wait-ms` makes commands `busy`; queries are answered."""
    daemon = start_daemon("--lock-wait-ms", "300")
    with Peer(daemon.endpoint) as writer, Peer(daemon.endpoint) as reader:
        assert writer.ask("save-message", save_payload(1))["seq"] == 1
        with lock_of_another_process(tmp_path / "data" / "default.db"):
            for at in range(2, 5):
                writer.request("save-message", save_payload(at), request_id=str(at))
            while writer.silent():
                assert reader.ask("get-message-by-id", {"messageId": "m1"})["ok"]
            for _ in range(3):
                error = writer.reply()["error"]
                assert (error["code"], error["retryable"]) == ("busy", True)
        assert writer.ask("save-message", save_payload(2))["seq"] == 2
        assert [each["id"] for each in reader.ask("get-messages", {"roomId": "r1"})["result"]] == ["m1", "m2"]


def test_a_command_waits_for_a_short_lock(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A command waits up to `--lock-wait-ms` for another process's transaction."""
    daemon = start_daemon("--lock-wait-ms", "20000")
    with Peer(daemon.endpoint) as peer:
        with lock_of_another_process(tmp_path / "data" / "default.db"):
            peer.request("save-message", save_payload(1))
            assert peer.silent(100)
        assert peer.reply()["ok"]


def test_a_slow_query_does_not_delay_other_clients(tmp_path: Path) -> None:
    """Other clients' queries and commands are answered while it runs."""
    with (
        opened(Gate()) as gate,
        running(tmp_path / "data", handlers=replacing({GetRoom: gate})) as daemon,
        Peer(daemon.endpoint) as slow,
        Peer(daemon.endpoint) as other,
    ):
        slow.request("get-room", {"roomId": "r1"}, request_id="stuck")
        slow.request("save-message", save_payload("slow"), request_id="later")
        assert gate.begun.wait(20)
        for at in range(200):
            other.request("save-message", save_payload(at), request_id=str(at))
            other.request("get-message-by-id", {"messageId": f"m{at}"}, request_id=f"get-{at}")
        replies = other.replies(400)
        assert all(replies[f"get-{at}"]["result"]["id"] == f"m{at}" for at in range(200))
        assert slow.silent()
        gate.open.set()
        assert [slow.reply()["id"], slow.reply()["id"]] == ["stuck", "later"]


def test_a_query_does_not_wait_for_a_commit(tmp_path: Path) -> None:
    """While a commit waits for the disk, or for a lock, queries are answered from the last durable state."""
    commits = HeldCommits(tmp_path / "data")
    with (
        running(tmp_path / "data", vfs=commits.vfs, lock_wait_ms=HELD_MS) as daemon,
        Peer(daemon.endpoint) as writer,
        Peer(daemon.endpoint) as reader,
        commits,
    ):
        assert writer.ask("save-message", save_payload(1))["ok"]
        commits.hold()
        writer.request("save-message", save_payload(2), request_id="waits")
        commits.wait_for_one()
        reply = reader.ask("get-messages", {"roomId": "r1"})
        assert ([each["id"] for each in reply["result"]], reply["seq"]) == (["m1"], 1)
        assert reader.ask("ping")["ok"]
        assert writer.silent()
        commits.release()
        assert writer.reply()["seq"] == 2


@pytest.mark.parametrize(
    "bounds",
    [{"client_requests": 10}, {"queue_requests": 10}, {"client_bytes": 2_000}, {"queue_bytes": 2_000}],
    ids=str,
)
def test_full_queues_are_busy_and_recover(tmp_path: Path, bounds: dict[str, Any]) -> None:
    """Requests over the limit are refused as retryable without effect; accepted ones are executed."""
    with (
        opened(Gate()) as gate,
        running(tmp_path / "data", handlers=replacing({GetRoom: gate}), **bounds) as daemon,
        Peer(daemon.endpoint) as peer,
    ):
        peer.request("get-room", {"roomId": "r1"}, request_id="gate")
        assert gate.begun.wait(20)
        for at in range(100):
            peer.request("save-message", save_payload(at), request_id=str(at))
        refused = [peer.reply()]
        with Peer(daemon.endpoint) as other:
            while other.ask("health")["result"]["queues"]["requests"] < 1 or not peer.silent(200):
                refused.append(peer.reply())
        assert {(reply["error"]["code"], reply["error"]["retryable"]) for reply in refused} == {("busy", True)}
        gate.open.set()
        taken = peer.replies(101 - len(refused))
        assert all(reply["ok"] for reply in taken.values())
        stored = peer.ask("get-messages", {"roomId": "r1"})["result"]
        assert [each["id"] for each in stored] == [f"m{at}" for at in range(100) if str(at) in taken]
        assert 1 <= len(stored) <= 20
        assert peer.ask("save-message", save_payload(1_000))["ok"]


def test_a_full_queue_of_one_client_does_not_affect_others(tmp_path: Path) -> None:
    """The limit per client leaves room for other clients."""
    gate = Gate()
    with (
        opened(gate),
        running(tmp_path / "data", handlers=replacing({GetRoom: gate}), client_requests=5) as daemon,
        Peer(daemon.endpoint) as full,
        Peer(daemon.endpoint) as other,
    ):
        for at in range(20):
            full.request("get-room", {"roomId": "r1"}, request_id=str(at))
        assert full.reply()["error"]["code"] == "busy"
        assert other.ask("save-message", save_payload(1))["ok"]
        gate.open.set()


@pytest.mark.parametrize("operation", ["save-message", "get-message-by-id"])
def test_a_request_past_its_deadline_in_the_queue_has_no_effect(tmp_path: Path, operation: str) -> None:
    """A request that is not started by its deadline is answered `deadline-exceeded`."""
    with (
        opened(Gate()) as gate,
        running(tmp_path / "data", handlers=replacing({GetRoom: gate})) as daemon,
        Peer(daemon.endpoint) as peer,
        Peer(daemon.endpoint) as other,
    ):
        payload = save_payload(1) if operation == "save-message" else {"messageId": "m1"}
        peer.request("get-room", {"roomId": "r1"}, request_id="gate")
        assert gate.begun.wait(20)
        peer.request(operation, payload, request_id="late", deadlineMs=1)
        peer.request(operation, payload | {}, request_id="in time", deadlineMs=600_000)
        wait_until(lambda: other.ask("health")["result"]["queues"]["requests"] == 3)
        assert peer.silent(20)  # longer than its deadline of a millisecond
        gate.open.set()
        replies = peer.replies(3)
        assert replies["late"]["error"]["code"] == "deadline-exceeded"
        assert replies["in time"]["ok"]
        assert replies["in time"]["seq"] == (1 if operation == "save-message" else 0)


def test_concurrent_clients_each_keep_their_order(start_daemon: StartDaemon) -> None:
    """The commands of each client keep their order, and every number is used exactly once."""
    daemon = start_daemon()
    clients, number = 6, 300
    peers = [Peer(daemon.endpoint) for _ in range(clients)]
    for at in range(number):
        for name, peer in enumerate(peers):
            peer.request("save-message", save_payload(f"m{name}-{at}"), request_id=f"{name}-{at}")
    seqs: list[int] = []
    for name, peer in enumerate(peers):
        replies = [peer.reply() for _ in range(number)]
        assert [reply["id"] for reply in replies] == [f"{name}-{at}" for at in range(number)]
        own = [reply["seq"] for reply in replies]
        assert own == sorted(own)
        seqs += own
        peer.close()
    assert sorted(seqs) == list(range(1, clients * number + 1))
