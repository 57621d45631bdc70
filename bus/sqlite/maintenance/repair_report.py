"""What a repair tells: of each scope what is whole or was lost, what to do now, and then the details."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from msgspec import Struct

NAMED_MAX = 1_000
"""So many lost rows of a table are named in a report; the others are counted."""
REPORT_FILE = "report.txt"

Outcome = Literal["whole", "partly lost", "not repaired"]


class Rows(NamedTuple):
    """Rows of one table: how many, and of at most `NAMED_MAX` of them what is known, by column."""

    table: str
    number: int
    named: list[dict[str, Any]]


class ScopeReport(Struct, kw_only=True):
    """What became of one scope.

    Attributes:
        scope: Its name; empty if that cannot be read.
        file: Its database, relative to the data directory.
        damage: What was wrong, in words.
        outcome: `whole` if everything that was committed is back; `not repaired` if its database is as it was.
        reason: Why it is not repaired, and what to do.
        seq: The number of the last command; the next one gets the next.
        log_from: Where the command log begins.
        rows: How many rows there are now, by table.
        commands_lost: The first and last numbers of commands of which nothing is known, or their ids only.
        ids_known: Of how many of them the ids are known, so that they are not executed again.
        more_commands: Whether there may have been others behind, because nothing tells where the command log ended.
        lost: Rows that were there and are not any more.
        uncertain: Rows that were lost and are now as the backup or the log had them, which may be older.
        maybe_more: The tables of which more rows may be lost than are named, because nothing tells which there were.
        media_lost: The hashes of parts of media that are missing or damaged, and had no copy.
        media_restored: How many were taken from the backup.
        notes: What else to know, in words.
    """

    scope: str
    file: str
    damage: list[str]
    outcome: Outcome = "whole"
    reason: str = ""
    seq: int = 0
    log_from: int = 1
    rows: dict[str, int] = {}
    commands_lost: list[tuple[int, int]] = []
    ids_known: int = 0
    more_commands: bool = False
    lost: list[Rows] = []
    uncertain: list[Rows] = []
    maybe_more: list[str] = []
    media_lost: list[str] = []
    media_restored: int = 0
    notes: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it was lost."""
        return self.outcome == "whole" and not self.media_lost


