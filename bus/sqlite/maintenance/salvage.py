"""Reading what can be read of a damaged database, row by row, with nothing but SQL.

A table is read in the order of its key. Where a page is damaged, SQLite raises an error, and what was read before it is
good; so the table is read from its other end, too, and between the two places from keys in the middle, which its
indexes name. An index also names the rows that are lost.

    read upwards ──▶ ✗ lo      keys between lo and hi, from indexes,      hi ✗ ◀── read downwards
                               halving the ranges that remain unread

Statements are made from the names of tables, columns and indexes, because this module reads tables as SQLite stores
them, whatever they mean.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.opening import open_alone
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations

DAMAGE = (
    *(apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.TooBigError, apsw.NoMemError),
    *(UnicodeDecodeError, OverflowError),
)
"""What reading a damaged page can raise. Of an I/O error it makes no difference whether SQLite or the disk found it."""
PROBES_MAX = 2_000
"""From so many keys reading is tried between the two ends of what is damaged in a table."""
TELL_EVERY = 1_000  # rows
KNOWN = "known"
"""The attached database with the keys that indexes name, one table for each that is damaged."""
SEEN = "seen_"
"""How the names of tables there begin with rows that were only seen."""
TAKEN = "commands_taken"
"""The table there with the numbers of the rows of the log that are from elsewhere."""
OTHER = "other"
"""The attached database with rows from elsewhere, which fill in those that are lost."""

Key = tuple[Any, ...]
Row = tuple[Any, ...]


class Index(NamedTuple):
    """An index: what it is ordered by, and all columns that can be read from it alone."""

    name: str
    order: tuple[str, ...]
    columns: tuple[str, ...]


class Table(NamedTuple):
    """A table: `stored_by` are the columns that its rows are stored by (or `rowid`), `key` those that name a row."""

    name: str
    columns: tuple[str, ...]
    stored_by: tuple[str, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...]

    @property
    def read(self) -> tuple[str, ...]:
        """The columns to read and to write: all, and the rowid if rows are stored by it."""
        return self.columns if set(self.stored_by) <= set(self.columns) else (*self.stored_by, *self.columns)


class TableFound(NamedTuple):
    """What was read of a table: whether all of it, and if not, whether an index names all rows that it had."""

    whole: bool
    all_keys_known: bool = False


def create_empty(path: Path, version: int, *, reserved_bytes: int = 0) -> apsw.Connection:
    """Create a database with the tables of a version and no rows. Nothing is synced: it is copied in the end."""
    connection = apsw.Connection(str(path))
    if reserved_bytes:
        connection.reserve_bytes(reserve=reserved_bytes)
    connection.pragma("journal_mode", "off")
    connection.pragma("synchronous", "off")
    for script in migrations()[:version]:
        connection.execute(script)
    for table in tables_of(connection):  # a migration may insert rows
        connection.execute(f"DELETE FROM {table.name}")
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", version)
    connection.pragma("foreign_keys", False)
    return connection


def tables_of(connection: apsw.Connection) -> list[Table]:
    """The tables of an intact database."""
    rows: Any = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
    return [_table(connection, name, sql) for name, sql in rows.fetchall() if not name.startswith("sqlite_")]


def _table(connection: apsw.Connection, name: str, sql: str) -> Table:
    described: Any = connection.execute(f"PRAGMA table_info({name})").fetchall()
    columns = tuple(row[1] for row in described)
    key = tuple(row[1] for row in sorted((row for row in described if row[5]), key=lambda row: row[5]))
    is_number = len(key) == 1 and next(row[2] for row in described if row[1] == key[0]) == "INTEGER"
    stored_by = key if "WITHOUT ROWID" in sql or is_number else ("rowid",)
    listed: Any = connection.execute(f"PRAGMA index_list({name})").fetchall()
    indexes = (_index(connection, row[1], stored_by) for row in listed if not row[4])
    # The primary key of a table without row ids is the table itself.
    return Table(name, columns, stored_by, key, tuple(each for each in indexes if each.order != stored_by))


def _index(connection: apsw.Connection, name: str, stored_by: tuple[str, ...]) -> Index:
    described: Any = connection.execute(f"PRAGMA index_xinfo({name})").fetchall()
    named = tuple(row[2] for row in described if row[2] is not None)
    order = tuple(row[2] for row in described if row[2] is not None and row[5])
    return Index(name, order, tuple(dict.fromkeys((*named, *stored_by))))


def open_damaged(path: Path) -> apsw.Connection:
    """Open a database that may be damaged, with its write-ahead log, without writing anything; raises `DAMAGE`.

    With `writable_schema`, SQLite reads a file that is shorter than its header says.
    """
    connection = open_alone(path)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.pragma("writable_schema", True)
        connection.pragma("cell_size_check", True)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


class Salvage:
    """Fills an empty database with what can be read of a damaged one. `found` has what was read of each table.

    The keys that indexes name are kept in a database beside the target, so memory does not grow with the tables.
    """

    def __init__(self, target: apsw.Connection, scratch: Path, progress: Progress) -> None:
        self._target = target
        self._progress = progress
        self.tables = {table.name: table for table in tables_of(target)}
        self.found: dict[str, TableFound] = {}
        self.refused = 0  # rows that contradict the definition of their table
        target.execute(f"ATTACH :path AS {KNOWN}", {"path": str(scratch / "known.db")})
        target.execute(f"PRAGMA {KNOWN}.journal_mode = off")
        target.execute(f"PRAGMA {KNOWN}.synchronous = off")
        target.execute(f"CREATE TABLE {KNOWN}.{TAKEN} (seq INTEGER PRIMARY KEY)")
        for table in self.tables.values():
            self.found[table.name] = TableFound(whole=False)
            columns = dict.fromkeys((*table.stored_by, *table.columns))
            definition = ", ".join("rowid INTEGER" if name == "rowid" else name for name in columns)
            target.execute(
                f"CREATE TABLE {KNOWN}.{table.name} ({definition}, PRIMARY KEY ({', '.join(table.stored_by)}))"
            )

    def read(self, source: apsw.Connection) -> None:
        """Add what can be read of a source to what was read before. What is there already stays."""
        for table in self.tables.values():
            with self._target:
                if not self.found[table.name].whole:
                    self.found[table.name] = self._read_table(source, table)

    def read_log(self, source: apsw.Connection, also: Iterable[str]) -> bool:
        """Add rows of the command log that a source has behind those that were read; whether there are any.

        Rows of other tables are only kept for `take_columns`.
        """
        for name in also:
            table = self.tables[name]
            columns = ", ".join("rowid INTEGER" if column == "rowid" else column for column in table.read)
            self._target.execute(f"CREATE TABLE {KNOWN}.{SEEN}{name} ({columns})")
            text = f"INSERT INTO {KNOWN}.{SEEN}{name} VALUES ({_marks(table.read)})"
            Scan(source, table, partial(self._target.execute, text)).run()
        insert = self._insert(self.tables["commands"])
        [(last,)] = _all(self._target, "SELECT coalesce(max(seq), 0) FROM main.commands")
        with self._target:
            scanned = Scan(source, self.tables["commands"], insert).run(after=(last,))
        return scanned.last is not None

    def _read_table(self, source: apsw.Connection, table: Table) -> TableFound:
        scan = Scan(source, table, self._insert(table))
        upwards = scan.run()
        if upwards.complete:
            return TableFound(whole=True)
        downwards = scan.run(after=upwards.last, descending=True)
        if downwards.complete:
            return TableFound(whole=True)
        all_known = self._note_keys(source, table)
        probe(scan, upwards.last, downwards.last, self._keys_between(table, upwards.last, downwards.last))
        self._forget_keys_read(table)
        return TableFound(whole=False, all_keys_known=all_known)

    def _insert(self, table: Table) -> Callable[[Row], None]:
        text = f"INSERT OR IGNORE INTO main.{table.name} ({', '.join(table.read)}) VALUES ({_marks(table.read)})"
        step, count = f"reading {table.name}", 0

        def insert(row: Row) -> None:
            nonlocal count
            try:
                self._target.execute(text, row)
            except (apsw.ConstraintError, apsw.MismatchError):  # of a page without a checksum
                self.refused += 1
            count += 1
            if count % TELL_EVERY == 0:
                self._progress(step, count, None)

        return insert

    def _note_keys(self, source: apsw.Connection, table: Table) -> bool:
        """Note what the indexes of a table say of its rows. Returns whether one of them names all rows."""
        complete = [self._note_keys_of(source, table, index) for index in table.indexes]
        return any(
            whole and set(table.key) <= set(index.columns) for whole, index in zip(complete, table.indexes, strict=True)
        )

    def _note_keys_of(self, source: apsw.Connection, table: Table, index: Index) -> bool:
        others = [name for name in index.columns if name not in table.stored_by]
        update = ", ".join(f"{name} = excluded.{name}" for name in others)
        text = (
            f"INSERT INTO {KNOWN}.{table.name} ({', '.join(index.columns)}) VALUES ({_marks(index.columns)})"
            f" ON CONFLICT DO {f'UPDATE SET {update}' if update else 'NOTHING'}"
        )
        by_index = Table(table.name, index.columns, index.order, index.order, ())
        scan = Scan(source, by_index, lambda row: self._target.execute(text, row), index.name)
        return scan.run().complete or scan.run(descending=True).complete

    def _keys_between(self, table: Table, low: Key | None, high: Key | None) -> list[Key]:
        """Keys of unread rows, at most `PROBES_MAX`; any numbers if no index names one and rows have numbers."""
        key = ", ".join(table.stored_by)
        condition, values = _between(table.stored_by, low, high)
        numbered = f"SELECT {key}, row_number() OVER (ORDER BY {key}) AS n FROM {KNOWN}.{table.name}{condition}"
        [(count,)] = _all(self._target, f"SELECT count(*) FROM {KNOWN}.{table.name}{condition}", values)
        step = max(1, count // PROBES_MAX)
        keys = _all(self._target, f"SELECT {key} FROM ({numbered}) WHERE n % {step} = 0 ORDER BY n", values)
        if keys or low is None or high is None or not (isinstance(low[-1], int) and len(table.stored_by) == 1):
            return keys
        return [(number,) for number in range(low[0] + 1, high[0], max(1, (high[0] - low[0]) // PROBES_MAX))]

    def _forget_keys_read(self, table: Table) -> None:
        self._target.execute(f"DELETE FROM {KNOWN}.{table.name} WHERE {_exists(table.name, table.stored_by)}")

    # What is lost

    def note(self, table: str, **columns: Any) -> None:
        """Note that a table had a row with these columns, which is lost."""
        text = f"INSERT OR IGNORE INTO {KNOWN}.{table} ({', '.join(columns)}) VALUES ({_marks(columns)})"
        self._target.execute(text, tuple(columns.values()))

    def fill(self, table: str, other: Path, *, only_known: bool) -> int:
        """Add the rows of another database that are missing here, and return how many.

        With `only_known`, those that an index names, if there is one that names all.
        """
        with self._attached(other):
            return self._fill(table, only_known=only_known)

    def take_log(self, other: Path) -> None:
        """Add the rows of the log that another database has and this one lacks, and note which they are."""
        with self._attached(other):
            missing = f"SELECT seq FROM {OTHER}.commands EXCEPT SELECT seq FROM main.commands"
            self._target.execute(f"INSERT OR IGNORE INTO {KNOWN}.{TAKEN} {missing}")
            self._fill("commands", only_known=False)

    def take_columns(self, table: str, columns: Iterable[str]) -> None:
        """Take columns of rows that were seen with `read_log`, where all others are as they are here."""
        of = self.tables[table]
        values = ", ".join(f"{name} = seen.{name}" for name in columns)
        same = " AND ".join(f"ours.{name} IS seen.{name}" for name in of.columns if name not in set(columns))
        self._target.execute(
            f"UPDATE main.{table} AS ours SET {values} FROM {KNOWN}.{SEEN}{table} AS seen WHERE {same}"
        )

    def copy_until(self, seq: int, path: Path, *, log_is_whole: bool) -> None:
        """Copy what was read to a new file, as the store that it was after a command.

        If its log is not whole, it is no part of the store, and the result of that command is forgotten: its row is
        left out, so it would not be erased.
        """
        self._target.execute("VACUUM INTO :path", {"path": str(path)})
        with closing(apsw.Connection(str(path))) as copy:
            copy.pragma("journal_mode", "memory")
            copy.execute("DELETE FROM commands WHERE seq > :seq", {"seq": seq})
            copy.execute("UPDATE sequence SET closed = 1")
            if not log_is_whole:
                copy.execute("UPDATE sequence SET log_from = seq + 1")
                copy.execute("DELETE FROM commands WHERE seq = :seq", {"seq": seq})
        if not log_is_whole:
            forget = "UPDATE main.commands SET result = x'' WHERE seq = :seq AND result IS NOT NULL"
            self._target.execute(forget, {"seq": seq})

    def has_taken_log(self) -> bool:
        """Whether there are rows of the log from elsewhere."""
        return bool(_all(self._target, f"SELECT 1 FROM {KNOWN}.{TAKEN} LIMIT 1"))

    def retake_log(self, other: Path, *, all_rows: bool = False) -> None:
        """Replace rows of the log by those of another database, where what was deleted is erased.

        Those that were taken from elsewhere, or all.
        """
        with self._attached(other):
            self._target.execute(
                f"INSERT OR REPLACE INTO main.commands SELECT * FROM {OTHER}.commands"
                f"{'' if all_rows else f' WHERE seq IN (SELECT seq FROM {KNOWN}.{TAKEN})'}"
            )

    def forget_taken(self) -> None:
        """Forget which rows of the log are from elsewhere: those of all tables are now."""
        self._target.execute(f"DELETE FROM {KNOWN}.{TAKEN}")

    def forget_results_taken(self) -> None:
        """Forget the results in rows of the log from elsewhere: their text may have been deleted since."""
        taken = f"SELECT seq FROM {KNOWN}.{TAKEN}"
        self._target.execute(f"UPDATE main.commands SET result = x'' WHERE result IS NOT NULL AND seq IN ({taken})")

    @contextmanager
    def _attached(self, other: Path) -> Iterator[None]:
        """Attach another database as `OTHER`."""
        self._target.execute(f"ATTACH :path AS {OTHER}", {"path": str(other)})
        try:
            yield
        finally:
            self._target.execute(f"DETACH {OTHER}")

    def _fill(self, table: str, *, only_known: bool) -> int:
        of = next(each for each in tables_of(self._target) if each.name == table)
        columns, key = ", ".join(of.columns), ", ".join(of.key)
        select = f"SELECT {columns} FROM {OTHER}.{table}"
        if only_known and self.found[table].all_keys_known:
            select += f" WHERE ({key}) IN (SELECT {key} FROM {KNOWN}.{table})"
        self._target.execute(f"INSERT OR IGNORE INTO main.{table} ({columns}) {select}")
        return self._target.changes()

    def replace(self, table: str, other: Path, keep: Iterable[str]) -> None:
        """Make the rows of a table those of another database, except for the values of some columns."""
        of = next(each for each in tables_of(self._target) if each.name == table)
        same = " AND ".join(f"ours.{name} = theirs.{name}" for name in of.key)
        ours = f"SELECT ours.* FROM main.{table} AS ours WHERE {same}"
        values = [
            f"({ours.replace('ours.*', f'ours.{name}')})" if name in set(keep) else f"theirs.{name}"
            for name in of.columns
        ]
        with self._attached(other):
            self._target.execute(
                f"INSERT OR REPLACE INTO main.{table} ({', '.join(of.columns)})"
                f" SELECT {', '.join(values)} FROM {OTHER}.{table} AS theirs"
            )
            gone = f"SELECT 1 FROM {OTHER}.{table} AS theirs WHERE {same}"
            self._target.execute(f"DELETE FROM main.{table} AS ours WHERE NOT EXISTS ({gone})")

    def lost(self, table: str) -> Iterator[dict[str, Any]]:
        """What is known of the rows of a table that are lost, by column."""
        of = self.tables[table]
        text = f"SELECT {', '.join(of.columns)} FROM {KNOWN}.{table} WHERE NOT {_exists(table, of.key)}"
        for row in self._target.execute(f"{text} ORDER BY {', '.join(of.key)}"):
            yield {name: value for name, value in zip(of.columns, row, strict=True) if value is not None}


class Scanned(NamedTuple):
    """Where reading ended, and whether at the end of the range; `last` is None if nothing was read."""

    last: Key | None
    complete: bool


class Scan:
    """Reads ranges of one table, in the order that it is stored in or in that of an index."""

    def __init__(
        self, source: apsw.Connection, table: Table, take: Callable[[Row], Any], index: str | None = None
    ) -> None:
        self._source = source
        self._take = take
        self._by = table.stored_by
        names = ", ".join(table.read)
        indexed = f" INDEXED BY {index}" if index else " NOT INDEXED"
        self._select = f"SELECT {names} FROM {table.name}{indexed}"
        self._key_at = [table.read.index(name) for name in self._by]

    def run(
        self,
        *,
        start: Key | None = None,
        after: Key | None = None,
        before: Key | None = None,
        descending: bool = False,
    ) -> Scanned:
        """Read upwards from `start` or `after` up to `before`, or downwards from `before` to `after`."""
        condition, values = _between(self._by, after, before, start)
        direction = " DESC" if descending else ""
        order = ", ".join(f"{name}{direction}" for name in self._by)
        last: Key | None = None
        try:
            for row in self._source.execute(f"{self._select}{condition} ORDER BY {order}", values):
                self._take(row)
                last = tuple(row[at] for at in self._key_at)
        except DAMAGE:
            return Scanned(last, complete=False)
        return Scanned(last, complete=True)


def probe(scan: Scan, low: Key | None, high: Key | None, keys: list[Key]) -> None:
    """Read from keys in the middle of what is left between two keys, and halve what then remains."""
    left, probes = deque([(low, high, keys)]), 0
    while left and probes < PROBES_MAX:
        low, high, keys = left.popleft()
        if not keys:
            continue
        probes += 1
        middle = keys[len(keys) // 2]
        up = scan.run(start=middle, before=high)
        down = scan.run(before=middle, after=low, descending=True)
        bottom, top = down.last or middle, up.last or middle
        if not down.complete:
            left.append((low, bottom, [each for each in keys if each < bottom]))
        if not up.complete:
            left.append((top, high, [each for each in keys if each > top]))


def _between(by: tuple[str, ...], after: Key | None, before: Key | None, start: Key | None = None) -> tuple[str, Key]:
    """The condition of a range of keys, and its values."""
    key, marks = ", ".join(by), _marks(by)
    bounds = [(">=", start), (">", after), ("<", before)]
    given = [(sign, values) for sign, values in bounds if values is not None]
    condition = " AND ".join(f"({key}) {sign} ({marks})" for sign, _ in given)
    return f" WHERE {condition}" if given else "", tuple(value for _, values in given for value in values)


def _exists(table: str, key: tuple[str, ...]) -> str:
    """The condition that a row of `KNOWN` was read, or filled in."""
    same = " AND ".join(f"there.{name} = {KNOWN}.{table}.{name}" for name in key)
    return f"EXISTS (SELECT 1 FROM main.{table} AS there WHERE {same})"


def _marks(columns: Iterable[str]) -> str:
    return ", ".join("?" for _ in columns)


def _all(connection: apsw.Connection, text: str, values: Key = ()) -> list[Row]:
    rows: Any = connection.execute(text, values)
    return list(rows)
