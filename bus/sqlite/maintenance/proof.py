"""The proof of a copy: everything that can be found wrong with a scope's database file and its media.

    every page against its checksum ─▶ SQLite's own checks ─▶ the command log ─▶ media ─▶ the tables against the log

No step needs the ones before it to succeed, as far as it can read what it needs. What is found is told in words.
"""

import hashlib
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.checksums import is_mismatch
from backscroll.bus.sqlite.legacy_file import HEADER_BYTES, MAGIC
from backscroll.bus.sqlite.maintenance.findings import DAMAGE, Findings, Problem, explained
from backscroll.bus.sqlite.maintenance.media_check import MediaCheck, MediaOfCopy
from backscroll.bus.sqlite.maintenance.replaying import LogComparison, Refused, Unreadable
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.transaction import BlobsInTransaction, Snapshot
from backscroll.handlers.command_log import damage_at_ends
from backscroll.handlers.log_check import SELECT_ENDS, SELECT_ROWS, Ends, LogCheck, LogRow
from backscroll.handlers.newest_changes import lost_messages, unexplained_marks
from backscroll.handlers.scopes import COUNTS
from backscroll.handlers.storage import LogPosition
from backscroll.handlers.table_rows import LARGEST_SEQS
from backscroll.schema.command_log import CHAIN_START
from backscroll.schema.migrations.sqlite import migrations
from backscroll.schema.wire import DEFAULT_SCOPE

PAGE_SIZES = tuple(2**power for power in range(9, 17))
PAGES_NAMED = 10
PAGES_BETWEEN_PROGRESS = 1_000
ROWS_BETWEEN_PROGRESS = 1_000
STEPS_BETWEEN_PROGRESS = 1_000_000  # of SQLite's virtual machine
INTEGRITY_LINES = 20
UNREADABLE_MAX = 1_000  # places of the log from which reading is tried again

SELECT_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"


class Proof(NamedTuple):
    """What a copy holds, and what is wrong with it.

    `seq`, `chain` and `lineage` are those of the end of its log, `rows` the number of rows by table, `bytes` the size
    of the file, `media_parts` the number of files of media that were read. `compared` is empty if the tables were
    compared with what the command log leads to, else it says why not. `problems` are at most 100, `more` is the number
    of others. `parts_lost` are the hashes of all parts of media that are missing or damaged, at most 10,000.
    """

    scope: str
    seq: int
    chain: bytes
    lineage: str
    schema_version: int
    bytes: int
    rows: dict[str, int]
    media_parts: int
    compared: str
    problems: list[Problem]
    more: int
    parts_lost: list[str]


def prove(
    database: Path,
    media: Path | None,
    progress: Progress,
    *,
    scratch: Path,
    replay: bool = True,
    unnamed_parts: bool = True,
) -> Proof:
    """Examine a closed database file without a write-ahead log, which nobody writes, and the directory of its media.

    Damage of any kind is a problem in the result. The database is named there by its name, a part of media by its path
    from beside its directory. This process must have no other connection to the database, whose locks it would lose.

    Without `media` they are not examined; without `unnamed_parts` only those parts that a media of this scope names,
    for a directory that scopes share. `scratch` is an existing directory with room for a second database, or for two if
    messages of a cleared room are still in this one; without `replay` it is not used. Raises `OSError`, `Storage` or
    `apsw.Error` if the scratch directory cannot be written, and what `progress` raises.
    """
    findings = Findings(database.name)
    checked = None if media is None else MediaCheck(media, findings, progress, unnamed_parts=unnamed_parts)
    return _Examination(database, checked, findings, progress, scratch).run(replay=replay)


