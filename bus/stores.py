"""What the daemon asks of storage: scopes, each with a store that reads, writes and tells of its commits.

`bus/sqlite/` keeps them in files. Nothing else in the daemon knows which database system it is.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

from backscroll.bus.query_cache import QueryCache
from backscroll.handlers.registry import Handlers
from backscroll.handlers.scopes import ScopeAdmin
from backscroll.handlers.storage import Reads, Writes
from backscroll.schema.command_log import Change
from backscroll.schema.errors import BackscrollError
from backscroll.schema.replies import StorageHealth

T = TypeVar("T")


class CommittedCommand(NamedTuple):
    """A command of a commit: its number, time (ms), id and type, and what it changed."""

    seq: int
    at: int
    request_id: str
    type: str
    changes: list[Change]


class Commit(NamedTuple):
    """What a durable transaction did to a scope: the number of its last command, and its commands."""

    scope: str
    seq: int
    commands: list[CommittedCommand]


class Store(Protocol):
    """An open scope. `transact()`, `write()` and `checkpoint_if_due()` belong to one thread at a time; `read()` to any."""

    query_cache: QueryCache

    seq: int
    """The number of the last command that is durable."""
    seq_shown: int
    """The newest commit that a snapshot has shown: readers may see it a moment before `seq` says it."""
    checkpoint_due: bool
    """Whether `checkpoint_if_due()` has something to do."""

    def transact(self, work: Callable[[Writes], T]) -> T:
        """Do work in one durable transaction; a command that fails inside it takes no other with it.

        The work may be called a second time, in a new transaction. Raises what made the whole transaction fail.
        """

    def write(self) -> AbstractContextManager[Writes]:
        """One durable transaction; on any error it has no effect."""

    def read(self) -> AbstractContextManager[Reads]:
        """A snapshot of everything that is durable now."""

    def checkpoint_if_due(self) -> None:
        """Do the upkeep that is due after a commit."""


Committed = Callable[[Commit, Store], None]
"""Receives each commit of a store, after it is durable and before anybody is answered; raises nothing."""


class Scopes(Protocol):
    """All scopes of a daemon. Safe to use from any thread."""

    def use(self, name: str) -> AbstractContextManager[Store]:
        """The store of a scope, which is made if it is new; it stays open for the length of the block."""

    def borrow_if_open(self, name: str) -> AbstractContextManager[Store | None]:
        """The store of a scope if it is open, for the daemon's own work: that does not count as use."""

    def seq(self, name: str) -> int:
        """The last commit number of a scope; 0 while nobody has used it since the start."""

    def store_in_use(self, name: str) -> Store | None:
        """The store of a scope if it is open, for a brief look that counts as use."""

    def open_names(self) -> list[str]:
        """The names of the scopes that are open now."""

    def admin(self, name: str, handlers: Handlers) -> ScopeAdmin:
        """A scope as a whole, for maintenance."""

    def close_idle(self) -> None:
        """Close the scopes that nobody has used for a while."""

    def interrupt_readers(self) -> None:
        """Interrupt every statement that a reader is running now; from any thread."""

    def wire_error(self, error: Exception) -> BackscrollError | None:
        """What an error of the database system means to a caller; None for any other error."""

    def health(self) -> StorageHealth:
        """The database system in use."""
