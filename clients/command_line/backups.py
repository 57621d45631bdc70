"""`backscroll backup` and `backscroll restore`: copies of everything that a daemon stores, and the way back."""

import argparse
import sys
from datetime import UTC, datetime

from backscroll.clients.command_line import output
from backscroll.clients.command_line.tasks import run_task
from backscroll.clients.python.daemon_access import check_maintainable, clients_of
from backscroll.schema.operations import ListBackups, StartBackup, StartBackupVerification
from backscroll.schema.wire import DEFAULT_SCOPE


def backup_create(options: argparse.Namespace) -> int:
    """Make a backup of all scopes, or of the one that is named."""
    command = StartBackup(directory=_directory(options), scope=options.scope, full=options.full)
    check_maintainable(options.endpoint, options.data_dir)
    with clients_of(options.endpoint, options.data_dir) as clients:
        return run_task(clients[DEFAULT_SCOPE], command)


def backup_verify(options: argparse.Namespace) -> int:
    """Verify the newest backup, or the one that is named."""
    command = StartBackupVerification(directory=_directory(options), name=options.name)
    check_maintainable(options.endpoint, options.data_dir)
    with clients_of(options.endpoint, options.data_dir) as clients:
        return run_task(clients[DEFAULT_SCOPE], command)


def backup_list(options: argparse.Namespace) -> int:
    """Print a line for each backup, the oldest first."""
    check_maintainable(options.endpoint, options.data_dir)
    with clients_of(options.endpoint, options.data_dir) as clients:
        backups = clients[DEFAULT_SCOPE].execute(ListBackups(directory=_directory(options)))
    rows = [
        [
            each.name,
            "what changed" if each.incremental else "everything",
            f"{datetime.fromtimestamp(each.taken_at / 1000, UTC):%Y-%m-%d %H:%M:%S}",
            str(each.scopes),
            f"{each.bytes:,}",
        ]
        for each in backups
    ]
    output.console(sys.stdout).print(output.table(["name", "has", "taken (UTC)", "scopes", "bytes"], rows))
    return 0


def _directory(options: argparse.Namespace) -> str | None:
    """The directory of the backups as the daemon, which runs somewhere else, can find it."""
    return None if options.directory is None else str(options.directory.absolute())
