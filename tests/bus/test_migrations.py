"""Migrations: files of older schema versions are brought to the current one with every row, whatever interrupts it."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from tests import ROOT
from tests.support.disks import FaultyDisk
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.tables import Rows, all_rows

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("schema-*.db"))
OLDEST = FIXTURES[0]
EVERY_WRITE = 10_000

CHILD = """
import sys
sys.path.append({root!r})
from pathlib import Path
from tests.support.disks import StoppingDisk
from backscroll.bus.sqlite.store import SqliteStore

disk = StoppingDisk({writes}, lambda: print("stopped", flush=True))
SqliteStore(Path({path!r}), scope="default", vfs=disk.name).close()
print(disk.writes, flush=True)
sys.stdin.read()
"""

every_fixture = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)


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


def test_there_is_a_fixture_of_every_older_version() -> None:
    """A file of each earlier schema version is stored as it was written."""
    assert [path.stem for path in FIXTURES] == [f"schema-{version}" for version in range(1, len(migrations()))]
    for version, fixture in enumerate(FIXTURES, start=1):
        header = fixture.read_bytes()[:100]
        assert int.from_bytes(header[60:64], "big") == version
        assert int.from_bytes(header[68:72], "big") == APPLICATION_ID


@every_fixture
def test_an_older_file_gets_the_current_schema(tmp_path: Path, fixture: Path) -> None:
    """Its tables, indexes and comments become those of a new file, and every row and the `seq` are kept."""
    rows = rows_of(fixture, tmp_path / "before")
    path = copied(fixture, tmp_path / "data")
    with closing(SqliteStore(path, scope="default")) as store:
        seq = store.seq
    SqliteStore(tmp_path / "fresh.db", scope="default").close()
    assert definitions(path) == definitions(tmp_path / "fresh.db")
    assert version_of(path) == len(migrations())
    assert any(rows.values())
    assert holds(path, rows)
    with closing(SqliteStore(path, scope="default")) as store:
        assert store.seq == seq > 0


@every_fixture
def test_a_daemon_serves_an_older_file(tmp_path: Path, fixture: Path) -> None:
    """It reads the old rows, and `seq` continues where the file ended."""
    rows = rows_of(fixture, tmp_path / "before")
    copied(fixture, tmp_path / "data")
    with DaemonProcess(tmp_path / "data", "--log-level", "error") as daemon, Peer(daemon.endpoint) as peer:
        info = peer.ask("get-scope-info")
        counted = info["result"]["rows"]
        assert {name: counted.get(name) for name in rows.keys() - {"mentions"}} == {
            name: len(each) for name, each in rows.items() if name != "mentions"
        }
        assert info["result"]["schemaVersion"] == len(migrations())
        assert peer.ask("save-message", save_payload("new"))["seq"] == info["seq"] + 1


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    """Opening a file of the current version changes nothing."""
    path = copied(OLDEST, tmp_path / "data")
    SqliteStore(path, scope="default").close()
    rows, defined = all_rows(path), definitions(path)
    SqliteStore(path, scope="default").close()
    assert (all_rows(path), definitions(path)) == (rows, defined)


def migrate_in_child(path: Path, writes: int) -> subprocess.Popen[str]:
    """Open a file in a process of its own, on a disk that blocks at a given write."""
    script = CHILD.format(root=str(ROOT), writes=writes, path=str(path))
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


def test_a_killed_migration_is_completed_at_the_next_start(tmp_path: Path, long: bool) -> None:
    """After `kill -9` at any write the file is of one version or another with every row, and never in between."""
    rows = rows_of(OLDEST, tmp_path / "before")
    versions = set()
    whole = copied(OLDEST, tmp_path / "whole")
    for number in moments(whole, 200 if long else 16):
        path = copied(OLDEST, tmp_path / f"killed-{number}")
        assert line_of(migrate_in_child(path, number)) == "stopped"
        look = tmp_path / f"look-{number}"
        shutil.copytree(path.parent, look)
        version = version_of(look / "default.db")
        versions.add(version)
        assert 1 <= version <= len(migrations())
        assert holds(look / "default.db", rows), f"killed at write {number}"
        with closing(SqliteStore(path, scope="default")) as store:
            assert store.seq > 0
        assert version_of(path) == len(migrations())
        assert definitions(path) == definitions(whole)
        assert holds(path, rows), f"killed at write {number}"
    assert versions == set(range(1, len(migrations()) + 1))


def test_a_daemon_starts_after_a_killed_migration(tmp_path: Path) -> None:
    """It serves everything that the file had."""
    path = copied(OLDEST, tmp_path / "data")
    middle = list(moments(copied(OLDEST, tmp_path / "whole"), 3))[1]
    assert line_of(migrate_in_child(path, middle)) == "stopped"
    with DaemonProcess(tmp_path / "data", "--log-level", "error") as daemon, Peer(daemon.endpoint) as peer:
        assert peer.ask("get-scope-info")["result"]["rows"]["messages"] == 204
    assert holds(path, rows_of(OLDEST, tmp_path / "before"))


def test_a_migration_on_a_full_disk_is_completed_with_space(tmp_path: Path) -> None:
    """At whichever write the disk fills up, the start is refused or complete; no row is lost, and the next start with
    space completes it.
    """
    rows = rows_of(OLDEST, tmp_path / "before")
    refused = 0
    for writes in itertools.count():
        path = copied(OLDEST, tmp_path / f"full-{writes}")
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
        assert version_of(look / "default.db") in range(1, len(migrations()) + 1)
        assert holds(look / "default.db", rows), f"full at write {writes}"
        SqliteStore(path, scope="default").close()
        assert version_of(path) == len(migrations())
        assert holds(path, rows), f"full at write {writes}"
        if not disk.full:
            break
    assert refused > 5
