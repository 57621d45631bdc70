"""A daemon as a child process: started next to a UI process, and gone with it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backscroll.schema.errors import Unavailable

STOP_SECONDS = 15


class DaemonProcess:
    """Runs `backscroll serve` on a data directory for as long as the `with` block, or until `stop()`.

        with DaemonProcess(directory) as daemon, Client(daemon.endpoint) as client: ...

    The daemon also stops when this process ends, however it ends. `flags` go to `backscroll serve` as they are;
    `log` is a file for its log lines (left out: this process's standard error), `env` its environment (left out: ours).
    """

    def __init__(
        self, data_dir: Path | str, *flags: str, log: Any = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the daemon and wait until it is ready; raises `Unavailable` when it gives up before."""
        command = [
            sys.executable,
            "-m",
            "backscroll.bus",
            "--data-dir",
            str(data_dir),
            "--exit-with-parent",
            *flags,
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self._close_pipes()
            raise Unavailable(f"the daemon gave up with exit code {code}; its standard error says why")
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def endpoints(self) -> Sequence[str]:
        return list(self.ready["endpoints"])

    @property
    def endpoint(self) -> str:
        return self.endpoints[0]

    def stop(self) -> int:
        """Ask the daemon to finish what it has received and end; its exit code."""
        if os.name == "nt":  # where terminate() would be a kill; the daemon also stops when its standard input ends
            self._close_pipes()
        else:
            self.process.terminate()
        return self.wait()

    def kill(self) -> int:
        """End the daemon at once, as a crash would."""
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        """Wait for the daemon to end; its exit code."""
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self._close_pipes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
