"""Copies of a database in use, made of its two files alone, as people make them.

The file first and its log after it: what the copied file lacks is then in the copied log, for commits only append to
it, and a checkpoint that runs meanwhile writes nothing into the file but what is in the log too. This holds as long as
SQLite does not begin the log anew between the beginning of the first copy and the end of the second. The header of the
log tells: it holds a salt and a number, and both change with each new beginning.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

HEADER_BYTES = 32


class KeepsChanging(Exception):
    """The log was begun anew during every attempt."""


def log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def header_of(log: Path) -> bytes:
    """What tells one beginning of a log from another; nothing where there is no log."""
    try:
        with log.open("rb", buffering=0) as file:
            return file.read(HEADER_BYTES)
    except FileNotFoundError:
        return b""


def copied_plainly(database: Path, into: Path, meanwhile: Callable[[], object] = bool) -> bool:
    """Copy the file, then its log; whether that log is the one that there was, so that the copy is whole.

    `meanwhile` is called between the two.
    """
    into.mkdir(parents=True, exist_ok=True)
    before = header_of(log_of(database))
    shutil.copyfile(database, into / database.name)
    meanwhile()
    shutil.copyfile(log_of(database), log_of(into / database.name))
    return before == header_of(log_of(into / database.name)) == header_of(log_of(database))


def copied_whole(database: Path, into: Path, tries: int = 50) -> int:
    """Copy the file and its log until both are of one time; how many attempts that took."""
    for attempt in range(1, tries + 1):
        if copied_plainly(database, into):
            return attempt
    raise KeepsChanging
