"""What a daemon finds when it starts: a database that lost its content is not taken for a new one."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

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


LOST = pytest.mark.parametrize(("lose", "says"), [(emptied, "is empty"), (missing, "is missing")])
Lose = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database of a data directory, with a message in it, after a clean stop."""
    with InProcess(tmp_path / "data") as transport:
        result(transport, "save-message", save_payload(1))
    return tmp_path / "data" / "default.db"


def beside(path: Path) -> dict[str, bytes]:
    """What lies in the directory of a database; of what comes and goes with each process nothing."""
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name not in ("lock", "pid")}


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal-lineage")


@LOST
def test_a_database_without_its_content_is_refused_with_what_to_do(path: Path, lose: Lose, says: str) -> None:
    """SQLite would take it for a new one; the note beside it shows that it is none. Nothing is made or changed."""
    lose(path)
    before = beside(path)
    for _ in range(2):
        with pytest.raises(CannotOpen) as caught:
            SqliteStore(path, scope="default")
    told = str(caught.value)
    assert told.startswith(f"{path} {says}, but {note_of(path).name} beside it shows that it held data.")
    assert "Restore it from a backup" in told
    assert f"remove {note_of(path).name} to start with an empty database" in told
    assert beside(path) == before


@LOST
def test_a_daemon_does_not_start_over_it(path: Path, lose: Lose, says: str) -> None:
    """It ends with 4 before it says that it is ready, and leaves everything as it is."""
    lose(path)
    before = beside(path)
    command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(path.parent)]
    end = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (end.returncode, end.stdout) == (4, "")
    assert says in end.stderr
    assert "Traceback" not in end.stderr
    assert beside(path) == before


@LOST
def test_both_ways_out_work(path: Path, lose: Lose, says: str) -> None:
    """With the backup in its place everything is there again; without the note an empty database begins."""
    backup = path.read_bytes()
    lose(path)
    path.write_bytes(backup)
    SqliteStore(path, scope="default").close()
    assert len(all_rows(path)["messages"]) == 1
    lose(path)
    note_of(path).unlink()
    with closing(SqliteStore(path, scope="default")) as store:
        assert store.seq == 0


@LOST
def test_its_write_ahead_log_is_not_taken_for_the_whole(tmp_path: Path, lose: Lose, says: str) -> None:
    """After a crash part of the data is in the log: that stays too, for whoever restores the file."""
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


def test_another_scope_without_its_content_is_told_to_its_callers(tmp_path: Path) -> None:
    """`storage`, which no retry helps; the scope is not begun anew, and the others are served."""
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
def test_a_database_that_never_held_anything_is_new(tmp_path: Path, lose: Lose) -> None:
    """Without the note an empty file, as a copy or `touch` makes it, is a beginning, as it is for SQLite itself."""
    path = tmp_path / "default.db"
    emptied(path)
    lose(path)
    with closing(SqliteStore(path, scope="default")) as store:
        assert store.seq == 0
    assert note_of(path).exists()
