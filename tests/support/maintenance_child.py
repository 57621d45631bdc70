"""The heavy work of backups in a process of its own, as the daemon has it done; run as a script it is that process."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from backscroll.bus.sqlite.maintenance import backups
from backscroll.bus.sqlite.maintenance.backups import Copied, CopiedMedia, Work
from backscroll.bus.sqlite.maintenance.catalog import File
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, DamagedCopy
from backscroll.bus.sqlite.maintenance.progress import Progress
from backscroll.schema.log_file import BadLine

RESULTS: dict[str, Any] = {
    "copy_database": None,
    "copy_media": CopiedMedia,
    "read_copy": Copied,
    "hash_file": File,
    "check_log": None,
    "prove": list[str],
}


class Child:
    """A process that does one piece of work at a time. `pid` can be killed; then the work raises OSError."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.maintenance_child"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self._lock = threading.Lock()

    @property
    def work(self) -> Work:
        return Work(**{name: self._caller(name) for name in RESULTS})

    def _caller(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            *paths, progress = arguments if callable(arguments[-1]) else (*arguments, lambda *_: None)
            return self.call(name, [None if each is None else str(each) for each in paths], progress)

        return call

    def call(self, name: str, paths: list[str | None], progress: Progress) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([name, paths]).encode() + b"\n")
            self._process.stdin.flush()
            while line := self._process.stdout.readline():
                kind, value = json.loads(line)
                if kind == "progress":
                    progress(*value)
                elif kind == "error":
                    raise _error(*value)
                else:
                    return msgspec.convert(value, RESULTS[name]) if RESULTS[name] else None
        raise OSError("the child process was killed")

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what was not written to a process that was killed
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _error(name: str, arguments: list[Any]) -> Exception:
    kinds: dict[str, type[Exception]] = {each.__name__: each for each in (CannotCopy, DamagedCopy, BadLine)}
    return kinds.get(name, OSError)(*arguments)


def _say(*words: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(words) + b"\n")
    sys.stdout.flush()


def _serve() -> None:
    os.nice(19)
    work = backups.IN_THIS_PROCESS
    for line in sys.stdin:
        name, paths = json.loads(line)
        arguments: list[Any] = [None if each is None else Path(each) for each in paths]
        if name != "hash_file":
            arguments.append(lambda *words: _say("progress", words))
        try:
            _say("result", getattr(work, name)(*arguments))
        except BadLine as error:
            _say("error", ("BadLine", (error.number, error.problem)))
        except (CannotCopy, OSError) as error:
            _say("error", (type(error).__name__, error.args))


if __name__ == "__main__":
    _serve()
