"""Access to a data directory: through the daemon that serves it, or else through one that is started temporarily.

Nothing here opens a database itself; the daemon's lock on the directory prevents concurrent use.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

from backscroll.clients.python.client import Client, ZmqTransport
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.listing import items_of
from backscroll.schema.errors import BackscrollError
from backscroll.schema.operations import Health, ListScopes
from backscroll.schema.paths import ENDPOINT_FILE, default_data_dir
from backscroll.schema.wire import DEFAULT_SCOPE

PING_MS = 1_000  # a daemon that does not answer in this time was killed and has left its address behind
TIMEOUT_MS = 60_000  # for a thousand commands on a slow disk
CHORES_MS = 2**31 - 1  # never, so that media parts from an old log are not removed before they are used


class CannotReach(Exception):
    """There is no daemon or no such scope, and no database to start a daemon on; the message says what to do."""


class Clients:
    """The clients of one daemon by scope, on one socket. Use it from one thread at a time."""

    def __init__(self, endpoint: str, data_dir: Path | None = None, *, is_private: bool = False) -> None:
        self.is_private = is_private
        """Whether the daemon was started for these clients."""
        self._transport = ZmqTransport(endpoint, data_dir)
        self._clients: dict[str, Client] = {}

    def __getitem__(self, scope: str) -> Client:
        if scope not in self._clients:
            self._clients[scope] = Client(transport=self._transport, scope=scope, timeout_ms=TIMEOUT_MS)
        return self._clients[scope]

    def existing(self, scope: str) -> Client:
        """The client of an existing scope; raises `CannotReach` if there is none, because a query would create it."""
        names = list(items_of(self[DEFAULT_SCOPE], ListScopes()))
        if scope not in names:
            raise CannotReach(f"there is no scope {scope!r}; the scopes are: {', '.join(map(repr, names))}")
        return self[scope]

    def close(self) -> None:
        self._transport.close()


@contextmanager
def clients_of(endpoint: str | None, data_dir: Path | None, *, new: bool = False) -> Iterator[Clients]:
    """Clients of the daemon at `endpoint`, or of the one that serves the data directory, or else of one started on it.

    Raises `CannotReach` if the directory holds no database and may not be `new`, and `Unavailable` if the started
    daemon is not ready.
    """
    with (
        _endpoint_of(endpoint, data_dir, new=new) as (found, is_private),
        closing(Clients(found, data_dir, is_private=is_private)) as clients,
    ):
        yield clients


@contextmanager
def _endpoint_of(endpoint: str | None, data_dir: Path | None, *, new: bool) -> Iterator[tuple[str, bool]]:
    directory = data_dir or default_data_dir()
    found = endpoint or _running_in(directory)
    if found is not None:
        yield found, False
    elif not new and not holds_database(directory):
        raise CannotReach(f"{directory} holds no database; name the data directory of a daemon")
    else:
        with private_daemon(directory) as daemon:
            yield daemon.endpoint, True


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


def _running_in(directory: Path) -> str | None:
    """The address of the daemon that serves a directory, or None."""
    try:
        ready = json.loads((directory / ENDPOINT_FILE).read_text(encoding="utf-8"))
        endpoint, pid = str(ready["endpoints"][0]), ready["pid"]
        with Client(endpoint, data_dir=directory, timeout_ms=PING_MS) as client:
            return endpoint if client.ask(Health()).pid == pid else None
    except (OSError, ValueError, LookupError, TypeError, BackscrollError):  # there is none, or it does not answer
        return None
