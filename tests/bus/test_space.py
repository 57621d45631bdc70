"""Bounds on scopes and on the disk: what adds is refused there, what removes is executed, and `health` says why."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.directory import locked
from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.bus.reserve import RESERVE_FILE, Reserve
from backscroll.bus.sqlite.scopes import Space, SqliteScopes
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.operations import OPERATIONS, Administration
from backscroll.schema.wire import DEFAULT_SCOPE, JSON
from tests.support.messages import save_payload
from tests.support.mounts import fill, small_disk_at
from tests.support.peers import Peer, resident_bytes
from tests.support.requests import body, example, send
from tests.support.status import status_of

MIB = 2**20
DISK_BYTES = 24 * MIB

Reply = dict[str, Any]


def files_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


# Queries


def test_queries_create_no_scope(tmp_path: Path) -> None:
    """Queries, `get-scope-info`, and operations that remove a scope's data create no files and remember no name; the
    replies are those of an empty scope.
    """
    with InProcess(tmp_path / "data") as transport:
        before, listed = files_in(tmp_path / "data"), transport.scopes.names()
        for name, operation in sorted(OPERATIONS.items()):
            if issubclass(operation, Administration) or name == "list-scopes":
                continue  # about no scope
            if name.startswith(("get-", "list-", "is-", "delete-scope", "compact-scope")):
                for number in range(3):
                    reply = send(transport, body(name, example(operation), scope=f"{name} {number}"))
                    assert (reply["seq"] == 0) if reply["ok"] else (reply["error"]["code"] == "not-found"), reply
        assert files_in(tmp_path / "data") == before
        assert transport.scopes.names() == listed
        info = send(transport, body("get-scope-info", {}, scope="nobody"))["result"]
        assert (info["bytes"], set(info["rows"].values())) == (0, {0})


def test_queries_of_new_scopes_take_no_memory(start_daemon: Any) -> None:
    """After the first thousands of names, others add nothing: they are not remembered."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:

        def ask_about(names: range) -> int:
            for first in names[::100]:
                for number in range(first, first + 100):
                    peer.request("get-all-rooms", scope=f"new {number}")
                assert all(reply["ok"] for reply in peer.replies(100).values())
            return resident_bytes(daemon.process.pid)

        before = ask_about(range(3_000))
        assert ask_about(range(3_000, 11_000)) - before < 8 * MIB


