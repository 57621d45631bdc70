"""Copies of scopes between stores: everything is there, in the same order, and what was begun before goes on."""

import base64
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from backscroll.bus import copying
from backscroll.bus.copying import CannotCopy, Copied, Place, copy
from backscroll.bus.directory import is_data_directory
from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql.connecting import Database
from backscroll.bus.postgresql.whole_scopes import DatabaseScope
from backscroll.bus.postgresql.whole_scopes import opened as opened_database
from backscroll.bus.sqlite.statements import COMPILED
from backscroll.bus.sqlite.whole_scopes import NewFileScope
from backscroll.bus.sqlite.whole_scopes import opened as opened_directory
from backscroll.handlers.whole_tables import WHOLE_TABLES
from backscroll.schema.wire import DEFAULT_SCOPE, JSON
from tests import ROOT
from tests.support.clocks import Clock
from tests.support.postgresql import Server
from tests.support.random_commands import RandomCommands
from tests.support.recorded_histories import nothing
from tests.support.requests import body

Plain = dict[str, Any]
SCOPES = (DEFAULT_SCOPE, "schön 😀/..")
SEEDS, SEEDS_LONG = 2, 20
COMMANDS = 120
KILLS, KILLS_LONG = 3, 30
ODD_IDS = ("z", "Z", "é", "e\u0301", "ﬀ", "\uffee", "😀", "a b", "'; --", "%_", "\\x41", "İ")
"""Ids that other orders than that of their bytes put elsewhere, and that some kinds of text would change."""


class Store(NamedTuple):
    """A store that is not open: a data directory, or the address of a database; then the directory has no data."""

    directory: Path
    address: str = ""

    @property
    def words(self) -> str:
        return self.address or str(self.directory)

    def opened(self, clock: Clock) -> InProcess:
        return InProcess(self.directory, clock=clock, store=self.address)

    def place(self, *, to_write: bool = False) -> AbstractContextManager[Place]:
        if self.address:
            return opened_database(self.address)
        return opened_directory(self.directory, to_write=to_write)


class Kept(NamedTuple):
    """What somebody remembers of a scope: the commands that were sent, with their replies, and a cursor of the feed."""

    sent: list[tuple[bytes, Plain]]
    cursor: str


def ask(transport: InProcess, operation: str, payload: Any, scope: str, **envelope: Any) -> Plain:
    return answer(transport, body(operation, payload, scope=scope, **envelope))


def answer(transport: InProcess, request: bytes) -> Plain:
    transport.send(request)
    reply = transport.receive(0)
    assert reply is not None
    return JSON.decode(reply, dict[str, Any])


