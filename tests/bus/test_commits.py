"""The commits that a store reports: which commands, what they changed, and when."""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.stores import Commit, CommittedCommand, Store
from backscroll.handlers import HANDLERS, Handlers
from backscroll.handlers.storage import CommandContext, Writes
from backscroll.schema import DeleteMessage
from backscroll.schema.command_log import Change
from backscroll.schema.wire import DEFAULT_SCOPE, JSON
from tests.support.clocks import Clock
from tests.support.disks import FaultyDisk
from tests.support.handlers import handler_of, replacing
from tests.support.messages import save_payload
from tests.support.requests import body
from tests.support.sql import sql
from tests.support.status import status_of
from tests.support.stores import command
from tests.support.waiting import wait_until

Reply = dict[str, Any]
USER = {"oderId": "ada", "id": "ada", "username": "ada"}


class Watched:
    """A dispatcher whose stores' commits are recorded as they are reported."""

    def __init__(self, scopes: SqliteScopes, handlers: Handlers, commits: list[Commit]) -> None:
        self.scopes = scopes
        self.dispatcher = Dispatcher(scopes, status_of(scopes), handlers)
        self.commits = commits

    def commit(self, *requests: bytes) -> list[Reply]:
        """The replies to commands of one transaction."""
        received = [self.dispatcher.receive(request) for request in requests]
        return [JSON.decode(reply, Reply) for reply in self.dispatcher.answer_commands(received)]

    def ask(self, operation: str, payload: Any = None, **envelope: Any) -> Reply:
        answer = self.dispatcher.answer(body(operation, {} if payload is None else payload, **envelope))
        return JSON.decode(answer, Reply)

    def take(self) -> list[Commit]:
        """The commits reported since the last call."""
        taken = self.commits[:]
        del self.commits[: len(taken)]
        return taken

    def logged(self, from_seq: int = 1, scope: str = DEFAULT_SCOPE) -> list[CommittedCommand]:
        """The commands of a scope as they are in its log."""
        entries = self.ask("get-log", {"fromSeq": from_seq, "limit": 500}, scope=scope)["result"]["entries"]
        return [
            CommittedCommand(
                entry["seq"],
                entry["at"],
                entry["id"],
                entry["type"],
                [JSON.decode(JSON.encode(each), Change) for each in entry.get("changes", [])],
            )
            for entry in entries
        ]


@contextmanager
def watching(
    directory: Path,
    *,
    handlers: Handlers = HANDLERS,
    vfs: str = "",
    reported: Callable[[Commit, Store], object] = lambda *_: None,
) -> Iterator[Watched]:
    """The scopes of a data directory with their commits; `reported` is also called at the moment of each commit."""
    commits: list[Commit] = []

    def committed(commit: Commit, store: Store) -> None:
        commits.append(commit)
        reported(commit, store)

    directory.mkdir(exist_ok=True)
    with closing(SqliteScopes(directory, clock=Clock(), vfs=vfs, committed=committed)) as scopes:
        yield Watched(scopes, handlers, commits)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watching(tmp_path / "data") as watched:
        yield watched


def save(number: int, **envelope: Any) -> bytes:
    return body("save-message", save_payload(number), id=f"save-{number}", **envelope)


def numbers(commits: Iterable[Commit]) -> list[list[int]]:
    """The numbers of the commands of each commit."""
    return [[each.seq for each in commit.commands or []] for commit in commits]


def test_a_commit_reports_its_commands_with_their_changes(watched: Watched) -> None:
    """Number, time, id, type and changes of each command are those in the log, in order."""
    watched.commit(body("save-user", {"user": USER}), body("save-room", {"room": {"id": "default", "name": "d"}}))
    watched.take()
    replies = watched.commit(
        save(1),
        save(2),
        body("create-channel", {"name": "c"}, id="channel"),
        body("save-reaction", {"reaction": {"messageId": "m1", "oderId": "ada", "emoji": "x"}}, id="reaction"),
        body("delete-message", {"messageId": "m2"}, id="delete"),
        body("set-current-user-id", {"userId": "ada"}, id="current"),
        body("initialize", {}, id="nothing"),
        body("delete-room", {"roomId": "default"}, id="room"),
    )
    assert all(reply["ok"] for reply in replies)
    [commit] = watched.take()
    assert (commit.scope, commit.seq) == (DEFAULT_SCOPE, 10)
    assert [each.request_id for each in commit.commands or []] == [reply["id"] for reply in replies]
    assert [each.seq for each in commit.commands or []] == [reply["seq"] for reply in replies] == list(range(3, 11))
    assert commit.commands == watched.logged(3)
    changes = {each.request_id: each.changes for each in commit.commands or []}
    assert changes["save-1"] == changes["reaction"] == [Change(noun="message", id="m1", room_id="r1")]
    assert changes["delete"] == [Change(noun="message", id="m2", room_id="r1")]
    assert changes["nothing"] == []
    assert Change(noun="room", kind="gone", id="default", room_id="default") in changes["room"]


