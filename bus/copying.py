"""Copying scopes from one store into another: row by row, with the log, its chain and the parts of media.

    source, one state ──rows in batches──▶ target ──▶ both are read again and compared ──▶ the target keeps it

A scope is in the target as a whole or not at all: a place keeps what was written when its block ends, and not before.
So a copy that was interrupted can be run again: it compares the scopes that are there already, and copies the others.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

from backscroll.bus.progress import Progress
from backscroll.handlers.sql import Row, Statement
from backscroll.handlers.whole_tables import SELECT_END, WHOLE_TABLES, End, WholeTable
from backscroll.schema.wire import MSGPACK

ROWS_AT_ONCE = 1_000
BYTES_AT_ONCE = 4 * 2**20


class CannotCopy(Exception):
    """A scope was not copied, and the target does not have it; the message says why and what to do."""


class Part(NamedTuple):
    """A part of media: the SHA-256 of its bytes in hex, these, and when it was last put (ms since the epoch)."""

    sha256: str
    data: bytes
    put_at: int


class ScopeToRead(Protocol):
    """One state of a scope, however often it is read."""

    def each(self, statement: Statement, /) -> Iterator[Row]:
        """The rows that a SELECT without parameters returns, read one by one. Read it to its end, or close it."""

    def parts(self) -> Iterator[Part]:
        """All parts of media, by their hashes; each is compared with its hash."""


class ScopeToWrite(ScopeToRead, Protocol):
    """A scope that is being written, which also reads what was written."""

    def write(self, table: WholeTable, rows: list[Row], /) -> None:
        """Write rows of a table, as they were selected."""

    def put(self, part: Part, /) -> None:
        """Store a part of media."""

    def end(self, end: End, /) -> None:
        """Note the end of the log, after everything else was written."""


class Place(Protocol):
    """A store that scopes are copied from or into. What fails there raises `CannotCopy`."""

    name: str
    """What people call it: a path, or an address without user and password."""
    is_shared: bool
    """Whether others may write to its scopes while they are read."""

    def names(self) -> list[str]:
        """The names of all scopes, in order; there may be others that are empty."""

    def reading(self, scope: str, /) -> AbstractContextManager[ScopeToRead | None]:
        """A scope as it is now; None if it does not exist."""

    def writing(self, scope: str, /) -> AbstractContextManager[ScopeToWrite]:
        """A scope to be filled, which exists from the end of the block on, durably; not if the block raises."""


class Copied(NamedTuple):
    """A scope that is equal in both places: what it has, see `Contents`, and how long it took.

    `was_there` is whether it had been copied before, and was only compared.
    """

    scope: str
    rows: int
    parts: int
    bytes: int
    seconds: float
    was_there: bool


class Sum(NamedTuple):
    """A number of rows or parts, and the SHA-256 over all of them in the order of their keys."""

    number: int
    digest: str


class Contents(NamedTuple):
    """Everything that a scope has, to be compared; `bytes` are those of rows and media, without what a store adds."""

    end: End
    tables: dict[str, Sum]
    media: Sum
    bytes: int

    @property
    def rows(self) -> int:
        return sum(each.number for each in self.tables.values())


def copy(
    source: Place, target: Place, scopes: Iterable[str] | None, progress: Progress, done: Callable[[Copied], None]
) -> None:
    """Copy these scopes, or all; `done` receives each that is in the target and equal there.

    Raises `CannotCopy`: before anything is written if the target has another state of any of the scopes, or if one of
    those that are named does not exist.
    """
    for scope, is_there in _plan(source, target, scopes).items():
        done(_compared(source, target, scope, progress) if is_there else _copied(source, target, scope, progress))


def _plan(source: Place, target: Place, scopes: Iterable[str] | None) -> dict[str, bool]:
    """The scopes to be copied, and whether each is in the target already."""
    plan: dict[str, bool] = {}
    for scope in source.names() if scopes is None else dict.fromkeys(scopes):
        with source.reading(scope) as origin:
            if origin is None or _is_empty(origin):
                if scopes is not None:
                    raise CannotCopy(f"nothing was copied: {source.name} has no scope {scope!r}")
                continue
            end = _end_of(origin)
        with target.reading(scope) as found:
            plan[scope] = found is not None and not _is_empty(found)
            if found is not None and plan[scope] and _end_of(found) != end:
                raise CannotCopy(
                    f"nothing was copied: {target.name} has another state of the scope {scope!r}. Delete it there "
                    "(delete-scope), or name the scopes to copy with --scope"
                )
    return plan


def _end_of(scope: ScopeToRead) -> End:
    [row] = scope.each(SELECT_END)
    return End(*row)


def _is_empty(scope: ScopeToRead) -> bool:
    return _end_of(scope) == End() and _count(scope) == 0


def _count(scope: ScopeToRead) -> int:
    """The number of all rows."""
    return sum(number for table in WHOLE_TABLES for (number,) in scope.each(table.count_all))


def _compared(source: Place, target: Place, scope: str, progress: Progress) -> Copied:
    """Compare a scope that is in the target already."""
    began = time.monotonic()
    with _existing(source, scope) as origin, _existing(target, scope) as found:
        progress(f"counting the rows of {scope}", 0, None)
        contents = _equal(scope, _Side(source, origin), _Side(target, found), _count(origin), progress)
    return _report(scope, contents, began, was_there=True)


@contextmanager
def _existing(place: Place, scope: str) -> Iterator[ScopeToRead]:
    with place.reading(scope) as found:
        if found is None:
            raise CannotCopy(f"the scope {scope!r} of {place.name} was deleted just now")
        yield found


def _copied(source: Place, target: Place, scope: str, progress: Progress) -> Copied:
    began = time.monotonic()
    with _existing(source, scope) as origin, target.writing(scope) as copy:
        if not _is_empty(copy):
            raise CannotCopy(f"the scope {scope!r} was written to in {target.name} just now")
        progress(f"counting the rows of {scope}", 0, None)
        rows = _count(origin)
        _write(scope, origin, copy, rows, progress)
        contents = _equal(scope, _Side(source, origin), _Side(target, copy), rows, progress)
        progress(f"finishing the copy of {scope}", 0, None)
    return _report(scope, contents, began, was_there=False)


def _report(scope: str, contents: Contents, began: float, *, was_there: bool) -> Copied:
    seconds = time.monotonic() - began
    return Copied(scope, contents.rows, contents.media.number, contents.bytes, seconds, was_there)


def _write(scope: str, origin: ScopeToRead, copy: ScopeToWrite, rows: int, progress: Progress) -> None:
    """Write everything, the end of the log last."""
    written = 0
    for table in WHOLE_TABLES:
        for batch in _batches(origin.each(table.select_all)):
            copy.write(table, batch)
            written += len(batch)
            progress(f"copying {scope}", written, rows)
    for number, part in enumerate(origin.parts(), start=1):
        copy.put(part)
        progress(f"copying media of {scope}", number, None)
    copy.end(_end_of(origin))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists that are bounded in number and in bytes; a list has at least one."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(_canonical(row))
        if len(batch) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# Comparing


class _Side(NamedTuple):
    place: Place
    scope: ScopeToRead

    def contents(self, name: str, rows: int, progress: Progress) -> Contents:
        """What the scope has; `rows` is how many rows there should be."""
        return contents_of(self.scope, lambda done: progress(f"reading {name} in {self.place.name}", done, rows))


def _equal(name: str, one: _Side, other: _Side, rows: int, progress: Progress) -> Contents:
    """What both sides have; raises `CannotCopy` if that is not the same."""
    wanted, found = one.contents(name, rows, progress), other.contents(name, rows, progress)
    if different := differences(wanted, found):
        raise CannotCopy(
            f"the scope {name!r} is not the same in {one.place.name} and in {other.place.name}: {'; '.join(different)}"
        )
    return wanted


def contents_of(scope: ScopeToRead, progress: Callable[[int], None] = lambda _: None) -> Contents:
    """Read everything that a scope has. `progress` receives the number of rows that were read."""
    tables: dict[str, Sum] = {}
    rows = size = 0
    for table in WHOLE_TABLES:
        digest, before = hashlib.sha256(), rows
        for row in scope.each(table.select_all):
            encoded = _canonical(row)
            digest.update(encoded)
            size += len(encoded)
            rows += 1
            if rows % ROWS_AT_ONCE == 0:
                progress(rows)
        tables[table.name] = Sum(rows - before, digest.hexdigest())
    digest, parts = hashlib.sha256(), 0
    for part in scope.parts():
        digest.update(part.sha256.encode())  # which its bytes were compared with
        size += len(part.data)
        parts += 1
    return Contents(_end_of(scope), tables, Sum(parts, digest.hexdigest()), size)


def _canonical(row: tuple[Any, ...]) -> bytes:
    """A row as bytes that tell where each of its values ends, and of which type it is."""
    return MSGPACK.encode(row)


def differences(wanted: Contents, found: Contents) -> list[str]:
    """How two scopes differ, in words; empty if they do not."""
    different = [] if found.end == wanted.end else ["the ends of the command logs differ"]
    for what, one, other in [
        *((f"rows of {name}", sum_, found.tables[name]) for name, sum_ in wanted.tables.items()),
        ("parts of media", wanted.media, found.media),
    ]:
        if one.number != other.number:
            different.append(f"{one.number:,} {what} and {other.number:,}")
        elif one != other:
            different.append(f"{what} differ")
    return different
