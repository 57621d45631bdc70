"""Opening a scope: a database that lost its content is not mistaken for a new one."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.store import SqliteStore
from tests.support.messages import save_payload
from tests.support.requests import body, result, send
from tests.support.tables import all_rows


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


EACH_STARTS = {"lock", "pid", "reserve"}
LOST = pytest.mark.parametrize(("lose", "says"), [(emptied, "is empty"), (missing, "is missing")])
Lose = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database of a data directory, with a message in it, after a clean stop."""
    with InProcess(tmp_path / "data") as transport:
        result(transport, "save-message", save_payload(1))
    return tmp_path / "data" / "default.db"


def beside(path: Path) -> dict[str, bytes]:
    """The files in the directory of a database, without those that each process creates."""
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name not in EACH_STARTS}


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal-lineage")


def last_commit_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-last-commit")


@LOST
def test_an_empty_or_missing_database_is_refused(path: Path, lose: Lose, says: str) -> None:
    """SQLite would create a new one; the notes beside it show that it held data. Nothing is changed, and the error says
    what to do.
    """
    lose(path)
    before = beside(path)
    for _ in range(2):
        with pytest.raises(CannotOpen) as caught:
            SqliteStore(path, scope="default")
    message = str(caught.value)
    notes = f"{note_of(path).name} and {last_commit_of(path).name}"
    assert message.startswith(f"{path} {says}, but {notes} beside it show that it held data.")
    assert "Restore it from a backup" in message
    assert f"remove {notes} to start with an empty database" in message
    assert beside(path) == before


@LOST
def test_a_daemon_with_a_lost_database_exits_with_4(path: Path, lose: Lose, says: str) -> None:
    """It exits before it is ready, and changes no file."""
    lose(path)
    before = beside(path)
    command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(path.parent)]
    end = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (end.returncode, end.stdout) == (4, "")
    assert says in end.stderr
    assert "Traceback" not in end.stderr
    assert beside(path) == before


@LOST
def test_both_remedies_for_a_lost_database_work(path: Path, lose: Lose, says: str) -> None:
    """Restoring the file brings everything back; removing the notes starts with an empty database."""
    backup = path.read_bytes()
    lose(path)
    path.write_bytes(backup)
    SqliteStore(path, scope="default").close()
    assert len(all_rows(path)["messages"]) == 1
    lose(path)
    note_of(path).unlink()
    last_commit_of(path).unlink()
    with closing(SqliteStore(path, scope="default")) as store:
        assert store.seq == 0


@LOST
def test_the_wal_of_a_lost_database_is_kept(tmp_path: Path, lose: Lose, says: str) -> None:
    """After a crash part of the data is in the WAL, which may be needed to restore the file."""
    path = tmp_path / "crashed" / "default.db"
    with InProcess(tmp_path / "data") as transport:
        result(transport, "save-message", save_payload(1))
        path.parent.mkdir()
        for each in ("default.db", "default.db-wal", "default.db-wal-lineage"):
            (path.parent / each).write_bytes((tmp_path / "data" / each).read_bytes())
    lose(path)
    before = beside(path)
    assert before["default.db-wal"]
    with pytest.raises(CannotOpen, match=says):
        SqliteStore(path, scope="default")
    assert beside(path) == before


def test_requests_to_a_scope_with_a_lost_database_fail(tmp_path: Path) -> None:
    """The error is `storage`, not retryable; the scope is not started empty, and other scopes are served."""
    with InProcess(tmp_path / "data") as transport:
        send(transport, body("save-message", save_payload(1), scope="other"))
    [path] = (tmp_path / "data" / "scopes").glob("*.db")
    emptied(path)
    with InProcess(tmp_path / "data") as transport:
        for request in (body("save-message", save_payload(2), scope="other"), body("list-users", scope="other")):
            error = send(transport, request)["error"]
            assert (error["code"], error["retryable"]) == ("storage", False)
        assert path.stat().st_size == 0
        result(transport, "save-message", save_payload(1))


@pytest.mark.parametrize("lose", [emptied, missing])
def test_an_empty_file_without_a_note_is_a_new_database(tmp_path: Path, lose: Lose) -> None:
    """An empty file that was created by `touch`, say, is a new database, as it is for SQLite."""
    path = tmp_path / "default.db"
    emptied(path)
    lose(path)
    with closing(SqliteStore(path, scope="default")) as store:
        assert store.seq == 0
    assert note_of(path).exists()


ADDED = {
    "trigger": "CREATE TRIGGER evil AFTER INSERT ON messages BEGIN DELETE FROM users; END",
    "view": "CREATE VIEW evil AS SELECT 1",
    "virtual table": "CREATE VIRTUAL TABLE evil USING fts5(x)",
    "table": "CREATE TABLE evil (x)",
    "index": "CREATE INDEX evil ON messages (content)",
}


@pytest.mark.parametrize("added", ADDED.values(), ids=ADDED)
def test_objects_that_others_added_are_refused(path: Path, added: str) -> None:
    """The message names them, and the file is not changed; without them it opens."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(added)
    before = beside(path)
    with pytest.raises(CannotOpen, match="remove evil"):
        SqliteStore(path, scope="default")
    assert beside(path)["default.db"] == before["default.db"]
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"DROP {added.split()[1] if 'VIRTUAL' not in added else 'TABLE'} evil")
    SqliteStore(path, scope="default").close()


def test_no_connection_trusts_what_a_file_defines(path: Path) -> None:
    """Triggers and views do nothing, functions in a schema are restricted, and the schema cannot be written.

    Reads private connections: a file in which this could be seen is refused.
    """
    with closing(SqliteStore(path, scope="default")) as store, store.read() as snapshot:
        for connection in (store._writer, snapshot._connection):
            for setting, value in (
                (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
                (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
                (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
                (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
            ):
                assert connection.config(setting, -1) == value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("DELETE FROM commands WHERE seq > 5", "ends with 10, and the row found there is 5"),
        ("DELETE FROM commands WHERE seq < 3", "begins with 1, and the row found there is 3"),
        ("DELETE FROM commands", "ends with 10, and no row is there"),
        ("UPDATE sequence SET seq = 7", "counts 7 commands, but its command log ends with 10"),
        ("UPDATE sequence SET seq = 12", "ends with 12, and the row found there is 10"),
    ],
)
def test_a_log_that_does_not_fit_its_number_is_refused(tmp_path: Path, change: str, says: str) -> None:
    """Rows missing at an end of the command log, and a number ahead of or behind it, are noticed at the start."""
    with InProcess(tmp_path / "data") as transport:
        for number in range(10):
            result(transport, "save-message", save_payload(number))
    path = tmp_path / "data" / "default.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(change)
    with pytest.raises(CannotOpen, match=says):
        InProcess(tmp_path / "data")