def test_a_batch_is_reported_as_one_command_with_all_changes(watched: Watched) -> None:
    """The changes are in the order of the commands in the batch."""
    members = [{"type": "save-message", "payload": save_payload(number)} for number in (1, 2, 1)]
    watched.commit(body("batch", {"commands": members}, id="batch"))
    [commit] = watched.take()
    assert commit.commands == watched.logged()
    [batch] = commit.commands
    assert (batch.request_id, batch.type) == ("batch", "batch")
    assert [change.id for change in batch.changes] == ["m1", "m2", "m1"]


def test_commits_are_reported_for_each_scope(watched: Watched) -> None:
    """Under the name of the scope, and with its own numbers."""
    watched.commit(save(1))
    watched.commit(save(1, scope="other"), save(2, scope="other"))
    watched.commit(save(2))
    assert [(commit.scope, commit.seq) for commit in watched.commits] == [
        (DEFAULT_SCOPE, 1),
        ("other", 2),
        (DEFAULT_SCOPE, 2),
    ]
    assert watched.commits[1].commands == watched.logged(scope="other")


def test_requests_without_effect_report_no_commit(watched: Watched) -> None:
    """Queries, retries, refused commands, chores with nothing to do, and maintenance without commands."""
    watched.commit(save(1))
    watched.take()
    again, missing, invalid = watched.commit(
        save(1), body("delete-message", {"messageId": "none"}), body("save-message", {"message": {}})
    )
    assert (again["ok"], missing["ok"], invalid["ok"]) == (True, False, False)
    watched.ask("get-messages", {"roomId": "r1"})
    watched.dispatcher.run_chores(DEFAULT_SCOPE)
    assert watched.ask("compact-scope")["ok"]
    assert watched.commits == []


def test_commands_of_the_daemon_are_reported(watched: Watched) -> None:
    """What the chores remove is removed by a command."""
    watched.commit(
        body("save-user", {"user": USER}),
        body("create-session", {"userId": "ada", "durationMs": 0, "token": "x" * 22}, id="session"),
    )
    watched.take()
    watched.dispatcher.run_chores(DEFAULT_SCOPE)
    [commit] = watched.take()
    assert [(each.seq, each.type) for each in commit.commands or []] == [(3, "delete-expired-sessions")]
    assert commit.commands == watched.logged(3)


def test_replayed_commands_are_reported_as_recorded(watched: Watched) -> None:
    """Ids, times and changes are those of the log, also of redacted commands; each `append-log` is one commit."""
    reaction = {"messageId": "m1", "oderId": "ada", "emoji": "x"}
    watched.commit(body("save-message", save_payload(1, reactions=[reaction]), id="save"))
    watched.commit(body("remove-reaction", reaction, id="remove"), save(2))
    entries = watched.ask("get-log", {"fromSeq": 1, "limit": 500})["result"]["entries"]
    first = [each for commit in watched.take() for each in commit.commands or []]
    assert watched.ask("append-log", {"entries": entries}, scope="replayed")["ok"]
    [commit] = watched.take()
    assert (commit.scope, numbers([commit])) == ("replayed", [[1, 2, 3]])
    assert commit.commands == first == watched.logged(scope="replayed")
    assert watched.ask("append-log", {"entries": entries}, scope="replayed")["ok"]  # known already
    assert watched.commits == []


# The moment of the report


def test_a_commit_is_reported_when_durable_and_before_replies(tmp_path: Path) -> None:
    """At that moment a crash does not lose it: the files on disk have it, and readers see it."""
    seen: list[tuple[int, int, list[str]]] = []

    def reported(commit: Commit, store: Store) -> None:
        copy = tmp_path / f"copy-{commit.seq}"
        copy.mkdir()
        for name in ("default.db", "default.db-wal"):
            shutil.copy(tmp_path / "data" / name, copy / name)
        with closing(apsw.Connection(str(copy / "default.db"))) as connection:
            ids = [row[0] for row in connection.execute("SELECT id FROM commands ORDER BY seq")]
        with store.read() as snapshot:
            seen.append((store.seq, snapshot.position.seq, ids))

    with watching(tmp_path / "data", reported=reported) as watched:
        for number in range(3):
            watched.commit(save(2 * number), save(2 * number + 1))
            assert len(seen) == number + 1
    ids = [f"save-{number}" for number in range(6)]
    assert seen == [(2, 2, ids[:2]), (4, 4, ids[:4]), (6, 6, ids)]


