"""Check that the files of a database belong together: the database, its write-ahead log, and a note beside them.

SQLite replays any intact `-wal` file beside a database, whichever database and moment it is from; one that was left by
another file (a restored backup, a copied folder) silently replaces pages. So the row `sequence`, which every
transaction writes, has the `lineage` of the database, a random number, and counts its `commits`. Both are read from the
database file alone, and from the pages in the log, before SQLite opens either:

    the log begins after all commits before it were copied into the database    first in the log - 1 <= database
    nothing is copied into the database that is not in the log                  database <= last in the log

The note says whether the database is in use, from which commit on, and by which log (the salt in its header, which is
random for a new log and is incremented when the log is restarted; SQLite file format, section 4). It shows what the
other files cannot: that a log is missing, or that all of them are from an earlier moment.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from backscroll.bus.failures import RESCUE, CannotOpen
from backscroll.bus.files import write_whole
from backscroll.bus.sqlite.checksums import reserved_bytes
from backscroll.bus.sqlite.last_commit import LastCommitFile
from backscroll.bus.sqlite.statements import fetch
from backscroll.bus.sqlite.wal_check import intact_frames
from backscroll.handlers.sql import statement
from backscroll.schema.migrations.sqlite import migrations
from backscroll.schema.tables import Sequence

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
LINEAGE_BYTES = 16
_MAGIC = {0x377F0682, 0x377F0683}
RESTARTS_MAX = 2**20  # of a log since the note was written; of 2**32 salts this accepts few others
_READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI

SELECT_ROOT = "SELECT rootpage FROM sqlite_schema WHERE name = 'sequence'"
SELECT_MOMENT = statement(Sequence.select(Sequence.lineage, Sequence.commits, Sequence.closed))


class Moment(NamedTuple):
    """The lineage of a database, how many commits it has had, and whether it was closed after them."""

    lineage: str
    commits: int
    closed: bool = False


class Note(msgspec.Struct, frozen=True):
    """What the note says. `in_use` from the first commit until closing; `bytes` is the least size of the database."""

    lineage: str
    commits: int
    in_use: bool
    salt: int
    bytes: int


class DatabaseFile(NamedTuple):
    """A database file without its log. `root` is the page of `sequence`; None and 0 if they cannot be read.

    `reserved` is how many bytes at the end of each page are not SQLite's own.
    """

    moment: Moment | None
    root: int
    bytes: int
    bytes_expected: int
    reserved: int


class Log(NamedTuple):
    """A write-ahead log with a valid header: whether it has frames, and the first and the last moment in it, if any.

    `bytes_needed` is the size that the database file must have at least, because the pages behind that are in the log.

    Moments are not found while the database file does not tell which page `sequence` is: a checkpoint that was
    interrupted may have written a part of its schema only.

    The last is the one with most commits. Behind it may be what a transaction wrote that was rolled back, at a time
    when there were fewer commits: SQLite writes pages before the commit if its cache is full.
    """

    salt: int
    has_frames: bool
    first: Moment | None
    last: Moment | None
    bytes_needed: int


class WalLineage:
    """The note of one database. `path` is that of the note, which exists from the first commit on."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._wal = database.with_name(f"{database.name}-wal")
        self._shm = database.with_name(f"{database.name}-shm")
        self.path = database.with_name(f"{database.name}-wal-lineage")
        self._given_up = database.with_name(f"{database.name}-wal-lost")
        self._last_commit = LastCommitFile(database)

    def check(self, *, read_only: bool = False) -> None:
        """Raise `CannotOpen` if files are missing, or are from different databases or moments.

        If there is no log, the note is removed: the next log has a new salt, and a crash may happen before it is noted.
        With `read_only` there will be none.
        """
        note, database = self.read(), read_database(self._database)
        log = read_log(self._wal, database, intact_frames(self._database))
        if log is None and self._given_up.exists():
            return
        problem = self._problem(note, database, log)
        if problem:
            raise CannotOpen(problem)
        if log is None and not read_only:
            self.path.unlink(missing_ok=True)

    def write(self, moment: Moment, *, in_use: bool) -> None:
        """Write the note durably; raises OSError. While the database is in use, its log must exist."""
        before = self.read()
        salt = salt_of(_header(self._wal)) or (before.salt if before else 0)
        size = self._database.stat().st_size
        self._given_up.unlink(missing_ok=True)
        self._write(Note(moment.lineage, moment.commits, in_use, salt, size))

    def expect_bytes(self, size: int) -> None:
        """Note durably that the database will be replaced by a file of this size; raises OSError."""
        if note := self.read():
            self._write(msgspec.structs.replace(note, bytes=min(note.bytes, size)))

    def read(self) -> Note | None:
        """The note; None if there is none or it is not valid."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Note)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _write(self, note: Note) -> None:
        write_whole(self.path, msgspec.json.encode(note) + b"\n")

    def _problem(self, note: Note | None, database: DatabaseFile, log: Log | None) -> str:
        """What does not fit and what to do, or an empty text."""
        return (
            self._problem_of_log(note, database, log)
            or (self._problem_of_note(note, database, log) if note else "")
            or self._problem_of_size(note, database, log)
            or self._problem_of_end(database, log)
        )

    def _problem_of_log(self, note: Note | None, database: DatabaseFile, log: Log | None) -> str:
        name, wal, found = self._database.name, self._wal.name, database.moment
        restore = f"Restore {name} and {wal} from the same backup"
        give_up = f"or, to go on with what {name} has, create an empty file {self._given_up.name} beside it"
        if log is None:
            if found and not found.closed:
                return (
                    f"{self._wal} is missing or empty, and {name} is not complete without it: it was in use when it "
                    f"was copied, or when the daemon was killed. {restore}, {give_up}. If another program opened "
                    f"{name} since then and emptied the log, nothing is missing, but what it copied has no checksums."
                )
            return ""
        if found and log.first and log.last:
            if found.lineage != log.first.lineage:
                return (
                    f"{self._wal} belongs to another database than {name}. Move it and {self._shm.name} away, and "
                    f"restore the {wal} that belongs to {name}, if it had one."
                )
            if found.commits < log.first.commits - 1:
                return f"{self._database} is older than its write-ahead log {wal}, which does not fit it. {restore}."
            if found.commits > log.last.commits:
                return f"{self._wal} is older than {name}, and would undo a part of it. {restore}."
        if note and self._is_foreign(note, log):
            return (
                f"{self._wal} seems to belong to another database than {name}. If they belong together, remove "
                f"{self.path.name} and start the daemon again. If it was left by another database, move it and "
                f"{self._shm.name} away."
            )
        return ""

    def _is_foreign(self, note: Note, log: Log) -> bool:
        """Whether the log has another salt than noted, unless it was begun since and has this database's lineage."""
        same = (log.salt - note.salt) % 2**32 <= RESTARTS_MAX
        return not same and (note.in_use or log.first is None)

    def _problem_of_note(self, note: Note, database: DatabaseFile, log: Log | None) -> str:
        name, found = self._database.name, database.moment
        accept = f"remove {self.path.name} to go on with what is there"
        if found and found.lineage != note.lineage:
            return (
                f"{self._database} is another database than {self.path.name} was written for. Restore it, or {accept}."
            )
        if log is None and note.in_use:
            return (
                f"{self._wal} is missing or empty, but the daemon did not close {name}: the latest commands may be "
                f"lost. Restore {self._wal.name}, or create an empty file {self._given_up.name} to go on without them."
            )
        last = log.last if log and log.last else found
        if last and last.commits < note.commits:
            return (
                f"{self._database} is older than {self.path.name}, which says that it had {note.commits} commits; it "
                f"has {last.commits}. Restore the newer file, or {accept}."
            )
        return ""

    def _problem_of_size(self, note: Note | None, database: DatabaseFile, log: Log | None) -> str:
        # With a log, the last checkpoint may have been interrupted.
        needed = log.bytes_needed if log is not None and log.has_frames else database.bytes_expected
        expected = max(note.bytes if note else 0, needed)
        if database.bytes < expected:
            return (
                f"{self._database} was shortened: it has {database.bytes} bytes, and had at least {expected}. " + RESCUE
            )
        return ""

    def _problem_of_end(self, database: DatabaseFile, log: Log | None) -> str:
        """What is missing at the end of the log, which SQLite would take for a shorter one if it is damaged."""
        end, last = self._last_commit.read(), (log and log.last) or database.moment
        if end is None or last is None or not end.is_of(last.lineage) or last.commits >= end.commits:
            return ""
        return (
            f"{self._database} lacks its end: changes up to command {end.seq} were acknowledged and are missing. Its "
            f"write-ahead log {self._wal.name} is damaged, or the files are older. Restore both from a backup; to go "
            f"on without these changes, remove {self._last_commit.path.name}."
        )


