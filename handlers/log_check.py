"""Checks of the command log, row by row: its numbers, its chain, and the digests of its payloads.

The rows may come from a damaged file, so nothing in them is relied on.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from msgspec import Raw

from backscroll.handlers.sql import Named, statement
from backscroll.schema.command_log import (
    CHAIN_START,
    Facts,
    LogEntry,
    canonical,
    canonical_form,
    chain_after,
    decode_facts,
    digest_of,
)
from backscroll.schema.decode_errors import DECODE_ERRORS
from backscroll.schema.errors import BackscrollError
from backscroll.schema.operations import Command
from backscroll.schema.operations.decoding import UNLIMITED, command_type, decode_as
from backscroll.schema.tables import Commands, Sequence
from backscroll.schema.wire import MSGPACK

DAMAGED_ROW = (*DECODE_ERRORS, BackscrollError, LookupError, TypeError, ValueError)
"""What decoding a damaged row raises."""

SELECT_ENDS = statement(
    Sequence.select(Sequence.seq, Sequence.last_id, Sequence.results_from, Sequence.log_from, Sequence.lineage)
)
SELECT_ROWS = statement(
    Commands.select(
        *(Commands.seq, Commands.at, Commands.id, Commands.type, Commands.payload, Commands.salt),
        *(Commands.redacted, Commands.facts, Commands.chain, Commands.result),
    )
    .where(Commands.seq >= Named("from_seq"))
    .order_by(Commands.seq)
)


class Ends(NamedTuple):
    """What a scope says of its log: the last seq and generated id, from which command on there are results and rows."""

    seq: int
    last_id: str
    results_from: int
    log_from: int
    lineage: str


class LogRow(NamedTuple):
    """A row of the command log as it is stored."""

    seq: int
    at: int
    id: str
    type: str
    payload: bytes | None
    salt: bytes | None
    redacted: int
    facts: bytes
    chain: bytes
    result: bytes | None


class LogCheck:
    """Reads the rows of a log in their order, and tells what is wrong with each, in words.

    `seq` and `chain` are those of the last row that was added; `payloads_missing` counts the commands whose payload was
    not kept.
    """

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self.seq = ends.log_from - 1
        self.chain: bytes | None = CHAIN_START if ends.log_from == 1 else None
        self.payloads_missing = 0

    def add(self, row: LogRow) -> Iterator[str]:
        """What is wrong with the next row."""
        if row.seq != self.seq + 1:
            yield missing(self.seq + 1, row.seq - 1)
            self.chain = None  # the chain before this row is not known
        if not self._fits(row):
            yield f"command {row.seq} does not fit the chain of the log: it, or the row before it, was altered"
        self.seq, self.chain = row.seq, row.chain
        self.payloads_missing += row.payload is None and not row.redacted
        yield from self._problems_of_payload(row)
        yield from self._problems_of_result(row)

    def _fits(self, row: LogRow) -> bool:
        if self.chain is None:
            return True
        return chain_after(self.chain, row.seq, row.at, row.type, row.id, row.facts) == row.chain

    def _problems_of_payload(self, row: LogRow) -> Iterator[str]:
        if bool(row.redacted) is not (row.salt is None):
            yield f"command {row.seq} says that its text was {'' if row.redacted else 'not '}erased, its salt does not"
        try:
            digest = decode_facts(row.facts).digest
            if row.payload is not None and not _matches(row, digest):
                yield f"the payload of command {row.seq} does not match its digest"
        except DAMAGED_ROW as error:
            yield f"command {row.seq} cannot be decoded: {words(error)}"

    def _problems_of_result(self, row: LogRow) -> Iterator[str]:
        if not row.result:
            return
        if row.seq < self._ends.results_from:
            yield f"the result of command {row.seq} is stored, although those before {self._ends.results_from} are not"
        try:
            MSGPACK.decode(row.result, Any)
        except DECODE_ERRORS as error:
            yield f"the result of command {row.seq} cannot be decoded: {words(error)}"


def _matches(row: LogRow, digest: bytes) -> bool:
    """Whether a payload matches its digest, if that can be compared; raises one of `DAMAGED_ROW`.

    The payload is stored without defaults, so it need not be decoded as a command to get its canonical form, which
    takes several times as long. Only one that does not match might be of a version with other defaults.
    """
    if row.salt is not None and digest_of(row.salt, canonical_form(MSGPACK.decode(row.payload or b"", Any))) == digest:
        return True
    command = decoded(row)
    return row.salt is None or digest_of(row.salt, canonical(command)) == digest


def decoded(row: LogRow) -> Command[Any]:
    """The command of a row; raises one of `DAMAGED_ROW`."""
    return cast("Command[Any]", decode_as(command_type(row.type), Raw(row.payload or b""), MSGPACK, UNLIMITED))


def entry_of(row: LogRow, *, erased: bool = False) -> LogEntry:
    """The entry with which a command can be executed again, without its payload if that is `erased`.

    Unlike in an exported log, the bytes of media are not in it. Raises one of `DAMAGED_ROW`.
    """
    facts: Facts = decode_facts(row.facts)
    erased = erased or row.payload is None
    return LogEntry(
        seq=row.seq,
        at=row.at,
        id=row.id,
        type=row.type,
        payload=None if erased else decoded(row),
        changes=facts.changes,
        generated=facts.generated,
        principal=facts.principal,
        client=facts.sender.client if facts.sender else None,
        n=facts.sender.n if facts.sender else None,
        salt=None if row.salt is None or erased else row.salt.hex(),
        redacted=erased or bool(row.redacted),
        digest=facts.digest.hex(),
        chain=row.chain.hex(),
    )


def missing(first: int, last: int) -> str:
    """The words for rows that are missing."""
    return f"command {first} is missing" if first == last else f"commands {first} to {last} are missing"


def words(error: Exception) -> str:
    """An error of decoding in one line."""
    return str(error).partition("\n")[0] or type(error).__name__
