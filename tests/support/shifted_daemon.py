"""A daemon process whose wall clock a test sets: `python -m tests.support.shifted_daemon OFFSET_FILE FLAGS…`.

The file has the milliseconds that the clock is ahead of the real one; it is read whenever the time is.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from backscroll.bus.__main__ import main

DAY_MS = 86_400_000


class ShiftedDaemon:
    """The daemon of a data directory, with `ahead_ms` to set its clock."""

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self._offset = data_dir.with_name(f"{data_dir.name}-offset")
        if not self._offset.exists():
            self.ahead_ms(0)
        command = [sys.executable, "-m", "tests.support.shifted_daemon", str(self._offset)]
        self._log = data_dir.with_name(f"{data_dir.name}-log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), "--log-format", "json", *flags],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        self.endpoint = str(json.loads(self.process.stdout.readline())["endpoints"][0])
        self.log = Path(str(self._log.name))

    def ahead_ms(self, milliseconds: int) -> None:
        new = self._offset.with_suffix(".new")
        new.write_text(str(milliseconds), encoding="ascii")
        new.replace(self._offset)

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


def _serve(offset: Path, flags: list[str]) -> int:
    real = time.time_ns
    time.time_ns = lambda: real() + int(offset.read_text(encoding="ascii")) * 1_000_000
    return main(flags)


if __name__ == "__main__":
    sys.exit(_serve(Path(sys.argv[1]), sys.argv[2:]))
