"""The daemon's log: lines for people on a terminal, JSON elsewhere, always on standard error.

It is structlog with a setup of its own, so that an application whose tests run the store in-process keeps its own, and
hears of nothing there but errors.
"""

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from typing import Any

import msgspec
import structlog

from backscroll.bus.settings import Settings

STANDARD_ERROR = 2
LINES_WAITING_MAX = 10_000
SECONDS_TO_DRAIN = 1.0


class Log:
    """What the bus writes its lines to; `configure()` says which lines and how."""

    def __init__(self) -> None:
        self._lines = _lines("error", for_people=True)
        self.debugging = False  # whether lines of level debug are written

    def configure(self, settings: Settings) -> None:
        """Write what the settings ask for."""
        self.debugging = settings.log_level == "debug"
        terminal = sys.stderr.isatty()
        for_people = settings.log_format == "console" or (settings.log_format == "auto" and terminal)
        self._lines = _lines(settings.log_level, for_people=for_people, colors=terminal)

    def debug(self, event: str, **about: Any) -> None:
        self._lines.debug(event, **about)

    def info(self, event: str, **about: Any) -> None:
        self._lines.info(event, **about)

    def error(self, event: str, **about: Any) -> None:
        self._lines.error(event, **about)


class Lossy:
    """A file for log lines, which are written by a thread of its own.

    Lines that cannot be written are lost, for a full disk, a closed pipe, or a pipe that nobody reads must stop nobody.
    """

    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(LINES_WAITING_MAX)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def write(self, text: str) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(text)
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Lines are on their way; `drain()` waits for them."""

    def drain(self, seconds: float) -> None:
        """Give the lines that wait so long to be written."""
        until = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.drain, SECONDS_TO_DRAIN)

    def _write_all(self) -> None:
        while True:
            text = self._lines.get()
            with contextlib.suppress(OSError):
                os.write(STANDARD_ERROR, text.encode(errors="backslashreplace"))
            self._lines.task_done()


_standard_error = Lossy()


def _lines(level: str, *, for_people: bool, colors: bool = False) -> Any:
    """A structlog logger of this level and look."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        if for_people
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    return structlog.wrap_logger(
        structlog.WriteLogger(_standard_error),  # type: ignore[arg-type]  # it writes and flushes, which is all that is asked
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
    ).bind()


def _to_json(event: Any, **_options: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


log = Log()
