"""The store alone: its tables, its settings, its WAL, and files that it refuses to open."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from peewee import BlobField, CompositeKey, IntegerField, TextField

from backscroll.bus.failures import CannotOpen
from backscroll.bus.sqlite.store import WAL_PAGES_BEFORE_CHECKPOINT, SqliteStore
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from backscroll.schema.tables import TABLES, Table
from tests.support.disks import FaultyDisk
from tests.support.sql import sql
from tests.support.stores import command
from tests.support.tables import all_rows
from tests.support.waiting import wait_until

PAGE_BYTES = 4096
INSERT = sql("INSERT INTO meta (key, value) VALUES (:key, :value)")
COUNT = sql("SELECT count(*) FROM meta")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "default.db"


def write(store: SqliteStore, *keys: str, value: str = "null") -> None:
    """One commit, with one command for each key."""
    with store.write() as transaction:
        for key in keys:
            with command(transaction):
                transaction.run(INSERT, key=key, value=value)


def count(store: SqliteStore) -> int:
    with store.read() as snapshot:
        return int(snapshot.rows(COUNT)[0][0])


def log_bytes(path: Path) -> int:
    log = path.with_name(path.name + "-wal")
    return log.stat().st_size if log.exists() else 0


# Tables and settings


def declared(table: type[Table]) -> dict[str, tuple[str, bool, int]]:
    """What `tables.py` declares of a table: for each column its type, whether NOT NULL, and its position in the key."""
    meta = table._meta
    primary_key: Any = meta.primary_key
    key = primary_key.field_names if isinstance(primary_key, CompositeKey) else (primary_key.name,)
    types = {IntegerField: "INTEGER", TextField: "TEXT", BlobField: "BLOB"}
    return {
        field.column_name: (
            next(name for base, name in types.items() if isinstance(field, base)),
            not field.null,
            key.index(name) + 1 if name in key else 0,
        )
        for name, field in meta.fields.items()
    }


def test_migrations_make_exactly_the_declared_tables(path: Path) -> None:
    """Columns, types, NOT NULL and keys are those of `schema/tables.py`, and every table is STRICT."""
    with closing(SqliteStore(path)) as store, store.read() as snapshot:
        tables = {row[1]: row for row in snapshot.rows(sql("PRAGMA table_list")) if not row[1].startswith("sqlite_")}
        made = {
            name: {
                row[1]: (row[2], bool(row[3]), row[5])
                for row in snapshot.rows(sql("SELECT * FROM pragma_table_info(:name)"), name=name)
            }
            for name in tables
        }
    assert made == {table._meta.table_name: declared(table) for table in TABLES}
    assert all(row[5] for row in tables.values())


def test_the_file_header_identifies_the_application(path: Path) -> None:
    """Application id and version are in the header, the file is intact, and its journal is a WAL."""
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as other:
        pragmas = {
            name: other.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "journal_mode", "integrity_check")
        }
        assert other.execute("PRAGMA foreign_key_check").fetchall() == []
    assert pragmas == {
        "application_id": APPLICATION_ID,
        "user_version": len(migrations()),
        "journal_mode": "wal",
        "integrity_check": "ok",
    }


def test_connections_have_the_documented_pragmas(path: Path) -> None:
    """The writer is synchronous FULL with foreign keys and secure delete; readers cannot write."""
    with closing(SqliteStore(path)) as store:
        with store.write() as transaction:
            found = {
                name: transaction.rows(sql(f"PRAGMA {name}"))[0][0]
                for name in ("synchronous", "foreign_keys", "secure_delete", "mmap_size")
            }
        assert found == {"synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "mmap_size": 0}
        with store.read() as snapshot, pytest.raises(apsw.ReadOnlyError):
            snapshot.rows(INSERT, key="k", value="null")
        assert count(store) == 0


def test_a_commit_is_synced_before_it_is_visible(path: Path) -> None:
    """`seq` advances, and readers see a command, only once the disk has taken it."""
    disk = FaultyDisk()
    with closing(SqliteStore(path, vfs=disk.name)) as store:
        disk.syncs_open.clear()
        writer = threading.Thread(target=write, args=(store, "k"))
        writer.start()
        try:
            wait_until(lambda: disk.syncs_blocked)
            assert store.seq == 0
            assert count(store) == 0
        finally:
            disk.syncs_open.set()
            writer.join()
        assert store.seq == 1
        assert count(store) == 1


# Transactions


def test_a_reader_sees_a_snapshot(path: Path) -> None:
    """Commits during a query are not visible in it or in its `seq`; the next query sees them."""
    with closing(SqliteStore(path)) as store:
        write(store, "a")
        with store.read() as snapshot:
            write(store, "b", "c")
            assert snapshot.rows(COUNT) == [(1,)]
            assert snapshot.position.seq == 1
        assert store.seq == 3
        assert count(store) == 3


def test_an_error_rolls_back_the_whole_transaction(path: Path) -> None:
    """`seq` does not change."""
    with closing(SqliteStore(path)) as store:
        write(store, "a")
        with suppress(ZeroDivisionError), store.write() as transaction:
            with command(transaction):
                transaction.run(INSERT, key="b", value="null")
            raise ZeroDivisionError
        assert (store.seq, count(store)) == (1, 1)
        write(store, "b")
        assert (store.seq, count(store)) == (2, 2)


def test_a_failed_command_takes_no_number(path: Path) -> None:
    """Its writes are rolled back, those of the other commands are kept, and they are numbered without it."""
    with closing(SqliteStore(path)) as store:
        with store.write() as transaction:
            for at in range(10):
                try:
                    with command(transaction):
                        transaction.run(INSERT, key=f"{at}", value="null")
                        transaction.run(INSERT, key="same", value="null")
                        if at:
                            transaction.run(sql("DELETE FROM meta WHERE key = 'same'"))
                except apsw.ConstraintError:
                    assert at > 0
        assert (store.seq, count(store)) == (1, 2)


def test_seq_survives_closing_and_opening(path: Path) -> None:
    """The number of the last command is in the file."""
    for at in range(5):
        with closing(SqliteStore(path)) as store:
            assert store.seq == at
            write(store, f"k{at}")


def test_snapshots_are_consistent_under_load(path: Path) -> None:
    """Every snapshot has as many rows as its `seq` says, however much is written."""
    wrong: list[tuple[int, int]] = []
    done = threading.Event()

    def read(store: SqliteStore) -> None:
        while not done.is_set():
            with store.read() as snapshot:
                [(rows,)] = snapshot.rows(COUNT)
                if rows != snapshot.position.seq:
                    wrong.append((rows, snapshot.position.seq))

    with closing(SqliteStore(path)) as store:
        readers = [threading.Thread(target=read, args=(store,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for at in range(200):
            write(store, *(f"{at}-{number}" for number in range(3)))
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == []


# The WAL


def test_the_wal_stays_small_over_many_small_commits(path: Path, long: bool) -> None:
    """Checkpoints keep it near the size at which they are due."""
    largest = 0
    with closing(SqliteStore(path)) as store:
        for at in range(100_000 if long else 20_000):
            write(store, f"{at}")
            store.checkpoint_if_due()
            if at % 100 == 0:
                largest = max(largest, log_bytes(path))
        assert count(store) == store.seq
    assert largest < 2 * WAL_PAGES_BEFORE_CHECKPOINT * PAGE_BYTES


def test_the_wal_stays_bounded_under_continuous_queries(path: Path) -> None:
    """The WAL is reset even if some snapshot is open at every moment, none of them for long."""
    done = threading.Event()

    def read(store: SqliteStore) -> None:
        while not done.is_set():
            with store.read() as snapshot:
                snapshot.rows(sql("SELECT count(*), sum(length(value)) FROM meta"))

    with closing(SqliteStore(path)) as store:
        readers = [threading.Thread(target=read, args=(store,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        largest = 0
        for at in range(3_000):
            write(store, f"{at}", value='"' + "x" * 3_000 + '"')
            store.checkpoint_if_due()
            largest = max(largest, log_bytes(path))
        done.set()
        for reader in readers:
            reader.join()
    assert largest < 32 * 2**20


def test_a_long_snapshot_does_not_block_commits(path: Path) -> None:
    """The WAL grows while the snapshot needs it, the snapshot stays the same, and afterwards the WAL shrinks."""
    value = '"' + "x" * 4_000 + '"'
    with closing(SqliteStore(path)) as store:
        write(store, "first")
        with store.read() as snapshot:
            for at in range(3 * WAL_PAGES_BEFORE_CHECKPOINT // 20):
                write(store, *(f"{at}-{number}" for number in range(20)), value=value)
                store.checkpoint_if_due()
            assert snapshot.rows(COUNT) == [(1,)]
        grown = log_bytes(path)
        assert grown > 2 * WAL_PAGES_BEFORE_CHECKPOINT * PAGE_BYTES
        for at in range(4 * WAL_PAGES_BEFORE_CHECKPOINT // 20):
            write(store, *(f"later {at}-{number}" for number in range(20)), value=value)
            store.checkpoint_if_due()
        assert log_bytes(path) < grown + WAL_PAGES_BEFORE_CHECKPOINT * PAGE_BYTES  # it was reset


def test_closing_leaves_a_single_file(path: Path) -> None:
    """After closing there are only notes beside the database, and everything is in it."""
    store = SqliteStore(path)
    write(store, *(str(at) for at in range(100)))
    assert count(store) == 100
    store.close()
    assert {each.name for each in path.parent.iterdir()} == {
        "default.db",
        "default.db-wal-lineage",
        "default.db-last-commit",
    }
    assert len(all_rows(path)["meta"]) == 100


def test_running_queries_can_be_interrupted(path: Path) -> None:
    """`interrupt_readers()` ends running statements, and the reader can be used again."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    caught: list[Exception] = []

    def run() -> None:
        try:
            with store.read() as snapshot:
                snapshot.rows(sql(endless))
        except apsw.Error as error:
            caught.append(error)

    with closing(SqliteStore(path)) as store:
        reader = threading.Thread(target=run)
        reader.start()

        def is_broken_off() -> bool:
            store.interrupt_readers()
            return not reader.is_alive()

        wait_until(is_broken_off)
        assert [type(error) for error in caught] == [apsw.InterruptError]
        assert count(store) == 0


