"""The commands since a backup, as a file of the command log that continues it.

The file is one that `backscroll log verify` and `replay` read, with one difference to an export: the parts of media are
beside it, and an entry that put one names it by its hash, which is what is hashed of it anyway.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from msgspec.structs import replace

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance.catalog import File, write_part
from backscroll.bus.sqlite.wal_lineage import SELECT_MOMENT
from backscroll.handlers.command_log import position_of
from backscroll.handlers.replay import get_log
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Reads
from backscroll.schema.command_log import (
    CHAIN_START,
    FORMAT,
    Facts,
    LogEntry,
    LogPage,
    canonical,
    chain_after,
    digest_of,
    encode_facts,
)
from backscroll.schema.limits import BODY_BYTES_MAX, PAGE_ITEMS_MAX
from backscroll.schema.log_file import BadLine, HeaderLine, LogHeader, LogLine, LogReader, entry_text, header_text
from backscroll.schema.operations import GetLog, PutMediaPart
from backscroll.schema.tables import Commands, Rooms, Sequence

ENTRIES_BETWEEN_PROGRESS = 100
LINE_BYTES_MAX = 8 * BODY_BYTES_MAX  # enough for any entry, even with every character escaped in JSON

SELECT_LOG_FROM = statement(Sequence.select(Sequence.log_from))
SELECT_CHAIN = statement(Commands.select(Commands.chain).where(Commands.seq == Named("seq")))
SELECT_LATEST = statement(Commands.select(Commands.at).order_by(Commands.at.desc()).limit(Named("limit")))
SELECT_PASSWORDS = statement(Rooms.select(Rooms.id, Rooms.password).where(Rooms.password.is_null(False)))


class CannotContinue(Exception):
    """The log does not continue a backup, so that a full copy is needed; the message says why."""


class LogEnd(NamedTuple):
    """The end of a scope's log, the number that it begins with, and which database it is in."""

    seq: int
    chain: bytes
    log_from: int
    lineage: str


class Increment(NamedTuple):
    """What was written: the file, the greatest time of its commands (ms), the parts of media that they put."""

    file: File
    latest: int
    parts: list[str]


class CheckedLog(NamedTuple):
    """A file of a log that is what its header says: from which seq and chain it leads to which."""

    from_seq: int
    chain_start: bytes
    seq: int
    chain: bytes


ReadPage = Callable[[int], LogPage]
"""Reads a page of the log that begins with a seq, in a transaction of its own; its payloads are plain values."""


def log_end(db: Reads) -> LogEnd:
    """Where a scope's log ends."""
    end = position_of(db)
    return LogEnd(end.seq, end.chain, db.rows(SELECT_LOG_FROM)[0][0], db.rows(SELECT_MOMENT)[0][0])


def latest_of(db: Reads) -> int:
    """The greatest time of all commands, in ms since the epoch. Reads the whole log."""
    row = db.row(SELECT_LATEST, limit=1)
    return int(row[0]) if row else 0


def chain_at(seq: int, db: Reads) -> bytes | None:
    """The chain after a command; None if the log does not have it."""
    if seq == 0:
        return CHAIN_START
    row = db.row(SELECT_CHAIN, seq=seq)
    return row[0] if row else None


def read_page(from_seq: int, db: Reads) -> LogPage:
    """A page of the log; raises `Busy` while messages of a cleared room are being removed."""
    return get_log(GetLog(from_seq, PAGE_ITEMS_MAX), db)


def write_passwords(target: Path, db: Reads) -> None:
    """Write the passwords of rooms, one JSON array of room and password a line."""
    with _new(target) as file:
        for each in passwords_of(db):
            file.write(msgspec.json.encode(each) + b"\n")
        _sync(file)


def passwords_of(db: Reads) -> Iterator[tuple[str, str]]:
    """The rooms that have a password, and what it is."""
    yield from db.each(SELECT_PASSWORDS)


def passwords_in(path: Path) -> Iterator[tuple[str, str]]:
    """The rooms in a file of passwords."""
    with path.open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=tuple[str, str])


