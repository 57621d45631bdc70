"""Run the daemon: settings, lock, database, sockets, ready line; then serve until stopped.

Exit codes: 0 stopped on request, 2 bad settings, 3 another daemon is using the data directory, 4 the database cannot be
opened.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from typing import Any

if __name__ == "__main__":
    # structlog imports rich wherever it is installed, for tracebacks that this daemon formats itself: 0.1 s per start.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None stands for a module that cannot be imported
    # peewee imports a driver of PostgreSQL if there is one, which takes three times as long as peewee itself, and which
    # the store needs only if it is chosen.
    sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]
    import peewee  # noqa: F401

    del sys.modules["psycopg"]

from backscroll.bus.connections import raise_file_limit
from backscroll.bus.daemon import Daemon
from backscroll.bus.directory import announced, check_store, default_endpoint, locked, note_store, place_for_endpoint
from backscroll.bus.failures import BadSettings, CannotStart
from backscroll.bus.logging import log
from backscroll.bus.postgresql import packages_needed
from backscroll.bus.recorder import Recorder
from backscroll.bus.settings import Settings, from_command_line
from backscroll.bus.sqlite.scopes import Space, SqliteScopes
from backscroll.bus.stores import Scopes
from backscroll.handlers.storage import Retention
from backscroll.schema.wire import DEFAULT_SCOPE, PROTOCOL_LEVEL

GIL_SWITCH_SECONDS = 0.0001  # with the default of 5 ms one busy thread would delay every reply
GC_ALLOCATIONS = 50_000  # between two collections; the default of 700 is less than one batch of requests
PR_SET_PDEATHSIG = 1
NEED_TOKEN = ("tcp://", "curve://")  # endpoints whose requests need a token
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
FREED_BYTES_KEPT, PIECE_BYTES_KEPT = 16 * 2**20, 4 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a daemon until it stops, and return the exit code."""
    try:
        settings = _settings(sys.argv[1:] if arguments is None else arguments)
        log.configure(settings)
        serve(settings)
    except CannotStart as error:
        sys.stderr.write(f"backscroll: {error}\n")
        return error.exit_code
    return 0


def tune_process() -> None:
    """Switch threads quickly, collect garbage rarely, and keep freed memory for the next reply."""
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    gc.freeze()  # what was imported is never garbage
    gc.set_threshold(GC_ALLOCATIONS)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # glibc otherwise returns large blocks to the system and faults them in again; other libraries have no mallopt.
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_TRIM_THRESHOLD, FREED_BYTES_KEPT)
            libc.mallopt(M_MMAP_THRESHOLD, PIECE_BYTES_KEPT)
            libc.mallopt(M_ARENA_MAX, 1)  # else what one thread frees is kept for that thread


def serve(settings: Settings) -> None:
    """Serve until stopped; raises `CannotStart`."""
    os.umask(0o077)  # files are accessible to their owner only
    raise_file_limit()
    tune_process()
    with ExitStack() as stack:
        stack.enter_context(locked(settings.data_dir))
        check_store(settings.data_dir, settings.store)
        scopes = _open_scopes(settings, stack)
        if settings.store:
            note_store(settings.data_dir, settings.store)
        place = stack.enter_context(place_for_endpoint(settings.data_dir))
        endpoints = settings.endpoint
        if all(each.startswith("curve://") for each in endpoints):  # which only clients with keys can use
            endpoints = (stack.enter_context(default_endpoint(place)), *endpoints)
        daemon = stack.enter_context(closing(Daemon(settings, scopes)))
        bound = daemon.bind(endpoints)
        ready = _ready(bound)
        daemon.stop_on_signals()
        if settings.exit_with_parent:
            _stop_with_parent(daemon)
        token = {"token": daemon.gate.start_token} if any(each.startswith(NEED_TOKEN) for each in bound) else {}
        stack.enter_context(announced(place, ready | token))  # the token is in the file alone
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        log.info("ready", endpoints=ready["endpoints"], data_dir=str(settings.data_dir))
        daemon.run()
    log.info("stopped")


def _open_scopes(settings: Settings, stack: ExitStack) -> Scopes:
    """Open what the data is in, and the scope `default`: if that fails, the daemon does not start."""
    retention = Retention(
        payloads=settings.command_log == "payloads",
        results=settings.kept_results,
        results_ms=settings.kept_results_ms,
        redact_replaced=settings.redact_replaced_text,
    )
    return _open_databases(settings, retention, stack) if settings.store else _open_files(settings, retention, stack)


def _open_databases(settings: Settings, retention: Retention, stack: ExitStack) -> Scopes:
    with packages_needed():
        from backscroll.bus.postgresql.opening import open_scopes
    scopes = open_scopes(settings, retention, stack)
    scopes.open(DEFAULT_SCOPE)
    return scopes


def _open_files(settings: Settings, retention: Retention, stack: ExitStack) -> Scopes:
    recorder = stack.enter_context(closing(Recorder(settings.record))) if settings.record else None
    scopes = SqliteScopes(
        settings.data_dir,
        lock_wait_ms=settings.lock_wait_ms,
        retention=retention,
        query_cache_bytes=settings.query_cache_bytes,
        adopted_bytes=settings.adopted_bytes,
        committed=recorder.committed if recorder else lambda *_: None,
        space=Space(settings.scopes_max, settings.scope_bytes, settings.data_bytes, settings.reserve_bytes),
    )
    stack.enter_context(closing(scopes))
    default = scopes.open_default()
    if recorder:
        recorder.begin(default.seq, default.position.chain)
    return scopes


def _settings(arguments: Sequence[str]) -> Settings:
    try:
        return from_command_line(arguments)
    except (OSError, ValueError) as error:
        raise BadSettings(str(error)) from error


def _ready(endpoints: list[str]) -> dict[str, Any]:
    return {
        "event": "ready",
        "pid": os.getpid(),
        "endpoints": endpoints,
        "events": None,
        "level": PROTOCOL_LEVEL,
        "version": version("backscroll"),
    }


def _stop_with_parent(daemon: Daemon) -> None:
    """Stop when standard input ends, which works on every system; on Linux also when the parent ends."""

    def watch() -> None:
        if os.isatty(0):  # started in a shell with &: reading the terminal would suspend the process
            return
        with contextlib.suppress(OSError):  # a standard input that is closed has ended
            while os.read(0, 4096):
                pass
        daemon.stop()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    if sys.platform == "linux":
        _stop_when_orphaned(daemon)


def _stop_when_orphaned(daemon: Daemon) -> None:
    """Stop when the parent has ended, even if another child of it still holds the pipe to standard input open.

    Linux also sends the signal when only the parent's thread that started this process ends, and the parent runs on.
    """
    parent = os.getppid()
    signal.signal(signal.SIGUSR1, lambda *_: None if os.getppid() == parent else daemon.stop())
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != parent:  # it ended before prctl()
        daemon.stop()


if __name__ == "__main__":
    sys.exit(main())
