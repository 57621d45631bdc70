"""Comparison of a scope's tables with its command log, which is executed again in a database of its own.

The log leads to every row, so this finds what no checksum can: pages that are valid, but of another moment.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.checksums import is_mismatch
from backscroll.bus.sqlite.maintenance.findings import DAMAGE, Findings, explained
from backscroll.bus.sqlite.maintenance.media_check import MediaOfCopy
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.transaction import Transaction
from backscroll.handlers import HANDLERS, clearing
from backscroll.handlers.execute import execute_entry
from backscroll.handlers.log_check import DAMAGED_ROW, SELECT_ROWS, Ends, LogRow, decoded, entry_of, words
from backscroll.handlers.sql import Row, Statement
from backscroll.handlers.storage import Retention
from backscroll.handlers.table_rows import (
    ALL,
    WRITTEN_BEFORE_COUNTING,
    Incomparable,
    TableRows,
)
from backscroll.schema.command_log import LogEntry
from backscroll.schema.errors import BackscrollError
from backscroll.schema.operations import PutMedia
from backscroll.schema.row_pairs import pairs

AT_ONCE = 500
AT_ONCE_BYTES = 4 * 2**20
REMOVED_AT_ONCE = 1_000
COPY_BYTES = 8 * 2**20
ROWS_BETWEEN_PROGRESS = 1_000
SHOWN_MAX = 20
SETTLING = "removing messages of cleared rooms in a copy"
EXECUTING = "executing the command log again"


class Refused(Exception):
    """A command of the log cannot be executed again."""


class Unreadable(Exception):
    """What is compared cannot be read, because the file is damaged."""


class Differences:
    """The rows of a table that differ: the first ones in words, and how many there are.

    `of_references` tells whether they are about which text is to be erased with an item, `of_text` whether some are
    about which text of a command may still be replaced: that changes only if replaced text is erased.
    """

    def __init__(self, table: TableRows) -> None:
        self._table = table
        self.shown: list[str] = []
        self.total = 0
        self.of_references = table.name == "log_references"
        self.of_text = False

    def add(self, left: Row | None, right: Row | None) -> None:
        """Note that a row of the file is not equal to the one that the log leads to."""
        columns = self._columns(left, right)
        self.of_text |= columns == ["replaceable"]
        self.total += 1
        if self.total <= SHOWN_MAX:
            self.shown.append(f"{self._named(left or right or ())} {_difference(left, right, columns)}")

    def _columns(self, left: Row | None, right: Row | None) -> list[str]:
        if left is None or right is None:
            return []
        each = zip(self._table.columns, left, right, strict=False)
        return [name for name, first, second in each if first != second]

    def _named(self, row: Row) -> str:
        return f"the row {_shown(self._table.key(row))} of {self._table.name}"


def _difference(left: Row | None, right: Row | None, columns: list[str]) -> str:
    if left is None:
        return "is missing, although the commands in the log lead to it"
    if right is None:
        return "is there, although the commands in the log do not lead to it"
    return f"is not the one that the commands in the log lead to: {', '.join(columns)}"


def _shown(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(repr(part) if isinstance(part, str) else str(part) for part in parts)


class Comparison(NamedTuple):
    """How a comparison ended: the differences of each table, and the tables that could not be read, with the reason."""

    differences: list[Differences]
    unreadable: dict[str, str]

    def total(self) -> int:
        return sum(each.total for each in self.differences)

    def of_references(self) -> list[Differences]:
        """The differences about what is to be erased with which item."""
        return [each for each in self.differences if each.of_references]


class LogComparison:
    """Compares a database file, which nobody writes, with what its command log leads to.

    The log must be whole and checked.
    """

    def __init__(self, database: Path, ends: Ends, media: MediaOfCopy, progress: Progress, scratch: Path) -> None:
        self._database = database
        self._ends = ends
        self._media = media
        self._progress = progress
        self._scratch = scratch
        self._incomparable = Incomparable(results_from=ends.results_from, all_media=not media.is_known)

    def report(self, findings: Findings) -> None:
        """Add the differences to the findings.

        Raises `Refused` if the log cannot be executed again, and `Unreadable` if the comparison cannot begin.
        """
        with tempfile.TemporaryDirectory(prefix="replay-", dir=self._scratch) as own:
            directory = Path(own)
            with _damage_is_unreadable():
                settled = self._settled(directory)
            with closing(opening.open_alone(settled)) as connection:
                self._incomparable.internal = _finds(connection, WRITTEN_BEFORE_COUNTING)
                found = self._compare(connection, directory)
        for table, why in found.unreadable.items():
            findings.add(f"the rows of {table} cannot be compared with the command log: {why}")
        for each in found.differences:
            for what in each.shown:
                findings.add(what)
            findings.more += each.total - len(each.shown)

    def _settled(self, directory: Path) -> Path:
        """The file, or if it has messages of cleared rooms, a copy without them: a replay ends after their removal."""
        with closing(opening.open_alone(self._database)) as connection:
            if not fetch(connection, clearing.SELECT_MARK, behind=""):
                return self._database
        copy = directory / "settled.db"
        _copy(self._database, copy, self._progress)
        opening.mark_closed(copy, self._ends.seq)  # otherwise it would not be opened without its log
        with closing(SqliteStore(copy)) as store:
            self._settle(store, SETTLING)
        return copy

    def _compare(self, connection: apsw.Connection, directory: Path) -> Comparison:
        """Compare the tables; a scope may have had the setting that has replaced text erased, always or at times."""
        found = self._compare_once(connection, directory / "replayed.db", Retention())
        if not found.of_references():
            return found
        again = self._compare_once(connection, directory / "again.db", Retention(redact_replaced=True))
        closer = min(found, again, key=Comparison.total)
        if any(each.of_text for each in found.of_references()):  # the setting was not the same all the time
            return closer._replace(differences=[each for each in closer.differences if not each.of_references])
        return closer

    def _compare_once(self, connection: apsw.Connection, path: Path, retention: Retention) -> Comparison:
        with closing(SqliteStore(path, clock=_no_time, retention=retention)) as store:
            store.blobs = self._media
            self._replay(connection, store)
        with closing(opening.open_alone(path)) as replayed:
            return _compare_tables(connection, replayed, self._incomparable, self._progress)

    def _replay(self, connection: apsw.Connection, store: SqliteStore) -> None:
        rows = (LogRow(*row) for row in _readable(connection.execute(COMPILED[SELECT_ROWS], {"from_seq": 1})))
        while chunk := _chunk(rows):
            entries = [self._entry(row) for row in chunk]
            while entries:
                entries = entries[store.transact(partial(_execute, entries)) :]
            if store.clearing:
                self._incomparable.unnamed_since = True
                self._settle(store, EXECUTING)
            store.checkpoint_if_due()
            self._progress(EXECUTING, chunk[-1].seq, self._ends.seq)

    def _entry(self, row: LogRow) -> LogEntry:
        try:
            return self._executable(row)
        except DAMAGED_ROW as error:
            raise Refused(f"command {row.seq} cannot be decoded: {words(error)}") from error

    def _executable(self, row: LogRow) -> LogEntry:
        if row.type != PutMedia.wire_name or row.payload is None or self._has_parts(row):
            return entry_of(row)
        entry = entry_of(row, erased=True)
        if self._media.is_known:
            self._incomparable.puts.add(row.seq)
            self._incomparable.media.update(entry.generated.ids if entry.generated else ())
        return entry

    def _has_parts(self, row: LogRow) -> bool:
        return all(map(self._media.has, cast(PutMedia, decoded(row)).parts))

    def _settle(self, store: SqliteStore, step: str) -> None:
        while store.clearing:
            with store.write(savepoints=False) as db:
                clearing.remove_some(db, REMOVED_AT_ONCE)
            store.checkpoint_if_due()
            self._progress(step, 0, None)


def _no_time() -> int:
    """The time of what is not in the log; commands have their own."""
    return 0


def _copy(source: Path, target: Path, progress: Progress) -> None:
    size = source.stat().st_size
    with source.open("rb") as file, target.open("xb") as copy:
        while chunk := file.read(COPY_BYTES):
            copy.write(chunk)
            progress("copying the database", copy.tell(), size)


def _chunk(rows: Iterator[LogRow]) -> list[LogRow]:
    """The next rows of the log that are executed in one transaction."""
    chunk, size = [], 0
    for row in islice(rows, AT_ONCE):
        chunk.append(row)
        size += len(row.payload or b"") + len(row.facts)
        if size > AT_ONCE_BYTES:
            break
    return chunk


def _execute(entries: Sequence[LogEntry], db: Transaction) -> int:
    """Execute the entries up to the first that removes parts of media, which the next may put again; how many."""
    for number, entry in enumerate(entries, 1):
        try:
            execute_entry(entry, db, HANDLERS)
        except (BackscrollError, apsw.ConstraintError, LookupError, TypeError, ValueError) as error:
            raise Refused(f"command {entry.seq} cannot be executed again: {words(error)}") from error
        if db.blobs.removals:
            return number
    return len(entries)


def _compare_tables(
    ours: apsw.Connection, replayed: apsw.Connection, incomparable: Incomparable, progress: Progress
) -> Comparison:
    found = Comparison([], {})
    for table in ALL.values():
        comparable = incomparable.of(table)
        differences = Differences(table)
        wanted = _rows(replayed, table, comparable)
        both = pairs(_readable(_rows(ours, table, comparable)), wanted, _sortable(table.key))
        try:
            for number, (left, right) in enumerate(both):
                if left != right:
                    differences.add(left, right)
                if number % ROWS_BETWEEN_PROGRESS == 0:
                    progress(f"comparing {table.name}", number, None)
        except Unreadable as error:
            found.unreadable[table.name] = str(error)
        if differences.total:
            found.differences.append(differences)
    return found


def _rows(connection: apsw.Connection, table: TableRows, comparable: Callable[[Row], Row | None]) -> Iterator[Row]:
    for row in connection.execute(COMPILED[table.select]):
        kept = comparable(row)
        if kept is not None:
            yield kept


def _readable(rows: Iterator[Row]) -> Iterator[Row]:
    with _damage_is_unreadable():
        yield from rows


def _finds(connection: apsw.Connection, statement: Statement) -> bool:
    with _damage_is_unreadable():
        return bool(fetch(connection, statement))


@contextmanager
def _damage_is_unreadable() -> Iterator[None]:
    """Raise `Unreadable` for what reading a damaged file raises, but not for errors of a disk or its file system."""
    try:
        yield
    except DAMAGE as error:
        is_damage = is_mismatch(error) or not isinstance(error, OSError | apsw.IOError | apsw.FullError)
        if not is_damage:
            raise
        raise Unreadable(explained(error)) from error


def _sortable(key_of: Callable[[Row], Any]) -> Callable[[Row], Any]:
    """The key of a row, in SQLite's order of types: a damaged page may have any."""

    def sortable(row: Row) -> list[Any]:
        key = key_of(row)
        return [(_rank(part), part) for part in (key if isinstance(key, tuple) else (key,))]

    return sortable


def _rank(value: Any) -> int:
    return 0 if value is None else 1 if isinstance(value, int | float) else 2 if isinstance(value, str) else 3
