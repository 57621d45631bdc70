"""A scope's command log: reading it in pages, exporting it as a file, and verifying its digests and chain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from msgspec import Raw

from backscroll.clients.python.client import Client
from backscroll.schema.command_log import (
    CHAIN_START,
    FORMAT,
    Facts,
    LogEntry,
    LogPage,
    canonical,
    chain_after,
    digest_of,
    encode_facts,
)
from backscroll.schema.errors import BackscrollError
from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.log_file import BadLine, HeaderLine, LogHeader, LogReader, entry_text, header_text
from backscroll.schema.operations import Command, GetLog
from backscroll.schema.operations.decoding import UNLIMITED, decode_operation
from backscroll.schema.wire import DEFAULT_SCOPE, MSGPACK


class Broken(Exception):
    """A log was altered or damaged; the message names the first seq at which this is visible."""


@dataclass(frozen=True)
class LogRange:
    """A range of a log: its first and last seq (`to` < `start` if it is empty), and the chain before and after it."""

    start: int
    to: int
    chain_start: str
    chain_end: str


def pages_of(client: Client, from_seq: int = 1) -> Iterator[LogPage]:
    """The pages of the log from a seq on; the last page has no entries."""
    while True:
        page = client.ask(GetLog(from_seq, PAGE_ITEMS_MAX))
        yield page
        if not page.entries:
            return
        from_seq = page.entries[-1].seq + 1


def log_range_of(client: Client, from_seq: int, to_seq: int | None) -> LogRange:
    """The range from one seq to another, both included; raises `ValueError` if it begins after the end of the log.

    Raises `Broken` if its first or last entry is missing.
    """
    page = client.ask(GetLog(from_seq, limit=1))
    if from_seq > page.last_seq + 1:
        raise ValueError(f"the log ends at seq {page.last_seq}")
    start = max(from_seq, page.first_seq)
    to = page.last_seq if to_seq is None else min(to_seq, page.last_seq)
    if to < start:
        return LogRange(start, start - 1, page.chain_start, page.chain_start)
    last = client.ask(GetLog(to, limit=1))
    for seq, entries in ((start, page.entries), (to, last.entries)):
        if not entries or entries[0].seq != seq:
            raise Broken(f"seq {seq}: missing in the log, which has {page.first_seq} to {page.last_seq}")
    return LogRange(start, to, page.chain_start, last.entries[0].chain or "")


def file_of(client: Client, scope: str, log_range: LogRange) -> Iterator[str]:
    """The lines of the log file of a range."""
    yield header_text(
        LogHeader(
            scope=scope,
            from_seq=log_range.start,
            chain_start=log_range.chain_start,
            to=log_range.to,
            chain_end=log_range.chain_end,
        )
    )
    if log_range.to >= log_range.start:
        for page in pages_of(client, log_range.start):
            for entry in page.entries:
                if entry.seq > log_range.to:
                    return
                yield entry_text(entry)


@dataclass
class Chain:
    """A chain that is computed entry by entry. Changing, removing or adding an entry changes its end."""

    value: bytes
    seq: int
    digests: int = 0
    """The number of entries whose payload matches its digest; the others are counted below."""
    redacted: int = 0
    not_kept: int = 0

    def add(self, entry: LogEntry) -> None:
        """Extend the chain by the next entry; raises `Broken` if the entry does not fit."""
        if entry.seq != self.seq + 1:
            raise Broken(f"seq {entry.seq}: seq {self.seq + 1} is missing before it")
        facts = encode_facts(
            Facts(FORMAT, entry.principal, self._digest(entry), entry.changes, entry.generated, entry.sender)
        )
        self.value = chain_after(self.value, entry.seq, entry.at, entry.type, entry.id, facts)
        self.seq = entry.seq
        if entry.chain is not None and entry.chain != self.value.hex():
            raise Broken(f"seq {entry.seq}: the entry does not fit the chain")

    def summary(self) -> str:
        """How many payloads were compared with their digest: redacted payloads cannot be compared."""
        total = self.digests + self.redacted + self.not_kept
        parts = [f"{self.digests} of {total} payloads match their digest"]
        if self.redacted:
            parts.append(f"{self.redacted} {'is' if self.redacted == 1 else 'are'} redacted and cannot be compared")
        if self.not_kept:
            parts.append(f"{self.not_kept} {'was' if self.not_kept == 1 else 'were'} not kept")
        return ", ".join(parts)

    def _digest(self, entry: LogEntry) -> bytes:
        """The digest of an entry's payload, compared with the payload if that is complete."""
        if entry.payload is None or entry.redacted:
            if entry.digest is None:
                raise Broken(f"seq {entry.seq}: both the payload and its digest are missing")
            self.redacted += entry.redacted
            self.not_kept += not entry.redacted
            return bytes.fromhex(entry.digest)
        salt = bytes.fromhex(entry.salt) if entry.salt is not None else b""  # lines written by hand have none
        digest = digest_of(salt, canonical(_command(entry)))
        if entry.digest is not None and digest.hex() != entry.digest:
            raise Broken(f"seq {entry.seq}: the payload does not match its digest")
        self.digests += 1
        return digest


