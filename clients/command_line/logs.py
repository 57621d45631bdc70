"""`backscroll log export | verify` and `backscroll replay`: words in, files and complaints out, exit codes."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from backscroll.clients.command_line.progress import Progress
from backscroll.clients.python.compare import differences
from backscroll.clients.python.daemon_access import CannotReach, Clients, clients_of, holds_database, private_daemon
from backscroll.clients.python.log_export import Broken, file_of, log_range_of, verify_file, verify_scope
from backscroll.clients.python.log_replay import Until, checked, lines_of, replay, until
from backscroll.schema.errors import BackscrollError
from backscroll.schema.log_file import BadLine, LogLine, LogReader, time_of
from backscroll.schema.operations import GetLog
from backscroll.schema.wire import DEFAULT_SCOPE

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def log_export(options: argparse.Namespace) -> int:
    """Print a scope's log as a file."""
    return _guarded(_export, options)


def log_verify(options: argparse.Namespace) -> int:
    """Hold a scope's log, or a file's, against its digests and chain."""
    return _guarded(_verify, options)


def replay_file(options: argparse.Namespace) -> int:
    """Carry out a log file's commands in a fresh data directory, and compare what comes of it."""
    return _guarded(_replay, options)


def _guarded(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """A command's exit code, its errors told as messages."""
    try:
        return run(options)
    except BrokenPipeError:  # whoever read has seen enough; Python would complain again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except (BadLine, Broken, BackscrollError) as error:
        return _complain(error, EXIT_FAILED)
    except (CannotReach, OSError) as error:
        return _complain(error, EXIT_USAGE)


def _complain(what: object, code: int) -> int:
    sys.stderr.write(f"backscroll: {what}\n")
    return code


def _export(options: argparse.Namespace) -> int:
    with clients_of(options.endpoint, options.data_dir) as clients:
        client = clients.existing(options.scope)
        try:
            log_range = log_range_of(client, options.from_seq, options.to_seq)
        except ValueError as error:
            return _complain(error, EXIT_FAILED)
        if log_range.start > options.from_seq:
            sys.stderr.write(f"backscroll: the log begins at seq {log_range.start}\n")
        for line in file_of(client, options.scope, log_range):
            sys.stdout.write(line)
        sys.stdout.flush()
    return 0


def _verify(options: argparse.Namespace) -> int:
    if options.file is not None:
        return _verify_file(options.file)
    with clients_of(options.endpoint, options.data_dir) as clients:
        found = verify_scope(clients.existing(options.scope))
    sys.stdout.write(f"{options.scope}: the log is whole up to seq {found.seq}, chain {found.value.hex()}\n")
    sys.stdout.write(f"{options.scope}: {found.summary()}\n")
    return 0


def _verify_file(name: str) -> int:
    with _opened(name) as file:
        found = verify_file(lines_of(file))
    for scope, (last, known) in found.items():
        end = "as its header says" if known else "which no header says to be right"
        sys.stdout.write(f"{scope}: the file is whole up to seq {last.seq}, chain {last.value.hex()}, {end}\n")
        sys.stdout.write(f"{scope}: {last.summary()}\n")
    return 0


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def _replay(options: argparse.Namespace) -> int:
    if (options.against_data_dir or options.against_endpoint) and not options.verify:
        return _complain("--against-data-dir and --against-endpoint go with --verify", EXIT_USAGE)
    try:
        end = Until(options.until, None if options.at is None else time_of(options.at))
    except ValueError:
        return _complain(f"{options.at!r} is no time such as 2026-01-01T12:00:00Z", EXIT_USAGE)
    if options.into is not None and holds_database(options.into):
        return _complain(f"{options.into} holds a database already; name a fresh directory", EXIT_USAGE)
    with ExitStack() as stack:
        file = stack.enter_context(_opened(options.file))
        progress = Progress(sys.stderr, 0 if options.file == "-" else os.fstat(file.fileno()).st_size)
        lines = _wanted(progress.counted(lines_of(file)), options.scope, end)
        first = next(lines, None)  # a file that cannot be replayed leaves no directory behind
        into = options.into or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backscroll-")))
        daemon = stack.enter_context(private_daemon(into))
        clients = stack.enter_context(closing(Clients(daemon.endpoint)))
        scopes = _carry_out(chain([] if first is None else [first], lines), clients, progress)
        return _compare(options, clients, scopes) if options.verify else 0


def _wanted(source: Iterator[bytes], scope: str | None, end: Until) -> Iterator[LogLine]:
    read = LogReader().read(source)
    lines = (line for line in read if scope in (None, line.scope))
    return checked(until(lines, end), fresh=True)


def _carry_out(lines: Iterator[LogLine], clients: Clients, progress: Progress) -> list[str]:
    """Replay lines and say how that went; the scopes that there are now."""
    scopes: dict[str, None] = {}
    progress.begin()
    try:
        for chunk in replay(lines, clients.__getitem__):
            scopes[chunk.scope] = None
            progress.done(len(chunk.lines))
    finally:
        progress.close()
        sys.stderr.write(f"backscroll: {progress.summary()}\n")
    return list(scopes) or [DEFAULT_SCOPE]


def _compare(options: argparse.Namespace, ours: Clients, scopes: list[str]) -> int:
    """Hold the scopes against those of another directory; says what differs."""
    code = 0
    with clients_of(options.against_endpoint, options.against_data_dir) as theirs:
        for scope in scopes if options.scope is None else [options.scope]:
            there = theirs.existing(scope)
            last, last_there = (client.ask(GetLog(limit=1)).last_seq for client in (ours[scope], there))
            if last != last_there:
                _complain(f"{scope}: the replay ends at seq {last}, and what it is compared with at {last_there}", 0)
            for found in differences(ours[scope], there):
                code = EXIT_FAILED
                sys.stdout.writelines(f"{scope}: {line}\n" for line in found.lines())
    return code
