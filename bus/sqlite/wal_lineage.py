"""Does this write-ahead log belong to this database?

SQLite replays any intact `-wal` file that lies beside a database, whatever database it was written for; one that is left
from another file (a restored backup, a copied folder) silently replaces pages. The header of a write-ahead log holds a
salt that starts at random when the log is made and grows by one whenever it is begun anew (SQLite's file format, section
4). The salt in use is noted in a small file beside the database, and a log whose salt is nowhere near it is refused.
"""

from pathlib import Path

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import write_whole

_HEADER_BYTES = 32
_MAGIC = {0x377F0682, 0x377F0683}
_RESETS_UNNOTED_MAX = 2**20  # others may checkpoint the file meanwhile; of 2**32 salts this lets in few strangers


class WalLineage:
    """Watches over the write-ahead log of one database, for the connection that writes it.

    `note` is the file in which the salt is noted; it exists from the first commit on.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._wal = database.with_name(database.name + "-wal")
        self.note = database.with_name(database.name + "-wal-lineage")
        self._header = b""

    def check(self) -> None:
        """Raise `CannotOpen` when the log beside the database is not the one noted.

        Where there is no log the note is removed: the next log has a new salt, and a crash may come before it is noted.
        """
        found, noted = _salt(_header(self._wal)), self._noted()
        if found is None:
            self.note.unlink(missing_ok=True)
        elif noted is not None and (found - noted) % 2**32 > _RESETS_UNNOTED_MAX:
            name = self._database.name
            raise CannotOpen(
                f"{self._wal} seems to belong to another database than {name}. If they do belong together, or if in "
                f"doubt, remove {self.note.name} and start again; if it is left from another database, move it and "
                f"{name}-shm away instead."
            )

    def write_note(self) -> None:
        """Note, durably, which log is in use now; to be called after each commit. Raises OSError."""
        header = _header(self._wal)
        if header == self._header or (salt := _salt(header)) is None:
            return
        if salt != self._noted():
            write_whole(self.note, f"{salt:08x}\n".encode())
        self._header = header

    def _noted(self) -> int | None:
        try:
            return int(self.note.read_text(encoding="ascii", errors="replace"), 16)
        except (FileNotFoundError, ValueError):
            return None


def _header(wal: Path) -> bytes:
    try:
        with wal.open("rb", buffering=0) as file:
            return file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def _salt(header: bytes) -> int | None:
    """The part of a log's header that is counted up; None where there is no log or it is empty."""
    if len(header) < _HEADER_BYTES or int.from_bytes(header[:4], "big") not in _MAGIC:
        return None
    return int.from_bytes(header[16:20], "big")
