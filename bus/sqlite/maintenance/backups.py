"""Backups: full copies of scopes, and the commands since then; keeping some of them, and proving that they are whole.

    scopes ──▶ .partial-<name>/ ──▶ every file is read again and compared ──▶ manifest ──▶ <name>/

The heavy work is in the functions of `Work`, which take paths, so that a daemon can have another process call them. All
others may be called by any thread of the process that has the scopes open.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import apsw
from msgspec.structs import replace

from backscroll.bus.access_files import KEYS_FILE, TOKENS_FILE
from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import free_bytes, make_directory, sync_directory, write_whole
from backscroll.bus.logging import log
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.errors import DamagedBlob, is_disk_full
from backscroll.bus.sqlite.maintenance.catalog import (
    HASH_CHARACTERS,
    MEDIA,
    PARTIAL,
    Backup,
    CannotBackUp,
    Catalog,
    File,
    Manifest,
    ScopeState,
    hash_file,
    name_of,
    part_path,
    parts_in,
    read_catalog,
    remove_backups,
    remove_leftovers,
    write_manifest,
    write_part,
    writing,
)
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, DamagedCopy, copy_database, plain_errors, remove_copy
from backscroll.bus.sqlite.maintenance.findings import PROBLEMS_MAX, Problem
from backscroll.bus.sqlite.maintenance.increments import (
    CannotContinue,
    LogEnd,
    chain_at,
    check_log,
    latest_of,
    log_end,
    read_page,
    write_increment,
    write_passwords,
)
from backscroll.bus.sqlite.maintenance.proof import prove
from backscroll.bus.sqlite.scopes import FilesToCopy, SqliteScopes
from backscroll.bus.sqlite.transaction import BlobsInTransaction, Snapshot
from backscroll.handlers.sql import statement
from backscroll.handlers.storage import LogPosition
from backscroll.schema.command_log import LogPage
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import BackscrollError, Busy, NotFound, Storage
from backscroll.schema.log_file import BadLine, LogHeader
from backscroll.schema.tables import MediaParts

DAY_MS = 86_400_000
FULL_AFTER_MS = 7 * DAY_MS
COPIES_MAX = 3
CANNOT_CONTINUE = (CannotContinue, Busy, Storage, DamagedBlob, apsw.Error, *DECODE_ERRORS)
"""Why a scope is copied whole: if it is damaged, the proof of the copy says what is."""
OWN_FILES = (KEYS_FILE, TOKENS_FILE)
SELECT_NAMED_PARTS = statement(MediaParts.select(MediaParts.sha256).distinct())


class Copied(NamedTuple):
    """A full copy that was read whole: what it has, and what is wrong with it in words, at most `PROBLEMS_MAX`."""

    file: File
    seq: int
    chain: str
    latest: int
    lineage: str
    schema_version: int
    problems: list[str]


class CopiedMedia(NamedTuple):
    """What was copied of the media of a scope: all its parts, the bytes of new ones, and which were damaged."""

    parts: int
    bytes: int
    damaged: list[str]


class Work(NamedTuple):
    """The heavy work. Another process may do it: the arguments are paths, the results are plain values."""

    copy_database: Callable[[Path, Path, Progress], None]
    copy_media: Callable[[Path, Path, Path, Progress], CopiedMedia]
    read_copy: Callable[[Path, Path, Progress], Copied]
    hash_file: Callable[[Path, Progress], File]
    check_log: Callable[[Path, Progress], object]
    prove: Callable[[Path, Path | None, Progress], list[str]]
    """Everything that is wrong with a closed database, and with its media if their directory is given, in words."""


def copy_media(source: Path, media: Path, listing: Path, progress: Progress) -> CopiedMedia:
    """Copy the parts in a scope's directory of media that a directory of backups lacks, and list all of them, durably.

    Each is compared with its hash. A damaged one is left out.
    """
    paths = sorted(path for path in source.glob("*/*") if len(path.name) == HASH_CHARACTERS)
    copied, damaged, names = 0, list[str](), list[str]()
    for number, path in enumerate(paths, 1):
        progress("copying media", number, len(paths))
        if not part_path(media, path.name).exists():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != path.name:
                damaged.append(path.name)
                continue
            copied += write_part(media, path.name, data)
        names.append(path.name)
    write_whole(listing, "".join(f"{name}\n" for name in names).encode())
    return CopiedMedia(len(names), copied, damaged)


def read_copy(database: Path, media: Path, progress: Progress) -> Copied:
    """Read a full copy: its hash, the end of its log, and which parts of media it names that are not there."""
    file = hash_file(database, progress)
    with plain_errors(database), closing(opening.open_alone(database)) as connection:
        db = Snapshot(connection, BlobsInTransaction(BlobDirectory(media)), 0, LogPosition())
        end, latest = log_end(db), latest_of(db)
        missing = [sha256 for (sha256,) in db.each(SELECT_NAMED_PARTS) if not part_path(media, sha256).exists()]
        schema_version = connection.pragma("user_version")
    problems = [f"the part {sha256} of a media is missing" for sha256 in missing[:PROBLEMS_MAX]]
    return Copied(file, end.seq, end.chain.hex(), latest, end.lineage, schema_version, problems)


def prove_copy(database: Path, media: Path | None, progress: Progress) -> list[str]:
    """Read a closed database whole, and the media that it names; what is wrong with them, in words."""
    proof = prove(database, media, progress, scratch=database.parent, replay=False, unnamed_parts=False)
    more = [f"and {proof.more} more problems"] if proof.more else []
    return [problem.what for problem in proof.problems] + more


IN_THIS_PROCESS = Work(copy_database, copy_media, read_copy, hash_file, check_log, prove_copy)


@contextmanager
def copied(
    scopes: SqliteScopes,
    name: str,
    target: Path,
    copy: Callable[[Path, Path, Progress], None],
    progress: Progress,
    *,
    closed: bool = False,
) -> Iterator[FilesToCopy]:
    """A copy of the database of a scope, made once more if it could not be left alone so long. Its media are kept.

    With `closed`, nobody else uses the scope. Raises `DamagedCopy`, `CannotCopy`, and what `copy` raises.
    """
    for _ in range(COPIES_MAX):
        with scopes.copying(name, closed=closed) as files:
            try:
                copy(files.database, target, progress)
            except (CannotCopy, FileNotFoundError):
                if files.end():  # else it is of several states, or the scope was deleted meanwhile
                    raise
            else:
                if files.end():
                    yield files
                    return
        remove_copy(target)
    raise CannotCopy(
        f"the scope {name!r} could not be copied, in {COPIES_MAX} attempts: more was written meanwhile than its "
        "write-ahead log may grow, the disk is almost full, or it was compacted or deleted again and again. Try again "
        "later"
    )


class _Damaged(Exception):
    """A scope that is not backed up because it is damaged; the arguments are what is wrong, in words."""


def take_backup(
    scopes: SqliteScopes,
    directory: Path,
    progress: Progress,
    *,
    names: Iterable[str] | None = None,
    full: bool = False,
    full_after_ms: int = FULL_AFTER_MS,
    stopped: bool = False,
    work: Work = IN_THIS_PROCESS,
) -> Backup:
    """Back up scopes, all of them unless `names` are given, into a directory of backups, which is made if it is new.

    A scope is copied whole if `full`, if its newest full copy is older than `full_after_ms`, or if its log does not
    continue that; otherwise only the commands since its newest backup are. With `stopped`, nobody else uses the scopes,
    and `work` may be done by this process; otherwise it must be done by another one.

    A scope that is damaged is left out, and the problems of the manifest say so; its earlier backups stay. Raises
    `CannotBackUp` with what happened and what to do; nothing is left of the backup then.
    """
    with writing(directory, scopes.directory):
        remove_leftovers(directory)
        catalog = read_catalog(directory)
        now = max([scopes.now(), *(each.manifest.taken_at + 1 for each in catalog.backups)])
        partial_path = directory / f"{PARTIAL}{name_of(now)}"
        backup = _Writer(scopes, partial_path, catalog, progress, work, now, full_after_ms, full=full, stopped=stopped)
        try:
            return backup.write(scopes.names() if names is None else _existing(names, scopes))
        except (OSError, apsw.Error, CannotOpen, CannotCopy, BackscrollError) as error:
            shutil.rmtree(partial_path, ignore_errors=True)
            raise CannotBackUp(_explained(error, directory, scopes.directory)) from error
        except BaseException:
            shutil.rmtree(partial_path, ignore_errors=True)
            raise


def _existing(names: Iterable[str], scopes: SqliteScopes) -> list[str]:
    """These names; raises `CannotBackUp` if there is no such scope."""
    listed = list(dict.fromkeys(names))
    for name in listed:
        if not scopes.has_files(name):
            raise CannotBackUp(f"there is no scope {name!r}")
    return listed


def _explained(error: Exception, directory: Path, data_dir: Path) -> str:
    if is_disk_full(error):
        free = f"{free_bytes(directory)} bytes are free for {directory}, and {free_bytes(data_dir)} for {data_dir}"
        return f"a disk is full: {free}. Free some of it, or keep fewer backups; this one was removed"
    return f"the backup failed, and what was written of it was removed: {error}"


class _Writer:
    """One backup while it is written."""

    def __init__(
        self,
        scopes: SqliteScopes,
        path: Path,
        catalog: Catalog,
        progress: Progress,
        work: Work,
        now: int,
        full_after_ms: int,
        *,
        full: bool,
        stopped: bool,
    ) -> None:
        self._scopes, self._path, self._progress, self._work = scopes, path, progress, work
        self._catalog, self._now, self._full, self._stopped = catalog, now, full, stopped
        self._by_name = {each.name: each for each in catalog.backups}
        self._newest = {name: each for each in catalog.backups for name in each.states}
        self._media = path.parent / MEDIA
        self._full_since = now - full_after_ms
        self._files: list[File] = []
        self._states: list[ScopeState] = []
        self._problems: list[Problem] = []

    def write(self, names: list[str]) -> Backup:
        make_directory(self._path)
        make_directory(self._media)
        for number, name in enumerate(names):
            self._progress("backing up scopes", number, len(names))
            self._add(name)
        if not self._states:
            said = "; ".join(f"{each.scope!r}: {each.what}" for each in self._problems[:3])
            raise CannotBackUp(f"nothing was backed up: {said or 'there are no such scopes'}")
        for name in OWN_FILES:
            self._add_own(name)
        manifest = Manifest(
            taken_at=self._now,
            backscroll=version("backscroll"),
            kind="increment" if any(each.base for each in self._states) else "full",
            scopes=self._states,
            files=self._files,
            problems=self._problems,
        )
        write_manifest(self._path, manifest)
        final = self._path.with_name(self._path.name.removeprefix(PARTIAL))
        self._path.rename(final)
        sync_directory(final.parent)
        log.info("backup taken", path=str(final), kind=manifest.kind, problems=len(self._problems))
        return Backup.at(final, manifest)

    def _add_own(self, name: str) -> None:
        source = self._scopes.directory / name
        if source.is_file():
            write_whole(self._path / name, source.read_bytes())
            self._files.append(hash_file(self._path / name))

    def _add(self, name: str) -> None:
        try:
            self._states.append(self._increment(name) or self._copy(name))
        except NotFound:
            pass  # it was deleted meanwhile
        except (_Damaged, DamagedCopy, CannotOpen) as error:
            file = self._scopes.scope_named(name).path.relative_to(self._scopes.directory).as_posix()
            self._problems += [Problem(name, file, str(what)) for what in error.args]

    # The commands since another backup

    def _increment(self, name: str) -> ScopeState | None:
        """The commands since the newest backup of a scope; None if it has to be copied whole."""
        base = self._newest.get(name)
        if self._full or base is None or not self._is_recent(base, name):
            return None
        before, stem = base.states[name], self._stem(name)
        try:
            with self._scopes.keeping_media(name):
                return self._continue(name, base.name, before, stem)
        except CANNOT_CONTINUE as reason:
            log.info("a scope is copied whole", reason=str(reason))
            for suffix in (".log", ".passwords"):
                (self._path / f"{stem}{suffix}").unlink(missing_ok=True)
            self._files = [file for file in self._files if file.name.partition(".")[0] != stem]
            return None

    def _is_recent(self, base: Backup, name: str) -> bool:
        """Whether the full copy that a backup of a scope continues is young, there, and larger than what follows it."""
        size, found = 0, base
        while state := found.states.get(name):
            if state.base is None:
                return found.manifest.taken_at > self._full_since and size <= _size_of(found, state)
            size += _size_of(found, state)
            if state.base not in self._by_name:
                return False
            found = self._by_name[state.base]
        return False

    def _continue(self, name: str, base: str, before: ScopeState, stem: str) -> ScopeState:
        passwords = self._path / f"{stem}.passwords"
        with self._scopes.use_to_read(name) as store, store.read() as db:
            end = log_end(db)
            _check_continues(before, end, chain_at(before.seq, db))
            if end.seq > before.seq:
                write_passwords(passwords, db)
        state = ScopeState(
            name=name,
            file=None,
            seq=end.seq,
            chain=end.chain.hex(),
            latest=before.latest,
            lineage=end.lineage,
            schema_version=before.schema_version,
            base=base,
            from_seq=before.seq + 1,
        )
        return self._with_log(state, before, stem) if end.seq > before.seq else state

    def _with_log(self, state: ScopeState, before: ScopeState, stem: str) -> ScopeState:
        header = LogHeader(
            scope=state.name, from_seq=state.from_seq, chain_start=before.chain, to=state.seq, chain_end=state.chain
        )
        target, listing = self._path / f"{stem}.log", self._path / f"{stem}.media"
        read = partial(_read_page, self._scopes, state.name)
        increment = write_increment(target, self._media, header, read, self._progress)
        try:
            self._work.check_log(target, self._progress)
        except BadLine as error:
            raise CannotContinue(f"its log cannot be read back: {error}") from error
        passwords = hash_file(self._path / f"{stem}.passwords")
        self._files += [increment.file, passwords]
        if increment.parts:
            write_whole(listing, "".join(f"{part}\n" for part in increment.parts).encode())
            self._files.append(hash_file(listing))
        return replace(
            state,
            file=target.name,
            latest=max(before.latest, increment.latest),
            passwords=passwords.name,
            media=listing.name if increment.parts else None,
            media_parts=len(increment.parts),
        )

    # Full copies

    def _copy(self, name: str) -> ScopeState:
        """Copy a scope whole, and prove the copy."""
        stem = self._stem(name)
        target, listing = self._path / f"{stem}.db", self._path / f"{stem}.media"
        copy = self._work.copy_database
        with copied(self._scopes, name, target, copy, self._progress, closed=self._stopped) as files:
            try:
                media = self._work.copy_media(files.media, self._media, listing, self._progress)
            except FileNotFoundError:
                if self._scopes.has_files(name):
                    raise
        if not self._scopes.has_files(name):
            remove_copy(target)
            listing.unlink(missing_ok=True)
            raise NotFound(f"the scope {name!r} was deleted meanwhile")
        return self._proven(name, target, listing, media, files.seq)

    def _proven(self, name: str, target: Path, listing: Path, media: CopiedMedia, seq: int) -> ScopeState:
        try:
            copy = self._work.read_copy(target, self._media, self._progress)
            problems = self._work.prove(target, None, self._progress)
        except DamagedCopy as error:
            problems = [str(error)]
        else:
            if copy.seq < seq:  # SQLite takes a log with a damaged end for a shorter one
                problems.append(f"its commands after {copy.seq} are missing: its write-ahead log is damaged")
        if problems:
            remove_copy(target)
            listing.unlink(missing_ok=True)
            raise _Damaged(*problems)
        self._problems += [Problem(name, target.name, what) for what in copy.problems]
        self._files.append(copy.file)
        if media.parts:
            self._files.append(hash_file(listing))
        else:
            listing.unlink()
        return ScopeState(
            name=name,
            file=target.name,
            seq=copy.seq,
            chain=copy.chain,
            latest=copy.latest,
            lineage=copy.lineage,
            schema_version=copy.schema_version,
            media=listing.name if media.parts else None,
            media_parts=media.parts,
        )

    def _stem(self, name: str) -> str:
        return self._scopes.scope_named(name).path.stem


def _check_continues(before: ScopeState, end: LogEnd, chain_then: bytes | None) -> None:
    """Raise `CannotContinue` unless a log is a continuation of what a backup has."""
    if end.lineage != before.lineage:
        raise CannotContinue("it is another database than the one that was backed up")
    if chain_then is None or chain_then.hex() != before.chain or end.log_from > before.seq + 1:
        raise CannotContinue("its log does not have the end of the one that was backed up")


def _read_page(scopes: SqliteScopes, name: str, from_seq: int) -> LogPage:
    with scopes.use_to_read(name) as store, store.read() as db:
        return read_page(from_seq, db)


def _size_of(backup: Backup, state: ScopeState) -> int:
    return backup.files[state.file].bytes if state.file in backup.files else 0


# Keeping some


def remove_old(directory: Path, *, daily: int, weekly: int) -> list[str]:
    """Remove backups, and return their names. Kept are

    - the newest backup of each of the last `daily` days that have one, and what these continue,
    - the newest full one of each of the last `weekly` weeks that have one, with all that continue it,
    - the newest backup of each scope.

    Days and weeks are those of UTC in which backups were taken, so a clock that is wrong now removes nothing. Raises
    `CannotBackUp` if another process writes in the directory.
    """
    with writing(directory):
        remove_leftovers(directory)
        catalog = read_catalog(directory)
        old = {each.name for each in catalog.backups} - _kept(catalog, daily, weekly)
        remove_backups(directory, old)
        return sorted(old)


def _kept(catalog: Catalog, daily: int, weekly: int) -> set[str]:
    days, weeks, newest = dict[object, str](), dict[object, str](), dict[str, str]()
    for each in catalog.backups:  # later ones replace earlier ones of the same day
        time = datetime.fromtimestamp(each.manifest.taken_at / 1000, UTC)
        days[time.date()] = each.name
        if each.manifest.kind == "full":
            weeks[time.isocalendar()[:2]] = each.name
        newest |= dict.fromkeys(each.states, each.name)
    of_weeks = set(list(weeks.values())[max(0, len(weeks) - weekly) :])
    kept = catalog.with_bases(set(list(days.values())[max(0, len(days) - daily) :]) | of_weeks | set(newest.values()))
    for each in catalog.backups:  # in order, so what continues a continuation is kept as well
        if each.bases() and each.bases() <= of_weeks:
            of_weeks.add(each.name)
    return kept | catalog.with_bases(of_weeks)


# Proving


def verify(
    directory: Path, progress: Progress, *, name: str | None = None, work: Work = IN_THIS_PROCESS
) -> list[Problem]:
    """What is wrong with the backups of a directory, or with one and those that it continues; nothing is changed.

    Every file is compared with its hash, every full copy is proven, the commands of every other lead from the end of
    what they continue to their own, and every part of media is compared with its hash. Raises `CannotBackUp` if there
    is no such backup.
    """
    catalog = read_catalog(directory)
    chosen = catalog.backups
    problems = list(catalog.problems)
    if name is not None:
        needed = catalog.with_bases({catalog.named(name).name})
        chosen = [each for each in chosen if each.name in needed]
        problems = []
    parts: dict[str, Problem] = {}
    for backup in chosen:
        problems += _problems_of(backup, catalog, progress, work)
        for state in backup.manifest.scopes:
            try:
                for sha256 in parts_in(backup.path, state):
                    parts.setdefault(sha256, Problem(state.name, f"{MEDIA}/{sha256[:2]}/{sha256}", ""))
            except OSError:
                pass  # a file that is missing is a problem already
    bad = _bad_parts(directory / MEDIA, parts, progress)
    return problems + [parts[sha256]._replace(what=f"this part of a media {what}") for sha256, what in bad]


def _bad_parts(media: Path, parts: Iterable[str], progress: Progress) -> Iterator[tuple[str, str]]:
    """The parts of media that are missing or damaged, with what they are."""
    for number, sha256 in enumerate(parts, 1):
        progress("checking media", number, None)
        path = part_path(media, sha256)
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                yield sha256, "does not match its hash"
        except FileNotFoundError:
            yield sha256, "is missing"
        except OSError as error:
            yield sha256, f"cannot be read: {error}"


def _problems_of(backup: Backup, catalog: Catalog, progress: Progress, work: Work) -> Iterator[Problem]:
    owner = {each.file: each for each in backup.manifest.scopes if each.file}
    for file in backup.manifest.files:
        state, where = owner.get(file.name), f"{backup.name}/{file.name}"
        scope = state.name if state else ""
        try:
            found = work.hash_file(backup.path / file.name, progress)
        except OSError as error:
            yield Problem(scope, where, f"it cannot be read: {error}")
            continue
        if found != file:
            yield Problem(scope, where, f"it does not match its hash; it has {found.bytes} of {file.bytes} bytes")
        elif state is not None:
            for what in _problems_inside(backup, state, progress, work):
                yield Problem(scope, where, what)
    by_name = {each.name: each for each in catalog.backups}
    for state in backup.manifest.scopes:
        if what := _gap_before(state, by_name):
            yield Problem(state.name, f"{backup.name}/{state.file or ''}", what)


def _problems_inside(backup: Backup, state: ScopeState, progress: Progress, work: Work) -> Iterator[str]:
    """What is wrong with a file whose hash is right: it may have been damaged before it was written."""
    assert state.file is not None
    path = backup.path / state.file
    try:
        if state.base is None:
            yield from work.prove(path, None, progress)
            copy = work.read_copy(path, backup.path.parent / MEDIA, progress)
            if (copy.seq, copy.chain, copy.lineage) != (state.seq, state.chain, state.lineage):
                yield "it is not the database that the manifest names"
        else:
            work.check_log(path, progress)
    except (CannotCopy, BadLine, OSError) as error:
        yield f"it is damaged: {error}"


def _gap_before(state: ScopeState, by_name: dict[str, Backup]) -> str:
    """Why commands do not continue what they should, in words; empty if they do."""
    if state.base is None:
        return ""
    before = by_name[state.base].states.get(state.name) if state.base in by_name else None
    if before is None:
        return f"the backup {state.base} that it continues is missing"
    return "" if before.seq + 1 == state.from_seq else f"it does not continue the backup {state.base}"
