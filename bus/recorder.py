"""Records the commands of a running daemon in a log file as they commit, so that a bug report can be replayed.

One file for all scopes; lines of scopes other than `default` have the scope's name. Text that is deleted later stays in
the file.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from backscroll.bus.failures import BadSettings
from backscroll.bus.logging import log
from backscroll.bus.stores import Commit, Store
from backscroll.handlers.replay import get_log
from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.log_file import LogHeader, entry_text, header_text
from backscroll.schema.operations import GetLog
from backscroll.schema.wire import DEFAULT_SCOPE


class Recorder:
    """Writes all commits of stores to a new file. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        """Create the file; raises `BadSettings` if it exists or cannot be created."""
        self._lock = threading.Lock()
        self._ended = False
        self._path = path
        with self._explained():
            self._file = path.open("x", encoding="utf-8")

    def begin(self, seq: int, chain: bytes) -> None:
        """Write the header: the position of the log of the scope `default` before the first recorded commit.

        Raises `BadSettings` if it cannot be written.
        """
        with self._explained():
            self._file.write(header_text(LogHeader(from_seq=seq + 1, chain_start=chain.hex())))
            self._file.flush()

    def committed(self, commit: Commit, store: Store) -> None:
        """Write the commands of a commit.

        An error here, such as a full disk, ends the recording; the commit is not affected.
        """
        with self._lock:
            if self._ended:
                return
            try:
                self._write(commit, store)
            except Exception as error:  # noqa: BLE001
                self._ended = True
                log.error("recording ended", path=self._file.name, error=str(error))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written before is tried once more
            self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadSettings(
                f"cannot record into {self._path}: {error.strerror}. Name a file that does not exist yet, on a disk"
                " with free space."
            ) from error

    def _write(self, commit: Commit, store: Store) -> None:
        scope = None if commit.scope == DEFAULT_SCOPE else commit.scope
        assert commit.commands, "only SQLite's commits are recorded"
        next_seq = commit.commands[0].seq
        with store.read() as snapshot:
            while next_seq <= commit.seq:
                for entry in get_log(GetLog(next_seq, PAGE_ITEMS_MAX), snapshot).entries:
                    self._file.write(entry_text(entry, scope))
                    next_seq = entry.seq + 1
        self._file.flush()
