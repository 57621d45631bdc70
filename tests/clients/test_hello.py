"""Over tcp a client shows its token and its requests only to a daemon that has proved that it knows the token."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.address import Curve
from backscroll.clients.python.connection import RECONNECT_DELAY_MS
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import CreateToken, GetMessageById, Hello, Invalid, Ping, Unauthenticated, Unavailable
from backscroll.schema.wire import codec_of
from tests.support.messages import save_message
from tests.support.peers import Peer

StartDaemon = Callable[..., DaemonProcess]
TCP = ("--endpoint", "tcp://127.0.0.1:*")
TIMEOUT_MS = 20_000
REFUSED_MS = 1_500
IDLE_MS = 2_000
"""How long a client is let try where it cannot succeed."""
each_client = pytest.mark.parametrize("client_class", [Client, AsyncClient])


def ask(client_class: Any, **options: Any) -> Any:
    """The reply to a ping with a client of its own."""
    options = {"timeout_ms": TIMEOUT_MS} | options
    if client_class is Client:
        with Client(**options) as client:
            return client.ask(Ping())

    async def scenario() -> Any:
        async with AsyncClient(**options) as client:
            return await client.ask(Ping())

    return asyncio.run(scenario())


class Impostor:
    """Another program on a daemon's port: it answers as its subclass says, and keeps everything it is sent."""

    def __init__(self, endpoint: str) -> None:
        self.received: list[bytes] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def serve(self, answer: Callable[[dict[str, Any]], Any], until: Callable[[], bool]) -> None:
        """Answer requests until a condition holds."""
        while not until():
            if self._socket.poll(20):
                *route, body = self._socket.recv_multipart()
                self.received.append(body)
                codec = codec_of(body)
                request = codec.decode(body, dict[str, Any])
                reply = answer(request)
                if reply is not None:
                    self._socket.send_multipart([*route, codec.encode({"id": request["id"]} | reply)])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def stale(start_daemon: StartDaemon) -> Iterator[tuple[DaemonProcess, Impostor]]:
    """A daemon that was killed, so that its `endpoint.json` stayed, and another program that took its port."""
    daemon = start_daemon(*TCP)
    daemon.kill()
    with closing(Impostor(daemon.endpoint)) as impostor:
        yield daemon, impostor


def with_result(result: Any) -> dict[str, Any]:
    return {"ok": True, "result": result, "seq": 1}


