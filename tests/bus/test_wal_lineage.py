"""Detecting a write-ahead log that belongs to another database."""

import gc
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.wal_lineage import FRAME_HEADER_BYTES, HEADER_BYTES, Moment, WalLineage
from tests.support.sql import sql
from tests.support.stores import command


def write(store: SqliteStore, key: str) -> None:
    with store.write() as transaction, command(transaction):
        transaction.run(sql("INSERT INTO meta (key, value) VALUES (:key, 'null')"), key=key)


def keys(store: SqliteStore) -> list[str]:
    with store.read() as snapshot:
        return [row[0] for row in snapshot.rows(sql("SELECT key FROM meta ORDER BY key"))]


def killed(path: Path, *written: str) -> bytes:
    """A database as a killed daemon leaves it, with `written` in its WAL; the path of the WAL."""
    path.parent.mkdir(exist_ok=True)
    store = SqliteStore(path)
    for key in written:
        write(store, key)
    files = {each: each.read_bytes() for each in path.parent.iterdir()}
    store.close()
    for each, content in files.items():
        each.write_bytes(content)
    return files[path.with_name(path.name + "-wal")]


def test_the_own_wal_is_replayed(tmp_path: Path) -> None:
    """What a killed daemon left in the WAL is there at the next start."""
    killed(tmp_path / "a" / "default.db", "one", "two")
    with closing(SqliteStore(tmp_path / "a" / "default.db")) as store:
        assert keys(store) == ["one", "two"]


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_an_interrupted_checkpoint_is_completed(tmp_path: Path, rows: int) -> None:
    """After any number of pages, in a new database too, of which the file then has only a part of its schema."""
    path = tmp_path / "a" / "default.db"
    path.parent.mkdir()
    with closing(SqliteStore(path)) as store:
        for number in range(rows):
            write(store, f"{number:04} {'x' * 500}")
        before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        store._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
        after, page_bytes = path.read_bytes(), store._writer.pragma("page_size")
    for written in range(page_bytes, len(after), page_bytes):  # SQLite writes them in their order
        place = tmp_path / f"{written}" / "default.db"
        place.parent.mkdir()
        for name, content in before.items():
            place.with_name(name).write_bytes(content)
        place.write_bytes(after[:written] + before["default.db"][written:])
        with closing(SqliteStore(place)) as store:
            assert len(keys(store)) == rows


@pytest.mark.parametrize("when", ["in use", "closing"])
def test_an_interrupted_store_leaves_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Unless a store was closed to the end, its connections leave the log that the note says is needed."""
    path = tmp_path / "default.db"
    store = SqliteStore(path)
    write(store, "one")
    assert keys(store) == ["one"]  # by a connection that stays open
    if when == "closing":
        with monkeypatch.context() as patch:
            patch.setattr(WalLineage, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.close()
    del store
    gc.collect()  # closes what is open
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one"]


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_wal_of_another_database_is_refused(tmp_path: Path, how: str) -> None:
    """It would silently replace pages; nothing is changed, and the remedy that the message names works."""
    path = tmp_path / "a" / "default.db"
    log = path.with_name("default.db-wal")
    own = killed(path, "mine")
    if how == "stopped":
        SqliteStore(path).close()
    log.write_bytes(killed(tmp_path / "b" / "default.db", "foreign", "other"))
    before = path.read_bytes()
    with pytest.raises(CannotOpen, match=r"belongs? to another database") as caught:
        SqliteStore(path)
    assert "default.db-shm away" in str(caught.value)
    assert path.read_bytes() == before
    log.unlink()
    path.with_name("default.db-shm").unlink(missing_ok=True)
    if how == "killed":
        log.write_bytes(own)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["mine"]


def test_a_crash_before_the_new_lineage_is_noted_is_survived(tmp_path: Path) -> None:
    """A start removes the note of the previous WAL, so that the next one is not compared with it."""
    path = tmp_path / "a" / "default.db"
    killed(path, "one")
    SqliteStore(path).close()  # a clean stop: the WAL is removed, and its note is left
    note = path.with_name("default.db-wal-lineage")
    assert note.exists()
    WalLineage(path).check()
    assert not note.exists()
    with closing(apsw.Connection(str(path))) as connection:  # the WAL begins, and the daemon crashes
        connection.execute("INSERT INTO meta (key, value) VALUES ('two', 'null')")
        files = {each: each.read_bytes() for each in path.parent.iterdir()}
    for each, content in files.items():
        each.write_bytes(content)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one", "two"]


def test_a_reset_wal_is_recognised(tmp_path: Path) -> None:
    """However often the WAL is reset, also by checkpoints of other processes, the database opens after a crash."""
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


def test_a_restart_with_an_outside_reader_is_survived(tmp_path: Path) -> None:
    """Another connection keeps the WAL over a clean stop, and the database opens after the next crash."""
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
def test_an_invalid_wal_is_ignored(tmp_path: Path, content: bytes) -> None:
    """An empty, cut off or invalid header is ignored, as SQLite does."""
    SqliteStore(tmp_path / "default.db").close()
    log = tmp_path / "default.db-wal"
    log.write_bytes(content)
    with closing(SqliteStore(tmp_path / "default.db")) as store:
        write(store, "one")
        assert keys(store) == ["one"]


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"nonsense " * 1_000])
def test_an_invalid_note_is_ignored(tmp_path: Path, note: bytes) -> None:
    """A note without a valid salt refuses no WAL."""
    path = tmp_path / "a" / "default.db"
    killed(path, "one")
    path.with_name("default.db-wal-lineage").write_bytes(note)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one"]


def test_a_lost_wal_can_be_given_up(tmp_path: Path) -> None:
    """The file that the error names lets the database open once with what it has; the next loss is noticed again."""
    path = tmp_path / "a" / "default.db"
    killed(path, "one")
    SqliteStore(path).close()
    killed(path, "two")
    for _ in range(2):
        path.with_name("default.db-wal").unlink()
        with pytest.raises(CannotOpen, match=r"create an empty file default.db-wal-lost"):
            SqliteStore(path)
        path.with_name("default.db-wal-lost").touch()
        store = SqliteStore(path)
        assert keys(store)[0] == "one"
        files = {each: each.read_bytes() for each in path.parent.iterdir()}
        store.close()
        for each, content in files.items():
            each.write_bytes(content)


def test_what_a_transaction_wrote_that_was_rolled_back_is_ignored(tmp_path: Path) -> None:
    """SQLite writes pages before the commit if its cache is full; they stay in the WAL, behind later commits that are
    shorter, and are of a time when there were fewer commits.
    """
    path = tmp_path / "a" / "default.db"
    path.parent.mkdir()
    SqliteStore(path).close()  # so that the database itself has the tables
    log = path.with_name("default.db-wal")
    content = killed(path, "one", "two", "three")
    frame_bytes = FRAME_HEADER_BYTES + int.from_bytes(content[8:12], "big")
    log.write_bytes(
        content + content[HEADER_BYTES : HEADER_BYTES + frame_bytes]
    )  # the first commit's page of `sequence`
    note = WalLineage(path)
    found = note.read()
    assert found is not None
    note.write(Moment(found.lineage, found.commits + 3), in_use=True)
    with closing(SqliteStore(path)) as store:
        assert keys(store) == ["one", "three", "two"]
