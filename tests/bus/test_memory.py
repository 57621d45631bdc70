"""Memory: whatever clients send or leave unread, the daemon stays under one bound, and others are served."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backscroll.clients.python import Client
from backscroll.clients.python.address import announced_token
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import BackscrollError, GetMessageById, GetRoom, NoReply
from backscroll.schema.limits import FRAME_BYTES_MAX
from tests.support.floods import MORE, connected, frame, is_admitted, is_cut, sending
from tests.support.handlers import replacing
from tests.support.messages import save_message
from tests.support.peers import Peer, resident_bytes, running, several
from tests.support.requests import body
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
MIB = 2**20
RESIDENT_BYTES_MAX = 400_000_000
"""The bound that bus/DESIGN.md states."""


class Peak:
    """The highest resident memory of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = 0

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            with suppress(OSError, ValueError):
                self.bytes = max(self.bytes, resident_bytes(self._pid))

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Target(NamedTuple):
    """A daemon, one of its endpoints, and what requests to that have in their envelope."""

    pid: int
    endpoint: str
    data_dir: Path
    envelope: dict[str, str]

    def client(self, timeout_ms: int = 20_000) -> Client:
        return Client(self.endpoint, data_dir=self.data_dir, timeout_ms=timeout_ms)


def target(daemon: DaemonProcess, data_dir: Path, endpoint: str) -> Target:
    token = announced_token(data_dir, endpoint) if endpoint.startswith("tcp") else None
    return Target(daemon.process.pid, endpoint, data_dir, {"auth": token} if token else {})


@pytest.fixture(params=["ipc", "tcp"])
def served(request: pytest.FixtureRequest, start_daemon: StartDaemon, tmp_path: Path) -> Target:
    """A daemon on each transport."""
    daemon = start_daemon() if request.param == "ipc" else start_daemon("--endpoint", "tcp://127.0.0.1:*")
    return target(daemon, tmp_path / "data", daemon.endpoint)


def serves(served: Target, seconds: float) -> None:
    """Save and query for some time; each request is answered promptly."""
    until, at = time.monotonic() + seconds, 0
    with served.client(timeout_ms=5_000) as client:
        while time.monotonic() < until:
            at += 1
            client.ask(GetRoom(f"room {at}"))
            if at % 10 == 0:
                client.execute(save_message(f"served {time.monotonic_ns()}"))


