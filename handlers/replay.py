"""Reading the command log in pages, and executing its entries again."""

from typing import Any

import msgspec
from peewee import SQL

from backscroll.handlers import clearing, execute
from backscroll.handlers.lists import PAGE_CHARS_SURE, page_of
from backscroll.handlers.registry import handles
from backscroll.handlers.scopes import ScopeAdmin
from backscroll.handlers.sql import Guarded, Named, Row, statement, to_json
from backscroll.handlers.storage import Reads
from backscroll.schema.command_log import CHAIN_START, LogEntry, LogPage, canonical, decode_facts, digest_of
from backscroll.schema.errors import CallerError, Conflict, Invalid, inside
from backscroll.schema.limits import FUTURE_MS_MAX, MILLIS_MAX, PAGE_BYTES_MAX
from backscroll.schema.operations import AppendLog, GetLog, PutMediaPart
from backscroll.schema.tables import Commands, Sequence
from backscroll.schema.ulid import time_of
from backscroll.schema.wire import MSGPACK

COLUMNS = (
    *(Commands.seq, Commands.at, Commands.id),
    Guarded(Commands.type, Commands.chain != SQL("zeroblob(32)")),
    Commands.payload,
    *(Commands.salt, Commands.redacted, Commands.facts, Commands.chain),
)
SELECT_PAGE = statement(
    Commands.select(*COLUMNS)
    .where((Commands.seq >= Named("from_seq")) & (Commands.seq < Named("until_seq")))
    .order_by(Commands.seq)
)
SELECT_SIZES = statement(
    Commands.select(Commands.seq, SQL("coalesce(length(payload), 0) + coalesce(length(facts), 0)"))
    .where(Commands.seq >= Named("from_seq"))
    .order_by(Commands.seq)
    .limit(Named("limit"))
)
SELECT_LOG_FROM = statement(Sequence.select(Sequence.log_from, clearing.LAST_MARK))
SELECT_CHAIN_BEFORE = statement(
    Commands.select(Commands.chain).where(Commands.seq < Named("seq")).order_by(Commands.seq.desc()).limit(SQL("1"))
)
SELECT_KNOWN = statement(
    Commands.select(Commands.id, Commands.salt, Commands.facts, Commands.chain).where(Commands.seq == Named("seq"))
)


@handles(GetLog)
def get_log(query: GetLog, db: Reads) -> LogPage:
    log_from, until = db.rows(SELECT_LOG_FROM)[0]
    clearing.check_removed(until, query.from_seq)
    from_seq = min(max(query.from_seq, log_from), db.position.seq + 1)
    sizes = db.rows(SELECT_SIZES, from_seq=from_seq, limit=query.limit)
    until_seq, size = _end_of_page(sizes, from_seq)
    entries = _entries(db.rows(SELECT_PAGE, from_seq=from_seq, until_seq=until_seq), db)
    if size > PAGE_CHARS_SURE:
        _, end = page_of([len(to_json(entry)) for entry in entries])
        del entries[end:]
    before = db.row(SELECT_CHAIN_BEFORE, seq=from_seq)
    return LogPage(
        entries=entries,
        chain_start=(before[0] if before else CHAIN_START).hex(),
        first_seq=log_from,
        last_seq=db.position.seq,
    )


@handles(AppendLog)
def append_log(command: AppendLog, scope: ScopeAdmin) -> None:
    with scope.transaction() as db:
        latest = MILLIS_MAX if command.allow_future else db.now + FUTURE_MS_MAX
        for index, entry in enumerate(command.entries):
            try:
                if not _is_known(entry, db):
                    _check_times(entry, latest, db)
                    execute.execute_entry(entry, db, scope.handlers)
            except CallerError as error:
                raise inside(f"$.payload.entries[{index}]", index, error) from error


