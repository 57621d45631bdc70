"""What a repair tells: of each scope what is whole, what was lost, and what to do now."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from msgspec import Struct

NAMED_MAX = 1_000
"""So many lost rows of a table are named in a report; the others are counted."""

Outcome = Literal["whole", "partly lost", "not repaired"]


class Rows(NamedTuple):
    """Rows of one table: how many, and of at most `NAMED_MAX` of them what is known, by column."""

    table: str
    number: int
    named: list[dict[str, Any]]


class ScopeReport(Struct, kw_only=True):
    """What became of one scope.

    Attributes:
        file: Its database, relative to the data directory.
        damage: What was wrong, in words.
        outcome: `whole` if everything that was committed is back; `not repaired` if its files are as they were.
        reason: Why it is not repaired.
        seq: The number of the last command; the next one gets the next.
        log_from: Where the command log begins.
        rows: How many rows there are now, by table.
        commands_lost: The first and last numbers of commands of which nothing is known, or their ids only.
        ids_known: Of how many of them the ids are known, so that they are not executed again.
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
    lost: list[Rows] = []
    uncertain: list[Rows] = []
    maybe_more: list[str] = []
    media_lost: list[str] = []
    media_restored: int = 0
    notes: list[str] = []


class RepairReport(Struct, kw_only=True):
    """What a repair did: `set_aside` is the folder with the files as they were, None if nothing was damaged.

    `files` says what became of damaged files besides databases and media, in words.
    """

    set_aside: str | None = None
    scopes: list[ScopeReport] = []
    files: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost."""
        return all(scope.outcome == "whole" and not scope.media_lost for scope in self.scopes)

    def text(self) -> str:
        """The report as text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        if self.set_aside is None:
            yield "Nothing is damaged, and nothing was changed."
            return
        yield f"The files as they were are in {self.set_aside}. Keep them until you need nothing from them any more."
        yield from self.files
        for scope in self.scopes:
            yield ""
            yield from _lines_of(scope)


def _lines_of(scope: ScopeReport) -> Iterator[str]:
    yield f"Scope {scope.scope!r} ({scope.file})"
    yield from (f"  damaged: {each}" for each in scope.damage)
    if scope.outcome == "not repaired":
        yield f"  It is not repaired: {scope.reason}. Its files are as they were."
        return
    if scope.outcome == "whole":
        yield f"  Everything is back: all rows, and the command log up to command {scope.seq}."
    else:
        yield from _lines_of_loss(scope)
    yield f"  There are now: {', '.join(f'{number} {table}' for table, number in sorted(scope.rows.items()) if number)}"
    if scope.media_restored:
        yield f"  Parts of media from the backup: {scope.media_restored}"
    yield from (f"  lost: part {sha256} of a file" for sha256 in scope.media_lost)
    yield from (f"  {each}" for each in scope.notes)


def _lines_of_loss(scope: ScopeReport) -> Iterator[str]:
    for first, last in scope.commands_lost:
        yield f"  lost: command {first}" if first == last else f"  lost: commands {first} to {last}"
    if scope.ids_known:
        yield f"  Of these, {scope.ids_known} ids are known: they are not executed again."
    for rows in scope.lost:
        yield from _lines_of_rows(rows, "lost")
    for rows in scope.uncertain:
        yield from _lines_of_rows(rows, "maybe older than it was")
    for table in scope.maybe_more:
        yield f"  Of {table} more may be lost than is named here: its indexes are damaged as well."
    if scope.log_from == 1:
        yield f"  All other rows are back, and the command log up to command {scope.seq}."
    else:
        yield f"  The command log begins with command {scope.log_from}: it cannot be replayed without what is lost."
        yield "  Whoever follows the feed of this scope gets a gap, and reads everything again."


def _lines_of_rows(rows: Rows, how: str) -> Iterator[str]:
    yield f"  {how}: {rows.number} of {rows.table}"
    for each in rows.named:
        yield f"    {', '.join(f'{column} {value!r}' for column, value in each.items())}"
    if rows.number > len(rows.named):
        yield f"    and {rows.number - len(rows.named)} more"
