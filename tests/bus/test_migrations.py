"""Migrations: files of older schema versions are brought to the current one with every row, whatever interrupts it."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite import opening, scope_admin
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from backscroll.schema.operations import Command
from tests import ROOT
from tests.support.disks import FaultyDisk
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.requests import example, in_sensible_order, result
from tests.support.tables import Rows, all_rows

MESSAGES = 200
TODAY = len(migrations())
STEPS = [
    *migrations(),
    """
    ALTER TABLE messages ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;  -- in every row
    UPDATE messages SET pinned = timestamp % 2;
    """,
    """
    CREATE TABLE pins (message_id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX pins_by_age ON pins (at);
    INSERT INTO pins (message_id, at) SELECT id, timestamp FROM messages WHERE pinned;
    """,
]
"""The migrations of today, and two later ones, for which the schema of today is an older one."""
OLDER = range(TODAY, len(STEPS))
EVERY_WRITE = 10_000

LATER = f"""
from backscroll.bus.sqlite import opening, scope_admin
opening.migrations = scope_admin.migrations = lambda: {STEPS!r}
"""
CHILD = """
import sys
sys.path.append({root!r})
from pathlib import Path
from tests.support.disks import StoppingDisk
from backscroll.bus.sqlite.store import SqliteStore
{later}
disk = StoppingDisk({writes}, lambda: print("stopped", flush=True))
SqliteStore(Path({path!r}), scope="default", vfs=disk.name).close()
print(disk.writes, flush=True)
sys.stdin.read()
"""

Plain = dict[str, Any]
Fixtures = dict[int, Path]
"""A file of each older version."""

every_version = pytest.mark.parametrize("version", OLDER)


def know(patch: pytest.MonkeyPatch, version: int) -> None:
    """Let this process be a backscroll of the given schema version."""
    for module in (opening, scope_admin):
        patch.setattr(module, "migrations", lambda: STEPS[:version])


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Fixtures:
    """Files with rows in most tables, each written by the version it has."""
    made: Fixtures = {}
    for version in OLDER:
        directory = tmp_path_factory.mktemp(f"version-{version}")
        with pytest.MonkeyPatch.context() as patch:
            know(patch, version)
            with InProcess(directory) as transport:
                fill(transport)
        made[version] = directory / "default.db"
    return made


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the version that has all migrations."""
    know(monkeypatch, len(STEPS))


def fill(transport: InProcess) -> None:
    """Save what the examples of commands save, and many messages."""
    result(transport, "save-room", {"room": {"id": "default", "name": "default"}})
    for operation in in_sensible_order():
        name = operation.wire_name
        if issubclass(operation, Command) and name.startswith(("save-", "create-c", "create-u", "set-")):
            result(transport, name, example(operation))
    for number in range(MESSAGES):
        result(transport, "save-message", save_payload(number, "hello " * 20))


def served(directory: Path, data_dir: Path) -> DaemonProcess:
    """A real daemon that has all migrations, because Python imports `sitecustomize` before anything else."""
    (directory / "sitecustomize.py").write_text(LATER)
    return DaemonProcess(data_dir, "--log-level", "error", env={**os.environ, "PYTHONPATH": str(directory)})


def copied(fixture: Path, directory: Path) -> Path:
    """A copy of a fixture as the database of a data directory."""
    directory.mkdir()
    return Path(shutil.copy(fixture, directory / "default.db"))


def rows_of(fixture: Path, directory: Path) -> Rows:
    """The rows of a fixture, read from a copy because SQLite creates files beside what it reads."""
    return all_rows(copied(fixture, directory))


def definitions(path: Path) -> list[tuple[str, ...]]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
        return [tuple(map(str, row)) for row in connection.execute(sql)]


def version_of(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        version: int = connection.pragma("user_version")
        return version


def holds(path: Path, rows: Rows) -> bool:
    """Whether every row of an older file is there, in the columns it had; new columns come last."""
    now = all_rows(path)
    return all(
        sorted(map(repr, old)) == sorted(repr(row[: len(old[0])]) for row in now[name]) if old else not now[name]
        for name, old in rows.items()
    )


@every_version
def test_an_older_file_gets_the_current_schema(tmp_path: Path, fixtures: Fixtures, version: int) -> None:
    """Its tables, indexes and comments become those of a new file, and every row and the `seq` are kept."""
    rows = rows_of(fixtures[version], tmp_path / "before")
    path = copied(fixtures[version], tmp_path / "data")
    assert version_of(path) == version
    with closing(SqliteStore(path, scope="default")) as store:
        seq = store.seq
    SqliteStore(tmp_path / "fresh.db", scope="default").close()
    assert definitions(path) == definitions(tmp_path / "fresh.db")
    assert version_of(path) == len(STEPS)
    assert {name for name, each in rows.items() if each} >= {"messages", "reactions", "rooms", "users", "commands"}
    assert holds(path, rows)
    with closing(SqliteStore(path, scope="default")) as store:
        assert store.seq == seq > 0


@every_version
def test_a_daemon_serves_an_older_file(tmp_path: Path, fixtures: Fixtures, version: int) -> None:
    """It reads the old rows, and `seq` continues where the file ended."""
    rows = rows_of(fixtures[version], tmp_path / "before")
    copied(fixtures[version], tmp_path / "data")
    with served(tmp_path, tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        info = peer.ask("get-scope-info")
        counted = info["result"]["rows"]
        assert counted == {name: len(rows[name]) for name in counted}
        assert info["result"]["schemaVersion"] == len(STEPS)
        assert peer.ask("save-message", save_payload("new"))["seq"] == info["seq"] + 1


INITIAL_QUERIES: list[tuple[str, Plain]] = [
    ("get-messages", {"roomId": "r1", "limit": 500}),
    ("get-messages", {"roomId": "r1", "limit": 5, "offset": 90}),
    ("get-message-page", {"roomId": "r1", "channelId": "general", "limit": 30, "attachments": True}),
    ("get-message-page", {"roomId": "r1", "around": "m7", "limit": 9, "includeDeleted": False}),
    ("list-messages", {"roomId": "r1", "channelId": "general"}),
    ("get-message-by-id", {"messageId": "m3"}),
    ("get-all-attachments", {}),
    ("get-all-rooms", {}),
    ("list-users", {}),
    ("get-log", {"limit": 500}),
]
"""What the initial version answers too, with fields that it has."""


def fill_as_initial_version(transport: InProcess) -> None:
    """A history with only what the initial version could store: equal timestamps, lists, edits and tombstones."""
    fill(transport)
    for number in range(MESSAGES):
        channel: Plain = {"channelId": "general"} if number % 2 else {}
        more: Plain = {"metadata": {"n": number}, "senderName": "Ada", "revision": number} if number % 3 else {}
        result(transport, "save-message", save_payload(number, timestamp=number // 4, **channel, **more))
    for number in range(0, MESSAGES, 10):
        attachment = {"id": f"a{number}", "messageId": f"m{number}", "filename": "f", "size": 1, "mime": "x/y"}
        result(transport, "save-attachment", {"attachment": attachment})
        result(transport, "save-reaction", {"reaction": {"messageId": f"m{number}", "oderId": "bo", "emoji": "👍"}})
        result(transport, "update-message", {"messageId": f"m{number + 1}", "updates": {"content": "edited"}})
        result(transport, "delete-message", {"messageId": f"m{number + 2}"})


def as_initial_version(path: Path, initial: Path) -> None:
    """Write the rows of a database into a new file that has only the first migration."""
    with closing(apsw.Connection(str(initial))) as connection:
        connection.execute(migrations()[0])
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", 1)
        connection.execute("ATTACH ? AS now", (str(path),))
        for (table,) in connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall():
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}")


def test_a_file_of_the_initial_version_gives_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To every query, byte for byte, its command log included; and its messages can be changed as before."""
    know(monkeypatch, TODAY)
    with InProcess(tmp_path / "now") as transport:
        fill_as_initial_version(transport)
        wanted = [result(transport, *query) for query in INITIAL_QUERIES]
    (tmp_path / "data").mkdir()
    as_initial_version(tmp_path / "now" / "default.db", tmp_path / "data" / "default.db")
    with InProcess(tmp_path / "data") as transport:
        for query, answer in zip(INITIAL_QUERIES, wanted, strict=True):
            assert result(transport, *query) == answer, query
        result(transport, "delete-message", {"messageId": "m1"})
        assert "edited" not in repr(result(transport, "get-message-by-id", {"messageId": "m1"}))
        log = [each for each in result(transport, "get-log", {"limit": 500})["entries"] if "'m1'" in repr(each)]
        assert log
        assert "edited" not in repr(log)
    assert version_of(tmp_path / "data" / "default.db") == TODAY


def test_migrating_twice_changes_nothing(tmp_path: Path, fixtures: Fixtures) -> None:
    """Opening a file of the current version changes nothing."""
    path = copied(fixtures[TODAY], tmp_path / "data")
    SqliteStore(path, scope="default").close()
    rows, defined = all_rows(path), definitions(path)
    SqliteStore(path, scope="default").close()
    assert (all_rows(path), definitions(path)) == (rows, defined)


def migrate_in_child(path: Path, writes: int) -> subprocess.Popen[str]:
    """Open a file in a process of its own, on a disk that blocks at a given write."""
    script = CHILD.format(root=str(ROOT), later=LATER, writes=writes, path=str(path))
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(child: subprocess.Popen[str]) -> str:
    """The single line of output of the child, which is then killed."""
    assert child.stdout is not None
    assert child.stdin is not None
    line = child.stdout.readline().strip()
    child.kill()
    child.wait()
    child.stdout.close()
    child.stdin.close()
    return line


def moments(path: Path, most: int) -> Iterator[int]:
    """Some of the writes of a complete migration, including the first and the last."""
    writes = int(line_of(migrate_in_child(path, EVERY_WRITE)))
    yield from sorted({round(at * (writes - 1) / (most - 1)) for at in range(most)})


def test_a_killed_migration_is_completed_at_the_next_start(tmp_path: Path, fixtures: Fixtures, long: bool) -> None:
    """After `kill -9` at any write the file is of one version or another with every row, and never in between."""
    rows = rows_of(fixtures[TODAY], tmp_path / "before")
    versions = set()
    whole = copied(fixtures[TODAY], tmp_path / "whole")
    for number in moments(whole, 200 if long else 16):
        path = copied(fixtures[TODAY], tmp_path / f"killed-{number}")
        assert line_of(migrate_in_child(path, number)) == "stopped"
        look = tmp_path / f"look-{number}"
        shutil.copytree(path.parent, look)
        version = version_of(look / "default.db")
        versions.add(version)
        assert TODAY <= version <= len(STEPS)
        assert holds(look / "default.db", rows), f"killed at write {number}"
        with closing(SqliteStore(path, scope="default")) as store:
            assert store.seq > 0
        assert version_of(path) == len(STEPS)
        assert definitions(path) == definitions(whole)
        assert holds(path, rows), f"killed at write {number}"
    assert versions == set(range(TODAY, len(STEPS) + 1))


def test_a_daemon_starts_after_a_killed_migration(tmp_path: Path, fixtures: Fixtures) -> None:
    """It serves everything that the file had."""
    path = copied(fixtures[TODAY], tmp_path / "data")
    middle = list(moments(copied(fixtures[TODAY], tmp_path / "whole"), 3))[1]
    assert line_of(migrate_in_child(path, middle)) == "stopped"
    rows = rows_of(fixtures[TODAY], tmp_path / "before")
    with served(tmp_path, tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        assert peer.ask("get-scope-info")["result"]["rows"]["messages"] == len(rows["messages"]) >= MESSAGES
    assert holds(path, rows)


def test_a_migration_on_a_full_disk_is_completed_with_space(tmp_path: Path, fixtures: Fixtures) -> None:
    """At whichever write the disk fills up, the start is refused or complete; no row is lost, and the next start with
    space completes it.
    """
    rows = rows_of(fixtures[TODAY], tmp_path / "before")
    refused = 0
    for writes in itertools.count():
        path = copied(fixtures[TODAY], tmp_path / f"full-{writes}")
        disk = FaultyDisk()
        disk.writes_until_full = writes
        try:
            store = SqliteStore(path, scope="default", vfs=disk.name)
        except CannotOpen as error:
            refused += 1
            assert "full" in str(error)  # noqa: PT017
        else:
            with suppress(apsw.FullError):  # at the checkpoint on closing
                store.close()
        look = tmp_path / f"look-{writes}"
        shutil.copytree(path.parent, look)
        assert version_of(look / "default.db") in range(TODAY, len(STEPS) + 1)
        assert holds(look / "default.db", rows), f"full at write {writes}"
        SqliteStore(path, scope="default").close()
        assert version_of(path) == len(STEPS)
        assert holds(path, rows), f"full at write {writes}"
        if not disk.full:
            break
    assert refused > 5


def test_a_failing_migration_keeps_the_version_before_it(
    tmp_path: Path, fixtures: Fixtures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier migrations stay applied, nothing of the failing one does, and a corrected one is applied at the next
    start.
    """
    path = copied(fixtures[TODAY], tmp_path / "data")
    broken = "CREATE TABLE drafts (id TEXT NOT NULL PRIMARY KEY) STRICT; CREATE TABLE pins (id TEXT) STRICT;"
    monkeypatch.setattr(opening, "migrations", lambda: [*STEPS, broken])
    with pytest.raises(CannotOpen, match="pins"):
        SqliteStore(path, scope="default")
    assert version_of(path) == len(STEPS)
    assert "drafts" not in all_rows(path)
    monkeypatch.setattr(opening, "migrations", lambda: [*STEPS, broken.partition(";")[0]])
    SqliteStore(path, scope="default").close()
    assert version_of(path) == len(STEPS) + 1
    assert holds(path, rows_of(fixtures[TODAY], tmp_path / "before"))
