"""A daemon as `backscroll serve` starts it, but with a slow query or a slow disk: a process for the benchmark.

    python -m tests.bench.serving DIRECTORY SYNC_MS STATEMENT_STEPS QUERY_CACHE_BYTES

`get-bans-for-room`, whose results are not cached, runs a statement of so many steps (0: its normal handler). Each sync
of the disk takes at least so many milliseconds, through a VFS in Python; below 0 there is no such VFS.
"""

import json
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import apsw

from backscroll.bus.__main__ import tune_process
from backscroll.bus.daemon import Daemon
from backscroll.bus.directory import default_endpoint, locked
from backscroll.bus.logging import log
from backscroll.bus.settings import Settings
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.handlers import HANDLERS
from backscroll.handlers.storage import Reads
from backscroll.schema import GetBansForRoom
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.support.handlers import replacing
from tests.support.sql import sql

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :steps) SELECT count(*) FROM n"


class SlowDisk(apsw.VFS):
    """The system's files, with slow syncs."""

    def __init__(self, seconds: float) -> None:
        self.name = "slow"
        self.seconds = seconds
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _SlowFile(self, name, flags)


class _SlowFile(apsw.VFSFile):
    def __init__(self, disk: SlowDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802
        time.sleep(self._disk.seconds)
        super().xSync(flags)


def serve(directory: Path, sync_ms: float, steps: int, query_cache_bytes: int) -> None:
    """Run the daemon until a signal stops it."""

    def count(_query: GetBansForRoom, db: Reads) -> list[Any]:
        db.rows(sql(COUNT), steps=steps)
        return []

    disk = SlowDisk(sync_ms / 1000) if sync_ms >= 0 else None
    handlers = replacing({GetBansForRoom: count}) if steps else HANDLERS
    settings = Settings(data_dir=directory, log_level="warning")
    log.configure(settings)
    tune_process()
    with ExitStack() as stack:
        stack.enter_context(locked(directory))
        vfs = disk.name if disk else ""
        scopes = stack.enter_context(closing(SqliteScopes(directory, vfs=vfs, query_cache_bytes=query_cache_bytes)))
        scopes.open(DEFAULT_SCOPE)
        endpoint = stack.enter_context(default_endpoint(directory))
        daemon = stack.enter_context(closing(Daemon(settings, scopes, handlers)))
        print(json.dumps({"endpoints": daemon.bind([endpoint])}), flush=True)
        daemon.stop_on_signals()
        daemon.run()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
