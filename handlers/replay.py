"""The command log as a whole: read page by page, and carried out again from its entries."""

from itertools import pairwise
from typing import Any

from peewee import SQL

import backscroll.handlers
from backscroll.handlers import command_log
from backscroll.handlers.scopes import ScopeAdmin
from backscroll.handlers.sql import Named, statement
from backscroll.handlers.storage import Database, Row
from backscroll.schema.command_log import CHAIN_START, Generated, LogEntry, LogPage, canonical, digest_of
from backscroll.schema.errors import CallerError, Conflict, Invalid, inside
from backscroll.schema.limits import PAGE_BYTES_MAX
from backscroll.schema.operations import AppendLog, GetLog, PutMediaPart
from backscroll.schema.tables import Commands, Sequence
from backscroll.schema.wire import MSGPACK

COLUMNS = (
    *(Commands.seq, Commands.at, Commands.id, Commands.type, Commands.payload),
    *(Commands.generated, Commands.redacted, Commands.digest, Commands.chain),
)
SELECT_PAGE = statement(
    Commands.select(*COLUMNS)
    .where((Commands.seq >= Named("from_seq")) & (Commands.seq < Named("until_seq")))
    .order_by(Commands.seq)
)
SELECT_SIZES = statement(
    Commands.select(Commands.seq, SQL("length(payload)"))
    .where(Commands.seq >= Named("from_seq"))
    .order_by(Commands.seq)
    .limit(Named("limit"))
)
SELECT_LOG_FROM = statement(Sequence.select(Sequence.log_from))
SELECT_CHAIN_BEFORE = statement(
    Commands.select(Commands.chain).where(Commands.seq < Named("seq")).order_by(Commands.seq.desc()).limit(SQL("1"))
)
SELECT_KNOWN = statement(
    Commands.select(Commands.id, Commands.digest, Commands.chain).where(Commands.seq == Named("seq"))
)


def get_log(query: GetLog, db: Database) -> LogPage:
    from_seq = min(query.from_seq, db.position.seq + 1)
    sizes = db.rows(SELECT_SIZES, from_seq=from_seq, limit=query.limit)
    rows = db.rows(SELECT_PAGE, from_seq=from_seq, until_seq=_end_of_page(sizes, from_seq))
    before = db.row(SELECT_CHAIN_BEFORE, seq=from_seq)
    return LogPage(
        entries=_entries(rows, db),
        chain_start=(before[0] if before else CHAIN_START).hex(),
        first_seq=db.rows(SELECT_LOG_FROM)[0][0],
        last_seq=db.position.seq,
    )


def append_log(command: AppendLog, scope: ScopeAdmin) -> None:
    with scope.transaction() as db:
        for index, entry in enumerate(command.entries):
            try:
                if not _is_there(entry, db):
                    _carry_out(entry, db)
            except CallerError as error:
                raise inside(f"$.payload.entries[{index}]", index, error) from error


def _end_of_page(sizes: list[Row], from_seq: int) -> int:
    """Up to where entries of these (seq, bytes) fit into one page; at least one does."""
    total, until_seq = 0, from_seq
    for seq, size in sizes:
        total += size or 0
        if total > PAGE_BYTES_MAX and until_seq > from_seq:
            break
        until_seq = seq + 1
    return until_seq


def _entries(rows: list[Row], db: Database) -> list[LogEntry]:
    """The entries of rows, up to where the bytes of media in them fill a page; at least one."""
    entries: list[LogEntry] = []
    total = 0
    for entry in (_entry(row, db) for row in rows):
        if entry.type == PutMediaPart.wire_name and entry.payload:
            total += len(entry.payload["data"])
        if total > PAGE_BYTES_MAX and entries:
            break
        entries.append(entry)
    return entries


def _entry(row: Row, db: Database) -> LogEntry:
    seq, at, request_id, name, stored, generated, was_redacted, digest, chain = row
    payload = None if stored is None else _in_full(name, MSGPACK.decode(stored, dict[str, Any]), db)
    return LogEntry(
        seq=seq,
        at=at,
        id=request_id,
        type=name,
        payload=payload,
        generated=MSGPACK.decode(generated, Generated) if generated else None,
        redacted=bool(was_redacted) or (stored is not None and payload is None),
        digest=digest.hex(),
        chain=chain.hex(),
    )


def _in_full(name: str, payload: dict[str, Any], db: Database) -> dict[str, Any] | None:
    """A payload as plain values, with the bytes of media that it put; None where those are gone."""
    if name != PutMediaPart.wire_name:
        return payload
    data = db.parts.read(payload["sha256"])
    return None if data is None else {"data": data}


def _is_there(entry: LogEntry, db: Database) -> bool:
    """Whether the log holds this entry already; raises `Conflict` where another stands in its place."""
    if entry.seq == db.position.seq + 1:
        return False
    if entry.seq > db.position.seq:
        raise Conflict.at("$.seq", f"{db.position.seq + 1} is the next number of this scope, not {entry.seq}")
    [(request_id, digest, chain)] = db.rows(SELECT_KNOWN, seq=entry.seq) or [("", b"", b"")]
    if (request_id, digest) != (entry.id, _digest(entry)) or entry.chain not in (None, chain.hex()):
        raise Conflict.at("$.seq", f"another command took effect as number {entry.seq}")
    return True


def _digest(entry: LogEntry) -> bytes:
    """What an entry's payload is known by: what it says itself, where some of the payload is gone."""
    if entry.redacted and entry.digest is not None:
        return bytes.fromhex(entry.digest)
    return digest_of(canonical(entry.payload))


def _carry_out(entry: LogEntry, db: Database) -> None:
    """Carry out a command as it was the first time: at its time, with what it generated."""
    if command_log.find(entry.id, db) is not None:
        raise Conflict.at("$.id", "an earlier command has this id")
    with db.command(entry.id, at=entry.at, recorded=entry.generated) as place:
        _check(entry, db)
        received = bytes.fromhex(entry.digest) if entry.digest is not None and entry.redacted else None
        if entry.payload is None:
            assert received is not None  # the operation was refused without it
            _step_over(entry, received, db)
            return
        result = backscroll.handlers.HANDLERS[type(entry.payload)](entry.payload, db)
        command_log.append(entry.payload, result, db, received)
        generated = entry.generated
        if generated and (place.ids, place.token_hashes) != (generated.ids, generated.token_hashes):
            raise Invalid.at("$.generated", "the command decides another number of ids or tokens")


def _check(entry: LogEntry, db: Database) -> None:
    """Raise `Invalid` where an entry says of itself what cannot be."""
    if entry.digest is not None and not entry.redacted and digest_of(canonical(entry.payload)).hex() != entry.digest:
        raise Invalid.at("$.digest", "the payload is not the one that the digest is of")
    ids = [db.position.last_id, *(entry.generated.ids if entry.generated else ())]
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise Invalid.at("$.generated.ids", "ids grow, from each command to the next")


def _step_over(entry: LogEntry, digest: bytes, db: Database) -> None:
    """Let a command of which nothing is left take its number and its ids, and do nothing."""
    for _ in entry.generated.ids if entry.generated else ():
        db.new_id()
    for _ in entry.generated.token_hashes if entry.generated else ():
        db.new_token()
    command_log.append_blank(entry.type, digest, db)
