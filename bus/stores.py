"""The interfaces through which the daemon uses storage: scopes, and a store for each open scope.

`bus/sqlite/` and `bus/postgresql/` implement them. Nothing else in the daemon depends on the database system.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from backscroll.bus.failures import CannotOpen
from backscroll.bus.progress import Progress
from backscroll.bus.query_cache import QueryCache
from backscroll.handlers.registry import Handlers
from backscroll.handlers.scopes import ScopeAdmin
from backscroll.handlers.storage import Reads, Writes
from backscroll.schema.command_log import Change
from backscroll.schema.errors import BackscrollError
from backscroll.schema.replies import Backup, StorageHealth

T = TypeVar("T")

LARGE_BYTES = 2**20
"""A result is large if its texts have more characters, or if it is encoded to more bytes."""
BeforeLarge = Callable[[], None]
"""Called before a result becomes large, and in the same run perhaps again; may raise `TurnNeeded`."""

TAKES_TOO_LONG = "the query takes too long; ask for fewer items, or for a narrower range"
ADOPTED_BYTES = 2**30
"""The default of the setting `adopted_bytes`."""
OPEN_MAX, IDLE_SECONDS = 16, 60.0
"""Scopes that are open at the same time, unless more are in use; how long one stays open that nobody uses."""


TOKENS, KEYS = "tokens", "keys"
"""The names of the documents about who may call and connect."""


class CommittedCommand(NamedTuple):
    """A command of a commit: its seq, time (ms since the epoch), id and type, and what it changed."""

    seq: int
    at: int
    request_id: str
    type: str
    changes: list[Change]


class Commit(NamedTuple):
    """A durable transaction of a scope: the seq of its last command, the chain after it, and its commands.

    Several transactions of other daemons may be told as one; if they are too many, their commands are None.
    """

    scope: str
    seq: int
    chain: bytes
    commands: list[CommittedCommand] | None


class BackupPlan(NamedTuple):
    """Where backups are, and whether everything is copied; of how many days and weeks backups are kept."""

    directory: Path
    full: bool = False
    daily: int = 7
    weekly: int = 4


class Outcome(NamedTuple):
    """How a task ended: what is damaged, in words (nothing: all is well), a summary, and the name of its backup."""

    problems: list[str]
    message: str
    backup: str | None = None


class ReadStore(Protocol):
    """A scope as queries need it. May be used by any thread."""

    query_cache: QueryCache
    is_shared: bool
    """Whether other daemons write to the scope too, so that only a snapshot tells which results are still correct."""
    due_at: int | None
    """When something expires in the scope, in milliseconds since the epoch: not later than the first that does."""

    def read(
        self, query_ms: int | None = None, before_large: BeforeLarge | None = None, /
    ) -> AbstractContextManager[Reads]:
        """A snapshot of everything that is durable now. A statement that runs after `query_ms` raises `TooLarge`."""


class Store(ReadStore, Protocol):
    """An open scope. `read()` may be used by any thread, the methods that write only by one thread at a time."""

    seq_shown: int
    """The newest commit that a snapshot has shown. Readers can see a commit shortly before `seq` is updated."""
    clearing: bool
    """Whether there are cleared rooms from which not all messages are removed."""
    clearing_behind: str
    """The id of the last cleared room that was passed over because it is damaged; empty if there is none."""
    clearing_retry_at: float
    """When messages of cleared rooms may be removed again, in seconds of the dispatcher's clock."""
    checkpoint_due: bool
    """Whether `checkpoint_if_due()` has anything to do."""
    follows: bool
    """Whether the last command came from a log. More may follow it, so that none of the daemon's own may."""

    @property
    def seq(self) -> int:
        """The seq of the last durable command."""

    def now(self) -> int:
        """The time of the store's clock, in milliseconds since the epoch."""

    def note_expiry(self, at: int | None, seq: int) -> None:
        """Note when something expires next, as of this commit; not if a later one is known."""

    def transact(self, work: Callable[[Writes], T]) -> T:
        """Call `work` with a durable transaction; a command that fails inside it does not affect the others.

        `work` may be called a second time, with a new transaction. Raises what made the whole transaction fail.
        """

    def write(self) -> AbstractContextManager[Writes]:
        """A durable transaction; on any error it has no effect."""

    def checkpoint_if_due(self) -> None:
        """Checkpoint the write-ahead log if it has grown enough."""


