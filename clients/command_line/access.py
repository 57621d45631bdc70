"""`backscroll token` and `backscroll keys`: who may call the daemon over tcp, and who may connect over CURVE."""

import argparse
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import zmq

from backscroll.clients.command_line import output
from backscroll.clients.command_line.exits import EXIT_USAGE, complain
from backscroll.clients.python.client import Client
from backscroll.clients.python.daemon_access import clients_of, holds_database
from backscroll.schema.operations import AddKey, CreateToken, ListKeys, ListTokens, RevokeKey, RevokeToken
from backscroll.schema.paths import default_data_dir, store_of
from backscroll.schema.wire import DEFAULT_SCOPE

UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def token_create(options: argparse.Namespace) -> int:
    """Make a token, list its hash, and print it once."""
    expires_at = None
    if options.expires is not None:
        duration = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", options.expires)
        if duration is None:
            return complain(f"--expires: give a duration such as 30d, 12h or 90m, not {options.expires!r}", EXIT_USAGE)
        expires_at = time.time_ns() // 1_000_000 + int(duration[1]) * UNITS_MS[duration[2]]
    token = f"{options.name}.{secrets.token_urlsafe(32)}"
    with _daemon(options, new=True) as client:
        client.execute(CreateToken.of(token, options.name, options.right, options.scope, expires_at))
    sys.stdout.write(f"{token}\n")
    sys.stderr.write("backscroll: this token is shown only now; clients find it in BACKSCROLL_TOKEN\n")
    return 0


def token_list(options: argparse.Namespace) -> int:
    """Print a line for each token."""
    with _daemon(options) as client:
        tokens = client.execute(ListTokens())
    rows = [
        [
            each.name,
            each.right,
            "all" if each.scopes is None else ", ".join(map(output.printable, each.scopes)),
            _day(each.created_at),
            "never" if each.expires_at is None else _expiry(each.expires_at),
        ]
        for each in tokens
    ]
    output.console(sys.stdout).print(output.table(["name", "right", "scopes", "created", "expires"], rows))
    return 0


def token_revoke(options: argparse.Namespace) -> int:
    """Refuse a token from now on."""
    with _daemon(options) as client:
        client.execute(RevokeToken(options.name))
    return 0


def keys_create(options: argparse.Namespace) -> int:
    """Make a client's key pair, list its public key, and print it once or write it into a new file."""
    public_key, secret_key = (key.decode() for key in zmq.curve_keypair())
    with _daemon(options, new=True) as client:
        server_key = client.execute(ListKeys()).server_key
        keys = json.dumps({"serverKey": server_key, "publicKey": public_key, "secretKey": secret_key})
        if options.to is not None:
            _write_new(Path(options.to), f"{keys}\n")
        try:
            client.execute(AddKey(options.name, public_key))
        except BaseException:
            if options.to is not None:
                Path(options.to).unlink()
            raise
    if options.to is None:
        sys.stdout.write(f"{keys}\n")
        sys.stderr.write("backscroll: the secret key is shown only now\n")
    return 0


def _write_new(path: Path, text: str) -> None:
    """Write a private file that does not exist yet, whole or not at all; raises FileExistsError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileExistsError(f"--to: {path} exists already; name a new file") from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except BaseException:
        path.unlink()
        raise


def keys_list(options: argparse.Namespace) -> int:
    """Print a line for each client key."""
    with _daemon(options) as client:
        keys = client.execute(ListKeys()).keys
    rows = [[each.name, each.public_key, _day(each.created_at)] for each in keys]
    output.console(sys.stdout).print(output.table(["name", "public key", "created"], rows))
    return 0


def keys_revoke(options: argparse.Namespace) -> int:
    """Let no more connections in with a key."""
    with _daemon(options) as client:
        client.execute(RevokeKey(options.name))
    return 0


def keys_server(options: argparse.Namespace) -> int:
    """Print the daemon's public key."""
    with _daemon(options) as client:
        sys.stdout.write(f"{client.execute(ListKeys()).server_key}\n")
    return 0


@contextmanager
def _daemon(options: argparse.Namespace, *, new: bool = False) -> Iterator[Client]:
    """A client of the daemon that was named, or of one that is started for as long as this takes.

    For what is `new`, the directory may be, too; at the end, standard error gets a line about which daemon it is for.
    """
    directory = (options.data_dir or default_data_dir()).absolute()
    was_used = holds_database(directory)
    with clients_of(options.endpoint, options.data_dir, new=new) as clients:
        yield clients[DEFAULT_SCOPE]
    if not new:
        return
    if not clients.is_private:
        where = f"at {options.endpoint}" if options.endpoint else f"in {directory}"
        others = "" if options.endpoint or not store_of(directory) else ", and all others on its database"
        sys.stderr.write(f"backscroll: {options.name!r} is for the daemon {where}{others}\n")
        return
    sys.stderr.write(f"backscroll: {options.name!r} is for the daemons that will be started in {directory}\n")
    if was_used:
        sys.stderr.write("backscroll: no daemon is running there now\n")
    else:
        sys.stderr.write("backscroll: this directory is new; if your daemon has another, name that with --data-dir\n")


def _expiry(at_ms: int) -> str:
    has_expired = at_ms <= time.time_ns() // 1_000_000
    return f"{_day(at_ms)}{' (expired)' if has_expired else ''}"


def _day(at_ms: int) -> str:
    """A time as text, in UTC."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return str(at_ms)
