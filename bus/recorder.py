"""The log of a live session as a file, written as it commits: so that a bug report is a file that can be replayed.

One file for all scopes; lines of another scope than `default` name theirs. What is deleted later stays in the file.
"""

import threading
from pathlib import Path
from weakref import WeakKeyDictionary

from backscroll.bus.failures import BadSettings
from backscroll.bus.logging import log
from backscroll.bus.sqlite.store import Store
from backscroll.handlers.replay import get_log
from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.log_file import LogHeader, entry_text, header_text
from backscroll.schema.operations import GetLog
from backscroll.schema.wire import DEFAULT_SCOPE


class Recorder:
    """Writes what stores commit to a file that it makes. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises `BadSettings` where the file cannot be made."""
        self._recorded: WeakKeyDictionary[Store, int] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._broken = False
        try:
            self._file = path.open("x", encoding="utf-8")
        except OSError as error:
            raise BadSettings(f"cannot record into {path}: {error.strerror}") from error

    def begin(self, default: Store) -> None:
        """Write the header: from where the scope `default` goes on. To be called before anything is committed."""
        header = LogHeader(from_seq=default.seq + 1, chain_start=default.position.chain.hex())
        self._file.write(header_text(header))
        self._file.flush()

    def committed(self, scope: str, store: Store) -> None:
        """Write what a store has committed since it was opened and is not written yet.

        The commit stands whatever goes wrong here, a full disk above all; it ends only the recording.
        """
        with self._lock:
            if self._broken:
                return
            try:
                self._write(scope, store)
            except Exception as error:  # noqa: BLE001
                self._broken = True
                log.error("the recording has ended", path=self._file.name, error=str(error))

    def close(self) -> None:
        self._file.close()

    def _write(self, scope: str, store: Store) -> None:
        last = self._recorded.get(store, store.opened_at)
        with store.read() as snapshot:
            while page := get_log(GetLog(last + 1, PAGE_ITEMS_MAX), snapshot).entries:
                for entry in page:
                    self._file.write(entry_text(entry, None if scope == DEFAULT_SCOPE else scope))
                last = page[-1].seq
        self._file.flush()
        self._recorded[store] = last
