"""Execution and logging of commands: the one code path for requests, batches, replays and chores.

    request ──▶ find_executed ──known──▶ the stored result     (command_log.py)
                     └────new──▶ execute: run the handler ─▶ append its row ─▶ result
    log entry ─────────────────▶ execute_entry: the same, with the entry's time and ids

`handlers` are the handlers to use, by wire name.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

from msgspec.structs import asdict

from backscroll.handlers import clearing, command_log
from backscroll.handlers.command_log import Executed, Received
from backscroll.handlers.registry import Handlers
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Change, LogEntry, Sender, canonical, digest_of
from backscroll.schema.errors import CallerError, Conflict, Invalid, TooLarge, inside
from backscroll.schema.limits import REPLY_BYTES_MAX
from backscroll.schema.operations import Batch, Command
from backscroll.schema.operations.batch import refusal
from backscroll.schema.operations.decoding import command_type
from backscroll.schema.wire import MSGPACK, half_a_sender

T = TypeVar("T")


def execute(
    command: Command[Any],
    request_id: str,
    db: Writes,
    handlers: Handlers,
    reply: Callable[[Executed], T],
    principal: str | None = None,
    sender: Sender | None = None,
) -> T:
    """Execute a command whose id is new, and write its row in the log with the `principal` and client who sent it.

    `reply` converts the result to what is returned. If it raises, the command is undone. The error of a batch lists all
    of its commands that fail.
    """
    try:
        with db.command(request_id, sender) as context:
            result = _run_handler(command, db, context, handlers)
            command_log.append(command, result, db, context, principal=principal)
            return reply(Executed(result, context.seq))
    except CallerError as error:
        if not isinstance(command, Batch) or "index" not in (error.details or {}):
            raise
    raise refusal(failures_of(command, {}, request_id, db, handlers))


class _AllTried(Exception):
    """Undoes the commands of a batch that were tried."""


def failures_of(
    batch: Batch, flaws: Mapping[int, CallerError], request_id: str, db: Writes, handlers: Handlers
) -> dict[int, CallerError]:
    """The errors of all commands of a batch that fail, by index. Nothing of it takes effect.

    `flaws` are the errors of those that could not be decoded; the batch has the others. Each is tried after those
    before it that succeed, so one may fail only because an earlier one did.
    """
    failures = dict(flaws)
    decoded = (index for index in range(len(batch.commands) + len(flaws)) if index not in flaws)
    with suppress(_AllTried), db.command(request_id) as context:
        for index, member in zip(decoded, batch.commands, strict=True):
            context.member = index
            try:
                with db.undoable():
                    if db.clearing:
                        clearing.remove_named(member.payload, db, context)
                    handlers[member.type].function(member.payload, db, context)
            except CallerError as error:
                failures[index] = inside(f"$.payload.commands[{index}]", index, error)
        raise _AllTried
    return failures


def execute_entry(entry: LogEntry, db: Writes, handlers: Handlers) -> None:
    """Execute the command of a log entry again, with its time and ids; raises `Conflict` or `Invalid`.

    An entry without a payload takes its seq and its ids, and changes nothing; raises `UnknownOperation` for its type.
    """
    if entry.id <= db.position.greatest_id and command_log.find(entry.id, db) is not None:
        raise Conflict.at("$.id", "an earlier command has this id")
    if (entry.client is None) is not (entry.n is None):
        raise half_a_sender(entry.client)
    with db.command(entry.id, entry.sender, at=entry.at, replayed=entry.generated) as context:
        received = _received(entry, db)
        if entry.payload is None:
            _skip(entry, received, db, context)
            return
        result = _run_handler(entry.payload, db, context, handlers)
        _compare(entry, context)
        changed, context.changes = context.changes, _recorded_changes(entry, context.changes)
        command_log.append(entry.payload, result, db, context, received)
        recorded = set(context.changes)
        context.changes += [each for each in changed if each not in recorded]  # for the query cache


def _run_handler(command: Command[Any], db: Writes, context: CommandContext, handlers: Handlers) -> Any:
    """Run the handler of a command, or of each command of a batch."""
    if isinstance(command, Batch):
        return _run_members(command, db, context, handlers)
    if db.clearing:
        clearing.remove_named(command, db, context)
    return handlers[command.wire_name].function(command, db, context)


def _run_members(batch: Batch, db: Writes, context: CommandContext, handlers: Handlers) -> list[Any]:
    results, size = [], 0
    for index, member in enumerate(batch.commands):
        context.member = index
        try:
            if db.clearing:
                clearing.remove_named(member.payload, db, context)
            results.append(handlers[member.type].function(member.payload, db, context))
        except CallerError as error:
            raise inside(f"$.payload.commands[{index}]", index, error) from error
        size += 0 if results[-1] is None else len(MSGPACK.encode(results[-1]))
        if size > REPLY_BYTES_MAX:
            raise TooLarge.at("$.payload", f"the results together exceed {REPLY_BYTES_MAX} bytes; split the batch")
    return results


def _received(entry: LogEntry, db: Reads) -> Received | None:
    """The hashes in an entry, or None if it has none; raises `Invalid` if they do not match its payload."""
    ids = [db.position.last_id, *(entry.generated.ids if entry.generated else ())]
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise Invalid.at("$.generated.ids", "each id must be greater than the one before, across commands too")
    if entry.redacted:
        assert entry.digest is not None  # decoding refuses entries without it
        return Received(bytes.fromhex(entry.digest), None, redacted=True, principal=entry.principal)
    if entry.salt is None:
        if entry.digest is not None:
            raise Invalid.at("$.salt", "the digest cannot be checked without its salt")
        return None
    salt = bytes.fromhex(entry.salt)
    digest = digest_of(salt, canonical(entry.payload))
    if entry.digest is not None and digest.hex() != entry.digest:
        raise Invalid.at("$.digest", "the payload does not match its digest")
    return Received(digest, salt, principal=entry.principal)


def _skip(entry: LogEntry, received: Received | None, db: Writes, context: CommandContext) -> None:
    """Write the row of an entry without a payload: it takes its seq and its ids, and changes nothing."""
    assert received is not None  # only a redacted entry may have no payload
    command_type(entry.type)  # a name with a space would make the text ambiguous that is hashed into the chain
    for _ in entry.generated.ids if entry.generated else ():
        context.new_id()
    context.changes = _changes_of(entry)
    command_log.append_erased(entry.type, received, db, context)


def _recorded_changes(entry: LogEntry, changed: list[Change]) -> list[Change]:
    """The changes to record for a replayed command: those in its entry, or if it has none those it just made.

    It may now change less than the first time, because text that it removed may have been erased from earlier entries;
    without its own text also more. Raises `Invalid` if it has its text and changes something that is not in its entry.
    """
    recorded = _changes_of(entry)
    if entry.redacted:
        return recorded
    if recorded and not set(recorded).issuperset(changed):
        raise Invalid.at("$.changes", "the command changed something that is not in its entry")
    return recorded or changed


def _changes_of(entry: LogEntry) -> list[Change]:
    """The changes in an entry as plain `Change` objects, so that they can be equal to those of handlers."""
    return [Change(**asdict(change)) for change in entry.changes]


def _compare(entry: LogEntry, context: CommandContext) -> None:
    """Raise `Invalid` if the command did not generate what its entry says."""
    generated = entry.generated
    if generated and context.ids != generated.ids:
        raise Invalid.at("$.generated", "the command generated a different number of ids")