def test_a_commit_is_not_reported_before_its_sync(tmp_path: Path) -> None:
    """Cached results that it invalidates are dropped before; the commit is reported only after the sync."""
    disk = FaultyDisk()
    with watching(tmp_path / "data", vfs=disk.name) as watched:
        watched.commit(save(1))
        store = watched.scopes.open(DEFAULT_SCOPE)
        watched.ask("get-messages", {"roomId": "r1"})
        assert (len(watched.take()), len(store.query_cache)) == (1, 1)
        request = watched.dispatcher.receive(body("get-messages", {"roomId": "r1"}))
        assert watched.dispatcher.cached_reply(request) is not None
        disk.only = "-wal"
        disk.syncs_open.clear()
        writer = threading.Thread(target=watched.commit, args=(save(2),))
        writer.start()
        try:
            wait_until(lambda: disk.syncs_blocked)
            assert (watched.commits, store.seq) == ([], 1)
            assert watched.dispatcher.cached_reply(request) is None
        finally:
            disk.syncs_open.set()
            writer.join()
        assert numbers(watched.take()) == [[2]]


# Failures


@pytest.mark.parametrize("harm", [{"full": True}, {"failing_syncs": 2}, {"read_only": True}], ids=str)
def test_a_failed_transaction_reports_no_commit(tmp_path: Path, harm: dict[str, Any]) -> None:
    """Whatever fails; the next transaction reports its own commands, with the next free numbers."""
    disk = FaultyDisk()
    with watching(tmp_path / "data", vfs=disk.name) as watched:
        watched.commit(save(1))
        vars(disk).update(harm)
        assert not any(reply["ok"] for reply in watched.commit(save(2), save(3)))
        vars(disk).update({"full": False, "failing_syncs": 0, "read_only": False})
        assert [reply["seq"] for reply in watched.commit(save(4), save(2))] == [2, 3]
        assert numbers(watched.commits) == [[1], [2, 3]]
        assert [each.request_id for each in watched.commits[1].commands or []] == ["save-4", "save-2"]


@pytest.mark.undescribed
@pytest.mark.parametrize("writes", [False, True], ids=["before it wrote", "after it wrote"])
def test_a_failed_command_is_not_reported_and_others_once(tmp_path: Path, writes: bool) -> None:
    """Also where the whole transaction is executed again because of it: the numbers have no gap."""
    turns = []

    def fail(operation: DeleteMessage, db: Writes, context: CommandContext) -> None:
        turns.append(operation)
        if writes:
            handler_of(DeleteMessage)(operation, db, context)
        raise ZeroDivisionError

    with watching(tmp_path / "data", handlers=replacing({DeleteMessage: fail})) as watched:
        replies = watched.commit(save(1), body("delete-message", {"messageId": "m1"}, id="fails"), save(2), save(3))
        assert [reply["ok"] for reply in replies] == [True, False, True, True]
        assert len(turns) == 1 + writes
        [commit] = watched.take()
        assert commit.commands == watched.logged()
        assert [(each.seq, each.request_id) for each in commit.commands or []] == [
            (1, "save-1"),
            (2, "save-2"),
            (3, "save-3"),
        ]
        assert [change.id for each in commit.commands or [] for change in each.changes] == ["m1", "m2", "m3"]


def test_an_abandoned_transaction_reports_no_commit(tmp_path: Path) -> None:
    """A transaction that is rolled back on request has no effect."""
    commits: list[Commit] = []
    with closing(SqliteStore(tmp_path / "default.db", committed=lambda commit, _: commits.append(commit))) as store:
        with suppress(ZeroDivisionError), store.write() as transaction:
            with command(transaction):
                transaction.run(sql("INSERT INTO meta (key, value) VALUES ('k', 'null')"))
            raise ZeroDivisionError
        assert commits == []
        with store.write() as transaction:  # without a command nothing is reported either
            transaction.run(sql("INSERT INTO meta (key, value) VALUES ('k', 'null')"))
        assert commits == []
        with store.write() as transaction, command(transaction):
            pass
        assert numbers(commits) == [[1]]
