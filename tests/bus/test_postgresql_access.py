"""Tokens and keys of several daemons on one PostgreSQL database: what one is told, all act on."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zmq

from backscroll.bus.failures import BadSettings, CannotOpen
from backscroll.bus.gate import Gate
from backscroll.bus.postgresql.access import AccessDatabase
from backscroll.bus.postgresql.connecting import Connection, Database
from backscroll.clients.python import Client
from backscroll.clients.python.address import Curve
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    AddKey,
    Conflict,
    CreateToken,
    ListKeys,
    NotFound,
    Ping,
    RevokeKey,
    Unauthenticated,
    Unavailable,
)
from backscroll.schema.operations.sessions import hash_of
from tests.support.clocks import Clock
from tests.support.peers import Peer, log_lines, several
from tests.support.postgresql import Server, started
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]

LONG_MS = 60_000
PROMPT_SECONDS = 20
AT_ONCE = 50


@pytest.fixture
def address(postgresql: Server) -> Iterator[str]:
    """The address of a database with the tables of a store."""
    with postgresql.database() as address:
        yield address


def on_tcp(start_daemon: StartDaemon, address: str, directory: Path) -> DaemonProcess:
    """A daemon that its owner reaches over ipc, and others over tcp."""
    ipc = f"ipc://{directory}.sock"
    return start_daemon(*("--store", address, "--endpoint", ipc, "--endpoint", "tcp://127.0.0.1:*"), data_dir=directory)


@pytest.fixture
def pair(start_daemon: StartDaemon, address: str, tmp_path: Path) -> list[DaemonProcess]:
    """Two daemons on one database."""
    return [on_tcp(start_daemon, address, tmp_path / name) for name in ("a", "b")]


@contextmanager
def peers_of(daemons: list[DaemonProcess]) -> Iterator[tuple[list[Peer], list[Peer]]]:
    """A peer of each daemon's owner, and one of each over tcp."""
    with ExitStack() as stack:
        owners, others = ([stack.enter_context(Peer(each.endpoints[at])) for each in daemons] for at in (0, 1))
        yield owners, others


def token_of(name: str) -> str:
    return f"{name}.{hashlib.sha256(name.encode()).hexdigest()}"


def create(owner: Peer, name: str) -> Any:
    """The reply to the creation of a token."""
    return owner.ask("create-token", {"name": name, "tokenHash": hash_of(token_of(name)), "right": "read"})


def code_for(peer: Peer, name: str, operation: str = "list-users") -> str:
    """How a token is received: `ok` or a code."""
    reply = peer.ask(operation, auth=token_of(name))
    return "ok" if reply["ok"] else str(reply["error"]["code"])


def names_at(owner: Peer) -> set[str]:
    return {each["name"] for each in owner.ask("list-tokens")["result"]}


# Two daemons


def test_a_token_holds_at_all_daemons_until_it_is_revoked(pair: list[DaemonProcess]) -> None:
    """Made at one, it is accepted by the other; revoked there, it is refused by both. A token that was never listed at
    a daemon can be revoked there, and a name that another daemon has given is a conflict at once.
    """
    with peers_of(pair) as ([a, b], [tcp_a, tcp_b]):
        assert create(a, "bot")["ok"]
        assert code_for(tcp_a, "bot") == "ok"
        assert create(b, "bot")["error"]["code"] == "conflict"
        wait_until(lambda: code_for(tcp_b, "bot") == "ok")
        assert b.ask("revoke-token", {"name": "bot"})["ok"]
        assert code_for(tcp_b, "bot") == "unauthenticated"
        wait_until(lambda: code_for(tcp_a, "bot") == "unauthenticated")
        assert create(a, "short")["ok"]
        assert b.ask("revoke-token", {"name": "short"})["ok"]
        assert code_for(tcp_b, "short") == "unauthenticated"
        wait_until(lambda: code_for(tcp_a, "short") == "unauthenticated")
        assert a.ask("revoke-token", {"name": "bot"})["error"]["code"] == "not-found"


