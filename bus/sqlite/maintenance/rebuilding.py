"""Making a database anew of what was salvaged of a damaged one, its command log, and the newest good backup.

    damaged file ──▶ rows that can be read ──┬─▶ a table of which all rows were read: as it is
                     its log, checked ───┐   └─▶ any other: these rows, and those that are lost from the replay
    backup, or an empty store ──────▶ replay of the log

With the log whole this gives back everything. Otherwise rows of the replay may be older than those that are lost, and
the log begins anew.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import sync_file
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.checksums import RESERVED_BYTES
from backscroll.bus.sqlite.errors import DamagedBlob, is_disk_full
from backscroll.bus.sqlite.last_commit import LastCommitFile
from backscroll.bus.sqlite.maintenance import salvaged_log
from backscroll.bus.sqlite.maintenance.good_copies import Base
from backscroll.bus.sqlite.maintenance.proof import Proof, prove
from backscroll.bus.sqlite.maintenance.readable_copies import (
    copy_mended_log,
    copy_with_schema_of,
    copy_without_unverified_pages,
    has_unverified_pages,
)
from backscroll.bus.sqlite.maintenance.repair_report import NAMED_MAX, Rows, ScopeReport
from backscroll.bus.sqlite.maintenance.salvage import DAMAGE, Salvage, TableFound, create_empty, open_damaged
from backscroll.bus.sqlite.scopes import beside
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.transaction import Transaction
from backscroll.bus.sqlite.wal_check import intact_frames
from backscroll.bus.sqlite.wal_lineage import read_database, read_log
from backscroll.handlers import HANDLERS, clearing, repairs
from backscroll.handlers.execute import execute_entry
from backscroll.handlers.log_check import DAMAGED_ROW, LogRow, entry_of
from backscroll.handlers.media import SELECT_ORDERED_PARTS
from backscroll.schema.errors import BackscrollError
from backscroll.schema.migrations.sqlite import migrations
from backscroll.schema.operations import PutMedia
from backscroll.schema.records import SECRET_COLUMNS
from backscroll.schema.ulid import time_of

AT_ONCE = 200  # commands that are executed in a transaction
REMOVED_AT_ONCE = 1_000
OF_THE_FILE = ("sequence", "scope")
"""Tables about the file itself, which are written anew."""
LOG = "commands"
OF_MEDIA = ("media", "media_parts", "unnamed_media")
UNKNOWN_MIME = "application/octet-stream"
PROBLEMS_NAMED = 3
REFUSED = (*DAMAGED_ROW, BackscrollError, apsw.ConstraintError)
"""What executing a command again may raise if the state is not the one that it was first executed in."""


class Damaged(NamedTuple):
    """A scope to be repaired: its closed files, which are only read, its media, and its newest good backup, if any."""

    scope: str
    database: Path
    media: Path
    base: Base | None


class CannotRebuild(Exception):
    """Nothing of a database can be read, or the result is not what it should be; the message says why."""


class PartsToRead(BlobDirectory):
    """Parts of media as a replay sees them: it reads those that are whole, and writes and removes none."""

    def put(self, data: bytes) -> str:
        raise NotImplementedError("entries name parts by their hashes")

    def put_again(self, _sha256: str, /) -> bool:
        return True

    def read(self, sha256: str) -> bytes | None:
        try:
            return super().read(sha256)
        except (DamagedBlob, OSError):
            return None

    def remove(self, _sha256: str, /) -> None:
        pass

    def put_before(self, _time_ms: int) -> Iterator[str]:
        return iter(())


class Rebuilding:
    """Makes the database of one scope anew. `scratch` is an empty directory on the same disk as the data."""

    def __init__(self, damaged: Damaged, scratch: Path, progress: Progress) -> None:
        self._damaged = damaged
        self._scratch = scratch
        self._progress = progress
        self._other = scratch / "replayed.db"
        self._notes: list[str] = []
        self._base_seq = 0
        self._base_is_newer = False  # than the tables that were read
        self._read_until = 0  # the last command whose effects are in the tables that were read
        self._has_tail = False  # rows of the log were read behind it

    def run(self, result: Path, report: ScopeReport) -> Proof:
        """Write the new database, and tell in the report what it has. Raises `CannotRebuild`."""
        COMPILED.compile_all()
        with closing(self._salvage()) as target:
            log, whole = self._examine_log(target)
            if self._base_is_newer:
                self._take_tables_of_base()
            if self._has_tail:
                exact = self._take_tail(target, report, whole=whole)
            else:
                exact = self._fill(target, report, exact=whole)
            self._complete(target, report, log, exact=exact)
            _write(target, result)
            if not exact:
                self._finish_clearing(result)
            proof = self._prove(result)
            if exact and proof.problems and self._take_replay(target):  # rows are not what the log leads to
                _write(target, result)
                proof = self._prove(result)
        if proof.problems:
            raise CannotRebuild("; ".join(each.what for each in proof.problems[:PROBLEMS_NAMED]))
        if not exact and not any(proof.rows.values()):
            raise CannotRebuild(
                "nothing of it can be read, and there is no good backup of it to take it from. To go on without what "
                "was in it, remove its files."
            )
        report.notes += self._notes
        report.rows = proof.rows
        return proof

    # What can be read

    def _salvage(self) -> apsw.Connection:
        source = self._open_source()
        version = source.pragma("user_version") if source else len(migrations())
        target = create_empty(self._scratch / "salvaged.db", version, reserved_bytes=RESERVED_BYTES)
        self._salvaged = Salvage(target, self._scratch, self._progress)
        if source:
            with closing(source):
                self._salvaged.read(source)
        self._read_until = salvaged_log.ends_of(target).seq
        self._read_tail()
        opening.migrate(target, self._damaged.database)
        return target

    def _read_tail(self) -> None:
        """Read the part of the command log that is in the write-ahead log behind a damaged frame."""
        log, copy = beside(self._damaged.database, "-wal"), self._scratch / "with-tail.db"
        if log.exists() and copy_mended_log(log, beside(copy, "-wal")):
            with _unless_unreadable():
                shutil.copyfile(self._damaged.database, copy)
                with closing(_with_our_tables(copy)) as source:
                    self._has_tail = self._salvaged.read_log(source, SECRET_COLUMNS)

    def _open_source(self) -> apsw.Connection | None:
        """The damaged database, with the definitions of its tables from another one if its own are damaged."""
        path = self._damaged.database
        if not path.exists():
            return None
        if has_unverified_pages(path):
            path = self._scratch / "readable.db"
            copy_without_unverified_pages(self._damaged.database, path)
            self._copy_log_to(path)
        if not self._log_fits():
            if path == self._damaged.database:
                path = self._scratch / "alone.db"
                shutil.copyfile(self._damaged.database, path)
            beside(path, "-wal").unlink(missing_ok=True)
        with _unless_unreadable():
            return _with_our_tables(path)
        for number, donor in enumerate(self._donors()):
            copy = self._scratch / f"with-schema-{number}.db"
            with _unless_unreadable():
                copy_with_schema_of(donor, path, copy)
                if self._log_fits():
                    self._copy_log_to(copy)
                opened = _with_our_tables(copy)
                self._notes.append("The definitions of its tables were damaged, and were taken from another database.")
                return opened
        return None

    def _log_fits(self) -> bool:
        """Whether what SQLite reads of the write-ahead log belongs to the database, and would undo nothing in it."""
        path = self._damaged.database
        file = read_database(path)
        log = read_log(beside(path, "-wal"), file, intact_frames(path))
        if file.moment is None or log is None or log.first is None or log.last is None:
            return True
        same = file.moment.lineage == log.first.lineage
        return same and log.first.commits - 1 <= file.moment.commits <= log.last.commits

    def _copy_log_to(self, copy: Path) -> None:
        log = beside(self._damaged.database, "-wal")
        if log.exists():
            shutil.copyfile(log, beside(copy, "-wal"))

    def _donors(self) -> Iterator[Path]:
        if self._damaged.base:
            yield self._damaged.base.database
        fresh = self._scratch / "fresh.db"
        SqliteStore(fresh, scope=self._damaged.scope).close()
        yield fresh

    # The log

    def _examine_log(self, target: apsw.Connection) -> tuple[salvaged_log.LogFound, bool]:
        """What there is of the log, with what the backup has of it, and whether it is whole."""
        self._remove_wrong_rows(target)
        self._ends = salvaged_log.ends_of(target)
        if self._damaged.base:
            self._take_base(target, self._damaged.base)
        log = salvaged_log.examine(target)
        lost = max((each["seq"] for each in self._salvaged.lost(LOG)), default=0)
        self._greatest = max(log.last, self._ends.seq, lost, self._base_seq, self._last_noted())
        begins_at = self._ends.log_from
        if not self._knows_end():
            return log, False
        if begins_at > self._ends.seq > 0:
            return log, self._greatest <= self._ends.seq and self._salvaged.found[LOG].whole
        return log, log.last == self._greatest and log.whole_from <= begins_at

    def _knows_end(self) -> bool:
        """Whether it is known which command was the last."""
        log = self._salvaged.found[LOG]
        return self._ends.seq > 0 or log.whole or log.all_keys_known or self._salvaged.found["sequence"].whole

    def _last_noted(self) -> int:
        """The last command according to the file that tells of the last commit, which may have got an older one."""
        noted = LastCommitFile(self._damaged.database).read()
        return noted.seq if noted and (not self._ends.lineage or noted.is_of(self._ends.lineage)) else 0

    def _remove_wrong_rows(self, target: apsw.Connection) -> None:
        wrong = salvaged_log.wrong_rows(target)
        for seq, request_id in wrong:
            self._salvaged.note(LOG, seq=seq, id=request_id)
        salvaged_log.remove(target, (seq for seq, _ in wrong))

    def _take_base(self, target: apsw.Connection, base: Base) -> None:
        """Copy the backup to replay the log on it, and add what it has of the log; unless it has another history."""
        copy = self._other
        shutil.copyfile(base.database, copy)
        with closing(SqliteStore(copy)) as store:  # migrates it
            self._base_seq = store.seq
        with closing(opening.open_alone(copy)) as other:
            same = salvaged_log.is_same_log(target, other)
        if same is False or (same is None and self._ends.lineage not in ("", base.lineage)):
            self._notes.append("The backup is of another history of this scope, so it was not used.")
            copy.unlink()
            self._base_seq = 0
            return
        self._base_is_newer = self._base_seq > self._ends.seq > 0
        self._salvaged.take_log(copy)
        self._remove_wrong_rows(target)

    # Rows that are lost

    def _fill(self, target: apsw.Connection, report: ScopeReport, *, exact: bool) -> bool:
        """Fill in the rows that are lost from a replay. Returns whether the result is exact."""
        found = self._salvaged.found
        damaged = [name for name in found if name not in (LOG, *OF_THE_FILE) and not found[name].whole]
        if not damaged and not self._salvaged.has_taken_log():
            return exact
        failed = self._replay(target, self._read_until if self._has_tail else None)
        exact = exact and not failed
        if exact:
            self._salvaged.retake_log(self._other)
        else:
            self._salvaged.forget_results_taken()
        for name in damaged:
            before = _keys(islice(self._salvaged.lost(name), NAMED_MAX))
            count = self._salvaged.fill(name, self._other, only_known=True)
            if count and exact and name in SECRET_COLUMNS:
                self._tell_secrets((dict(each)["id"] for each in before), report)
            if count and not exact:
                left = _keys(each for each in self._salvaged.lost(name) if tuple(each.items()) in before)
                report.uncertain.append(Rows(name, count, [dict(each) for each in before if each not in left]))
        return exact

    def _take_tail(self, target: apsw.Connection, report: ScopeReport, *, whole: bool) -> bool:
        """Execute the commands in the write-ahead log behind its damaged part on what was read, after filling that in.

        Returns whether the result is exact.
        """
        exact = self._fill(target, report, exact=whole)
        if not self._read_until:
            self._notes.append(
                "Which commands are in its tables cannot be read, so those in the write-ahead log behind the damaged "
                "part of it were not executed again."
            )
            return False
        self._other = self._scratch / "tail.db"
        self._salvaged.copy_until(self._read_until, self._other, log_is_whole=whole)
        failed = self._replay(target)
        for name in self._salvaged.found:
            if name not in (LOG, *OF_THE_FILE):
                self._salvaged.replace(name, self._other, SECRET_COLUMNS.get(name, ()))
        self._salvaged.retake_log(self._other, all_rows=True)
        for name, columns in SECRET_COLUMNS.items():
            self._salvaged.take_columns(name, columns)
        self._tell_secrets(salvaged_log.rooms_saved(target, self._read_until + 1), report)
        self._notes.append("What was committed behind the damaged part of the write-ahead log was executed again.")
        if failed:
            self._notes.append(
                f"This was not possible for {len(failed)} commands, the first is {failed[0]}: what they need is lost."
            )
        return exact and not failed

    def _replay(self, target: apsw.Connection, until: int | None = None) -> list[int]:
        """Execute what is known of the log in the other database, up to a command.

        Returns the numbers of commands that could not be executed again, at most `NAMED_MAX`.
        """
        failed: list[int] = []
        with closing(SqliteStore(self._other, clock=_no_time, scope=self._damaged.scope)) as store:
            store.blobs = PartsToRead(self._damaged.media)
            every = salvaged_log.rows_of(target, store.seq + 1)
            rows = takewhile(lambda row: until is None or row.seq <= until, every)
            while chunk := list(islice(rows, AT_ONCE)):
                with store.write() as db:
                    failed += [row.seq for row in chunk if not self._execute(row, db)]
                del failed[NAMED_MAX:]
                _remove_cleared(store)
                store.checkpoint_if_due()
                self._progress("executing the command log again", chunk[-1].seq, self._greatest)
        return failed

    def _finish_clearing(self, result: Path) -> None:
        """Remove what is left of cleared rooms: the command that cleared them may be lost."""
        with closing(opening.open_alone(result)) as connection:
            if not fetch(connection, clearing.SELECT_MARK, behind=""):
                return
        with closing(SqliteStore(result, scope=self._damaged.scope)) as store:
            store.blobs = PartsToRead(self._damaged.media)
            _remove_cleared(store)

    def _execute(self, row: LogRow, db: Transaction) -> bool:
        """Execute a command again, without its payload if that is not possible; whether this has the same effect."""
        db.position = db.position._replace(seq=row.seq - 1)
        for erased in (False, True):
            with suppress(*REFUSED):
                execute_entry(entry_of(row, erased=erased), db, HANDLERS)
                db.blobs.removals = frozenset()  # nothing is removed, and the next command may put it again
                if erased:  # a file whose parts are lost has its rows
                    return row.type == PutMedia.wire_name and self._has_rows_of_media()
                return row.payload is not None or bool(row.redacted)
        return False

    def _has_rows_of_media(self) -> bool:
        return all(self._salvaged.found[table].whole for table in ("media", "media_parts"))

    def _take_replay(self, target: apsw.Connection) -> bool:
        """Take all rows from a replay in an empty store, and only what the log does not tell from what was read.

        Returns whether all commands could be executed again.
        """
        self._other = self._scratch / "replayed-again.db"
        failed = self._replay(target)
        for name in self._salvaged.found:
            keeps = name in OF_MEDIA and self._has_rows_of_media()
            if name not in (LOG, *OF_THE_FILE) and not keeps:
                self._salvaged.replace(name, self._other, SECRET_COLUMNS.get(name, ()))
        self._notes.append("Rows were not what the command log leads to, and were made again from it.")
        return not failed

    def _take_tables_of_base(self) -> None:
        """Take all rows from a backup that was made after what was read."""
        for name in self._salvaged.found:
            if name not in (LOG, "scope"):
                self._salvaged.replace(name, self._other, ())
                self._salvaged.found[name] = TableFound(whole=True)
        self._salvaged.retake_log(self._other, all_rows=True)
        self._salvaged.forget_taken()
        self._read_until = self._base_seq
        self._notes.append(f"The backup is newer than what was read: all rows are as of its command {self._base_seq}.")

    def _tell_secrets(self, room_ids: Iterable[str], report: ScopeReport) -> None:
        """Tell which rooms were made again by commands, which do not have their passwords."""
        if rooms := [{"id": each} for each in room_ids]:
            report.uncertain.append(Rows("rooms", len(rooms), rooms[:NAMED_MAX]))
            report.outcome = "partly lost"
            self._notes.append(
                "The command log does not have the passwords of rooms: these have the one that was read last, or none. "
                "Set those again that are wrong."
            )

    # What is about all

    def _complete(
        self, target: apsw.Connection, report: ScopeReport, log: salvaged_log.LogFound, *, exact: bool
    ) -> None:
        self._tell_losses(report, exact=exact)
        known = list(self._salvaged.lost(LOG))
        if exact:
            salvaged_log.keep_log(target, self._ends, log, self._greatest)
        else:
            report.outcome = "partly lost"
            report.commands_lost = self._commands_lost(log)
            report.more_commands = not self._knows_end()
            report.ids_known = salvaged_log.add_known_ids(target, known)
            forget = not self._salvaged.found["log_references"].whole
            salvaged_log.begin_new_log(target, self._ends, log, self._greatest, forget_results=forget)
        if not opening.check_scope(target, self._damaged.database, self._damaged.scope):
            target.execute(COMPILED[opening.INSERT_SCOPE], {"id": 1, "name": self._damaged.scope})
        self._add_parents(target)
        ends = salvaged_log.ends_of(target)
        report.seq, report.log_from = ends.seq, ends.log_from

    def _commands_lost(self, log: salvaged_log.LogFound) -> list[salvaged_log.Range]:
        """The first and last numbers of commands whose rows are lost, but not of those that an earlier repair lost."""
        behind = [(log.last + 1, self._greatest)] if self._greatest > log.last else []
        left_out = self._ends.log_from - 1  # by the repair that began this log
        lost = [each for each in (*log.missing, *behind) if each != (left_out, left_out)]
        return [each for each in lost if each[1] > left_out or not self._salvaged.found[LOG].whole]

    def _tell_losses(self, report: ScopeReport, *, exact: bool) -> None:
        for name, found in self._salvaged.found.items():
            if found.whole or name in (LOG, *OF_THE_FILE):
                continue
            lost = self._salvaged.lost(name)
            named = list(islice(lost, NAMED_MAX))
            if named:
                report.lost.append(Rows(name, len(named) + sum(1 for _ in lost), named))
                report.outcome = "partly lost"
            if not found.all_keys_known and not exact:
                report.maybe_more.append(name)

    def _add_parents(self, target: apsw.Connection) -> None:
        """Write the rooms and media anew whose rows are lost while others need them."""
        for select in repairs.SELECT_ROOMS_MISSING:
            for (room_id,) in fetch(target, select):
                target.execute(COMPILED[repairs.INSERT_ROOM], {"id": room_id})
                self._notes.append(
                    f"Of room {room_id!r} only its channels, categories and members are left: it was written anew, "
                    "with its id as its name. Save it again."
                )
        for select in repairs.SELECT_MEDIA_MISSING:
            for (media_id,) in fetch(target, select):
                self._add_media(target, media_id)

    def _add_media(self, target: apsw.Connection, media_id: str) -> None:
        parts = fetch(target, SELECT_ORDERED_PARTS, media_id=media_id)
        digest, size, blobs = hashlib.sha256(), 0, PartsToRead(self._damaged.media)
        complete = bool(parts) and [position for position, _ in parts] == list(range(len(parts)))
        for _, sha256 in parts if complete else ():
            data = blobs.read(sha256)
            complete &= data is not None
            digest.update(data or b"")
            size += len(data or b"")
        if complete:
            row = {"id": media_id, "sha256": digest.hexdigest(), "size": size, "mime": UNKNOWN_MIME}
            target.execute(COMPILED[repairs.INSERT_MEDIA], row | {"created_at": _time_of(media_id)})
            self._notes.append(f"The row of media {media_id} is lost: its type is {UNKNOWN_MIME} now.")
        if not complete or not target.changes():
            for delete in repairs.DELETE_OF_MEDIA:
                target.execute(COMPILED[delete], {"media_id": media_id})
            self._notes.append(f"Media {media_id} is lost.")

    def _prove(self, result: Path) -> Proof:
        proof = prove(result, self._damaged.media, self._progress, scratch=self._scratch)
        return proof._replace(problems=[each for each in proof.problems if each.file == result.name])


@contextmanager
def _unless_unreadable() -> Iterator[None]:
    """End the block if a file cannot be read; a full disk is no damage of it."""
    try:
        yield
    except (*DAMAGE, CannotOpen, apsw.Error, OSError) as error:
        if is_disk_full(error):
            raise


def _with_our_tables(path: Path) -> apsw.Connection:
    """Open a damaged database; raises `CannotOpen` if its tables are not ours, and what is in `DAMAGE`."""
    connection = open_damaged(path)
    try:
        opening.check_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _keys(rows: Iterable[dict[str, Any]]) -> dict[tuple[tuple[str, Any], ...], None]:
    """Rows as keys, in their order."""
    return dict.fromkeys(tuple(each.items()) for each in rows)


def _remove_cleared(store: SqliteStore) -> None:
    while store.clearing:
        with store.write(savepoints=False) as db:
            clearing.remove_some(db, REMOVED_AT_ONCE)


def _write(target: apsw.Connection, result: Path) -> None:
    """Write a compact copy with checksums, durably."""
    result.unlink(missing_ok=True)
    target.execute("VACUUM INTO :path", {"path": str(result)})
    sync_file(result)


def _time_of(generated_id: str) -> int:
    try:
        return time_of(generated_id)
    except ValueError:
        return 0


def _no_time() -> int:
    """The time of what is not in the log; commands have their own."""
    return 0