class _Examination:
    def __init__(
        self, database: Path, media: MediaCheck | None, findings: Findings, progress: Progress, scratch: Path
    ) -> None:
        self._database = database
        self._media = media
        self._findings = findings
        self._progress = progress
        self._scratch = scratch
        self._bytes = 0
        self._scope, self._version = "", 0
        self._ends: Ends | None = None
        self._chain = CHAIN_START
        self._rows: dict[str, int] = {}
        self._payloads_missing, self._log_is_whole = 0, False
        self._compared = "the file cannot be read"
        COMPILED.compile_all()

    def run(self, *, replay: bool) -> Proof:
        page_bytes = 0
        with self._findings.reading("the file"):
            self._bytes = self._database.stat().st_size
            page_bytes = self._check_header()
        if page_bytes:
            self._examine(page_bytes)
            self._compared = self._why_not_compared(replay=replay)
            if not self._compared:
                self._compare()
        ends = self._ends or Ends(0, "", 0, 0, "")
        return Proof(
            scope=self._scope,
            seq=ends.seq,
            chain=self._chain,
            lineage=ends.lineage,
            schema_version=self._version,
            bytes=self._bytes,
            rows=self._rows,
            media_parts=0 if self._media is None else self._media.parts,
            compared=self._compared,
            problems=self._findings.problems(self._scope),
            more=self._findings.more,
            parts_lost=[] if self._media is None else sorted(self._media.lost),
        )

    def _check_header(self) -> int:
        """The size of a page according to the header; 0 if it is not the header of a database."""
        with self._database.open("rb") as file:
            header = file.read(HEADER_BYTES)
        page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        page_bytes = 65_536 if page_bytes == 1 else page_bytes
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC) or page_bytes not in PAGE_SIZES:
            self._findings.add("it is not an SQLite database, or its header is damaged")
            return 0
        if self._bytes != pages * page_bytes:
            change = "shortened" if self._bytes < pages * page_bytes else "lengthened"
            self._findings.add(f"it was {change}: it has {self._bytes} bytes, and its header says {pages * page_bytes}")
        return page_bytes

    def _check_pages(self, page_bytes: int) -> None:
        """Read every page through SQLite's files: where pages have checksums, they are verified.

        The connection does nothing else, so it can be opened however damaged the database is.
        """
        self._findings.step = "reading pages"
        damaged: list[int] = []
        unreadable: list[int] = []
        address = f"{self._database.absolute().as_uri()}?immutable=1"
        with closing(apsw.Connection(address, flags=opening.READ_ONLY)) as connection:
            for number in range(self._bytes // page_bytes):
                try:
                    connection.read("main", 0, number * page_bytes, page_bytes)
                except apsw.IOError as error:
                    (damaged if is_mismatch(error) else unreadable).append(number + 1)
                if number % PAGES_BETWEEN_PROGRESS == 0:
                    self._progress(self._findings.step, number * page_bytes, self._bytes)
        for found, what in ((damaged, "do not match their checksums"), (unreadable, "cannot be read from the disk")):
            if found:
                named = ", ".join(map(str, found[:PAGES_NAMED])) + (" …" if len(found) > PAGES_NAMED else "")
                total = self._bytes // page_bytes
                self._findings.add(f"{len(found)} of {total} pages {what} (number {named})")

    def _examine(self, page_bytes: int) -> None:
        """All steps that need nothing but the file and its media."""
        self._check_pages(page_bytes)
        self._findings.step = "opening the database"
        with self._findings.reading("the database"), closing(opening.open_alone(self._database)) as connection:
            self._check_with_sqlite(connection)
            if self._is_ours(connection):
                blobs = BlobsInTransaction(BlobDirectory(self._database.with_suffix(".media")))
                self._check_rows(connection, Snapshot(connection, blobs, 0, LogPosition()))

    def _is_ours(self, connection: apsw.Connection) -> bool:
        """Whether it is a database of this program, with the schema of its version, as far as that can be read."""
        before = self._findings.met
        self._findings.step = "comparing the schema"
        with self._findings.reading("its schema"):
            opening.recognise(connection, self._database)
            self._version = connection.pragma("user_version")
            opening.check_schema(connection, self._database)
        return self._findings.met == before

    def _check_rows(self, connection: apsw.Connection, db: Snapshot) -> None:
        with self._findings.reading("the end of its command log"):
            self._ends = Ends(*db.rows(SELECT_ENDS)[0])
        with self._findings.reading("its scope"):
            self._check_scope(connection)
        self._count_rows(connection, db)
        self._check_log(db)
        if self._media is not None:
            self._findings.step = "reading media"
            with self._findings.reading("its media"):
                self._media.check(db)
        self._check_numbers(db)

    def _check_with_sqlite(self, connection: apsw.Connection) -> None:
        """SQLite's checks of the structure, the indexes and the references between tables."""
        self._findings.step = "checking with SQLite"
        connection.set_progress_handler(partial(self._go_on, self._findings.step), STEPS_BETWEEN_PROGRESS)
        try:
            self._check_integrity(connection)
        except DAMAGE as error:
            self._findings.add(f"SQLite's integrity check cannot read on: {explained(error)}")
            self._name_damaged_tables(connection)
        with self._findings.reading("references between its tables"):
            found = Counter((row[0], row[2]) for row in connection.execute("PRAGMA foreign_key_check"))
            for (table, parent), number in found.items():
                self._findings.add(f"rows of {table} are about rows of {parent} that do not exist: {number}")
        connection.set_progress_handler(None)

    def _go_on(self, step: str) -> bool:
        self._progress(step, 0, None)
        return False

    def _check_integrity(self, connection: apsw.Connection) -> None:
        for (lines,) in connection.execute(f"PRAGMA integrity_check({INTEGRITY_LINES})"):
            for line in str(lines).splitlines():
                if line != "ok" and not line.startswith("***"):
                    self._findings.add(f"SQLite's integrity check: {line}")

    def _name_damaged_tables(self, connection: apsw.Connection) -> None:
        """Which tables have damaged pages, as far as the list of tables itself can be read."""
        with self._findings.reading("its list of tables"):
            for (table,) in connection.execute(SELECT_TABLES).fetchall():
                with self._findings.reading(f"a part of {table}, or of its indexes,"):
                    connection.execute(f"PRAGMA integrity_check({table})").fetchall()

    def _check_scope(self, connection: apsw.Connection) -> None:
        rows = fetch(connection, opening.SELECT_SCOPE)
        if not rows:
            if self._ends is not None and self._ends.seq:
                self._findings.add("it does not name the scope that it belongs to")
            return
        self._scope = rows[0][0]
        own = opening.DEFAULT_FILE, f"{hashlib.sha256(self._scope.encode()).hexdigest()}.db"
        if self._database.name != own[self._scope != DEFAULT_SCOPE] and _is_of_a_scope(self._database.name):
            self._findings.add(f"it belongs to the scope {self._scope!r}, whose file has another name")

    def _count_rows(self, connection: apsw.Connection, db: Snapshot) -> None:
        with self._findings.reading("its list of tables"):
            tables = {name for (name,) in connection.execute(SELECT_TABLES).fetchall()}
            for table in COUNTS.keys() & tables:
                with self._findings.reading(f"the rows of {table}"):
                    self._rows[table] = db.rows(COUNTS[table])[0][0]

    def _check_log(self, db: Snapshot) -> None:
        """Check all rows of the command log."""
        self._findings.step = "checking the command log"
        if self._ends is None:
            return
        before = self._findings.met
        self._progress(self._findings.step, 0, self._ends.seq)
        with self._findings.reading("the ends of its command log"):
            if damage := damage_at_ends(db):
                self._findings.add(damage)
        check = LogCheck(self._ends)
        from_seq, step = self._ends.log_from, 1
        for _ in range(UNREADABLE_MAX):
            read = check.seq
            try:
                self._check_commands(check, from_seq, db)
                break
            except DAMAGE as error:
                self._findings.add(f"the command log cannot be read after command {check.seq}: {explained(error)}")
            step = 1 if check.seq > read else step * 2  # beyond the damaged page
            from_seq = max(check.seq, from_seq) + step
            if from_seq > self._ends.seq:
                break
        self._chain = check.chain or CHAIN_START
        self._payloads_missing = check.payloads_missing
        self._log_is_whole = self._findings.met == before

    def _check_commands(self, check: LogCheck, from_seq: int, db: Snapshot) -> None:
        assert self._ends is not None
        for row in db.each(SELECT_ROWS, from_seq=from_seq):
            for problem in check.add(LogRow(*row)):
                self._findings.add(problem)
            if check.seq % ROWS_BETWEEN_PROGRESS == 0:
                self._progress(self._findings.step, check.seq, self._ends.seq)

    def _why_not_compared(self, *, replay: bool) -> str:
        if not replay:
            return "this was not asked for"
        if self._ends is None:
            return "the end of the command log cannot be read"
        if self._version != len(migrations()):
            return f"the file has schema version {self._version}, and has to be migrated first"
        if self._ends.log_from != 1:
            return f"the command log begins with command {self._ends.log_from}"
        if self._payloads_missing:
            return f"{self._payloads_missing} commands were logged without their payload"
        return "" if self._log_is_whole else "the command log is damaged"

    def _check_numbers(self, db: Snapshot) -> None:
        """What can be compared with any log: the numbers of commands that rows name, and what the newest changed."""
        if self._version != len(migrations()) or self._ends is None:
            return
        self._findings.step = "comparing the newest commands"
        with self._findings.reading("the newest commands, or their messages,"):
            lost = lost_messages(self._ends.log_from, self._ends.seq, db)
            for problem in (*lost, *unexplained_marks(db)):
                self._findings.add(problem)
        for table, statement in LARGEST_SEQS.items():
            with self._findings.reading(f"the rows of {table}"):
                largest: Any = db.rows(statement)[0][0]
                if (largest or 0) > self._ends.seq:
                    self._findings.add(
                        f"a row of {table} was written by command {largest}, the last is {self._ends.seq}"
                    )

    def _compare(self) -> None:
        self._findings.step = "comparing the tables with the command log"
        assert self._ends is not None
        media = MediaOfCopy(self._media, self._scratch)
        try:
            LogComparison(self._database, self._ends, media, self._progress, self._scratch).report(self._findings)
        except Refused as error:
            self._findings.add(str(error))
            self._compared = "the command log cannot be executed again"
        except Unreadable as error:
            self._findings.add(f"its tables cannot be compared with the command log: {error}")
            self._compared = "the tables cannot be read"


def _is_of_a_scope(name: str) -> bool:
    """Whether this is a name that the file of a scope has in a data directory."""
    stem = name.removesuffix(".db")
    return name == opening.DEFAULT_FILE or (len(stem) == 64 and set(stem) <= set("0123456789abcdef"))
