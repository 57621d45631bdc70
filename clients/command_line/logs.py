"""`backscroll log export` and `backscroll log verify`: a scope's command log as a file, and whether a log is intact."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from backscroll.clients.command_line.exits import EXIT_FAILED, complain
from backscroll.clients.command_line.output import Advance, progress
from backscroll.clients.python.client import Client
from backscroll.clients.python.daemon_access import clients_of
from backscroll.clients.python.log_export import file_of, log_range_of, verify_file, verify_scope
from backscroll.clients.python.log_replay import lines_of
from backscroll.schema.command_log import LogPage
from backscroll.schema.operations import GetLog, Query
from backscroll.schema.wire import DEFAULT_SCOPE

R = TypeVar("R")


def log_export(options: argparse.Namespace) -> int:
    """Print a scope's log as a file."""
    with clients_of(options.endpoint, options.data_dir) as clients:
        scope = scope_of(options)
        client = clients.existing(scope)
        try:
            wanted = log_range_of(client, options.from_seq, options.to_seq)
        except ValueError as error:
            return complain(error, EXIT_FAILED)
        if wanted.start > options.from_seq:
            sys.stderr.write(f"backscroll: the log begins at seq {wanted.start}\n")
        lines = file_of(client, scope, wanted)
        if not sys.stdout.isatty():  # else the lines themselves show how far it is
            lines = _counted(lines, wanted.to - wanted.start + 1)
        for line in lines:
            sys.stdout.write(line)
        sys.stdout.flush()
    return 0


def _counted(lines: Iterable[str], total: int) -> Iterator[str]:
    """The same lines, of which the first is the header, with a progress bar."""
    with progress("exporting", total) as advance:
        for number, line in enumerate(lines):
            yield line
            advance(number, f"{number:,} commands")


def log_verify(options: argparse.Namespace) -> int:
    """Check a scope's log, or a file's, against its digests and its chain."""
    if options.file is not None:
        return _verify_file(options.file)
    with clients_of(options.endpoint, options.data_dir) as clients:
        scope = scope_of(options)
        client = clients.existing(scope)
        with progress("verifying", client.ask(GetLog(limit=1)).last_seq) as advance:
            found = verify_scope(_Watched(client, advance))
    sys.stdout.write(f"{scope}: the log is whole up to seq {found.seq}, chain {found.value.hex()}\n")
    sys.stdout.write(f"{scope}: {found.summary()}\n")
    return 0


def _verify_file(name: str) -> int:
    with opened(name) as file, progress("verifying", size_of(file)) as advance:
        found = verify_file(_lines_with_progress(file, advance))
    for scope, (last, known) in found.items():
        end = "as its header says" if known else "which no header confirms"
        sys.stdout.write(f"{scope}: the file is whole up to seq {last.seq}, chain {last.value.hex()}, {end}\n")
        sys.stdout.write(f"{scope}: {last.summary()}\n")
    return 0


def _lines_with_progress(file: BinaryIO, advance: Advance) -> Iterator[bytes]:
    done = 0
    for number, line in enumerate(lines_of(file)):
        yield line
        done += len(line)
        advance(done, f"{number + 1:,} lines")


class _Watched(Client):
    """Another client's questions and answers, which shows how far the pages of a log have come."""

    def __init__(self, client: Client, advance: Advance) -> None:
        self._client = client
        self._advance = advance

    def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        answer = self._client.ask(query, timeout_ms=timeout_ms)
        if isinstance(answer, LogPage) and answer.entries:
            self._advance(answer.entries[-1].seq, f"{answer.entries[-1].seq:,} commands")
        return answer


def scope_of(options: argparse.Namespace) -> str:
    """The scope that was named, or the default one."""
    return DEFAULT_SCOPE if options.scope is None else str(options.scope)


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file for reading, by its name; `-` is standard input."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def size_of(file: BinaryIO) -> int | None:
    """How many bytes a file has, if it is one that has an end: a pipe has not."""
    return os.fstat(file.fileno()).st_size or None