@pytest.mark.parametrize(
    ("number", "first", "piece", "times"),
    [
        pytest.param(2, b"", frame(MIB, MORE) + bytes(MIB), None, id="endless"),
        pytest.param(2, b"", b"\x01\x00" * 200_000, None, id="empty-frames"),
        pytest.param(24, frame(FRAME_BYTES_MAX), bytes(MIB), FRAME_BYTES_MAX // MIB - 2, id="half-sent"),
    ],
)
def test_unfinished_messages_are_bounded(
    served: Target, number: int, first: bytes, piece: bytes, times: int | None, long: bool
) -> None:
    """Their senders are cut off before they take too much memory; a client that sends nothing for a while, and one that
    works, are not harmed.
    """
    with Peak(served.pid) as peak, served.client() as idle:
        idle.execute(save_message(1))
        with sending(served.endpoint, number, piece, first=first, times=times):
            serves(served, 60 if long else 1.5)
        assert idle.ask(GetMessageById("m1")) is not None
    assert peak.bytes < RESIDENT_BYTES_MAX


def test_tcp_connections_that_hold_nothing_are_never_cut_off(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """However much memory there is: one that only greeted, and one that is silent after complete messages. One that
    has sent a part of a message is cut off.
    """
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*", "--memory-bytes", "1")
    ping = body("ping", auth=announced_token(tmp_path / "data", daemon.endpoint))
    with closing(connected(daemon.endpoint)) as greeted, closing(connected(daemon.endpoint)) as silent:
        wait_until(partial(is_admitted, silent))
        silent.sendall((bytes([0, len(ping)]) + ping) * 1_000)
        for _ in range(5):
            with closing(connected(daemon.endpoint)) as sender:
                sender.sendall(frame(MIB) + bytes(MIB // 2))
                wait_until(partial(is_cut, sender))
        wait_until(partial(is_over, time.monotonic() + 1))
        assert not is_cut(greeted)
        assert not is_cut(silent)


def test_a_client_that_waits_for_its_reply_is_not_cut_off(tmp_path: Path) -> None:
    """Also over ipc, where nothing tells what it holds, when all that are silent have been cut off."""
    begun, door = threading.Event(), threading.Event()

    def waits(_query: GetRoom, _db: Any) -> None:
        begun.set()
        assert door.wait(60)

    with running(tmp_path / "data", handlers=replacing({GetRoom: waits})) as daemon, Peer(daemon.endpoint) as peer:
        peer.request("get-room", {"roomId": "r1"}, request_id="waits")
        assert begun.wait(20)  # a connection whose first message is not read yet may be cut off
        memory = daemon.daemon._memory
        memory._bytes_max = 1
        wait_until(lambda: memory._silent_next_at > time.monotonic() + 10)
        door.set()
        assert peer.reply()["id"] == "waits"


def is_over(at: float) -> bool:
    return time.monotonic() > at


@pytest.mark.parametrize(("number", "limit"), [(8, 7), (40, 4)])
def test_replies_that_nobody_reads_are_bounded(served: Target, number: int, limit: int, long: bool) -> None:
    """Clients pipeline 64 pages of megabytes each and read none; others get theirs meanwhile."""
    with served.client() as client:
        for at in range(70):
            client.execute(save_message(at, "x" * MIB))

    def ask_for_pages(peer: Peer, pages: range) -> None:
        for at in pages:
            page = {"roomId": "r1", "limit": limit, "offset": at % 64}
            peer.request("get-messages", page, **served.envelope)

    with Peak(served.pid) as peak, several(served.endpoint, number, queue=1) as peers:
        for at, peer in enumerate(peers):
            ask_for_pages(peer, range(at, at + 64))
        serves(served, 60 if long else 1.5)
        with Peer(served.endpoint) as reader:
            ask_for_pages(reader, range(5))
            assert all(reply["ok"] for reply in reader.replies(5).values())
    assert peak.bytes < RESIDENT_BYTES_MAX


def test_small_replies_that_nobody_reads_are_bounded(served: Target) -> None:
    """Their bytes are counted as well, not only their number."""
    with served.client() as client:
        client.execute(save_message(1, "x" * 50_000))
    with Peak(served.pid) as peak, several(served.endpoint, 30, queue=1) as peers:
        for peer in peers:
            for _ in range(1_200):
                peer.request("get-message-by-id", {"messageId": "m1"}, **served.envelope)
        serves(served, 1.5)
    assert peak.bytes < RESIDENT_BYTES_MAX


def test_a_client_that_reads_slowly_gets_everything(start_daemon: StartDaemon) -> None:
    """Replies that had no room are computed again, and come once each, in order."""
    daemon = start_daemon("--client-reply-bytes", str(3 * MIB))
    with Client(daemon.endpoint) as client:
        for at in range(4):
            client.execute(save_message(at, "x" * MIB))
    with Peer(daemon.endpoint, queue=1) as slow:
        for at in range(64):
            slow.request("get-messages", {"roomId": "r1", "limit": 1 + at % 2, "offset": at % 3}, request_id=f"{at}")
        order = []
        for _ in range(64):
            reply = slow.reply()
            assert reply["ok"]
            order.append(reply["id"])
            time.sleep(0.005)
        assert order == [str(at) for at in range(64)]
        assert slow.silent(50)


SERVE_WITH_MEMORY = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["backscroll.bus", *sys.argv[2:]]
runpy.run_module("backscroll.bus", run_name="__main__", alter_sys=True)
"""


def test_no_acknowledged_message_is_lost_when_memory_is_refused(tmp_path: Path, start_daemon: StartDaemon) -> None:
    """With an address space that is too small for the load the daemon may end, and what it acknowledged is there."""
    data_dir = tmp_path / "data"
    endpoint = f"ipc://{tmp_path}/refused.sock"
    command = [sys.executable, "-c", SERVE_WITH_MEMORY, str(900 * MIB), "--data-dir", str(data_dir)]
    process = subprocess.Popen([*command, "--endpoint", endpoint], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline()
    acknowledged = []
    with (
        sending(endpoint, 30, bytes(MIB), first=frame(FRAME_BYTES_MAX), times=FRAME_BYTES_MAX // MIB - 2),
        Client(endpoint, timeout_ms=1_000) as client,
    ):
        until = time.monotonic() + 2
        for at in range(10_000):
            if time.monotonic() > until or process.poll() is not None:
                break
            with suppress(NoReply, BackscrollError):
                client.execute(save_message(at, "x" * 10_000))
                acknowledged.append(f"m{at}")
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert acknowledged
    with Client(start_daemon().endpoint) as client:
        for name in random.Random(1).sample(acknowledged, min(200, len(acknowledged))) + acknowledged[-20:]:
            assert client.ask(GetMessageById(name)) is not None


class Mixed:
    """Clients of one endpoint that do everything at once until a time; `failures` is what must not happen."""

    def __init__(self, served: Target, until: float) -> None:
        self._served = served
        self._until = until
        self.failures: list[str] = []

    def _numbers(self) -> Iterator[int]:
        at = 0
        while time.monotonic() < self._until:
            at += 1
            yield at

    def read(self) -> None:
        with Peer(self._served.endpoint) as peer:
            for at in self._numbers():
                page = {"roomId": "r1", "limit": 1 + at % 7, "offset": at % 30}
                peer.request("get-messages", page, **self._served.envelope)
                peer.request("get-messages", {"roomId": f"r{at}"}, scope=f"scope {at % 30}", **self._served.envelope)
                replies = peer.replies(2).values()
                self.failures += [str(each) for each in replies if not each["ok"] and not each["error"]["retryable"]]

    def write(self) -> None:
        with self._served.client() as client:
            for at in self._numbers():
                content = "x" * (MIB if at % 10 == 0 else 1_000)
                client.execute(save_message(f"{self._served.endpoint} {at}", content, f"r{at % 50}"))

    def come_and_go(self) -> None:
        for at in self._numbers():
            with several(self._served.endpoint, 3, queue=1) as peers:
                for peer in peers:
                    for offset in range(20):
                        page = {"roomId": "r1", "limit": 6, "offset": offset}
                        peer.request("get-messages", page, **self._served.envelope)
                with sending(self._served.endpoint, 2, bytes(MIB), first=frame(FRAME_BYTES_MAX), times=at % 30):
                    peers[0].silent(500)


def test_a_mixed_load_is_bounded(start_daemon: StartDaemon, tmp_path: Path, long: bool) -> None:
    """Pages that are read and that are not, large and small saves, unfinished messages, many scopes, clients that come
    and go; for ten minutes in the long form.
    """
    daemon = start_daemon("--endpoint", f"ipc://{tmp_path}/mixed.sock", "--endpoint", "tcp://127.0.0.1:*")
    until = time.monotonic() + (600 if long else 4)
    loads = [Mixed(target(daemon, tmp_path / "data", endpoint), until) for endpoint in daemon.endpoints]
    with Client(daemon.endpoint) as client, Peak(daemon.process.pid) as peak:
        for at in range(40):
            client.execute(save_message(at, "x" * MIB))
        work = [work for load in loads for work in (load.read, load.read, load.write, load.come_and_go)]
        threads = [threading.Thread(target=each) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.ask(GetMessageById("m1")) is not None
    assert [load.failures for load in loads] == [[], []]
    assert peak.bytes < RESIDENT_BYTES_MAX
