"""A daemon as a child process, which ends together with its parent."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backscroll.clients.python.address import announced_token
from backscroll.schema.errors import Unavailable

STOP_SECONDS = 15
IS_SIDECAR = getattr(sys, "frozen", False)  # set by PyInstaller; then the executable is the command line itself
COMMAND = (sys.executable, "serve") if IS_SIDECAR else (sys.executable, "-m", "backscroll.bus")


class DaemonProcess:
    """Runs `backscroll serve` on a data directory until the end of the `with` block, or until `stop()`.

        with DaemonProcess(directory) as daemon, Client(daemon.endpoint) as client: ...

    The daemon also stops when this process ends, however it ends. `flags` are passed to `backscroll serve`; `log` is a
    file for its log lines (default: this process's standard error), `env` its environment (default: that of this
    process), `command` the program that becomes the daemon, such as one that limits it first. `ready` is the daemon's
    ready line, a JSON object. Over tcp a client also needs the `token`, which it finds by itself if it is given the
    `data_dir`.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *flags: str,
        log: Any = None,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Start the daemon and wait until it is ready; raises `Unavailable` if it ends before."""
        self.data_dir = Path(data_dir)
        words = [*command, "--data-dir", str(data_dir), "--exit-with-parent", *flags]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env)
        try:
            self.ready = self._await_ready()
        except BaseException:  # nobody has this object then
            self.process.kill()
            self.wait()
            raise

    def _await_ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise Unavailable(f"the daemon ended with exit code {code} before it was ready; see its standard error")
        ready: dict[str, Any] = json.loads(line)
        return ready

    @property
    def endpoints(self) -> Sequence[str]:
        return list(self.ready["endpoints"])

    @property
    def endpoint(self) -> str:
        return self.endpoints[0]

    @property
    def token(self) -> str | None:
        """The token for the daemon's tcp endpoints; None if it has none, or is not running."""
        return announced_token(self.data_dir, self.endpoint)

    def stop(self) -> int:
        """Ask the daemon to answer the requests it has received and end; returns its exit code.

        Raises `subprocess.TimeoutExpired` after `STOP_SECONDS`.
        """
        if os.name == "nt":  # where terminate() would be a kill; the daemon also stops when its standard input ends
            self._close_pipes()
        else:
            self.process.terminate()
        return self.wait()

    def kill(self) -> int:
        """Kill the daemon, like a crash; returns its exit code."""
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        """Wait until the daemon has ended; returns its exit code."""
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
