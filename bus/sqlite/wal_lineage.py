"""Check that a write-ahead log belongs to its database.

SQLite replays any intact `-wal` file beside a database, whichever database it was written for; one that was left by
another file (a restored backup, a copied folder) silently replaces pages. The header of a write-ahead log contains a
salt that is random when the log is created and is incremented whenever the log is restarted (SQLite file format,
section 4). The current salt is noted in a small file beside the database, and a log with a different salt is refused,
unless it is only slightly greater.
"""

from pathlib import Path

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import write_whole

_HEADER_BYTES = 32
_MAGIC = {0x377F0682, 0x377F0683}
_RESETS_UNNOTED_MAX = 2**20  # other programs may restart the log unnoticed; of 2**32 salts this accepts few others


class WalLineage:
    """Identifies the write-ahead log of one database, for the connection that writes it.

    `note` is the file in which the salt is noted; it exists from the first commit on.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._wal = database.with_name(database.name + "-wal")
        self.note = database.with_name(database.name + "-wal-lineage")
        self._header = b""

    def check(self) -> None:
        """Raise `CannotOpen` if the log beside the database is not the one noted.

        If there is no log, the note is removed: the next log has a new salt, and a crash may happen before it is noted.
        """
        found, noted = _salt(_header(self._wal)), self._noted()
        if found is None:
            self.note.unlink(missing_ok=True)
        elif noted is not None and (found - noted) % 2**32 > _RESETS_UNNOTED_MAX:
            name = self._database.name
            raise CannotOpen(
                f"{self._wal} seems to belong to another database than {name}. If they belong together, or if you are "
                f"not sure, remove {self.note.name} and start the daemon again. If it was left by another database, "
                f"move it and {name}-shm away."
            )

    def write_note(self) -> None:
        """Note durably which log is in use. Call it after each commit. Raises OSError."""
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
    """The salt in a log's header that is incremented; None if there is no log or it is empty."""
    if len(header) < _HEADER_BYTES or int.from_bytes(header[:4], "big") not in _MAGIC:
        return None
    return int.from_bytes(header[16:20], "big")
