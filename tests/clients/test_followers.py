"""Programs in other languages that follow the feed over the raw protocol, through kills and restarts of the daemon.

`node/follow.mjs` and `go/follow.go` need nothing but their standard libraries. Where `node` or `go` is missing their
test is skipped, except where `CI` is set: there it fails. Go compiles its standard library once, in 15 to 20 seconds.
"""

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, Self

import pytest

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.listing import items_of
from backscroll.schema import DeleteScope, GetLog, GetMembers, RemoveMember, Room, RoomMember, SaveMember, SaveRoom
from tests.support.messages import save_message
from tests.support.tools import tool_path
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
IPC, TCP = (), ("--endpoint", "tcp://127.0.0.1:*")
LIVES = (IPC, TCP, TCP)  # the endpoint of each daemon; over tcp each has another port and another token
MANY_LIVES = (IPC, IPC, TCP, TCP) * 5
WRITERS, SAVES, MOST_SAVES = 4, 80, 10_000  # SAVES of all writers before each kill, at most MOST_SAVES of each
PAGE, BUILD_SECONDS = 500, 240

StartDaemon = Callable[..., DaemonProcess]
Line = dict[str, Any]


@pytest.fixture(scope="session")
def node_follower() -> list[str]:
    return [tool_path("node"), str(HERE / "node" / "follow.mjs")]


@pytest.fixture(scope="session")
def go_follower(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The program, built without a network, a C compiler or another toolchain than the one that is installed."""
    go, program = tool_path("go"), tmp_path_factory.mktemp("go") / "follow"
    settings = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=HERE / "go",
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [str(program)]


@pytest.mark.parametrize("language", ["node", "go"])
def test_a_follower_sees_each_change_once_through_kills(
    language: str, request: pytest.FixtureRequest, start_daemon: StartDaemon, tmp_path: Path, long: bool
) -> None:
    """Through kills while others save, and new ports, each save is printed once and in order, and no change is missing.

    When the scope is deleted, the follower reads the room anew and goes on.
    """
    command = request.getfixturevalue(f"{language}_follower")
    first, *later = MANY_LIVES if long else LIVES
    daemon = start_daemon(*first)
    with Client(data_dir=daemon.data_dir) as client, Follower(command, daemon.data_dir, tmp_path) as follower:
        wait_until(lambda: len(follower.lines()) == 2)
        assert follower.lines()[0] == {"shown": [], "gap": False}
        client.execute(SaveRoom(Room(id="r1", name="Room")))
        with Writers(daemon.data_dir) as writers:
            for flags in later:
                _await_progress(writers, follower)
                daemon.kill()
                daemon = start_daemon(*flags)
            _await_progress(writers, follower)

        client.execute(save_message("last"))
        wait_until(lambda: follower.changes()[-1]["id"] == "last")
        _check_changes(follower.changes(), [*writers.acknowledged, "last"], client)
        client.execute(DeleteScope())
        wait_until(lambda: {"shown": [], "gap": True} in follower.lines())
        client.execute(save_message("anew"))
        wait_until(lambda: follower.changes()[-1]["id"] == "anew")


class Follower:
    """A program that follows the room `r1`, and the JSON lines it has printed."""

    def __init__(self, command: list[str], data_dir: Path, directory: Path) -> None:
        self._output = directory / "followed.jsonl"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen([*command, str(data_dir), "r1"], stdout=output)

    def size(self) -> int:
        return self._output.stat().st_size

    def lines(self) -> list[Line]:
        text, _, _ = self._output.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in text.splitlines()]

    def changes(self) -> list[Line]:
        return [line for line in self.lines() if "seq" in line]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Writers:
    """Threads that save messages and members until the end of the `with` block, and resend what is not answered."""

    def __init__(self, data_dir: Path) -> None:
        self.acknowledged: list[str] = []  # the ids of messages
        self._data_dir = data_dir
        self._stop = Event()
        self._pool = ThreadPoolExecutor(WRITERS)
        self._running = [self._pool.submit(self._write, number) for number in range(WRITERS)]

    def _write(self, number: int) -> None:
        with Client(data_dir=self._data_dir) as client:
            for count in range(MOST_SAVES):
                if self._stop.is_set():
                    return
                name = f"{number}-{count}"
                client.execute(save_message(name))
                self.acknowledged.append(name)
                if count % 10 == 0:
                    client.execute(SaveMember("r1", RoomMember(oder_id=name)))
                if count % 20 == 0:
                    client.execute(RemoveMember("r1", name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for running in self._running:
            running.result()
        self._pool.shutdown()


def _await_progress(writers: Writers, follower: Follower) -> None:
    """Wait until writers and follower have gone on with this daemon."""
    acknowledged, size = len(writers.acknowledged), follower.size()
    wait_until(lambda: len(writers.acknowledged) >= acknowledged + SAVES and follower.size() > size)


def _check_changes(changes: list[Line], acknowledged: list[str], client: Client) -> None:
    """Whether a follower printed what the command log has, in order, and ended at what the room has."""
    seqs = [change["seq"] for change in changes]
    assert seqs == sorted(set(seqs))
    messages = [(change["seq"], change["id"]) for change in changes if change["noun"] == "message"]
    assert messages == _saved_messages(client)
    assert sorted(name for _, name in messages) == sorted(acknowledged)
    members = {change["id"]: change["gone"] for change in changes if change["noun"] == "member"}
    stored = {member.oder_id for member in items_of(client, GetMembers("r1"), limit=PAGE)}
    assert {name for name, gone in members.items() if not gone} == stored
    assert len(members) > len(stored) > 0


def _saved_messages(client: Client) -> list[tuple[int, str]]:
    """The number and the message of each save in the command log."""
    saved, from_seq, last_seq = list[tuple[int, str]](), 1, 1
    while from_seq <= last_seq:
        page = client.ask(GetLog(from_seq, limit=PAGE))
        saved += [(entry.seq, entry.payload["message"]["id"]) for entry in page.entries if entry.type == "save-message"]
        from_seq, last_seq = page.entries[-1].seq + 1, page.last_seq
    return saved
