"""A damaged page harms only what reads it: everything else in its scope goes on being read and written."""

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.dispatch import CLEARING_RETRY_SECONDS, EXPIRY_RETRY_MS, Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.errors import UNREAD, is_damage
from backscroll.bus.stores import Commit
from backscroll.schema.wire import JSON, MSGPACK
from tests.support.clocks import Clock
from tests.support.damage import (
    change_page,
    flipped,
    leaves,
    page_size,
    remove_checksums,
    unreadable_rows,
    zeroed,
)
from tests.support.disks import FaultyDisk
from tests.support.messages import save_payload
from tests.support.notes import say
from tests.support.peers import running, several
from tests.support.requests import body, send
from tests.support.sql import sql
from tests.support.status import status_of

Reply = dict[str, Any]
NUMBERS = itertools.count()
ROOMS, MESSAGES = 20, 4_000
DAMAGES = ["zeros", "checksum"]
BY_ID = "SELECT * FROM messages WHERE id = ?1"


class Damaged(NamedTuple):
    """A closed database with a damaged page: its directory, and the numbers of its messages by their state."""

    directory: Path
    bad: list[int]
    good: list[int]


class Stored(NamedTuple):
    """A closed database, and how a page of it is damaged."""

    directory: Path
    change: Callable[[bytes], bytes]


