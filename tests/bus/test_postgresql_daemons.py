"""Real daemons on one PostgreSQL database: kills, retries at the other one, watchers, starts and stops."""

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.failures import BadSettings
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessagePage, Unavailable
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.bus.test_crashes import (
    CREATED,
    acknowledged,
    check_acknowledged,
    check_created,
    check_log,
    check_order,
    check_resent,
    is_past,
    problems,
    seed_of,
)
from tests.support.callers import Caller, Ledger, setup
from tests.support.exchanges import answer, exchange, logged, value_of
from tests.support.feed_model import read_state
from tests.support.followers import Follower, problems_of
from tests.support.messages import save_payload
from tests.support.notes import say
from tests.support.peers import Peer, Reply, several
from tests.support.postgresql import Server, name_in
from tests.support.requests import body
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
FLAGS = ("--log-level", "error", "--chores-ms", "300")
SCOPES = (DEFAULT_SCOPE, "second", "third", "fourth")
ROOMS = ("r1", "default")
LONG_MS = 60_000
PROMPT_SECONDS = 10
"""For what is told by the other daemon, to who would otherwise wait six times as long."""
START_SECONDS = 20
STOP_SECONDS = 12
"""Less than the daemon would need if it waited for what runs, and more than its own bounds together."""


@pytest.fixture
def address(postgresql: Server) -> Iterator[str]:
    """The address of a database with the tables of a store."""
    with postgresql.database() as address:
        yield address


@pytest.fixture
def pair(address: str, start_daemon: StartDaemon, tmp_path: Path) -> list[DaemonProcess]:
    """Two daemons on one database."""
    return [start_daemon("--store", address, *FLAGS, data_dir=tmp_path / name) for name in ("a", "b")]


# Kills


