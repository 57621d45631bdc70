"""Isolation of scopes: each scope is a file of its own, and no request reaches another scope's data."""

import hashlib
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql import scopes as scopes_in_postgresql
from backscroll.bus.sqlite import opening, scope_admin
from backscroll.bus.sqlite.errors import wire_error
from backscroll.bus.sqlite.opening import scope_named_in
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.stores import OPEN_MAX
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    AdoptLegacyDatabase,
    BackscrollError,
    Busy,
    Conflict,
    DeleteScope,
    Forbidden,
    GetCurrentUser,
    GetMessageById,
    GetMessages,
    GetScopeInfo,
    Invalid,
    ListScopes,
    Ping,
    PutMedia,
    PutMediaPart,
    Unavailable,
)
from backscroll.schema.migrations.sqlite import migrations
from backscroll.schema.wire import JSON
from tests.support.chosen_store import CHOSEN
from tests.support.disks import FaultyDisk
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer, Reply, resident_bytes
from tests.support.requests import answer_all, body, send
from tests.support.sql import sql
from tests.support.status import status_of
from tests.support.stores import command
from tests.support.tables import all_rows

StartDaemon = Callable[..., DaemonProcess]
MIB = 2**20

LOOK_ALIKES = [
    *(
        "default",
        "Default",
        "DEFAULT",
        "default ",
        "a",
        "A",
        "x",
        "x ",
        "x.",
        " x",
        "\u00e9",
        "e\u0301",
        "ß",
        "ss",
        "ſ",
    ),
    *(".", "..", "../a", "../default", "a/b", "a\\b", "/etc/passwd", "C:\\a", "CON", "con", "NUL.db", "a:b", "a*?"),
    *("a\x01b", "a\x01", "\n", "-", "--help", "%2e%2e", "default.db", "scopes", "'; DROP TABLE scope; --"),
    *("😀", "😀\ufe0f", "\u200b", "x" * 128, "X" * 128, "x" * 127, "é" * 64, "I", "ı", "İ", "i"),
]
"""Names that some file system, or some carelessness, takes for each other or for something else."""


