"""Who may do what: every operation with every kind of caller on every transport, tried against a real daemon."""

import hashlib
import multiprocessing
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import zmq
from msgspec.structs import replace

from backscroll.bus.access_files import AccessFiles
from backscroll.bus.gate import Gate
from backscroll.clients.python import Client
from backscroll.clients.python.address import Curve
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    AddKey,
    BackscrollError,
    Conflict,
    CreateToken,
    GetLog,
    Invalid,
    ListKeys,
    ListTokens,
    NotFound,
    Ping,
    RevokeKey,
    RevokeToken,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from backscroll.schema.limits import TOKENS_MAX
from backscroll.schema.operations import OPERATIONS, Command, Query
from tests.support.clocks import Clock
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer, Reply
from tests.support.requests import example, harmless_example, in_sensible_order
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]

NEED_NOTHING = {"hello"}
NEED_ANY_TOKEN = {"ping", "health", "describe"}
NEED_ADMIN = {
    *("get-scope-info", "list-scopes", "delete-scope", "adopt-legacy-database", "compact-scope", "clear-all-data"),
    *("get-log", "append-log", "get-rows"),
    *("create-token", "list-tokens", "revoke-token", "add-key", "list-keys", "revoke-key"),
    *("start-check", "start-backup", "start-backup-verification", "list-backups", "get-tasks"),
}
OF_THE_WHOLE_DAEMON = {
    *("list-scopes", "adopt-legacy-database"),
    *("create-token", "list-tokens", "revoke-token", "add-key", "list-keys", "revoke-key"),
    *("start-check", "start-backup", "start-backup-verification", "list-backups", "get-tasks"),
}
RANKS = {"read": 1, "write": 2, "admin": 3}
SCOPE = "tried"


class Caller(NamedTuple):
    """Who calls: the right of the token, None for one that is not accepted, and whether it is for `SCOPE` alone."""

    right: str | None
    in_scope: bool = True
    limited: bool = False


CALLERS = {
    "nobody": Caller(None),
    "stranger": Caller(None),
    "revoked": Caller(None),
    "expired": Caller(None),
    "reader": Caller("read"),
    "writer": Caller("write"),
    "admin": Caller("admin"),
    "start": Caller("admin"),
    "admin-here": Caller("admin", limited=True),
    "admin-elsewhere": Caller("admin", in_scope=False, limited=True),
}


def needed_for(operation: str) -> str:
    """The right that an operation needs, from its kind and the sets above."""
    if operation in NEED_NOTHING:
        return "none"
    if operation in NEED_ANY_TOKEN:
        return "any"
    if operation in NEED_ADMIN:
        return "admin"
    return "read" if issubclass(OPERATIONS[operation], Query) else "write"


def expected(operation: str, caller: Caller) -> str:
    """`allowed`, or the code that the gate refuses with."""
    needed = needed_for(operation)
    if needed == "none":
        return "allowed"
    if caller.right is None:
        return "unauthenticated"
    if needed == "any":
        return "allowed"
    if RANKS[caller.right] < RANKS[needed] or (caller.limited and operation in OF_THE_WHOLE_DAEMON):
        return "forbidden"
    return "allowed" if caller.in_scope else "forbidden"


def verdict(reply: Reply) -> str:
    """What the gate said; `forbidden` may also come from an operation itself, but only the gate speaks of a token."""
    if reply["ok"] or reply["error"]["code"] not in ("unauthenticated", "forbidden"):
        return "allowed"
    spoke = reply["error"]["code"] == "unauthenticated" or "token" in reply["error"]["message"]
    return str(reply["error"]["code"]) if spoke else "allowed"


class Open(NamedTuple):
    """A daemon on all transports, with a peer on each and the tokens of the callers."""

    daemon: DaemonProcess
    peers: Mapping[str, Peer]
    tokens: Mapping[str, str | None]
    keys: Curve


def token_of(name: str) -> str:
    return f"{name}.{secrets.token_urlsafe(32)}"


