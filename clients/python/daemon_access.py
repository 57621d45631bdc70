"""Access to a data directory: through the daemon that serves it, or else through one that is started temporarily.

Nothing here opens a database itself; the daemon's lock on the directory prevents concurrent use. No daemon is started
where the data is in a database: the user's own knows how to reach that.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TextIO

from backscroll.clients.python.address import announced
from backscroll.clients.python.client import Client, ZmqTransport
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.errors import Invalid, NoReply, Unavailable
from backscroll.schema.operations import GetScopeInfo, Health
from backscroll.schema.paths import OWN_TOOLS, STORE_VARIABLE, default_data_dir, start_command, store_of
from backscroll.schema.wire import DEFAULT_SCOPE

PING_MS = 1_000  # a daemon that does not answer in this time was killed and has left its address behind
TIMEOUT_MS = 60_000  # for a thousand commands on a slow disk
CHORES_MS = 2**31 - 1  # never, so that media parts from an old log are not removed before they are used


class CannotReach(Exception):
    """There is no daemon or no such scope, and no database to start a daemon on; the message says what to do."""


class Clients:
    """The clients of one daemon by scope, on one socket. Use it from one thread at a time."""

    def __init__(self, endpoint: str | None, data_dir: Path | None = None, *, is_private: bool = False) -> None:
        self.is_private = is_private
        """Whether the daemon was started for these clients."""
        self._transport = ZmqTransport(endpoint, data_dir)
        self._clients: dict[str, Client] = {}

    def __getitem__(self, scope: str) -> Client:
        if scope not in self._clients:
            self._clients[scope] = Client(transport=self._transport, scope=scope, timeout_ms=TIMEOUT_MS)
        return self._clients[scope]

    def existing(self, scope: str) -> Client:
        """The client of an existing scope; raises `CannotReach` if there is none."""
        if scope != DEFAULT_SCOPE and not self[scope].execute(GetScopeInfo()).bytes:
            raise CannotReach(f"there is no scope {scope!r}; `backscroll call list-scopes` lists those there are")
        return self[scope]

    def close(self) -> None:
        self._transport.close()


@contextmanager
def clients_of(endpoint: str | None, data_dir: Path | None, *, new: bool = False) -> Iterator[Clients]:
    """Clients of the daemon at `endpoint`, or of the one that serves the data directory, or else of one started on it.

    Raises `CannotReach` if the directory holds no database and may not be `new`, or if its data is in PostgreSQL, and
    `Unavailable` if the started daemon is not ready.
    """
    directory = data_dir or default_data_dir()
    is_private = endpoint is None and not _is_served(directory)
    with ExitStack() as stack:
        if is_private:
            _check_has_files(directory)
            if not new and not holds_database(directory):
                raise CannotReach(f"{directory} holds no database; name the data directory of a daemon")
            stack.enter_context(private_daemon(directory))
        yield stack.enter_context(closing(Clients(endpoint, directory, is_private=is_private)))


@contextmanager
def private_daemon(directory: Path, *, log: TextIO | None = None) -> Iterator[DaemonProcess]:
    """A temporary daemon on a directory. It ignores the user's settings file and `BACKSCROLL_*` variables.

    `log` is a file for its log lines (default: this process's standard error).
    """
    with tempfile.TemporaryDirectory(prefix="backscroll-") as private:
        settings = Path(private) / "backscroll.toml"
        settings.touch()
        address = "tcp://127.0.0.1:*" if os.name == "nt" else f"ipc://{private}/sock"
        flags = ("--endpoint", address, "--log-level", "warning", "--chores-ms", str(CHORES_MS))
        with DaemonProcess(directory, *flags, log=log, env=_plain_environment(settings)) as daemon:
            yield daemon


def _plain_environment(settings: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("BACKSCROLL_")}
    return others | {"BACKSCROLL_CONFIG": str(settings)}


def holds_database(directory: Path) -> bool:
    """Whether a daemon has stored anything in this directory."""
    return any(True for pattern in ("default.db*", "scopes/*") for _ in directory.glob(pattern))


def check_maintainable(endpoint: str | None, data_dir: Path | None) -> None:
    """Raise `Invalid` for checks and backups of a directory whose data is in a database, whether or not a daemon runs.

    The daemon at an endpoint says so itself.
    """
    if endpoint is None and store_of(data_dir or default_data_dir()) is not None:
        raise Invalid(OWN_TOOLS)


def _check_has_files(directory: Path) -> None:
    """Raise `CannotReach` for a directory whose daemons have their data in a database, or would have it there."""
    if store_of(directory) is not None:
        start = start_command(directory)
        raise CannotReach(f"the data of {directory} is in PostgreSQL, and no daemon is running there: run `{start}`")
    if os.environ.get(STORE_VARIABLE) and not holds_database(directory):
        start = start_command(directory)
        raise CannotReach(f"{STORE_VARIABLE} names a database, and no daemon is running in {directory}: run `{start}`")


def _is_served(directory: Path) -> bool:
    """Whether a daemon serves a directory; raises the error of one that answers but cannot be asked."""
    pid = announced(directory).get("pid")
    try:
        with Client(data_dir=directory, timeout_ms=PING_MS) as client:
            return client.ask(Health()).pid == pid
    except (Unavailable, NoReply):
        return False
