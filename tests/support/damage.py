"""Pages of a closed database that are damaged, found by what is stored in them."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra

from backscroll.bus.sqlite.wal_lineage import WalLineage

CHECKSUMS = "cksmvfs"
"""The name of SQLite's VFS that compares the checksum of each page that it reads."""


def add_checksums(path: Path) -> None:
    """Give the pages of a closed database checksums, before it is so large that they do not fit into memory."""
    with closing(apsw.Connection(":memory:")) as connection:
        apsw.sqlite_extra.load(connection, "cksumvfs")
    with closing(apsw.Connection(str(path), vfs=CHECKSUMS)) as connection:
        connection.pragma("journal_mode", "delete")
        connection.reserve_bytes(reserve=8)
        connection.execute("VACUUM")
        connection.pragma("journal_mode", "wal")
    WalLineage(path).expect_bytes(path.stat().st_size)


def leaves(path: Path, table: str) -> list[int]:
    """The numbers of the leaf pages of a table or an index, in its order."""
    with closing(apsw.Connection(str(path))) as connection:
        found = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path", (table,)
        ).fetchall()
    return [int(number) for (number,) in found if isinstance(number, int)]


def page_size(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as connection:
        return int(connection.pragma("page_size"))


def change_page(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    """Replace a page of a closed database."""
    size = page_size(path)
    with path.open("r+b") as file:
        file.seek((number - 1) * size)
        page = file.read(size)
        file.seek((number - 1) * size)
        file.write(change(page))


def zeroed(page: bytes) -> bytes:
    """A page as a file system leaves it that lost a block."""
    return bytes(len(page))


def flipped(page: bytes) -> bytes:
    """A page with one other bit, in the middle of what is stored in it."""
    at = len(page) * 3 // 4
    return page[:at] + bytes([page[at] ^ 1]) + page[at + 1 :]


def unreadable_rows(path: Path, statement: str, values: list[Any]) -> list[Any]:
    """Those of the values with which a statement cannot be executed on a closed database, because of damage."""
    found = []
    with closing(apsw.Connection(str(path), vfs=CHECKSUMS if CHECKSUMS in apsw.vfs_names() else None)) as connection:
        for value in values:
            try:
                connection.execute(statement, (value,)).fetchall()
            except (apsw.CorruptError, apsw.IOError):
                found.append(value)
    return found


__all__ = ["CHECKSUMS", "add_checksums", "change_page", "flipped", "leaves", "page_size", "unreadable_rows", "zeroed"]
