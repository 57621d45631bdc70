"""A PostgreSQL server that fails in every way: requests are answered within seconds, and afterwards all is well.

The daemons are real processes, and are never restarted here.
"""

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql.commits import POLL_SECONDS, Commits
from backscroll.bus.postgresql.connecting import IDLE_SECONDS_MAX, Connection, Database
from backscroll.bus.postgresql.scopes import PostgresScopes
from backscroll.bus.postgresql.transaction import Transaction
from backscroll.bus.stores import Commit
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers import HANDLERS, command_log
from backscroll.handlers.chores import media_due
from backscroll.handlers.clearing import clear_room
from backscroll.handlers.storage import Reads
from backscroll.schema import (
    Attachment,
    ClearRoomMessages,
    DeleteAttachmentsForMessage,
    DeleteMedia,
    DeleteScope,
    GetLog,
    GetMediaPart,
    GetScopeInfo,
    PutMedia,
    PutMediaPart,
    SaveAttachment,
)
from backscroll.schema.operations import Command
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.bus.test_crashes import check_log, seed_of
from tests.bus.test_memory import Peak
from tests.support.exchanges import answer, logged, value_of
from tests.support.messages import message_document, save_message, save_payload
from tests.support.mounts import fill, small_disk_at
from tests.support.notes import say
from tests.support.peers import Peer, Reply, resident_bytes
from tests.support.postgresql import Server, name_in
from tests.support.requests import body, fresh_id
from tests.support.stores import command
from tests.support.waiting import wait_until

Admin = psycopg.Connection[Any]
StartDaemon = Callable[..., DaemonProcess]
FLAGS = ("--log-level", "error", "--chores-ms", "300")
NOT_YET = {"unavailable", "busy", "storage"}
REPLY_SECONDS = 25
"""For any reply; the bounds of the daemon add up to about a third of it."""
SCOPES = (DEFAULT_SCOPE, "second")
PAGE = {"roomId": "r1", "limit": 50}
USER = {"oderId": "ada", "id": "ada", "username": "ada"}
LONG_MS = 60_000
MIB = 2**20


@pytest.fixture
def address(postgresql: Server) -> Iterator[str]:
    """The address of a database with the tables of a store."""
    with postgresql.database() as address:
        yield address


@pytest.fixture
def admin(postgresql: Server, address: str) -> Iterator[Admin]:
    """The superuser in that database."""
    with postgresql.admin_of(address) as admin:
        yield admin


@pytest.fixture
def daemon(address: str, start_daemon: StartDaemon) -> DaemonProcess:
    return start_daemon("--store", address, *FLAGS)


@pytest.fixture
def peer(daemon: DaemonProcess) -> Iterator[Peer]:
    with Peer(daemon.endpoint) as peer:
        yield peer


class Worker(threading.Thread):
    """Saves messages and reads them until `finish`, one request after the other; a command until it is acknowledged.

    `problems` are requests without a reply, and replies that must not occur; `codes` counts the errors.
    """

    def __init__(self, name: str, endpoint: str, scope: str) -> None:
        super().__init__(name=name)
        self.scope = scope
        self.acknowledged: dict[str, int] = {}
        self.codes = Counter[str]()
        self.problems: list[str] = []
        self.slowest = 0.0
        self._endpoint = endpoint
        self._finishing = threading.Event()

    def finish(self) -> None:
        self._finishing.set()

    def run(self) -> None:
        try:
            with Peer(self._endpoint) as peer:
                while not self._finishing.is_set():
                    self._save(peer, f"{self.name}-{len(self.acknowledged)}")
                    self._asked(peer, "get-message-page", PAGE, fresh_id())
        except BaseException as error:  # noqa: BLE001  # an error of a thread would be lost
            self.problems.append(f"{self.name} ended: {error!r}")

    def _save(self, peer: Peer, request_id: str) -> None:
        while not (reply := self._asked(peer, "save-message", save_payload(request_id), request_id))["ok"]:
            if reply["error"]["code"] not in NOT_YET:
                return
        self.acknowledged[request_id] = reply["seq"]

    def _asked(self, peer: Peer, operation: str, payload: Any, request_id: str) -> Reply:
        began = time.monotonic()
        peer.send(body(operation, payload, id=request_id, scope=self.scope))
        reply = peer.reply(REPLY_SECONDS)
        self.slowest = max(self.slowest, time.monotonic() - began)
        if not reply["ok"]:
            self.codes[reply["error"]["code"]] += 1
            if reply["error"]["code"] not in NOT_YET:
                self.problems.append(f"{request_id} got {reply['error']}")
        return reply