class RepairReport(Struct, kw_only=True):
    """What a repair did: `set_aside` is the folder with the files as they were, None if nothing was damaged.

    `finished` are the databases whose repair was interrupted before, after the new one was complete. `files` says what
    became of damaged files besides databases and media, in words; `files_lost` are those that are still damaged.
    `with_backups` tells whether there was a directory of backups to take from what was lost.
    """

    set_aside: str | None = None
    finished: list[str] = []
    scopes: list[ScopeReport] = []
    files: list[str] = []
    files_lost: list[str] = []
    with_backups: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost."""
        return not self.files_lost and all(scope.is_whole for scope in self.scopes)

    def text(self, lines_max: int | None = None) -> str:
        """The report as text; each of its lists is cut after so many lines, if that is given."""
        return "\n".join(self._lines(lines_max)) + "\n"

    def _lines(self, lines_max: int | None) -> Iterator[str]:
        for file in self.finished:
            yield f"The repair of {file} was interrupted, and is finished now."
            yield f"{REPORT_FILE} in the newest folder damaged-… says what was lost."
        if self.set_aside is None:
            yield "Nothing else is damaged." if self.finished else "Nothing is damaged, and nothing was changed."
            return
        yield from map(_headline, self.scopes)
        yield from self.files
        yield ""
        yield "What to do now:"
        yield from (f"- {each}" for each in self._next_steps(self.set_aside))
        for scope in self.scopes:
            yield ""
            yield f"Details of {_name(scope)}{f' ({scope.file})' if scope.scope else ''}:"
            yield from _details(scope, lines_max)

    def _next_steps(self, set_aside: str) -> Iterator[str]:
        yield from (f"{_name(each)}: {each.reason}" for each in self.scopes if each.outcome == "not repaired")
        if not self.with_backups and not self.is_whole:
            back = "copy the files in the folder below back to where they were, before the daemon runs again, and "
            replaced = self.files_lost or any(each.outcome != "not repaired" for each in self.scopes)
            yield f"If you have backups, {back if replaced else ''}repair with `--backups DIR`."
        if any(each.notes for each in self.scopes):
            yield "Read the notes in the details."
        yield "Start the daemon again."
        yield f"Keep {set_aside} until you need nothing from it: it has the files as they were, and {REPORT_FILE}."


def _name(scope: ScopeReport) -> str:
    return f"scope {scope.scope!r}" if scope.scope else f"the scope in {scope.file}"


def _headline(scope: ScopeReport) -> str:
    """What became of a scope in one line."""
    if scope.outcome == "not repaired":
        return f"{_name(scope)}: NOT REPAIRED. Its database is as it was."
    if scope.is_whole:
        return f"{_name(scope)}: everything is back, up to command {scope.seq}."
    return f"{_name(scope)}: {'; '.join(_losses(scope))}."


def _losses(scope: ScopeReport) -> Iterator[str]:
    """What was lost, in numbers."""
    lost = [_count(each.number, "row", f" of {each.table}") for each in scope.lost]
    if commands := _number_lost(scope):
        ranges = [_range(each) for each in scope.commands_lost]
        lost.append(f"{_count(commands, 'command')} ({', '.join(ranges[:3])}{', …' if ranges[3:] else ''})")
    if scope.media_lost:
        lost.append(_count(len(scope.media_lost), "part", " of media"))
    yield f"LOST: {', '.join(lost)}" if lost else "no row is known to be lost"
    if older := [_count(each.number, "row", f" of {each.table}") for each in scope.uncertain]:
        yield f"maybe older than they were: {', '.join(older)}"
    if scope.maybe_more or scope.more_commands:
        yield "more may be lost, see the details"
    else:
        yield "everything else is back"


def _count(number: int, noun: str, of: str = "") -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}{of}"


def _number_lost(scope: ScopeReport) -> int:
    return sum(last - first + 1 for first, last in scope.commands_lost)


def _range(commands: tuple[int, int]) -> str:
    first, last = commands
    return str(first) if first == last else f"{first} to {last}"


def _details(scope: ScopeReport, lines_max: int | None) -> Iterator[str]:
    yield from _cut((f"  damaged: {each}" for each in scope.damage), lines_max)
    if scope.media_restored:
        yield f"  parts of media that were taken from the backup: {scope.media_restored}"
    yield from _cut((f"  lost: part {sha256} of media" for sha256 in scope.media_lost), lines_max)
    if scope.outcome == "not repaired":
        return
    yield from _cut((f"  lost: commands {_range(each)}" for each in scope.commands_lost), lines_max)
    if unknown := _number_lost(scope) - scope.ids_known:
        yield f"  Not even the ids are known of {unknown} of these: if a client sends one again, it is executed again."
    if scope.more_commands:
        yield "  Where the command log ended cannot be read: more commands may be lost than are named here."
    for rows in scope.lost:
        yield from _lines_of_rows(rows, "lost", lines_max)
    for rows in scope.uncertain:
        yield from _lines_of_rows(rows, "maybe older than it was", lines_max)
    if scope.maybe_more:
        yield f"  Of these tables more rows may be lost than are named here: {', '.join(scope.maybe_more)}"
    if scope.log_from > 1 and scope.outcome != "whole":
        yield f"  The command log begins with command {scope.log_from}: it cannot be replayed without what is lost."
        yield "  Whoever follows the feed of this scope gets a gap, and reads everything again."
    yield f"  There are now: {', '.join(f'{number} {table}' for table, number in sorted(scope.rows.items()) if number)}"
    yield from _cut((f"  note: {each}" for each in scope.notes), lines_max)


def _lines_of_rows(rows: Rows, how: str, lines_max: int | None) -> Iterator[str]:
    yield f"  {how}: {rows.number} of {rows.table}"
    named = [f"    {', '.join(f'{column} {value!r}' for column, value in each.items())}" for each in rows.named]
    yield from _cut(named, lines_max, rows.number)


def _cut(lines: Iterable[str], lines_max: int | None, number: int = 0) -> Iterator[str]:
    """The first lines; then how many more there are, of a number that may be larger than that of the lines."""
    every = list(lines)
    shown = every[:lines_max]
    yield from shown
    if more := max(number, len(every)) - len(shown):
        yield f"    and {more} more{f'; see {REPORT_FILE}' if len(shown) < len(every) else ''}"
