"""What a repair takes from a directory of backups: of each thing the newest copy that is good."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance.catalog import (
    MEDIA,
    Backup,
    CannotBackUp,
    check_apart,
    hash_file,
    part_path,
    read_catalog,
)
from backscroll.bus.sqlite.maintenance.restoring import CannotRestore, restore


class Base(NamedTuple):
    """A scope as of a backup, as a closed file, and the lineage of the database that was backed up."""

    database: Path
    lineage: str


class GoodCopies:
    """The backups of a directory, newest first; none if there is no directory. Raises `CannotBackUp` for any other."""

    def __init__(self, directory: Path | None, data_dir: Path) -> None:
        self._directory = directory
        self._backups: list[Backup] = []
        if directory is not None:
            check_apart(directory, data_dir)
            self._backups = read_catalog(directory).backups[::-1]

    def scopes(self) -> set[str]:
        """The names of all scopes that were backed up."""
        return {state.name for backup in self._backups for state in backup.manifest.scopes}

    def base_of(self, scope: str, path: Path, scratch: Path, progress: Progress) -> Base | None:
        """A scope whose file is at this path in a data directory, restored into a new directory below `scratch`."""
        for backup in self._backups:
            state = backup.states.get(scope)
            if state is None or self._directory is None:
                continue
            into = scratch / backup.name
            try:
                restore(self._directory, into, progress, name=backup.name, scope=scope)
            except (CannotRestore, CannotBackUp):
                continue
            return Base(into / path, state.lineage)
        return None

    def part(self, sha256: str) -> bytes | None:
        """A part of media, or None."""
        path = part_path(self._directory / MEDIA, sha256) if self._directory else None
        if path is None or not path.is_file():
            return None
        data = path.read_bytes()
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def file(self, name: str, is_good: Callable[[Path], bool]) -> bytes | None:
        """A file of the data directory, or None."""
        for backup in self._backups:
            path = backup.path / name
            if path.is_file() and hash_file(path) == backup.files.get(name) and is_good(path):
                return path.read_bytes()
        return None