@contextmanager
def load(*endpoints: str) -> Iterator[list[Worker]]:
    """Workers in two scopes at each daemon. At the end all they sent is acknowledged, and in the log once."""
    workers = [
        Worker(f"w{number}-{scope}-{each}", endpoint, scope)
        for number, endpoint in enumerate(endpoints)
        for scope in SCOPES
        for each in range(2)
    ]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.finish()
    for worker in workers:
        worker.join(2 * REPLY_SECONDS)
        assert not worker.is_alive(), "a command is never acknowledged"
    assert [problem for worker in workers for problem in worker.problems] == []
    for endpoint in endpoints:
        with Peer(endpoint) as peer:
            for scope in SCOPES:
                check_scope(peer, scope, workers)
    codes = sum((worker.codes for worker in workers), Counter[str]())
    say(
        f"{acknowledged(workers)} acknowledged, 0 lost, 0 twice; refused meanwhile: {dict(codes)}; the slowest reply"
        f" after {max(worker.slowest for worker in workers):.1f} s"
    )


def check_scope(peer: Peer, scope: str, workers: Sequence[Worker]) -> None:
    """The log has each acknowledged command once, under its number, and nothing else."""
    entries = logged(peer, scope=scope)
    check_log(entries)
    sent = {name: seq for worker in workers if worker.scope == scope for name, seq in worker.acknowledged.items()}
    assert {entry["id"]: entry["seq"] for entry in entries} == sent


def acknowledged(workers: Sequence[Worker]) -> int:
    return sum(len(worker.acknowledged) for worker in workers)


def wait_for_more(workers: Sequence[Worker], more: int) -> None:
    """Wait until so many more commands are acknowledged, by each of the workers at least one."""
    before = [len(worker.acknowledged) for worker in workers]

    def is_past() -> bool:
        grown = all(len(worker.acknowledged) > at for worker, at in zip(workers, before, strict=True))
        return (grown and acknowledged(workers) >= sum(before) + more) or any(worker.problems for worker in workers)

    wait_until(is_past, 60)


def is_ready(endpoint: str) -> bool:
    with Peer(endpoint) as peer:
        health = peer.ask("health")["result"]
    assert health["ready"] == (health["storage"]["state"] == "ok")
    if not health["ready"]:
        assert health["storage"]["state"].startswith("the database does not answer"), health
    return bool(health["ready"])


def settled(peer: Peer, operation: str, payload: Any, scope: str = DEFAULT_SCOPE) -> Reply:
    """The reply to a request that is sent again, under its id, while the daemon cannot answer it for the moment."""
    request = body(operation, payload, scope=scope)
    deadline = time.monotonic() + 30
    while True:
        reply = answer(peer, request)
        if reply["ok"]:
            return reply
        assert reply["error"]["code"] in ("unavailable", "busy"), reply
        assert time.monotonic() < deadline, reply


def refused(peer: Peer, operation: str, payload: Any, scope: str = DEFAULT_SCOPE) -> str:
    """The code of an error that comes within seconds."""
    peer.request(operation, payload, scope=scope)
    reply = peer.reply(REPLY_SECONDS)
    assert not reply["ok"], reply
    assert reply["error"]["retryable"] is True
    code: str = reply["error"]["code"]
    return code


# Lost connections


@pytest.mark.timeout(900)
def test_a_server_that_stops_and_starts_loses_nothing(
    postgresql: Server, address: str, start_daemon: StartDaemon, tmp_path: Path, long: bool
) -> None:
    """Under load at two daemons the server ends at once, as by a crash, and is started again. Requests are answered
    `unavailable` meanwhile, health says so, and afterwards says `ok`.
    """
    endpoints = [start_daemon("--store", address, *FLAGS, data_dir=tmp_path / name).endpoint for name in ("a", "b")]
    with load(*endpoints) as workers:
        for _ in range(10 if long else 2):
            wait_for_more(workers, 100)
            postgresql.stop()
            try:
                wait_until(lambda: not any(map(is_ready, endpoints)))
            finally:
                postgresql.start()
            wait_until(lambda: all(map(is_ready, endpoints)))


