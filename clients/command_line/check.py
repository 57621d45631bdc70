"""`backscroll check`: whether databases and media are whole, and whether they are what the command log says."""

import argparse

from backscroll.clients.command_line.tasks import run_task
from backscroll.clients.python.daemon_access import check_maintainable, clients_of
from backscroll.schema.operations import StartCheck
from backscroll.schema.wire import DEFAULT_SCOPE


def check(options: argparse.Namespace) -> int:
    """Check all scopes, or the one that is named."""
    check_maintainable(options.endpoint, options.data_dir)
    with clients_of(options.endpoint, options.data_dir) as clients:
        return run_task(clients[DEFAULT_SCOPE], StartCheck(scope=options.scope))