def files_of(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def database_of(data_dir: Path, scope: str) -> Path:
    return data_dir / "scopes" / f"{hashlib.sha256(scope.encode()).hexdigest()}.db"


def clients(endpoint: str, *names: str) -> list[Client]:
    return [Client(endpoint, scope=name) for name in names]


@pytest.fixture
def scopes(tmp_path: Path) -> Iterator[SqliteScopes]:
    """The scopes of a directory, without a daemon."""
    (tmp_path / "data").mkdir()
    with closing(SqliteScopes(tmp_path / "data")) as scopes:
        yield scopes


def write(scopes: SqliteScopes, name: str, key: str) -> None:
    """Execute one command in a scope, as a writer does."""
    with scopes.use(name) as store, store.write() as transaction, command(transaction):
        transaction.run(sql("INSERT INTO meta (key, value) VALUES (:key, 'null')"), key=key)


def keys(scopes: SqliteScopes, name: str) -> list[str]:
    with scopes.use(name) as store, store.read() as snapshot:
        return [row[0] for row in snapshot.rows(sql("SELECT key FROM meta ORDER BY key"))]


# Isolation


KINDS = ("save", "save", "save", "edit", "delete", "page", "one", "missing", "count", "user", "ping")


class Resident:
    """One client of a scope, with the scope's mark in every id and text; it checks every reply it gets.

    Its request ids are the same as those of its counterpart in the other scope.
    """

    def __init__(self, scope: str, mark: str, number: int, seed: int) -> None:
        self.scope, self.mark, self.number = scope, mark, number
        self.draw = random.Random(f"{seed}-{mark}-{number}")
        self.room = f"room-{mark}-{number}"
        self.texts: dict[str, str] = {}
        self.requests = self.commands = self.highest_seq = self.most_messages = 0

    def work(self, endpoint: str, forbidden: bytes, requests: int) -> None:
        """Send a number of requests, many at a time; no reply may contain `forbidden`."""
        with Peer(endpoint) as peer:
            while self.requests < requests:
                sent = {f"{self.number}-{self.requests}": self.step() for _ in range(self.draw.randrange(1, 40))}
                for request_id, (operation, payload) in sent.items():
                    peer.request(operation, payload, request_id=request_id, scope=self.scope)
                for _ in sent:
                    frame = peer.frames()[-1]
                    assert forbidden not in frame.upper(), frame
                    reply = JSON.decode(frame, dict[str, Any])
                    self.check(sent[reply["id"]][0], reply)

    def step(self) -> tuple[str, Any]:
        """The next request; its expected effect is recorded."""
        self.requests += 1
        kind, known = self.draw.choice(KINDS), sorted(self.texts)
        if kind == "save" or not known:
            message_id = f"id-{self.room}-{self.requests}"
            text = self.texts[message_id] = f"text {self.mark} {self.draw.random()}"
            return "save-message", save_payload(message_id, text, self.room, timestamp=0)
        message_id = self.draw.choice(known)
        if kind == "edit":
            text = self.texts[message_id] = f"edit {self.mark} {self.draw.random()}"
            return "update-message", {"messageId": message_id, "updates": {"content": text}}
        if kind == "delete":
            del self.texts[message_id]
            return "delete-message", {"messageId": message_id}
        return {
            "page": ("get-messages", {"roomId": self.room, "limit": 50}),
            "one": ("get-message-by-id", {"messageId": message_id}),
            "missing": ("delete-message", {"messageId": f"missing-{self.mark}"}),
            "count": ("get-scope-info", {}),
            "user": ("save-user", {"user": {"oderId": f"user-{self.mark}", "id": "u", "username": self.mark}}),
            "ping": ("ping", {}),
        }[kind]

    def check(self, operation: str, reply: Reply) -> None:
        """Record the numbers in a reply; the only error is that of a missing message."""
        if not reply["ok"]:
            assert (operation, reply["error"]["code"]) == ("delete-message", "not-found")
            return
        self.highest_seq = max(self.highest_seq, reply["seq"])
        self.commands += operation.startswith(("save", "update", "delete"))
        if operation == "get-scope-info":
            assert reply["result"]["scope"] == self.scope
            assert reply["result"]["rows"]["users"] <= 1
            self.most_messages = max(self.most_messages, reply["result"]["rows"]["messages"])


PAIRS = [("alpha", "beta"), ("a", "A"), ("\u00e9", "e\u0301"), ("x", "x "), ("..", "../a"), ("default", "Default")]


@pytest.mark.parametrize("names", PAIRS, ids=repr)
def test_scopes_are_isolated_under_load(start_daemon: StartDaemon, long: bool, names: tuple[str, str]) -> None:
    """Two clients in each of two scopes send thousands of random requests: no reply has an id, a text, an error or a
    count of the other scope, and each scope ends as its own clients left it.
    """
    seed, requests = random.randrange(2**32), 40_000 if long else 1_500
    sys.stdout.write(f"seed {seed}\n")
    daemon = start_daemon()
    marks = dict(zip(names, ("ALPHA", "BETA"), strict=True))
    forbidden = dict(zip(names, (b"BETA", b"ALPHA"), strict=True))
    residents = [Resident(scope, marks[scope], number, seed) for scope in names for number in range(2)]
    together(*(lambda each=each: each.work(daemon.endpoint, forbidden[each.scope], requests) for each in residents))
    for scope in names:
        mine = [each for each in residents if each.scope == scope]
        # Numbers of commits and rows are a scope's own, too: they count only its commands.
        assert max(each.highest_seq for each in mine) == sum(each.commands for each in mine), f"seed {seed}"
        with Client(daemon.endpoint, scope=scope) as client:
            rows = client.execute(GetScopeInfo()).rows
            stored = {each.room: content_of(client, each.room) for each in mine}
        assert max(each.most_messages for each in mine) <= rows["messages"]
        assert stored == {each.room: each.texts for each in mine}, f"seed {seed}"
    sys.stdout.write(f"{names}: {sum(each.requests for each in residents)} requests\n")


def content_of(client: Client, room: str) -> dict[str, str]:
    """The texts of a room by id, without deleted messages, read page by page."""
    found: dict[str, str] = {}
    while page := client.ask(GetMessages(room, limit=500, offset=len(found))):
        found |= {each.id: each.content for each in page}
    return {message_id: text for message_id, text in found.items() if text != "[Message deleted]"}


def together(*works: Callable[[], None]) -> None:
    """Run functions in threads to their end; the first error is raised."""
    with ThreadPoolExecutor(len(works)) as threads:
        for end in [threads.submit(work) for work in works]:
            end.result()


def test_similar_names_are_different_scopes(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Names that some file system would confuse keep separate data, also over a restart."""
    daemon = start_daemon()
    for at, name in enumerate(LOOK_ALIKES):
        with Client(daemon.endpoint, scope=name) as client:
            client.execute(save_message("m1", f"content {at}"))
            client.execute(save_message(f"only {at}"))
    daemon.stop()
    daemon = start_daemon()
    for at, name in enumerate(LOOK_ALIKES):
        with Client(daemon.endpoint, scope=name) as client:
            stored = {each.id: each.content for each in client.ask(GetMessages("r1"))}
            assert stored == {"m1": f"content {at}", f"only {at}": "hello"}
            info = client.execute(GetScopeInfo())
            assert (info.scope, info.rows["messages"]) == (name, 2)
    with Client(daemon.endpoint) as client:
        assert client.execute(ListScopes()) == sorted(LOOK_ALIKES)


def test_file_names_of_scopes_are_safe_on_every_file_system(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Files are named by hash: lower case, short, and inside the data directory."""
    outside = files_of(tmp_path)
    daemon = start_daemon()
    for name in LOOK_ALIKES:
        with Client(daemon.endpoint, scope=name) as client:
            client.execute(save_message("m1"))
            client.execute(PutMediaPart(name.encode()))
    daemon.stop()
    made = files_of(tmp_path) - outside - {"daemon.log"}
    assert {path.split("/")[0] for path in made} == {"data"}
    databases = [path for path in made if path.endswith(".db")]
    assert len(databases) == len(LOOK_ALIKES)
    assert len({path.casefold() for path in made}) == len(made)
    assert {path for path in made if path != path.lower() or not path.isascii() or len(path) > 200} == set()
    assert {path for path in databases if Path(path).parent.name != "scopes"} == {"data/default.db"}


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        *(("x" * 129, "too-large"), ("é" * 65, "too-large")),
        *(("", "invalid"), ("a\x00b", "invalid"), (None, "invalid"), (1, "invalid")),
    ],
)
@pytest.mark.parametrize("operation", ["ping", "get-all-rooms", "initialize", "get-scope-info", "delete-scope"])
def test_an_invalid_scope_name_creates_no_file(
    transport: InProcess, tmp_path: Path, operation: str, scope: object, code: str
) -> None:
    """A scope's name is text of 1 to 128 bytes without NUL; everything else is refused by its path, for every kind of
    request.
    """
    before = files_of(tmp_path)
    error = send(transport, body(operation, {}, scope=scope))["error"]
    assert (error["code"], error["details"]["path"]) == (code, "$.scope")
    assert files_of(tmp_path) == before


def test_a_clients_requests_keep_their_order_across_scopes(start_daemon: StartDaemon) -> None:
    """A socket that uses several scopes in turn gets its replies in the order of its requests, and each query sees the
    client's earlier commands.
    """
    daemon = start_daemon()
    draw = random.Random(5)
    saved: dict[str, int] = {}
    expected: list[tuple[str, int, int | None]] = []
    with Peer(daemon.endpoint) as peer:
        for at in range(1_500):
            scope = draw.choice("abc")
            if draw.random() < 0.5:
                saved[scope] = saved.get(scope, 0) + 1
                peer.request("save-message", save_payload(at, scope), request_id=str(at), scope=scope)
                expected.append((str(at), saved[scope], None))
            else:
                peer.request("get-scope-info", {}, request_id=str(at), scope=scope)
                expected.append((str(at), saved.get(scope, 0), saved.get(scope, 0)))
        replies = [peer.reply() for _ in expected]
    seen = [
        (reply["id"], reply["seq"], reply["result"]["rows"]["messages"] if reply["result"] else None)
        for reply in replies
    ]
    assert seen == expected


