"""How far a long piece of work has come, for a person at a terminal."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

WIDTH = 30
EVERY_SECONDS = 0.1


class Progress:
    """A bar on one line of `out`, of `total` bytes where that is known; nothing at all where nobody watches."""

    def __init__(self, out: TextIO, total: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._total = total
        self._clock = clock
        self._watched = out.isatty()
        self._started = 0.0
        self._shown_at = 0.0
        self._bytes = 0
        self.commands = 0

    def begin(self) -> None:
        """The work begins now."""
        self._started = self._clock()

    def counted(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The same lines; their bytes count as done once the next one is wanted."""
        for line in lines:
            yield line
            self._bytes += len(line)

    def done(self, commands: int) -> None:
        """So many more commands are carried out."""
        self.commands += commands
        now = self._clock()
        if self._watched and now - self._shown_at >= EVERY_SECONDS:
            self._shown_at = now
            self._out.write(f"\r{self._bar()}{self.summary()}\x1b[K")
            self._out.flush()

    def close(self) -> None:
        """Leave the line as if nothing had been there."""
        if self._watched and self._shown_at:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def summary(self) -> str:
        """What was done, in one line."""
        noun = "command" if self.commands == 1 else "commands"
        return f"{self.commands:,} {noun} in {self._seconds():.2f} s, {self._rate():,.0f}/s"

    def _bar(self) -> str:
        if not self._total:
            return ""
        share = min(1.0, self._bytes / self._total)
        full = round(share * WIDTH)
        return f"[{'█' * full}{'·' * (WIDTH - full)}] {share:4.0%} "

    def _seconds(self) -> float:
        return self._clock() - self._started

    def _rate(self) -> float:
        return self.commands / max(self._seconds(), 0.001)
