"""What the workloads share: a directory, the sizes of this run, and the peers, each checked before it is used.

A peer is started when a workload first needs it. It then saves and reads the rooms of the check; if its pages or tables
differ from the daemon's, the benchmark ends without measuring anything more.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from tests.bench.daemon import ByBareSocket, ByClient, Uncached
from tests.bench.echo import Echo
from tests.bench.limits import Apsw
from tests.bench.orm import Orm
from tests.bench.rx import SqliteRx
from tests.bench.tables import rows_of
from tests.bench.work import ONE, NotHere, Peer, Way, Work, expected_pages, make_work
from tests.bench.worker import Worker

PEERS: dict[str, Callable[[Path], Peer]] = {
    peer.name: peer for peer in (ByClient, ByBareSocket, Uncached, Echo, Worker, Orm, SqliteRx, Apsw)
}
FAST = Way(in_flight=64)
CHECKED_MESSAGES, CHECKED_ROOMS = 160, 2


class Sizes(NamedTuple):
    """How much is done, in each round unless stated otherwise."""

    rounds: int
    pipelined: int  # messages saved with many in flight, and by eight callers
    single: int  # messages saved one at a time
    pages: int  # read with many in flight
    single_pages: int
    imported: int  # messages
    import_rounds: int
    latency_rounds: int
    latency_seconds: float  # of reading, for each p99
    users: int  # listed by the slow query
    large: int  # messages in the large file
    small: int  # and in the small one
    visits: int  # pages of each place in either file
    starts: int
    watchers: int
    history: int  # messages in the feed that one client asks for
    backed_up: int  # messages in the scope of which backups are made while others are saved
    backed_up_large: int


FULL = Sizes(
    5, 2_000, 400, 320, 160, 100_000, 2, 3, 2.0, 100_000, 1_000_000, 10_000, 200, 5, 1_000, 20_000, 85_000, 350_000
)
QUICK = Sizes(1, 64, 16, 24, 8, 300, 1, 1, 0.1, 500, 10_000, 5_000, 8, 1, 20, 500, 850, 1_700)


class Bench:
    """One run of the benchmark. `close` ends the peers."""

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self.directory = directory
        self.sizes = sizes
        self.missing: dict[str, str] = {}  # peers that cannot run here, with the reason
        self.checked: list[str] = []
        self._peers: dict[str, Peer] = {}
        self._saved: set[tuple[str, str]] = set()
        self._stack = ExitStack()
        self._work = make_work("check", CHECKED_MESSAGES, CHECKED_ROOMS, CHECKED_ROOMS)

    def peer(self, name: str) -> Peer | None:
        """A peer that stores and returns the same data as the daemon, or None where it cannot run."""
        if name not in self._peers and name not in self.missing:
            if name != ByClient.name:
                self.peer(ByClient.name)
            try:
                started = PEERS[name](self.directory / name.replace(" ", "-"))
            except NotHere as reason:
                self.missing[name] = str(reason)
                return None
            self._peers[name] = self._stack.enter_context(closing(started))
            self._check(started)
        return self._peers.get(name)

    def available(self, *names: str) -> dict[str, Peer]:
        """Those of the peers that can run."""
        return {name: peer for name in names if (peer := self.peer(name))}

    def save_once(self, peer: Peer, work: Work) -> None:
        """Let a peer save what several workloads read."""
        if (peer.name, work.name) not in self._saved:
            peer.save(work, FAST)
            self._saved.add((peer.name, work.name))

    def close(self) -> None:
        self._stack.close()

    def _check(self, peer: Peer) -> None:
        """Let a peer save and read the rooms of the check; pages, and rows where it has tables, must be equal."""
        peer.save(self._work, ONE)
        if peer.read_back(self._work) != expected_pages(self._work):
            sys.exit(f"{peer.name} does not read back what was saved: nothing more is measured")
        reference = self._peers[ByClient.name].file
        if peer.file and reference and rows_of(peer.file, self._work.rooms) != rows_of(reference, self._work.rooms):
            sys.exit(f"{peer.name} keeps other rows than the daemon: nothing more is measured")
        self.checked.append(peer.name)
