"""A scope's command log from the daemon: page by page, as a file, and held against its own digests and chain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from backscroll.clients.python.client import Client
from backscroll.schema.command_log import CHAIN_START, LogEntry, LogPage, canonical, digest_of, link, redacted
from backscroll.schema.errors import BackscrollError
from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.log_file import BadLine, HeaderLine, LogHeader, LogReader, entry_text, header_text
from backscroll.schema.operations import Batch, Command, GetLog
from backscroll.schema.operations.decoding import UNLIMITED, read_operation
from backscroll.schema.wire import DEFAULT_SCOPE, MSGPACK


class Broken(Exception):
    """A log that is not what it was; the message names the first number at which it is seen."""


@dataclass(frozen=True)
class LogRange:
    """Part of a log: its first and last number (none where `to` is before `start`) and the chain before and after."""

    start: int
    to: int
    chain_start: str
    chain_end: str


def pages_of(client: Client, from_seq: int = 1) -> Iterator[LogPage]:
    """The log from a number on; the last page has no entries."""
    while True:
        page = client.ask(GetLog(from_seq, PAGE_ITEMS_MAX))
        yield page
        if not page.entries:
            return
        from_seq = page.entries[-1].seq + 1


def log_range_of(client: Client, from_seq: int, to_seq: int | None) -> LogRange:
    """What lies between two numbers, both included; raises `ValueError` for a beginning after the end.

    Raises `Broken` where the first or the last entry of it is not there.
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
            raise Broken(f"seq {seq}: it is missing in the log, which is from {page.first_seq} to {page.last_seq}")
    return LogRange(start, to, page.chain_start, last.entries[0].chain or "")


def file_of(client: Client, scope: str, stretch: LogRange) -> Iterator[str]:
    """The lines of the log file of a stretch."""
    yield header_text(
        LogHeader(
            scope=scope,
            from_seq=stretch.start,
            chain_start=stretch.chain_start,
            to=stretch.to,
            chain_end=stretch.chain_end,
        )
    )
    if stretch.to >= stretch.start:
        for page in pages_of(client, stretch.start):
            for entry in page.entries:
                if entry.seq > stretch.to:
                    return
                yield entry_text(entry)


@dataclass
class Chain:
    """A chain that is followed link by link. Nobody can change, remove or add an entry and keep its end."""

    value: bytes
    seq: int
    digests: int = 0
    """How many entries had the payload that their digest is of, and below how many had another or none."""
    redacted: int = 0
    not_kept: int = 0

    def add(self, entry: LogEntry) -> None:
        """Follow the chain to the next entry; raises `Broken` where it is another than that was."""
        if entry.seq != self.seq + 1:
            raise Broken(f"seq {entry.seq}: {self.seq + 1} is missing before it")
        digest = self._digest(entry)
        generated = None if entry.generated is None else MSGPACK.encode(entry.generated)
        self.value = link(self.value, entry.seq, entry.at, entry.id, entry.type, digest, generated)
        self.seq = entry.seq
        if entry.chain is not None and entry.chain != self.value.hex():
            raise Broken(f"seq {entry.seq}: the entry does not fit its place in the chain")

    def held(self) -> str:
        """How much of it that is: a payload that was redacted may hold anything, as far as its digest goes."""
        total = self.digests + self.redacted + self.not_kept
        said = [f"{self.digests} of {total} payloads were held against their digest"]
        if self.redacted:
            said.append(f"{self.redacted} {'is' if self.redacted == 1 else 'are'} redacted and cannot be")
        if self.not_kept:
            said.append(f"{self.not_kept} {'was' if self.not_kept == 1 else 'were'} not kept")
        return ", ".join(said)

    def _digest(self, entry: LogEntry) -> bytes:
        """What the payload is known by, held against what is there of it."""
        if entry.payload is None or entry.redacted:
            if entry.digest is None:
                raise Broken(f"seq {entry.seq}: the payload is gone, and its digest too")
            if entry.payload is not None:
                _check_redacted(entry)
            self.redacted += entry.redacted
            self.not_kept += not entry.redacted
            return bytes.fromhex(entry.digest)
        digest = digest_of(canonical(_command(entry)))
        if entry.digest is not None and digest.hex() != entry.digest:
            raise Broken(f"seq {entry.seq}: the payload is not the one that its digest is of")
        self.digests += 1
        return digest


