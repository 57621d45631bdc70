"""A data directory with a dispatcher in this process: for tests of logs, replays and the bytes of files."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import apsw

from backscroll.bus.directory import locked
from backscroll.bus.dispatch import Dispatcher
from backscroll.handlers.storage import Retention
from backscroll.schema.tables import Rooms
from backscroll.schema.wire import DEFAULT_SCOPE, JSON, MSGPACK, Codec
from tests.support.clocks import Clock
from tests.support.requests import body
from tests.support.sql import sql
from tests.support.status import status_of
from tests.support.stores import scopes_in
from tests.support.tables import LINEAGE_AT, bytes_in_databases, every_row, parts_of

Plain = dict[str, Any]
Tables = dict[str, list[tuple[Any, ...]]]

PASSWORD_AT = list(Rooms._meta.fields).index("password")
REPLAYED = "replayed"
"""The scope that logs are replayed into."""


class Local:
    """A daemon without its sockets. `retention` determines what the command log stores."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], int] | None = None,
        retention: Retention | None = None,
        vfs: str = "",
    ) -> None:
        self.directory = directory
        self.clock = clock or Clock()
        self._numbers = itertools.count(1)
        with ExitStack() as stack:
            stack.enter_context(locked(directory))
            self.scopes = scopes_in(directory, stack, clock=self.clock, retention=retention, vfs=vfs)
            self.scopes.open(DEFAULT_SCOPE)
            self._stack = stack.pop_all()
        self.dispatcher = Dispatcher(self.scopes, status_of(self.scopes))

    def ask(
        self,
        operation: str,
        payload: Any = None,
        request_id: str = "",
        *,
        scope: str = DEFAULT_SCOPE,
        codec: Codec = JSON,
    ) -> Plain:
        """The reply to a request; its id is a new one unless it is given."""
        request = body(
            operation,
            {} if payload is None else payload,
            codec,
            id=request_id or f"local-{next(self._numbers):08}",
            scope=scope,
        )
        answer = self.dispatcher.answer(request)
        self.settle(scope)
        return codec.decode(answer, dict[str, Any])

    def settle(self, scope: str) -> None:
        """Remove what is left of cleared rooms."""
        while self.dispatcher.remove_cleared(scope):
            pass

    def answer(self, request: bytes) -> bytes:
        return self.dispatcher.answer(request)

    def result(self, operation: str, payload: Any = None, request_id: str = "", **where: Any) -> Any:
        """The result of a request that must succeed."""
        reply = self.ask(operation, payload, request_id, **where)
        assert reply["ok"], reply
        return reply["result"]

    def code(self, operation: str, payload: Any = None, request_id: str = "", **where: Any) -> str:
        """The code of the error that a request must get."""
        reply = self.ask(operation, payload, request_id, **where)
        assert not reply["ok"], reply
        return str(reply["error"]["code"])

    def store(self, scope: str = DEFAULT_SCOPE) -> Any:
        return self.scopes.open(scope)

    def entries(self, scope: str = DEFAULT_SCOPE, *, limit: int = 500, codec: Codec = MSGPACK) -> list[Plain]:
        """The whole log as plain values, read page by page; each page must continue the one before."""
        found: list[Plain] = []
        while True:
            from_seq = found[-1]["seq"] + 1 if found else 1
            page = self.result("get-log", {"fromSeq": from_seq, "limit": limit}, scope=scope, codec=codec)
            assert page["chainStart"] == (found[-1]["chain"] if found else "0" * 64)
            if not page["entries"]:
                assert page["lastSeq"] == (found[-1]["seq"] if found else 0)
                return found
            assert [each["seq"] for each in page["entries"]] == list(range(from_seq, from_seq + len(page["entries"])))
            found += page["entries"]

    def replay(
        self, entries: Sequence[Plain], scope: str = REPLAYED, *, at_once: int = 100, codec: Codec = MSGPACK
    ) -> None:
        """Append a log, so many entries in a request."""
        for first in range(0, len(entries), at_once):
            self.result("append-log", {"entries": entries[first : first + at_once]}, scope=scope, codec=codec)

    def tables(self, scope: str = DEFAULT_SCOPE) -> Tables:
        """Every row of every table, read directly from the database, without what the file says of itself: its scope,
        and how many transactions it has seen.
        """
        found = {name: sorted(rows, key=repr) for name, rows in every_row(self.store(scope)).items()}
        found["sequence"] = [row[:LINEAGE_AT] for row in found["sequence"]]
        return found

    def state(self, scope: str = DEFAULT_SCOPE) -> Tables:
        """What a replay must reproduce: all rows but those of the log and of its internal references, no secrets."""
        found = self.tables(scope)
        found["rooms"] = [row[:PASSWORD_AT] + row[PASSWORD_AT + 1 :] for row in found["rooms"]]
        found["sequence"] = [row[:3] for row in found["sequence"]]
        payloads = {row[0]: row[4] for row in found.pop("commands")}
        found["log_references"] = [row for row in found["log_references"] if payloads[row[3]] is not None]
        return found

    def rows(self, table: str, scope: str = DEFAULT_SCOPE, *, limit: int = 500) -> list[Plain]:
        """Every row of a table by `get-rows`, page by page."""
        found: list[Plain] = []
        after = None
        while True:
            page = self.result("get-rows", {"table": table, "after": after, "limit": limit}, scope=scope)
            found += page["rows"]
            after = page.get("next")
            if after is None:
                return found

    def parts(self, scope: str = DEFAULT_SCOPE) -> dict[str, bytes]:
        """The files of the parts that are in some media, by name."""
        store = self.store(scope)
        with store.read() as snapshot:
            names = {row[0] for row in snapshot.rows(sql("SELECT sha256 FROM media_parts"))}
        return {name: data for name, data in parts_of(store).items() if name in names}

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def comparable(entries: Iterable[Plain]) -> list[Plain]:
    """Entries without what a scope may drop by itself: the bytes of parts that are in no media."""
    parts = {"payload": None, "redacted": None, "salt": None}
    return [entry | parts if entry["type"] == "put-media-part" else entry for entry in entries]


def without_redaction(entries: Iterable[Plain]) -> list[Plain]:
    """The entries without their payloads, which redaction changes."""
    hidden = {"payload": None, "redacted": None}
    return [entry | hidden for entry in entries]


def check_replay(local: Local, replayed: str, scope: str = DEFAULT_SCOPE) -> None:
    """Compare a replay with its original: rows, numbers, media, log and chain are equal."""
    wanted, found = local.state(scope), local.state(replayed)
    for table, rows in wanted.items():
        assert found[table] == rows, table
    assert found.keys() == wanted.keys()
    assert local.parts(replayed) == local.parts(scope)
    assert comparable(local.entries(replayed)) == comparable(local.entries(scope))


def bytes_in(directory: Path) -> dict[str, bytes]:
    """The raw bytes of every file below a directory, and of the rows that its data directories have in databases."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_socket())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files} | bytes_in_databases(directory)


def found_in(directory: Path, *texts: str) -> dict[str, list[str]]:
    """Which of these texts are stored below a directory, and in which files, or tables of which scopes."""
    files = bytes_in(directory)
    return {
        text: where
        for text in texts
        if (where := [name for name, content in files.items() if text.encode() in content])
    }


def integrity(path: Path) -> str:
    """SQLite's integrity check of a closed database file."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return str(connection.pragma("integrity_check"))


__all__ = ["JSON", "MSGPACK", "REPLAYED", "Local", "bytes_in", "check_replay", "comparable", "found_in", "integrity"]
