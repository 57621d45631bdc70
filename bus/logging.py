"""The daemon's log: readable lines on a terminal, JSON elsewhere, always on standard error.

It uses structlog with a configuration of its own, so that an application that runs the store in-process keeps its
configuration, and gets only errors from backscroll.
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
DRAIN_SECONDS = 1.0


class Log:
    """The daemon's logger; `configure()` sets its level and format. Until then it writes errors only."""

    def __init__(self) -> None:
        self._logger = _make_logger("error", for_people=True)
        self.debugging = False  # whether lines of level debug are written

    def configure(self, settings: Settings) -> None:
        """Apply the settings."""
        self.debugging = settings.log_level == "debug"
        terminal = sys.stderr.isatty()
        for_people = settings.log_format == "console" or (settings.log_format == "auto" and terminal)
        self._logger = _make_logger(settings.log_level, for_people=for_people, colors=terminal)

    def debug(self, event: str, **about: Any) -> None:
        self._logger.debug(event, **about)

    def info(self, event: str, **about: Any) -> None:
        self._logger.info(event, **about)

    def error(self, event: str, **about: Any) -> None:
        self._logger.error(event, **about)


class LossyWriter:
    """A file-like object that writes log lines to standard error, in a thread of its own.

    Lines that cannot be written are dropped: a full disk, a closed pipe or a pipe that is not read must not block the
    daemon.
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
        """Do nothing; `drain()` waits until the lines are written."""

    def drain(self, seconds: float) -> None:
        """Wait until all lines are written, for at most this long."""
        until = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.drain, DRAIN_SECONDS)

    def _write_all(self) -> None:
        while True:
            text = self._lines.get()
            with contextlib.suppress(OSError):
                os.write(STANDARD_ERROR, text.encode(errors="backslashreplace"))
            self._lines.task_done()


_standard_error = LossyWriter()


def _make_logger(level: str, *, for_people: bool, colors: bool = False) -> Any:
    """A structlog logger with this level and format."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        if for_people
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    return structlog.wrap_logger(
        structlog.WriteLogger(_standard_error),  # type: ignore[arg-type]  # it has write() and flush(), which suffices
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
