"""Checks and backups of the scopes of a daemon, which goes on serving them meanwhile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import free_bytes
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance import backups
from backscroll.bus.sqlite.maintenance.backups import copied
from backscroll.bus.sqlite.maintenance.catalog import CannotBackUp, read_catalog
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, DamagedCopy
from backscroll.bus.sqlite.maintenance.findings import PROBLEMS_MAX, Problem
from backscroll.bus.sqlite.maintenance.proof import Proof
from backscroll.bus.sqlite.maintenance.worker import Worker
from backscroll.bus.sqlite.scopes import CHECKING, LOW_BYTES, SqliteScopes
from backscroll.bus.stores import BackupPlan, Outcome
from backscroll.schema.errors import BackscrollError, NotFound, Storage
from backscroll.schema.replies import Backup
from backscroll.schema.wire import DEFAULT_SCOPE

FILES_OF_PROOF = 3  # of the size of the database: the copy, and what the log is executed into
NAMED_MAX = 3  # of what could not be checked or compared
CANNOT_CHECK = (BackscrollError, CannotCopy, OSError)


class _Found:
    """What was examined, added up; what is wrong with it, and what could not be examined, both in words."""

    def __init__(self) -> None:
        self.scopes = self.bytes = self.rows = self.commands = self.media_parts = 0
        self.problems: list[str] = []
        self.more = 0
        self.not_compared: list[str] = []
        self.not_checked: list[str] = []

    def add(self, proof: Proof, file: str) -> None:
        self.scopes += 1
        self.bytes += proof.bytes
        self.rows += sum(proof.rows.values())
        self.commands += proof.seq
        self.media_parts += proof.media_parts
        self.more += proof.more
        if proof.compared:
            self.not_compared.append(f"the rows of {file} were not compared with its command log: {proof.compared}")

    def tell(self, problem: Problem) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(_line(problem))
        else:
            self.more += 1

    def outcome(self) -> Outcome:
        """How the check ended; raises `Storage` if something could not be checked, and nothing else is wrong."""
        number = len(self.problems) + self.more
        verdict = _number(number, "problem") if number else "nothing is damaged"
        if self.not_checked:
            verdict += f" in what was checked; {_number(len(self.not_checked), 'scope')} could not be"
        message = "; ".join([f"{self._counts()}: {verdict}", *_first(self.not_checked), *_first(self.not_compared)])
        if self.not_checked and not number:
            raise Storage(message)
        return Outcome([*self.problems, *([f"and {self.more} more"] if self.more else [])], message)

    def _counts(self) -> str:
        parts = [
            f"{_number(self.scopes, 'scope')} with {self.bytes:,} bytes",
            _number(self.rows, "row"),
            _number(self.commands, "command"),
        ]
        if self.media_parts:
            parts.append(f"{self.media_parts:,} parts of media")
        return ", ".join(parts)


def check(scopes: SqliteScopes, scope: str | None, progress: Progress) -> Outcome:
    """Copy each scope and examine the copy: its pages, its log, its tables, and the media.

    A scope that cannot be checked keeps no other from it.
    """
    found = _Found()
    names = scopes.names() if scope is None else [scope]
    with Worker() as worker:
        for number, name in enumerate(names, 1):
            prefix = f"scope {number} of {len(names)}: " if len(names) > 1 else ""
            path = scopes.scope_named(name).path
            file = path.relative_to(scopes.directory).as_posix()
            try:
                _check_scope(scopes, name, worker, _prefixed(progress, prefix), found)
            except NotFound:  # it was deleted meanwhile
                pass
            except (CannotOpen, DamagedCopy) as error:
                found.tell(Problem(name, file, str(error)))
            except CANNOT_CHECK as error:
                found.not_checked.append(f"{file}: {error}")
    if scope is None:
        for problem in _unreadable_files(scopes):
            found.tell(problem)
    return found.outcome()


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda step, done, total: progress(prefix + step, done, total)


def _check_scope(scopes: SqliteScopes, name: str, worker: Worker, progress: Progress, found: _Found) -> None:
    path = scopes.scope_named(name).path
    place = tempfile.gettempdir() if scopes.is_read_only() else scopes.directory
    with tempfile.TemporaryDirectory(prefix=CHECKING, dir=place) as own:
        copy = Path(own) / path.name
        _check_room(Path(own), path)
        with copied(scopes, name, copy, worker.copy_database, progress) as files:
            proof = worker.examine(copy, files.media, Path(own), progress)
    if not scopes.has_files(name):  # it was deleted meanwhile, with its media
        return
    folder = path.parent.relative_to(scopes.directory)
    for problem in proof.problems:
        found.tell(problem._replace(scope=name, file=(folder / problem.file).as_posix()))
    found.add(proof, (folder / path.name).as_posix())


def _check_room(place: Path, path: Path) -> None:
    """Raise `Storage` if the copies of a check do not fit on the disk, or leave too little for what is saved."""
    needed, free = FILES_OF_PROOF * path.stat().st_size + LOW_BYTES, free_bytes(place)
    if free is not None and free < needed:
        raise Storage(f"a check needs {needed} bytes for copies, and {free} are free: free some of the disk")


def _unreadable_files(scopes: SqliteScopes) -> Iterator[Problem]:
    """Files of scopes that do not even tell the name of one."""
    known = {scopes.scope_named(name).path for name in scopes.names()}
    for path in sorted(scopes.directory.glob("scopes/*.db")):
        if path not in known:
            file = path.relative_to(scopes.directory).as_posix()
            yield Problem(
                "", file, "it cannot be read as the database of a scope; `backscroll repair` saves what it can"
            )


def back_up(scopes: SqliteScopes, plan: BackupPlan, scope: str | None, progress: Progress) -> Outcome:
    """Make a backup, then remove those that are not to be kept."""
    names = None if scope is None else [scope]
    with plain_errors(plan.directory), Worker() as worker:
        backup = backups.take_backup(scopes, plan.directory, progress, names=names, full=plan.full, work=worker.work)
        removed = backups.remove_old(plan.directory, daily=plan.daily, weekly=plan.weekly)
    manifest = backup.manifest
    what = "everything" if manifest.kind == "full" else "what changed"
    message = f"{backup.name}: {what} of {_number(len(manifest.scopes), 'scope')}, {backup.bytes:,} bytes"
    if removed:
        message += f"; removed: {_number(len(removed), 'old backup')}"
    return Outcome(list(map(_line, manifest.problems)), message, backup.name)


def verify_backup(directory: Path, name: str | None, progress: Progress) -> Outcome:
    """Verify a backup and those that it continues; without a name the newest, and that no manifest is damaged."""
    with plain_errors(directory), Worker() as worker:
        catalog = read_catalog(directory)
        found = [] if name else list(catalog.problems)
        chosen = name or catalog.newest().name
        found += backups.verify(directory, progress, name=chosen, work=worker.work)
    verdict = _number(len(found), "problem") if found else "it is whole"
    return Outcome(list(map(_line, found)), f"{chosen}: {verdict}", chosen)


def backups_in(directory: Path) -> list[Backup]:
    """The backups in a directory, the oldest first; raises `NotFound` if it is no directory of backups."""
    try:
        catalog = read_catalog(directory)
    except CannotBackUp as error:
        raise NotFound.at("$.payload.directory", str(error)) from error
    except OSError as error:
        raise _cannot_use(directory, error) from error
    return [
        Backup(
            name=each.name,
            incremental=each.manifest.kind == "increment",
            taken_at=each.manifest.taken_at,
            bytes=each.bytes,
            scopes=len(each.manifest.scopes),
        )
        for each in catalog.backups
    ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _first(lines: list[str]) -> list[str]:
    """The first of some lines, and how many there are besides."""
    more = len(lines) - NAMED_MAX
    return lines[:NAMED_MAX] + ([f"and so for {more} more"] if more > 0 else [])


def _line(problem: Problem) -> str:
    """A problem as administrators read it: files of scopes have names that say nothing."""
    scope = f" (scope {problem.scope!r})" if problem.scope not in ("", DEFAULT_SCOPE) else ""
    return f"{problem.file}{scope}: {problem.what}"


@contextmanager
def plain_errors(directory: Path) -> Iterator[None]:
    """Errors of backups as errors for callers."""
    try:
        yield
    except CannotBackUp as error:
        raise Storage(str(error)) from error
    except OSError as error:
        raise _cannot_use(directory, error) from error


def _cannot_use(directory: Path, error: OSError) -> Storage:
    return Storage(f"the directory of backups {directory} cannot be used: {error}")
