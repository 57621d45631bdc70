"""The command log: written in the transaction of each command, asked before each, and freed of what was deleted.

    a command ──▶ find: was it carried out before? ──yes──▶ repeat: the same reply
                     └─no─▶ its handler, which notes what it mentions ──▶ append: one row

Handlers call `mention` where a command says something about a message, a room or a media, and `forget` where that is
deleted: then what was said is taken out of every command that mentions it, the one under way included. The command that
first said a message stands in the message's own row instead. The structure of those commands stays, so that the log can
still be replayed to the same end.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers.sql import Named, insertion, statement
from backscroll.handlers.storage import CommandContext, Database, Position
from backscroll.schema.command_log import CHAIN_START, Generated, canonical, digest_of, link, redacted
from backscroll.schema.errors import CallerError, Conflict
from backscroll.schema.operations import OPERATIONS, Batch, Command
from backscroll.schema.operations.sessions import hash_of
from backscroll.schema.tables import Commands, Mentions, Sequence
from backscroll.schema.wire import DECODE_ERRORS, MSGPACK

NO_LONGER_KEPT = b""
"""The result of a command whose result is no longer kept."""
FORGET_RESULTS_MAX = 10_000  # in one turn of the chores

INSERT = statement(insertion(Commands))
INSERT_MENTION = statement(insertion(Mentions).on_conflict_ignore())
SELECT_BY_ID = statement(
    Commands.select(Commands.seq, Commands.type, Commands.digest, Commands.generated, Commands.result).where(
        Commands.id == Named("id")
    )
)
SELECT_FOR_REDACTION = statement(
    Commands.select(Commands.type, Commands.payload, Commands.result).where(Commands.seq == Named("seq"))
)
REDACT = statement(
    Commands.update(
        {Commands.payload: Named("payload"), Commands.redacted: SQL("1"), Commands.result: Named("result")}
    ).where(Commands.seq == Named("seq"))
)
REDACT_ALL = statement(
    Commands.update(
        {
            Commands.payload: SQL("NULL"),
            Commands.redacted: SQL("1"),
            Commands.result: SQL("CASE WHEN result IS NULL THEN NULL ELSE x'' END"),
        }
    ).where(Commands.seq < Named("seq"))
)
OF_SUBJECT = (Mentions.noun == Named("noun")) & (Mentions.subject == Named("subject"))
SELECT_MENTIONS = statement(Mentions.select(Mentions.seq, Mentions.member).where(OF_SUBJECT))
DELETE_MENTIONS = statement(Mentions.delete().where(OF_SUBJECT))
SELECT_SEQUENCE = statement(Sequence.select(Sequence.seq, Sequence.last_id))
SELECT_LAST_CHAIN = statement(Commands.select(Commands.chain).order_by(Commands.seq.desc()).limit(SQL("1")))
SELECT_GREATEST_ID = statement(Commands.select(Commands.id).order_by(Commands.id.desc()).limit(SQL("1")))
SELECT_RESULTS_FROM = statement(Sequence.select(Sequence.results_from))
UPDATE_RESULTS_FROM = statement(Sequence.update({Sequence.results_from: Named("results_from")}))
SELECT_FIRST_KEPT = statement(
    Commands.select(Commands.seq)
    .where((Commands.seq >= Named("from_seq")) & (Commands.seq < Named("until_seq")))
    .where(Commands.at.between(Named("after"), Named("now")))
    .order_by(Commands.seq)
    .limit(SQL("1"))
)
FORGET_RESULTS = statement(
    Commands.update({Commands.result: SQL("x''")}).where(
        (Commands.seq >= Named("from_seq")) & (Commands.seq < Named("until_seq")) & Commands.result.is_null(False)
    )
)


class StoredCommand(NamedTuple):
    """A command that was carried out before, as the log knows it."""

    seq: int
    type: str
    digest: bytes
    generated: bytes | None
    result: bytes | None


def position_of(db: Database) -> Position:
    """How far a scope has come, as it is stored."""
    chain, greatest = db.row(SELECT_LAST_CHAIN), db.row(SELECT_GREATEST_ID)
    seq, last_id = db.rows(SELECT_SEQUENCE)[0]
    return Position(seq, last_id, chain[0] if chain else CHAIN_START, greatest[0] if greatest else "")


def find(request_id: str, db: Database) -> StoredCommand | None:
    """The command with this id, if it took effect. Ids grow with time, so most are known to be new without a look."""
    if request_id > db.position.greatest_id:
        return None
    row = db.row(SELECT_BY_ID, id=request_id)
    return StoredCommand(*row) if row else None


def repeat(command: Command[Any], request_id: str, done: StoredCommand, db: Database) -> Any:
    """The result that a command had when it took effect, as plain values; raises `Conflict` where it cannot be told."""
    if done.type != command.wire_name or done.digest != digest_of(canonical(command)):
        raise Conflict.at("$.id", f"another command took effect under the id {request_id!r}")
    if done.result is None:
        return None
    if done.result != NO_LONGER_KEPT:
        generated = MSGPACK.decode(done.generated, Generated) if done.generated else Generated()
        tokens = [db.token(request_id, number) for number in range(len(generated.token_hashes))]
        if [hash_of(token) for token in tokens] == generated.token_hashes:
            return _unsealed(command, MSGPACK.decode(done.result, Any), iter(tokens))
    raise Conflict(
        f"$.id: this command took effect as number {done.seq}, and its result is no longer kept",
        details={"path": "$.id", "seq": done.seq},
    )


def append(command: Command[Any], result: Any, db: Database, digest: bytes | None = None) -> None:
    """Write the row of the command under way.

    `digest` is that of the payload as it was received, where `command` is what was left of it.
    """
    entry = db.entry
    payload = canonical(command)
    was_redacted, digest = digest is not None, digest or digest_of(payload)
    if entry.redacted:
        payload = canonical(_without(command, entry.redacted))
    _insert(
        command.wire_name,
        digest,
        payload if db.retention.payloads and not entry.left_out else None,
        was_redacted or bool(entry.redacted) or entry.left_out,
        _kept(command, result, entry, was_redacted),
        db,
    )


def append_blank(name: str, digest: bytes, db: Database) -> None:
    """Write the row of a command of which nothing is left but that it was."""
    _insert(name, digest, None, True, NO_LONGER_KEPT, db)


def mention(noun: str, subject: str, db: Database) -> None:
    """Note that the command under way holds text about something, which goes when that is deleted."""
    db.write(INSERT_MENTION, (noun, subject, db.entry.seq, db.entry.member))


def forget(noun: str, subject: str, db: Database) -> None:
    """Take what was said about something out of the log."""
    redact(db.rows(SELECT_MENTIONS, noun=noun, subject=subject), db)
    db.run(DELETE_MENTIONS, noun=noun, subject=subject)


def forget_whole(noun: str, subject: str, db: Database) -> None:
    """Take the payloads of all commands that made something out of the log; replayed, they do nothing."""
    for seq, _ in db.rows(SELECT_MENTIONS, noun=noun, subject=subject):
        db.run(REDACT, seq=seq, payload=None, result=NO_LONGER_KEPT)
    db.run(DELETE_MENTIONS, noun=noun, subject=subject)


def forget_all(db: Database) -> None:
    """Take everything out of the log but that there were commands."""
    db.run(REDACT_ALL, seq=db.entry.seq)


def redact(mentions: Iterable[tuple[int, int]], db: Database) -> None:
    """Have what was said taken out of these commands, given as (seq, member), before the commit."""
    for seq, member in mentions:
        if seq == db.entry.seq:
            db.entry.redacted.add(member)
        else:
            db.redactions.append((seq, member))


def apply_redactions(db: Database) -> None:
    """Rewrite the rows that the transaction's commands had redacted, each once, however many of its members it is."""
    members_by_seq: dict[int, set[int]] = defaultdict(set)
    for seq, member in db.redactions:
        members_by_seq[seq].add(member)
    for seq, members in members_by_seq.items():
        _redact_one(seq, members, db)


