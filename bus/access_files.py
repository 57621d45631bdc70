"""Tokens and client keys in two files of the data directory: those of a daemon that shares no database with others."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from backscroll.bus.failures import CannotOpen
from backscroll.bus.files import write_whole
from backscroll.bus.stores import KEYS, TOKENS

TOKENS_FILE: Final = f"{TOKENS}.json"
KEYS_FILE: Final = f"{KEYS}.json"


class AccessFiles:
    """The `AccessDocuments` of a data directory. Nobody else writes them, so they are read only once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._contents: dict[str, bytes] = {}
        self.keys_command = f"`backscroll keys create NAME --data-dir {directory}`"

    def read(self) -> dict[str, bytes]:
        for name in (TOKENS, KEYS):
            try:
                self._contents[name] = self._path(name).read_bytes()
            except FileNotFoundError:
                self._contents.pop(name, None)
            except OSError as error:
                raise self.unreadable(name, error) from error
        return dict(self._contents)

    def change(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Write a file; raises OSError."""
        contents = change(self._contents.get(name))
        write_whole(self._path(name), contents)
        self._contents[name] = contents
        return contents

    def unreadable(self, name: str, error: Exception) -> CannotOpen:
        path = self._path(name)
        return CannotOpen(f"{path} cannot be read: {error}. Restore it, or remove it and make new tokens or keys.")

    def watch(self, _refresh: Callable[[], None]) -> None:
        """Nobody else changes them."""

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"