def filled(store: Store, seed: int, clock: Clock, number: int = COMMANDS) -> dict[str, Kept]:
    """Random commands of every kind in two scopes, with media and odd ids; what is remembered, by scope."""
    sys.stdout.write(f"seed {seed}\n")
    found: dict[str, Kept] = {}
    with store.opened(clock) as transport:
        for at, scope in enumerate(SCOPES):
            history = _History(transport, scope, clock, seed + at)
            history.put_media(random.Random(seed).randbytes(100_000))
            history.save_odd_ids()
            history.go_on(number // 2)
            page = ask(transport, "get-changes", {"limit": 20}, scope)["result"]
            history.go_on(number // 2)
            found[scope] = Kept(history.sent, page["cursor"])
        for scope in SCOPES:
            assert ask(transport, "get-messages", {"roomId": "r1"}, scope)["ok"]  # deletes what has expired meanwhile
    return found


class _History:
    """Random commands to one scope."""

    def __init__(self, transport: InProcess, scope: str, clock: Clock, seed: int) -> None:
        self._transport, self._scope, self._clock = transport, scope, clock
        self._commands, self._draw = RandomCommands(seed), random.Random(seed)
        self.sent: list[tuple[bytes, Plain]] = []

    def send(self, name: str, payload: Plain) -> Plain:
        request = body(name, payload, id=f"{name} ü {len(self.sent)}", scope=self._scope)
        reply = answer(self._transport, request)
        if reply["ok"]:
            self.sent.append((request, reply))
        return reply

    def go_on(self, number: int) -> None:
        wanted = len(self.sent) + number
        while len(self.sent) < wanted:
            self._clock.now += self._draw.choice((0, 1, 1_000))
            name, payload = self._commands.next()
            if name == "save-room":
                payload["room"]["password"] = f"pässword {self._draw.random()}"
            if name != "clear-all-data" and (reply := self.send(name, payload))["ok"]:
                self._commands.learn(name, payload, reply["result"])

    def put_media(self, data: bytes) -> None:
        middle = len(data) // 2
        parts = [
            self.send("put-media-part", {"data": base64.b64encode(part).decode()})["result"]
            for part in (data[:middle], data[middle:], b"in no media")
        ]
        self._clock.now += 5_000
        assert self.send("put-media", {"parts": parts[:2], "mime": "a/b"})["ok"]

    def save_odd_ids(self) -> None:
        for number, odd in enumerate(ODD_IDS):
            message = {"id": odd, "roomId": odd, "senderId": odd, "content": f"{odd}\n\t\x7f", "timestamp": number}
            assert self.send("save-message", {"message": message})["ok"]
            reaction = {"messageId": odd, "oderId": odd, "emoji": odd, "metadata": {odd: odd}}
            assert self.send("save-reaction", {"reaction": reaction})["ok"]
        assert self.send("delete-message", {"messageId": ODD_IDS[0]})["ok"]  # whose text is erased from the log


@pytest.fixture
def database(postgresql: Server, tmp_path: Path) -> Iterator[Store]:
    with postgresql.database() as address:
        yield Store(tmp_path / "beside", address)


@pytest.fixture
def other_database(postgresql: Server, tmp_path: Path) -> Iterator[Store]:
    with postgresql.database() as address:
        yield Store(tmp_path / "beside-other", address)


def copied(source: Store, target: Store, scopes: list[str] | None = None) -> list[Copied]:
    found: list[Copied] = []
    with source.place() as one, target.place(to_write=True) as other:
        copy(one, other, scopes, nothing, found.append)
    return found


def everything(store: Store) -> dict[str, dict[str, list[Any]]]:
    """Every row of every table of every scope with anything in it, and its parts of media, in their order."""
    found: dict[str, dict[str, list[Any]]] = {}
    with store.place() as place:
        for scope in place.names():
            with place.reading(scope) as reads:
                if reads is not None and (end := copying.contents_of(reads).end).seq:
                    tables = {table.name: list(reads.each(table.select_all)) for table in WHOLE_TABLES}
                    found[scope] = {"media parts": list(reads.parts()), "end": list(end), **tables}
    return found


def whole_log(transport: InProcess, scope: str) -> list[Plain]:
    entries: list[Plain] = []
    while page := ask(transport, "get-log", {"fromSeq": len(entries) + 1}, scope)["result"]["entries"]:
        entries += page
    return entries


def check_equal(one: Store, other: Store, kept: dict[str, Kept], clock: Clock) -> None:
    """Both stores have the same rows, chains and media, and answer the same."""
    wanted, found = everything(one), everything(other)
    assert wanted.keys() == found.keys() == kept.keys()
    for scope, tables in wanted.items():
        for name, rows in tables.items():
            assert found[scope][name] == rows, (scope, name)
    with one.opened(clock) as first, other.opened(clock) as second:
        for scope, (sent, cursor) in kept.items():
            assert whole_log(first, scope) == whole_log(second, scope)
            again = [answer(second, request) for request, _ in sent]
            assert again == [answer(first, request) for request, _ in sent]
            same = sum(reply == before for reply, (_, before) in zip(again, sent, strict=True))
            assert same > len(sent) * 0.9  # all but those whose text was erased later
            pages = [ask(each, "get-changes", {"after": cursor}, scope)["result"] for each in (first, second)]
            assert pages[0] == pages[1]
            assert pages[0]["changes"] != []
            assert not pages[0].get("gap")


@pytest.mark.timeout(3_600)
def test_a_copy_has_everything(
    tmp_path: Path, database: Store, other_database: Store, clock: Clock, long: bool
) -> None:
    """From files into a database, into another one, and back into files: equal rows, chains and media in each of them.

    Feeds go on at the cursors that were known before, and a command that is sent again gets the reply that it got.
    """
    for seed in range(SEEDS_LONG if long else SEEDS):
        files = Store(tmp_path / f"data {seed}")
        kept = filled(files, seed * 100, clock)
        before = everything(files)[SCOPES[1]]
        assert any(row[6] for row in before["commands"])  # some text was erased
        assert len(before["media parts"]) >= 3
        chain = [files, database, other_database, Store(tmp_path / f"again {seed}")]
        for source, target in pairwise(chain):
            reports = copied(source, target)
            assert [(each.scope, each.was_there) for each in reports] == [(scope, False) for scope in SCOPES]
            assert [each.rows for each in reports] == [row_count(source, scope) for scope in SCOPES]
            check_equal(files, target, kept, clock)
        for each in (database, other_database):
            assert chains_in(each) == {scope: tables["end"][-1] for scope, tables in everything(files).items()}
            delete_scopes(each, clock)


def test_rows_are_not_sorted_in_memory(tmp_path: Path, clock: Clock) -> None:
    """SQLite reads each table in the order of its key by an index, however large the table is."""
    with Store(tmp_path).opened(clock) as transport, apsw.Connection(str(transport.store.path)) as connection:
        for table in WHOLE_TABLES:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {COMPILED[table.select_all]}").fetchall()
            assert not any("TEMP B-TREE" in str(row) for row in plan), table.name


def row_count(store: Store, scope: str) -> int:
    tables = everything(store)[scope]
    return sum(len(tables[table.name]) for table in WHOLE_TABLES)


def chains_in(store: Store) -> dict[str, bytes]:
    """The chains by which daemons on one database tell histories apart, by scope."""
    with Database(store.address, connections=1, wait_ms=5_000) as database, database.listing() as connection:
        return dict(connection.execute("SELECT scope, chain FROM sequence").fetchall())


def delete_scopes(store: Store, clock: Clock) -> None:
    with store.opened(clock) as transport:
        for scope in SCOPES:
            assert ask(transport, "delete-scope", {}, scope)["ok"]


def test_a_copy_is_written_on(tmp_path: Path, database: Store, clock: Clock) -> None:
    """In each store the next command has the next number, and the log that goes on is whole."""
    files, again = Store(tmp_path / "data"), Store(tmp_path / "again")
    kept = filled(files, 7, clock)
    message = {"id": "later", "roomId": "é", "senderId": "ada", "content": "later", "timestamp": 1}
    for number, (source, target) in enumerate(((files, database), (database, again))):
        copied(source, target)
        with target.opened(clock) as transport:
            for scope, (_, cursor) in kept.items():
                last = whole_log(transport, scope)[-1]
                reply = ask(transport, "save-message", {"message": message}, scope, id=f"later {number}")
                assert reply["ok"], reply
                assert whole_log(transport, scope)[-1]["seq"] == last["seq"] + 1
                page: Plain = {"cursor": cursor, "more": True}
                while page["more"]:
                    page = ask(transport, "get-changes", {"after": page["cursor"]}, scope)["result"]
                    assert not page.get("gap")
                assert page["changes"][-1]["id"] == "later"


def test_another_state_is_not_overwritten(tmp_path: Path, database: Store, clock: Clock) -> None:
    """If the target has another state of one scope, or the source has none of it, nothing at all is copied."""
    files, others = Store(tmp_path / "data"), Store(tmp_path / "other")
    filled(files, 1, clock, 10)
    filled(others, 2, clock, 10)
    for target in (database, Store(tmp_path / "target")):
        with pytest.raises(CannotCopy, match="has no scope 'nobody'"):
            copied(files, target, [DEFAULT_SCOPE, "nobody"])
        copied(others, target, [SCOPES[1]])
        before = everything(target)
        with pytest.raises(CannotCopy, match="another state of the scope 'schön"):
            copied(files, target)
        assert everything(target) == before
        assert before.keys() == {SCOPES[1]}


def test_a_scope_that_was_copied_is_compared(tmp_path: Path, database: Store, clock: Clock) -> None:
    """A copy that is run again copies what is missing, and finds a row that another program has changed."""
    files = Store(tmp_path / "data")
    filled(files, 3, clock, 10)
    copied(files, database, [SCOPES[1]])
    assert [each.was_there for each in copied(files, database)] == [False, True]
    assert [each.was_there for each in copied(files, database)] == [True, True]
    with opened_database(database.address) as place, place.writing(DEFAULT_SCOPE) as scope:
        scope._connection.execute("UPDATE messages SET content = 'x' WHERE id = 'é' AND scope = $1", (DEFAULT_SCOPE,))
    with pytest.raises(CannotCopy, match=r"is not the same in .*: rows of messages differ$"):
        copied(files, database)


CHANGES = {
    "another value": ("UPDATE messages SET edited_at = 1 WHERE id = 'é'", "rows of messages differ"),
    "a missing row": ("DELETE FROM reactions WHERE emoji = 'é'", r"\d+ rows of reactions and \d+"),
    "bytes of the log": ("UPDATE commands SET salt = facts WHERE seq = 2", "rows of commands differ"),
    "the end": ("UPDATE sequence SET last_id = 'x'", "the ends of the command logs differ"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("into_files", [True, False])
def test_a_wrong_copy_is_noticed_and_not_kept(
    change: str,
    into_files: bool,
    tmp_path: Path,
    database: Store,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is not the same when both sides are read again: the target is as if nothing had been copied."""
    files = Store(tmp_path / "data")
    filled(files, 4, clock, 10)
    sql, what = CHANGES[change]
    kind: Any = NewFileScope if into_files else DatabaseScope
    end = kind.end

    def end_wrongly(scope: Any, *arguments: Any) -> None:
        end(scope, *arguments)
        if isinstance(scope, NewFileScope):
            scope._store._writer.execute(sql)
        else:
            scope._connection.execute(sql)

    target = Store(tmp_path / "target") if into_files else database
    monkeypatch.setattr(kind, "end", end_wrongly)
    with pytest.raises(CannotCopy, match=what):
        copied(files, target)
    if into_files:
        assert not (tmp_path / "target").exists()
    else:
        assert everything(target) == {}
    monkeypatch.undo()
    assert len(copied(files, target)) == len(SCOPES)


def test_what_is_written_meanwhile_is_not_in_the_copy(
    tmp_path: Path, database: Store, other_database: Store, clock: Clock
) -> None:
    """A database is read as of one moment, while a daemon goes on writing to it."""
    filled(database, 5, clock, 40)
    before = everything(database)
    message = {"id": "meanwhile", "roomId": "r1", "senderId": "ada", "content": "x", "timestamp": 1}
    for target in (Store(tmp_path / "target"), other_database):
        with database.opened(clock) as transport, database.place() as one, target.place(to_write=True) as other:
            steps: list[str] = []

            def write_more(step: str, *_: Any, steps: list[str] = steps, transport: InProcess = transport) -> None:
                if step.startswith("copying ") and not steps:
                    assert ask(transport, "save-message", {"message": message}, DEFAULT_SCOPE)["ok"]
                    steps.append(step)

            copy(one, other, [DEFAULT_SCOPE], write_more, lambda _: None)
            assert steps
        assert everything(target)[DEFAULT_SCOPE] == before[DEFAULT_SCOPE]
        before = everything(database)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("direction", ["into a database", "into files"])
def test_a_copy_that_was_killed_is_run_again(
    direction: str, tmp_path: Path, postgresql: Server, clock: Clock, long: bool
) -> None:
    """Killed before any batch of rows, and before any file is touched: each scope is there as a whole or not at all."""
    files = Store(tmp_path / "data")
    filled(files, 6, clock, 20)
    wanted = everything(files)
    draw = random.Random(20260105)
    with database_of(postgresql, tmp_path / "beside") as source, postgresql.database() as scratch:
        copied(files, source)
        start = files if direction == "into a database" else source
        first = Store(tmp_path / "scratch", scratch) if direction == "into a database" else Store(tmp_path / "first")
        done = run_killed(10**9, start, first)
        assert done.returncode == 0
        steps = int(done.stdout.splitlines()[-1])
        for number in range(KILLS_LONG if long else KILLS):
            step = draw.randrange(1, steps + 1) if number else steps - 4  # the last ones move files
            sys.stdout.write(f"step {step} of {steps}\n")
            with target_for(direction, postgresql, tmp_path / f"target {number}") as target:
                assert run_killed(step, start, target).returncode == -9
                is_there = target.address or is_data_directory(target.directory)
                left = everything(target) if is_there else {}
                assert all(wanted[scope] == tables for scope, tables in left.items())
                copied(start, target)
                assert everything(target) == wanted


@contextmanager
def database_of(server: Server, beside: Path) -> Iterator[Store]:
    with server.database() as address:
        yield Store(beside, address)


@contextmanager
def target_for(direction: str, server: Server, directory: Path) -> Iterator[Store]:
    if direction == "into files":
        yield Store(directory)
        return
    with database_of(server, directory) as store:
        yield store


def run_killed(step: int, source: Store, target: Store) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.support.killed_copy", str(step), source.words, target.words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(3_600)
def test_one_log_leads_to_the_same_rows_in_every_store(
    tmp_path: Path, database: Store, clock: Clock, long: bool
) -> None:
    """Replayed into files and into a database: equal rows table by table, and equal chains."""
    for seed in range(SEEDS_LONG if long else SEEDS):
        files, again = Store(tmp_path / f"data {seed}"), Store(tmp_path / f"again {seed}")
        filled(files, 1_000 + seed * 100, clock)
        with files.opened(clock) as transport:
            logs = {scope: whole_log(transport, scope) for scope in SCOPES}
        for target in (database, again):
            with target.opened(clock) as transport:
                for scope, entries in logs.items():
                    for first in range(0, len(entries), 50):
                        reply = ask(transport, "append-log", {"entries": entries[first : first + 50]}, scope)
                        assert reply["ok"], reply
        in_database, in_files = everything(database), everything(again)
        for scope in SCOPES:
            for name, rows in in_files[scope].items():
                if name == "media parts":
                    rows = [each.sha256 for each in rows]
                    in_database[scope][name] = [each.sha256 for each in in_database[scope][name]]
                assert in_database[scope][name] == rows, (scope, name)
        delete_scopes(database, clock)
