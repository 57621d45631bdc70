"""`backscroll copy`, killed at a certain step: before a batch of rows is written, or before a file is touched.

    python -m tests.support.killed_copy STEP FROM TO

It kills itself as `kill -9` does. With a step that is not reached it prints how many there are.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from backscroll.bus import copying
from backscroll.bus.postgresql.whole_scopes import DatabaseScope
from backscroll.bus.sqlite.whole_scopes import NewFileScope
from backscroll.clients.command_line.main import main

OF_FILES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
ROWS_AT_ONCE = 7


class Steps:
    """Counts steps, and ends the process without any warning before the last one."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.count = 0

    def take(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*arguments: Any) -> Any:
            self.take()
            return function(*arguments)

        return counted

    def note(self, event: str, _arguments: Any) -> None:
        if event in OF_FILES:
            self.take()


def run(last: int, source: str, target: str) -> int:
    """Run the command until it is killed; its exit code if it is not."""
    steps = Steps(last)
    copying.ROWS_AT_ONCE = ROWS_AT_ONCE
    for kind in (DatabaseScope, NewFileScope):
        for name in ("write", "put", "end"):
            setattr(kind, name, steps.before(getattr(kind, name)))
    sys.addaudithook(steps.note)
    code = main(["copy", source, target])
    sys.stdout.write(f"{steps.count}\n")
    return code


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), *sys.argv[2:]))