def forget_results(db: Database) -> int:
    """Drop results that are kept for longer than they need be; how many commands were looked at."""
    row = db.row(SELECT_RESULTS_FROM)
    from_seq = row[0] if row else 1
    until_seq = min(db.position.seq + 1 - db.retention.results, from_seq + FORGET_RESULTS_MAX)
    if until_seq <= from_seq:
        return 0
    bounds = {"from_seq": from_seq, "until_seq": until_seq}
    first_kept = db.row(SELECT_FIRST_KEPT, after=db.now - db.retention.results_ms + 1, now=db.now, **bounds)
    if first_kept:
        bounds["until_seq"] = first_kept[0]
    db.run(FORGET_RESULTS, **bounds)
    db.run(UPDATE_RESULTS_FROM, results_from=bounds["until_seq"])
    return int(bounds["until_seq"] - from_seq)


def _insert(
    name: str,
    digest: bytes,
    payload: bytes | None,
    was_redacted: bool,
    result: bytes | None,
    db: Database,
) -> None:
    entry = db.entry
    generated = entry.generated
    packed = None if generated is None else MSGPACK.encode(generated)
    entry.chain = link(db.position.chain, entry.seq, entry.at, entry.request_id, name, digest, packed)
    row = (entry.seq, entry.request_id, name, entry.at, digest, payload, was_redacted, packed, result, entry.chain)
    db.write(INSERT, row)


