"""What people see on a terminal: text, tables and progress bars, made by rich, which is imported when it is needed.

Text has no colour where NO_COLOR is set or nobody watches. What other people wrote is shown without control characters.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

GAP = 2
EVERY_SECONDS = 0.05
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(stream: TextIO, *, width_elsewhere: int = 100) -> "Console":
    """A rich console for a stream; where that is no terminal, it writes plain text of at most this width."""
    from rich.console import Console

    options: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    if not stream.isatty():
        return Console(file=cast(IO[str], _Trimmed(stream)), color_system=None, width=width_elsewhere, **options)
    return Console(file=stream, color_system="auto" if _is_lively(stream) else None, **options)


def _is_lively(stream: TextIO) -> bool:
    """Whether a stream takes more than plain text."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Trimmed:
    """A stream without the spaces that rich puts at the ends of lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(re.sub(" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        self._stream.flush()


def printable(text: str) -> str:
    """Text whose control characters are spelled out, so that it cannot command the terminal."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def prose(text: str) -> "Text":
    """Text in which what stands in backticks is set off."""
    from rich.text import Text

    made = Text(printable(text))
    made.highlight_regex("`[^`]+`", "cyan")
    return made


def table(
    names: Sequence[str],
    rows: Sequence[Sequence["str | Text"]],
    *,
    indent: int = 0,
    widths: Mapping[str, int] | None = None,
) -> "Padding":
    """Columns with their names above, if they have any; long text is wrapped, and a column without content left out."""
    from rich.padding import Padding
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=any(names))
    shown = [column for column, name in enumerate(names) if name or any(row[column] for row in rows)]
    for column in shown:
        made.add_column(names[column], overflow="fold", width=(widths or {}).get(names[column]))
    for row in rows:
        made.add_row(*(row[column] for column in shown))
    return Padding.indent(made, indent)


Advance = Callable[[int, str], None]
"""Reports how much is done so far, with a note to show beside the bar."""


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs, if somebody watches; it is gone in the end."""
    if not _is_lively(sys.stderr):
        yield lambda _done, _note: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
    with Progress(*columns, TimeRemainingColumn(), console=console(sys.stderr), **options) as bar:
        task = bar.add_task(title, total=total, note="")
        shown_at = 0.0

        def advance(done: int, note: str) -> None:
            nonlocal shown_at
            if time.monotonic() - shown_at > EVERY_SECONDS:  # drawing it for each of a million lines would take long
                shown_at = time.monotonic()
                bar.update(task, completed=done, note=note)

        yield advance


ERASE_LINE = "\r\x1b[K"


def write_line(text: str) -> None:
    """Print a line at once, while `steps` may show a bar, which goes on below it."""
    sys.stdout.write(f"{ERASE_LINE if _is_lively(sys.stdout) else ''}{printable(text)}\n")
    sys.stdout.flush()


Steps = Callable[[str, int, int | None], None]
"""Reports the step in words, how much of it is done, and how much there is (None: unknown)."""


@contextmanager
def steps() -> Iterator[Steps]:
    """Show the steps of long work on standard error while the block runs, if somebody watches, each with its bar."""
    if not _is_lively(sys.stderr):
        yield lambda _step, _done, _total: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True, redirect_stdout=False) as bars:
        bar, shown = bars.add_task("", total=None), ""

        def show(step: str, done: int, total: int | None) -> None:
            nonlocal shown
            if step != shown:
                shown = step
                bars.reset(bar, description=printable(step), total=total)
            bars.update(bar, completed=done, total=total)

        yield show
