"""Copies of a database in use, made of its two files alone, as backup scripts make them.

The database is copied first and its WAL second: what the copied database lacks is then in the copied WAL, because
commits only append to it, and a concurrent checkpoint writes nothing into the database that is not in the WAL too. This
holds unless SQLite resets the WAL between the start of the first copy and the end of the second. The header of the WAL
shows that: it has a salt and a sequence number, and both change with each reset.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

HEADER_BYTES = 32


class KeepsChanging(Exception):
    """The WAL was reset during every attempt."""


def wal_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def header_of(log: Path) -> bytes:
    """The header of a WAL, which differs after each reset; empty where there is no WAL."""
    try:
        with log.open("rb", buffering=0) as file:
            return file.read(HEADER_BYTES)
    except FileNotFoundError:
        return b""


def copy_once(database: Path, into: Path, meanwhile: Callable[[], object] = bool) -> bool:
    """Copy the database, then its WAL; whether the WAL was not reset meanwhile, so that the copy is complete.

    `meanwhile` is called between the two.
    """
    into.mkdir(parents=True, exist_ok=True)
    before = header_of(wal_of(database))
    shutil.copyfile(database, into / database.name)
    meanwhile()
    shutil.copyfile(wal_of(database), wal_of(into / database.name))
    return before == header_of(wal_of(into / database.name)) == header_of(wal_of(database))


def copy_until_complete(database: Path, into: Path, tries: int = 50) -> int:
    """Copy the database and its WAL until no reset comes in between; the number of attempts."""
    for attempt in range(1, tries + 1):
        if copy_once(database, into):
            return attempt
    raise KeepsChanging
