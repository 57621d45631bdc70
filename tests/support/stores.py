"""Commands executed directly on a store, below the dispatcher and without a handler."""

from collections.abc import Iterator
from contextlib import contextmanager

from backscroll.bus.sqlite.transaction import Transaction
from backscroll.handlers import command_log
from backscroll.schema.operations import Initialize
from tests.support.requests import fresh_id


@contextmanager
def command(transaction: Transaction) -> Iterator[None]:
    """Execute the block as one command, with a log entry that does not describe it."""
    with transaction.command(fresh_id()) as context:
        yield
        command_log.append(Initialize(), None, transaction, context)
