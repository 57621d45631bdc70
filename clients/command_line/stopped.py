"""`backscroll restore` and `backscroll repair`: work on the files of a stopped daemon, with its own code."""

import argparse
import sys
from pathlib import Path

from backscroll.bus.failures import CannotStart
from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.maintenance.repairing import CannotRepair
from backscroll.bus.sqlite.maintenance.repairing import repair as repair_files
from backscroll.bus.sqlite.maintenance.restoring import CannotRestore, RestoreReport
from backscroll.bus.sqlite.maintenance.restoring import restore as restore_into
from backscroll.clients.command_line.exits import EXIT_FAILED, EXIT_USAGE, complain
from backscroll.clients.command_line.output import printable, steps
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
