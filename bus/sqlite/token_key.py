"""A scope's token key: a secret in a file beside its database, from which the tokens of sessions are derived.

A token is derived from the key and the id of the command that creates it. So a command that is sent again gets the same
token, although neither the command log nor the rest of the database contains it. If the key file is lost, retries of
old commands can no longer be answered, but existing tokens stay valid.
"""

import base64
import hmac
import secrets
from pathlib import Path

from backscroll.bus.files import make_directory, write_whole

KEY_BYTES = 32


class TokenKey:
    """The key of one scope, created when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = b""

    def token(self, request_id: str, number: int) -> str:
        """The `number`th token of a command, from 0: 256 bits in URL-safe base64. Raises OSError."""
        mac = hmac.digest(self._key or self._load(), f"{number} {request_id}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

    def _load(self) -> bytes:
        try:
            key = self._path.read_bytes()
        except FileNotFoundError:
            key = b""
        if len(key) != KEY_BYTES:
            key = secrets.token_bytes(KEY_BYTES)
            make_directory(self._path.parent)
            write_whole(self._path, key)
        self._key = key
        return key
