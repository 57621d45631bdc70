"""Clearing a room in a daemon: the reply comes at once, and its messages are removed while others go on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    AppendLog,
    Batch,
    ClearRoomMessages,
    CompactScope,
    GetLog,
    GetMessageById,
    GetMessages,
    GetRows,
    GetScopeInfo,
)
from tests.support.messages import save_message
from tests.support.notes import say
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
BATCH, BATCH_LONG = 50, 1_000
MESSAGES, MESSAGES_LONG = 3_000, 200_000
KILLS, KILLS_LONG = 4, 20
SECRET = "nobody may find this"


def fill(client: Client, long: bool) -> None:
    """Save messages of the room r1, one of them alone, the others in batches."""
    client.execute(save_message("alone", SECRET))
    number, batch = (MESSAGES_LONG, BATCH_LONG) if long else (MESSAGES, BATCH)
    for first in range(0, number, batch):
        client.execute(Batch.of(save_message(at, f"{SECRET} {at}") for at in range(first, first + batch)))


def is_removed(client: Client) -> bool:
    return client.execute(GetScopeInfo()).purging == 0


@contextmanager
def saving(endpoint: str) -> Iterator[list[float]]:
    """Save to another room until the end of the block; yields the seconds that each save took."""
    ended, times = threading.Event(), list[float]()

    def save() -> None:
        with Client(endpoint) as client:
            while not ended.is_set():
                started = time.monotonic()
                client.execute(save_message(f"other {len(times)}", room_id="r2"))
                times.append(time.monotonic() - started)

    thread = threading.Thread(target=save)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def test_a_large_room_is_cleared_while_others_save(start_daemon: StartDaemon, long: bool) -> None:
    """From the reply on nothing of it is read; other saves go on, and in the end all is removed."""
    daemon = start_daemon()
    with Client(daemon.endpoint, timeout_ms=120_000) as client:
        fill(client, long)
        with saving(daemon.endpoint) as times:
            wait_until(lambda: len(times) > 20)
            before = len(times)
            started = time.monotonic()
            client.execute(ClearRoomMessages("r1"))
            answered = time.monotonic() - started
            assert client.ask(GetMessages("r1")) == []
            assert client.ask(GetMessageById("m1")) is None
            wait_until(partial(is_removed, client), 600)
            took, during = time.monotonic() - started, sorted(times[before:])
        assert client.execute(GetScopeInfo()).rows["messages"] == len(times)
    p99 = during[int(len(during) * 0.99)]
    say(f"answered in {answered * 1e3:.1f} ms, removed in {took:.1f} s; {len(during)} saves, p99 {p99 * 1e3:.1f} ms")


def test_the_removal_survives_kills(tmp_path: Path, start_daemon: StartDaemon, long: bool) -> None:
    """It is finished after the last start by itself; no byte of the room is left after compact-scope, and a replay of
    the log gives equal rows.
    """
    daemon = start_daemon()
    with Client(daemon.endpoint, timeout_ms=120_000) as client:
        fill(client, long)
        client.execute(ClearRoomMessages("r1"))
        client.execute(save_message(7, "new"))
    kills = 0
    for _ in range(KILLS_LONG if long else KILLS):
        daemon.kill()
        daemon = start_daemon()
        with Client(daemon.endpoint) as client:
            kills += not is_removed(client)
            assert [message.id for message in client.ask(GetMessages("r1"))] == ["m7"]
    assert kills
    with Client(daemon.endpoint, timeout_ms=120_000) as client:
        wait_until(partial(is_removed, client), 600)
        client.execute(CompactScope())
        assert client.execute(GetScopeInfo()).rows["messages"] == 1
        files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
        with Client(daemon.endpoint, scope="copy", timeout_ms=120_000) as copy:
            seq = 1
            while entries := client.ask(GetLog(seq)).entries:
                for entry in entries:  # each may have a thousand commands
                    copy.execute(AppendLog([entry]))
                seq = entries[-1].seq + 1
            wait_until(partial(is_removed, copy), 600)
            assert copy.ask(GetRows("messages")).rows == client.ask(GetRows("messages")).rows