class ResultWatcher(threading.Thread):
    """Watches a query with the client library, and keeps the newest result. `problems` must stay empty."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(name="watcher", daemon=True)  # so that a failing test ends
        self.seq = 0
        self.shown: list[tuple[str, str]] = []  # ids and texts
        self.results = 0
        self.problems: list[str] = []
        self._client = Client(endpoint)
        self._iterator = self._client.watch(GetMessagePage("r1", limit=100))

    def run(self) -> None:
        try:
            for result, seq, gap in self._iterator:
                if gap or seq < self.seq:
                    self.problems.append(f"seq {seq} after {self.seq}, gap {gap}")
                self.results, self.seq = self.results + 1, seq
                self.shown = [(message.id, message.content) for message in result.messages]
        except Exception as error:  # noqa: BLE001  # an error of a thread would be lost
            self.problems.append(repr(error))

    def close(self) -> None:
        self._iterator.close()
        self._client.close()


def callers_of(endpoints: Sequence[str], ledgers: Sequence[Ledger], seed: int) -> list[Caller]:
    """Two callers in each scope, one at each daemon; every second of those at the first goes to the other one too."""
    first, second = endpoints
    callers = []
    for number, ledger in enumerate(ledgers):
        others = [second] if number % 2 else []
        name = f"{ledger.scope}-first"
        callers.append(Caller(name, first, ledger, f"{seed} {name}", 1_000, *others, numbered=True))
        name = f"{ledger.scope}-second"
        callers.append(Caller(name, second, ledger, f"{seed} {name}", 1_000, numbered=True))
    return callers


@contextmanager
def at_work(callers: Sequence[Caller]) -> Iterator[None]:
    """Callers that send commands during the block, and then until each is acknowledged."""
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        for caller in callers:
            caller.finish()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "a command is never answered"


def rows_of_created(postgresql: Server, address: str, scope: str) -> dict[str, list[tuple[object, ...]]]:
    """The rows of the tables in which commands create something."""
    with postgresql.admin_of(address) as admin:
        return {
            table: admin.execute(f"SELECT * FROM {table} WHERE scope = %s", (scope,)).fetchall()
            for table, _ in CREATED.values()
        }


@pytest.mark.timeout(1_800)
def test_acknowledged_commands_take_effect_once_over_kills_of_one_daemon(
    postgresql: Server, address: str, tmp_path: Path, long: bool
) -> None:
    """Eight callers send random commands to two daemons, in four scopes, while one is killed at random moments and
    started again. At the end each acknowledged command is in the log once under its number; the numbers have no gaps
    and the chain is valid; each command sent again to either daemon gets the same reply; nothing was created twice, or
    took effect after a later command of its caller. Who follows the feed at the other daemon, or watches a query there,
    missed nothing.
    """
    draw = random.Random(seed := seed_of(long))
    kills = 20 if long else 3
    endpoints = [f"ipc://{tmp_path}/{name}.s" for name in ("a", "b")]
    start = partial(start_on, address, tmp_path)
    ledgers = [Ledger(scope) for scope in SCOPES]
    with start("b") as other:
        for ledger in ledgers:
            set_up(ledger, other.endpoint)
        followers = [Follower(other.endpoint, f"{seed} {scope}", scope) for scope in SCOPES]
        watcher = ResultWatcher(other.endpoint)
        for thread in (*followers, watcher):
            thread.start()
        with at_work(callers_of(endpoints, ledgers, seed)):
            for _ in range(kills):
                with start("a") as daemon:
                    wanted = acknowledged(ledgers) + draw.randrange(50, 300)
                    wait_until(partial(is_past, ledgers, wanted), 60)
                    time.sleep(draw.uniform(0, 0.02))  # kill at a random moment, not to synchronise
                    daemon.kill()
                assert not problems(ledgers), seed
            last = start("a")
        with last, Peer(last.endpoint) as at_first, Peer(other.endpoint) as at_other:
            for ledger, follower in zip(ledgers, followers, strict=True):
                check(ledger, at_first, at_other, postgresql, address)
                check_follower(follower, at_first, ledger.scope)
            page = at_first.ask("get-message-page", {"roomId": "r1", "limit": 100})
            shown = [(each["id"], each["content"]) for each in page["result"]["messages"]]
            wait_until(lambda: watcher.problems or watcher.shown == shown)
        watcher.close()
        watcher.join(20)
        assert watcher.problems == []
        assert watcher.results > kills
    resent, again = sum(each.resent for each in ledgers), sum(each.answered_again for each in ledgers)
    say(
        f"{kills} kills: {acknowledged(ledgers)} acknowledged, 0 lost, 0 twice; {resent} sent again, {again} answered"
        f" again, {sum(each.superseded for each in ledgers)} superseded; {watcher.results} results watched,"
        f" {sum(len(each.told) for each in followers)} changes told"
    )


def start_on(address: str, directory: Path, name: str) -> DaemonProcess:
    """A daemon with a data directory and a socket of its own."""
    endpoint = f"ipc://{directory}/{name}.s"
    return DaemonProcess(directory / name, "--store", address, "--endpoint", endpoint, *FLAGS)


def set_up(ledger: Ledger, endpoint: str) -> None:
    """Make what the callers of a scope use."""
    with Peer(endpoint) as peer:
        for request in setup(ledger.scope):
            ledger.sent[value_of(request)["id"]] = request
            assert ledger.note(exchange(peer, request)[0])


def check(ledger: Ledger, at_first: Peer, at_other: Peer, postgresql: Server, address: str) -> None:
    """Compare a scope with the ledger of its callers, at both daemons."""
    assert ledger.problems == []
    entries = logged(at_first, scope=ledger.scope)
    check_log(entries)
    check_acknowledged(ledger, entries)
    check_order(entries)
    before = rows_of_created(postgresql, address, ledger.scope)
    check_created(before, entries)
    check_resent(ledger, at_other, entries)
    check_resent(ledger, at_first, entries)
    assert rows_of_created(postgresql, address, ledger.scope) == before
    assert logged(at_other, scope=ledger.scope) == entries


def check_follower(follower: Follower, peer: Peer, scope: str) -> None:
    entries = logged(peer, scope=scope)
    follower.finish(len(entries))
    follower.join(60)
    assert not follower.is_alive(), "it is never told the last change"
    assert follower.problems == []
    follower.watcher.compare(*read_state(partial(peer.ask, scope=scope), ROOMS), now=0)
    assert problems_of(follower, entries)[:5] == []


# Exactly once across daemons


def test_a_retry_at_the_other_daemon_gets_the_same_reply(
    address: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """Of many requests in flight when a daemon is killed, each takes effect once: sent to the other daemon, and then to
    the first one again, all get the replies that some of them had got before the kill.
    """
    first, other = (start_daemon("--store", address, *FLAGS, data_dir=tmp_path / name) for name in ("a", "b"))
    requests = [body("create-user", {"pubkey": f"key {number}"}, id=f"create-{number}") for number in range(200)]
    requests += [body("save-message", save_payload(number), id=f"save-{number}") for number in range(200)]
    before: dict[str, bytes] = {}
    with Peer(first.endpoint) as peer:
        for request in requests:
            peer.send(request)
        while len(before) < 100:
            reply = peer.frames()[-1]
            before[value_of(reply)["id"]] = reply
        first.kill()
        while not peer.silent(100):
            reply = peer.frames()[-1]
            before[value_of(reply)["id"]] = reply
    with Peer(other.endpoint) as peer:
        replies = exchange(peer, *requests)
        entries = logged(peer)
    first = start_daemon("--store", address, *FLAGS, data_dir=tmp_path / "a")
    with Peer(first.endpoint) as peer:
        assert exchange(peer, *requests) == replies or by_id(exchange(peer, *requests)) == by_id(replies)
        assert logged(peer) == entries
    assert all(value_of(reply)["ok"] for reply in replies)
    assert before.items() <= by_id(replies).items()
    assert sorted(entry["id"] for entry in entries) == sorted(by_id(replies))
    check_log(entries)


def by_id(replies: Sequence[bytes]) -> dict[str, bytes]:
    return {value_of(reply)["id"]: reply for reply in replies}


def save(number: int, n: int, scope: str = DEFAULT_SCOPE) -> bytes:
    return body("save-message", save_payload(number), id=f"save-{number}", client="c", n=n, scope=scope)


def test_the_order_of_a_client_holds_across_daemons(pair: list[DaemonProcess]) -> None:
    """A command is superseded wherever a later one of its client took effect; a known id gets its reply anyway."""
    with Peer(pair[0].endpoint) as first, Peer(pair[1].endpoint) as other:
        for n in range(1, 40, 4):
            assert answer(first, save(n, n))["ok"]
            accepted = answer(other, save(n + 2, n + 2))
            assert accepted["ok"]
            late = answer(first, save(n + 1, n + 1))
            assert (late["ok"], late["error"]["code"]) == (False, "superseded")
            assert late["error"]["details"]["n"] == n + 2
            assert answer(first, save(n + 2, n + 2)) == accepted
            assert answer(other, save(n + 1, n + 1))["error"]["code"] == "superseded"
        assert [entry["n"] for entry in logged(first)] == [
            n for first_n in range(1, 40, 4) for n in (first_n, first_n + 2)
        ]


# Watchers


def wait_for_changes(peer: Peer, cursor: str, scope: str = DEFAULT_SCOPE) -> None:
    peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS}, scope=scope)


def cursor_of(peer: Peer, scope: str = DEFAULT_SCOPE) -> str:
    cursor: str = peer.ask("get-changes", {"after": "now"}, scope=scope)["result"]["cursor"]
    return cursor


def test_who_waits_is_told_what_the_other_daemon_writes(pair: list[DaemonProcess], long: bool) -> None:
    """Promptly, every change, and in a scope too that did not exist when the waiting began."""
    with Peer(pair[0].endpoint) as writer, Peer(pair[1].endpoint) as waiting:
        for scope in (DEFAULT_SCOPE, "new"):
            cursor = cursor_of(waiting, scope)
            slowest = 0.0
            for number in range(500 if long else 20):
                wait_for_changes(waiting, cursor, scope)
                assert waiting.silent(0 if number else 300)
                assert answer(writer, body("save-message", save_payload(number), scope=scope))["ok"]
                began = time.monotonic()
                page = waiting.reply(PROMPT_SECONDS)["result"]
                slowest = max(slowest, time.monotonic() - began)
                assert [change["id"] for change in page["changes"]] == [f"m{number}"]
                cursor = page["cursor"]
            say(f"{scope}: told after {slowest * 1000:.0f} ms at most")


def test_who_waits_is_told_that_the_other_daemon_deleted_the_scope(pair: list[DaemonProcess]) -> None:
    """A cursor that saw commands of the deleted scope gets `gap`, also one that was waiting; what is read and written
    afterwards is of the new scope.
    """
    with Peer(pair[0].endpoint) as first, Peer(pair[1].endpoint) as other:
        for number in range(5):
            assert answer(first, body("save-message", save_payload(number), scope="gone"))["ok"]
        cursor = cursor_of(other, "gone")
        page = {"roomId": "r1", "limit": 50}
        assert len(other.ask("get-message-page", page, scope="gone")["result"]["messages"]) == 5
        wait_for_changes(other, cursor, "gone")
        assert other.silent(300)
        assert first.ask("delete-scope", {}, scope="gone")["ok"]
        told = other.reply(PROMPT_SECONDS)
        assert told["result"]["gap"] is True
        assert settled(other, "get-message-page", page, "gone")["result"]["messages"] == []
        for number in range(10, 15):  # as many as before
            assert answer(first, body("save-message", save_payload(number), scope="gone"))["ok"]
        found = settled(other, "get-message-page", page, "gone")["result"]["messages"]
        assert {each["id"] for each in found} == {f"m{number}" for number in range(10, 15)}
        assert settled(other, "get-changes", {"after": cursor}, "gone")["result"]["gap"] is True
        assert settled(other, "save-message", save_payload(20), "gone")["seq"] == 6
        check_log(logged(first, scope="gone"))


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


# Starts


def serve(directory: Path, store: str, code: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a daemon that cannot start, after some Python code; its exit code and messages."""
    started = f"{code}; import sys; from backscroll.bus.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", started.lstrip("; "), "--data-dir", str(directory), "--store", store]
    env = os.environ | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=START_SECONDS, check=False)


