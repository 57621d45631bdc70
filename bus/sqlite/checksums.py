"""A checksum on every page of a database file, verified whenever the page is read from the file.

SQLite's checksum VFS keeps it in the last eight bytes of each page, which a database reserves from its first page on
(byte 20 of its header says so). It is loaded once and is then the default VFS of the process, for all files that have
the reserved bytes; others are served without. Pages in a write-ahead log have checksums of SQLite's own, and get theirs
when they are copied into the database.

Any SQLite can read such a file. What is written into it without this VFS has wrong checksums, and counts as damaged.
"""

from contextlib import closing

import apsw
import apsw.sqlite_extra

VFS = "cksmvfs"
RESERVED_BYTES = 8
RESERVED_AT = 20  # in the header of a database


def reserve(connection: apsw.Connection) -> None:
    """Give checksums to a new database before its first page is written, or to the copies that VACUUM makes of it."""
    connection.reserve_bytes(reserve=RESERVED_BYTES)


def has_checksums(connection: apsw.Connection) -> bool:
    """Whether a database in use has them."""
    complete, header = connection.read("main", 0, 0, RESERVED_AT + 1)
    return complete and reserved_bytes(header) == RESERVED_BYTES


def reserved_bytes(header: bytes) -> int:
    """How many bytes at the end of each page are reserved, according to the header of a database."""
    return header[RESERVED_AT]


def is_mismatch(error: BaseException | None) -> bool:
    """Whether an error says that a page does not match its checksum."""
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA


def _load() -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        apsw.sqlite_extra.load(connection, "cksumvfs")


_load()
