"""SQLite as a service over ZeroMQ: sqlite-rx, whose requests are SQL.

A save is one request, a script with the values written into it: it has no other way to make several statements one
transaction without a round trip for each, and without statements of other clients in between. Its own client sends one
request at a time; for many in flight the same requests are sent by a bare socket. A page is two requests.

The package is fetched once into `.packages` beside this file, where nothing else uses it.
"""

import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from backscroll.schema import Message
from tests import ROOT
from tests.bench import tables
from tests.bench.measuring import seconds
from tests.bench.sockets import TIMEOUT_MS, Dealer
from tests.bench.tables import make_file
from tests.bench.work import PAGE, NotHere, Page, Way, Work

REQUIREMENT = "sqlite-rx==1.3.*"
PACKAGES = Path(__file__).parent / ".packages"
INSTALL_SECONDS = 120
ALLOW = {sqlite3.SQLITE_OK: {sqlite3.SQLITE_DELETE, sqlite3.SQLITE_PRAGMA}}  # which it denies and ignores by default


def serve(endpoint: str, database: str) -> None:
    """Run its server in this process until it is ended."""
    install()
    from sqlite_rx.server import SQLiteServer

    SQLiteServer(endpoint, database, auth_config=ALLOW).run()


class SqliteRx:
    """Its server in a process of its own, used by its client or by a bare socket."""

    name = "sqlite-rx"

    def __init__(self, directory: Path) -> None:
        install()
        from sqlite_rx.client import SQLiteClient

        directory.mkdir()
        self.file = make_file(directory / "rx.db")
        endpoint = f"ipc://{directory / 'rx.sock'}"
        self._process = subprocess.Popen([sys.executable, "-m", "tests.bench.rx", endpoint, str(self.file)], cwd=ROOT)
        self._client = SQLiteClient(endpoint)
        self._dealer = Dealer(endpoint)
        self._ask("PRAGMA synchronous = FULL")
        self._ask("PRAGMA cache_size = -16384")
        [[synchronous]] = self._ask("PRAGMA synchronous")
        assert synchronous == 2, synchronous

    def save(self, work: Work, way: Way) -> float:
        if way.in_flight > 1:
            return self._pipelined(work, way)
        return seconds(lambda: [self._ask(_script(message), execute_script=True) for message in work.messages])

    def read(self, work: Work, _way: Way, _operation: str) -> float:
        return seconds(lambda: [self._newest(room) for room in work.visits])

    def read_back(self, work: Work) -> list[Page]:
        return [self._newest(room) for room in work.rooms]

    def close(self) -> None:
        self._client.cleanup()
        self._dealer.close()
        self._process.kill()  # terminated, it may wait for ever for a reader
        self._process.wait()

    def _pipelined(self, work: Work, way: Way) -> float:
        requests = ([b"", _packed(_script(message), execute_script=True)] for message in work.messages)
        replies: list[bytes] = []
        took = seconds(lambda: replies.extend(self._dealer.exchange(requests, way.in_flight)))
        assert not any(msgspec.msgpack.decode(zlib.decompress(reply))["error"] for reply in replies)
        return took

    def _newest(self, room: str) -> Page:
        messages = self._ask(tables.SELECT_NEWEST, room, PAGE)
        return tables.page_of(messages, self._ask(tables.SELECT_REACTIONS, room, PAGE))

    def _ask(self, sql: str, *values: Any, **options: Any) -> Any:
        reply = self._client.execute(sql, *values, request_timeout=TIMEOUT_MS, **options)
        if reply["error"]:
            raise RuntimeError(f"sqlite-rx: {reply['error']}")
        return reply["items"]


def install() -> None:
    """Make `sqlite_rx` importable, fetching it if needed; raises `NotHere`."""
    if importlib.util.find_spec("sqlite_rx"):
        return
    sys.path.append(str(PACKAGES))
    if importlib.util.find_spec("sqlite_rx"):
        return
    if not (uv := os.environ.get("UV") or shutil.which("uv")):
        raise NotHere("sqlite-rx is not installed, and there is no uv to fetch it with")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(PACKAGES), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise NotHere(f"uv cannot install sqlite-rx: {done.stderr.strip()[-500:]}")
    importlib.invalidate_caches()


def _packed(sql: str, *values: Any, **options: bool) -> bytes:
    """A request as its client encodes it."""
    request = {"client_id": "bench", "query": sql, "params": values, "execute_many": False, **options}
    return zlib.compress(msgspec.msgpack.encode(request))


def _script(message: Message) -> str:
    """A save as one transaction."""
    statements = [
        "BEGIN IMMEDIATE",
        _filled(tables.insert("messages", tables.MESSAGE, "INSERT OR REPLACE"), tables.message_row(message)),
        _filled(tables.DELETE_REACTIONS, (message.id,)),
        *_inserts_of_reactions(message),
        "COMMIT",
    ]
    return ";\n".join(statements)


def _inserts_of_reactions(message: Message) -> Iterator[str]:
    sql = tables.insert("reactions", tables.REACTION)
    for reaction in message.reactions or []:
        yield _filled(sql, tables.reaction_row(reaction))


def _filled(sql: str, values: tuple[Any, ...]) -> str:
    """A statement with its values written into it; no text here has a NUL."""
    return sql.replace("?", "{}").format(*map(_literal, values))


def _literal(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


if __name__ == "__main__":
    serve(*sys.argv[1:])
