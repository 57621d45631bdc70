"""A real daemon in a process of its own whose disk blocks at a moment chosen by the test, to be killed there.

Run as a script it is that process: it prints its endpoint, reads from standard input where to block, and prints
`stopped` when it does.
"""

import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.disks import FaultyDisk
from tests.support.peers import running

NEVER = -1
AT_SYNC = 0  # the commit is in the WAL then, and survives the kill


class _Disk(FaultyDisk):
    """Blocks before its n-th write from now on, or in its next sync. Writes are numbered from 1."""

    def __init__(self) -> None:
        self.stop_at = NEVER
        super().__init__()

    def check_write(self, name: str) -> None:
        super().check_write(name)
        if self.stop_at > 0:
            self.stop_at -= 1
            if not self.stop_at:
                _stop()

    def check_sync(self, name: str) -> None:
        super().check_sync(name)
        if self.stop_at == AT_SYNC:
            _stop()


class StoppingDaemon:
    """The daemon of a data directory, which blocks as `stop_at` says and then can only be killed."""

    def __init__(self, data_dir: Path) -> None:
        command = [sys.executable, "-m", "tests.support.stopping_daemon", str(data_dir)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = self._line()

    def stop_at(self, write: int) -> None:
        """Block before the n-th write from now on, or in the next sync (`AT_SYNC`)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{write}\n")
        self._process.stdin.flush()
        assert self._line() == "armed"

    def wait_until_stopped(self) -> None:
        assert self._line() == "stopped"

    def has_stopped(self) -> bool:
        """Whether it has blocked by now."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _stop() -> None:
    _say("stopped")
    threading.Event().wait()


def _serve(data_dir: Path) -> None:
    disk = _Disk()
    with running(data_dir, vfs=disk.name) as daemon:
        _say(daemon.endpoint)
        for line in sys.stdin:
            disk.stop_at = int(line)
            _say("armed")
        os._exit(1)  # the test is gone, and a blocked disk prevents a regular exit


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