def _redact_one(seq: int, members: set[int], db: Database) -> None:
    row = db.row(SELECT_FOR_REDACTION, seq=seq)
    if row is None:
        return
    name, payload, result = row
    db.run(
        REDACT,
        seq=seq,
        payload=None if payload is None else _redacted_payload(name, payload, members),
        result=NO_LONGER_KEPT if result and _tells_of(members, name, MSGPACK.decode(result, Any)) else result,
    )


def _redacted_payload(name: str, payload: bytes, members: set[int]) -> bytes | None:
    """A payload without what was said; nothing of one that is damaged. It was valid once, so no limit applies."""
    try:
        return canonical(_without(_decoded(name, Raw(payload)), members))
    except (*DECODE_ERRORS, CallerError):
        return None


def _decoded(name: str, payload: Raw) -> Any:
    as_type = OPERATIONS[name]
    if as_type.deferred_type is None:
        return MSGPACK.decode(payload, as_type)
    return MSGPACK.decode(payload, as_type.deferred_type).opened(_decoded)


def _tells_of(members: set[int], name: str, result: Any) -> bool:
    """Whether a result holds anything of a command, or of these members of a batch."""
    return any(result[member] is not None for member in members) if name == Batch.wire_name else True


def _without(command: Command[Any], members: set[int]) -> Command[Any]:
    """A command without what people said; of a batch only these members."""
    if not isinstance(command, Batch):
        spoken: Command[Any] = redacted(command)
        return spoken
    commands = [redacted(each) if at in members else each for at, each in enumerate(command.commands)]
    return replace(command, commands=commands)


def _kept(command: Command[Any], result: Any, entry: CommandContext, was_redacted: bool) -> bytes | None:
    """A result as the log keeps it. What comes of a redacted command is not what was answered."""
    if result is None:
        return None
    gone = was_redacted or (entry.redacted and _tells_of(entry.redacted, command.wire_name, result))
    return NO_LONGER_KEPT if gone else MSGPACK.encode(_sealed(command, result))


def _sealed(command: Command[Any], result: Any) -> Any:
    """A result without its secrets."""
    if isinstance(command, Batch):
        return [_sealed(member.payload, each) for member, each in zip(command.commands, result, strict=True)]
    return replace(result, **{command.RESULT_SECRET: ""}) if command.RESULT_SECRET else result


def _unsealed(command: Command[Any], result: Any, tokens: Iterator[str]) -> Any:
    """A result as plain values with its secrets, which come in the order they were made."""
    if isinstance(command, Batch):
        return [_unsealed(member.payload, each, tokens) for member, each in zip(command.commands, result, strict=True)]
    return result | {command.RESULT_SECRET: next(tokens)} if command.RESULT_SECRET else result
