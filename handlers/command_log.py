"""The command log: a row for each command that took effect, written in the same transaction as its effects.

A row contains the id and payload of a command, what it changed and generated, and its result. So a command that is sent
again gets the same reply, and the log can be replayed. `execute.py` calls this module; handlers use `changes.py` to
have text erased from the log.

The log begins with the row `sequence.log_from`. Rows before it, without payloads, are those of a log that a repair
could not restore as a whole: they are there so that their ids stay known, and are not part of the log. The number
before the first row is left out then.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from msgspec import Raw
from msgspec.structs import replace
from peewee import SQL, fn

from backscroll.handlers.sql import EMPTY_BLOB, Named, insertion, statement
from backscroll.handlers.storage import CommandContext, LogPosition, Reads, Redaction, Writes
from backscroll.schema.command_log import (
    CHAIN_START,
    FORMAT,
    SALT_BYTES,
    Fields,
    Target,
    as_logged,
    canonical,
    chain_after,
    decode_facts,
    digest_of,
    encode_facts,
    erase_text,
)
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import CallerError, Conflict, TooLarge
from backscroll.schema.limits import LOG_ENTRY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Batch, Command
from backscroll.schema.operations.batch import BatchedCommand
from backscroll.schema.strict import strict
from backscroll.schema.tables import Commands, Sequence
from backscroll.schema.wire import MSGPACK

Erasures = set[tuple[Target | None, Fields | None]]
"""What is to be erased from one command: the text about an item or all, in some fields or all."""

NOT_KEPT = b""
"""Stored in place of a result that is no longer kept."""
UNKNOWN_TYPE = ""
"""The type of a command of which only the id is known, because its row was damaged."""
DROP_RESULTS_MAX = 10_000  # per run of the chores
ALL_TEXT = (None, None)
"""Erases all text of a command."""

INSERT = statement(insertion(Commands))
SELECT_BY_ID = statement(
    Commands.select(Commands.seq, Commands.type, Commands.salt, Commands.facts, Commands.result).where(
        Commands.id == Named("id")
    )
)
SELECT_FOR_REDACTION = statement(
    Commands.select(Commands.type, Commands.payload, Commands.result).where(Commands.seq == Named("seq"))
)
REDACT = statement(
    Commands.update(
        {
            Commands.payload: Named("payload"),
            Commands.salt: SQL("NULL"),
            Commands.redacted: SQL("1"),
            Commands.result: Named("result"),
        }
    ).where(Commands.seq == Named("seq"))
)
REDACT_ALL = statement(
    Commands.update({Commands.payload: SQL("NULL"), Commands.salt: SQL("NULL"), Commands.redacted: SQL("1")}).where(
        Commands.seq < Named("seq")
    )
)
SELECT_SEQUENCE = statement(Sequence.select(Sequence.seq, Sequence.last_id))
SELECT_LAST_CHAIN = statement(Commands.select(Commands.chain).order_by(Commands.seq.desc()).limit(SQL("1")))
SELECT_GREATEST_ID = statement(Commands.select(Commands.id).order_by(Commands.id.desc()).limit(SQL("1")))
SELECT_ENDS = statement(
    Sequence.select(
        Sequence.seq,
        Sequence.log_from,
        Commands.select(fn.MIN(Commands.seq)).where(Commands.seq >= Sequence.log_from - SQL("1")),
        Commands.select(fn.MAX(Commands.seq)).where(Commands.seq >= Sequence.log_from),
    )
)
SELECT_RESULTS_FROM = statement(Sequence.select(Sequence.results_from))
UPDATE_RESULTS_FROM = statement(Sequence.update({Sequence.results_from: Named("results_from")}))
SELECT_FIRST_KEPT = statement(
    Commands.select(Commands.seq)
    .where((Commands.seq >= Named("from_seq")) & (Commands.seq < Named("until_seq")))
    .where(Commands.at.between(Named("after"), Named("now")))
    .order_by(Commands.seq)
    .limit(SQL("1"))
)
DROP_RESULTS = statement(
    Commands.update({Commands.result: EMPTY_BLOB}).where(
        (Commands.seq >= Named("from_seq")) & (Commands.seq < Named("until_seq")) & Commands.result.is_null(False)
    )
)


class StoredCommand(NamedTuple):
    """The row of a command that took effect earlier."""

    seq: int
    type: str
    salt: bytes | None
    facts: bytes
    result: bytes | None


class Executed(NamedTuple):
    """The result of a command, and its seq."""

    result: Any
    seq: int


class Received(NamedTuple):
    """What a row records about the payload as it was received, which may differ from the stored payload.

    `salt` is None if the text that it protects was erased; `redacted` means that the stored payload is incomplete.
    """

    digest: bytes
    salt: bytes | None
    redacted: bool = False
    principal: str | None = None


def position_of(db: Reads) -> LogPosition:
    """Read the end of a scope's log."""
    chain, greatest = db.row(SELECT_LAST_CHAIN), db.row(SELECT_GREATEST_ID)
    seq, last_id = db.rows(SELECT_SEQUENCE)[0]
    return LogPosition(seq, last_id, chain[0] if chain else CHAIN_START, greatest[0] if greatest else "")


