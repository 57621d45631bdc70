"""`backscroll replay`: execute a log file's commands in a fresh data directory, and compare what they lead to."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

from backscroll.clients.command_line.exits import EXIT_FAILED, EXIT_USAGE, complain
from backscroll.clients.command_line.logs import opened, size_of
from backscroll.clients.command_line.output import progress
from backscroll.clients.python.compare import differences
from backscroll.clients.python.daemon_access import Clients, clients_of, holds_database, private_daemon
from backscroll.clients.python.log_replay import Until, checked, lines_of, replay, until
from backscroll.schema.log_file import LogLine, LogReader, time_of
from backscroll.schema.operations import GetLog
from backscroll.schema.paths import store_of
from backscroll.schema.wire import DEFAULT_SCOPE


def replay_file(options: argparse.Namespace) -> int:
    """Execute the commands of a log file, up to an end if one is given, and compare the rows if that is wanted."""
    if (options.against_data_dir or options.against_endpoint) and not options.verify:
        return complain("--against-data-dir and --against-endpoint need --verify; add it", EXIT_USAGE)
    try:
        end = Until(options.until, None if options.at is None else time_of(options.at))
    except ValueError:
        return complain(f"--at: give a time such as 2026-01-01T12:00:00Z, not {options.at!r}", EXIT_USAGE)
    if options.into is not None and holds_database(options.into):
        return complain(f"--into: {options.into} holds a database already; name a fresh directory", EXIT_USAGE)
    if options.into is not None and store_of(options.into) is not None:
        return complain(f"--into: the data of {options.into} is in PostgreSQL; name a fresh directory", EXIT_USAGE)
    with ExitStack() as stack:
        file = stack.enter_context(opened(options.file))
        read = _Counted(lines_of(file))
        lines = _wanted(read, options.scope, end)
        first = next(lines, None)  # a file that cannot be replayed leaves no directory behind
        into = options.into or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backscroll-")))
        daemon = stack.enter_context(private_daemon(into))
        clients = stack.enter_context(closing(Clients(daemon.endpoint, daemon.data_dir)))
        scopes = _execute(chain([] if first is None else [first], lines), clients, read, size_of(file))
        return _compare(options, clients, scopes) if options.verify else 0


class _Counted:
    """Lines of a file, with the number of bytes of those that were read."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.size += len(line)
            yield line


def _wanted(source: Iterable[bytes], scope: str | None, end: Until) -> Iterator[LogLine]:
    read = LogReader().read(source)
    lines = (line for line in read if scope in (None, line.scope))
    return checked(until(lines, end), fresh=True)


def _execute(lines: Iterator[LogLine], clients: Clients, read: _Counted, total: int | None) -> list[str]:
    """Replay lines and report how many and how fast; the scopes that there are now."""
    scopes: dict[str, None] = {}
    commands, started = 0, time.monotonic()
    try:
        with progress("replaying", total) as advance:
            for chunk in replay(lines, clients.__getitem__):
                scopes[chunk.scope] = None
                commands += len(chunk.lines)
                advance(read.size, _rate(commands, started))
    finally:
        sys.stderr.write(f"backscroll: {_rate(commands, started)}\n")
    return list(scopes) or [DEFAULT_SCOPE]


def _rate(commands: int, started: float) -> str:
    seconds = time.monotonic() - started
    noun = "command" if commands == 1 else "commands"
    return f"{commands:,} {noun} in {seconds:.2f} s, {commands / max(seconds, 0.001):,.0f}/s"


def _compare(options: argparse.Namespace, ours: Clients, scopes: list[str]) -> int:
    """Compare the scopes with those of another directory; prints what differs, or that nothing does."""
    code = 0
    with clients_of(options.against_endpoint, options.against_data_dir) as theirs:
        for scope in scopes if options.scope is None else [options.scope]:
            there = theirs.existing(scope)
            last, last_there = (client.ask(GetLog(limit=1)).last_seq for client in (ours[scope], there))
            if last != last_there:
                complain(f"{scope}: the replay ends at seq {last}, and what it is compared with at {last_there}", 0)
            found = list(differences(ours[scope], there))
            if not found:
                sys.stderr.write(f"{scope}: the rows of all tables are equal\n")
                continue
            code = EXIT_FAILED
            sys.stdout.writelines(f"{scope}: {line}\n" for each in found for line in each.lines())
    return code