# Refused files


def from_the_future(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("user_version", len(migrations()) + 1)


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def of_another_program_with_an_id(path: Path) -> None:
    path.unlink()
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("application_id", 1)


def changed_by_hand(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("DROP INDEX messages_by_room; CREATE INDEX of_ones_own ON messages (timestamp)")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (from_the_future, "Use the newer backscroll"),
        (of_another_program, "Name another data directory"),
        (of_another_program_with_an_id, "Name another data directory"),
        (lambda path: path.write_bytes(b"no database" * 1_000), "`backscroll repair`"),
        (lambda path: path.write_bytes(b"x"), "`backscroll repair`"),
        (lambda path: os.truncate(path, PAGE_BYTES), "`backscroll repair`"),
        (lambda path: os.truncate(path, 5 * PAGE_BYTES + 1), "`backscroll repair`"),
        (a_directory, "Is it a file"),
        (changed_by_hand, "lacks messages_by_room, or they were altered"),
    ],
)
def test_files_of_others_are_refused_and_not_changed(path: Path, harm: Callable[[Path], object], says: str) -> None:
    """The message names the file and says what to do."""
    SqliteStore(path).close()
    harm(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(CannotOpen, match=says) as caught:
        SqliteStore(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 4
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_read_only_file_is_refused(path: Path) -> None:
    """It is refused when it is opened, and not at the first command."""
    SqliteStore(path).close()
    disk = FaultyDisk()
    disk.opens_read_only = True
    with pytest.raises(CannotOpen, match="is read-only"):
        SqliteStore(path, vfs=disk.name)


def test_a_locked_file_is_refused_after_the_wait(path: Path) -> None:
    """The message says that another process has locked it."""
    SqliteStore(path).close()
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CannotOpen, match="locked by another process"):
            SqliteStore(path, lock_wait_ms=20)
    SqliteStore(path).close()


# Migrations


def tables_made(version: int) -> int:
    """The number of tables that the first migrations make."""
    with closing(apsw.Connection(":memory:")) as fresh:
        for script in migrations()[:version]:
            fresh.execute(script)
        return len(fresh.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table'").fetchall())


def test_a_failed_migration_leaves_the_file_unchanged(path: Path) -> None:
    """At whichever write the disk fills up, the next start with space completes the migration."""
    writes = 0
    while True:
        disk = FaultyDisk()
        disk.writes_until_full = writes
        try:
            SqliteStore(path, vfs=disk.name).close()
            if not disk.full:
                break
        except (CannotOpen, apsw.FullError):  # the latter at the checkpoint on closing
            pass
        if path.exists() and path.stat().st_size:
            with closing(apsw.Connection(str(path))) as connection:
                version = connection.pragma("user_version")
                tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").fetchall()[0][0]
                assert tables == tables_made(version)
        for each in path.parent.iterdir():
            each.unlink()
        writes += 1
    assert writes > 10
    SqliteStore(path).close()


def test_a_start_completes_a_failed_earlier_start(path: Path) -> None:
    """Files left by a start that ran out of space do not prevent the next one."""
    for writes in range(0, 60, 3):
        disk = FaultyDisk()
        disk.writes_until_full = writes
        try:
            store = SqliteStore(path, vfs=disk.name)
            disk.writes_until_full, disk.full = None, False
            store.close()
        except CannotOpen as error:
            assert "full" in str(error)  # noqa: PT017
    with closing(SqliteStore(path)) as store:
        write(store, "k")
        assert count(store) == 1
