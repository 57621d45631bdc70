"""Whose write-ahead log lies beside the database."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.wal_lineage import WalLineage
from tests.support.sql import sql
from tests.support.stores import command


def write(store: SqliteStore, key: str) -> None:
    with store.write() as transaction, command(transaction):
        transaction.run(sql("INSERT INTO meta (key, value) VALUES (:key, 'null')"), key=key)


def keys(store: SqliteStore) -> list[str]:
    with store.read() as snapshot:
        return [row[0] for row in snapshot.rows(sql("SELECT key FROM meta ORDER BY key"))]


def killed(path: Path, *written: str) -> bytes:
    """Make a database as a killed daemon leaves it, with `written` in its log; the log."""
    path.parent.mkdir(exist_ok=True)
    store = SqliteStore(path)
    for key in written:
        write(store, key)
    files = {each: each.read_bytes() for each in path.parent.iterdir()}
    store.close()
    for each, content in files.items():
        each.write_bytes(content)
    return files[path.with_name(path.name + "-wal")]


def test_a_log_of_its_own_is_replayed(tmp_path: Path) -> None:
    """What a killed daemon left in its log is there at the next start."""
    killed(tmp_path / "a" / "default.db", "one", "two")
    with closing(SqliteStore(tmp_path / "a" / "default.db")) as store:
        assert keys(store) == ["one", "two"]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_log_of_another_database_is_refused_and_nothing_is_changed(tmp_path: Path, how: str) -> None:
    """A log left over from elsewhere would silently replace pages; the message names both ways out, and they work."""
    path = tmp_path / "a" / "default.db"
    log, note = path.with_name("default.db-wal"), path.with_name("default.db-wal-lineage")
    own = killed(path, "mine")
    if how == "stopped":
        SqliteStore(path).close()
    log.write_bytes(killed(tmp_path / "b" / "default.db", "foreign", "other"))
    before = path.read_bytes()
    with pytest.raises(CannotOpen, match="seems to belong to another") as caught:
        SqliteStore(path)
    assert note.name in str(caught.value)
    assert path.read_bytes() == before
    log.unlink()
    path.with_name("default.db-shm").unlink(missing_ok=True)
    if how == "killed":
        log.write_bytes(own)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["mine"]


def test_a_crash_before_the_lineage_of_a_new_log_is_noted_is_no_obstacle(tmp_path: Path) -> None:
    """A start removes the note of the log before; so a log that begins after it is never held against that."""
    path = tmp_path / "a" / "default.db"
    killed(path, "one")
    SqliteStore(path).close()  # a clean stop: the log is gone, and its note is left
    note = path.with_name("default.db-wal-lineage")
    assert note.exists()
    WalLineage(path).check()
    assert not note.exists()
    with closing(apsw.Connection(str(path))) as connection:  # the log begins, and here comes the crash
        connection.execute("INSERT INTO meta (key, value) VALUES ('two', 'null')")
        files = {each: each.read_bytes() for each in path.parent.iterdir()}
    for each, content in files.items():
        each.write_bytes(content)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one", "two"]


def test_a_log_begun_anew_is_known_as_its_own(tmp_path: Path) -> None:
    """However often the log is begun anew, also by others who checkpoint the file, a crash then is no obstacle."""
    path = tmp_path / "a" / "default.db"
    path.parent.mkdir()
    store, salts = SqliteStore(path), set()
    with closing(apsw.Connection(str(path))) as other:
        for number in range(2_500):
            write(store, f"{number:04}")
            store.checkpoint_if_due()
            if number % 500 == 250:
                other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            salts.add(path.with_name("default.db-wal").read_bytes()[16:24])
        files = {each: each.read_bytes() for each in path.parent.iterdir()}
    store.close()
    for each, content in files.items():
        each.write_bytes(content)
    assert len(salts) > 5
    with closing(SqliteStore(path)) as store:
        assert len(keys(store)) == 2_500


def test_a_restart_beside_somebody_who_reads_is_no_obstacle(tmp_path: Path) -> None:
    """An outside connection keeps the log alive over a clean stop; the next owner's crash is survived all the same."""
    path = tmp_path / "a" / "default.db"
    path.parent.mkdir()
    SqliteStore(path).close()
    with closing(apsw.Connection(str(path))) as other:
        other.execute("SELECT * FROM meta").fetchall()
        for key in ("one", "two"):
            with closing(SqliteStore(path)) as store:
                write(store, key)
        store = SqliteStore(path)
        write(store, "three")
        files = {each: each.read_bytes() for each in path.parent.iterdir()}
    store.close()
    for each, content in files.items():
        each.write_bytes(content)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one", "three", "two"]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 31, b"x" * 32, b"\0" * 4096])
def test_what_is_no_log_belongs_to_nobody(tmp_path: Path, content: bytes) -> None:
    """An empty, cut off or garbled header belongs to nobody; SQLite ignores such a log, and so do we."""
    log = tmp_path / "default.db-wal"
    log.write_bytes(content)
    with closing(SqliteStore(tmp_path / "default.db")) as store:
        write(store, "one")
        assert keys(store) == ["one"]


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"nonsense " * 1_000])
def test_a_garbled_note_is_none(tmp_path: Path, note: bytes) -> None:
    """A note that names no log holds nothing against one."""
    path = tmp_path / "a" / "default.db"
    killed(path, "one")
    path.with_name("default.db-wal-lineage").write_bytes(note)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one"]


def test_noting_is_repeatable_and_leaves_no_other_file(tmp_path: Path) -> None:
    """A note is written in one step; where there is no log, none is written."""
    WalLineage(tmp_path / "default.db").write_note()
    assert list(tmp_path.iterdir()) == []
    killed(tmp_path / "a" / "default.db", "one")
    note = tmp_path / "a" / "default.db-wal-lineage"
    before = note.read_bytes()
    WalLineage(tmp_path / "a" / "default.db").write_note()
    assert note.read_bytes() == before
    assert not [each for each in (tmp_path / "a").iterdir() if each.name.endswith(".new")]
