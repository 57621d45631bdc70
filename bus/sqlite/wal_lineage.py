"""Whose write-ahead log is this? A guard against a `-wal` file that belongs to another database.

SQLite replays any intact log that lies beside a database, whatever database it was written for; a log left over
from another file (a restored backup, a copied folder) silently replaces pages. The header of a log holds a salt that
starts at random when the log is made and grows by one whenever it is begun anew (SQLite's file format, section 4). The
salt in use is noted in a small file beside the database, and a log whose salt is nowhere near the note is refused.
"""

from pathlib import Path

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import write_whole

_HEADER_BYTES = 32
_MAGIC = {0x377F0682, 0x377F0683}
_RESETS_UNNOTED_MAX = 2**20  # others may checkpoint the file meanwhile; of 2**32 salts this lets in few strangers


class WalLineage:
    """Watches over the log of one database, for the connection that writes it."""

    def __init__(self, database: Path) -> None:
        """Raises `CannotOpen` when the log beside `database` is not the one noted.

        Where there is no log, the note goes: the next log has a new salt, and a crash may come before that is noted.
        """
        self._log = database.with_name(database.name + "-wal")
        self._note = database.with_name(database.name + "-wal-lineage")
        self._header = b""
        found, noted = _salt(_header(self._log)), self._noted()
        if found is None:
            self._note.unlink(missing_ok=True)
        elif noted is not None and (found - noted) % 2**32 > _RESETS_UNNOTED_MAX:
            raise CannotOpen(
                f"{self._log} seems to belong to another database than {database.name}. If they do belong together, or "
                f"if in doubt, remove {self._note.name} and start again; if the log is left over from another "
                f"database, move it and {database.name}-shm away instead."
            )

    def note(self) -> None:
        """Write down, durably, which log is in use now; to be called after each commit. Raises OSError."""
        header = _header(self._log)
        if header == self._header or (salt := _salt(header)) is None:
            return
        if salt != self._noted():
            write_whole(self._note, f"{salt:08x}\n".encode())
        self._header = header

    def _noted(self) -> int | None:
        try:
            return int(self._note.read_text(encoding="ascii", errors="replace"), 16)
        except (FileNotFoundError, ValueError):
            return None


def _header(log: Path) -> bytes:
    try:
        with log.open("rb", buffering=0) as file:
            return file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def _salt(header: bytes) -> int | None:
    """The part of a log's header that is counted up; None where there is no log or it is empty."""
    if len(header) < _HEADER_BYTES or int.from_bytes(header[:4], "big") not in _MAGIC:
        return None
    return int.from_bytes(header[16:20], "big")