def damage_at_ends(db: Reads) -> str:
    """How the rows at the ends of the log contradict its number, in words; empty if they do not."""
    seq, log_from, first, last = db.rows(SELECT_ENDS)[0]
    if last is None:
        first, last = log_from if first is None else first, log_from - 1
    if first != log_from:
        return f"its command log begins with {log_from}, and the row found there is {first}"
    if last < seq:
        found = f"the row found there is {last}" if last >= log_from else "no row is there"
        return f"its command log ends with {seq}, and {found}"
    if last > seq:
        return f"it counts {seq} commands, but its command log ends with {last}"
    return ""


def find(request_id: str, db: Reads) -> StoredCommand | None:
    """The command that took effect under this id, or None."""
    row = db.row(SELECT_BY_ID, id=request_id)
    return StoredCommand(*row) if row else None


def find_executed(command: Command[Any], request_id: str, db: Writes) -> Executed | None:
    """The result of a command that already took effect under this id, as plain values; None if none did.

    Raises `Conflict` if another command took effect under the id, or if the result is no longer stored. Ids grow with
    time, so most new ones need no query. Redacted commands are compared by id and type only, because comparing payloads
    would reveal whether a guess at the deleted text is right.
    """
    stored = find(request_id, db) if request_id <= db.position.greatest_id else None
    return None if stored is None else Executed(_stored_result(command, request_id, stored), stored.seq)


def _stored_result(command: Command[Any], request_id: str, stored: StoredCommand) -> Any:
    digest = decode_facts(stored.facts).digest
    same_payload = stored.salt is None or digest_of(stored.salt, canonical(command)) == digest
    if stored.type not in (command.wire_name, UNKNOWN_TYPE) or not same_payload:
        raise Conflict.at("$.id", f"another command took effect under the id {request_id!r}; use a new id")
    if stored.result is None:
        return None
    if stored.result != NOT_KEPT:
        return MSGPACK.decode(stored.result, Any)
    raise Conflict(
        f"$.id: this command already took effect, with seq {stored.seq}; its result is no longer stored",
        details={"path": "$.id", "seq": stored.seq},
    )


def append(
    command: Command[Any],
    result: Any,
    db: Writes,
    context: CommandContext,
    received: Received | None = None,
    *,
    principal: str | None = None,
) -> None:
    """Write the row of the command that was executed; `received` is given if it came from a log entry."""
    logged = as_logged(command)
    if received is None:
        salt: bytes | None = db.random_bytes(SALT_BYTES)
        assert salt is not None
        digest, was_redacted = digest_of(salt, canonical(logged)), False
    else:
        digest, salt, was_redacted, principal = received
    if context.redacted:
        logged = _without_text(logged, context.redacted)
    redacted = was_redacted or bool(context.redacted) or context.payload_dropped
    _insert(
        command.wire_name,
        MSGPACK.encode(logged) if db.retention.payloads and not context.payload_dropped else None,
        None if redacted else salt,
        redacted,
        None if result is None else _stored_form(command, result, context, was_redacted),
        (FORMAT, principal, digest, context.changes, context.generated, context.sender),
        db,
        context,
    )


def append_erased(name: str, received: Received, db: Writes, context: CommandContext) -> None:
    """Write the row of a replayed command whose payload was erased."""
    facts = (FORMAT, received.principal, received.digest, context.changes, context.generated, context.sender)
    _insert(name, None, None, True, NOT_KEPT, facts, db, context)


def apply_redactions(db: Writes) -> None:
    """Rewrite the rows that the commands of the transaction erase text from, each of them once."""
    by_seq: dict[int, list[Redaction]] = defaultdict(list)
    for redaction in db.redactions:
        by_seq[redaction.seq].append(redaction)
    for seq, redactions in by_seq.items():
        _redact_row(seq, redactions, db)


def erase_payload(seq: int, db: Writes) -> None:
    """Erase a command's whole payload and its result, so that a replay of it changes nothing."""
    db.run(REDACT, seq=seq, payload=None, result=NOT_KEPT)


def erase_all_payloads(db: Writes, context: CommandContext) -> None:
    """Erase the payloads and results of all commands before this one."""
    db.run(REDACT_ALL, seq=context.seq)
    db.run(DROP_RESULTS, from_seq=0, until_seq=context.seq)