def test_queries_that_wait_end_when_their_token_is_revoked_elsewhere(pair: list[DaemonProcess]) -> None:
    """They are answered `unauthenticated`; those of other callers wait on."""
    with peers_of(pair) as ([a, b], _), several(pair[0].endpoints[1], 2) as [revoked, kept]:
        for name in ("revoked", "kept"):
            assert create(a, name)["ok"]
        cursor = a.ask("get-changes")["result"]["cursor"]
        for peer, name in ((revoked, "revoked"), (kept, "kept")):
            peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS}, "waiting", auth=token_of(name))
        wait_until(lambda: a.ask("health")["result"]["queues"]["waiting"] == 2)
        assert b.ask("revoke-token", {"name": "revoked"})["ok"]
        reply = revoked.reply(PROMPT_SECONDS)
        assert (reply["id"], reply["error"]["code"]) == ("waiting", "unauthenticated")
        assert a.ask("health")["result"]["queues"]["waiting"] == 1
        assert kept.silent()


def test_tokens_made_at_both_daemons_at_once_are_all_there(pair: list[DaemonProcess]) -> None:
    """No daemon writes over what the other has made."""
    wanted = {f"{side}{number}" for side in "ab" for number in range(AT_ONCE)}
    failed: list[Any] = []

    def create_all(daemon: DaemonProcess, side: str) -> None:
        with Peer(daemon.endpoints[0]) as owner:
            replies = [create(owner, f"{side}{number}") for number in range(AT_ONCE)]
        failed.extend(reply for reply in replies if not reply["ok"])

    threads = [threading.Thread(target=create_all, args=each) for each in zip(pair, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with peers_of(pair) as (owners, others):
        for owner, other in zip(owners, others, strict=True):
            wait_until(lambda owner=owner: names_at(owner) == wanted)  # type: ignore[misc]
            for name in ("a0", "b0", f"a{AT_ONCE - 1}", f"b{AT_ONCE - 1}"):
                assert code_for(other, name) == "ok"


def test_without_the_database_known_tokens_are_accepted_and_none_are_made(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """A change is `unavailable` and has no effect; when the server is back, changes reach both daemons again."""
    with started() as server, server.database() as address:
        pair = [on_tcp(start_daemon, address, tmp_path / name) for name in ("a", "b")]
        with peers_of(pair) as ([a, b], [tcp_a, tcp_b]):
            for name in ("kept", "ended"):
                assert create(a, name)["ok"]
            wait_until(lambda: names_at(b) == {"kept", "ended"})
            server.stop()
            try:
                assert create(a, "new")["error"]["code"] == "unavailable"
                assert b.ask("revoke-token", {"name": "ended"})["error"]["code"] == "unavailable"
                for peer in (tcp_a, tcp_b):
                    assert [code_for(peer, name, "ping") for name in ("kept", "ended")] == ["ok", "ok"]
                    assert code_for(peer, "new", "ping") == "unauthenticated"
            finally:
                server.start()
            wait_until(lambda: b.ask("revoke-token", {"name": "ended"})["ok"])
            wait_until(lambda: names_at(a) == {"kept"})
            assert create(a, "new")["ok"]
            wait_until(lambda: code_for(tcp_b, "new") == "ok")


def test_the_loop_waits_for_no_change_of_tokens(pair: list[DaemonProcess], postgresql: Server, address: str) -> None:
    """While another session holds the tokens, callers are served; the change is `busy` in the end, without effect."""
    with peers_of(pair) as ([a, _], [tcp_a, _]), postgresql.admin_of(address) as other:
        assert create(a, "bot")["ok"]
        with other.transaction(), Peer(pair[0].endpoints[0]) as changing:
            other.execute("SELECT 1 FROM shared WHERE key = 'tokens' FOR UPDATE")
            changing.request(
                "create-token", {"name": "new", "tokenHash": hash_of(token_of("new")), "right": "read"}, "create"
            )
            for _ in range(20):
                assert code_for(tcp_a, "bot") == "ok"
            reply = changing.reply(PROMPT_SECONDS)
            assert (reply["id"], reply["error"]["code"]) == ("create", "busy")
        assert names_at(a) == {"bot"}
        assert code_for(tcp_a, "new") == "unauthenticated"


def test_all_daemons_have_one_key_for_curve(
    pair: list[DaemonProcess], start_daemon: StartDaemon, address: str, tmp_path: Path
) -> None:
    """A client with the key that one daemon has told connects to all, until one is told to revoke the client's."""
    endpoints = [each.endpoints[0] for each in pair]
    keys: list[str] = []

    def ask(endpoint: str) -> None:
        with Client(endpoint) as client:
            keys.append(client.execute(ListKeys()).server_key)

    threads = [threading.Thread(target=ask, args=(endpoint,)) for endpoint in endpoints]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    with pytest.raises(Unavailable, match="exit code 2"):
        start_daemon("--store", address, "--endpoint", "curve://127.0.0.1:*", data_dir=tmp_path / "c")
    assert "`backscroll keys create NAME` with a daemon of this database" in (tmp_path / "daemon.log").read_text()
    (first, second) = ([key.decode() for key in zmq.curve_keypair()] for _ in range(2))
    with Client(endpoints[0]) as owner:
        owner.execute(AddKey("first", first[0]))
        owner.execute(CreateToken.of(token_of("bot"), "bot", "read"))
        by_curve = [
            start_daemon("--store", address, "--endpoint", "curve://127.0.0.1:*", data_dir=tmp_path / name).endpoints[1]
            for name in ("c", "d")
        ]
        for endpoint in by_curve:
            assert is_let_in(endpoint, Curve(keys[0], *first))
            assert not is_let_in(endpoint, Curve(keys[0], *second))
        owner.execute(AddKey("second", second[0]))
        for endpoint in by_curve:
            wait_until(partial(is_let_in, endpoint, Curve(keys[0], *second)))
        owner.execute(RevokeKey("first"))
        for endpoint in by_curve:
            wait_until(lambda endpoint=endpoint: not is_let_in(endpoint, Curve(keys[0], *first)))  # type: ignore[misc]
            assert is_let_in(endpoint, Curve(keys[0], *second))


def is_let_in(endpoint: str, keys: Curve) -> bool:
    """Whether a client with these keys is answered."""
    try:
        with Client(endpoint, token=token_of("bot"), curve=keys, timeout_ms=1_000) as client:
            return client.ask(Ping()).pong
    except Unavailable:
        return False


def test_tokens_that_cannot_be_read_are_refused_at_the_start_and_ignored_later(
    pair: list[DaemonProcess], start_daemon: StartDaemon, address: str, postgresql: Server, tmp_path: Path
) -> None:
    """A daemon that runs goes on with those it knows, and logs it; one that starts names the row."""
    with peers_of(pair) as ([a, _], [_, tcp_b]), postgresql.admin_of(address) as other:
        assert create(a, "bot")["ok"]
        wait_until(lambda: code_for(tcp_b, "bot") == "ok")
        other.execute("UPDATE shared SET value = '{' WHERE key = 'tokens'")
        wait_until(lambda: len(log_lines(tmp_path / "daemon.log", "tokens and keys cannot be read")) == len(pair))
        assert code_for(tcp_b, "bot") == "ok"
        with pytest.raises(Unavailable, match="exit code 4"):
            start_daemon("--store", address, data_dir=tmp_path / "c")
    assert "the row 'tokens' of the table `shared`" in (tmp_path / "daemon.log").read_text()


# Two gates


class LosesAnswers(Database):
    """A database whose connections can be lost after the next commit, before its answer arrives."""

    loses_next = False

    @contextmanager
    def begun(self, start: str, **options: Any) -> Iterator[tuple[Connection, list[tuple[Any, ...]]]]:
        with super().begun(start, **options) as begun:
            yield begun
        if self.loses_next:
            self.loses_next = False
            raise psycopg.OperationalError("the connection is lost")


@pytest.fixture
def database(address: str) -> Iterator[LosesAnswers]:
    with LosesAnswers(address, connections=4, wait_ms=5_000) as database:
        yield database


def gates(database: Database, clock: Clock, stack: ExitStack) -> list[Gate]:
    return [Gate(stack.enter_context(closing(AccessDatabase(database))), clock=clock) for _ in range(2)]


def test_a_token_expires_at_all_daemons(database: Database) -> None:
    """At its time, wherever it was made; the next that is made at any of them takes its place."""
    clock = Clock()
    with ExitStack() as stack:
        first, second = gates(database, clock, stack)
        first.create_token(CreateToken.of(token_of("old"), "old", "read", expires_at=clock() + 1_000))
        second.refresh()
        for gate in (first, second):
            assert gate.admit(token_of("old"), Ping, "default") == "old"
        clock.now += 1_000
        for gate in (first, second):
            with pytest.raises(Unauthenticated, match="has expired"):
                gate.admit(token_of("old"), Ping, "default")
        second.create_token(CreateToken.of(token_of("new"), "new", "read"))
        assert [each.name for each in second.tokens()] == ["new"]
        first.refresh()
        assert [each.name for each in first.tokens()] == ["new"]


def test_a_change_whose_answer_is_lost_took_effect_once(database: LosesAnswers) -> None:
    """It is found to be there already when it is repeated, so that its caller gets no `conflict` with itself."""
    with ExitStack() as stack:
        first, second = gates(database, Clock(), stack)
        first.create_token(CreateToken.of(token_of("other"), "other", "read"))
        database.loses_next = True
        first.create_token(CreateToken.of(token_of("bot"), "bot", "read"))
        assert not database.loses_next
        database.loses_next = True
        first.revoke_token("other")
        assert not database.loses_next
        second.refresh()
        for gate in (first, second):
            assert [each.name for each in gate.tokens()] == ["bot"]
        with pytest.raises(Conflict):
            second.create_token(CreateToken.of(token_of("bot"), "bot", "read"))
        with pytest.raises(NotFound):
            second.revoke_token("other")


def test_what_is_refused_stores_nothing(database: Database, postgresql: Server, address: str) -> None:
    """Not even an empty row."""
    with ExitStack() as stack:
        first, second = gates(database, Clock(), stack)
        with pytest.raises(NotFound):
            first.revoke_token("none")
        with pytest.raises(BadSettings, match="keys create"):
            second.server_secret_key()
    with postgresql.admin_of(address) as other:
        assert other.execute("SELECT key FROM shared").fetchall() == [("schema_version",)]


def test_a_change_is_known_before_what_was_read_earlier(database: Database) -> None:
    """What a daemon has changed is in force when its caller is answered, although it reads all the time."""
    with ExitStack() as stack:
        gate, _ = gates(database, Clock(), stack)
        ended = threading.Event()

        def refresh() -> None:
            while not ended.is_set():
                gate.refresh()

        thread = threading.Thread(target=refresh)
        thread.start()
        try:
            for number in range(AT_ONCE):
                name = f"t{number}"
                gate.create_token(CreateToken.of(token_of(name), name, "read"))
                assert gate.admit(token_of(name), Ping, "default") == name
                gate.revoke_token(name)
                with pytest.raises(Unauthenticated):
                    gate.admit(token_of(name), Ping, "default")
        finally:
            ended.set()
            thread.join()


def test_a_database_that_does_not_answer_leaves_the_gate_as_it_is(tmp_path: Path) -> None:
    """It cannot be asked, which is an error; what was known stays in force."""
    with started() as server, server.database() as address, ExitStack() as stack:
        database = stack.enter_context(Database(address, connections=4, wait_ms=500))
        gate, _ = gates(database, Clock(), stack)
        gate.create_token(CreateToken.of(token_of("bot"), "bot", "read"))
        server.stop()
        try:
            with pytest.raises(CannotOpen):
                gate.refresh()
            with pytest.raises(psycopg.OperationalError):
                gate.revoke_token("bot")
            assert gate.admit(token_of("bot"), Ping, "default") == "bot"
        finally:
            server.start()
