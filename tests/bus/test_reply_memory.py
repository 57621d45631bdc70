"""The memory of a real daemon while clients ask for more than fits into a reply."""

from pathlib import Path

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import Batch, GetMessagePage, GetMessages, ListUsers, SaveUser, User
from tests.support.messages import save_message
from tests.support.peers import Peer, Reply, peak_resident_bytes

MIB = 2**20
MESSAGES = 60
USERS = 12
LISTS = 64


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