@pytest.mark.timeout(900)
def test_connections_that_are_cut_lose_nothing(
    postgresql: Server, address: str, start_daemon: StartDaemon, tmp_path: Path, long: bool
) -> None:
    """All at once and again and again, at random moments, and also in the middle of commits."""
    draw = random.Random(seed_of(long))
    endpoints = [start_daemon("--store", address, *FLAGS, data_dir=tmp_path / name).endpoint for name in ("a", "b")]
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'backscroll'"
    committing = " AND query LIKE '%COMMIT' AND state = 'active'"
    found = 0
    with postgresql.admin_of(address) as admin, load(*endpoints) as workers:
        for number in range(300 if long else 20):
            wait_for_more(workers, draw.randrange(1, 40))
            time.sleep(draw.uniform(0, 0.02))  # at a random moment, not to synchronise
            found += len(admin.execute(cut + (committing if number % 2 else "")).fetchall())
        wait_until(lambda: all(map(is_ready, endpoints)))
    say(f"{found} connections cut")


# Errors of transactions

SOMETIMES = """
CREATE SEQUENCE attempts;
GRANT ALL ON SEQUENCE attempts TO backscroll;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') % {every} <> 0 THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.scope = 'default') EXECUTE FUNCTION fail();
"""


def make_fail(admin: Admin, code: str, table: str = "messages", every: int = 2**31) -> None:
    """Let INSERTs into a table fail in the scope `default`, all but each one of so many."""
    admin.execute(SOMETIMES.format(code=code, table=table, every=every))


@pytest.mark.parametrize(("code", "table"), [("40001", "messages"), ("40P01", "commands")])
def test_a_serialisation_failure_is_repeated(peer: Peer, admin: Admin, code: str, table: str) -> None:
    """The callers do not notice it, whether a command of a batch has it or the log; each command takes effect once."""
    make_fail(admin, code, table, every=3)
    for number in range(5):
        assert answer(peer, body("save-message", save_payload(number), id=f"s{number}"))["ok"]
    entries = logged(peer)
    check_log(entries)
    assert [entry["id"] for entry in entries] == [f"s{number}" for number in range(5)]


@pytest.mark.parametrize(("code", "answered"), [("40001", "busy"), ("53100", "storage")])
def test_an_error_that_lasts_is_told_and_harms_no_other_scope(
    peer: Peer, admin: Admin, code: str, answered: str
) -> None:
    """Within seconds, as retryable. Queries go on, and so do other scopes; afterwards the same request succeeds."""
    assert answer(peer, body("save-message", save_payload(1)))["ok"]
    make_fail(admin, code)
    request = body("save-message", save_payload(2))
    error = answer(peer, request)["error"]
    assert (error["code"], error["retryable"]) == (answered, True)
    assert [each["id"] for each in peer.ask("get-message-page", PAGE)["result"]["messages"]] == ["m1"]
    assert answer(peer, body("save-message", save_payload(1), scope="second"))["ok"]
    admin.execute("DROP TRIGGER fail ON messages")
    assert answer(peer, request)["seq"] == 2


def test_a_deadlock_with_another_session_ends(peer: Peer, admin: Admin) -> None:
    """A session that locks rows of the scope in the other order: the server ends one of both, and the command takes
    effect once.
    """
    for number in range(2):
        assert answer(peer, body("save-message", save_payload(number)))["ok"]
    with suppress(psycopg.errors.DeadlockDetected), admin.transaction():
        admin.execute("SELECT 1 FROM messages WHERE id = 'm1' FOR UPDATE")
        peer.request("update-message", {"messageId": "m1", "updates": {"content": "new"}}, request_id="update")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: admin.execute(waiting).fetchall() == [(1,)])
        admin.execute("SELECT 1 FROM sequence FOR UPDATE")
    reply = peer.reply(REPLY_SECONDS)
    if not reply["ok"]:
        assert reply["error"]["code"] == "busy"
        peer.request("update-message", {"messageId": "m1", "updates": {"content": "new"}}, request_id="update")
        reply = peer.reply(REPLY_SECONDS)
    assert reply["seq"] == 3
    assert [each["id"] for each in logged(peer)][2:] == ["update"]


def test_a_command_whose_statement_is_cancelled_is_busy(peer: Peer, admin: Admin) -> None:
    """It may be sent again, and then takes effect; by itself a query would be told to ask for less."""
    assert peer.ask("save-message", save_payload(1))["ok"]
    waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with admin.transaction():
        admin.execute("SELECT 1 FROM messages WHERE id = 'm1' FOR UPDATE")
        peer.request("update-message", {"messageId": "m1", "updates": {"content": "new"}})
        wait_until(lambda: bool(admin.execute(f"SELECT pg_cancel_backend(pid) {waiting}").fetchall()))
        error = peer.reply(REPLY_SECONDS)["error"]
    assert (error["code"], error["retryable"]) == ("busy", True)
    assert answer(peer, body("update-message", {"messageId": "m1", "updates": {"content": "new"}}))["seq"] == 2