class AccessDocuments(Protocol):
    """Where tokens and keys are stored: JSON by name, of this daemon alone or of all that share a database.

    Never used by the loop: what it needs to know is in memory.
    """

    keys_command: str
    """The command that lists a client's key here, in words."""

    def read(self) -> Mapping[str, bytes]:
        """All documents that there are; raises `CannotOpen`."""

    def change(self, name: str, change: Callable[[bytes | None], bytes], /) -> bytes:
        """Replace a document by what `change` makes of it, durably, and return that. `change` gets None for a new one.

        Nobody else can change the document meanwhile. `change` may be called again, if the first attempt had no effect;
        what it raises is raised, and then nothing changes.
        """

    def unreadable(self, name: str, error: Exception) -> CannotOpen:
        """The error for a document that cannot be decoded."""

    def watch(self, refresh: Callable[[], None], /) -> None:
        """From now on, have `refresh` called by another thread whenever others may have changed something."""


Committed = Callable[[Commit, Store], None]
"""Receives each commit of a store after it is durable and before its callers are answered. Must not raise."""


class Scopes(Protocol):
    """All scopes of a daemon. Safe to use from any thread."""

    @property
    def access(self) -> AccessDocuments:
        """Where the tokens and keys are stored."""

    @property
    def may_refuse(self) -> bool:
        """Whether `refusal()` may have anything to say."""

    def use(self, name: str) -> AbstractContextManager[Store]:
        """The store of a scope, which is created if it is new. It stays open until the end of the block."""

    def use_to_read(self, name: str) -> AbstractContextManager[ReadStore]:
        """The store of a scope; if it has no files, an empty one, and none are created."""

    def has_files(self, name: str) -> bool:
        """Whether a scope has files. Does not remember the name."""

    def refusal(self, name: str, size: int) -> BackscrollError | None:
        """Why commands with so many bytes that add data to a scope are refused now; None if they are not."""

    def look_at_disk(self) -> None:
        """Find out whether the disk has so little room that each commit has to be checked."""

    def is_disk_full(self, error: Exception) -> bool:
        """Whether `error` says that the disk is full; then commands that add are refused until it is not."""

    def is_unreadable(self, error: Exception) -> bool:
        """Whether `error` is about something stored that is damaged: what does not read it succeeds."""

    def give_up_reserve(self, name: str) -> None:
        """Free some of the disk, for commands that remove data of a scope from a full one."""

    def borrow_if_open(self, name: str) -> AbstractContextManager[Store | None]:
        """The store of a scope if it is open, for the daemon's own work, which does not count as use."""

    def seq(self, name: str) -> int:
        """The last seq of a scope; 0 if it was not used since the start of the daemon."""

    def store_if_open(self, name: str, *, used: bool = True) -> Store | None:
        """The store of a scope if it is open, which may close at any time. `used` is whether this counts as use."""

    def open_names(self) -> list[str]:
        """The names of the scopes that are open now."""

    def admin(self, name: str, handlers: Handlers) -> ScopeAdmin:
        """A scope as a whole, for maintenance operations."""

    def close_idle(self) -> None:
        """Close the scopes that have not been used for a while."""

    def stop(self) -> None:
        """End long work on files, whose requests are then answered `unavailable`. May be called from any thread."""

    def enter_shared(self, name: str, resume: Callable[[], None]) -> Callable[[], None] | None:
        """Keep operations on the whole scope from starting until the result is called; never waits.

        While one is in progress or about to start, the result is None, and `resume` is called at its end.
        """

    def on_commit(self, committed: Committed, awaited: Callable[[], Iterable[str]] = tuple, /) -> None:
        """Have all commits received by one more. Call it before the scopes are used by other threads.

        `awaited` are the names of scopes about which it is also told when they are not open, and other daemons write to
        them.
        """

    def clear_caches(self) -> None:
        """Free the memory of all cached results. May be called from any thread."""

    def interrupt_readers(self) -> None:
        """Interrupt all statements that readers are running. May be called from any thread."""

    def interrupt_writers(self) -> None:
        """Interrupt all statements that writers are running. May be called from any thread."""

    def wire_error(self, error: Exception) -> BackscrollError | None:
        """The error that a caller gets for an error of the database system; None for any other error."""

    def health(self) -> StorageHealth:
        """The database system in use."""

    @property
    def maintenance(self) -> "Maintenance":
        """Checks and backups; raises `Invalid` if the database system has tools of its own for them."""


class Maintenance(Protocol):
    """What keeps the data of all scopes safe. It takes long."""

    def check(self, scope: str | None, progress: Progress, /) -> Outcome:
        """Check the databases and media of a scope, or of all, while they are in use."""

    def back_up(self, backups: BackupPlan, scope: str | None, progress: Progress, /) -> Outcome:
        """Make a backup of a scope, or of all, while they are in use, and remove those that are not to be kept."""

    def verify_backup(self, directory: Path, name: str | None, progress: Progress, /) -> Outcome:
        """Verify a backup, the newest without a `name`."""

    def backups_in(self, directory: Path) -> list[Backup]:
        """The backups in a directory, the oldest first; raises `NotFound` if it is no directory of backups."""
