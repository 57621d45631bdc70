"""A directory of backups: its layout, the manifest of each backup, and which backups continue which.

backscroll-backups.json                 marks the directory
lock                                    held by whoever writes in it
media/<first two digits>/<sha256>       the parts of media of all backups, each once
2026-11-26T21-00-00.123Z/manifest.json  one backup; until it is complete its name begins with `.partial-`
…/default.db, <sha256 of a scope>.db    full copies of scopes
…/<same>.log                            or the commands since the backup of the scope that this one continues
…/<same>.media                          the parts of media that belong to either, by hash
…/<same>.passwords                      the passwords of rooms, which no log has
…/keys.json, tokens.json                files of the data directory
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from filelock import FileLock, Timeout

from backscroll.bus.files import make_directory, sync_directory, write_whole
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance.findings import Problem

MARK_FILE, LOCK_FILE, MANIFEST_FILE, MEDIA = "backscroll-backups.json", "lock", "manifest.json", "media"
PARTIAL, REMOVED = ".partial-", ".removed-"
MARK = b'{"format": "backscroll-backups", "version": 1}\n'
VERSION = 1
HASH_CHARACTERS = 64


class CannotBackUp(Exception):
    """A backup cannot be made, read or removed; the message says why and what to do."""


class File(msgspec.Struct, frozen=True):
    """A file of a backup, besides the manifest: its size in bytes, and its SHA-256 in hex."""

    name: str
    bytes: int
    sha256: str


class ScopeState(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup has of one scope.

    Attributes:
        file: The full copy (`.db`), or the commands since `base` (`.log`); None if there were none since.
        seq, chain: The end of the command log, the chain in hex.
        latest: The greatest time of all commands until then, in ms since the epoch; 0 if there are none.
        lineage: Which database this is; a scope that was deleted and made again is another one.
        base, from_seq: The backup that the commands continue, and the number of the first of them; of a full copy None.
        media: The file that lists the parts of media that belong to it; None if there are none.
        media_parts: Their number.
        passwords: The file with the passwords of rooms; of a full copy None.
    """

    name: str
    file: str | None
    seq: int
    chain: str
    latest: int
    lineage: str
    schema_version: int
    base: str | None = None
    from_seq: int | None = None
    media: str | None = None
    media_parts: int = 0
    passwords: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup has: written last, and sealed with its own SHA-256.

    Attributes:
        taken_at: When it was begun, in ms since the epoch.
        kind: `increment` if a scope of it continues another backup.
        problems: What could not be backed up because it is damaged; scopes in it are missing above.
    """

    format: Literal["backscroll-backup"] = "backscroll-backup"
    version: int = VERSION
    taken_at: int
    backscroll: str
    kind: Literal["full", "increment"]
    scopes: list[ScopeState]
    files: list[File]
    problems: list[Problem] = []


class _Sealed(msgspec.Struct, frozen=True):
    sha256: str
    manifest: msgspec.Raw


class Backup(NamedTuple):
    """A complete backup: what it has of each scope, by name, and its files, by name."""

    name: str
    path: Path
    manifest: Manifest
    states: dict[str, ScopeState]
    files: dict[str, File]

    @classmethod
    def at(cls, path: Path, manifest: Manifest) -> "Backup":
        """The backup in a directory with this manifest."""
        states = {each.name: each for each in manifest.scopes}
        return cls(path.name, path, manifest, states, {each.name: each for each in manifest.files})

    @property
    def bytes(self) -> int:
        """The size of its files, without the parts of media, which backups share."""
        return sum(file.bytes for file in self.manifest.files)

    def bases(self) -> set[str]:
        """The names of the backups that it continues."""
        return {each.base for each in self.manifest.scopes if each.base is not None}


class Catalog(NamedTuple):
    """The backups of a directory, in their order, and those whose manifest cannot be read, as problems."""

    backups: list[Backup]
    problems: list[Problem]

    def named(self, name: str) -> Backup:
        """The backup of this name; raises `CannotBackUp`."""
        found = next((each for each in self.backups if each.name == name), None)
        if found is None:
            names = ", ".join(each.name for each in self.backups[-3:]) or "none"
            raise CannotBackUp(f"there is no backup {name!r}; the newest are: {names}")
        return found

    def newest(self) -> Backup:
        """The newest backup; raises `CannotBackUp` if there is none."""
        if not self.backups:
            raise CannotBackUp("there is no backup that is complete")
        return self.backups[-1]

    def with_bases(self, chosen: set[str]) -> set[str]:
        """The names of these backups and of all that they continue."""
        by_name = {each.name: each for each in self.backups}
        needed, waiting = set[str](), list(chosen)
        while waiting:
            name = waiting.pop()
            if name in by_name and name not in needed:
                needed.add(name)
                waiting.extend(by_name[name].bases())
        return needed


def read_catalog(directory: Path) -> Catalog:
    """The backups of a directory; raises `CannotBackUp` if it is none of backups."""
    if not (directory / MARK_FILE).is_file():
        raise CannotBackUp(f"{directory} is not a directory of backups: it has no {MARK_FILE}")
    backups, problems = [], []
    for path in sorted(directory.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name != MEDIA:
            try:
                backups.append(Backup.at(path, read_manifest(path)))
            except CannotBackUp as error:
                problems.append(Problem("", f"{path.name}/{MANIFEST_FILE}", str(error)))
    return Catalog(backups, problems)


def read_manifest(backup: Path) -> Manifest:
    """The manifest of a backup; raises `CannotBackUp` if it is missing, damaged or of a later version."""
    try:
        sealed = msgspec.json.decode((backup / MANIFEST_FILE).read_bytes(), type=_Sealed)
        if hashlib.sha256(sealed.manifest).hexdigest() != sealed.sha256:
            raise CannotBackUp("it is damaged: it does not match its SHA-256")
        manifest = msgspec.json.decode(sealed.manifest, type=Manifest)
    except FileNotFoundError:
        raise CannotBackUp("it is missing") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CannotBackUp(f"it cannot be read: {error}") from error
    if manifest.version > VERSION:
        raise CannotBackUp(f"it has version {manifest.version}, and this backscroll knows {VERSION}: use a newer one")
    return manifest


def write_manifest(backup: Path, manifest: Manifest) -> None:
    """Write the manifest of a backup, durably."""
    encoded = msgspec.json.encode(manifest)
    sealed = _Sealed(hashlib.sha256(encoded).hexdigest(), msgspec.Raw(encoded))
    write_whole(backup / MANIFEST_FILE, msgspec.json.encode(sealed) + b"\n")


def name_of(taken_at: int) -> str:
    """The name of a backup that was begun at a time, in ms since the epoch."""
    time = datetime.fromtimestamp(taken_at / 1000, UTC)
    return f"{time:%Y-%m-%dT%H-%M-%S}.{taken_at % 1000:03}Z"


@contextmanager
def writing(directory: Path, data_dir: Path | None = None) -> Iterator[None]:
    """Write in a directory of backups, which is made if there is none, as the only one that does.

    Raises `CannotBackUp` if another does, if the directory holds something else, or if one is inside the other.
    """
    if data_dir is not None:
        check_apart(directory, data_dir)
    if not (directory / MARK_FILE).exists():
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise CannotBackUp(f"{directory} is not empty and not a directory of backups; name another one")
        make_directory(directory)
        write_whole(directory / MARK_FILE, MARK)
    lock = FileLock(directory / LOCK_FILE, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CannotBackUp(f"another process is writing in {directory}; try again when it has finished") from None
    try:
        yield
    finally:
        lock.release()


def check_apart(one: Path, other: Path) -> None:
    """Raise `CannotBackUp` if one directory is the other, or inside it."""
    first, second = one.resolve(), other.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise CannotBackUp(f"{one} and {other} may not be inside one another; name a directory elsewhere")


def remove_backups(directory: Path, names: set[str]) -> None:
    """Remove backups, and the parts of media that none of the others has. A crash leaves what the next call removes."""
    for name in sorted(names):
        (directory / name).rename(directory / f"{REMOVED}{name}")
    sync_directory(directory)
    remove_leftovers(directory)


def remove_leftovers(directory: Path) -> None:
    """Remove what interrupted backups and removals have left. Nobody else may write in the directory."""
    left = [each for each in directory.iterdir() if each.name.startswith((PARTIAL, REMOVED))]
    if left:
        _remove_unnamed_media(directory)
    for each in left:
        shutil.rmtree(each, ignore_errors=True)  # the process that was making it may still write


def _remove_unnamed_media(directory: Path) -> None:
    """Remove the parts of media that no backup has, unless a manifest or a list cannot be read."""
    catalog = read_catalog(directory)
    if catalog.problems:
        return
    named: set[bytes] = set()
    for backup in catalog.backups:
        for state in backup.manifest.scopes:
            try:
                named.update(map(bytes.fromhex, parts_in(backup.path, state)))
            except (OSError, ValueError):
                return
    for path in (directory / MEDIA).glob("*/*"):
        if len(path.name) != HASH_CHARACTERS or bytes.fromhex(path.name) not in named:
            path.unlink()


def parts_in(backup: Path, state: ScopeState) -> Iterator[str]:
    """The hashes of the parts of media that belong to what a backup has of a scope."""
    if state.media is not None:
        with (backup / state.media).open(encoding="ascii") as lines:
            for line in lines:
                yield line.rstrip("\n")


def part_path(media: Path, sha256: str) -> Path:
    """Where a part of media is, in backups as beside databases."""
    return media / sha256[:2] / sha256


def hash_file(path: Path, progress: Progress | None = None) -> File:
    """The size and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(2**20):
            digest.update(piece)
            size += len(piece)
            if progress is not None:
                progress(f"reading {path.parent.name}/{path.name}", size, None)
    return File(path.name, size, digest.hexdigest())


def write_part(media: Path, sha256: str, data: bytes) -> int:
    """Store a part of media that was verified, unless it is there undamaged; how many bytes were written."""
    path = part_path(media, sha256)
    if path.exists() and path.read_bytes() == data:
        return 0
    make_directory(path.parent)
    write_whole(path, data)
    return len(data)