def test_a_lock_held_for_long_is_busy(address: str, admin: Admin, start_daemon: StartDaemon) -> None:
    """Of the scope's row: its commands, not its queries, nor other scopes. Of a row that many commands change: they do
    not wait one after the other. Of a table: queries too. Afterwards all go on.
    """
    daemon = start_daemon("--store", address, *FLAGS, "--lock-wait-ms", "500")
    with Peer(daemon.endpoint) as peer:
        for scope in SCOPES:
            assert answer(peer, body("save-message", save_payload(1), scope=scope))["ok"]
        with admin.transaction():
            admin.execute("SELECT 1 FROM sequence WHERE scope = 'default' FOR UPDATE")
            assert refused(peer, "save-message", save_payload(2)) == "busy"
            assert refused(peer, "delete-scope", {}) == "busy"
            assert peer.ask("get-message-page", PAGE)["ok"]
            assert answer(peer, body("save-message", save_payload(2), scope="second"))["ok"]
        with admin.transaction():
            admin.execute("SELECT 1 FROM messages WHERE id = 'm1' FOR UPDATE")
            for number in range(20):
                peer.request("update-message", {"messageId": "m1", "updates": {"content": f"{number}"}})
            replies = [peer.reply(REPLY_SECONDS) for _ in range(20)]
            assert {reply["error"]["code"] for reply in replies} == {"busy"}
        with admin.transaction():
            admin.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
            assert refused(peer, "get-message-page", PAGE | {"limit": 2}) == "busy"  # which is in no cache
            assert refused(peer, "save-message", save_payload(3)) == "busy"
        assert peer.ask("get-message-page", PAGE)["ok"]
        assert answer(peer, body("save-message", save_payload(3)))["seq"] == 2


def test_a_read_only_server_is_left_for_one_that_writes(peer: Peer, admin: Admin, address: str) -> None:
    """As after a failover: commands are `unavailable` until a new connection can write; no old one is kept."""
    name = name_in(address)
    assert answer(peer, body("save-message", save_payload(1)))["ok"]
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'backscroll'")
    wait_until(lambda: not answer(peer, body("save-message", save_payload(2)))["ok"])
    assert refused(peer, "save-message", save_payload(2)) == "unavailable"
    assert settled(peer, "get-message-page", PAGE)["ok"]
    admin.execute("SET default_transaction_read_only = off")
    admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert settled(peer, "save-message", save_payload(3))["ok"]


# Replicas


@contextmanager
def no_replica(admin: Admin) -> Iterator[None]:
    """During the block commits of other sessions wait for a synchronous replica that there is not."""
    admin.execute("SET synchronous_commit = local")
    admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        admin.execute("SELECT pg_reload_conf()")
        yield
    finally:
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute("SELECT pg_reload_conf()")


def test_a_commit_that_is_interrupted_before_replicas_have_it_is_not_acknowledged(
    address: str, start_daemon: StartDaemon, admin: Admin
) -> None:
    """Neither by a stop nor by an administrator of the server, who both only end the wait: it is committed. The command
    is `unavailable`, also when it is sent again, until replicas have it; and it took effect once.
    """
    daemon = start_daemon("--store", address, *FLAGS, "--drain-ms", "300", "--lock-wait-ms", "500")
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    request = body("save-message", save_payload(1), id="save")
    with no_replica(admin), Peer(daemon.endpoint) as peer:
        for _ in range(2):
            peer.send(request)
            while peer.silent(20):
                admin.execute(cancel)
            assert peer.reply(REPLY_SECONDS)["error"]["code"] == "unavailable"
        peer.send(request)
        wait_until(lambda: bool(admin.execute(cancel.replace("pg_cancel_backend(pid)", "pid")).fetchall()))
        assert daemon.stop() == 0
        assert peer.reply(REPLY_SECONDS)["error"]["code"] == "unavailable"
    with Peer(start_daemon("--store", address, *FLAGS).endpoint) as peer:
        assert answer(peer, request)["seq"] == 1
        assert len(logged(peer)) == 1


# Disks


