"""A process for heavy work on whole databases, so that it delays nobody and its memory is its own.

    Worker ──job, a line──▶ child: FUNCTIONS[job.do](*paths, progress) ──lines: Step … Step, Done or Failed──▶ Worker

The child never opens a database that is in use: it works on copies. It ends when its parent does, however that ends.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import msgspec
from msgspec import Raw, Struct

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.errors import wire_error
from backscroll.bus.sqlite.maintenance.backups import (
    Copied,
    CopiedMedia,
    Work,
    copy_media,
    prove_copy,
    read_copy,
)
from backscroll.bus.sqlite.maintenance.catalog import File, hash_file
from backscroll.bus.sqlite.maintenance.copying import CannotCopy, DamagedCopy, copy_database
from backscroll.bus.sqlite.maintenance.increments import CheckedLog, check_log
from backscroll.bus.sqlite.maintenance.proof import Proof, prove
from backscroll.schema.errors import BackscrollError, Storage
from backscroll.schema.log_file import BadLine

ANSWER_SECONDS = 0.25  # between two looks whether the work is still wanted
ENDING_SECONDS = 5.0
TELL_SECONDS = 0.1
LOWEST_PRIORITY = 19
WORKER_COMMAND = "worker"  # of the command line, in a build without a Python of its own


class Job(Struct, frozen=True):
    """A function to call, and its paths."""

    do: str
    paths: list[str | None]


class Step(Struct, frozen=True, tag="step"):
    """How far a job is."""

    step: str
    done: int
    total: int | None


class Done(Struct, frozen=True, tag="done"):
    """The result of a job."""

    result: Raw


class Failed(Struct, frozen=True, tag="failed"):
    """Why a job could not be done: the name of the exception, one of `EXCEPTIONS`, and its arguments."""

    name: str
    arguments: list[str | int | bool]


Answer = Step | Done | Failed


class Function(NamedTuple):
    """What the child can do: a function of paths and a `Progress`, and the type of its result."""

    call: Callable[..., Any]
    result: Any


def _examine(database: Path, media: Path | None, scratch: Path, progress: Progress) -> Proof:
    return prove(database, media, progress, scratch=scratch)


FUNCTIONS = {
    "copy_database": Function(copy_database, None),
    "copy_media": Function(copy_media, CopiedMedia),
    "read_copy": Function(read_copy, Copied),
    "hash_file": Function(hash_file, File),
    "check_log": Function(check_log, CheckedLog),
    "prove": Function(prove_copy, list[str]),
    "examine": Function(_examine, Proof),
}
EXCEPTIONS: dict[str, Callable[..., Exception]] = {
    "CannotCopy": CannotCopy,
    "DamagedCopy": DamagedCopy,
    "BadLine": BadLine,
    "OSError": OSError,
    "Storage": lambda message, retryable: Storage(message, retryable=retryable),
}


class Worker:
    """A child process that does one job after the other. It is started with the first one, and again if it has ended.

    Its functions raise `Storage`, what the same function would raise in this process, and what `progress` raises.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """The id of the process, if it was started."""
        return None if self._process is None else self._process.pid

    def do(self, name: str, *paths: Path | None, progress: Progress) -> Any:
        """The result of one of `FUNCTIONS`."""
        process = self._started()
        assert process.stdin is not None
        job = Job(name, [None if path is None else str(path) for path in paths])
        with suppress(BrokenPipeError):  # the process has ended, as its answers say
            process.stdin.write(msgspec.json.encode(job) + b"\n")
        told = Step("starting", 0, None)
        while True:
            answer = msgspec.json.decode(self._next_line(told, progress), type=Answer)
            if isinstance(answer, Done):
                return msgspec.json.decode(answer.result, type=FUNCTIONS[name].result)
            if isinstance(answer, Failed):
                raise EXCEPTIONS[answer.name](*answer.arguments)
            told = answer
            progress(told.step, told.done, told.total)

    @property
    def work(self) -> Work:
        """The functions that a backup needs, done by the child."""
        return Work(**{name: partial(self._call, name) for name in Work._fields})

    def copy_database(self, source: Path, target: Path, progress: Progress) -> None:
        self.do("copy_database", source, target, progress=progress)

    def examine(self, database: Path, media: Path | None, scratch: Path, progress: Progress) -> Proof:
        """Examine a copy, also by executing its command log again; see `prove`."""
        proof: Proof = self.do("examine", database, media, scratch, progress=progress)
        return proof

    def _call(self, name: str, *arguments: Any) -> Any:
        *paths, progress = arguments
        return self.do(name, *paths, progress=progress)

    def close(self) -> None:
        """End the process, also in the middle of a job."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(ENDING_SECONDS)
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_line(self, told: Step, progress: Progress) -> bytes:
        """The next line; `progress` is called again meanwhile, because it may raise."""
        while True:
            try:
                line = self._answers.get(timeout=ANSWER_SECONDS)
            except queue.Empty:
                progress(told.step, told.done, told.total)
                continue
            if not line:
                assert self._process is not None
                code = self._process.wait(ENDING_SECONDS)
                self.close()  # the next job starts another process
                raise Storage(f"the process that works on copies ended with exit code {code}; see the daemon's log")
            return line

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                _program(),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # a terminal's Ctrl-C is for the daemon, which ends this process
            )
            assert self._process.stdout is not None
            self._answers = queue.Queue()
            arguments = self._process.stdout, self._answers
            threading.Thread(target=_read_answers, args=arguments, name="worker-reader", daemon=True).start()
        return self._process


def _read_answers(stream: IO[bytes], answers: "queue.Queue[bytes]") -> None:
    """Put the lines of the process into the queue, and an empty one at its end."""
    with os.fdopen(os.dup(stream.fileno()), "rb") as lines:
        for line in lines:
            answers.put(line)
    answers.put(b"")


def _program() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, WORKER_COMMAND]
    # Nothing is imported from the working directory.
    return [sys.executable, "-P", "-m", f"{__package__}.worker"]


# The child


def serve() -> None:
    """Do the jobs of the parent, which are lines of standard input, until that ends."""
    if hasattr(os, "nice"):
        os.nice(LOWEST_PRIORITY)
    os.umask(0o077)
    jobs: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        job = msgspec.json.decode(jobs.get(), type=Job)
        paths = [None if path is None else Path(path) for path in job.paths]
        try:
            result = FUNCTIONS[job.do].call(*paths, progress=_Teller())
        except Exception as error:  # noqa: BLE001  # the parent raises it
            _answer(_failure(error))
        else:
            _answer(Done(Raw(msgspec.json.encode(result))))


def _read_jobs(jobs: "queue.Queue[bytes]") -> None:
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(0)  # the parent has ended: what it would do with the result is done by nobody


def _failure(error: Exception) -> Failed:
    """What the parent raises; a bug ends the child."""
    name = type(error).__name__
    if isinstance(error, BadLine):
        return Failed(name, [error.number, error.problem])
    if isinstance(error, CannotCopy):
        return Failed(name, [str(error)])
    if isinstance(error, OSError) and error.errno is not None:
        return Failed("OSError", [error.errno, f"{error.strerror}: {error.filename}"])
    explained = error if isinstance(error, BackscrollError) else wire_error(error)
    if explained is None:
        raise error
    return Failed("Storage", [explained.message, explained.retryable])


class _Teller:
    """The `Progress` of the child: each new step is told at once, and the same one a few times a second."""

    def __init__(self) -> None:
        self._step, self._told_at = "", 0.0

    def __call__(self, step: str, done: int, total: int | None) -> None:
        if step != self._step or time.monotonic() - self._told_at > TELL_SECONDS:
            self._step, self._told_at = step, time.monotonic()
            _answer(Step(step, done, total))


def _answer(answer: Answer) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent has ended, which is no error to be printed into its log


if __name__ == "__main__":
    serve()