def _check_times(entry: LogEntry, latest: int, db: Reads) -> None:
    """Raise `Invalid` for an entry later than `latest`, and for ids that are later than what precedes them.

    All later ids of the scope continue from the greatest one, so they would be ahead for ever. Every generated id is
    of its command's time, or of that of the last id where the clock had gone back.
    """
    if entry.at > latest:
        raise Invalid.at(
            "$.at", f"the time is more than a day ({FUTURE_MS_MAX} ms) ahead of the daemon's clock; see allowFuture"
        )
    last = max(entry.at, time_of(db.position.last_id) if db.position.last_id else 0)
    for index, each in enumerate(entry.generated.ids if entry.generated else ()):
        if time_of(each) > last:
            raise Invalid.at(f"$.generated.ids[{index}]", "the id is of a later time than its command")


def _end_of_page(sizes: list[Row], from_seq: int) -> tuple[int, int]:
    """The seq after the last entry that fits into one page, from (seq, bytes) of entries, and their bytes together.

    At least one fits.
    """
    total, until_seq = 0, from_seq
    for seq, size in sizes:
        if total + size > PAGE_BYTES_MAX and until_seq > from_seq:
            break
        total += size
        until_seq = seq + 1
    return until_seq, total


def _entries(rows: list[Row], db: Reads) -> list[LogEntry]:
    """The entries of these rows, until the bytes of media in them fill a page; at least one."""
    entries: list[LogEntry] = []
    total = 0
    for entry in (_entry(row, db) for row in rows):
        if entry.type == PutMediaPart.wire_name and entry.payload:
            total += len(entry.payload["data"])
        if total > PAGE_BYTES_MAX and entries:
            break
        entries.append(entry)
    return entries


def _entry(row: Row, db: Reads) -> LogEntry:
    seq, at, request_id, name, stored, salt, was_redacted, facts_bytes, chain = row
    payload = None if stored is None else _with_bytes(name, MSGPACK.decode(stored, dict[str, Any]), db)
    facts = decode_facts(facts_bytes)
    redacted = bool(was_redacted) or (stored is not None and payload is None)
    fields = {
        "seq": seq,
        "at": at,
        "id": request_id,
        "type": name,
        "payload": payload,
        "changes": facts.changes,
        "generated": facts.generated,
        "principal": facts.principal,
        "client": facts.sender.client if facts.sender else None,
        "n": facts.sender.n if facts.sender else None,
        "salt": None if salt is None or redacted else salt.hex(),
        "redacted": redacted,
        "digest": facts.digest.hex(),
        "chain": chain.hex(),
    }
    return msgspec.convert(fields, LogEntry)  # checked, because a damaged row may contain anything


def _with_bytes(name: str, payload: dict[str, Any], db: Reads) -> dict[str, Any] | None:
    """The payload as plain values, with the bytes of the media part that it put; None if they are gone."""
    if name != PutMediaPart.wire_name:
        return payload
    data = db.blobs.read(str(payload.get("sha256")))
    return None if data is None else {"data": data}


def _is_known(entry: LogEntry, db: Reads) -> bool:
    """Whether the log already has this entry; raises `Conflict` if it has another one, or if entries are missing."""
    if entry.seq == db.position.seq + 1:
        return False
    if entry.seq > db.position.seq:
        raise Conflict.at("$.seq", f"the next seq of this scope is {db.position.seq + 1}, not {entry.seq}")
    rows = db.rows(SELECT_KNOWN, seq=entry.seq)
    if not rows or not _is_same(entry, *rows[0]):
        raise Conflict.at("$.seq", f"another command took effect with seq {entry.seq}")
    return True


def _is_same(entry: LogEntry, request_id: str, salt: bytes | None, facts: bytes, chain: bytes) -> bool:
    if request_id != entry.id or entry.chain not in (None, chain.hex()):
        return False
    digest = decode_facts(facts).digest
    if entry.digest is not None:
        return digest.hex() == entry.digest
    return salt is None or digest_of(salt, canonical(entry.payload)) == digest