@pytest.fixture(scope="module", params=DAMAGES)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A directory with 4,000 messages in 20 rooms, one room after the other, and how a page of it is damaged."""
    directory = tmp_path_factory.mktemp(request.param) / "data"
    if request.param == "zeros":  # without checksums SQLite finds only what cannot be a page
        with InProcess(directory):
            pass
        remove_checksums(directory / "default.db")
    with InProcess(directory) as transport:
        for first in range(0, MESSAGES, 500):
            replies = commit(transport.dispatcher, *(save_body(number) for number in range(first, first + 500)))
            assert all(reply["ok"] for reply in replies)
    return Stored(directory, zeroed if request.param == "zeros" else flipped)


def damage(stored: Stored, directory: Path, table: str = "messages", page: int = 60) -> Damaged:
    """A copy with a damaged leaf of a table or an index."""
    shutil.copytree(stored.directory, directory)
    path = directory / "default.db"
    change_page(path, leaves(path, table)[page], stored.change)
    bad = unreadable_rows(path, BY_ID, [f"m{number}" for number in range(MESSAGES)])
    numbers = [int(each[1:]) for each in bad]
    return Damaged(directory, numbers, sorted(set(range(MESSAGES)) - set(numbers)))


@pytest.fixture
def damaged(stored: Stored, tmp_path: Path) -> Damaged:
    found = damage(stored, tmp_path / "data")
    assert 5 < len(found.bad) < 60
    return found


@pytest.fixture
def transport(damaged: Damaged) -> Iterator[InProcess]:
    with InProcess(damaged.directory) as opened:
        yield opened


def room_of(number: int) -> str:
    return f"r{number * ROOMS // MESSAGES}"


def save_body(number: int, **fields: Any) -> bytes:
    return body("save-message", save_payload(number, f"text {number} {'x' * 150}", room_of(number), **fields))


def read_body(number: int) -> bytes:
    return body("get-message-by-id", {"messageId": f"m{number}"})


def update_body(number: int) -> bytes:
    return body("update-message", {"messageId": f"m{number}", "updates": {"content": "new"}}, id=f"u{next(NUMBERS):06}")


def ask_of(transport: InProcess, operation: str, payload: Any) -> str:
    """The code of the answer to a request, or `ok`."""
    return codes([send(transport, body(operation, payload))])[0]


def commit(dispatcher: Dispatcher, *bodies: bytes) -> list[Reply]:
    """The replies to commands that are given to the writer together, and again as long as it has not begun them all."""
    requests = [dispatcher.receive(each) for each in bodies]
    replies: list[Reply] = []
    while len(replies) < len(requests):
        found = dispatcher.answer_commands(requests[len(replies) :])
        assert found
        replies += [JSON.decode(reply, Reply) for reply in found]
    return replies


def codes(replies: list[Reply]) -> list[str]:
    return ["ok" if reply["ok"] else reply["error"]["code"] for reply in replies]


def test_only_what_reads_a_damaged_page_fails(damaged: Damaged, long: bool) -> None:
    """Of thousands of pipelined reads and writes of several clients those fail that need the page, with `storage`."""
    seed = random.SystemRandom().randrange(2**32) if long else 20261126
    say(f"seed {seed}")
    chosen = random.Random(seed)
    with running(damaged.directory) as daemon, several(daemon.endpoint, 4) as peers:
        for first in range(0, 80_000 if long else 4_000, 4_000):  # as many as the daemon queues
            wanted: list[dict[str, str]] = [{} for _ in peers]
            for number in range(first, first + 4_000):
                peer, request_id = number % len(peers), f"{number:08}"
                is_bad = chosen.random() < 0.05
                peers[peer].request(*some_request(damaged, number, chosen, is_bad), request_id)
                wanted[peer][request_id] = "storage" if is_bad else "ok"
            for each, expected in zip(peers, wanted, strict=True):
                replies = each.replies(len(expected))
                assert {request_id: codes([reply])[0] for request_id, reply in replies.items()} == expected


def some_request(damaged: Damaged, number: int, chosen: random.Random, is_bad: bool) -> tuple[str, dict[str, Any]]:
    """A read or a write, which needs the damaged page or does not."""
    target = chosen.choice(damaged.bad if is_bad else damaged.good)
    if chosen.random() < 0.75:
        return "get-message-by-id", {"messageId": f"m{target}"}
    if is_bad:
        return "update-message", {"messageId": f"m{target}", "updates": {"content": "new"}}
    return "save-message", save_payload(MESSAGES + number, "new", room_of(target))


def test_commands_around_damaged_ones_take_effect_once(transport: InProcess, damaged: Damaged) -> None:
    """They keep their order and share transactions: at most two more for each command that fails."""
    commits: list[Commit] = []
    transport.scopes.on_commit(lambda commit, _store: commits.append(commit))
    bodies = [update_body(number) for number in damaged.good[:500]]
    failing = [100, 101, 250, 511]
    for at, number in zip(failing, damaged.bad, strict=False):
        bodies.insert(at, update_body(number))
    first = commit(transport.dispatcher, *bodies)
    assert [at for at, code in enumerate(codes(first)) if code != "ok"] == [100, 101, 250, 503]
    done = [reply["id"] for reply in first if reply["ok"]]
    assert [command.request_id for each in commits for command in each.commands or []] == done
    assert len(commits) <= 2 * len(failing) + 1
    seqs = [reply["seq"] for reply in first if reply["ok"]]
    assert seqs == list(range(MESSAGES + 1, MESSAGES + 501))
    assert commit(transport.dispatcher, *bodies) == first
    assert transport.store.seq == seqs[-1]


def test_repeated_commands_take_turns(transport: InProcess, damaged: Damaged) -> None:
    """After 25 ms no more of what damage separated is begun: what is done is answered, and the rest is given again."""
    seconds = itertools.count()
    status = status_of(transport.scopes)
    dispatcher = Dispatcher(transport.scopes, status, clock=lambda: float(next(seconds)))
    numbers = [*damaged.good[:3], damaged.bad[0], *damaged.good[3:5], damaged.bad[1], damaged.good[5]]
    requests = [dispatcher.receive(update_body(number)) for number in numbers]
    turns: list[list[str]] = []
    while requests:
        answers = dispatcher.answer_commands(requests)
        turns.append(codes([JSON.decode(answer, Reply) for answer in answers]))
        del requests[: len(answers)]
    assert turns == [["ok", "ok", "ok", "storage"], ["ok", "ok", "storage"], ["ok"]]


def test_only_damaged_commands(transport: InProcess, damaged: Damaged) -> None:
    """A batch of which every command fails ends, and the writer goes on."""
    bodies = [update_body(number) for number in damaged.bad * 20]
    assert set(codes(commit(transport.dispatcher, *bodies))) == {"storage"}
    assert codes(commit(transport.dispatcher, update_body(damaged.good[0]))) == ["ok"]


def test_a_snapshot_that_ended_answers_no_more(transport: InProcess, damaged: Damaged) -> None:
    """After damage, SQLite may have ended the read transaction: the next queries would see later commits, under the seq
    of the earlier one. So they are answered from another snapshot, and what was read after the damage is not cached.
    """
    good, bad = damaged.good[0], damaged.bad[0]
    with transport.store.read() as snapshot:
        seq = snapshot.position.seq
        with pytest.raises(apsw.Error) as caught:
            snapshot.rows(sql("SELECT * FROM messages WHERE id = :id"), id=f"m{bad}")
        assert is_damage(caught.value)
        assert codes(commit(transport.dispatcher, update_body(good))) == ["ok"]
        assert snapshot.has_ended is (snapshot.rows(sql("SELECT seq FROM sequence")) != [(seq,)])
    queries = [transport.dispatcher.receive(read_body(each)) for each in [good, bad, good + 1, bad, good + 2]]
    replies: list[Reply] = []
    while len(replies) < len(queries):
        found = transport.dispatcher.answer_queries(queries[len(replies) :])
        assert found
        replies += [JSON.decode(each, Reply) for each in found]
    assert codes(replies) == ["ok", "storage", "ok", "storage", "ok"]
    assert replies[0]["result"]["content"] == "new"


def test_a_row_is_not_stored_in_part(stored: Stored, tmp_path: Path) -> None:
    """A save that fails because of an index leaves nothing in the table or in other indexes."""
    found = damage(stored, tmp_path / "data", "messages_by_room", 3)
    assert not found.bad
    path = found.directory / "default.db"
    with InProcess(found.directory) as transport:
        bodies = [
            body("save-message", save_payload(f"new {number}", "new", room_of(number), timestamp=number))
            for number in range(0, MESSAGES, 10)
        ]
        replies = commit(transport.dispatcher, *bodies)
        assert {"ok", "storage"} == set(codes(replies))
        assert codes(replies).count("storage") < len(bodies) // 4
    with closing(apsw.Connection(str(path))) as connection:
        for index, bound in (("messages_by_channel", "room_id > ''"), ("sqlite_autoindex_messages_1", "id > ''")):
            rows = connection.execute(
                f"SELECT count(*) FROM messages INDEXED BY {index} WHERE id LIKE 'new %' AND {bound}"
            )
            assert rows.fetchall() == [(codes(replies).count("ok"),)]


def test_damage_in_the_command_log(stored: Stored, tmp_path: Path) -> None:
    """Deletions whose text is in a damaged page of the log fail, and those that share their commit do not."""
    found = damage(stored, tmp_path / "data", "commands", 50)
    with InProcess(found.directory) as transport:
        numbers = list(range(0, 1_000, 2))
        bodies = [body("delete-message", {"messageId": f"m{number}"}) for number in numbers]
        replies = commit(transport.dispatcher, *bodies)
        failed = [number for number, code in zip(numbers, codes(replies), strict=True) if code == "storage"]
        assert 1 < len(failed) < 30
        assert max(failed) - min(failed) < 60  # they were saved one after the other
        assert codes(replies).count("ok") == len(numbers) - len(failed)
        kept = commit(transport.dispatcher, *bodies)
        assert codes(kept) == codes(replies)


def test_other_cleared_rooms_are_removed(transport: InProcess, damaged: Damaged) -> None:
    """One that is damaged is passed over, and tried again after a pause; meanwhile commits cost nothing more."""
    bad_room = room_of(damaged.bad[0])
    rooms = sorted({room_of(number) for number in damaged.good})
    clearing = [body("clear-room-messages", {"roomId": each}) for each in rooms]
    assert set(codes(commit(transport.dispatcher, *clearing))) == {"ok"}
    now = [0.0]
    status = status_of(transport.scopes)
    dispatcher = Dispatcher(transport.scopes, status, clock=lambda: now[0])
    steps = 0
    while dispatcher.remove_cleared("default"):
        steps += 1
        assert steps < 20_000
    with transport.store.read() as snapshot:
        left = {room for (room,) in snapshot.rows(sql("SELECT room_id FROM cleared_rooms"))}
    assert left == {bad_room}
    assert not dispatcher.is_clearing("default")
    now[0] += CLEARING_RETRY_SECONDS
    assert dispatcher.is_clearing("default")
    while dispatcher.remove_cleared("default"):
        steps += 1
    assert steps < 20_000
    assert codes(commit(dispatcher, save_body(MESSAGES))) == ["ok"]


def test_expiry_pauses_at_damage(stored: Stored, tmp_path: Path) -> None:
    """Queries and commands go on while a message cannot be deleted that has expired, and it is tried again later."""
    clock, numbers = Clock(), damage(stored, tmp_path / "probe").bad
    shutil.copytree(stored.directory, tmp_path / "data")
    updates = {"updates": {"expiresAt": clock.now + 1}}
    with InProcess(tmp_path / "data", clock=clock) as transport:
        bodies = [body("update-message", {"messageId": f"m{number}", **updates}) for number in numbers]
        assert set(codes(commit(transport.dispatcher, *bodies))) == {"ok"}
    found = damage(stored._replace(directory=tmp_path / "data"), tmp_path / "damaged")
    assert set(found.bad) & set(numbers)
    clock.now += 2
    with InProcess(found.directory, clock=clock) as transport:
        for _ in range(2):
            assert transport.store.due_at is not None
            assert transport.store.due_at <= clock.now
            assert ask_of(transport, "get-message-by-id", {"messageId": "m0"}) == "ok"
            assert transport.store.due_at == clock.now + EXPIRY_RETRY_MS
            assert codes(commit(transport.dispatcher, update_body(0))) == ["ok"]
            clock.now += EXPIRY_RETRY_MS


@pytest.mark.parametrize(
    ("table", "operation", "payload"),
    [
        ("messages_by_expiry", "save-message", save_payload("new", expiresAt=1)),
        ("cleared_rooms", "get-message-by-id", {"messageId": "m0"}),
    ],
)
def test_a_scope_opens_with_damaged_rows(
    stored: Stored, tmp_path: Path, table: str, operation: str, payload: Any
) -> None:
    """What is read when a scope is opened may be damaged; then only what needs it fails. It is tried again later."""
    found = damage(stored, tmp_path / "data", table, 0)
    with InProcess(found.directory) as transport:
        ask = partial(ask_of, transport)
        assert ask("get-user", {"userId": "ada"}) == "ok"
        assert ask("create-user", {"pubkey": "ada"}) == "ok"
        assert ask(operation, payload) == "storage"
        due_at = transport.store.due_at
        assert due_at is None or due_at > transport.store.now()
        assert not transport.dispatcher.remove_cleared("default")
        assert not transport.dispatcher.is_clearing("default")
        assert ask("get-user", {"userId": "ada"}) == "ok"


def test_each_chore_is_done_by_itself(stored: Stored, tmp_path: Path) -> None:
    """Damage in one table does not keep the chores from what is in others."""
    found = damage(stored, tmp_path / "data", "sessions_by_expiry", 0)
    clock = Clock(wall_clock_ms())
    with InProcess(found.directory, clock=clock) as transport:
        part = body("put-media-part", {"data": b"unused"}, MSGPACK)
        assert MSGPACK.decode(transport.dispatcher.answer(part), Reply)["ok"]
        assert transport.store.blobs.size()
        clock.now += 2 * 24 * 60 * 60 * 1000
        transport.dispatcher.run_chores("default")
        assert not transport.store.blobs.size()


@pytest.mark.parametrize("stored", ["plain"], indirect=True)
@pytest.mark.parametrize("code", [*UNREAD, apsw.SQLITE_IOERR_DATA])
def test_a_page_that_the_disk_does_not_read(stored: Stored, tmp_path: Path, code: int) -> None:
    """It harms as little as one whose bytes are wrong; the error has the reason."""
    shutil.copytree(stored.directory, tmp_path / "data")
    disk = FaultyDisk()
    with InProcess(tmp_path / "data", vfs=disk.name) as transport:
        path = transport.store.path
        page, size = leaves(path, "messages")[60], page_size(path)
        disk.only, disk.unreadable = ".db", ((page - 1) * size, code)
        assert ask_of(transport, "get-message-by-id", {"messageId": "m0"}) == "ok"
        numbers = range(0, MESSAGES, 7)
        replies = commit(transport.dispatcher, *map(update_body, numbers))
        failed = [number for number, each in zip(numbers, codes(replies), strict=True) if each == "storage"]
        assert 0 < len(failed) < 20
        assert codes(replies).count("ok") == len(numbers) - len(failed)
        assert ask_of(transport, "get-message-by-id", {"messageId": f"m{failed[0]}"}) == "storage"
        assert ask_of(transport, "get-message-by-id", {"messageId": "m7"}) == "ok"
        disk.unreadable = None
        assert set(codes(commit(transport.dispatcher, *map(update_body, failed)))) == {"ok"}
