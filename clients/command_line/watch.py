"""`backscroll watch`: what changes in a scope, one JSON line each, as long as somebody reads them."""

import argparse
import select
import sys
import threading
from functools import partial
from typing import Any

from backscroll.clients.command_line.exits import EXIT_FAILED, EXIT_INTERRUPTED, complain
from backscroll.clients.command_line.logs import scope_of
from backscroll.clients.python.client import Changes, Client
from backscroll.clients.python.feed import FeedGap
from backscroll.schema.errors import Invalid
from backscroll.schema.wire import JSON

START = "start"


def watch(options: argparse.Namespace) -> int:
    """Print changes until this is interrupted, or until nobody reads them."""
    try:
        with Client(options.endpoint, data_dir=options.data_dir, scope=scope_of(options)) as client:
            threading.Thread(target=_close_with_stdout, args=(client,), daemon=True).start()
            _follow(client, options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _follow(client: Client, options: argparse.Namespace) -> None:
    after = None if options.after == START else options.after
    while True:
        changes = client.changes(after, rooms=options.room, nouns=options.noun, values=not options.no_values)
        changes.on_lost = partial(complain, "the daemon is gone; waiting for it", EXIT_FAILED)
        try:
            _print_all(changes)
        except FeedGap as gap:
            _print({"gap": True, "cursor": gap.cursor})
            after = gap.cursor
        except Invalid as error:
            if (error.details or {}).get("path") == "$.payload.after":
                raise Invalid("--after takes a `cursor` that this command printed, `start` or `now`") from error
            raise
        else:
            return


def _print_all(changes: Changes) -> None:
    """Print changes; only the last line of each page has a cursor, the one after it."""
    for change in changes:
        fields = JSON.decode(JSON.encode(change), dict[str, Any])
        _print(fields | ({"cursor": changes.cursor} if changes.at_page_end else {}))


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(JSON.encode(line).decode() + "\n")
    sys.stdout.flush()


def _close_with_stdout(client: Client) -> None:
    """Close the client when nobody reads standard output any more, which is otherwise noticed at the next change."""
    if not hasattr(select, "poll"):
        return  # Windows
    try:
        output = sys.stdout.fileno()
    except OSError:
        return  # it is no file
    poll = select.poll()
    poll.register(output, 0)  # errors are always reported
    poll.poll()
    client.close()
