"""Commands of a test's own, carried out on a store by hand: below the dispatcher, and without a handler."""

from collections.abc import Iterator
from contextlib import contextmanager

from backscroll.bus.sqlite.transaction import Transaction
from backscroll.handlers import command_log
from backscroll.schema.operations import Initialize
from tests.support.requests import fresh_id


@contextmanager
def command(transaction: Transaction) -> Iterator[None]:
    """What happens inside is one command, with a row in the log that says nothing of it."""
    with transaction.command(fresh_id()) as context:
        yield
        command_log.append(Initialize(), None, transaction, context)
