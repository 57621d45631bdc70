"""bus/due_times.py and the daemon's loop: messages are deleted when they expire, not at the next chores."""

from collections.abc import Callable
from pathlib import Path

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.due_times import SCOPES_MAX, DueTimes
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import DELETED_TEXT, GetLog, GetMessageById, GetRows
from tests.support.messages import save_message
from tests.support.peers import Peer
from tests.support.shifted_daemon import ShiftedDaemon
from tests.support.waiting import wait_until

NEVER = ("--chores-ms", str(10**9))
HOUR_MS = 3_600_000
StartDaemon = Callable[..., DaemonProcess]


def expired(client: Client) -> list[str]:
    """The messages whose text is no longer stored, by a query that has nothing deleted."""
    return [str(row["id"]) for row in client.ask(GetRows("messages")).rows if row["is_deleted"]]


def test_messages_are_deleted_when_they_expire(start_daemon: StartDaemon) -> None:
    """The loop wakes at the earliest time, also where a later save has an earlier one, and again for the next."""
    with Client(start_daemon(*NEVER).endpoint) as client:
        now = wall_clock_ms()
        client.execute(save_message(1, expires_at=now + HOUR_MS))
        client.execute(save_message(2, expires_at=now + 600))
        client.execute(save_message(3, expires_at=now + 300))
        wait_until(lambda: "m3" in expired(client))
        wait_until(lambda: expired(client) == ["m2", "m3"])
        assert wall_clock_ms() >= now + 600
        assert "delete-expired-messages" in {entry.type for entry in client.ask(GetLog()).entries}


def test_the_first_query_after_a_start_waits_for_the_deletion(start_daemon: StartDaemon) -> None:
    """What expired while the daemon was stopped is never shown, though many queries arrive at once."""
    daemon = start_daemon(*NEVER)
    with Client(daemon.endpoint) as client, Client(daemon.endpoint, scope="ada") as other:
        expires_at = wall_clock_ms() + 700
        for each in (client, other):
            each.execute(save_message(1, "secret", expires_at=expires_at))
        daemon.stop()
    wait_until(lambda: wall_clock_ms() > expires_at)
    with Peer(start_daemon(*NEVER).endpoint) as peer:
        for scope in ("default", "ada", "unknown") * 10:
            peer.request("get-message-by-id", {"messageId": "m1"}, scope=scope)
        contents = [(reply["result"] or {}).get("content") for reply in peer.replies(30).values()]
        assert sorted(contents, key=bool) == [*[None] * 10, *[DELETED_TEXT] * 20]
        assert peer.ask("get-log", {}, scope="ada")["result"]["lastSeq"] == 2


def test_nothing_expires_after_the_clock_jumped_forward(tmp_path: Path) -> None:
    """Then a message is shown rather than lost; when the clock is right again it is still there."""
    with ShiftedDaemon(tmp_path / "data", *NEVER) as daemon, Client(daemon.endpoint) as client:
        client.execute(save_message(1, "stays", expires_at=wall_clock_ms() + HOUR_MS))
        daemon.ahead_ms(24 * HOUR_MS)
        for _ in range(3):
            found = client.ask(GetMessageById("m1"))
            assert found is not None
            assert found.content == "stays"
        assert "the clock jumped forward" in daemon.log.read_text(encoding="utf-8")
        daemon.ahead_ms(0)
        assert expired(client) == []


def test_due_times_are_the_earliest_of_all_scopes() -> None:
    """What is taken is forgotten, whoever notes an earlier time is heard, and not more than some are remembered."""
    times, heard = DueTimes(), []
    times.on_earlier = lambda: heard.append(times.next_at)
    assert times.take(10**15) == []
    for scope, at in (("a", 50), ("b", 70), ("b", 40), ("b", 60), ("c", None)):
        times.note(scope, at)
    assert heard == [50, 40]
    assert times.next_at == 50
    assert times.take(49) == []
    assert times.take(60) == ["a", "b"]
    assert times.next_at is None
    for number in range(SCOPES_MAX + 10):
        times.note(f"s{number}", 1_000 + number)
    assert len(times.take(10**15)) == SCOPES_MAX