def test_a_database_of_a_newer_version_is_refused(postgresql: Server, address: str, tmp_path: Path) -> None:
    """The message says which version it has, and what to do; the database is unchanged."""
    with postgresql.admin_of(address) as admin:
        admin.execute("UPDATE shared SET value = '99' WHERE key = 'schema_version'")
        ended = serve(tmp_path / "data", address)
        assert admin.execute("SELECT value FROM shared WHERE key = 'schema_version'").fetchall() == [("99",)]
    assert ended.returncode == 4
    assert "schema version 99" in ended.stderr
    assert "Use the newer backscroll" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_files_are_not_begun_where_the_data_is_in_a_database(
    start_daemon: StartDaemon, address: str, tmp_path: Path
) -> None:
    """A daemon without its `--store` is refused with the command to type, and nothing in the directory changes."""
    directory = tmp_path / "data"
    start_daemon("--store", address, data_dir=directory).stop()
    before = sorted(path.name for path in directory.iterdir())
    ended = serve(directory, "")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"`backscroll serve --store '{address}' --data-dir {directory}`" in ended.stderr
    assert f"remove {directory / 'store.json'}" in ended.stderr
    with pytest.raises(BadSettings, match="is in PostgreSQL"):
        InProcess(directory)
    with pytest.raises(Unavailable, match="exit code 2"):
        start_daemon(data_dir=directory)
    assert sorted(path.name for path in directory.iterdir()) == before
    start_daemon("--store", address, data_dir=directory).stop()
    (directory / "store.json").unlink()
    start_daemon(data_dir=directory)


