"""Commands of a test's own, carried out on a store by hand: below the dispatcher, and without a handler."""

from collections.abc import Iterator
from contextlib import contextmanager

from bodies import fresh_id

from backscroll.bus.session import Session
from backscroll.handlers import log
from backscroll.schema.operations import Initialize


@contextmanager
def command(transaction: Session) -> Iterator[None]:
    """What happens inside is one command, with a row in the log that says nothing of it."""
    with transaction.command(fresh_id()):
        yield
        log.append(Initialize(), None, transaction)
