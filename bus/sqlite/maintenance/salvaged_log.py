"""The command log of a database that was salvaged: which of its rows are right, and what is left without the others.

A row is right if its chain follows from the row before it. Where the log is not whole, it ends: its rows stay so that
their ids stay known, and a new log begins behind them (`begin_new_log`).
"""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import apsw

from backscroll.bus.sqlite.statements import COMPILED, fetch
from backscroll.bus.sqlite.wal_lineage import new_lineage
from backscroll.handlers.command_log import DROP_RESULTS, NOT_KEPT, UNKNOWN_TYPE
from backscroll.handlers.log_check import DAMAGED_ROW, SELECT_ENDS, SELECT_ROWS, Ends, LogRow, decoded
from backscroll.handlers.sql import Named, insertion, statement
from backscroll.schema.command_log import (
    CHAIN_START,
    DIGEST_BYTES,
    FORMAT,
    canonical,
    chain_after,
    decode_facts,
    digest_of,
    encode_facts,
)
from backscroll.schema.row_pairs import pairs
from backscroll.schema.tables import Commands, Sequence

Range = tuple[int, int]
"""The numbers of the first and the last of several commands."""

INSERT_SEQUENCE = statement(insertion(Sequence))
DELETE_SEQUENCE = statement(Sequence.delete())
SELECT_CHAINS = statement(Commands.select(Commands.seq, Commands.chain).order_by(Commands.seq))
INSERT_COMMAND = statement(insertion(Commands).on_conflict_ignore())
DELETE_COMMAND = statement(Commands.delete().where(Commands.seq == Named("seq")))
FORGET_PAYLOADS = statement(Commands.update({Commands.payload: Named("payload")}))
UNKNOWN_FACTS = encode_facts((FORMAT, None, bytes(DIGEST_BYTES), [], None, None))


class LogFound(NamedTuple):
    """What there is of a log: its last row, from where on all are there, which are missing, the last generated id."""

    last: int
    whole_from: int
    missing: list[Range]
    last_id: str


def ends_of(connection: apsw.Connection) -> Ends:
    """What a database says of its log; as of an empty one if that was lost."""
    rows = fetch(connection, SELECT_ENDS)
    return Ends(*rows[0]) if rows else Ends(0, "", 1, 1, "")


def rows_of(connection: apsw.Connection, from_seq: int = 1) -> Iterator[LogRow]:
    """The rows of a log, one by one."""
    rows: Any = connection.execute(COMPILED[SELECT_ROWS], {"from_seq": from_seq})
    return (LogRow(*row) for row in rows)


def wrong_rows(connection: apsw.Connection) -> list[tuple[int, str]]:
    """The numbers and ids of rows that do not fit the chain, or whose payload does not match its digest."""
    wrong: list[tuple[int, str]] = []
    before: LogRow | None = None
    for row in rows_of(connection):
        chain = before.chain if before and before.seq == row.seq - 1 else CHAIN_START if row.seq == 1 else None
        if not _is_right(row, chain):
            wrong.append((row.seq, row.id))
        before = row if row.type != UNKNOWN_TYPE else None  # whose chain is not known
    return wrong


def remove(connection: apsw.Connection, seqs: Iterable[int]) -> None:
    """Remove rows of the log."""
    for seq in seqs:
        connection.execute(COMPILED[DELETE_COMMAND], {"seq": seq})


def _is_right(row: LogRow, chain_before: bytes | None) -> bool:
    if row.type == UNKNOWN_TYPE:
        return True
    if chain_before and chain_after(chain_before, row.seq, row.at, row.type, row.id, row.facts) != row.chain:
        return False
    try:
        digest = decode_facts(row.facts).digest
        return row.payload is None or row.salt is None or digest_of(row.salt, canonical(decoded(row))) == digest
    except DAMAGED_ROW:
        return False


def examine(connection: apsw.Connection) -> LogFound:
    """What there is of a log of which wrong rows were removed."""
    seq, whole_from, missing, last_id = 0, 1, list[Range](), ""
    for row in rows_of(connection):
        if row.seq != seq + 1:
            missing.append((seq + 1, row.seq - 1))
            whole_from = row.seq
        seq = row.seq
        generated = decode_facts(row.facts).generated
        if generated and generated.ids:
            last_id = max(last_id, generated.ids[-1])
    return LogFound(seq, whole_from, missing, last_id)


def rooms_saved(connection: apsw.Connection, from_seq: int) -> list[str]:
    """The rooms that commands from this one on saved."""
    found: dict[str, None] = {}
    for row in rows_of(connection, from_seq):
        changes = decode_facts(row.facts).changes
        found |= {each.id: None for each in changes if each.noun == "room" and each.kind == "saved" and each.id}
    return list(found)


def is_same_log(ours: apsw.Connection, theirs: apsw.Connection) -> bool | None:
    """Whether two logs have the same rows where both have rows; None if there are no such rows."""

    def chains(connection: apsw.Connection) -> Iterator[Any]:
        return connection.execute(COMPILED[SELECT_CHAINS])

    both = ((one, other) for one, other in pairs(chains(ours), chains(theirs), itemgetter(0)) if one and other)
    first = next(both, None)
    return None if first is None else first[0] == first[1] and all(one == other for one, other in both)


def add_known_ids(connection: apsw.Connection, known: Iterable[dict[str, Any]]) -> int:
    """Add rows for commands of which only number and id are known. Returns how many."""
    added = 0
    for each in known:
        if isinstance(each.get("id"), str):
            row = (each["seq"], each["id"], UNKNOWN_TYPE, 0, None, None, True, UNKNOWN_FACTS, NOT_KEPT)
            connection.execute(COMPILED[INSERT_COMMAND], (*row, bytes(DIGEST_BYTES)))
            added += connection.changes()
    return added


def keep_log(connection: apsw.Connection, found: Ends, log: LogFound, greatest: int) -> None:
    """Say that the log is whole. The file is another one than the damaged one, so its lineage is new."""
    last_id = max(found.last_id, log.last_id)
    _write_sequence(connection, found._replace(seq=greatest, last_id=last_id, lineage=new_lineage()))


def begin_new_log(
    connection: apsw.Connection, found: Ends, log: LogFound, greatest: int, *, forget_results: bool
) -> None:
    """Begin a new log behind all numbers that may have been given.

    One number is left out, so that no cursor into the old log fits the new one. Results have to be forgotten if it is
    not known with which items they are to be erased.
    """
    connection.execute(COMPILED[FORGET_PAYLOADS], {"payload": None})
    if forget_results:
        connection.execute(COMPILED[DROP_RESULTS], {"from_seq": 0, "until_seq": greatest + 1})
    seq, last_id = greatest + 1, max(found.last_id, log.last_id)
    _write_sequence(connection, Ends(seq, last_id, found.results_from, seq + 1, new_lineage()))


def _write_sequence(connection: apsw.Connection, row: Ends) -> None:
    connection.execute(COMPILED[DELETE_SEQUENCE])
    ends = (1, row.seq, row.last_id, row.results_from, row.log_from, row.lineage)
    connection.execute(COMPILED[INSERT_SEQUENCE], (*ends, 1, True))  # one commit, after which it was closed
