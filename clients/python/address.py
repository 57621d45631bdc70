"""Where a daemon is and what it takes to be served there: its endpoint, a token over tcp, keys for CURVE."""

import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple, Self

from backscroll.schema.errors import Invalid, Unauthenticated, Unavailable
from backscroll.schema.limits import AUTH_BYTES_MAX
from backscroll.schema.paths import (
    ENDPOINT_FILE,
    KEYS_VARIABLE,
    TOKEN_VARIABLE,
    default_data_dir,
    runtime_dir,
    start_command,
)

LOOPBACK_HOSTS = ("127.0.0.1", "[::1]", "localhost")
NEED_TOKEN = ("tcp://", "curve://")


class Curve(NamedTuple):
    """The keys for a `curve://` endpoint, each 40 characters: the daemon's public key, and the client's key pair."""

    server_key: str
    public_key: str
    secret_key: str

    @classmethod
    def read(cls, file: Path | str) -> Self:
        """The keys in a file made by `backscroll keys create`; raises `Invalid`."""
        try:
            keys = json.loads(Path(file).read_text(encoding="ascii"))
            return cls(str(keys["serverKey"]), str(keys["publicKey"]), str(keys["secretKey"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise Invalid(f"{file} has no keys that `backscroll keys create` made: {error}") from error


class Address(NamedTuple):
    """An endpoint and what its daemon asks for: over ipc nothing, over tcp a token, over CURVE keys as well."""

    endpoint: str
    token: str | None = None
    curve: Curve | None = None


def find_endpoint(endpoint: str | None, data_dir: Path | str | None) -> str:
    """The endpoint to connect to: the given one, or the one that a daemon wrote into its data directory.

    Raises `Unavailable` if no daemon is ready there.
    """
    if endpoint is not None:
        return endpoint
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    endpoints = announced(directory).get("endpoints") or [None]
    if not isinstance(endpoints[0], str):
        raise Unavailable(f"no daemon is ready in {directory}: start one with `{start_command(directory)}`")
    return endpoints[0]


def find_address(
    endpoint: str | None, data_dir: Path | str | None, token: str | None = None, curve: Curve | None = None
) -> Address:
    """The endpoint to connect to, with the token for it if it needs one.

    The token is the given one, or that in `BACKSCROLL_TOKEN`, or that of the daemon which lists the endpoint in its
    data directory; where no endpoint is given, the last goes before the variable. Raises `Unavailable` if no daemon is
    ready, `Unauthenticated` if there is no token, and `Invalid` if it cannot be one or there are no keys for CURVE.
    """
    if not isinstance(curve, Curve | None):
        raise Invalid("`curve` is a `Curve`: read one with `Curve.read(FILE)` from a file of `backscroll keys create`")
    found = find_endpoint(endpoint, data_dir)
    if not found.startswith(NEED_TOKEN):
        return Address(found)
    if found.startswith("curve://") and curve is None:
        if KEYS_VARIABLE not in os.environ:
            raise Invalid(
                f"{found} needs keys from a file that `backscroll keys create` made: give `curve=Curve.read(FILE)`, or"
                f" let {KEYS_VARIABLE} name the file"
            )
        curve = Curve.read(os.environ[KEYS_VARIABLE])
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    if token is None:
        sources = [os.environ.get(TOKEN_VARIABLE), announced_token(directory, found)]
        token = next(filter(None, sources if endpoint else reversed(sources)), None)
    if token is None:
        raise Unauthenticated(
            f"there is no token for {found}: name the daemon's data directory, or give a token made by"
            f" `backscroll token create`, as `token=` or in the environment variable {TOKEN_VARIABLE}"
        )
    if not token.isprintable() or len(token.encode()) > AUTH_BYTES_MAX:
        raise Invalid(f"the token for {found} is not one: it must be printable text of at most {AUTH_BYTES_MAX} bytes")
    return Address(found, token, curve if found.startswith("curve://") else None)


def announced(directory: Path) -> dict[str, Any]:
    """What a ready daemon wrote into its data directory, or if that cannot be written, beside its socket elsewhere.

    Empty if it is missing, unreadable, or something else.
    """
    place = runtime_dir(directory)
    return (_announced_in(place) if _is_own(place.parent) else {}) or _announced_in(directory)


def _announced_in(directory: Path) -> dict[str, Any]:
    try:
        ready = json.loads((directory / ENDPOINT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return ready if isinstance(ready, dict) and isinstance(ready.get("endpoints"), list) else {}


def _is_own(directory: Path) -> bool:
    """Whether a directory belongs to this user: others can make one of any name below that for temporary files."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def announced_token(directory: Path, endpoint: str) -> str | None:
    """The start token of the daemon that serves a data directory, if that lists this endpoint."""
    ready = announced(directory)
    listed = {_with_one_loopback(str(each)) for each in ready.get("endpoints", [])}
    token = ready.get("token") if _with_one_loopback(endpoint) in listed else None
    return token if isinstance(token, str) else None


def _with_one_loopback(endpoint: str) -> str:
    """The endpoint with the same name for all loopback hosts, which differ only in the port."""
    transport, _, rest = endpoint.partition("://")
    host, _, port = rest.rpartition(":")
    return f"{transport}://localhost:{port}" if host in LOOPBACK_HOSTS else endpoint
