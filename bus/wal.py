"""Whose write-ahead log is this? A guard against a `-wal` file that belongs to another database.

SQLite replays any intact log that lies beside a database, whatever database it was written for; a log left over
from another file (a restored backup, a copied folder) silently replaces pages. Every log has a lineage: its header
holds a salt that starts at random when the log file is made and grows by one, together with the checkpoint number,
at each reset, so their difference stays the same for as long as the file lives (SQLite's file format, section 4).
The lineage is noted in a small file beside the database, and a log of another lineage is refused.
"""

import os
from pathlib import Path

from backscroll.bus.failures import CannotOpen

_HEADER_BYTES = 32
_MAGIC = {0x377F0682, 0x377F0683}


def refuse_foreign_log(database: Path) -> None:
    """Raise `CannotOpen` when the log beside `database` has another lineage than the one noted.

    Where there is no log, the note goes: the next log has a new lineage, and a crash may come before that is noted.
    """
    log, note = _log_of(database), _note_of(database)
    found = lineage(log)
    if found is None:
        note.unlink(missing_ok=True)
    elif _noted(note) not in (None, found):
        raise CannotOpen(
            f"{log} was not written for {database.name}. If it is left over from another database, move it and "
            f"{database.name}-shm away; if the two do belong together, remove {note}."
        )


def note_lineage(database: Path) -> None:
    """Write down the lineage of the log that is in use now, durably."""
    found, note = lineage(_log_of(database)), _note_of(database)
    if found is None or _noted(note) == found:
        return
    temporary = note.with_name(note.name + ".new")
    with temporary.open("w", encoding="ascii") as file:
        file.write(found + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(note)


def lineage(log: Path) -> str | None:
    """What stays the same in a log's header over its life; None where there is no log or it is empty."""
    try:
        with log.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return None
    magic, checkpoints, salt = (int.from_bytes(header[at : at + 4], "big") for at in (0, 12, 16))
    if len(header) < _HEADER_BYTES or magic not in _MAGIC:
        return None
    return f"{(salt - checkpoints) % 2**32:08x}"


def _noted(note: Path) -> str | None:
    try:
        return note.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None


def _log_of(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def _note_of(database: Path) -> Path:
    return database.with_name(database.name + "-wal-lineage")
