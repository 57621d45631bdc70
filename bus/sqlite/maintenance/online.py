"""Checks and backups of the scopes of a daemon, which goes on serving them meanwhile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import free_bytes
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance import backups
from backscroll.bus.sqlite.maintenance.catalog import CannotBackUp, read_catalog
from backscroll.bus.sqlite.maintenance.copying import DamagedCopy, remove_copy
from backscroll.bus.sqlite.maintenance.findings import Problem
from backscroll.bus.sqlite.maintenance.worker import Worker
from backscroll.bus.sqlite.scopes import CHECKING, SqliteScopes
from backscroll.bus.stores import BackupPlan, Outcome
from backscroll.schema.errors import NotFound, Storage
from backscroll.schema.replies import Backup

COPIES_MAX = 3
FILES_OF_PROOF = 3  # of the size of the database: the copy, and what the log is executed into


class _Counts:
    """What was examined, added up."""

    def __init__(self) -> None:
        self.scopes = self.bytes = self.rows = self.commands = self.media_parts = 0
        self.not_compared: list[str] = []

    def __str__(self) -> str:
        parts = [
            f"{self.scopes:,} scopes with {self.bytes:,} bytes",
            f"{self.rows:,} rows",
            f"{self.commands:,} commands",
        ]
        if self.media_parts:
            parts.append(f"{self.media_parts:,} parts of media")
        return "; ".join([", ".join(parts), *self.not_compared])


def check(scopes: SqliteScopes, scope: str | None, progress: Progress) -> Outcome:
    """Copy each scope and examine the copy: its pages, its log, its tables, and the media."""
    problems, counts = list[Problem](), _Counts()
    names = scopes.names() if scope is None else [scope]
    with Worker() as worker:
        for number, name in enumerate(names, 1):
            prefix = f"scope {number} of {len(names)}: " if len(names) > 1 else ""
            problems += _problems_of(scopes, name, worker, _prefixed(progress, prefix), counts)
    if scope is None:
        problems += _unreadable_files(scopes)
    found = [f"{each.file}: {each.what}" for each in problems]
    verdict = _number(len(found), "problem") if found else "nothing is damaged"
    return Outcome(found, f"{counts}: {verdict}")


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda step, done, total: progress(prefix + step, done, total)


def _problems_of(
    scopes: SqliteScopes, name: str, worker: Worker, progress: Progress, counts: _Counts
) -> Iterator[Problem]:
    path = scopes.scope_named(name).path
    file = path.relative_to(scopes.directory).as_posix()
    with tempfile.TemporaryDirectory(prefix=CHECKING, dir=scopes.directory) as own, scopes.keeping_media(name):
        copy = Path(own) / path.name
        try:
            _check_room(scopes, path)
            media = _copy(scopes, name, copy, worker, progress)
            proof = worker.examine(copy, media, Path(own), progress)
        except (CannotOpen, DamagedCopy) as error:
            yield Problem(name, file, str(error))
            return
        except NotFound:  # it was deleted meanwhile
            return
        folder = path.parent.relative_to(scopes.directory)
        for problem in proof.problems:
            yield problem._replace(file=(folder / problem.file).as_posix())
        if proof.more:
            yield Problem(name, file, f"{proof.more} further problems")
    counts.scopes += 1
    counts.bytes += proof.bytes
    counts.rows += sum(proof.rows.values())
    counts.commands += proof.seq
    counts.media_parts += proof.media_parts
    if proof.compared:
        counts.not_compared.append(f"the rows of {file} were not compared with its command log: {proof.compared}")


def _check_room(scopes: SqliteScopes, path: Path) -> None:
    """Raise `Storage` if the copies of a check do not fit on the disk."""
    needed, free = FILES_OF_PROOF * path.stat().st_size, free_bytes(scopes.directory)
    if free is not None and free < needed:
        raise Storage(
            f"the check of {path.name} needs {needed} bytes for copies, and {free} are free: free some of the disk",
            retryable=True,
        )


def _copy(scopes: SqliteScopes, name: str, target: Path, worker: Worker, progress: Progress) -> Path:
    """Copy the database of a scope, once more if it could not be left alone so long; the directory of its media."""
    for _ in range(COPIES_MAX):
        with scopes.copying(name) as files:
            try:
                worker.copy_database(files.database, target, progress)
            except DamagedCopy:
                if files.end():
                    raise
            if files.end():
                return files.media
        remove_copy(target)
    raise Storage(f"the scope could not be copied, in {COPIES_MAX} attempts: too much is written. Try again later")


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
    with plain_errors(), Worker() as worker:
        backup = backups.take_backup(scopes, plan.directory, progress, names=names, full=plan.full, work=worker.work)
        removed = backups.remove_old(plan.directory, daily=plan.daily, weekly=plan.weekly)
    manifest = backup.manifest
    what = "everything" if manifest.kind == "full" else "what changed"
    message = f"{backup.name}: {what} of {_number(len(manifest.scopes), 'scope')}, {backup.bytes:,} bytes"
    if removed:
        message += f"; removed: {_number(len(removed), 'old backup')}"
    return Outcome([f"{each.file}: {each.what}" for each in manifest.problems], message, backup.name)


def verify_backup(directory: Path, name: str | None, progress: Progress) -> Outcome:
    """Verify a backup and those that it continues."""
    with plain_errors(), Worker() as worker:
        chosen = name or read_catalog(directory).backups[-1].name
        found = backups.verify(directory, progress, name=chosen, work=worker.work)
    verdict = _number(len(found), "problem") if found else "it is whole"
    return Outcome([f"{each.file}: {each.what}" for each in found], f"{chosen}: {verdict}", chosen)


def backups_in(directory: Path) -> list[Backup]:
    """The backups in a directory, the oldest first; raises `NotFound` if it is no directory of backups."""
    try:
        catalog = read_catalog(directory)
    except CannotBackUp as error:
        raise NotFound.at("$.payload.directory", str(error)) from error
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


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors of backups as errors for callers."""
    try:
        yield
    except CannotBackUp as error:
        raise Storage(str(error)) from error