def test_a_full_disk_of_the_server_is_told_as_storage(
    postgresql: Server, admin: Admin, peer: Peer, tmp_path: Path
) -> None:
    """Saves are `storage`, retryable; queries and deletions go on, and saves once there is room. All that was
    acknowledged is there.
    """
    tablespace = f"small_{os.getpid()}"
    with small_disk_at(Path(f"/dev/shm/{tablespace}"), 24 * MIB) as disk:
        owner = Path(postgresql.server.pgdata).stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        admin.execute(f"CREATE TABLESPACE {tablespace} LOCATION '{disk}'")
        admin.execute(f"ALTER TABLE messages SET TABLESPACE {tablespace}")
        assert answer(peer, body("save-message", save_payload(0)))["ok"]
        filler = fill(disk)
        saved, error = save_until_refused(peer)
        assert (error["code"], error["retryable"]) == ("storage", True)
        assert "disk of the database server is full" in error["message"]
        assert ids_of(peer) == saved
        assert peer.ask("save-room", {"room": {"id": "r2", "name": "r2"}})["ok"]
        filler.unlink()
        assert answer(peer, body("save-message", save_payload(9_000)))["ok"]
        assert ids_of(peer) == saved | {"m9000"}
        admin.execute("ALTER TABLE messages SET TABLESPACE pg_default")
        admin.execute(f"DROP TABLESPACE {tablespace}")
    shutil.rmtree(disk)


def save_until_refused(peer: Peer) -> tuple[set[str], Reply]:
    """Save messages until one is refused: those that are stored, and the error."""
    saved = {"m0"}
    for number in range(1, 5_000):
        reply = answer(peer, body("save-message", save_payload(number, "x" * 2_000)))
        if not reply["ok"]:
            error: Reply = reply["error"]
            return saved, error
        saved.add(f"m{number}")
    raise AssertionError("the disk is never full")


def ids_of(peer: Peer) -> set[str]:
    return {each["id"] for each in peer.ask("get-messages", {"roomId": "r1"})["result"]}


# A server that does not answer


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Processes that do nothing during the block, and hold their connections."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def are_refused(before: Mapping[Worker, int]) -> bool:
    """Whether each of the workers has been told again that the database does not answer."""
    return all(worker.codes["unavailable"] > number for worker, number in before.items())


def backends(admin: Admin) -> list[int]:
    """The processes of the server that serve daemons."""
    return [pid for (pid,) in admin.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'backscroll'").fetchall()]


@pytest.mark.timeout(300)
def test_a_frozen_server_is_unavailable(
    postgresql: Server, address: str, admin: Admin, start_daemon: StartDaemon, long: bool
) -> None:
    """It holds its connections, accepts new ones, and never answers. What runs and what comes is answered within
    seconds, health says so; when it goes on, so does the daemon, and nothing is lost.
    """
    daemon = start_daemon("--store", address, *FLAGS)
    postmaster = postgresql.server.get_pid()
    assert postmaster is not None
    with load(daemon.endpoint) as workers:
        for _ in range(3 if long else 1):
            wait_for_more(workers, 50)
            before = {worker: worker.codes["unavailable"] for worker in workers}
            with stopped([postmaster, *backends(admin)]):
                wait_until(lambda: not is_ready(daemon.endpoint))
                wait_until(partial(are_refused, before), REPLY_SECONDS)
            wait_until(lambda: is_ready(daemon.endpoint))


def test_one_frozen_connection_is_given_up(daemon: DaemonProcess, peer: Peer, admin: Admin) -> None:
    """A request that gets it is answered within seconds; the others go on, over other connections."""
    assert answer(peer, body("save-message", save_payload(1)))["ok"]
    idle = [pid for pid in backends(admin) if not is_listening(admin, pid)]
    assert idle
    with stopped(idle):
        for number in range(2, 5):
            assert settled(peer, "save-message", save_payload(number))["ok"]
        wait_until(lambda: is_ready(daemon.endpoint))
    assert len(logged(peer)) == 4


def is_listening(admin: Admin, pid: int) -> bool:
    [(query,)] = admin.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall()
    return "LISTEN" in query or "set_config('backscroll.listing'" in query or "SELECT scope, seq" in query


SLEEP = """
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
CREATE TRIGGER sleep BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.content = 'slow') EXECUTE FUNCTION sleep();
"""


@pytest.mark.timeout(120)
def test_a_daemon_that_freezes_in_a_transaction_loses_it(
    postgresql: Server, address: str, admin: Admin, start_daemon: StartDaemon, tmp_path: Path, long: bool
) -> None:
    """The other daemon is `busy` in that scope alone, and only until the server ends the transaction; the command then
    takes effect once, when the frozen daemon goes on.
    """
    if not long:
        pytest.skip(f"the server waits {IDLE_SECONDS_MAX} s")
    frozen, other = (start_daemon("--store", address, *FLAGS, data_dir=tmp_path / name) for name in ("a", "b"))
    with Peer(frozen.endpoint) as first, Peer(other.endpoint) as second:
        assert answer(second, body("save-message", save_payload(1)))["ok"]
        admin.execute(SLEEP)
        first.request("save-message", save_payload(2, "slow"), request_id="slow")
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: admin.execute(sleeping).fetchall() == [(1,)])
        with stopped([frozen.process.pid]):
            wait_until(lambda: admin.execute(sleeping).fetchall() == [(0,)])
            assert refused(second, "save-message", save_payload(3)) == "busy"
            assert answer(second, body("save-message", save_payload(3), scope="second"))["ok"]
            assert settled(second, "save-message", save_payload(4))["seq"] == 2
        reply = first.reply(REPLY_SECONDS)
        if not reply["ok"]:
            assert reply["error"]["code"] in NOT_YET
            reply = answer(first, body("save-message", save_payload(2, "slow"), id="slow"))
        assert reply["seq"] == 3
        check_log(logged(second))