def with_error(code: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": "no", "fault": "caller", "retryable": False}}


ANSWERS: dict[str, dict[str, Any] | None] = {
    "agree": with_result({"proof": "0" * 64, "endpoints": ["tcp://127.0.0.1:1"]}),
    "other": with_result({"pong": True}),
    "no result": {"ok": True},
    "refuse": {"ok": False},
    "error": with_error("invalid"),
    "silent": None,
}


@each_client
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_impostor_on_a_stale_port_learns_nothing(
    stale: tuple[DaemonProcess, Impostor], client_class: Any, answer: dict[str, Any] | None
) -> None:
    """It gets neither the token nor a request, and the caller an `Unavailable`."""
    daemon, impostor = stale
    outcome: list[Any] = []

    async def call() -> None:
        with pytest.raises(Unavailable) as caught:
            await asyncio.to_thread(ask, client_class, data_dir=daemon.data_dir, timeout_ms=REFUSED_MS)
        outcome.append(caught.value)

    async def scenario() -> None:
        await asyncio.gather(call(), asyncio.to_thread(impostor.serve, lambda _: answer, lambda: bool(outcome)))

    asyncio.run(scenario())
    assert "nothing was sent" in outcome[0].message
    if answer is not None:
        assert "did not prove that it knows the token" in outcome[0].message
    assert ("'invalid'" in outcome[0].message) == (answer is ANSWERS["error"])
    sent = [codec_of(body).decode(body, dict[str, Any]) for body in impostor.received]
    assert {request["type"] for request in sent} == {"hello"}
    assert daemon.token is not None
    assert not any(daemon.token.encode() in body for body in impostor.received)


@each_client
def test_an_impostor_that_passes_the_greeting_on_is_noticed(start_daemon: StartDaemon, client_class: Any) -> None:
    """A program in front of the real daemon gets a right proof, which is about the daemon's own port."""
    daemon = start_daemon(*TCP)
    with closing(Impostor("tcp://127.0.0.1:*")) as impostor, Peer(daemon.endpoint) as relay:
        done: list[Any] = []

        def pass_on(request: dict[str, Any]) -> Any:
            return with_result(relay.ask(request["type"], request["payload"])["result"])

        async def call() -> None:
            with pytest.raises(Unavailable, match="did not prove"):
                await asyncio.to_thread(
                    ask, client_class, endpoint=impostor.endpoint, token=daemon.token, timeout_ms=REFUSED_MS
                )
            done.append(True)

        async def scenario() -> None:
            await asyncio.gather(call(), asyncio.to_thread(impostor.serve, pass_on, lambda: bool(done)))

        asyncio.run(scenario())
    assert not any((daemon.token or "?").encode() in body for body in impostor.received)


@each_client
def test_a_client_of_a_killed_daemon_finds_the_next_one(start_daemon: StartDaemon, client_class: Any) -> None:
    """A file left by a killed daemon does not disturb the next, which has another token."""
    first = start_daemon(*TCP)
    token = first.token
    first.kill()
    second = start_daemon(*TCP)
    assert second.token != token
    assert ask(client_class, data_dir=second.data_dir).pong
    assert ask(client_class, endpoint=second.endpoint, data_dir=second.data_dir).pong
    with pytest.raises(Unavailable, match="did not prove"):
        ask(client_class, endpoint=second.endpoint, token=token, timeout_ms=REFUSED_MS)


@each_client
@pytest.mark.parametrize("is_running", [False, True], ids=["no-daemon", "wrong-token"])
def test_a_client_without_a_connection_waits_idly(
    start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch, client_class: Any, *, is_running: bool
) -> None:
    """Between two attempts to connect it sleeps: no daemon, or one that does not know the token, costs no processor."""
    endpoint = start_daemon(*TCP).endpoint if is_running else "tcp://127.0.0.1:1"
    polls = 0
    poll = zmq.Poller.poll

    def counted_poll(self: zmq.Poller, timeout: int | None = None) -> Any:
        nonlocal polls
        polls += 1
        return poll(self, timeout)

    monkeypatch.setattr(zmq.Poller, "poll", counted_poll)
    started_at = time.process_time()
    with pytest.raises(Unavailable):
        ask(client_class, endpoint=endpoint, token="wrong", timeout_ms=IDLE_MS)
    assert polls < IDLE_MS / RECONNECT_DELAY_MS * 10
    assert time.process_time() - started_at < IDLE_MS / 1000 / 3


@each_client
def test_the_token_is_found_or_its_absence_is_said(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_class: Any
) -> None:
    """As an argument, in the environment, or in the data directory that lists the endpoint; else the error says how.

    The data directory goes first where the daemon was found in it.
    """
    daemon = start_daemon(*TCP)
    monkeypatch.setenv("BACKSCROLL_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(Unauthenticated, match="`token=` or in the environment variable BACKSCROLL_TOKEN"):
        ask(client_class, endpoint=daemon.endpoint)
    assert ask(client_class, endpoint=daemon.endpoint, token=daemon.token).pong
    monkeypatch.setenv("BACKSCROLL_DATA_DIR", str(daemon.data_dir))
    assert ask(client_class, endpoint=daemon.endpoint).pong
    monkeypatch.setenv("BACKSCROLL_TOKEN", "wrong")
    with pytest.raises(Unavailable, match="did not prove"):
        ask(client_class, endpoint=daemon.endpoint, timeout_ms=REFUSED_MS)
    assert ask(client_class).pong
    assert ask(client_class, data_dir=daemon.data_dir).pong
    monkeypatch.setenv("BACKSCROLL_TOKEN", str(daemon.token))
    assert ask(client_class, endpoint=daemon.endpoint).pong


@each_client
def test_the_token_is_found_by_any_name_of_the_loopback(start_daemon: StartDaemon, client_class: Any) -> None:
    """`localhost` and an address are the same daemon, if the port is."""
    daemon = start_daemon(*TCP)
    endpoint = daemon.endpoint.replace("127.0.0.1", "localhost")
    assert ask(client_class, endpoint=endpoint, data_dir=daemon.data_dir).pong
    with pytest.raises(Unauthenticated, match="there is no token"):
        ask(client_class, endpoint="tcp://localhost:1", data_dir=daemon.data_dir)


@each_client
def test_a_token_that_the_daemon_does_not_know_is_said_to_be_so(start_daemon: StartDaemon, client_class: Any) -> None:
    """Revoked, expired or never made: the error is not retryable, and names the token without its secret."""
    daemon = start_daemon(*TCP)
    with Client(data_dir=daemon.data_dir) as owner:
        owner.execute(CreateToken.of("bot.secret", "bot", "read"))
        owner.execute(CreateToken.of("old.secret", "old", "read", expires_at=1))
    options = {"endpoint": daemon.endpoint, "timeout_ms": REFUSED_MS}
    for token in ("old.secret", "new.secret"):
        with pytest.raises(Unauthenticated, match=f"does not know the token '{token[:3]}'") as caught:
            ask(client_class, token=token, **options)
        assert not caught.value.retryable
        assert "secret" not in caught.value.message
    with pytest.raises(Unavailable, match="the token is wrong"):
        ask(client_class, token="bot.other", **options)
    with pytest.raises(Unavailable, match="answered 'invalid'"):
        ask(client_class, token="a b.secret", **options)
    assert ask(client_class, endpoint=daemon.endpoint, token="bot.secret").pong


@each_client
def test_what_are_no_curve_keys_is_said_to_be_so(client_class: Any) -> None:
    """The error is about the keys, not about the address."""
    for key in ("x", "é" * 40, "\udcff"):
        with pytest.raises(Invalid, match="are not CURVE keys"):
            ask(client_class, endpoint="curve://127.0.0.1:9", token="a.b", curve=Curve(key, key, key))


@each_client
@pytest.mark.parametrize("token", ["\udcff", "a\n", "x" * 257])
def test_what_cannot_be_a_token_is_refused(client_class: Any, token: str) -> None:
    """Before anything is connected, and without quoting it."""
    with pytest.raises(Invalid, match="must be printable text") as caught:
        ask(client_class, endpoint="tcp://127.0.0.1:9", token=token)
    assert token not in caught.value.message


def test_a_daemon_starts_where_a_client_has_its_token(
    start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`BACKSCROLL_TOKEN` is a variable of clients and no unknown setting."""
    monkeypatch.setenv("BACKSCROLL_TOKEN", "x")
    daemon = start_daemon()
    assert ask(Client, data_dir=daemon.data_dir).pong


def test_the_start_token_is_in_one_private_file(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """It is in `endpoint.json` with mode 0600, and in no output, log line or other file of the daemon."""
    daemon = start_daemon(*TCP, "--log-level", "debug")
    token = daemon.token
    assert token is not None
    with Client(data_dir=daemon.data_dir) as client:
        client.execute(save_message(1))
        assert client.ask(GetMessageById("m1")) is not None
    assert "token" not in daemon.ready
    assert (daemon.data_dir / "endpoint.json").stat().st_mode & 0o777 == 0o600
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holding == [daemon.data_dir / "endpoint.json"]
    daemon.stop()
    assert token not in (tmp_path / "daemon.log").read_text()


def test_the_proof_is_what_the_protocol_says(start_daemon: StartDaemon) -> None:
    """HMAC-SHA-256, keyed with the token's SHA-256, of prefix, nonce and endpoints, a line each."""
    daemon = start_daemon(*TCP)
    nonce = "00112233445566778899aabbccddeeff"
    with Peer(daemon.endpoint) as peer:
        result = peer.ask("hello", {"nonce": nonce})["result"]
    key = hashlib.sha256((daemon.token or "").encode()).digest()
    said = "\n".join(["backscroll-hello", nonce, daemon.endpoint]).encode()
    assert result == {"proof": hmac.new(key, said, "sha256").hexdigest(), "endpoints": [daemon.endpoint]}
    assert Hello(nonce).wire_name == "hello"


def test_vector_of_the_protocol_page() -> None:
    """The example in PROTOCOL.md is right."""
    page = (Path(__file__).parents[2] / "schema" / "PROTOCOL.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if '"token": "bot.' in line)
    vector = json.loads(line)
    key = hashlib.sha256(vector["token"].encode()).digest()
    said = "\n".join(["backscroll-hello", vector["nonce"], *vector["endpoints"]]).encode()
    assert vector["proof"] == hmac.new(key, said, "sha256").hexdigest()