# Many scopes


class Size(NamedTuple):
    """The resources of a daemon process."""

    files: int
    threads: int
    mib: int


def size_of(daemon: DaemonProcess) -> Size:
    process = Path(f"/proc/{daemon.process.pid}")
    return Size(
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        resident_bytes(daemon.process.pid) // MIB,
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_many_scopes_use_bounded_resources(start_daemon: StartDaemon) -> None:
    """Files, threads and memory stay bounded when 300 scopes are used one after the other."""
    daemon = start_daemon()
    names = [f"account {at}" for at in range(300)]
    sizes = {0: size_of(daemon)}
    with Peer(daemon.endpoint) as peer:
        for at, name in enumerate(names, start=1):
            for number in range(5):
                peer.request("save-message", save_payload(number, name * 50), request_id=f"s{number}", scope=name)
                peer.request("get-messages", {"roomId": "r1"}, request_id=f"g{number}", scope=name)
            replies = peer.replies(10)
            assert [each["content"] for each in replies["g4"]["result"]] == [name * 50] * 5
            if at in (1, OPEN_MAX, 50, 100, 200, 300):
                sizes[at] = size_of(daemon)
        health = peer.ask("health")["result"]
        listed = peer.ask("list-scopes")["result"]
    numbers = "; ".join(
        f"{at} scopes: {size.files} files, {size.threads} threads, {size.mib} MiB" for at, size in sizes.items()
    )
    sys.stdout.write(numbers + "\n")
    assert listed == sorted(["default", *names])
    open_max = scopes_in_postgresql.OPEN_MAX if CHOSEN.is_postgresql else OPEN_MAX
    assert health["scopesOpen"] <= open_max, numbers
    at_most, last = sizes[50], sizes[300]
    assert last.files <= at_most.files + 10, numbers
    assert last.files < 25 + OPEN_MAX * 12, numbers
    assert last.threads <= sizes[0].threads + 4 + 8, numbers  # writers and readers, created as needed
    assert last.mib <= at_most.mib + 16, numbers


# Listing scopes


def test_only_the_default_scope_can_list_scopes(transport: InProcess) -> None:
    """`list-scopes` in another scope is `forbidden`, and the error names no scope."""
    for name in ("one", "two"):
        Client(transport=transport, scope=name).execute(save_message("m1"))
    assert Client(transport=transport).execute(ListScopes()) == ["default", "one", "two"]
    with pytest.raises(Forbidden) as caught:
        Client(transport=transport, scope="one").execute(ListScopes())
    assert caught.value.details == {"path": "$.scope"}
    assert "two" not in str(caught.value)


def test_list_scopes_includes_closed_scopes(start_daemon: StartDaemon) -> None:
    """The names are in the files: more scopes than can be open are listed, also by the next daemon."""
    names = [f"n{at}" for at in range(2 * OPEN_MAX)]
    daemon = start_daemon()
    for client in clients(daemon.endpoint, *names):
        with client:
            client.execute(save_message("m1"))
    for _ in range(2):
        with Client(daemon.endpoint) as client:
            assert client.execute(ListScopes()) == sorted(["default", *names])
        daemon.stop()
        daemon = start_daemon()


def test_a_scope_is_listed_after_a_kill_at_its_first_command(start_daemon: StartDaemon) -> None:
    """The next daemon knows its name before it is used again."""
    names: list[str] = []
    for at in range(4):
        daemon = start_daemon()
        names.append(f"killed {at}")
        with Client(daemon.endpoint, scope=names[-1]) as client:
            client.execute(save_message("m1"))
        daemon.kill()
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        assert client.execute(ListScopes()) == sorted(["default", *names])
    for name in names:
        with Client(daemon.endpoint, scope=name) as client:
            assert client.ask(GetMessageById("m1")) is not None


def test_the_name_can_be_read_after_a_partial_checkpoint(tmp_path: Path) -> None:
    """Wherever a crash stops a checkpoint, the database file still has the name of its scope."""
    disk = FaultyDisk()
    disk.only = ".db"
    path = tmp_path / "scope.db"
    with closing(SqliteStore(path, scope="mine", vfs=disk.name)) as store:
        for at in range(200):
            with store.write() as transaction, command(transaction):
                transaction.run(
                    sql("INSERT INTO meta (key, value) VALUES (:key, :value)"), key=f"{at}", value="x" * 4_000
                )
        for writes in range(1, 100, 7):
            disk.writes_until_full = writes
            with pytest.raises(apsw.FullError):
                store.checkpoint_fully()
            disk.writes_until_full, disk.full = None, False
            shutil.copy(path, tmp_path / "copy.db")
            assert scope_named_in(tmp_path / "copy.db") == "mine", f"after {writes} writes"


def test_scope_info_counts_only_its_own_scope(transport: InProcess, tmp_path: Path) -> None:
    """Bytes with media, rows by table, and the schema version; other scopes do not change them."""
    mine, other = (Client(transport=transport, scope=name) for name in ("mine", "other"))
    empty = mine.execute(GetScopeInfo())
    assert (empty.scope, empty.schema_version) == ("mine", transport.scopes.admin("mine", {}).schema_version)
    assert set(empty.rows.values()) == {0}
    assert empty.bytes == 0
    other.execute(save_message("m1"))
    other.execute(PutMediaPart(b"x" * MIB))
    assert mine.execute(GetScopeInfo()).rows == empty.rows
    mine.execute(save_message("m1"))
    part = mine.execute(PutMediaPart(b"y" * MIB))
    mine.execute(PutMedia(parts=[part], mime="text/plain"))
    filled = mine.execute(GetScopeInfo())
    assert {name: count for name, count in filled.rows.items() if count} == {
        "messages": 1,
        "media": 1,
        "media_parts": 1,
        "commands": 3,
    }
    assert MIB <= filled.bytes < 3 * MIB
    on_disk = {path for path in (tmp_path / "data").rglob("*") if database_of(tmp_path, "mine").stem in str(path)}
    assert filled.bytes == sum(path.stat().st_size for path in on_disk if path.is_file())


# Deleting scopes


def test_a_deleted_scope_is_removed_and_starts_empty(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Database, WAL and media are removed; used again the scope is empty, at seq 1."""
    data_dir = tmp_path / "data"
    daemon = start_daemon()
    mine, other = clients(daemon.endpoint, "mine", "other")
    with mine, other:
        for client in (mine, other):
            client.execute(save_message("m1", "a secret of somebody"))
            client.execute(PutMedia(parts=[client.execute(PutMediaPart(b"a secret file"))], mime="text/plain"))
        assert mine.execute(DeleteScope()) is None
        stem = database_of(data_dir, "mine").stem
        assert {path for path in files_of(data_dir) if stem in path} == set()
        assert not (data_dir / "scopes" / f"{stem}.media").exists()
        with Client(daemon.endpoint) as default:
            assert default.execute(ListScopes()) == ["default", "other"]
        with Peer(daemon.endpoint) as peer:
            assert peer.ask("ping", scope="mine")["seq"] == 0
            assert peer.ask("get-message-by-id", {"messageId": "m1"}, scope="mine")["result"] is None
            assert peer.ask("save-message", save_payload(2), scope="mine")["seq"] == 1
        info = other.execute(GetScopeInfo())
        assert (info.rows["messages"], info.rows["media"]) == (1, 1)
        mine.execute(DeleteScope())
        mine.execute(DeleteScope())  # there is nothing to delete, which is no error


def test_the_default_scope_can_be_deleted(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """It is empty afterwards, and can be used at once and by the next daemon."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        client.execute(save_message("m1"))
        client.execute(DeleteScope())
        left = list((tmp_path / "data").glob("default.db*"))
        assert [(each.name, each.stat().st_size) for each in left] == [("default.db", 0)]
        assert client.ask(Ping()).pong
        assert client.ask(GetMessages("r1")) == []
        client.execute(DeleteScope())
    daemon.stop()
    with Client(start_daemon().endpoint) as client:
        client.execute(save_message("m2"))
        assert [each.id for each in client.ask(GetMessages("r1"))] == ["m2"]


def test_requests_during_deletions_are_all_answered(start_daemon: StartDaemon) -> None:
    """While a scope is deleted again and again, every request gets a reply; what is left is what was saved after the
    last deletion, and another scope loses nothing.
    """
    daemon = start_daemon()
    seqs: dict[str, list[int]] = {"mine": [], "other": []}
    ends = [0, 0, 0]  # the greatest seq of each client in its last round, after the last deletion
    deleted = threading.Event()

    def work(scope: str, number: int) -> None:
        first, ended = 0, False
        with Peer(daemon.endpoint) as peer:
            while not ended:
                ended = deleted.is_set() and first >= 450
                for at in range(first, first + 50):
                    save_id = f"s{number}-{at}"
                    peer.request("save-message", save_payload(f"m{number}-{at}"), request_id=save_id, scope=scope)
                    peer.request("get-messages", {"roomId": "r1", "limit": 5}, request_id=f"g{at}", scope=scope)
                first += 50
                replies = peer.replies(100)
                assert all(reply["ok"] for reply in replies.values()), replies
                saved = [reply["seq"] for name, reply in replies.items() if name[0] == "s"]
                seqs[scope].extend(saved)
                ends[number] = max(saved)

    def delete() -> None:
        try:
            with Peer(daemon.endpoint) as peer:
                for _ in range(20):
                    assert peer.ask("delete-scope", scope="mine")["ok"]
                    assert peer.ask("save-message", save_payload("mark"), scope="mine")["ok"]
        finally:
            deleted.set()

    together(lambda: work("mine", 0), lambda: work("mine", 1), lambda: work("other", 2), delete)
    with Client(daemon.endpoint, scope="mine") as client:
        left = client.execute(GetScopeInfo()).rows["messages"]
    assert left < len(seqs["mine"])
    assert left == max(ends[:2])
    assert sorted(seqs["other"]) == list(range(1, len(seqs["other"]) + 1))
    with Client(daemon.endpoint, scope="other") as client:
        assert client.execute(GetScopeInfo()).rows["messages"] == len(seqs["other"])


# Opening and closing


def test_idle_scopes_are_closed_without_losing_data(scopes: SqliteScopes) -> None:
    """An idle scope has no open file; the next use finds all its data, and its numbers continue."""
    scopes.open("default")
    for round_ in range(3):
        for name in ("a", "b"):
            write(scopes, name, f"{round_}")
        scopes.close_idle(0)
        assert list(scopes.open_stores()) == ["default"]
        assert scopes.seq("a") == round_ + 1
        assert not database_of(scopes.directory, "a").with_suffix(".db-wal").exists()
    assert keys(scopes, "a") == keys(scopes, "b") == ["0", "1", "2"]
    assert scopes.seq("a") == 3


def test_a_scope_in_use_is_not_closed(scopes: SqliteScopes) -> None:
    """However long it is in use, and however many other scopes are opened meanwhile."""
    with scopes.use("busy") as store:
        for at in range(2 * OPEN_MAX):
            write(scopes, f"n{at}", "k")
        scopes.close_idle(0)
        assert scopes.open_stores() == {"busy": store}
    assert len(scopes.open_stores()) == 1


def test_background_work_does_not_keep_a_scope_open(scopes: SqliteScopes) -> None:
    """The daemon's own work does not count as use, and does not open a scope."""
    write(scopes, "a", "k")
    before = scopes.scope_named("a").last_used
    with scopes.borrow_if_open("a") as store:
        assert store is not None
    dispatcher = Dispatcher(scopes, status_of(scopes))
    dispatcher.run_chores("a")
    assert scopes.scope_named("a").last_used == before
    scopes.close_idle(0)
    with scopes.borrow_if_open("a") as store:
        assert store is None
    dispatcher.run_chores("a")
    dispatcher.checkpoint("a")
    assert scopes.open_stores() == {}


def test_chores_and_checkpoints_do_not_count_as_use(scopes: SqliteScopes) -> None:
    """After its chores a writer checks whether a checkpoint is due, and the scope still becomes idle."""
    write(scopes, "a", "k")
    before = scopes.scope_named("a").last_used
    dispatcher = Dispatcher(scopes, status_of(scopes))
    dispatcher.run_chores("a")
    dispatcher.checkpoint("a")
    assert scopes.scope_named("a").last_used == before


def test_a_scope_file_is_never_opened_twice(tmp_path: Path, long: bool) -> None:
    """Threads use, close and exclusively lock scopes at random: a file has one store at any time, no thread blocks for
    ever, and every write is there at the end.
    """
    (tmp_path / "data").mkdir()
    disk = CountingDisk()
    scopes = SqliteScopes(tmp_path / "data", vfs=disk.name)
    names = ["a", "b", "c", *(f"n{at}" for at in range(OPEN_MAX + 2))]
    writers = {name: threading.Lock() for name in names}  # as in a daemon: one writer for each scope
    written: dict[str, list[str]] = {name: [] for name in names}
    until = time.monotonic() + (30 if long else 3)

    dispatcher = Dispatcher(scopes, status_of(scopes))

    def write_one(name: str, key: str) -> None:
        with writers[name]:
            write(scopes, name, key)
            dispatcher.checkpoint(name)
            written[name].append(key)

    def read_one(name: str) -> None:
        before = len(written[name])
        assert len(keys(scopes, name)) >= before

    def have_exclusively(name: str) -> None:
        with scopes.exclusive(name) as scope:
            assert scope.store is None
            assert disk.open_now(scope.path) == 0

    def work(number: int) -> None:
        draw, at = random.Random(number), 0
        while time.monotonic() < until:
            at += 1
            name = draw.choice(names[:3] if draw.random() < 0.6 else names)
            act = draw.choice(["write", "write", "write", "read", "read", "exclude", "close idle"])
            if act == "close idle":
                scopes.close_idle(0)
                scopes.interrupt_readers()
            elif act == "write":
                write_one(name, f"{number}-{at}")
            else:
                with suppress(apsw.InterruptError):
                    (read_one if act == "read" else have_exclusively)(name)

    errors: list[BaseException] = []
    threads = [threading.Thread(target=catching(errors, work), args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, until - time.monotonic()) + 60)
    assert not any(thread.is_alive() for thread in threads), "some thread waits for ever"
    assert errors == []
    assert disk.most_writers == 1
    assert {name: keys(scopes, name) for name in names} == {name: sorted(done) for name, done in written.items()}
    scopes.close()
    assert scopes.open_stores() == {}


def catching(errors: list[BaseException], work: Callable[[int], None]) -> Callable[[int], None]:
    """A thread's function that appends its error to a list, because the test may have to give up waiting for the
    thread.
    """

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    return run


class CountingDisk(apsw.VFS):
    """Counts who has a database file open: a store opens it once with CREATE, its readers without."""

    def __init__(self) -> None:
        self.name = f"counting-{id(self)}"
        self.lock = threading.Lock()
        self.open: dict[str, int] = {}
        self.writers: dict[str, int] = {}
        self.most_writers = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _Counted(self, name, flags)

    def open_now(self, path: Path) -> int:
        return self.open.get(str(path), 0)

    def count(self, path: str, by: int, *, writer: bool) -> None:
        with self.lock:
            self.open[path] = self.open.get(path, 0) + by
            if writer:
                self.writers[path] = self.writers.get(path, 0) + by
                self.most_writers = max(self.most_writers, self.writers[path])


class _Counted(apsw.VFSFile):
    def __init__(self, disk: CountingDisk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.path = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self.is_database = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        self.is_writer = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        super().__init__("", name, flags)
        if self.is_database:
            disk.count(self.path, 1, writer=self.is_writer)

    def xClose(self) -> None:  # noqa: N802
        super().xClose()
        if self.is_database:
            self.is_database = False
            self.disk.count(self.path, -1, writer=self.is_writer)


def test_a_failure_to_close_a_scope_fails_no_command(tmp_path: Path) -> None:
    """When closing one scope fails, the command of another scope that caused it is durable and acknowledged."""
    disk = FaultyDisk()
    names = [f"n{at}" for at in range(OPEN_MAX + 4)]
    with InProcess(tmp_path / "data", vfs=disk.name) as transport:
        for name in names:
            assert send(transport, body("save-message", save_payload(1), scope=name))["ok"]
        closed = [name for name in names if name not in transport.scopes.open_stores()]
        assert closed
        disk.only, disk.full = ".db", True  # so that no checkpoint can succeed
        for name in closed:
            assert send(transport, body("save-message", save_payload(2), scope=name))["seq"] == 2
        assert len(transport.scopes.open_stores()) == OPEN_MAX
        disk.full = False
        for name in names:
            stored = send(transport, body("get-messages", {"roomId": "r1"}, scope=name))["result"]
            assert [each["id"] for each in stored] == (["m1", "m2"] if name in closed else ["m1"])


def test_a_scope_locked_by_another_process_is_busy(scopes: SqliteScopes) -> None:
    """A closed scope whose file another process writes cannot be opened for the moment, and the error is retryable."""
    write(scopes, "a", "k")
    scopes.close_idle(0)
    with closing(apsw.Connection(str(database_of(scopes.directory, "a")))) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(SqliteScopes(scopes.directory, lock_wait_ms=20)) as again:
            with pytest.raises(CannotOpen) as caught:
                again.open("a")
            error = wire_error(caught.value)
            assert error is not None
            assert (error.code, error.retryable) == ("busy", True)
    assert keys(scopes, "a") == ["k"]


def test_an_invalid_command_creates_no_scope(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Neither a file nor a name in the list is left."""
    with Peer(start_daemon().endpoint) as peer:
        for name, payload in (
            ("save-message", {"nonsense": 1}),
            ("create-user", {"pubkey": 7}),
            ("delete-scope", {"x": 7}),
        ):
            assert peer.ask(name, payload, scope="ghost")["error"]["code"] == "invalid"
        assert peer.ask("list-scopes")["result"] == ["default"]
        assert not list((tmp_path / "data").glob("scopes/*"))


def test_creating_a_scope_on_a_full_disk_is_retryable(tmp_path: Path) -> None:
    """It succeeds once there is space again."""
    disk = FaultyDisk()
    with InProcess(tmp_path / "data", vfs=disk.name) as transport:
        disk.full = True
        error = send(transport, body("save-message", save_payload(1), scope="new"))["error"]
        assert (error["code"], error["retryable"]) == ("storage", True)
        disk.full = False
        assert send(transport, body("save-message", save_payload(1), scope="new"))["seq"] == 1


@pytest.mark.parametrize("target", ["other", "never used"])
def test_a_scope_refuses_the_file_of_another_scope(start_daemon: StartDaemon, tmp_path: Path, target: str) -> None:
    """Exchanged files are never served: the error is `storage`, without name or content of the other scope, and the
    owner does not get an empty scope either.
    """
    data_dir = tmp_path / "data"
    daemon = start_daemon()
    owner, other = clients(daemon.endpoint, "owner", "other")
    with owner, other:
        owner.execute(save_message("m1", "the owner's secret"))
        other.execute(save_message("m1"))
    daemon.stop()
    before = database_of(data_dir, "owner").read_bytes()
    database_of(data_dir, "owner").rename(database_of(data_dir, target))
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for operation, payload in [
            ("get-messages", {"roomId": "r1"}),
            ("save-message", save_payload(1)),
            ("get-scope-info", {}),
        ]:
            reply = peer.ask(operation, payload, scope=target)
            assert reply["error"]["code"] == "storage"
            assert "owner" not in str(reply)
            assert "secret" not in str(reply)
        assert peer.ask("get-messages", {"roomId": "r1"}, scope="owner")["error"]["code"] == "storage"
    daemon.stop()
    assert database_of(data_dir, target).read_bytes() == before


# Older files


@pytest.fixture(scope="session")
def chat_of_ada(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file of an application with one account, which names no scope: 204 messages in 218 commands."""
    directory = tmp_path_factory.mktemp("chat")
    requests = [body("set-current-user-id", {"userId": "ada"})]
    requests += [body("save-user", {"user": {"oderId": "ada", "id": f"u{at}", "username": "ada"}}) for at in range(13)]
    requests += [body("save-message", save_payload(at, f"content {at}", metadata={"a": at})) for at in range(204)]
    with InProcess(directory) as transport:
        answer_all(transport.dispatcher, list(map(transport.dispatcher.receive, requests)))
    with closing(apsw.Connection(str(directory / "default.db"))) as connection:
        connection.execute("DELETE FROM scope")
    return directory / "default.db"


@pytest.fixture
def legacy(tmp_path: Path, chat_of_ada: Path) -> Path:
    """A file outside the data directory, whose current user is `ada`."""
    (tmp_path / "old").mkdir()
    return Path(shutil.copy(chat_of_ada, tmp_path / "old" / "chat.db"))


def everything(directory: Path) -> dict[str, str]:
    """Every file below a directory, with the hash of its bytes."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_legacy_file_is_adopted_by_its_current_user(start_daemon: StartDaemon, tmp_path: Path, legacy: Path) -> None:
    """All its rows are migrated into the scope, also over a restart; the file itself is unchanged."""
    before, expected = everything(legacy.parent), all_rows(Path(shutil.copy(legacy, tmp_path / "copy.db")))
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        reply = peer.ask("adopt-legacy-database", {"path": str(legacy), "userId": "ada"}, scope="ada")
        assert (reply["ok"], reply["result"], reply["seq"]) == (True, None, 218)
        assert peer.ask("save-message", save_payload("new"), scope="ada")["seq"] == 219
        assert peer.ask("get-messages", {"roomId": "r1"})["result"] == []
    assert everything(legacy.parent) == before
    daemon.stop()
    assert everything(legacy.parent) == before
    rows = all_rows(database_of(tmp_path / "data", "ada"))
    rows["messages"] = [row for row in rows["messages"] if row[0] != "new"]
    rows["commands"] = [row for row in rows["commands"] if row[0] != 219]
    assert {name: rows[name] for name in expected} == expected
    assert not list((tmp_path / "data").glob("adopting-*"))
    daemon = start_daemon()
    with Client(daemon.endpoint, scope="ada") as client:
        user = client.ask(GetCurrentUser())
        assert user is not None
        assert user.oder_id == "ada"
        assert client.execute(GetScopeInfo()).schema_version == len(migrations())
        with pytest.raises(Conflict):
            client.execute(AdoptLegacyDatabase(str(legacy), "ada"))


def test_an_older_file_is_migrated_on_adoption(
    transport: InProcess, legacy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is migrated, and the file itself is not changed."""
    before = everything(legacy.parent)
    steps = [*migrations(), "ALTER TABLE messages ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'"]
    for module in (opening, scope_admin):
        monkeypatch.setattr(module, "migrations", lambda: steps)
    client = Client(transport=transport, scope="ada")
    client.execute(AdoptLegacyDatabase(str(legacy), "ada"))
    assert everything(legacy.parent) == before
    info = client.execute(GetScopeInfo())
    assert (info.schema_version, info.rows["messages"]) == (len(steps), 204)
    with transport.scopes.use("ada") as store, store.read() as snapshot:
        assert snapshot.rows(sql("SELECT DISTINCT mood FROM messages")) == [("calm",)]


Refusal = tuple[type[BackscrollError], str]


def adoption_is_refused(
    transport: InProcess, tmp_path: Path, path: Path | str, refusal: Refusal, *, user_id: str = "ada"
) -> BackscrollError:
    """Check that adopting into the scope `ada` fails with this error and changes no file."""
    client = Client(transport=transport, scope="ada")
    rows = client.execute(GetScopeInfo()).rows
    before = everything(tmp_path)
    with pytest.raises(refusal[0]) as caught:
        client.execute(AdoptLegacyDatabase(str(path), user_id))
    assert type(caught.value) is refusal[0]
    assert caught.value.details == {"path": refusal[1]}
    assert everything(tmp_path) == before
    assert not list((tmp_path / "data").glob("adopting-*"))
    assert client.execute(GetScopeInfo()).rows == rows
    return caught.value


PATH, USER = "$.payload.path", "$.payload.userId"
PROMPT_SECONDS = 2


@pytest.mark.parametrize("user_id", ["bob", "ADA", "ada ", "a", '"ada"'])
def test_only_the_current_user_can_adopt_a_legacy_file(
    transport: InProcess, tmp_path: Path, legacy: Path, user_id: str
) -> None:
    """The error does not name that user."""
    error = adoption_is_refused(transport, tmp_path, legacy, (Forbidden, USER), user_id=user_id)
    assert "ada" not in str(error)


def test_a_legacy_file_without_current_user_is_refused(transport: InProcess, tmp_path: Path, legacy: Path) -> None:
    """A file without a current user cannot be adopted."""
    with closing(apsw.Connection(str(legacy))) as connection:
        connection.execute("DELETE FROM meta")
    adoption_is_refused(transport, tmp_path, legacy, (Forbidden, USER))


def test_a_scope_with_data_cannot_adopt_a_file(transport: InProcess, tmp_path: Path, legacy: Path) -> None:
    """Its data stays as it is."""
    client = Client(transport=transport, scope="ada")
    client.execute(save_message("m1", "mine"))
    adoption_is_refused(transport, tmp_path, legacy, (Conflict, "$.scope"))
    assert [each.content for each in client.ask(GetMessages("r1"))] == ["mine"]


@pytest.mark.parametrize("path", ["missing.db", "", ".", "old", "x" * 300, "old/chat.db/x", "circle", "pipe"], ids=repr)
def test_a_path_without_a_file_is_not_found(transport: InProcess, tmp_path: Path, legacy: Path, path: str) -> None:
    """Whatever is wrong with a path, nothing is created there."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    if path == "pipe":
        os.mkfifo(tmp_path / "pipe")
    nothing_to_adopt(transport, tmp_path, f"{tmp_path}/{path}")


def test_a_path_with_nul_cannot_be_adopted(transport: InProcess, tmp_path: Path) -> None:
    """For the system the path would end at the NUL."""
    adoption_is_refused(transport, tmp_path, f"{tmp_path}/a\x00b", (Invalid, PATH))


@pytest.mark.parametrize(
    "way", ["straight", "dots", "link to the file", "link to the directory", "no such file", "companion", "hard link"]
)
@pytest.mark.parametrize("owner", ["default", "other"])
def test_files_in_the_data_directory_cannot_be_adopted(
    transport: InProcess, tmp_path: Path, legacy: Path, way: str, owner: str
) -> None:
    """However a path leads into the data directory, whether or not the file exists, and also for a WAL there."""
    data_dir = tmp_path / "data"
    Client(transport=transport, scope=owner).execute(save_message("m1", "a secret"))
    path = data_dir / "default.db" if owner == "default" else database_of(data_dir, owner)
    within = path.relative_to(tmp_path)
    if way == "dots":
        path = legacy.parent / ".." / within
    if way == "link to the file":
        (legacy.parent / "link.db").symlink_to(path)
        path = legacy.parent / "link.db"
    if way == "link to the directory":
        (tmp_path / "link").symlink_to(data_dir)
        path = tmp_path / "link" / within.relative_to("data")
    if way == "no such file":
        path = path.with_name("none.db")
    if way == "companion":
        legacy.with_name("chat.db-wal").symlink_to(path.with_name(f"{path.name}-wal"))
        path = legacy
    if way == "hard link":
        path = legacy.parent / "hard.db"
        path.hardlink_to(data_dir / within.relative_to("data"))
    nothing_to_adopt(transport, tmp_path, path)


def garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 1_000)


def truncated(path: Path) -> None:
    os.truncate(path, 20_000)


def foreign(path: Path) -> None:
    path.unlink()
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def from_the_future(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("user_version", len(migrations()) + 1)


def of_another_scope(path: Path) -> None:
    path.unlink()
    SqliteStore(path, scope="eve").close()


def changed(sql_text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute(sql_text)

    return change


def sparse(path: Path) -> None:
    """A database with a valid header and an apparent size of 6 GiB, of which nearly nothing is on the disk."""
    os.truncate(path, 6 * 2**30)


def with_sparse_wal(path: Path) -> None:
    path.with_name("chat.db-wal").touch()
    os.truncate(path.with_name("chat.db-wal"), 2**30)


def with_journal(path: Path) -> None:
    """SQLite would open and delete the file that a journal names."""
    path.with_name("chat.db-journal").write_bytes(b"/somewhere/precious")


def unreadable(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
ALTERED = {
    "trigger": f"CREATE TRIGGER t AFTER INSERT ON messages BEGIN {ENDLESS}; END",
    "view": f"CREATE VIEW v AS {ENDLESS}",
    "virtual table": "CREATE VIRTUAL TABLE f USING fts5(x)",
    "table": "CREATE TABLE more (x)",
    "index": "CREATE INDEX i ON messages (lower(content))",
    "another definition": "ALTER TABLE messages ADD COLUMN mood TEXT",
    "missing index": "DROP INDEX messages_by_room",
}
HARMS: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (garbage, truncated, foreign, from_the_future, of_another_scope, sparse, with_sparse_wal, with_journal)
} | {"unreadable": unreadable, **{name: changed(text) for name, text in ALTERED.items()}}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_only_older_databases_can_be_adopted(
    transport: InProcess, tmp_path: Path, legacy: Path, harm: Callable[[Path], None]
) -> None:
    """Not garbage, files of other programs, later versions and other scopes, nor what somebody added objects to, nor
    what is too large, which is found before anything is copied.
    """
    harm(legacy)
    nothing_to_adopt(transport, tmp_path, legacy)


def nothing_to_adopt(transport: InProcess, tmp_path: Path, path: Path | str) -> None:
    """Check that the answer, in time and in its text, is that for a file which does not exist; no file is changed."""
    sizes = {
        each: each.stat().st_size for each in tmp_path.rglob("*") if each.is_file() and each.stat().st_size < 2**29
    }
    errors = []
    for each in (path, tmp_path / "none.db"):
        started = time.monotonic()
        with pytest.raises(BackscrollError) as caught:
            Client(transport=transport, scope="ada").execute(AdoptLegacyDatabase(str(each), "ada"))
        errors.append((caught.value.code, str(caught.value), caught.value.details))
        assert time.monotonic() - started < PROMPT_SECONDS
    assert errors[0] == errors[1]
    assert errors[0][0] == "not-found"
    after = {
        each: each.stat().st_size for each in tmp_path.rglob("*") if each.is_file() and each.stat().st_size < 2**29
    }
    assert after == sizes | {each: size for each, size in after.items() if "data/scopes" in str(each)}
    assert not list((tmp_path / "data").glob("adopting-*"))


def test_a_database_that_was_analysed_can_be_adopted(transport: InProcess, legacy: Path) -> None:
    """SQLite's own statistics are no objects of others."""
    changed("ANALYZE")(legacy)
    client = Client(transport=transport, scope="ada")
    client.execute(AdoptLegacyDatabase(str(legacy), "ada"))
    assert client.execute(GetScopeInfo()).rows["messages"] == 204


def test_one_file_is_copied_at_a_time(transport: InProcess, legacy: Path) -> None:
    """So the copies of several scopes never occupy all writers; a second one is `busy`."""
    client = Client(transport=transport, scope="ada")
    with transport.scopes.adopting(), pytest.raises(Busy):
        client.execute(AdoptLegacyDatabase(str(legacy), "ada"))
    client.execute(AdoptLegacyDatabase(str(legacy), "ada"))


def test_a_copy_ends_when_the_daemon_stops(transport: InProcess, tmp_path: Path, legacy: Path) -> None:
    """The request is `unavailable`, and nothing of the copy remains."""
    transport.scopes.stop()
    with pytest.raises(Unavailable):
        Client(transport=transport, scope="ada").execute(AdoptLegacyDatabase(str(legacy), "ada"))
    assert not list((tmp_path / "data").glob("adopting-*"))


def test_others_are_served_while_a_large_file_is_adopted(start_daemon: StartDaemon, legacy: Path) -> None:
    """The saves of another scope take as long as ever, and SIGTERM ends the daemon in time with 0."""
    os.truncate(legacy, 900 * 2**20)
    daemon = start_daemon("--writers", "2", "--drain-ms", "500", "--adopted-bytes", str(2**30))
    ended: list[str] = []

    def adopt() -> None:
        with Client(daemon.endpoint, scope="ada", timeout_ms=60_000) as client:
            try:
                client.execute(AdoptLegacyDatabase(str(legacy), "ada"))
                ended.append("adopted")
            except BackscrollError as error:
                ended.append(error.code)

    adopting = threading.Thread(target=adopt)
    adopting.start()
    with Client(daemon.endpoint, scope="other") as client:
        for number in range(20):
            started = time.monotonic()
            client.execute(save_message(f"m{number}"))
            assert time.monotonic() - started < PROMPT_SECONDS
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < PROMPT_SECONDS + 5
    adopting.join()
    assert len(ended) == 1


@pytest.mark.parametrize("linked", [False, True], ids=["direct", "through a link"])
def test_adopting_a_legacy_file_includes_its_wal(
    transport: InProcess, tmp_path: Path, legacy: Path, linked: bool
) -> None:
    """The latest rows of a killed program are in the WAL beside the file; also where a link leads to both."""
    with closing(apsw.Connection(str(legacy))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.pragma("wal_autocheckpoint", 0)
        connection.execute("UPDATE messages SET content = 'only in the log'")
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{legacy}{suffix}", f"{crashed}/chat.db{suffix}")
    path = crashed / "chat.db"
    if linked:
        path = tmp_path / "link.db"
        path.symlink_to(crashed / "chat.db")
    before = everything(crashed)
    assert set(before) == {"chat.db", "chat.db-wal"}
    client = Client(transport=transport, scope="ada")
    client.execute(AdoptLegacyDatabase(str(path), "ada"))
    assert everything(crashed) == before
    with transport.scopes.use("ada") as store, store.read() as snapshot:
        assert snapshot.rows(sql("SELECT DISTINCT content FROM messages")) == [("only in the log",)]


def test_adopting_on_a_full_disk_has_no_effect(tmp_path: Path, legacy: Path) -> None:
    """The scope stays empty, the source unchanged, and a retry succeeds."""
    disk = FaultyDisk()
    with InProcess(tmp_path / "data", vfs=disk.name) as transport:
        Client(transport=transport, scope="ada").execute(GetScopeInfo())
        before = everything(legacy.parent)
        disk.full = True
        with pytest.raises(BackscrollError) as caught:
            Client(transport=transport, scope="ada").execute(AdoptLegacyDatabase(str(legacy), "ada"))
        assert (caught.value.code, caught.value.retryable) == ("storage", True)
        disk.full = False
        assert everything(legacy.parent) == before
        assert not list((tmp_path / "data").glob("adopting-*"))
        Client(transport=transport, scope="ada").execute(AdoptLegacyDatabase(str(legacy), "ada"))
        assert Client(transport=transport, scope="ada").execute(GetScopeInfo()).rows["messages"] == 204


def test_the_copy_of_a_killed_adoption_is_removed(tmp_path: Path) -> None:
    """The next daemon removes the temporary copy."""
    left = tmp_path / "data" / "adopting-abc"
    left.mkdir(parents=True)
    (left / "legacy.db").write_bytes(b"somebody's history")
    InProcess(tmp_path / "data").close()
    assert not left.exists()


def test_files_of_a_killed_compaction_are_deleted_with_the_scope(tmp_path: Path) -> None:
    """They have everything that the scope had."""
    with InProcess(tmp_path / "data") as transport:
        client = Client(scope="mine", transport=transport)
        client.execute(save_message("m1"))
        left = database_of(tmp_path / "data", "mine").with_name(f"{database_of(tmp_path, 'mine').name}-compacted")
        left.write_bytes(b"somebody's history")
        client.execute(DeleteScope())
        assert not left.exists()


def test_deleting_an_unknown_scope_succeeds(tmp_path: Path) -> None:
    """Also in a directory where no scope was ever created."""
    with InProcess(tmp_path / "data") as transport:
        Client(scope="nobody", transport=transport).execute(DeleteScope())
