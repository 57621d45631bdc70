"""Stores with known contents whose files are damaged in known places, for tests of repairs."""

import base64
import itertools
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from backscroll.bus.sqlite.maintenance.backups import take_backup
from backscroll.schema.tables import TABLES
from tests.support.clocks import Clock
from tests.support.local import Local
from tests.support.messages import message_document
from tests.support.random_commands import RandomCommands

DATABASE = "default.db"
LOG_TABLES = ("commands", "sqlite_autoindex_commands_1")
OF_THE_FILE = ("sqlite_schema", "sequence", "scope")
SECOND_HALF = 1_780_000_000_000  # ms since the epoch
Contents = dict[str, set[tuple[Any, ...]]]


def no_progress(_step: str, _done: int, _total: int | None) -> None:
    """For work that nobody waits for."""


class Page(NamedTuple):
    """A page: what is stored there, of which kind it is, its path in the tree, and how many cells it has."""

    name: str
    number: int
    kind: str
    path: str
    cells: int


class History:
    """A store with known contents: backed up half-way and later (`backups`), killed (`killed`), stopped (`stopped`)."""

    def __init__(self, directory: Path, seed: int, size: int = 350) -> None:
        self.backups, self.killed, self.stopped = (directory / name for name in ("backups", "killed", "stopped"))
        data = directory / "data"
        draw, commands = random.Random(seed), RandomCommands(seed)
        self.sent: list[tuple[str, Any, str]] = []
        self.seqs: dict[str, int] = {}  # of requests, by their ids
        self.cursor = ""  # in the first half of the feed
        with Local(data) as local:
            self._fill(local, draw, commands, size, "a")
            self.cursor = local.result("get-changes", {"after": "now"})["cursor"]
            take_backup(local.scopes, self.backups, no_progress, stopped=True)
        with Local(data, clock=Clock(SECOND_HALF)) as local:
            self._fill(local, draw, commands, size // 2, "b")
            take_backup(local.scopes, self.backups, no_progress, stopped=True)
            self._fill(local, draw, commands, size - size // 2, "c")
            shutil.copytree(data, self.killed)
        shutil.copytree(data, self.stopped)
        for each in (self.killed, self.stopped):
            (each / "lock").unlink(missing_ok=True)
            (each / "pid").unlink(missing_ok=True)
        self.contents = contents_of(self.stopped / DATABASE)
        self.pages = pages_of(self.stopped / DATABASE)
        self.columns = {table._meta.table_name: list(table._meta.fields) for table in TABLES}

    def _fill(self, local: Local, draw: random.Random, commands: RandomCommands, size: int, half: str) -> None:
        for number in range(size):
            name, payload = _command(draw, commands, f"{half}{number}")
            request_id = f"{half}-{number:05}"
            local.clock.now += draw.randrange(100_000)  # type: ignore[attr-defined]
            reply = local.ask(name, payload, request_id)
            if reply["ok"]:
                commands.learn(name, payload, reply["result"])
                self.seqs[request_id] = reply["seq"]
                if name == "save-message":
                    self.sent.append((name, payload, request_id))


NEVER = ("clear-all-data", "delete-room", "clear-room-messages", "delete-messages-before", "delete-expired-messages")


def _command(draw: random.Random, commands: RandomCommands, name: str) -> tuple[str, Any]:
    kind = draw.random()
    if kind < 0.55:
        content = f"text {name} " + "x" * draw.choice([0, 0, 20, 300, 900, 6_000])
        document = message_document(name, content, draw.choice(["r1", "r2", "r3"]), timestamp=draw.randrange(10**6))
        return "save-message", {"message": document}
    if kind < 0.6:
        member = {"oderId": f"member {name}", "displayName": f"The member {name}"}
        return "save-member", {"roomId": draw.choice(["r1", "r2"]), "member": member}
    if kind < 0.63:
        return "save-room", {
            "room": {"id": draw.choice(["r1", "r2", "r3"]), "name": f"room {name}", "password": "secret"}
        }
    if kind < 0.66:
        data = base64.b64encode(f"part {name} ".encode() * draw.randrange(1, 200)).decode()
        return "put-media-part", {"data": data}
    while True:
        drawn = commands.next()
        if drawn[0] not in NEVER:
            return drawn


def contents_of(path: Path) -> Contents:
    """All rows of all tables of a closed file, but not what the file says of itself."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        names = [str(table._meta.table_name) for table in TABLES]
        kept = [name for name in names if name not in OF_THE_FILE]
        return {name: set(connection.execute(f"SELECT * FROM {name}")) for name in kept}


def pages_of(path: Path) -> list[Page]:
    """The pages of a closed file, those of no table left out."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        rows: Any = connection.execute("SELECT name, pageno, pagetype, path, ncell FROM dbstat")
        return [Page(*row) for row in rows]


class Damage(NamedTuple):
    """What is done to a file: to these pages, each in this way."""

    words: str
    pages: list[Page]
    do: Callable[[Path], None]


def one_bit(draw: random.Random, pages: list[Page]) -> Damage:
    page, at, bit = draw.choice(pages), draw.randrange(4096), draw.randrange(8)
    return Damage("one bit", [page], _changed(page, lambda old: _flipped(old, at, bit)))


def many_bytes(draw: random.Random, pages: list[Page]) -> Damage:
    page, at, noise = draw.choice(pages), draw.randrange(3_400), draw.randbytes(600)
    return Damage("600 bytes", [page], _changed(page, lambda old: old[:at] + noise + old[at + 600 :]))


def zeroed(draw: random.Random, pages: list[Page]) -> Damage:
    page = draw.choice(pages)
    return Damage("a page zeroed", [page], _changed(page, lambda old: bytes(len(old))))


def several_pages(draw: random.Random, pages: list[Page]) -> Damage:
    chosen = draw.sample(pages, min(len(pages), draw.randrange(2, 12)))

    def do(path: Path) -> None:
        for page in chosen:
            _changed(page, lambda old: _flipped(old, 1_000, 3))(path)

    return Damage("several pages", chosen, do)


def interior(draw: random.Random, pages: list[Page]) -> Damage:
    return zeroed(draw, [page for page in pages if page.kind == "internal"])._replace(words="an interior page")


def header(_draw: random.Random, pages: list[Page]) -> Damage:
    first = [page for page in pages if page.number == 1]
    return Damage("the header page", first, _changed(first[0], lambda old: bytes(len(old))))


def shortened(draw: random.Random, pages: list[Page]) -> Damage:
    last = max(page.number for page in pages)
    left = draw.randrange(last * 3 // 4, last)

    def do(path: Path) -> None:
        with path.open("rb+") as file:
            file.truncate(left * 4096 - draw.choice([0, 1_000]))

    return Damage("shortened", [page for page in pages if page.number >= left], do)


def log_flipped(draw: random.Random, _pages: list[Page]) -> Damage:
    def do(path: Path) -> None:
        log = path.with_name(f"{path.name}-wal")
        data = log.read_bytes()
        log.write_bytes(_flipped(data, draw.randrange(32, len(data)), draw.randrange(8)))

    return Damage("one bit of the `-wal`", [], do)


def log_overwritten(draw: random.Random, _pages: list[Page]) -> Damage:
    def do(path: Path) -> None:
        log = path.with_name(f"{path.name}-wal")
        data, at = log.read_bytes(), draw.randrange(log.stat().st_size - 20_000)
        log.write_bytes(data[:at] + draw.randbytes(20_000) + data[at + 20_000 :])

    return Damage("20,000 bytes of the `-wal`", [], do)


def log_shortened(draw: random.Random, _pages: list[Page]) -> Damage:
    def do(path: Path) -> None:
        log = path.with_name(f"{path.name}-wal")
        with log.open("rb+") as file:
            file.truncate(draw.randrange(log.stat().st_size // 2, log.stat().st_size))

    return Damage("the `-wal` shortened", [], do)


DAMAGES_OF_LOG = (log_flipped, log_overwritten, log_shortened)
DAMAGES = (one_bit, many_bytes, zeroed, several_pages, interior, header, shortened)


def rows_below(pages: list[Page], damaged: list[Page], table: str) -> int:
    """How many rows of a table are on damaged pages, or on pages that only these lead to; at most."""
    numbers = {page.number for page in damaged}
    bad = [page for page in damaged if page.name == table]
    below = [
        page
        for page in pages
        if page.name == table and (page.number in numbers or any(_is_below(page, each) for each in bad))
    ]
    return sum(1 if page.kind == "overflow" else page.cells for page in below)


def _is_below(page: Page, other: Page) -> bool:
    return other.kind == "internal" and page.path.startswith(other.path) and page.path != other.path


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def _changed(page: Page, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        with path.open("rb+") as file:
            file.seek((page.number - 1) * 4096)
            old = file.read(4096)
            file.seek((page.number - 1) * 4096)
            file.write(change(old))

    return do


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of a data directory that a repair may replace."""
    found = itertools.chain(directory.glob("default*"), directory.glob("*.json"), directory.glob("default.media/*/*"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found if path.is_file()}
