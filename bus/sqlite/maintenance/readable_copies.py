"""Copies of damaged databases that SQLite can read, as far as they can be read.

Where the definitions of tables are damaged, those of another database are taken. They are in a few pages, the first
page of the file and others, which say where each table begins; in a database that the same migrations made they are at
the same places. Whether they fit is known when the tables can be read.

SQLite takes a write-ahead log for one that ends before its first damaged frame. The frames after it are as intact as
the others: the checksum in each continues the one before it. So a log without the damaged frames can be written. As its
pages may be of different moments, only what is verified by itself can be used of it: the command log.

Two kinds of pages are read without an error although they are damaged: a page of zeros, which has the right checksum,
zero, and the beginning of a page at the end of a file that was cut off. They are made unreadable.
"""

import shutil
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from backscroll.bus.sqlite.checksums import RESERVED_BYTES, reserved_bytes
from backscroll.bus.sqlite.opening import open_alone
from backscroll.bus.sqlite.wal_check import PAGE_BYTES
from backscroll.bus.sqlite.wal_lineage import FRAME_HEADER_BYTES, HEADER_BYTES

SIZE_AT, FREE_LIST_AT = 28, 32  # in the header of a database: its number of pages, and which of them are free
UINT32 = 2**32 - 1
LITTLE_ENDIAN, BIG_ENDIAN = b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"
"""How a log begins, depending on the numbers that its checksums are sums of."""
LOG_VERSION = 3_007_000
FRAME_SUMS = struct.Struct(">II")
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
SPOILED = b"\xff" * PAGE_BYTES

Sums = tuple[int, int]


def has_unverified_pages(path: Path) -> bool:
    """Whether a file has pages that no checksum tells the damage of. Pages of zeros may also be free."""
    return next(_unverified_pages(path), None) is not None


def copy_without_unverified_pages(damaged: Path, copy: Path) -> None:
    """Copy a database, without its log, so that reading one of these pages is an error."""
    shutil.copyfile(damaged, copy)
    with copy.open("rb+") as target:
        for number in _unverified_pages(damaged):
            target.seek(number * PAGE_BYTES)
            target.write(SPOILED)


def _unverified_pages(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        number = 0
        while page := file.read(PAGE_BYTES):
            if len(page) < PAGE_BYTES or not any(page):
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


def copy_mended_log(log: Path, copy: Path) -> bool:
    """Copy a write-ahead log without its damaged frames. Returns whether there are intact ones behind a damaged one."""
    damaged = healed = False
    with log.open("rb") as source, copy.open("wb") as target:
        header = source.read(HEADER_BYTES)
        salts, order = _salts_of(header, source), ">" if header[:4] == BIG_ENDIAN else "<"
        before: Sums = FRAME_SUMS.unpack_from(header.ljust(HEADER_BYTES, b"\0"), 24)
        start = LITTLE_ENDIAN + struct.pack(">III", LOG_VERSION, PAGE_BYTES, 0) + salts
        last = _sums(start, (0, 0), "<")
        target.write(start + FRAME_SUMS.pack(*last))
        while len(frame := source.read(FRAME_BYTES)) == FRAME_BYTES:
            facts, page = frame[:8], frame[FRAME_HEADER_BYTES:]
            stored: Sums = FRAME_SUMS.unpack_from(frame, 16)
            if frame[8:16] == salts and _sums(facts + page, before, order) == stored:
                healed |= damaged
                last = _sums(facts + page, last, "<")
                target.write(facts + salts + FRAME_SUMS.pack(*last) + page)
            else:
                damaged = True
            before = stored
    return healed


def _salts_of(header: bytes, log: BinaryIO) -> bytes:
    """The salts of the frames of a log: those in the first frame, if its header is damaged."""
    order = ">" if header[:4] == BIG_ENDIAN else "<"
    if len(header) == HEADER_BYTES and _sums(header[:24], (0, 0), order) == FRAME_SUMS.unpack_from(header, 24):
        return header[16:24]
    frame = log.read(FRAME_HEADER_BYTES)
    log.seek(HEADER_BYTES)
    return frame[8:16].ljust(8, b"\0")


def _first_page(page: bytes, pages: int) -> bytes:
    """The first page of a database for one with so many pages, none of them free."""
    changed = bytearray(page)
    struct.pack_into(">III", changed, SIZE_AT, pages, 0, 0)
    if reserved_bytes(page) == RESERVED_BYTES:
        changed[-RESERVED_BYTES:] = struct.pack("<II", *_sums(bytes(changed[:-RESERVED_BYTES]), (0, 0), "<"))
    return bytes(changed)


def _sums(data: bytes, before: Sums, order: str) -> Sums:
    """SQLite's checksum of pages and of frames, which continues the one before; `order` is that of bytes in numbers."""
    first, second = before
    for one, other in struct.iter_unpack(f"{order}II", data):
        first = (first + one + second) & UINT32
        second = (second + other + first) & UINT32
    return first, second
