"""The memory of replies that are made: large results in turn, few that are not sent, lists larger than a reply."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backscroll.bus.dispatch import Request
from backscroll.bus.inprocess import InProcess
from backscroll.bus.reply_memory import MADE_BYTES_MAX, ReplyMemory
from backscroll.bus.workers import Readers
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Batch, GetMessagePage, GetMessages, ListUsers, SaveUser, User
from tests.support.handlers import handler_of, replacing
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer, Reply, peak_resident_bytes, running, several
from tests.support.requests import body
from tests.support.waiting import wait_until

MIB = 2**20
MESSAGES = 60
USERS = 12
LISTS = 64
LARGE = {"roomId": "r1", "limit": 2}


class Made:
    """The handler of `get-messages`, with what was asked for and how many results were being made at once, at most."""

    def __init__(self) -> None:
        self.asked: list[GetMessages] = []
        self.at_once = self.at_once_max = 0
        self.door = threading.Event()

    def __call__(self, query: GetMessages, db: Any) -> Any:
        self.asked.append(query)
        messages = handler_of(GetMessages)(query, db)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        assert self.door.wait(60)
        self.at_once -= 1
        return messages


def test_large_results_are_made_one_at_a_time(tmp_path: Path) -> None:
    """Of pages of megabytes that several clients ask for at once; small queries are answered meanwhile."""
    made = Made()
    with running(tmp_path / "data", handlers=replacing({GetMessages: made})) as daemon, Peer(daemon.endpoint) as other:
        for at in range(2):
            assert other.ask("save-message", save_payload(at, "x" * MIB))["ok"]
        with several(daemon.endpoint, 4) as peers:
            for peer in peers:
                peer.request("get-messages", LARGE)
            wait_until(lambda: len(made.asked) == len(peers) and made.at_once)
            for at in range(50):
                assert other.ask("get-room", {"roomId": f"r{at}"})["ok"]
            assert made.at_once == 1
            made.door.set()
            assert all(peer.reply()["ok"] for peer in peers)
    assert made.at_once_max == 1


@contextmanager
def unsent(transport: InProcess) -> Iterator[tuple[Readers, ReplyMemory, list[list[bytes]]]]:
    """Readers whose replies nobody sends, with large pages asked for by twelve clients."""
    for at in range(2):
        assert b'"ok":true' in transport.dispatcher.answer(body("save-message", save_payload(at, "x" * MIB)))
    memory, delivered, crashes = ReplyMemory(), list[list[bytes]](), list[BaseException]()

    def deliver(_requests: list[Request], replies: list[bytes]) -> None:
        memory.add(replies)
        delivered.append(replies)

    readers = Readers(transport.dispatcher, transport.scopes, 4, deliver, crashes.append, lambda *_: None, memory)
    for at in range(12):
        readers.start([transport.dispatcher.receive(body("get-messages", LARGE), [b"%d" % at])])
    try:
        yield readers, memory, delivered
    finally:
        readers.stop()
    assert not crashes


def test_few_replies_are_made_that_are_not_sent(transport: InProcess) -> None:
    """However slow the loop is: readers go on when it has sent some."""
    with unsent(transport) as (_, memory, delivered):
        for sent in range(12):
            wait_until(lambda: memory.is_full or len(delivered) == 12)
            assert memory.bytes < MADE_BYTES_MAX + len(delivered[-1][0])
            memory.remove(delivered[sent])
        wait_until(lambda: len(delivered) == 12)
    assert memory.bytes == 0


def test_readers_that_wait_for_the_loop_end_with_it(transport: InProcess) -> None:
    """What they had not begun is answered `unavailable`."""
    with unsent(transport) as (readers, memory, delivered):
        wait_until(lambda: memory.is_full)
        readers.stop()
    assert len(delivered) == 12
    assert b'"unavailable"' in delivered[-1][0]


def asked_at_once(daemon: DaemonProcess, peers: int, requests: int, *queries: object) -> list[Reply]:
    """The replies to the same queries from several clients, each of which sends them all before it reads."""
    connected = [Peer(daemon.endpoint) for _ in range(peers)]
    try:
        for peer in connected:
            for _ in range(requests):
                for query in queries:
                    peer.request(query.wire_name, query)  # type: ignore[attr-defined]
        return [reply for peer in connected for reply in peer.replies(requests * len(queries)).values()]
    finally:
        for peer in connected:
            peer.close()


def test_lists_larger_than_a_reply_take_little_memory(tmp_path: Path) -> None:
    """Room-fulls of large messages and long lists, asked for by many at once: the daemon's peak stays small."""
    with DaemonProcess(tmp_path) as daemon, Client(daemon.endpoint) as client:
        for at in range(MESSAGES):
            client.execute(save_message(at, "x" * MIB))
        users = [User(oder_id=f"u{at}", id="u", username="n" * 1_000) for at in range(1_000)]
        for batch in range(USERS):
            named = [User(oder_id=f"{batch}-{user.oder_id}", id="u", username=user.username) for user in users]
            client.execute(Batch.of([SaveUser(user) for user in named]))
        pid = daemon.ready["pid"]
        before = peak_resident_bytes(pid)
        pages = asked_at_once(daemon, 8, 1, GetMessages("r1", limit=500), GetMessagePage("r1", limit=500))
        assert {reply["error"]["code"] for reply in pages if not reply["ok"]} == {"too-large"}
        assert sum(reply["ok"] for reply in pages) == 8
        lists = asked_at_once(daemon, 1, LISTS, ListUsers())
        assert {reply["error"]["code"] for reply in lists} == {"too-large"}
        assert peak_resident_bytes(pid) - before < 200 * MIB  # of 60 MiB and 12 MB in each of 80 replies