def verify_scope(client: Client) -> Chain:
    """Follow a scope's whole log to its end; raises `Broken`."""
    chain: Chain | None = None
    for page in pages_of(client):
        before = bytes.fromhex(page.chain_start)
        if chain is None:
            first = page.first_seq
            if before != CHAIN_START:
                raise Broken(f"seq {first}: the chain does not begin with it")
            chain = Chain(before, first - 1)
        elif before != chain.value:
            raise Broken(f"seq {chain.seq}: the entry does not fit its place in the chain")
        for entry in page.entries:
            if entry.seq != first and chain.seq == first - 1:
                raise Broken(f"seq {first}: the log is said to begin with it, and begins with {entry.seq}")
            chain.add(entry)
        if not page.entries and page.last_seq != chain.seq:
            raise Broken(f"seq {chain.seq + 1}: the log ends before it, and the scope at {page.last_seq}")
    assert chain is not None  # there is at least one page
    return chain


def verify_file(lines: Iterable[bytes]) -> dict[str, tuple[Chain, bool]]:
    """Follow the chains of a file's scopes; whether each ends as its header says, for where that says so.

    Raises `Broken` or `BadLine`.
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
    """The chains of a file's scopes, each with the header that was its last, if it had any."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._headers: dict[str, LogHeader] = {}

    def begin(self, header: LogHeader) -> None:
        """Go on at a header; raises `Broken` where what stands before of its scope does not lead there."""
        scope = header.scope
        if scope in self._headers or scope in self._chains:
            self._ends_as_said(scope)
            chain = self._chain(scope)
            if chain.value.hex() != header.chain_start:
                raise Broken("what stands before does not lead to this header's chainStart")
            if header.from_seq not in (None, chain.seq + 1):
                raise Broken(
                    f"what stands before leads to seq {chain.seq}, and this header is from {header.from_seq} on"
                )
        self._headers[scope] = header

    def add(self, scope: str, entry: LogEntry) -> None:
        self._chain(scope, entry.seq).add(entry)

    def ended(self) -> dict[str, tuple[Chain, bool]]:
        """The chains, and whether a header says how each ends; raises `Broken` where that is not so."""
        scopes = {**self._headers, **self._chains} or [DEFAULT_SCOPE]  # where there is nothing there is an empty log
        return {scope: (self._chain(scope), self._ends_as_said(scope)) for scope in scopes}

    def _chain(self, scope: str, first_seq: int = 1) -> Chain:
        """The scope's chain, which begins where its header says."""
        if scope not in self._chains:
            header = self._headers.get(scope, LogHeader())
            self._chains[scope] = Chain(bytes.fromhex(header.chain_start), (header.from_seq or first_seq) - 1)
        return self._chains[scope]

    def _ends_as_said(self, scope: str) -> bool:
        header, chain = self._headers.get(scope), self._chain(scope)
        if header is not None and header.to not in (None, chain.seq):
            raise Broken(f"{scope}: the lines end with seq {chain.seq}, and their header says {header.to}")
        if header is None or header.chain_end is None:
            return False
        if header.chain_end != chain.value.hex():
            raise Broken(
                f"{scope}: the chain up to seq {chain.seq} is not the one that the header says: a line was changed"
            )
        return True


def _check_redacted(entry: LogEntry) -> None:
    """Raise `Broken` where what people said still stands in a command that it is said to be taken out of.

    Of a batch, which member that is about is not known: there must be one.
    """
    command = _command(entry)
    members: list[Any] = command.commands if isinstance(command, Batch) else [command]
    if all(redacted(member) != member for member in members):
        raise Broken(f"seq {entry.seq}: it is said to be redacted, and is not: what was said still stands there")


def _command(entry: LogEntry) -> Command[object]:
    if isinstance(entry.payload, Command):
        return entry.payload
    try:
        command = read_operation(entry.type, Raw(MSGPACK.encode(entry.payload)), MSGPACK, UNLIMITED)
    except BackscrollError as error:
        raise Broken(f"seq {entry.seq}: {error.message}") from None
    if not isinstance(command, Command):
        raise Broken(f"seq {entry.seq}: {entry.type!r} is no command")
    return command
