"""Commits that take as long as a test wants, in the chosen store."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psycopg

from tests.support.chosen_store import CHOSEN
from tests.support.disks import FaultyDisk
from tests.support.waiting import wait_until

HELD_MS = 60_000
"""The `lock_wait_ms` of a daemon whose commits are held."""
LOCK = "BEGIN; LOCK TABLE sequence IN EXCLUSIVE MODE"  # everybody can read it, and nobody can lock a row of it
COUNT_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'sequence'::regclass"


class HeldCommits:
    """The commits to the data of one directory: while they are held, none takes effect. At the end of a block none is.

    A daemon on files needs `vfs`; one on a database waits for a lock, so it needs `HELD_MS` as its `lock_wait_ms`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._disk = FaultyDisk()
        self._disk.only = "-wal"
        self.vfs = self._disk.name
        self._held = ExitStack()
        self._database: psycopg.Connection | None = None
        self._address = CHOSEN.address(data_dir)

    def hold(self) -> None:
        """From now on, hold every commit."""
        if self._address:
            self._database = self._held.enter_context(CHOSEN.server.admin_of(self._address))
            self._database.execute(LOCK)
        else:
            self._disk.syncs_open.clear()

    def wait_for_one(self) -> None:
        """Wait until a commit is held."""
        wait_until(self._holds_one)

    def _holds_one(self) -> bool:
        if self._database is None:
            return bool(self._disk.syncs_blocked)
        return self._database.execute(COUNT_WAITING).fetchall() != [(0,)]

    def release(self) -> None:
        """Let all commits take effect again."""
        self._held.close()
        self._database = None
        self._disk.syncs_open.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
