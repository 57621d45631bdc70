"""Repair of a stopped data directory: whatever of it is damaged is made anew of what can be read, the log, and backups.

    examine every scope ─▶ copy what is damaged into `damaged-<time>` ─▶ make a new database, prove it ─▶ report
        ─▶ `….db-repaired` beside the old file: from here on the exchange is finished, also by the next repair
        ─▶ remove the old log and note ─▶ rename

Until `….db-repaired` is there, the files in place are as they were, and after it those set aside are complete: so a
crash at any moment loses nothing. A daemon refuses a database with such a file beside it.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import apsw

from backscroll.bus.access_files import KEYS_FILE, TOKENS_FILE, AccessFiles
from backscroll.bus.directory import RESTORING, locked
from backscroll.bus.failures import CannotOpen, CannotStart
from backscroll.bus.files import free_bytes, make_directory, size_of, sync_directory, write_whole
from backscroll.bus.gate import Gate
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.errors import is_disk_full
from backscroll.bus.sqlite.maintenance.catalog import CannotBackUp
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, copy_database, copy_file
from backscroll.bus.sqlite.maintenance.good_copies import GoodCopies
from backscroll.bus.sqlite.maintenance.media_check import LOST_MAX
from backscroll.bus.sqlite.maintenance.proof import prove
from backscroll.bus.sqlite.maintenance.rebuilding import CannotRebuild, Damaged, Rebuilding
from backscroll.bus.sqlite.maintenance.repair_report import NAMED_MAX, REPORT_FILE, RepairReport, ScopeReport
from backscroll.bus.sqlite.opening import DEFAULT_FILE, REPAIRED
from backscroll.bus.sqlite.scopes import DELETING, OWN_FILES, beside
from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.wal_lineage import WalLineage
from backscroll.handlers import repairs
from backscroll.schema.paths import OWN_TOOLS, store_of
from backscroll.schema.wire import DEFAULT_SCOPE

SCRATCH = ".repairing"
PARTIAL = ".damaged-partial"
SPACE_TIMES = 5  # of what is damaged: a copy set aside, one to read, what was read, a replay, and the new file
SETTING_ASIDE = "setting damaged files aside"
OWN = tuple(suffix for suffix in OWN_FILES if suffix != REPAIRED)


class CannotRepair(CannotStart):
    """A data directory cannot be repaired; the message says why and what to do. Nothing was changed."""

    exit_code = 4


class Examined(NamedTuple):
    """A scope and what is wrong with it: with its database, in words, and the hashes of parts of its media."""

    scope: str
    path: Path
    damage: list[str]
    parts: list[str]


def repair(data_dir: Path, backups: Path | None, scope: str | None, progress: Progress) -> RepairReport:
    """Repair all scopes of a data directory that are damaged, or one; with what a directory of backups has, if given.

    Raises `AlreadyRunning` if a daemon uses it, `CannotRepair`, OSError, and what `progress` raises. Then nothing is
    changed, except for scopes that were repaired before.
    """
    if not data_dir.is_dir():
        raise CannotRepair(f"{data_dir} is no data directory: name one that a daemon has used.")
    if store_of(data_dir) is not None:
        raise CannotRepair(OWN_TOOLS)
    with locked(data_dir):
        if (data_dir / RESTORING).exists():
            raise CannotRepair(f"a restore into {data_dir} was interrupted, so its files may not fit. Restore again.")
        try:
            return _Repair(data_dir, backups, progress).run(scope)
        except (apsw.FullError, OSError) as error:
            if not is_disk_full(error):
                raise
            raise CannotRepair(
                f"the disk of {data_dir} is full. Free some of it, or copy the directory to another disk, and repair "
                "again. What was not repaired is as it was."
            ) from error


class _Repair:
    def __init__(self, data_dir: Path, backups: Path | None, progress: Progress) -> None:
        self._dir = data_dir
        self._copies = _good_copies(backups, data_dir)
        self._progress = progress
        self._scratch = data_dir / SCRATCH
        self._report = RepairReport(with_backups=backups is not None)
        self._aside = Path()

    def run(self, scope: str | None) -> RepairReport:
        COMPILED.compile_all()
        self._begin()
        try:
            damaged = [each for each in map(self._examine, self._scopes(scope)) if each.damage or each.parts]
            files = [name for name in (TOKENS_FILE, KEYS_FILE) if scope is None and not self._is_intact(name)]
            if damaged or files:
                self._set_aside(damaged, files)
                self._repair_files(files)
                for each in damaged:
                    self._repair_scope(each)
                self._write_report()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return self._report

    def _begin(self) -> None:
        """Finish what an interrupted repair has decided, and remove what it has left otherwise."""
        for ready in [*self._dir.glob(f"*{REPAIRED}"), *self._dir.glob(f"scopes/*{REPAIRED}")]:
            path = ready.with_name(ready.name.removesuffix(REPAIRED))
            _exchange(path)
            self._report.finished.append(str(path.relative_to(self._dir)))
        for left in (self._scratch, self._dir / PARTIAL):
            shutil.rmtree(left, ignore_errors=True)
        self._scratch.mkdir(mode=0o700)

    # What is damaged

    def _scopes(self, scope: str | None) -> Iterator[tuple[str, Path]]:
        """The scopes to examine, and their databases, which may be missing."""
        if scope is not None:
            path = self._path_of(scope)
            if not any(beside(path, suffix).exists() for suffix in OWN) and not path.with_suffix(".media").exists():
                raise CannotRepair(f"there is no scope {scope!r} in {self._dir}.")
            yield scope, path
            return
        yield DEFAULT_SCOPE, self._dir / DEFAULT_FILE
        files = (each for pattern in ("*.db*", "*.media") for each in self._dir.glob(f"scopes/{pattern}"))
        found = {each.with_name(f"{each.name.partition('.')[0]}.db") for each in files}
        for path in sorted(found):
            if not beside(path, DELETING).exists():
                yield self._name_of(path), path

    def _path_of(self, scope: str) -> Path:
        if scope == DEFAULT_SCOPE:
            return self._dir / DEFAULT_FILE
        return self._dir / "scopes" / f"{hashlib.sha256(scope.encode()).hexdigest()}.db"

    def _name_of(self, path: Path) -> str:
        """The scope of a file; empty if it cannot be told."""
        named = opening.scope_named_in(path) if path.exists() else None
        names = [*([named] if named is not None else []), *self._copies.scopes()]
        return next((name for name in names if self._path_of(name) == path), "")

    def _examine(self, scope: tuple[str, Path]) -> Examined:
        name, path = scope
        media = path.with_suffix(".media")
        damage: list[str] = []
        _refuse_others(path)
        with _told_in(damage):
            opening.check_files(path, WalLineage(path), read_only=True)
        with _told_in(damage):
            if not path.exists() or not path.stat().st_size:
                return Examined(name, path, damage, [])
            proof = prove(self._closed(path), media, self._progress, scratch=self._scratch)
            damage += [each.what for each in proof.problems if each.file == path.name]
            for each in proof.problems:
                if each.file == media.name:  # the directory, and not a part in it
                    raise CannotRepair(f"{media}: {each.what}. Make it readable, and repair again.")
            return Examined(name, path, damage, proof.parts_lost)
        return Examined(name, path, damage, [])

    def _closed(self, path: Path) -> Path:
        """A file without a write-ahead log: the database, or a copy of it with its log."""
        log = beside(path, "-wal")
        if not log.exists() or not log.stat().st_size:
            return path
        own = self._scratch / "examined"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        copy = own / path.name
        copy_database(path, copy, self._progress)
        return copy

    def _is_intact(self, name: str) -> bool:
        return not (self._dir / name).exists() or self._can_be_used(self._dir / name)

    def _can_be_used(self, file: Path) -> bool:
        """Whether a file of tokens or keys is one."""
        own = self._scratch / "files"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(mode=0o700)
        try:
            shutil.copy(file, own / file.name)
            Gate(AccessFiles(own))
        except (CannotOpen, OSError):
            return False
        return True

    # Nothing is lost

    def _set_aside(self, damaged: list[Examined], files: list[str]) -> None:
        """Copy everything that will be replaced, durably. Raises `CannotRepair`."""
        together = [self._dir / name for name in files]
        for each in damaged:
            if each.damage:
                together += [file for suffix in OWN if (file := beside(each.path, suffix)).is_file()]
            together += [file for part in each.parts if (file := _part_path(each.path, part)).is_file()]
        self._check_space(sum(map(size_of, together)))
        partial = self._dir / PARTIAL
        for file in together:
            copy = partial / file.relative_to(self._dir)
            make_directory(copy.parent)
            try:
                copy_file(file, copy, self._progress, SETTING_ASIDE)
            except OSError as error:
                raise CannotRepair(
                    f"{file} cannot be copied ({error.strerror}). If the disk fails, copy it as a whole first."
                ) from error
        self._check_same(together, partial)
        make_directory(partial)
        time = datetime.now(UTC)
        self._aside = self._dir / f"damaged-{time:%Y-%m-%dT%H-%M-%S}.{time.microsecond // 1000:03}Z"
        partial.rename(self._aside)
        sync_directory(self._dir)
        self._report.set_aside = str(self._aside)

    def _check_space(self, size: int) -> None:
        free = free_bytes(self._dir)
        if free is not None and free < SPACE_TIMES * size:
            raise CannotRepair(
                f"repairing needs {SPACE_TIMES * size} bytes in {self._dir}, and {free} are free. Free some of the "
                "disk, or copy the directory to another one and repair that."
            )

    def _check_same(self, files: list[Path], copies: Path) -> None:
        for file in files:
            if _hash(file) != _hash(copies / file.relative_to(self._dir)):
                raise CannotRepair(f"{file} reads differently each time: the disk fails. Copy it as a whole first.")

    # Making it anew

    def _repair_files(self, names: list[str]) -> None:
        for name in names:
            copy = self._copies.file(name, self._can_be_used)
            if copy is not None:
                write_whole(self._dir / name, copy)
                self._report.files.append(f"{name} was damaged, and is now as it is in the backup.")
            else:
                self._report.files_lost.append(name)
                self._report.files.append(
                    f"{name} is damaged, and there is no backup of it: it is as it was. Remove it to start without, "
                    "and make what was in it again."
                )

    def _repair_scope(self, damaged: Examined) -> None:
        file = str(damaged.path.relative_to(self._dir))
        parts = [f"part {sha256} of media is missing, or its bytes were altered" for sha256 in damaged.parts]
        report = ScopeReport(scope=damaged.scope, file=file, damage=damaged.damage + parts)
        self._report.scopes.append(report)
        if len(damaged.parts) >= LOST_MAX:
            report.outcome = "partly lost"
            report.maybe_more.append("media_parts")
            report.notes.append("More parts of media are missing or damaged than one repair looks at: repair again.")
        self._repair_media(damaged.path, damaged.parts, report)
        if damaged.damage:
            needed = self._rebuild(damaged, report)
            self._repair_media(damaged.path, [each for each in needed if each not in set(damaged.parts)], report)
        self._tell_media(damaged.path, report)

    def _rebuild(self, damaged: Examined, report: ScopeReport) -> list[str]:
        """Replace a database by a new one, if that can be made. Returns the parts of media that it lacks."""
        path = damaged.path
        own = self._scratch / "rebuilt"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        try:
            if not damaged.scope:
                raise CannotRebuild(
                    "which scope it belongs to cannot be read. Name it: `backscroll repair --scope NAME`"
                )
            relative = path.relative_to(self._dir)
            aside = self._aside / relative
            base = self._copies.base_of(damaged.scope, relative, own, self._progress)
            scope = Damaged(damaged.scope, aside, path.with_suffix(".media"), base)
            proof = Rebuilding(scope, own, self._progress).run(own / "result.db", report)
        except CannotRebuild as error:
            report.outcome, report.reason = "not repaired", str(error)
            return []
        self._write_report()
        make_directory(path.parent)
        (own / "result.db").rename(beside(path, REPAIRED))
        sync_directory(path.parent)
        _exchange(path)
        return proof.parts_lost

    def _repair_media(self, database: Path, parts: list[str], report: ScopeReport) -> None:
        """Take parts of media from the backup; those that it does not have are not in place any more."""
        for sha256 in parts:
            path = _part_path(database, sha256)
            aside = self._aside / path.relative_to(self._dir)
            if path.is_file() and not aside.exists():  # which media there are was not known before
                make_directory(aside.parent)
                copy_file(path, aside, self._progress, SETTING_ASIDE)
            data = self._copies.part(sha256)
            if data is not None:
                make_directory(path.parent)
                write_whole(path, data)
                report.media_restored += 1
            else:
                if path.is_file():
                    path.unlink()
                report.media_lost.append(sha256)

    def _tell_media(self, path: Path, report: ScopeReport) -> None:
        """Tell what names the parts of media that are lost."""
        if not report.media_lost or report.outcome == "not repaired":
            return
        with closing(opening.open_alone(self._closed(path))) as connection:
            for sha256 in report.media_lost[:NAMED_MAX]:
                for (media_id,) in fetch(connection, repairs.SELECT_NAMING, sha256=sha256):
                    named = fetch(connection, repairs.SELECT_ATTACHMENTS, media_id=media_id)
                    by = [f"attachment {each!r} of message {message!r}" for each, message in named]
                    naming = f", which is named by {', '.join(by)}" if by else ""
                    report.notes.append(f"Part {sha256} is of media {media_id}{naming}: put it again.")

    def _write_report(self) -> None:
        write_whole(self._aside / REPORT_FILE, self._report.text().encode())


class _told_in:  # noqa: N801  # used like a function
    """The block reads files that may be damaged; what it raises is added to a list, in words."""

    def __init__(self, damage: list[str]) -> None:
        self._damage = damage

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, Exception) and is_disk_full(error):
            return False
        if isinstance(error, CannotOpen | CannotCopy | apsw.Error | OSError | UnicodeDecodeError):
            self._damage.append(str(error))
            return True
        return False


def _good_copies(backups: Path | None, data_dir: Path) -> GoodCopies:
    try:
        return GoodCopies(backups, data_dir)
    except CannotBackUp as error:
        raise CannotRepair(f"nothing was repaired: {error}") from error


def _refuse_others(path: Path) -> None:
    """Raise `CannotRepair` for a file of another program or of a later version: that is no damage."""
    with suppress(apsw.Error, OSError, UnicodeDecodeError), closing(opening.open_alone(path)) as connection:
        try:
            opening.recognise(connection, path)
        except CannotOpen as error:
            raise CannotRepair(f"nothing was repaired: {error}") from error


def _part_path(database: Path, sha256: str) -> Path:
    return database.with_suffix(".media") / sha256[:2] / sha256


def _exchange(path: Path) -> None:
    """Replace a database by the new one beside it, durably. What was there before is set aside."""
    for suffix in OWN:
        if suffix:
            beside(path, suffix).unlink(missing_ok=True)
    sync_directory(path.parent)
    beside(path, REPAIRED).replace(path)
    sync_directory(path.parent)


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
