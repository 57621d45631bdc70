"""Pages of a closed database that are damaged, found by what is stored in them."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from backscroll.bus.sqlite.wal_lineage import WalLineage


def remove_checksums(path: Path) -> None:
    """Take the checksums of the pages from a closed database, which then is as one that another program made."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "delete")
        connection.reserve_bytes(reserve=0)
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
    with closing(apsw.Connection(str(path))) as connection:
        for value in values:
            try:
                connection.execute(statement, (value,)).fetchall()
            except (apsw.CorruptError, apsw.IOError):
                found.append(value)
    return found