def test_scopes_in_files_are_not_passed_over(address: str, tmp_path: Path) -> None:
    """A daemon with a store does not start in a directory that holds scopes in files; the message says how to copy."""
    directory = tmp_path / "data"
    with InProcess(directory):
        pass
    ended = serve(directory, address)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{directory} holds scopes in files, which a daemon with a store does not serve" in ended.stderr
    assert f"`backscroll copy {directory} postgresql://" in ended.stderr
    assert not (directory / "store.json").exists()
    with pytest.raises(BadSettings, match="holds scopes in files"):
        InProcess(directory, store=address)


def test_daemons_that_start_at_once_on_an_empty_database_all_serve(postgresql: Server, tmp_path: Path) -> None:
    """One makes the tables, and the others wait until it has."""
    with postgresql.database("template0") as address, ExitStack() as stack:
        processes: list[DaemonProcess] = []
        threads = [
            threading.Thread(target=lambda name=name: processes.append(start_on(address, tmp_path, name)))
            for name in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        daemons = [stack.enter_context(process) for process in processes]
        assert len(daemons) == 3
        for number, daemon in enumerate(daemons, start=1):
            with Peer(daemon.endpoint) as peer:
                assert answer(peer, body("save-message", save_payload(number)))["seq"] == number


@pytest.mark.parametrize("exempt", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_past_row_level_security_is_refused(
    postgresql: Server, address: str, tmp_path: Path, exempt: str
) -> None:
    """It would see all scopes, whatever a statement says."""
    role = f"exempt_{exempt.lower()}_{os.getpid()}"
    with postgresql.admin() as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN {exempt}")
        try:
            ended = serve(tmp_path / "data", postgresql.address(name_in(address), role))
        finally:
            admin.execute(f"DROP ROLE {role}")
    assert ended.returncode == 4
    assert f"used as {role}, whom row-level security does not hold back" in ended.stderr


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://ada:secret@localhost/chat",
        "postgresql://ada@localhost/chat?password=secret",
        "postgresql://ada@localhost/chat?scram_client_key=secret",
    ],
)
def test_a_password_in_the_address_is_refused(tmp_path: Path, store: str) -> None:
    """Every user of the machine could see it. The message says where it belongs, and does not repeat it."""
    ended = serve(tmp_path / "data", store)
    assert ended.returncode == 2
    assert "PGPASSFILE" in ended.stderr
    assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("postgresql://ada@127.0.0.1:9/chat", "refused"),
        ("postgresql://ada@/chat?host=/nowhere", "No such file"),
        ("postgresql://ada@{host}/none", "does not exist. README.md has the statements"),
        ("postgresql://ada@127.0.0.1:9/chat", "postgresql://ada@127.0.0.1:9/chat cannot"),
        ("postgresql://?service=nowhere", "the file that PGSERVICEFILE names"),
    ],
)
def test_a_missing_server_or_database_exits_with_4(postgresql: Server, tmp_path: Path, store: str, said: str) -> None:
    """Within some seconds, with what the system or the server said."""
    if "{host}" in store:
        store = postgresql.address("none")
    ended = serve(tmp_path / "data", store)
    assert ended.returncode == 4
    assert "cannot be used" in ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("ALTER TABLE messages DISABLE ROW LEVEL SECURITY", "lacks tables, or row-level security .*: messages"),
        ("ALTER TABLE media NO FORCE ROW LEVEL SECURITY", "lacks tables, or row-level security .*: media"),
        ("DROP TABLE reactions CASCADE", "lacks tables, or row-level security .*: reactions"),
        ("UPDATE shared SET key = 'gone'", "It has tables of another program: make a database for backscroll alone"),
    ],
)
def test_tables_that_are_not_as_they_were_made_are_refused(
    address: str, postgresql: Server, tmp_path: Path, harm: str, said: str
) -> None:
    """Tables of another program, missing ones, and those that would show all scopes to a statement without one."""
    with postgresql.admin_of(address) as admin:
        admin.execute(harm)
    ended = serve(tmp_path / "data", address)
    assert ended.returncode == 4
    assert re.search(said, ended.stderr), ended.stderr
    assert "LINE" not in ended.stderr


