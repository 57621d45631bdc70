"""How clients find a daemon: the default data directory, and the files in it that daemons write for them."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

ENDPOINT_FILE = "endpoint.json"
"""A ready daemon writes this file into its data directory: the same JSON object as its ready line. If it cannot write
there, the file is in `runtime_dir`."""

STORE_FILE = "store.json"
"""A daemon whose data is in a database writes this file into its data directory: `{"store": ADDRESS}`, which has no
password in it. No daemon is started on files there then."""

OWN_TOOLS = (
    "the data is in PostgreSQL, whose own tools check it and back it up: pg_amcheck, pg_dump, pg_basebackup and"
    " the archive of its write-ahead log"
)
"""Why there are no checks and backups of such data, neither by the daemon nor without one."""

STORE_VARIABLE = "BACKSCROLL_STORE"
"""The environment variable with the address of the database for a daemon's data."""

TOKEN_VARIABLE = "BACKSCROLL_TOKEN"
"""The environment variable with the token that clients send over tcp."""

KEYS_VARIABLE = "BACKSCROLL_KEYS"
"""The environment variable that names a client's file with the keys for a `curve://` endpoint."""


def default_data_dir() -> Path:
    """The directory named by `BACKSCROLL_DATA_DIR`, or else the platform's directory for user data.

    Raises `FileNotFoundError` for a user without a home directory, as in a container that knows no users, and for an
    address in the variable.
    """
    try:
        if named := os.environ.get("BACKSCROLL_DATA_DIR"):
            if "://" in named:
                raise FileNotFoundError("BACKSCROLL_DATA_DIR is an address, not a path; name a data directory")
            return Path(named).expanduser()
        return platformdirs.user_data_path("backscroll", appauthor=False)
    except RuntimeError as error:
        raise FileNotFoundError(f"{error}; or name a data directory (--data-dir, BACKSCROLL_DATA_DIR)") from error


def store_of(directory: Path) -> str | None:
    """The address of the database that has the data of the daemons in this directory; None if files have it."""
    try:
        noted = json.loads((directory / STORE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    store = noted.get("store") if isinstance(noted, dict) else None
    return store if isinstance(store, str) else None


def start_command(directory: Path) -> str:
    """What to type to start a daemon on a data directory, with the address of its database if it has one."""
    from shlex import quote  # for messages alone

    store = store_of(directory)
    return f"backscroll serve{f' --store {quote(store)}' if store else ''} --data-dir {directory}"


def runtime_dir(data_dir: Path) -> Path:
    """Where the socket and the endpoint file of a daemon are that cannot write into its data directory.

    A directory below that for runtime files of this user (`XDG_RUNTIME_DIR`), or else below that for temporary files.
    """
    parent = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    user = os.getuid() if hasattr(os, "getuid") else "user"
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return Path(parent) / f"backscroll-{user}" / digest