def write_increment(target: Path, media: Path, header: LogHeader, read: ReadPage, progress: Progress) -> Increment:
    """Write the commands that a header announces, durably, and the parts of media that they put.

    Raises `CannotContinue` if the log is another one by now, or lacks payloads.
    """
    assert header.from_seq is not None
    assert header.to is not None
    latest, parts = 0, dict[str, None]()
    with _new(target) as file:
        output = _Hashed(file)
        output.write(header_text(header).encode())
        for entry in _entries(header.from_seq, header.to, header.chain_start, read):
            latest = max(latest, entry.at)
            stored, sha256 = _with_part_stored(entry, media)
            output.write(entry_text(stored).encode())
            if sha256:
                parts[sha256] = None
            if entry.seq % ENTRIES_BETWEEN_PROGRESS == 0:
                progress(f"copying the log of {header.scope}", entry.seq, header.to)
        _sync(file)
    return Increment(output.file(target.name), latest, list(parts))


def _entries(from_seq: int, to: int, chain: str, read: ReadPage) -> Iterator[LogEntry]:
    while from_seq <= to:
        page = read(from_seq)
        if page.chain_start != chain or not page.entries or page.entries[0].seq != from_seq:
            raise CannotContinue("its log was replaced meanwhile")
        for entry in page.entries:
            if entry.seq > to:
                return
            if entry.payload is None and not entry.redacted:
                raise CannotContinue("its log is kept without payloads")
            yield entry
            from_seq, chain = entry.seq + 1, str(entry.chain)


def _with_part_stored(entry: LogEntry, media: Path) -> tuple[LogEntry, str]:
    """An entry with the hash of the part of media that it put, and that hash, in place of its bytes."""
    if entry.type != PutMediaPart.wire_name or entry.payload is None:
        return entry, ""
    data: bytes = entry.payload["data"]
    sha256 = hashlib.sha256(data).hexdigest()
    write_part(media, sha256, data)
    return replace(entry, payload={"sha256": sha256}), sha256


def check_log(path: Path, progress: Progress) -> CheckedLog:
    """Compute the chain of a file; raises `BadLine` where it is not what its header says, and OSError."""
    header, chain, seq = LogHeader(), b"", 0
    for line in lines_of(path):
        if isinstance(line, HeaderLine):
            header = line.header
            chain, seq = bytes.fromhex(header.chain_start), (header.from_seq or 1) - 1
            continue
        chain, seq = chain_after_entry(chain, line.entry, line.number), line.entry.seq
        if seq % ENTRIES_BETWEEN_PROGRESS == 0:
            progress(f"checking {path.name}", seq, header.to)
    if header.from_seq is None or header.to != seq or header.chain_end != chain.hex():
        raise BadLine(1, "the lines do not lead to the end that the header names: some are missing or were changed")
    return CheckedLog(header.from_seq, bytes.fromhex(header.chain_start), seq, chain)


def lines_of(path: Path) -> Iterator[HeaderLine | LogLine]:
    """The lines of a file; raises `BadLine` and OSError."""
    with path.open("rb") as file:
        yield from LogReader().read_all(_bounded(file))


def chain_after_entry(chain: bytes, entry: LogEntry, number: int) -> bytes:
    """The chain after an entry with a decoded payload; raises `BadLine` with this number if it lacks its hashes."""
    try:
        if entry.payload is None or entry.redacted:
            digest = bytes.fromhex(entry.digest or "")
        else:
            digest = digest_of(bytes.fromhex(entry.salt or ""), canonical(entry.payload))
    except ValueError as error:
        raise BadLine(number, str(error)) from None
    facts = encode_facts(Facts(FORMAT, entry.principal, digest, entry.changes, entry.generated, entry.sender))
    return chain_after(chain, entry.seq, entry.at, entry.type, entry.id, facts)


def _bounded(file: BinaryIO) -> Iterable[bytes]:
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise BadLine(number, f"the line is longer than {LINE_BYTES_MAX} bytes")
        yield line


class _Hashed:
    """Writes into a file, and knows its size and hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def file(self, name: str) -> File:
        return File(name, self._size, self._digest.hexdigest())


def _new(path: Path) -> Any:
    """A new file that only this user can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