@pytest.mark.parametrize("package", ["psycopg", "psycopg_pool"])
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, package: str) -> None:
    """PostgreSQL is an extra, which not everybody installs."""
    code = f"import sys; sys.modules[{package!r}] = None"
    ended = serve(tmp_path / "data", "postgresql://ada@localhost/chat", code)
    assert ended.returncode == 2
    assert f"needs the package {package}: pip install 'backscroll[postgresql]'" in ended.stderr
    assert "Traceback" not in ended.stderr


# Stops

SLEEP = """
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(100); RETURN NEW; END $$;
CREATE TRIGGER sleep BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.content = 'slow') EXECUTE FUNCTION sleep();
ALTER POLICY one_scope ON users
    USING (scope = current_setting('backscroll.scope', true) AND pg_sleep(100) IS NOT NULL);
"""
USER = {"oderId": "ada", "id": "ada", "username": "ada"}


def test_a_stop_ends_statements_and_answers_their_requests(
    postgresql: Server, address: str, start_daemon: StartDaemon
) -> None:
    """After `drain_ms`, a command and a query whose statements run for long are interrupted, and answered
    `unavailable`, as is what waits behind them. The command has no effect.
    """
    daemon = start_daemon("--store", address, *FLAGS, "--drain-ms", "300")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    with several(daemon.endpoint, 2) as [peer, reader], postgresql.admin_of(address) as admin:
        assert answer(peer, body("save-user", {"user": USER}))["ok"]
        admin.execute(SLEEP)
        peer.request("save-message", save_payload(1, "slow"))
        reader.request("list-users", {})
        wait_until(lambda: admin.execute(sleeping).fetchall() == [(2,)])
        peer.request("save-message", save_payload(2))
        assert peer.silent(100)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < STOP_SECONDS
        replies = [reader.reply(), *peer.replies(2).values()]
        assert {reply["error"]["code"] for reply in replies} == {"unavailable"}, replies
        wait_until(lambda: admin.execute(sleeping).fetchall() == [(0,)])
        assert admin.execute("SELECT id FROM messages").fetchall() == []