def test_a_query_sees_a_scope_as_soon_as_it_exists(start_daemon: Any) -> None:
    """The empty scope is left as soon as a command was acknowledged, and entered again after `delete-scope`."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for _ in range(3):
            assert peer.ask("get-messages", {"roomId": "r1"}, scope="s")["result"] == []
            assert peer.ask("save-message", save_payload(1), scope="s")["seq"] == 1
            assert len(peer.ask("get-messages", {"roomId": "r1"}, scope="s")["result"]) == 1
            assert peer.ask("delete-scope", {}, scope="s")["ok"]


# Settings


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[Any]:
    """Opens a dispatcher with bounds."""
    with ExitStack() as stack:

        def open_with(space: Space) -> Any:
            stack.enter_context(locked(tmp_path / "data"))
            scopes = stack.enter_context(closing(SqliteScopes(tmp_path / "data", space=space)))
            scopes.open(DEFAULT_SCOPE)
            dispatcher = Dispatcher(scopes, status_of(scopes))

            def ask(operation: str, payload: Any = None, **envelope: Any) -> Reply:
                reply = dispatcher.answer(body(operation, {} if payload is None else payload, **envelope))
                return JSON.decode(reply, Reply)

            return ask

        yield open_with


def test_the_number_of_scopes_is_bounded(bounded: Any) -> None:
    """At the bound new scopes are refused with words; existing ones are used, and a deleted one makes room."""
    ask = bounded(Space(scopes_max=3))
    for name in ("a", "b", "c"):
        assert ask("save-message", save_payload(1), scope=name)["ok"]
    for operation, payload in (("save-message", save_payload(1)), ("delete-message", {"messageId": "m1"})):
        error = ask(operation, payload, scope="d")["error"]
        assert (error["code"], error["retryable"]) == ("storage", False)
        assert "scopes_max is 3" in error["message"]
    assert ask("save-message", save_payload(2), scope="a")["ok"]
    assert ask("list-scopes")["result"] == ["a", "b", "c", "default"]
    assert ask("delete-scope", scope="b")["ok"]
    assert ask("save-message", save_payload(1), scope="d")["ok"]
    assert not ask("save-message", save_payload(1), scope="b")["ok"]


@pytest.mark.parametrize("space", [Space(scope_bytes=2 * MIB), Space(data_bytes=4 * MIB)])
def test_at_a_bound_only_what_removes_is_executed(bounded: Any, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that add are refused with words, also in a batch; retries of earlier ones are answered; queries,
    deletions and `compact-scope` succeed, and then there is room again.
    """
    monkeypatch.setattr("backscroll.bus.sqlite.scopes.MEASURE_SECONDS", 0)
    ask = bounded(space)
    replies = [ask("save-message", save_payload(number, "x" * 50_000), id=f"s{number}") for number in range(200)]
    done = [reply["ok"] for reply in replies].index(False)
    assert 10 < done < 150
    assert not any(reply["ok"] for reply in replies[done:])
    error = replies[-1]["error"]
    assert (error["code"], error["retryable"]) == ("storage", False)
    assert "delete what is not needed" in error["message"]
    assert ask("save-message", save_payload(0, "x" * 50_000), id="s0") == replies[0]
    save, delete = (
        {"type": "save-message", "payload": save_payload(1)},
        {"type": "delete-message", "payload": {"messageId": "m1"}},
    )
    assert ask("batch", {"commands": [delete, save]})["error"]["code"] == "storage"
    assert ask("batch", {"commands": [delete]})["ok"]
    assert len(ask("get-messages", {"roomId": "r1"})["result"]) > 10
    assert ask("clear-room-messages", {"roomId": "r1"})["ok"]
    assert ask("compact-scope")["ok"]
    assert ask("save-message", save_payload(1000))["ok"]


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a small disk of its own."""
    with small_disk_at(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


def test_a_full_disk_lets_data_be_removed(small_disk: Path, tmp_path: Path) -> None:
    """Commands that add get `storage`, and `health` is not ready and says why; deletions and `compact-scope` succeed,
    also after a start on the full disk. When there is room again, everything does, and the reserve is made again.
    """
    data_dir, endpoint = small_disk / "data", f"ipc://{tmp_path}/s"
    flags = ("--endpoint", endpoint, "--reserve-bytes", str(4 * MIB))
    with (tmp_path / "log").open("w") as log:
        with DaemonProcess(data_dir, *flags, log=log) as daemon, Peer(endpoint) as peer:
            for number in range(100):
                assert peer.ask("save-message", save_payload(number, "x" * 20_000))["ok"]
            assert peer.ask("update-message", {"messageId": "m0", "updates": {"roomId": "r2"}})["ok"]
            assert peer.ask("health")["result"]["ready"]
            filler = fill(small_disk)
            check_full(peer)
            daemon.kill()
        with DaemonProcess(data_dir, *flags, log=log), Peer(endpoint) as peer:
            check_full(peer)
            assert not (data_dir / RESERVE_FILE).exists()
            assert peer.ask("delete-message", {"messageId": "m2"})["ok"]
            assert peer.ask("clear-room-messages", {"roomId": "r1"})["ok"]
            assert (reply := peer.ask("compact-scope"))["ok"], reply
            filler.unlink()
            assert peer.ask("save-message", save_payload(1_000))["ok"]
            health = peer.ask("health")["result"]
            assert (health["ready"], health["storage"]["state"]) == (True, "ok")
            assert (data_dir / RESERVE_FILE).stat().st_size == 4 * MIB
    assert (tmp_path / "log").read_text().count("the reserve was given up") >= 1


def look_at_once(reserve: Reserve, number: int) -> None:
    """Ask so many times at the same moment whether the disk is full."""
    start = threading.Barrier(number)

    def look() -> None:
        start.wait()
        reserve.is_full()

    threads = [threading.Thread(target=look) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_reserve_is_made_again_once(tmp_path: Path) -> None:
    """Threads that find at the same time that there is room again: one makes the reserve, and none removes it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for number in range(100):
            (tmp_path / f"{number}").mkdir()
            reserve = Reserve(tmp_path / f"{number}", 65_536)
            reserve.give_up()
            look_at_once(reserve, 4)
            assert not reserve.full
            assert (tmp_path / f"{number}" / RESERVE_FILE).stat().st_size == 65_536
    finally:
        sys.setswitchinterval(before)


def test_a_disk_that_fills_up_while_serving(small_disk: Path, tmp_path: Path) -> None:
    """The first deletion on a full disk gets the reserve, also together with commands that do not fit."""
    data_dir, endpoint = small_disk / "data", f"ipc://{tmp_path}/s"
    with (tmp_path / "log").open("w") as log:
        flags = ("--endpoint", endpoint, "--reserve-bytes", str(4 * MIB))
        with DaemonProcess(data_dir, *flags, log=log), Peer(endpoint) as peer:
            for number in range(20):
                assert peer.ask("save-message", save_payload(number, room_id="r2"))["ok"]
            fill(small_disk)
            for number in range(100):
                peer.request("save-message", save_payload(1_000 + number, "x" * 50_000), request_id=f"s{number}")
                peer.request("delete-message", {"messageId": f"m{number % 20}"}, request_id=f"d{number}")
            replies = peer.replies(200)
            assert [number for number in range(20) if not replies[f"d{number}"]["ok"]] == []
            assert not replies["s99"]["ok"]
            assert peer.ask("delete-scope", {})["ok"]
            assert not peer.ask("get-messages", {"roomId": "r2"})["result"]


def check_full(peer: Peer) -> None:
    """What adds is refused, and `health` says so."""
    for number in range(200, 400):
        reply = peer.ask("save-message", save_payload(number, "x" * 50_000))
        if not reply["ok"]:
            break
    error = reply["error"]
    assert (error["code"], error["retryable"]) == ("storage", True)
    assert "disk is full" in error["message"]
    health = peer.ask("health")["result"]
    assert not health["ready"]
    assert "the disk is full" in health["storage"]["state"]
    assert len(peer.ask("get-messages", {"roomId": "r2"})["result"]) == 1
