"""Copies of damaged databases that SQLite can read, as far as they can be read.

Where the definitions of tables are damaged, those of another database are taken. They are in a few pages, the first
page of the file and others, which say where each table begins; in a database that the same migrations made they are at
the same places. Whether they fit is known when the tables can be read.

A page of zeros has the right checksum, zero. Inside of a long text it would be read as a part of it, so such pages are
made unreadable.
"""

import shutil
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from backscroll.bus.sqlite.checksums import RESERVED_BYTES, reserved_bytes
from backscroll.bus.sqlite.opening import open_alone

SIZE_AT, FREE_LIST_AT = 28, 32  # in the header of a database: its number of pages, and which of them are free
WORD_BITS = 32
PAGE_BYTES = 4_096  # of all our databases
SPOILED = b"\xff" * PAGE_BYTES


def has_zeroed_pages(path: Path) -> bool:
    """Whether a file has pages of zeros. They may be free, or belong to a table."""
    return next(_zeroed_pages(path), None) is not None


def copy_without_zeroed_pages(damaged: Path, copy: Path) -> None:
    """Copy a database, without its log, so that reading one of its pages of zeros is an error."""
    shutil.copyfile(damaged, copy)
    with copy.open("rb+") as target:
        for number in _zeroed_pages(damaged):
            target.seek(number * PAGE_BYTES)
            target.write(SPOILED)


def _zeroed_pages(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        number = 0
        while page := file.read(PAGE_BYTES):
            if not any(page):
                yield number
            number += 1


def copy_with_schema_of(donor: Path, damaged: Path, copy: Path) -> None:
    """Copy a damaged database, without its log, and put the definitions of a closed intact one into the copy."""
    with closing(open_alone(donor)) as connection:
        page_bytes = int(connection.pragma("page_size"))
        rows: Any = connection.execute("SELECT pageno FROM dbstat('main') WHERE name = 'sqlite_schema'")
        numbers = [int(row[0]) for row in rows]
    shutil.copyfile(damaged, copy)
    with donor.open("rb") as source, copy.open("rb+") as target:
        pages = -(-damaged.stat().st_size // page_bytes)
        for number in numbers:
            source.seek((number - 1) * page_bytes)
            page = source.read(page_bytes)
            target.seek((number - 1) * page_bytes)
            target.write(_first_page(page, pages) if number == 1 else page)


def _first_page(page: bytes, pages: int) -> bytes:
    """The first page of a database for one with so many pages, none of them free."""
    changed = bytearray(page)
    struct.pack_into(">III", changed, SIZE_AT, pages, 0, 0)
    if reserved_bytes(page) == RESERVED_BYTES:
        changed[-RESERVED_BYTES:] = _checksum(bytes(changed[:-RESERVED_BYTES]))
    return bytes(changed)


def _checksum(data: bytes) -> bytes:
    """The checksum of a page, as SQLite's checksum VFS defines it."""
    first, second, mask = 0, 0, 2**WORD_BITS - 1
    words = struct.iter_unpack("<II", data)
    for one, other in words:
        first = (first + one + second) & mask
        second = (second + other + first) & mask
    return struct.pack("<II", first, second)
