"""Restoring scopes from backups: as they were at the newest backup, after a command, or at a time.

    full copy ──▶ the commands since then, executed again ──▶ compared with the manifest ──▶ new lineage ──▶ in place

Everything is built in a directory beside the one that it is for, and moved there at the end. What was there is set
aside and never removed.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from msgspec import Raw
from msgspec.structs import replace

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.directory import RESTORING, is_data_directory, is_new, locked
from backscroll.bus.failures import CannotStart
from backscroll.bus.files import make_directory, sync_directory, write_whole
from backscroll.bus.logging import log
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite import opening
from backscroll.bus.sqlite.blobs import BlobDirectory
from backscroll.bus.sqlite.errors import is_disk_full
from backscroll.bus.sqlite.maintenance.backups import IN_THIS_PROCESS, OWN_FILES, Work
from backscroll.bus.sqlite.maintenance.catalog import (
    MEDIA,
    Backup,
    CannotBackUp,
    Catalog,
    ScopeState,
    check_apart,
    hash_file,
    part_path,
    parts_in,
    read_catalog,
)
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, copy_file, plain_errors
from backscroll.bus.sqlite.maintenance.findings import PROBLEMS_MAX, Problem
from backscroll.bus.sqlite.maintenance.increments import lines_of, log_end, passwords_in, passwords_of, read_page
from backscroll.bus.sqlite.scopes import OWN_FILES as DATABASE_FILES
from backscroll.bus.sqlite.scopes import SqliteScopes, beside
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.bus.sqlite.transaction import BlobsInTransaction, Snapshot, Transaction
from backscroll.handlers import HANDLERS
from backscroll.handlers.execute import execute_entry
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import LogPosition, Retention
from backscroll.schema.command_log import LogEntry, as_logged, canonical, digest_of
from backscroll.schema.errors import BackscrollError, NotFound
from backscroll.schema.log_file import BadLine, LogLine
from backscroll.schema.operations import PutMedia, PutMediaPart
from backscroll.schema.operations.decoding import UNLIMITED, decode_operation
from backscroll.schema.paths import OWN_TOOLS, store_of
from backscroll.schema.tables import Rooms
from backscroll.schema.wire import MSGPACK

ENTRIES_AT_ONCE = 256
BYTES_AT_ONCE = 4 * 2**20
BUILDING = ".restoring-"
MEDIA_COMMANDS = (PutMediaPart.wire_name, PutMedia.wire_name)

CLEAR_PASSWORDS = statement(Rooms.update({Rooms.password: Named("none")}).where(Rooms.password.is_null(False)))
SET_PASSWORD = statement(Rooms.update({Rooms.password: Named("password")}).where(Rooms.id == Named("room_id")))
SET_PASSWORD_IF_NONE = statement(
    Rooms.update({Rooms.password: Named("password")}).where(
        (Rooms.id == Named("room_id")) & Rooms.password.is_null(True)
    )
)


class CannotRestore(Exception):
    """Nothing was restored, and nothing changed; the message says why and what to do."""


class Until(NamedTuple):
    """Where to stop: after the command with this seq, or before the first one of a later time (ms since the epoch)."""

    seq: int | None = None
    at: int | None = None

    def includes(self, entry: LogEntry) -> bool:
        return (self.seq is None or entry.seq <= self.seq) and (self.at is None or entry.at <= self.at)

    def covers(self, state: ScopeState) -> bool:
        """Whether everything that a backup has of a scope is from before."""
        return (self.seq is None or state.seq <= self.seq) and (self.at is None or state.latest <= self.at)


class Restored(NamedTuple):
    """A scope that was restored: the number of its last command, and from which backups."""

    scope: str
    seq: int
    chain: str
    backups: list[str]


class RestoreReport(NamedTuple):
    """What was restored, where the files are that were there before, and what of the media could not be restored."""

    scopes: list[Restored]
    set_aside: Path | None
    problems: list[Problem]


class _Source(NamedTuple):
    """A backup that a scope is restored from, and what it has of the scope."""

    backup: Backup
    state: ScopeState


def restore(
    directory: Path,
    into: Path,
    progress: Progress,
    *,
    name: str | None = None,
    until_seq: int | None = None,
    until_at: int | None = None,
    scope: str | None = None,
    retention: Retention | None = None,
    prove: bool = True,
    work: Work = IN_THIS_PROCESS,
    clock: Callable[[], int] = wall_clock_ms,
) -> RestoreReport:
    """Restore all scopes, or one, from a directory of backups into a data directory that no daemon uses.

    As of the newest backup, or the one of this `name`. `until_seq`, of one scope, and `until_at`, in ms since the
    epoch, name an earlier moment.

    The files that are there, of this scope or of all, are set aside beside the directory, or inside of it if it is a
    file system of its own; keys and tokens that are there stay. `retention` is that of the daemon. With `prove`, the
    restored databases are checked before they are moved into place.

    Raises `CannotRestore`.
    """
    until = Until(until_seq, until_at)
    try:
        check_apart(directory, into)
        _check_suitable(into)
        catalog = read_catalog(directory)
        plans = _plans(catalog, name, scope, until)
        with locked(into):
            return _restore(into, plans, until, scope, _Tools(progress, retention, prove, work, clock))
    except CannotBackUp as error:
        raise CannotRestore(str(error)) from error
    except CannotStart as error:
        raise CannotRestore(f"nothing was restored: {error}") from error
    except (OSError, apsw.Error, CannotCopy, BackscrollError, BadLine) as error:
        what = f"the disk of {into} is full" if is_disk_full(error) else str(error)
        raise CannotRestore(f"nothing was restored: {what}") from error


def _check_suitable(into: Path) -> None:
    """Raise `CannotRestore` for a directory of something else."""
    if store_of(into) is not None:
        raise CannotRestore(f"nothing was restored: in {into} {OWN_TOOLS}. Name another directory")
    if not is_data_directory(into) and not is_new(into):
        raise CannotRestore(f"{into} is neither a data directory nor empty; name another one")


class _Tools(NamedTuple):
    progress: Progress
    retention: Retention | None
    prove: bool
    work: Work
    clock: Callable[[], int]


# Which backups


def _plans(catalog: Catalog, name: str | None, scope: str | None, until: Until) -> dict[str, list[_Source]]:
    """For each scope the backups to restore it from, in their order; the first is a full copy, unless none is early
    enough.
    """
    if not catalog.backups:
        raise CannotRestore("there are no backups" + (f": {catalog.problems[0].what}" if catalog.problems else ""))
    newest = catalog.named(name) if name is not None else _newest_with(catalog, scope)
    names = [each.name for each in newest.manifest.scopes] if scope is None else [scope]
    if until.seq is not None and len(names) > 1:
        raise CannotRestore("each scope counts its own commands: name the scope whose seq this is")
    return {each: _plan(catalog, newest, each, until) for each in names}


def _newest_with(catalog: Catalog, scope: str | None) -> Backup:
    found = [each for each in catalog.backups if scope is None or scope in each.states]
    if not found:
        raise CannotRestore(f"no backup has the scope {scope!r}")
    return found[-1]


def _plan(catalog: Catalog, newest: Backup, scope: str, until: Until) -> list[_Source]:
    target = newest.states.get(scope)
    if target is None:
        raise CannotRestore(f"the backup {newest.name} does not have the scope {scope!r}")
    if until.seq is not None and until.seq > target.seq:
        raise CannotRestore(f"the backup {newest.name} of the scope {scope!r} ends with seq {target.seq}")
    known = [
        _Source(each, state)
        for each in catalog.backups
        if each.name <= newest.name
        and (state := each.states.get(scope)) is not None
        and state.lineage == target.lineage
    ]
    full = [at for at, each in enumerate(known) if each.state.base is None and until.covers(each.state)]
    first = full[-1] if full else 0
    last = next((at for at in range(first, len(known)) if not until.covers(known[at].state)), len(known) - 1)
    if until.seq is not None:
        last = next(at for at in range(first, len(known)) if known[at].state.seq >= until.seq)
    if not full:  # from the log in the first full copy that is later
        first = last = next(at for at in range(len(known)) if known[at].state.base is None)
    return known[first : last + 1]


# Building


def _restore(
    into: Path, plans: dict[str, list[_Source]], until: Until, scope: str | None, tools: _Tools
) -> RestoreReport:
    parent = _place_beside(into)
    prefix = f"{BUILDING}{into.name}-"
    for left in parent.iterdir():  # by a restore that was killed; another hyphen is of another directory's name
        if left.name.startswith(prefix) and "-" not in left.name.removeprefix(prefix):
            shutil.rmtree(left, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        restored, problems, paths = [], list[Problem](), dict[str, Path]()
        with closing(SqliteScopes(building, clock=tools.clock, retention=tools.retention)) as scopes:
            for name, sources in plans.items():
                restored.append(_Building(scopes, name, until, tools, problems).build(sources))
                paths[name] = scopes.scope_named(name).path
        if tools.prove:
            for name, sources in plans.items():
                _prove(paths[name], name, sources, tools)
        newest = max((sources[-1].backup for sources in plans.values()), key=lambda backup: backup.name)
        own = [] if scope is not None else [each for each in OWN_FILES if not (into / each).exists()]
        for each in own:
            if (newest.path / each).exists():
                write_whole(building / each, (newest.path / each).read_bytes())
        set_aside = _move_into_place(building, into, list(paths.values()), scope, tools.clock())
        return RestoreReport(restored, set_aside, problems[:PROBLEMS_MAX])
    finally:
        shutil.rmtree(building, ignore_errors=True)


class _Building:
    """One scope while it is restored into a directory of its own."""

    def __init__(self, scopes: SqliteScopes, name: str, until: Until, tools: _Tools, problems: list[Problem]) -> None:
        self._scopes, self._name, self._until, self._tools, self._problems = scopes, name, until, tools, problems
        self._scope = scopes.scope_named(name)

    def build(self, sources: list[_Source]) -> Restored:
        make_directory(self._scope.path.parent)
        first, *others = sources
        used = [first.backup.name]
        if self._until.covers(first.state):
            self._copy(first)
        else:
            others = sources
        with self._scopes.use(self._name) as store:
            for source in others:
                if source.state.seq > store.seq and source.state.file is not None:
                    used.append(source.backup.name)
                    self._replay(store, source)
            self._check_end(store, sources[-1].state)
            store.renew_lineage()  # it is another history than that of the files that were backed up
            store.checkpoint_fully()
            return Restored(self._name, store.seq, store.position.chain.hex(), list(dict.fromkeys(used)))

    def _copy(self, source: _Source) -> None:
        """Begin with a full copy and its media."""
        assert source.state.file is not None
        path = source.backup.path / source.state.file
        _check_hash(source, path, self._tools)
        copy_file(path, self._scope.path, self._tools.progress, f"copying {source.backup.name}/{path.name}")
        self._install_media(source)

    def _install_media(self, source: _Source) -> None:
        parts = self._parts(source)
        for number, sha256 in enumerate(parts, 1):
            self._tools.progress("copying media", number, source.state.media_parts)
            data = self._read_part(source, sha256)
            if data is not None:
                self._scope.blobs.put(data)

    def _read_part(self, source: _Source, sha256: str) -> bytes | None:
        """The bytes of a part of media in the backups; None, and a problem, if it is missing or damaged."""
        try:
            data = part_path(source.backup.path.parent / MEDIA, sha256).read_bytes()
        except OSError:
            data = None
        if data is not None and hashlib.sha256(data).hexdigest() == sha256:
            return data
        self._note(f"{MEDIA}/{sha256[:2]}/{sha256}", "this part of a media is missing or damaged")
        return None

    def _with_bytes(self, entry: LogEntry, source: _Source) -> LogEntry:
        """An entry that put a part of media, with its bytes: an earlier one may have removed the part."""
        put = entry.payload
        if not isinstance(put, PutMediaPart) or put.sha256 is None:
            return entry
        data = self._read_part(source, put.sha256)
        return entry if data is None else replace(entry, payload=PutMediaPart(data=data))

    def _parts(self, source: _Source) -> Iterable[str]:
        if source.state.media is not None:
            _check_hash(source, source.backup.path / source.state.media, self._tools)
        return parts_in(source.backup.path, source.state)

    def _replay(self, store: SqliteStore, source: _Source) -> None:
        """Execute the commands again that a backup has after those that the store has."""
        assert source.state.file is not None
        path = source.backup.path / source.state.file
        _check_hash(source, path, self._tools)
        if source.state.base is not None:
            entries: Iterator[LogEntry] = (line.entry for line in lines_of(path) if isinstance(line, LogLine))
            self._execute(store, entries, source)
            if source.state.passwords is not None:
                passwords = source.backup.path / source.state.passwords
                _check_hash(source, passwords, self._tools)
                self._set_passwords(store, passwords_in(passwords), whole=store.seq == source.state.seq)
            return
        with plain_errors(path), closing(opening.open_alone(path)) as connection:
            media = BlobsInTransaction(BlobDirectory(source.backup.path.parent / MEDIA))
            seq = log_end(Snapshot(connection, media, 0, LogPosition())).seq
            db = Snapshot(connection, media, self._scopes.now(), LogPosition(seq))
            self._execute(store, _entries_in(db, store.seq + 1), source)
            self._set_passwords(store, passwords_of(db), whole=False)

    def _execute(self, store: SqliteStore, entries: Iterator[LogEntry], source: _Source) -> None:
        waiting, size = list[LogEntry](), 0
        for entry in entries:
            if entry.seq <= store.seq:
                continue
            if not self._until.includes(entry):
                break
            if entry.payload is None and not entry.redacted:
                raise CannotRestore(
                    f"the log of the scope {self._name!r} was kept without payloads, so only the moments of full "
                    "backups can be restored"
                )
            entry = self._with_bytes(entry, source)
            waiting.append(entry)
            size += len(MSGPACK.encode(entry.payload))
            if len(waiting) >= ENTRIES_AT_ONCE or size >= BYTES_AT_ONCE:
                self._commit(store, waiting, source)
                waiting, size = [], 0
        self._commit(store, waiting, source)

    def _commit(self, store: SqliteStore, entries: list[LogEntry], source: _Source) -> None:
        if not entries:
            return
        with store.write() as transaction:
            for entry in entries:
                self._execute_one(entry, transaction)
        store.checkpoint_if_due()
        self._tools.progress(f"replaying the log of {self._name}", store.seq, source.state.seq)

    def _execute_one(self, entry: LogEntry, transaction: Transaction) -> None:
        if entry.seq != transaction.position.seq + 1:
            raise CannotRestore(
                f"the command {transaction.position.seq + 1} of the scope {self._name!r} is missing in the backups"
            )
        try:
            execute_entry(entry, transaction, HANDLERS)
        except NotFound as error:
            if entry.type not in MEDIA_COMMANDS:
                raise
            self._note("", f"the command {entry.seq} that put a media is left out: {error.message}")
            execute_entry(_without_payload(entry), transaction, HANDLERS)

    def _set_passwords(self, store: SqliteStore, passwords: Iterable[tuple[str, str]], *, whole: bool) -> None:
        """Set the passwords of rooms, which no log has: to those that rooms had when the backup was taken.

        If it was not restored as a `whole`, only those of rooms that commands have left without one.
        """
        with store.write() as db:
            if whole:
                db.run(CLEAR_PASSWORDS, none=None)
            for room_id, password in passwords:
                db.run(SET_PASSWORD if whole else SET_PASSWORD_IF_NONE, room_id=room_id, password=password)

    def _check_end(self, store: SqliteStore, state: ScopeState) -> None:
        """Raise `CannotRestore` if the store is not what was wanted."""
        if self._until.seq is not None and store.seq != self._until.seq:
            raise CannotRestore(f"the backups have the commands of the scope {self._name!r} until {store.seq} only")
        chain = store.position.chain.hex()
        if store.seq > state.seq or (store.seq == state.seq and chain != state.chain):
            raise CannotRestore(f"the backups of the scope {self._name!r} do not lead to what their manifest says")
        if self._until == Until() and store.seq != state.seq:
            raise CannotRestore(f"the scope {self._name!r} ends with {store.seq} in the backups, and not as they say")

    def _note(self, file: str, what: str) -> None:
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(self._name, file, what))


def _check_hash(source: _Source, path: Path, tools: _Tools) -> None:
    """Raise `CannotRestore` if a file of a backup is not the one that its manifest names."""
    wanted = source.backup.files.get(path.name)
    try:
        found = hash_file(path, tools.progress)
    except FileNotFoundError:
        found = None
    if wanted is None or found != wanted:
        raise CannotRestore(
            f"{path} is missing or damaged. `backup verify` says what else is; restore an earlier backup by its name"
        )


def _entries_in(db: Snapshot, from_seq: int) -> Iterator[LogEntry]:
    """The entries in a full copy, with decoded payloads."""
    while (page := read_page(from_seq, db)).entries:
        for entry in page.entries:
            if entry.payload is not None:
                command: Any = decode_operation(entry.type, Raw(MSGPACK.encode(entry.payload)), MSGPACK, UNLIMITED)
                entry = replace(entry, payload=command)
            yield entry
        from_seq = page.entries[-1].seq + 1


def _without_payload(entry: LogEntry) -> LogEntry:
    """The entry as if its payload had been erased; its hashes stay."""
    digest = entry.digest or digest_of(bytes.fromhex(entry.salt or ""), canonical(as_logged(entry.payload))).hex()
    return replace(entry, payload=None, redacted=True, salt=None, digest=digest)


def _prove(path: Path, name: str, sources: list[_Source], tools: _Tools) -> None:
    """Raise `CannotRestore` if a restored database is damaged."""
    if problems := tools.work.prove(path, None, tools.progress):
        raise CannotRestore(
            f"the scope {name!r} is damaged in the backup {sources[-1].backup.name}: {problems[0]}. Restore an earlier "
            "one by its name"
        )


# Moving into place


def _move_into_place(building: Path, into: Path, new: list[Path], scope: str | None, now: int) -> Path | None:
    """Set the files aside that are there, and move the restored ones there. Returns where the former are.

    A crash in between leaves a mark that keeps daemons from starting; restoring again finishes the work.
    """
    old = [_files_of(into / path.relative_to(building)) for path in new]
    present = [path for paths in old for path in paths] if scope is not None else _all_files(into)
    set_aside = _place_for(into, now) if present else None
    earlier = (into / RESTORING).read_text(encoding="utf-8") if (into / RESTORING).exists() else ""
    write_whole(into / RESTORING, f"{earlier}{set_aside or ''}\n".encode())
    if set_aside is not None:
        for path in present:
            target = set_aside / path.relative_to(into)
            make_directory(target.parent)
            path.rename(target)
            sync_directory(target.parent)
            sync_directory(path.parent)
    for database in new:
        for path in reversed(_files_of(database)):  # the database last
            _move(path, into / path.relative_to(building))
    if not (into / opening.DEFAULT_FILE).exists():  # if it is missing, it would be taken for lost
        (into / opening.DEFAULT_FILE).touch(mode=0o600)
    for name in OWN_FILES:
        if (building / name).exists():
            _move(building / name, into / name)
    (into / RESTORING).unlink()
    sync_directory(into)
    log.info("restored", into=str(into), scopes=len(new), set_aside=str(set_aside or ""))
    return set_aside


def _move(path: Path, target: Path) -> None:
    make_directory(target.parent)
    path.rename(target)
    sync_directory(target.parent)


def _files_of(database: Path) -> list[Path]:
    """The files of a scope that exist, the database first."""
    paths = [*(beside(database, suffix) for suffix in DATABASE_FILES), database.with_suffix(".media")]
    return [path for path in paths if path.exists()]


def _all_files(data_dir: Path) -> list[Path]:
    """The files of all scopes in a data directory."""
    return [*_files_of(data_dir / opening.DEFAULT_FILE), *sorted((data_dir / "scopes").glob("*"))]


def _place_beside(into: Path) -> Path:
    """The directory that a directory is in; itself, if files cannot be moved from one to the other."""
    parent = into.resolve().parent
    return parent if parent.stat().st_dev == into.stat().st_dev and os.access(parent, os.W_OK) else into.resolve()


def _place_for(into: Path, now: int) -> Path:
    """A new directory beside another one."""
    time = datetime.fromtimestamp(now / 1000, UTC)
    path = _place_beside(into) / f"{into.resolve().name}-before-restore-{time:%Y-%m-%dT%H-%M-%S}"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.removesuffix(f'-{number - 1}')}-{number}")
    make_directory(path)
    return path