# Another history


@contextmanager
def nobody_connected(admin: Admin, name: str) -> Iterator[None]:
    """The name of a database that nobody uses during the block, and whoever it belongs to then can be used after it."""
    admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    wait_until(partial(is_unused, admin, name))
    yield
    admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def is_unused(admin: Admin, name: str) -> bool:
    return not admin.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (name,)).fetchall()


@pytest.mark.parametrize("after", [0, 5, 8], ids=["fewer", "as many", "more"])
def test_a_failover_that_lost_commits_is_noticed(
    postgresql: Server, address: str, start_daemon: StartDaemon, tmp_path: Path, long: bool, after: int
) -> None:
    """The database becomes an earlier state of itself, in which one daemon then writes so many commands where five were
    lost. The other one answers from that, not from what it remembers, and goes on with its log; a cursor that saw the
    lost ones gets `gap`, also one that waits.
    """
    if after == 8 and not long:
        pytest.skip("fewer and as many are enough")
    name = name_in(address)
    endpoints = [start_daemon("--store", address, *FLAGS, data_dir=tmp_path / each).endpoint for each in ("a", "b")]
    with postgresql.admin() as admin, Peer(endpoints[0]) as first, Peer(endpoints[1]) as second:
        for number in range(3):
            settled(first, "save-message", save_payload(number))
        with nobody_connected(admin, name):
            admin.execute(f"CREATE DATABASE {name}_old TEMPLATE {name} OWNER backscroll")
        for number in range(3, 8):
            settled((first, second)[number % 2], "save-message", save_payload(number))
        assert len(settled(second, "get-message-page", PAGE)["result"]["messages"]) == 8
        cursor = settled(second, "get-changes", {"after": "now"})["result"]["cursor"]
        with Peer(endpoints[1]) as waiting:
            waiting.request("get-changes", {"after": cursor, "waitMs": LONG_MS})
            assert waiting.silent(200)
            with nobody_connected(admin, name):
                admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_lost")
                admin.execute(f"ALTER DATABASE {name}_old RENAME TO {name}")
            for number in range(after):
                settled(first, "save-message", save_payload(100 + number))
            kept = {"m0", "m1", "m2"} | {f"m{100 + number}" for number in range(after)}
            found = settled(second, "get-message-page", PAGE)
            assert {each["id"] for each in found["result"]["messages"]} == kept
            assert found["seq"] == 3 + after
            assert settled(second, "get-changes", {"after": cursor})["result"]["gap"] is True
            assert waiting.reply(REPLY_SECONDS)["result"]["gap"] is True
        assert settled(second, "save-message", save_payload(200))["seq"] == 4 + after
        assert settled(first, "save-message", save_payload(201))["seq"] == 5 + after
        check_log(logged(first))
        assert logged(first) == logged(second)
        admin.execute(f"DROP DATABASE {name}_lost")


# Scopes that are not open


def save_one(scopes: PostgresScopes, name: str) -> None:
    """Execute one command in a scope."""
    with scopes.use(name) as store, store.write() as transaction, command(transaction):
        pass


def test_a_closed_scope_is_asked_for_while_somebody_waits(address: str) -> None:
    """A scope that was closed because it was idle, and one that did not exist, are told of when another daemon writes
    to them; one for which nobody waits is not.
    """
    with (
        Database(address, connections=4, wait_ms=2_000) as database,
        Database(address, connections=4, wait_ms=2_000) as another,
    ):
        here, there = PostgresScopes(database), PostgresScopes(another)
        told: list[Commit] = []
        here.on_commit(lambda commit, _: told.append(commit), lambda: ["idle", "new"])
        try:
            for name in ("idle", "forgotten"):
                save_one(here, name)
            here.close_idle(-1.0)
            assert here.open_names() == []
            told.clear()
            for name in ("idle", "new", "forgotten"):
                save_one(there, name)
            wait_until(lambda: {commit.scope: commit.seq for commit in told} == {"idle": 2, "new": 1})
            assert "forgotten" not in here.open_names()
        finally:
            here.close()
            there.close()