def read_database(path: Path) -> DatabaseFile:
    """What a closed database file says of itself, without its log.

    A crash during a checkpoint may leave the file shorter than its header says, which SQLite ignores with
    `writable_schema`, or a page of it torn; the log has this page then.
    """
    size = path.stat().st_size
    moment, root, expected, reserved = None, 0, 0, 0
    try:
        with closing(apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=_READ_ONLY)) as connection:
            connection.pragma("writable_schema", True)
            complete, header = connection.read("main", 0, 0, 100)
            if complete:
                reserved = reserved_bytes(header)
                page_bytes = int.from_bytes(header[16:18], "big")
                expected = int.from_bytes(header[28:32], "big") * (page_bytes if page_bytes > 1 else 65_536)
            rows: Any = connection.execute(SELECT_ROOT).fetchall()
            if rows:
                root = rows[0][0]
                moment = _moment_in(connection)
    except (apsw.Error, UnicodeDecodeError):
        pass  # whoever opens it reports that it is damaged, unless the log repairs it
    return DatabaseFile(moment, root, size, expected, reserved)


def read_log(wal: Path, database: DatabaseFile, frames: int | None) -> Log | None:
    """A database's write-ahead log up to so many frames; None if there is none or its header is not valid."""
    header = _header(wal)
    salt = salt_of(header)
    if salt is None:
        return None
    page_bytes = int.from_bytes(header[8:12], "big")
    first: Moment | None = None
    last: Moment | None = None
    with wal.open("rb", buffering=0) as file:
        log = Frames(file.fileno(), header, page_bytes, frames)
        for moment in _moments(log.pages(database.root), page_bytes, database.reserved):  # one at a time
            first = first or moment
            last = moment if last is None or moment.commits > last.commits else last
        needed = _pages_needed(log, database.bytes // page_bytes) * page_bytes
        return Log(salt, next(iter(log), None) is not None, first, last, needed)


class Frame(NamedTuple):
    """A frame of a log: its page's number and place, and where a commit ends the pages of the database, else 0."""

    page: int
    at: int
    database_pages: int


class Frames:
    """The frames that were written since a log was begun, at most so many; there may be millions."""

    def __init__(self, descriptor: int, header: bytes, page_bytes: int, count: int | None) -> None:
        self._descriptor, self._header, self._page_bytes, self._count = descriptor, header, page_bytes, count

    def __iter__(self) -> Iterator[Frame]:
        return islice(self._all(), self._count)

    def _all(self) -> Iterator[Frame]:
        at, size = HEADER_BYTES, os.fstat(self._descriptor).st_size
        while at + FRAME_HEADER_BYTES + self._page_bytes <= size:
            frame = _read_at(self._descriptor, FRAME_HEADER_BYTES, at)
            if frame[8:16] != self._header[16:24]:  # left from before the log was restarted
                return
            yield Frame(int.from_bytes(frame[:4], "big"), at + FRAME_HEADER_BYTES, int.from_bytes(frame[4:8], "big"))
            at += FRAME_HEADER_BYTES + self._page_bytes

    def pages(self, number: int) -> Iterator[bytes]:
        """Each version of a page."""
        return (_read_at(self._descriptor, self._page_bytes, each.at) for each in self if each.page == number)


def _pages_needed(frames: Frames, found: int) -> int:
    """Up to which page the database file must reach, where it has `found`: the last one that is not in the log."""
    total, in_log = 0, set()
    for each in frames:
        total = each.database_pages or total
        if each.page > found:
            in_log.add(each.page)
    return next((page for page in range(total, found, -1) if page not in in_log), 0)


def _read_at(descriptor: int, size: int, at: int) -> bytes:
    """Read at a place; Windows has no `os.pread`."""
    os.lseek(descriptor, at, os.SEEK_SET)
    return os.read(descriptor, size)


def _moments(pages: Iterable[bytes], page_bytes: int, reserved: int) -> Iterator[Moment]:
    """Read the row of `sequence` from each of its pages, put into a database in memory that has no other table."""
    with closing(apsw.Connection(":memory:")) as connection:
        connection.pragma("page_size", page_bytes)
        connection.reserve_bytes(reserve=reserved)
        connection.execute(_create_sequence())
        rows: Any = connection.execute(SELECT_ROOT).fetchall()
        image, at = bytearray(connection.serialize("main")), (rows[0][0] - 1) * page_bytes
        for page in pages:
            image[at : at + page_bytes] = page
            with suppress(apsw.Error, UnicodeDecodeError):  # it is damaged
                connection.deserialize("main", bytes(image))
                moment = _moment_in(connection)
                if moment is not None and isinstance(moment.commits, int):
                    yield moment


def _create_sequence() -> str:
    """The statement that creates the table `sequence`, after all migrations."""
    with closing(apsw.Connection(":memory:")) as connection:
        for script in migrations():
            connection.execute(script)
        rows: Any = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'sequence'").fetchall()
        return str(rows[0][0])


def _moment_in(connection: apsw.Connection) -> Moment | None:
    rows = fetch(connection, SELECT_MOMENT)
    return Moment(*rows[0]) if rows else None


def new_lineage() -> str:
    """The lineage of a database that is created now."""
    return os.urandom(LINEAGE_BYTES).hex()


def salt_of(header: bytes) -> int | None:
    """The salt in a log's header that is incremented; None if the header is not valid."""
    if len(header) < HEADER_BYTES or int.from_bytes(header[:4], "big") not in _MAGIC:
        return None
    return int.from_bytes(header[16:20], "big")


def _header(wal: Path) -> bytes:
    try:
        with wal.open("rb", buffering=0) as file:
            return file.read(HEADER_BYTES)
    except FileNotFoundError:
        return b""
