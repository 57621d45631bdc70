"""Replay of log files: sends the commands with `append-log`, and reports errors with the line they are about."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from backscroll.clients.python.client import Client
from backscroll.schema.errors import BackscrollError
from backscroll.schema.limits import BATCH_COMMANDS_MAX, BODY_BYTES_MAX, LOG_COMMANDS_MAX
from backscroll.schema.log_file import BadLine, LogLine
from backscroll.schema.operations import AppendLog, Batch

CHUNK_BYTES = 512 * 1024
WAITING_BYTES_MAX = 8 * CHUNK_BYTES  # of all scopes together
LINE_BYTES_MAX = 8 * BODY_BYTES_MAX  # enough for any accepted request, even with every character escaped in JSON

ClientFor = Callable[[str], Client]
"""Returns the client of a scope."""

_ENTRY = re.compile(r"\$\.payload\.entries\[(\d+)\]")


@dataclass
class Chunk:
    """Lines of one scope that are sent together."""

    scope: str
    lines: list[LogLine] = field(default_factory=list)
    size: int = 0
    commands: int = 0

    def takes(self, line: LogLine) -> bool:
        return not self.lines or (
            len(self.lines) < BATCH_COMMANDS_MAX
            and self.size + line.size <= CHUNK_BYTES
            and self.commands + _commands(line) <= LOG_COMMANDS_MAX
        )

    def add(self, line: LogLine) -> None:
        self.lines.append(line)
        self.size += line.size
        self.commands += _commands(line)


def _commands(line: LogLine) -> int:
    """The number of commands in a line, including those in a batch."""
    return 1 + (len(line.entry.payload.commands) if isinstance(line.entry.payload, Batch) else 0)


@dataclass(frozen=True)
class Until:
    """Where to stop: after the command with this seq, or of this time (ms since the epoch); None is the end."""

    seq: int | None = None
    at: int | None = None

    def includes(self, line: LogLine) -> bool:
        entry = line.entry
        return (self.seq is None or entry.seq <= self.seq) and (self.at is None or entry.at <= self.at)


def lines_of(file: BinaryIO, *, bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes]:
    """The lines of a file; raises `BadLine` for a line that is longer than `bytes_max`."""
    number = 0
    while line := file.readline(bytes_max + 1):
        number += 1
        if len(line) > bytes_max:
            raise BadLine(number, f"the line is longer than {bytes_max} bytes")
        yield line


def until(lines: Iterable[LogLine], end: Until) -> Iterator[LogLine]:
    """The lines up to an end, for each scope separately. Reads all lines, because a scope may begin anywhere."""
    ended: set[str] = set()
    for line in lines:
        if not end.includes(line):
            ended.add(line.scope)
        if line.scope not in ended:
            yield line


def checked(lines: Iterable[LogLine], *, fresh: bool = False) -> Iterator[LogLine]:
    """The lines, checked that they can be executed, with `fresh` in empty scopes; raises `BadLine`."""
    seen: set[str] = set()
    for line in lines:
        entry = line.entry
        if fresh and line.scope not in seen and entry.seq != 1:
            problem = f"the log of the scope {line.scope!r} begins at seq {entry.seq}, but an empty scope begins at 1"
            raise BadLine(line.number, f"{problem}: the commands before it are not in this file")
        if entry.payload is None and not entry.redacted:
            raise BadLine(line.number, "$.payload: it was not kept, so this command cannot be executed again")
        seen.add(line.scope)
        yield line


def of_one_scope(lines: Iterable[LogLine]) -> Iterator[LogLine]:
    """The lines, checked that all are of the same scope; raises `BadLine`."""
    scope = None
    for line in lines:
        scope = scope or line.scope
        if line.scope != scope:
            raise BadLine(line.number, f"of the scope {line.scope!r}, but the lines before it are of {scope!r}")
        yield line


def replay(lines: Iterable[LogLine], client_for: ClientFor) -> Iterator[Chunk]:
    """Execute the commands; yields each chunk when it is on disk.

    Only one chunk is in flight: reading the next one meanwhile would save a fifth at most, because most of the time is
    spent in the daemon. Raises `BadLine` for the first command that cannot be executed, or what the client raises for
    errors of the daemon; all earlier commands of that scope have then been executed, and none after it.
    """
    readable = _Readable(lines)
    yield from (_send(chunk, client_for) for chunk in _chunks(readable))
    if readable.bad is not None:
        raise readable.bad


class _Readable:
    """The lines before the first bad one. The error is kept in `bad`, to be raised when all of them are sent."""

    def __init__(self, lines: Iterable[LogLine]) -> None:
        self._lines = lines
        self.bad: BadLine | None = None

    def __iter__(self) -> Iterator[LogLine]:
        try:
            yield from self._lines
        except BadLine as bad:
            self.bad = bad


def _chunks(lines: Iterable[LogLine]) -> Iterator[Chunk]:
    """The lines grouped into chunks, in order for each scope."""
    waiting: dict[str, Chunk] = {}
    for line in lines:
        chunk = waiting.setdefault(line.scope, Chunk(line.scope))
        if not chunk.takes(line):
            yield chunk
            chunk = waiting[line.scope] = Chunk(line.scope)
        chunk.add(line)
        if len(waiting) > 1 and sum(each.size for each in waiting.values()) > WAITING_BYTES_MAX:
            yield from waiting.values()
            waiting.clear()
    yield from waiting.values()


def _send(chunk: Chunk, client_for: ClientFor) -> Chunk:
    """Have a chunk executed, or if a line of it is bad all lines before that one."""
    try:
        # Logs are replayed into stores of their own, so one recorded while a clock was ahead harms nobody.
        client_for(chunk.scope).execute(AppendLog([line.entry for line in chunk.lines], allow_future=True))
    except BackscrollError as error:
        raise _blamed(chunk, error, client_for) from None
    return chunk


def _blamed(chunk: Chunk, error: BackscrollError, client_for: ClientFor) -> Exception:
    """The error about the line that was refused; the lines before it are executed first."""
    named = _ENTRY.match(str((error.details or {}).get("path", "")))
    first, last = chunk.lines[0].number, chunk.lines[-1].number
    if named is None:
        where = f"line {first}" if first == last else f"lines {first} to {last}"
        return type(error)(
            f"{where}: {error.message}", details=error.details, retryable=error.retryable, code=error.code
        )
    index = int(named[1])
    if index:
        _send(Chunk(chunk.scope, chunk.lines[:index]), client_for)
    return BadLine(chunk.lines[index].number, error.message.replace(named[0], "$", 1))