def verify_scope(client: Client) -> Chain:
    """Verify a scope's whole log and return its chain; raises `Broken`."""
    chain: Chain | None = None
    for page in pages_of(client):
        before = bytes.fromhex(page.chain_start)
        if chain is None:
            first = page.first_seq
            if before != CHAIN_START:
                raise Broken(f"seq {first}: the chain does not begin here")
            chain = Chain(before, first - 1)
        elif before != chain.value:
            raise Broken(f"seq {chain.seq}: the entry does not fit the chain")
        for entry in page.entries:
            if entry.seq != first and chain.seq == first - 1:
                raise Broken(f"seq {first}: missing; the log begins with {entry.seq}")
            chain.add(entry)
        if not page.entries and page.last_seq != chain.seq:
            raise Broken(f"seq {chain.seq + 1}: missing; the last seq of the scope is {page.last_seq}")
    assert chain is not None  # there is at least one page
    return chain


def verify_file(lines: Iterable[bytes]) -> dict[str, tuple[Chain, bool]]:
    """Verify the chains of all scopes in a log file; raises `Broken` or `BadLine`.

    Returns the chain of each scope, and whether its end was compared with a header: not every header has an end.
    """
    file = _FileChains()
    for line in LogReader().read_all(lines):
        try:
            if isinstance(line, HeaderLine):
                file.begin(line.header)
            else:
                file.add(line.scope, line.entry)
        except (Broken, BackscrollError) as error:
            raise BadLine(line.number, str(error)) from None
    return file.ended()


class _FileChains:
    """The chains of the scopes in a file, and the last header of each scope that has one."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._headers: dict[str, LogHeader] = {}

    def begin(self, header: LogHeader) -> None:
        """Continue with a header; raises `Broken` if the scope's lines before it do not lead to it."""
        scope = header.scope
        if scope in self._headers or scope in self._chains:
            self._ends_as_said(scope)
            chain = self._chain(scope)
            if chain.value.hex() != header.chain_start:
                raise Broken("the lines before this header do not lead to its chainStart")
            if header.from_seq not in (None, chain.seq + 1):
                raise Broken(
                    f"the lines before this header end with seq {chain.seq}, but it begins with {header.from_seq}"
                )
        self._headers[scope] = header

    def add(self, scope: str, entry: LogEntry) -> None:
        self._chain(scope, entry.seq).add(entry)

    def ended(self) -> dict[str, tuple[Chain, bool]]:
        """The chains, and whether the end of each was compared with a header; raises `Broken` if one differs."""
        scopes = {**self._headers, **self._chains} or [DEFAULT_SCOPE]  # an empty file is an empty log
        return {scope: (self._chain(scope), self._ends_as_said(scope)) for scope in scopes}

    def _chain(self, scope: str, first_seq: int = 1) -> Chain:
        """The scope's chain, which begins as its header says."""
        if scope not in self._chains:
            header = self._headers.get(scope, LogHeader())
            self._chains[scope] = Chain(bytes.fromhex(header.chain_start), (header.from_seq or first_seq) - 1)
        return self._chains[scope]

    def _ends_as_said(self, scope: str) -> bool:
        header, chain = self._headers.get(scope), self._chain(scope)
        if header is not None and header.to not in (None, chain.seq):
            raise Broken(f"{scope}: the lines end with seq {chain.seq}; the header says {header.to}")
        if header is None or header.chain_end is None:
            return False
        if header.chain_end != chain.value.hex():
            raise Broken(
                f"{scope}: the chain up to seq {chain.seq} differs from the header's chainEnd: a line was changed"
            )
        return True


def _command(entry: LogEntry) -> Command[object]:
    if isinstance(entry.payload, Command):
        return entry.payload
    try:
        command = decode_operation(entry.type, Raw(MSGPACK.encode(entry.payload)), MSGPACK, UNLIMITED)
    except BackscrollError as error:
        raise Broken(f"seq {entry.seq}: {error.message}") from None
    if not isinstance(command, Command):
        raise Broken(f"seq {entry.seq}: {entry.type!r} is not a command")
    return command
