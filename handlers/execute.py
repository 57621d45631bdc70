"""The one way in which a command is executed and logged; requests, batches, replays and chores all come through here.

    request ──▶ find_executed ──known──▶ the stored result     (command_log.py)
                     └─new─▶ execute: run the handler ─▶ append its row ─▶ result
    log entry ─────────────▶ execute_entry: the same, with the entry's time, ids and hashes

`handlers` is the table of handlers to use, by wire name.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from msgspec.structs import asdict

from backscroll.handlers import command_log
from backscroll.handlers.command_log import Executed, Received
from backscroll.handlers.registry import Handlers
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Change, LogEntry, canonical, digest_of
from backscroll.schema.errors import CallerError, Conflict, Invalid, TooLarge, inside
from backscroll.schema.limits import REPLY_BYTES_MAX
from backscroll.schema.operations import Batch, Command
from backscroll.schema.wire import MSGPACK

T = TypeVar("T")


def execute(
    command: Command[Any], request_id: str, db: Writes, handlers: Handlers, reply: Callable[[Executed], T]
) -> T:
    """Execute a command whose id is new, and write its row in the log.

    `reply` makes of the result what the caller gets, while the command can still be undone: if it raises, it is.
    """
    with db.command(request_id) as context:
        result = run(command, db, context, handlers)
        command_log.append(command, result, db, context)
        return reply(Executed(result, context.seq))


def execute_entry(entry: LogEntry, db: Writes, handlers: Handlers) -> None:
    """Execute a command as it was the first time: at its time, with its ids. Raises `Conflict` or `Invalid`.

    An entry whose payload is gone takes its number and its ids, and changes nothing.
    """
    if entry.id <= db.position.greatest_id and command_log.find(entry.id, db) is not None:
        raise Conflict.at("$.id", "an earlier command has this id")
    with db.command(entry.id, at=entry.at, replayed=entry.generated) as context:
        received = _received(entry, db)
        if entry.payload is None:
            _skip(entry, received, db, context)
            return
        result = run(entry.payload, db, context, handlers)
        _compare(entry, context)
        changed, context.changes = context.changes, _recorded_changes(entry, context.changes)
        command_log.append(entry.payload, result, db, context, received)
        context.changes += [each for each in changed if each not in context.changes]  # cached no longer either


def run(command: Command[Any], db: Writes, context: CommandContext, handlers: Handlers) -> Any:
    """Run the handler of a command, or of each command of a batch."""
    if isinstance(command, Batch):
        return _run_members(command, db, context, handlers)
    return handlers[command.wire_name].function(command, db, context)


def _run_members(batch: Batch, db: Writes, context: CommandContext, handlers: Handlers) -> list[Any]:
    results, size = [], 0
    for index, member in enumerate(batch.commands):
        context.member = index
        try:
            results.append(handlers[member.type].function(member.payload, db, context))
            size += 0 if results[-1] is None else len(MSGPACK.encode(results[-1]))
            if size > REPLY_BYTES_MAX:
                raise TooLarge.at("$", f"the results together have more than {REPLY_BYTES_MAX} bytes")
        except CallerError as error:
            raise inside(f"$.payload.commands[{index}]", index, error) from error
    return results


def _received(entry: LogEntry, db: Reads) -> Received | None:
    """The hashes that an entry says its payload has; None where it says nothing. Raises `Invalid` where it is wrong."""
    ids = [db.position.last_id, *(entry.generated.ids if entry.generated else ())]
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise Invalid.at("$.generated.ids", "ids must grow, from each command to the next")
    if entry.redacted:
        assert entry.digest is not None  # an entry without it was refused when it was decoded
        return Received(bytes.fromhex(entry.digest), None, redacted=True, principal=entry.principal)
    if entry.salt is None:
        if entry.digest is not None:
            raise Invalid.at("$.salt", "a digest can only be checked with its salt")
        return None
    salt = bytes.fromhex(entry.salt)
    digest = digest_of(salt, canonical(entry.payload))
    if entry.digest is not None and digest.hex() != entry.digest:
        raise Invalid.at("$.digest", "the payload does not match its digest")
    return Received(digest, salt, principal=entry.principal)


def _skip(entry: LogEntry, received: Received | None, db: Writes, context: CommandContext) -> None:
    """Let a command of which nothing is left take its number and its ids."""
    assert received is not None  # only a redacted entry may have no payload
    for _ in entry.generated.ids if entry.generated else ():
        context.new_id()
    for _ in entry.generated.token_hashes if entry.generated else ():
        context.new_token()
    context.changes = _changes_of(entry)
    command_log.append_erased(entry.type, received, db, context)


def _recorded_changes(entry: LogEntry, changed: list[Change]) -> list[Change]:
    """What a command counts as having changed: what it did the first time, where its entry says so.

    Now it may be less, since what it removed may have been erased from the log before it; without its own text also
    more. Raises `Invalid` where a command with its text changes what its entry does not say.
    """
    recorded = _changes_of(entry)
    if entry.redacted:
        return recorded
    if recorded and not set(recorded).issuperset(changed):
        raise Invalid.at("$.changes", "the command changes something else")
    return recorded or changed


def _changes_of(entry: LogEntry) -> list[Change]:
    """What an entry says was changed, as handlers say it: equal only among its own kind."""
    return [Change(**asdict(change)) for change in entry.changes]


def _compare(entry: LogEntry, context: CommandContext) -> None:
    """Raise `Invalid` where a command did something else than its entry says."""
    generated = entry.generated
    if generated and (context.ids, context.token_hashes) != (generated.ids, generated.token_hashes):
        raise Invalid.at("$.generated", "the command generates another number of ids or tokens")