def curve_peer(endpoint: str, keys: Curve) -> Peer:
    """A raw socket connected over CURVE."""
    peer = Peer("inproc://nowhere")
    peer.socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_key.encode())
    peer.socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public_key.encode())
    peer.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_key.encode())
    peer.socket.disconnect("inproc://nowhere")
    peer.socket.connect(endpoint.replace("curve://", "tcp://"))
    return peer


def ping(endpoint: str, token: str | None, keys: Curve) -> bool:
    """Whether a client with these keys is answered."""
    with Client(endpoint, token=token, curve=keys, timeout_ms=500) as client:
        return client.ask(Ping()).pong


def listed_key(endpoint: str, name: str = "mine") -> Curve:
    """A client's keys, listed by a daemon."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    with Client(endpoint) as client:
        client.execute(AddKey(name, public))
        return Curve(client.execute(ListKeys()).server_key, public, secret)


@pytest.fixture
def opened(start_on_each_store: StartDaemon, tmp_path: Path) -> Iterator[Open]:
    with start_on_each_store() as first:
        keys = listed_key(first.endpoint)
    endpoints = (f"ipc://{tmp_path}/x.sock", "tcp://127.0.0.1:*", "curve://127.0.0.1:*")
    daemon = start_on_each_store(*(word for each in endpoints for word in ("--endpoint", each)))
    by_ipc, by_tcp, by_curve = daemon.endpoints
    now = time.time_ns() // 1_000_000
    tokens: dict[str, str | None] = {name: token_of(name) for name in CALLERS}
    tokens |= {"nobody": None, "start": daemon.token}
    with Client(by_ipc) as client:
        for name, caller in CALLERS.items():
            if name in ("nobody", "stranger", "start"):
                continue
            scopes = [SCOPE if caller.in_scope else "elsewhere"] if caller.limited else None
            expires_at = now - 1 if name == "expired" else now + 3_600_000
            client.execute(CreateToken.of(tokens[name] or "", name, caller.right or "admin", scopes, expires_at))  # type: ignore[arg-type]
        client.execute(RevokeToken("revoked"))
    with Peer(by_ipc) as ipc, Peer(by_tcp) as tcp, closing(curve_peer(by_curve, keys)) as curve:
        yield Open(daemon, {"ipc": ipc, "tcp": tcp, "curve": curve}, tokens, keys)


def test_every_operation_is_tried_with_every_caller_on_every_transport(opened: Open) -> None:
    """Each cell of the table is as the kind of the operation says; over ipc the owner may do everything."""
    wrong, cells = [], 0
    for transport, peer in opened.peers.items():
        for name, caller in CALLERS.items():
            for operation in in_sensible_order():
                wire_name, auth = operation.wire_name, opened.tokens[name]
                envelope = {"scope": SCOPE} | ({} if auth is None else {"auth": auth})
                found = verdict(peer.ask(wire_name, harmless_example(operation), **envelope))
                wanted = "allowed" if transport == "ipc" else expected(wire_name, caller)
                cells += 1
                if found != wanted:
                    wrong.append(f"{transport}, {name}, {wire_name}: {found} and not {wanted}")
    assert cells == 3 * len(CALLERS) * len(OPERATIONS)
    assert wrong == []


def test_a_batch_cannot_contain_what_needs_more_than_writing() -> None:
    """A batch needs the right to write, so every command that needs another one is alone."""
    others = [each for each in OPERATIONS.values() if issubclass(each, Command) and each.RIGHT != "write"]
    assert [each.wire_name for each in others] == ["clear-all-data"]
    assert all(each.ALONE for each in others)


def test_what_is_refused_changes_nothing(opened: Open) -> None:
    """Commands of callers without the right leave no row in any log, and no scope."""
    owner = opened.peers["ipc"]
    for transport in ("tcp", "curve"):
        for name in ("nobody", "stranger", "revoked", "expired", "reader", "admin-elsewhere"):
            auth = opened.tokens[name]
            for at, operation in enumerate(each for each in OPERATIONS.values() if issubclass(each, Command)):
                envelope = {"scope": f"new-{at % 3}"} | ({} if auth is None else {"auth": auth})
                reply = opened.peers[transport].ask(operation.wire_name, harmless_example(operation), **envelope)
                assert reply["error"]["code"] in ("unauthenticated", "forbidden"), (name, operation, reply)
    assert owner.ask("list-scopes")["result"] == ["default"]
    assert owner.ask("get-log")["result"]["lastSeq"] == 0


def test_rights_are_those_of_the_description(opened: Open) -> None:
    """`describe` says of each operation what it needs."""
    described = opened.peers["ipc"].ask("describe")["result"]["operations"]
    assert {name: each["right"] for name, each in described.items()} == {name: needed_for(name) for name in OPERATIONS}


def test_the_principal_is_in_the_log(opened: Open) -> None:
    """An entry names the token that its command came with; none for the owner over ipc or with the start token."""
    ipc, tcp = opened.peers["ipc"], opened.peers["tcp"]
    ipc.ask("save-message", save_payload(1))
    tcp.ask("save-message", save_payload(2), auth=opened.tokens["start"])
    tcp.ask("save-message", save_payload(3), auth=opened.tokens["writer"])
    batch = {"commands": [{"type": "save-message", "payload": save_payload(4)}]}
    opened.peers["curve"].ask("batch", batch, auth=opened.tokens["admin"])
    entries = ipc.ask("get-log")["result"]["entries"]
    assert [each.get("principal") for each in entries] == [None, None, "writer", "admin"]
    for token in filter(None, opened.tokens.values()):
        assert token not in str(entries)
        files = [path for path in opened.daemon.data_dir.iterdir() if path.is_file()]
        holding = [path.name for path in files if token.encode() in path.read_bytes()]
        assert holding == (["endpoint.json"] if token == opened.tokens["start"] else [])


def test_a_token_is_revoked_at_once(opened: Open) -> None:
    """The next request on a connection that has been used before is refused, and a token of that name is a new one."""
    tcp, ipc = opened.peers["tcp"], opened.peers["ipc"]
    assert tcp.ask("list-users", auth=opened.tokens["reader"])["ok"]
    assert ipc.ask("revoke-token", {"name": "reader"})["ok"]
    assert tcp.ask("list-users", auth=opened.tokens["reader"])["error"]["code"] == "unauthenticated"
    token = token_of("reader")
    created = {"name": "reader", "tokenHash": hashlib.sha256(token.encode()).hexdigest(), "right": "read"}
    assert ipc.ask("create-token", created)["ok"]
    assert tcp.ask("list-users", auth=token)["ok"]
    assert tcp.ask("list-users", auth=opened.tokens["reader"])["error"]["code"] == "unauthenticated"


def test_tokens_and_keys_survive_a_restart(opened: Open, start_on_each_store: StartDaemon) -> None:
    """They are in private files, or in the database alone; a start token is of one start."""
    before = opened.tokens["start"]
    files = [opened.daemon.data_dir / name for name in ("tokens.json", "keys.json")]
    modes = [path.stat().st_mode & 0o777 for path in files if path.exists()]
    engine = opened.peers["ipc"].ask("health")["result"]["storage"]["engine"]
    assert modes == ([] if engine == "postgresql" else [0o600, 0o600])
    opened.daemon.stop()
    again = start_on_each_store("--endpoint", "tcp://127.0.0.1:*", "--endpoint", "curve://127.0.0.1:*")
    with Client(again.endpoint, token=opened.tokens["reader"]) as client:
        assert client.ask(Ping()).pong
    with Client(again.endpoints[1], token=opened.tokens["writer"], curve=opened.keys) as client:
        client.execute(save_message(1))
    assert again.token != before
    with pytest.raises(Unavailable), Client(again.endpoint, token=before, timeout_ms=500) as client:
        client.ask(Ping())


def test_a_long_auth_is_refused_without_quoting_it(opened: Open) -> None:
    """No error message contains what was sent as a token."""
    for auth in ("secret" * 100, ["secret"], {"secret": 1}, 7):
        reply = opened.peers["tcp"].ask("ping", auth=auth)
        assert reply["error"]["code"] in ("too-large", "invalid")
        assert "secret" not in str(reply)


# CURVE


def test_only_listed_keys_connect_over_curve(opened: Open) -> None:
    """A client with another key, without a key, or whose key was revoked is not let in; the others are served."""
    by_curve = opened.daemon.endpoints[2]
    token = opened.tokens["writer"]
    public, secret = (key.decode() for key in zmq.curve_keypair())
    other = Curve(opened.keys.server_key, public, secret)
    with (
        pytest.raises(Unavailable, match="does not let"),
        Client(by_curve, token=token, curve=other, timeout_ms=500) as client,
    ):
        client.ask(Ping())
    with Peer(by_curve.replace("curve", "tcp")) as plain:
        plain.request("ping", auth=token)
        assert plain.silent(300)
    assert ping(by_curve, token, opened.keys)
    with Client(opened.daemon.endpoints[0]) as owner:
        owner.execute(RevokeKey("mine"))
    with pytest.raises(Unavailable):
        ping(by_curve, token, opened.keys)


def test_a_client_over_curve_notices_another_server(opened: Open) -> None:
    """With another server key the connection does not come about, and no token is sent."""
    public, _ = (key.decode() for key in zmq.curve_keypair())
    wrong = opened.keys._replace(server_key=public)
    with (
        pytest.raises(Unavailable),
        Client(opened.daemon.endpoints[2], token="a.b", curve=wrong, timeout_ms=500) as client,
    ):
        client.ask(Ping())


def test_curve_needs_a_listed_key(tmp_path: Path) -> None:
    """Without one the daemon does not start there, and says what to do."""
    with (tmp_path / "log").open("w+") as log:
        with pytest.raises(Unavailable, match="exit code 2"):
            DaemonProcess(tmp_path / "data", "--endpoint", "curve://127.0.0.1:*", log=log)
        log.seek(0)
        assert "backscroll keys create" in log.read()


# Users of the machine


def as_user(uid: int, endpoint: str) -> bool:
    """Whether a process of another user gets a reply over ipc."""
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)

    def run() -> None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        with Peer(endpoint) as peer:
            peer.request("ping")
            writing.send(not peer.silent(1_000))
        os._exit(0)

    process = context.Process(target=run)
    process.start()
    assert reading.poll(20)
    process.join()
    return bool(reading.recv())


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("allowed", [False, True])
def test_another_user_is_let_in_only_if_listed(start_daemon: StartDaemon, allowed: bool) -> None:
    """Whatever the socket's permissions say; the daemon's own user always is."""
    uid = 65_534
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        flags = ("--allowed-uids", str(uid)) if allowed else ()
        daemon = start_daemon("--endpoint", f"ipc://{directory}/x.sock", *flags)
        if not allowed:
            Path(directory, "x.sock").chmod(0o666)
        assert as_user(uid, daemon.endpoint) is allowed
        assert as_user(uid - 1, daemon.endpoint) is False
        with Client(daemon.endpoint) as client:
            assert client.ask(Ping()).pong


def test_the_decision_about_a_peer(tmp_path: Path) -> None:
    """By transport: the uid in the address, nothing, or the key; what is not known is refused."""
    gate = Gate(AccessFiles(tmp_path), allowed_uids=(7,))
    own = os.getuid()
    assert gate.may_connect(b"ipc", f"localhost:{own}:0:1".encode(), b"NULL", [])
    assert gate.may_connect(b"ipc", b":7:7:1", b"NULL", [])
    for address in (b":8:7:1", b"localhost", b"", b"localhost:", b"localhost:-1:0:1", b"7", b"x:y:z"):
        assert not gate.may_connect(b"ipc", address, b"NULL", []), address
    assert not gate.may_connect(b"ipc", f"localhost:{own}:0:1".encode(), b"PLAIN", [b"a", b"b"])
    assert gate.may_connect(b"tcp", b"127.0.0.1", b"NULL", [])
    assert not gate.may_connect(b"tcp", b"127.0.0.1", b"CURVE", [b"k" * 32])
    assert not gate.may_connect(b"curve", b"127.0.0.1", b"NULL", [])
    assert not gate.may_connect(b"curve", b"127.0.0.1", b"CURVE", [b"k" * 32])


# Tokens and keys


def token_for(name: str, secret: str = "x", expires_at: int | None = None) -> CreateToken:
    return CreateToken.of(f"{name}.{secret}", name, "read", expires_at=expires_at)


@pytest.mark.parametrize("token", ["", "bot", "bot.", ".secret", "other.secret", "bot.secret.more", "secret"])
def test_a_token_begins_with_its_name(token: str) -> None:
    """Clients read the name from it, to ask for the proof; the error does not quote it."""
    with pytest.raises(Invalid, match=r"must be 'bot', a dot and a secret without dots$"):
        CreateToken.of(token, "bot", "read")


def test_tokens_are_bounded_and_expired_ones_make_room(tmp_path: Path) -> None:
    """At most so many; one whose time has passed is refused, and removed when another is made."""
    clock = Clock()
    gate = Gate(AccessFiles(tmp_path), clock=clock)
    for at in range(TOKENS_MAX):
        gate.create_token(token_for(f"t{at}", expires_at=clock() + 1_000 if at == 0 else None))
    with pytest.raises(TooLarge):
        gate.create_token(token_for("more"))
    assert gate.admit("t0.x", Ping, "default") == "t0"
    clock.now += 1_000
    with pytest.raises(Unauthenticated, match="expired"):
        gate.admit("t0.x", Ping, "default")
    with pytest.raises(Unauthenticated):
        gate.prove("0" * 32, "t0")
    gate.create_token(token_for("more"))
    assert "t0" not in {each.name for each in Gate(AccessFiles(tmp_path), clock=clock).tokens()}


def test_names_and_hashes_are_unique(start_on_each_store: StartDaemon) -> None:
    """The second of a name or of a hash is a conflict; revoking what is not there is not found."""
    with Client(start_on_each_store().endpoint) as client:
        client.execute(token_for("one"))
        client.execute(AddKey("one", example(AddKey)["publicKey"]))
        again = AddKey("one", example(AddKey)["publicKey"])
        same_hash = replace(token_for("one"), name="two")
        for command in (token_for("one", "y"), same_hash, again):
            with pytest.raises(Conflict):
                client.execute(command)
        for missing in (RevokeToken("two"), RevokeKey("two")):
            with pytest.raises(NotFound):
                client.execute(missing)
        for bad in (token_for("a b"), token_for("c\n"), AddKey("c", "%" * 40)):
            with pytest.raises(BackscrollError) as caught:
                client.execute(bad)
            assert caught.value.code == "invalid"
        assert [each.name for each in client.execute(ListTokens())] == ["one"]
        assert client.ask(GetLog()).last_seq == 0


def test_a_damaged_file_of_tokens_is_refused_at_the_start(tmp_path: Path) -> None:
    """The daemon does not start without knowing whom it serves, and names the file."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "tokens.json").write_text("{")
    with (tmp_path / "log").open("w+") as log:
        with pytest.raises(Unavailable, match="exit code 4"):
            DaemonProcess(tmp_path / "data", log=log)
        log.seek(0)
        assert "tokens.json cannot be read" in log.read()


# Handshakes


def test_peers_in_the_middle_of_a_handshake_do_not_delay_the_end(start_daemon: StartDaemon) -> None:
    """A daemon stops at once, with peers that said nothing, half of their greeting, or all of it."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    port = int(daemon.endpoint.rpartition(":")[2])
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    for at, connection in enumerate(connections):
        connection.sendall(greeting[: (0, 11, 64)[at % 3]])
    assert daemon.stop() == 0  # raises long before libzmq gives up waiting for the peers
    for connection in connections:
        connection.close()


def test_new_clients_are_let_in_while_others_keep_the_daemon_busy(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The loop answers handshakes between requests, and one transport does not keep another waiting."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*", "--endpoint", f"ipc://{tmp_path}/x.sock")
    with Peer(daemon.endpoint) as busy:
        for _ in range(20_000):
            busy.request("ping", auth=daemon.token)
        for _ in range(10):
            for endpoint in daemon.endpoints:
                with Client(endpoint, data_dir=daemon.data_dir) as client:
                    assert client.ask(Ping()).pong
        wait_until(lambda: not busy.silent())