def test_commits_of_others_are_noticed_without_looking_at_all_rows_for_each(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each daemon looks at the rows of its scopes once a second, however often it is told of commits."""
    looks = Counter[object]()
    look = Commits._look

    def counted(commits: Commits, connection: Connection) -> None:
        looks[commits] += 1
        look(commits, connection)

    monkeypatch.setattr(Commits, "_look", counted)
    with (
        Database(address, connections=4, wait_ms=2_000) as database,
        Database(address, connections=4, wait_ms=2_000) as another,
    ):
        began = time.monotonic()
        here, there = PostgresScopes(database), PostgresScopes(another)
        try:
            for number in range(1, 31):
                save_one(there, "busy")
                wait_until(lambda number=number: here.open("busy").seq == number)  # type: ignore[misc]
            assert max(looks.values()) <= (time.monotonic() - began) / POLL_SECONDS + 1
        finally:
            here.close()
            there.close()


@pytest.mark.parametrize(("bytes_max", "known"), [(0, False), (10_000, True)])
def test_of_large_commits_of_others_not_all_is_held(
    address: str, monkeypatch: pytest.MonkeyPatch, bytes_max: int, known: bool
) -> None:
    """After more than so many bytes about them, everything may have changed, as after many commits."""
    monkeypatch.setattr("backscroll.bus.postgresql.store.ABSORBED_BYTES_MAX", bytes_max)
    with (
        Database(address, connections=4, wait_ms=2_000) as database,
        Database(address, connections=4, wait_ms=2_000) as another,
    ):
        here, there = PostgresScopes(database), PostgresScopes(another)
        told: list[Commit] = []
        here.on_commit(lambda commit, _: told.append(commit))
        try:
            save_one(there, "busy")
            store = here.open("busy")
            with there.use("busy") as other, other.write() as transaction:
                for _ in range(3):
                    with command(transaction):
                        pass
            store.catch_up()
            assert (told[-1].seq, told[-1].commands is not None) == (4, known)
            assert told[-1].chain == there.open("busy").last_commit.chain
        finally:
            here.close()
            there.close()


def test_names_of_scopes_that_cannot_be_opened_are_not_remembered(address: str, admin: Admin) -> None:
    """Callers could fill the memory with them while the database refuses."""
    with Database(address, connections=4, wait_ms=100) as database:
        scopes = PostgresScopes(database)
        try:
            with admin.transaction():
                admin.execute("LOCK TABLE cleared_rooms IN ACCESS EXCLUSIVE MODE")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    scopes.open("new")
            assert "new" not in scopes._last_used
        finally:
            scopes.close()


def test_a_store_does_not_go_on_in_a_scope_that_was_deleted(address: str) -> None:
    """A writer and a reader whose scope another daemon deleted go on with nothing of what the store knew."""
    with (
        Database(address, connections=4, wait_ms=2_000) as database,
        Database(address, connections=4, wait_ms=2_000) as another,
    ):
        here, there = PostgresScopes(database), PostgresScopes(another)
        try:
            save_one(here, "gone")
            store = here.open("gone")
            there.admin("gone", HANDLERS).erase()
            with store.read() as snapshot:
                assert snapshot.position.seq == 0
            with store.write() as transaction, command(transaction):
                pass
            assert here.open("gone").seq == 1
            assert here.open("gone") is not store
        finally:
            here.close()
            there.close()


def test_the_removal_of_a_cleared_room_ends(address: str, tmp_path: Path) -> None:
    """The step that finds nothing more to remove writes nothing, and is the last one."""
    with InProcess(tmp_path / "data", store=address) as transport, Client(transport=transport) as client:
        for at in range(150):
            client.execute(save_message(at))
        client.execute(ClearRoomMessages("r1"))
        assert not transport.store.clearing
        assert client.execute(GetScopeInfo()).purging == 0


def test_the_removal_of_a_cleared_room_ends_in_a_scope_that_another_daemon_deletes(
    address: str, tmp_path: Path
) -> None:
    """`compact-scope` goes on until nothing is left to be removed, also where that is because there is no scope."""
    with (
        InProcess(tmp_path / "a", store=address) as transport,
        InProcess(tmp_path / "b", store=address) as other,
        Client(transport=transport) as client,
        Client(transport=other) as another,
    ):
        for at in range(150):
            client.execute(save_message(at))
        with transport.scopes.use(DEFAULT_SCOPE) as store, store.write() as db, db.command(fresh_id()) as context:
            clear_room("r1", db, context)
            command_log.append(ClearRoomMessages("r1"), None, db, context)
        assert store.clearing
        another.execute(DeleteScope())
        transport.scopes.admin(DEFAULT_SCOPE, HANDLERS).compact()
        assert client.execute(GetScopeInfo()).purging == 0


def test_media_that_another_daemon_names_just_before_it_is_deleted_stays(
    admin: Admin, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chores see in a snapshot what is due; what an attachment names by the time of their transaction is kept."""
    with (
        InProcess(tmp_path / "a", store=address) as transport,
        InProcess(tmp_path / "b", store=address) as other,
        Client(transport=transport) as client,
    ):
        media_id = client.execute(PutMedia([client.execute(PutMediaPart(b"picture"))], "image/png")).id
        client.execute(SaveAttachment(Attachment(id="a1", message_id="m1", filename="picture.png", media_id=media_id)))
        client.execute(DeleteAttachmentsForMessage("m1"))
        admin.execute("UPDATE unnamed_media SET since = 1")
        admin.execute("UPDATE blobs SET put_at = 1")

        def due(db: Reads) -> list[Command[Any]]:
            found = media_due(db)
            if not isinstance(db, Transaction):
                assert found == [DeleteMedia(media_id)]
                client.execute(
                    SaveAttachment(Attachment(id="a2", message_id="m1", filename="picture.png", media_id=media_id))
                )
            return found

        monkeypatch.setattr("backscroll.bus.dispatch.COMMANDS_DUE", (due,))
        other.scopes.open(DEFAULT_SCOPE)
        other.dispatcher.run_chores(DEFAULT_SCOPE)
        assert client.ask(GetMediaPart(media_id, 0)) == b"picture"


def test_a_query_waits_in_a_scope_that_does_not_exist_yet(peer: Peer, daemon: DaemonProcess) -> None:
    """In `default`, too, which a daemon opens at its start: for as long as it says, and is then told."""
    cursor = peer.ask("get-changes", {"after": "now"})["result"]["cursor"]
    assert peer.ask("get-changes", {"after": cursor, "waitMs": 300})["result"]["changes"] == []
    peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS})
    assert peer.silent(200)
    with Peer(daemon.endpoint) as writer:
        assert answer(writer, body("save-message", save_payload(1)))["ok"]
    assert [each["id"] for each in peer.reply(REPLY_SECONDS)["result"]["changes"]] == ["m1"]


