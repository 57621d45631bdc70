"""A disk that saves have filled can be freed: queries go on, data can be removed, and then saves go on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.reserve import RESERVE_FILE
from backscroll.bus.sqlite.scopes import OPENING_BYTES
from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.messages import save_payload
from tests.support.mounts import fill, small_disk_at
from tests.support.peers import Peer

MIB = 2**20
DISK_BYTES = 64 * MIB
TEXT = "x" * 400_000
ROOMS = tuple(f"r{number}" for number in range(16))
IN_FLIGHT = 8

Acknowledged = dict[str, set[str]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 64 MB of its own."""
    with small_disk_at(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


def save_until_full(peer: Peer, room_ids: tuple[str, ...] = ROOMS, begin: int = 0) -> tuple[Acknowledged, Any]:
    """Save messages in these rooms, many at once and at last one by one, until one is refused: those that were
    acknowledged, and the error.
    """
    acknowledged: Acknowledged = {room_id: set() for room_id in room_ids}
    at_once, number = IN_FLIGHT, begin
    while True:
        sent = range(number, number + at_once)
        for number in sent:
            payload = save_payload(number, TEXT, room_ids[number % len(room_ids)])
            peer.request("save-message", payload, request_id=f"s{number}")
        replies = peer.replies(at_once)
        for number in sent:
            if replies[f"s{number}"]["ok"]:
                acknowledged[room_ids[number % len(room_ids)]].add(f"m{number}")
        number = sent.stop
        refused = [reply["error"] for reply in replies.values() if not reply["ok"]]
        if refused and at_once == 1:
            return acknowledged, refused[-1]
        at_once = 1 if refused else at_once


def messages_in(peer: Peer, room_id: str) -> set[str]:
    found: set[str] = set()
    cursor: dict[str, str] = {}
    while True:
        page = peer.ask("get-message-page", {"roomId": room_id, "limit": 10, **cursor})["result"]
        found |= {message["id"] for message in page["messages"] if not message.get("isDeleted")}
        if not page["hasOlder"]:
            return found
        cursor = {"before": page["olderCursor"]}


def test_a_disk_filled_by_saves_can_be_freed(disk: Path, tmp_path: Path) -> None:
    """The refusal is `storage`, and queries go on, also after a restart on the full disk; deletions, `compact-scope`
    and then saves succeed. All that was acknowledged is there.
    """
    data_dir, endpoint = disk / "data", f"ipc://{tmp_path}/s"
    with (tmp_path / "log").open("w") as log:
        with DaemonProcess(data_dir, "--endpoint", endpoint, log=log) as daemon, Peer(endpoint) as peer:
            assert all(peer.ask("save-room", {"room": {"id": each, "name": each}})["ok"] for each in ROOMS)
            acknowledged, error = save_until_full(peer)
            assert (error["code"], error["retryable"]) == ("storage", True)
            assert "disk is full" in error["message"]
            assert sum(map(len, acknowledged.values())) > 40
            assert {each: messages_in(peer, each) for each in ROOMS} == acknowledged
            daemon.kill()
        with DaemonProcess(data_dir, "--endpoint", endpoint, log=log), Peer(endpoint) as peer:
            assert {each: messages_in(peer, each) for each in ROOMS} == acknowledged
            health = peer.ask("health")["result"]
            assert not health["ready"]
            removed = min(acknowledged["r0"])
            for operation, payload in (
                ("delete-message", {"messageId": removed}),
                ("delete-room", {"roomId": "r1"}),
                *(("clear-room-messages", {"roomId": room_id}) for room_id in ROOMS if room_id != "r3"),
                ("compact-scope", {}),
            ):
                reply = peer.ask(operation, payload)
                assert reply["ok"], (operation, reply)
            assert peer.ask("save-message", save_payload(9_000, TEXT, "r0"))["ok"]
            assert messages_in(peer, "r3") == acknowledged["r3"]
            assert peer.ask("health")["result"]["ready"]
            assert (data_dir / RESERVE_FILE).exists()
            more, error = save_until_full(peer, ("r0",), 10_000)
            assert error["code"] == "storage"
            assert len(more["r0"]) > 10
            assert peer.ask("delete-message", {"messageId": "m9000"})["ok"]


def test_saves_go_on_in_the_room_of_what_was_deleted(disk: Path, tmp_path: Path) -> None:
    """Where a compact copy has no room, `compact-scope` says how much it needs; the pages of what was deleted are used
    without it, until there are no more, again and again.
    """
    data_dir, endpoint = disk / "data", f"ipc://{tmp_path}/s"
    with (
        (tmp_path / "log").open("w") as log,
        DaemonProcess(data_dir, "--endpoint", endpoint, log=log),
        Peer(endpoint) as peer,
    ):
        acknowledged, _ = save_until_full(peer)
        error = peer.ask("compact-scope")["error"]
        assert (error["code"], error["retryable"]) == ("storage", True)
        assert "bytes for a copy" in error["message"]
        for begin in (10_000, 20_000):
            for room_id in ROOMS[1:5]:
                assert (reply := peer.ask("clear-room-messages", {"roomId": room_id}))["ok"], reply
            more, error = save_until_full(peer, ROOMS[1:5], begin)
            assert error["code"] == "storage"
            assert sum(map(len, more.values())) >= 3
            assert {each: messages_in(peer, each) for each in ROOMS[1:5]} == more
        assert messages_in(peer, "r0") == acknowledged["r0"]


def test_a_start_on_a_full_disk_serves_queries(disk: Path, tmp_path: Path) -> None:
    """Without a free byte, and nothing left to give up, queries are answered, also from the log of a daemon that was
    killed; commands get `storage`. Clients find the daemon. Once there is room, commands are executed without a
    restart.
    """
    data_dir = disk / "data"
    flags = ("--reserve-bytes", "0")
    with (tmp_path / "log").open("w") as log:
        with DaemonProcess(data_dir, *flags, log=log) as daemon, Peer(daemon.endpoint) as peer:
            assert peer.ask("save-message", save_payload(1))["ok"]
            assert peer.ask("save-message", save_payload(1), scope="s")["ok"]
            daemon.kill()
        for left in data_dir.rglob("*-shm"):
            left.unlink()
        filler = fill(disk)
        with DaemonProcess(data_dir, *flags, log=log) as daemon, Peer(daemon.endpoint) as peer:
            for scope in ("default", "s", "s"):
                [message] = peer.ask("get-messages", {"roomId": "r1"}, scope=scope)["result"]
                assert message["id"] == "m1"
                for operation, payload in (("save-message", save_payload(2)), ("delete-message", {"messageId": "m1"})):
                    error = peer.ask(operation, payload, scope=scope)["error"]
                    assert (error["code"], error["retryable"]) == ("storage", True), error
                    assert "disk is full" in error["message"]
            health = peer.ask("health")["result"]
            assert not health["ready"]
            assert "the disk is full" in health["storage"]["state"]
            filler.write_bytes(bytes(filler.stat().st_size - 4 * OPENING_BYTES))
            for scope in ("default", "s"):
                assert peer.ask("save-message", save_payload(2), scope=scope)["seq"] == 2
                assert len(peer.ask("get-messages", {"roomId": "r1"}, scope=scope)["result"]) == 2
            assert peer.ask("health")["result"]["ready"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sum("a database is read only" in line["event"] for line in lines) == 2
