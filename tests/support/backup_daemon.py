"""A real daemon in a process of its own that also copies and backs up its scopes when a test says so.

Run as a script it is that process: it prints its endpoint, and for each line of JSON that it reads one of its result.
"""

import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from backscroll.bus.sqlite.maintenance.backups import take_backup
from backscroll.bus.sqlite.maintenance.catalog import CannotBackUp
from backscroll.bus.sqlite.maintenance.worker import Worker
from tests.support.peers import running


class BackupDaemon:
    """The daemon of a data directory."""

    def __init__(self, data_dir: Path) -> None:
        command = [sys.executable, "-m", "tests.support.backup_daemon", str(data_dir)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()

    def begin(self, name: str, **arguments: Any) -> None:
        """Have it begin `copy` or `backup`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()

    def is_done(self) -> bool:
        """Whether there is a result, or the process has ended."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def result(self) -> Any:
        """The result of what was begun; None if the process was killed before."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def do(self, name: str, **arguments: Any) -> Any:
        self.begin(name, **arguments)
        return self.result()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _serve(data_dir: Path) -> None:
    with running(data_dir, log_level="error") as daemon, Worker() as child:
        sys.stdout.write(f"{daemon.endpoint}\n")
        sys.stdout.flush()

        def copy(scope: str, target: str) -> bool:
            with daemon.scopes.copying(scope) as files:
                child.work.copy_database(files.database, Path(target), lambda *_: None)
                return files.end()

        def backup(into: str, **how: Any) -> list[str]:
            try:
                return [take_backup(daemon.scopes, Path(into), lambda *_: None, work=child.work, **how).name, ""]
            except CannotBackUp as error:
                return ["", str(error)]

        actions: dict[str, Any] = {"copy": copy, "backup": backup}
        for line in sys.stdin:
            name, arguments = json.loads(line)
            thread = threading.Thread(target=lambda: _say(actions[name](**arguments)))  # noqa: B023
            thread.start()
            thread.join()
    os._exit(0)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