# Large results


def saved_user(number: int) -> Any:
    return {"user": USER | {"oderId": f"u{number}", "description": "x" * MIB}}


def saved_message(number: int) -> Any:
    return {"message": message_document(number) | {"mentions": [f"{each:04}{'x' * 500}" for each in range(2_000)]}}


@pytest.mark.parametrize(
    ("save", "payload", "operation", "query"),
    [
        ("save-user", saved_user, "list-users", {"limit": 120}),
        ("save-message", saved_message, "get-message-page", {"roomId": "r1", "limit": 120}),
    ],
)
def test_no_more_is_fetched_than_a_reply_has_room_for(
    peer: Peer, daemon: DaemonProcess, save: str, payload: Callable[[int], Any], operation: str, query: Any
) -> None:
    """Of 120 MB that a query is about, whichever column they are in, the daemon holds a small part at any time."""
    for number in range(120):
        assert answer(peer, body(save, payload(number)))["ok"]
    before = resident_bytes(daemon.process.pid)
    with Peak(daemon.process.pid) as peak:
        assert peer.ask(operation, query)["ok"]
    assert peak.bytes - before < 60 * MIB


def test_a_long_queue_does_not_keep_other_daemons_from_the_scope(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction takes commands for a short time; the others, given again, take effect once and in their order."""
    monkeypatch.setattr("backscroll.bus.dispatch.SHARED_SECONDS", 0.0)
    with InProcess(tmp_path / "data", store=address) as transport:
        dispatcher = transport.dispatcher
        bodies = [body("save-message", save_payload(number), id=f"{number}") for number in range(4)]
        bodies.insert(1, body("save-message", {"message": {}}, id="bad"))
        batch = [dispatcher.receive(each) for each in bodies]
        given = []
        while batch:
            replies = dispatcher.answer_commands(batch)
            given.append([value_of(reply)["id"] for reply in replies])
            batch = batch[len(replies) :]
        assert given == [["0", "bad"], ["1"], ["2"], ["3"]]
        entries = Client(transport=transport).ask(GetLog()).entries
        assert [entry.id for entry in entries] == ["0", "1", "2", "3"]
