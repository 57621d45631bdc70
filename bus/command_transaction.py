"""What write transactions of every database system have in common: commands that can be undone, and what they note."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from backscroll.bus.stores import CommittedCommand
from backscroll.handlers.clients import KnownClients
from backscroll.handlers.storage import CommandContext, LogPosition, Redaction, Retention
from backscroll.schema.command_log import Generated, Sender


class TransactionRolledBack(BaseException):
    """The whole transaction is lost because of an error, the `__cause__`.

    Not an `Exception`, so that only the store handles it: it is not the failure of one command.
    """


class SavepointNeeded(BaseException):
    """A command failed after it had written, in a transaction without savepoints, which has to be repeated."""


class Environment(NamedTuple):
    """What all transactions of a store share."""

    retention: Retention
    random_bytes: Callable[[int], bytes]


class CommandBlobs(Protocol):
    """The parts of media as a transaction sees them; what it removes can be undone by setting `removals` again."""

    removals: frozenset[str]


class CommandTransaction:
    """The commands of a write transaction. With `savepoints`, each begins with one, so that it can be undone alone."""

    def __init__(
        self,
        now: int,
        position: LogPosition,
        environment: Environment,
        *,
        savepoints: bool,
        clearing: bool,
        clients: KnownClients,
    ) -> None:
        self.now, self.position = now, position
        self.retention, self.random_bytes = environment
        self._savepoints = savepoints
        self.clearing = clearing
        self.redactions: list[Redaction] = []
        self.commands: list[CommittedCommand] = []
        self.senders: list[Sender] = []  # of the commands, in their order
        self._greatest_n: dict[str, int] = {}  # by client, of the senders
        self._greatest_n_before = clients.greatest_n
        self.due_at: int | None = None
        self.replays = False

    # What each database system does in its own way

    @property
    def _removals(self) -> frozenset[str]:
        """The parts of media that are removed after the commit."""
        raise NotImplementedError

    @_removals.setter
    def _removals(self, removals: frozenset[str]) -> None:
        raise NotImplementedError

    def _execute(self, sql: str) -> None:
        """Execute a statement about savepoints."""
        raise NotImplementedError

    def _undoable_position(self) -> object:
        """What changes when something is written, or when nothing more can be written without undoing something."""
        raise NotImplementedError

    def _check_not_lost(self, error: Exception) -> None:
        """Raise `TransactionRolledBack` if nothing of the transaction can be committed after this error."""
        raise NotImplementedError

    # Commands

    def note_due(self, at: int) -> None:
        self.due_at = at if self.due_at is None else min(self.due_at, at)

    def greatest_n(self, client: str) -> int:
        return max(self._greatest_n.get(client, 0), self._greatest_n_before.get(client, 0))

    @contextmanager
    def undoable(self) -> Iterator[None]:
        """Undo what the block wrote if it raises. Without savepoints, it raises `SavepointNeeded` instead."""
        if not self._savepoints:
            raise SavepointNeeded
        self._execute("SAVEPOINT part")
        try:
            yield
        except Exception as error:
            self._undo_to("part", error)
            raise
        self._execute("RELEASE part")

    @contextmanager
    def command(
        self,
        request_id: str,
        sender: Sender | None = None,
        *,
        at: int | None = None,
        replayed: Generated | None = None,
    ) -> Iterator[CommandContext]:
        """The block executes one command: it takes the next `seq`, or it raises and nothing of it takes effect.

        `replays` is then whether it came from a log. Raises `SavepointNeeded` if the command failed after it had
        written, and there is no savepoint.
        """
        if self._savepoints:
            self._execute("SAVEPOINT command")
        before, removals, redactions = self.position, self._removals, len(self.redactions)
        written = self._undoable_position()
        now = self.now if at is None else at
        context = CommandContext(before.seq + 1, request_id, now, before.last_id, replayed, sender)
        try:
            yield context
        except Exception as error:
            self._removals = removals
            del self.redactions[redactions:]
            self._undo_command(error, written)
            raise
        if self._savepoints:
            self._execute("RELEASE command")
        greatest_id = max(before.greatest_id, request_id)
        self.position = LogPosition(context.seq, context.last_id, context.chain, greatest_id)
        self.replays = at is not None
        if sender is not None:
            self._greatest_n[sender.client] = max(self._greatest_n.get(sender.client, 0), sender.n)
            self.senders.append(sender)
        self.commands.append(CommittedCommand(context.seq, now, request_id, context.type, context.changes))

    def _undo_command(self, error: Exception, written: object) -> None:
        """Undo what the command wrote; raises if that is not possible."""
        self._check_not_lost(error)
        if self._savepoints:
            self._undo_to("command", error)
        elif self._undoable_position() != written:
            raise SavepointNeeded from error

    def _undo_to(self, savepoint: str, error: Exception) -> None:
        """Undo everything since a savepoint; raises `TransactionRolledBack` if that is not possible."""
        self._check_not_lost(error)
        try:
            self._execute(f"ROLLBACK TO {savepoint}")
            self._execute(f"RELEASE {savepoint}")
        except Exception as worse:
            raise TransactionRolledBack from worse
