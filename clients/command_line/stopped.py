"""`backscroll restore`, `repair` and `copy`: work on the data of a stopped daemon, with its own code."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backscroll.bus.copying import CannotCopy, Copied, Place
from backscroll.bus.copying import copy as copy_scopes
from backscroll.bus.failures import BadSettings, CannotStart
from backscroll.bus.postgresql import packages_needed
from backscroll.bus.progress import Progress
from backscroll.bus.settings import POSTGRESQL
from backscroll.bus.sqlite.maintenance.repairing import CannotRepair
from backscroll.bus.sqlite.maintenance.repairing import repair as repair_files
from backscroll.bus.sqlite.maintenance.restoring import CannotRestore, RestoreReport
from backscroll.bus.sqlite.maintenance.restoring import restore as restore_into
from backscroll.bus.sqlite.whole_scopes import opened as opened_directory
from backscroll.clients.command_line.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, complain
from backscroll.clients.command_line.output import printable, steps, write_line
from backscroll.schema.log_file import time_of
from backscroll.schema.paths import default_data_dir

LINES_MAX = 5  # of each list in a report; all of them are in its file


def restore(options: argparse.Namespace) -> int:
    """Make a data directory from a backup, and print what it has."""
    try:
        at = None if options.at is None else time_of(options.at)
    except ValueError:
        return complain(f"--at: give a time such as 2026-01-01T12:00:00Z, not {options.at!r}", EXIT_USAGE)
    if options.until is not None and options.scope is None:
        return complain("--until is the number of a command of one scope; name it with --scope", EXIT_USAGE)
    try:
        with steps() as progress:
            report = _restored(options, at, progress)
    except CannotRestore as error:
        return complain(error, EXIT_FAILED)
    _print_report(options.into, report)
    return EXIT_FAILED if report.problems else 0


def repair(options: argparse.Namespace) -> int:
    """Save what can be saved, and print the report."""
    data_dir = options.data_dir or default_data_dir()
    backups = None if options.backups is None else options.backups.absolute()
    try:
        with steps() as progress:
            report = repair_files(data_dir.absolute(), backups, options.scope, progress)
    except (CannotRepair, CannotStart) as error:
        return complain(error, EXIT_FAILED)
    sys.stdout.write(printable(report.text(LINES_MAX)))
    return 0 if report.is_whole else EXIT_FAILED


def _restored(options: argparse.Namespace, at: int | None, progress: Progress) -> RestoreReport:
    return restore_into(
        options.directory.absolute(),
        options.into.absolute(),
        progress,
        name=options.backup,
        until_seq=options.until,
        until_at=at,
        scope=options.scope,
    )


def _print_report(into: Path, report: RestoreReport) -> None:
    for each in report.scopes:
        sys.stdout.write(f"{printable(each.scope)}: restored up to command {each.seq:,}, from {each.backups[-1]}\n")
    for problem in report.problems:
        sys.stdout.write(f"{printable(problem.scope)}: {printable(problem.file)}: {printable(problem.what)}\n")
    if report.set_aside is not None:
        sys.stdout.write(f"What was in {into} before is in {report.set_aside}: remove it when you no longer need it.\n")
    sys.stdout.write(f"Start the daemon on {into.absolute()}.\n")
    sys.stdout.write("Clients that have seen more than that read everything anew.\n")


def copy(options: argparse.Namespace) -> int:
    """Copy scopes from one store into another, and print what each has."""
    if problem := _misaddressed(options.source, options.target):
        return complain(problem, EXIT_USAGE)
    copied = 0

    def done(each: Copied) -> None:
        nonlocal copied
        copied += 1
        write_line(_line_of(each))

    try:
        with steps() as progress, _place(options.source) as source, _place(options.target, to_write=True) as target:
            advice = _advice(source, target)
            copy_scopes(source, target, options.scope, progress, done)
    except BadSettings as error:
        return complain(error, EXIT_USAGE)
    except (CannotCopy, CannotStart) as error:
        return complain(f"{printable(str(error))}{_rest(copied)}", EXIT_FAILED)
    except KeyboardInterrupt:
        return complain(f"interrupted{_rest(copied)}", EXIT_INTERRUPTED)
    sys.stdout.write(printable(advice) if copied else f"Nothing to copy: {options.source} has no scopes.\n")
    return 0


def _rest(copied: int) -> str:
    """What to do about the scopes that were not copied, if some were."""
    return "\nbackscroll: the scopes above are copied; run it again for the rest" if copied else ""


def _misaddressed(source: str, target: str) -> str:
    """What is wrong with the addresses of two stores, in words; empty if nothing can be seen."""
    for address in (source, target):
        if "://" in address and not address.startswith(POSTGRESQL):
            return f"{address!r} is neither a directory nor an address such as postgresql://USER@HOST/DATABASE"
    if source == target or (Path(source).exists() and Path(target).exists() and Path(source).samefile(target)):
        return f"{source} cannot be copied into itself"
    return ""


@contextmanager
def _place(address: str, *, to_write: bool = False) -> Iterator[Place]:
    """The store at an address, until the end of the block. Raises `CannotStart` and `CannotCopy`."""
    if not address.startswith(POSTGRESQL):
        with opened_directory(Path(address).absolute(), to_write=to_write) as directory:
            yield directory
        return
    with packages_needed():
        from backscroll.bus.postgresql.whole_scopes import opened as opened_database
    with opened_database(address) as database:
        yield database


def _line_of(copied: Copied) -> str:
    """What was copied of a scope, or compared."""
    what = "was there already" if copied.was_there else "copied"
    media = f" and {copied.parts:,} parts of media" if copied.parts else ""
    size = f"{copied.rows:,} rows{media}, {copied.bytes:,} bytes, {copied.seconds:.1f} s"
    return f"{copied.scope}: {what}, {size}: read again, equal"


def _advice(source: Place, target: Place) -> str:
    """What is not in the target, in lines."""
    lines = [f"Access tokens and client keys are not copied: create them anew for {target.name}."]
    if source.is_shared:
        lines.insert(0, "Each scope is as of the moment when its copy began: what was written later is missing.")
    return "".join(f"{line}\n" for line in lines)
