"""Stores of the chosen kind, and commands executed directly on one, below the dispatcher and without a handler."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from backscroll.bus.clock_watch import wall_clock_ms
from backscroll.bus.inprocess import InProcess
from backscroll.bus.postgresql.opening import open_scopes
from backscroll.bus.postgresql.transaction import Transaction as PostgresTransaction
from backscroll.bus.settings import Settings
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.bus.sqlite.transaction import Transaction
from backscroll.handlers import command_log
from backscroll.handlers.storage import Retention
from backscroll.schema.operations import Initialize
from tests.support.chosen_store import CHOSEN
from tests.support.requests import fresh_id


def in_process(directory: Path, **options: Any) -> InProcess:
    """An in-process transport on a data directory, with its data in the chosen store."""
    return InProcess(directory, store=CHOSEN.address(directory), **options)


def scopes_in(
    directory: Path,
    stack: ExitStack,
    *,
    clock: Callable[[], int] = wall_clock_ms,
    retention: Retention | None = None,
    vfs: str = "",
    lock_wait_ms: int = 2_000,
) -> Any:
    """The scopes of a data directory in the chosen store, until the stack is closed."""
    kept = retention or Retention()
    if address := CHOSEN.address(directory):
        settings = Settings(data_dir=directory, store=address, lock_wait_ms=lock_wait_ms)
        return open_scopes(settings, kept, stack, clock)
    scopes = SqliteScopes(directory, clock=clock, retention=kept, vfs=vfs, lock_wait_ms=lock_wait_ms)
    return stack.enter_context(closing(scopes))


@contextmanager
def command(transaction: Transaction | PostgresTransaction) -> Iterator[None]:
    """Execute the block as one command, with a log entry that does not describe it."""
    with transaction.command(fresh_id()) as context:
        yield
        command_log.append(Initialize(), None, transaction, context)