def drop_old_results(db: Writes) -> int:
    """Drop results that have been kept longer than the settings require. Returns how many commands were examined."""
    row = db.row(SELECT_RESULTS_FROM)
    from_seq = row[0] if row else 1
    until_seq = min(db.position.seq + 1 - db.retention.results, from_seq + DROP_RESULTS_MAX)
    if until_seq <= from_seq:
        return 0
    bounds = {"from_seq": from_seq, "until_seq": until_seq}
    first_kept = db.row(SELECT_FIRST_KEPT, after=db.now - db.retention.results_ms + 1, now=db.now, **bounds)
    if first_kept:
        bounds["until_seq"] = first_kept[0]
    db.run(DROP_RESULTS, **bounds)
    db.run(UPDATE_RESULTS_FROM, results_from=bounds["until_seq"])
    return int(bounds["until_seq"] - from_seq)


def _insert(
    name: str,
    payload: bytes | None,
    salt: bytes | None,
    redacted: bool,
    result: bytes | None,
    facts: tuple[Any, ...],
    db: Writes,
    context: CommandContext,
) -> None:
    seq, now, request_id = context.seq, context.now, context.request_id
    encoded = encode_facts(facts)
    size = len(encoded) + (0 if payload is None else len(payload))
    if size > LOG_ENTRY_BYTES_MAX:
        problem = f"the command would have {size} bytes in the command log; the limit is {LOG_ENTRY_BYTES_MAX}"
        raise TooLarge.at("$.payload", f"{problem}: split it")
    context.type = name
    context.chain = chain_after(db.position.chain, seq, now, name, request_id, encoded)
    db.write(INSERT, (seq, request_id, name, now, payload, salt, redacted, encoded, result, context.chain))


def _redact_row(seq: int, redactions: list[Redaction], db: Writes) -> None:
    row = db.row(SELECT_FOR_REDACTION, seq=seq)
    if row is None:
        return
    name, payload, result = row
    erased: dict[int, Erasures] = defaultdict(set)
    for redaction in redactions:
        erased[redaction.member].add((redaction.target, redaction.fields))
    remaining = None if payload is None else _redacted_payload(name, payload, erased)
    if remaining is not None and remaining == payload and all(each.fields is not None for each in redactions):
        return  # it had no text in these fields
    db.run(
        REDACT,
        seq=seq,
        payload=remaining,
        result=NOT_KEPT if result and _has_result_of(set(erased), name, MSGPACK.decode(result, Any)) else result,
    )


def _redacted_payload(name: str, payload: bytes, erased: Mapping[int, Erasures]) -> bytes | None:
    """The payload without the erased text; None if it is damaged. It was accepted before, so no limits apply."""
    try:
        return MSGPACK.encode(_without_text(_decoded(name, payload, erased), erased))
    except (*DECODE_ERRORS, CallerError, LookupError):  # LookupError: a damaged name, or number of a batch's member
        return None


def _decoded(name: str, payload: bytes, members: Iterable[int]) -> Command[Any]:
    """A stored command. In a batch only these members are decoded, because it may have a thousand others."""
    deferred_type = OPERATIONS[name].deferred_type
    if deferred_type is None:
        return _decoded_alone(name, payload)
    encoded = MSGPACK.decode(payload, deferred_type).encoded_commands()
    commands = [BatchedCommand(type=each, payload=raw) for each, raw in encoded]
    for at in members:
        commands[at] = BatchedCommand(type=commands[at].type, payload=_decoded_alone(*encoded[at]))
    return Batch(commands)


def _decoded_alone(name: str, payload: bytes | Raw) -> Command[Any]:
    return cast(Command[Any], MSGPACK.decode(payload, strict(OPERATIONS[name])))


def _has_result_of(members: set[int], name: str, result: Any) -> bool:
    """Whether a result contains anything; of a batch, anything returned by these members."""
    return any(result[member] is not None for member in members) if name == Batch.wire_name else True


def _without_text(command: Command[Any], erased: Mapping[int, Erasures]) -> Command[Any]:
    """The command without the text that is erased from it; in a batch, only the members that are named are changed."""
    if not isinstance(command, Batch):
        return _erased(command, erased[0])
    members = list(command.commands)
    for at, of_member in erased.items():
        members[at] = replace(members[at], payload=_erased(members[at].payload, of_member))
    return replace(command, commands=members)


def _erased(command: Command[Any], erasures: Erasures) -> Command[Any]:
    erased = command
    for target, fields in [ALL_TEXT] if ALL_TEXT in erasures else erasures:
        erased = erase_text(erased, target, fields)
    return erased


def _stored_form(command: Command[Any], result: Any, context: CommandContext, was_redacted: bool) -> bytes:
    """A result as stored in the log. It is not kept if its text is erased or if it comes from a redacted payload."""
    erased = was_redacted or (context.redacted and _has_result_of(set(context.redacted), command.wire_name, result))
    return NOT_KEPT if erased else MSGPACK.encode(result)
