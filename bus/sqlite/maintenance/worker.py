"""A process for heavy work on whole databases, so that it delays nobody and its memory is its own.

    Worker ──job, a line──▶ child: DO[type(job)](job, progress) ──lines: Step … Step, Done or Failed──▶ Worker

The child never opens a database that is in use: it works on copies. It ends when its parent does, however that ends.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import msgspec
from msgspec import Raw, Struct

from backscroll.bus.progress import Progress
from backscroll.bus.sqlite.errors import wire_error
from backscroll.bus.sqlite.maintenance.copying import copy_database
from backscroll.bus.sqlite.maintenance.proof import Proof, prove
from backscroll.schema.errors import BackscrollError, Storage

T = TypeVar("T")

ANSWER_SECONDS = 0.25  # between two looks whether the work is still wanted
ENDING_SECONDS = 5.0
TELL_SECONDS = 0.1
LOWEST_PRIORITY = 19
WORKER_COMMAND = "worker"  # of the command line, in a build without a Python of its own


class CopyDatabase(Struct, frozen=True, tag="copy"):
    """Copy a database whose checkpoints pause, with its write-ahead log, into one closed file."""

    source: str
    target: str


class ProveDatabase(Struct, frozen=True, tag="prove"):
    """Examine a closed database file and the media beside it; the result is a `Proof`."""

    database: str
    media: str | None
    scratch: str


class Step(Struct, frozen=True, tag="step"):
    """How far a job is."""

    step: str
    done: int
    total: int | None


class Done(Struct, frozen=True, tag="done"):
    """The result of a job."""

    result: Raw


class Failed(Struct, frozen=True, tag="failed"):
    """Why a job could not be done."""

    message: str
    retryable: bool


Job = CopyDatabase | ProveDatabase
Answer = Step | Done | Failed


class Worker:
    """A child process that does one job after the other. It is started with the first one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()

    def copy(self, source: Path, target: Path, progress: Progress) -> None:
        """Copy a database whose checkpoints pause; raises `Storage`, or what `progress` raises."""
        self._run(CopyDatabase(str(source), str(target)), progress, None)

    def prove(self, database: Path, media: Path | None, progress: Progress, *, scratch: Path) -> Proof:
        """Examine a copy; raises `Storage` if that cannot be done, or what `progress` raises."""
        job = ProveDatabase(str(database), None if media is None else str(media), str(scratch))
        return self._run(job, progress, Proof)

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

    def _run(self, job: Job, progress: Progress, result: type[T] | None) -> T:
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        step = Step("starting", 0, None)
        while True:
            progress(step.step, step.done, step.total)
            try:
                line = self._answers.get(timeout=ANSWER_SECONDS)
            except queue.Empty:
                continue
            if not line:
                raise Storage(f"the process for {job.__struct_config__.tag} ended with {process.wait(ENDING_SECONDS)}")
            answer = msgspec.json.decode(line, type=Answer)
            if isinstance(answer, Done):
                return msgspec.json.decode(answer.result, type=result)  # type: ignore[arg-type]
            if isinstance(answer, Failed):
                raise Storage(answer.message, retryable=answer.retryable)
            step = answer

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
            threading.Thread(target=self._read, args=(self._process.stdout,), name="worker-reader", daemon=True).start()
        return self._process

    def _read(self, stream: IO[bytes]) -> None:
        """Put the lines of the process into the queue, and an empty one at its end."""
        with os.fdopen(os.dup(stream.fileno()), "rb") as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put(b"")


def _program() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, WORKER_COMMAND]
    return [sys.executable, "-m", __package__]


def _copy(job: CopyDatabase, progress: Progress) -> None:
    copy_database(Path(job.source), Path(job.target), progress)


def _prove(job: ProveDatabase, progress: Progress) -> Proof:
    media = None if job.media is None else Path(job.media)
    return prove(Path(job.database), media, progress, scratch=Path(job.scratch))


DO: dict[type[Struct], Callable[[Any, Progress], Any]] = {CopyDatabase: _copy, ProveDatabase: _prove}
"""What the child does for each kind of job."""


def serve() -> None:
    """Do the jobs of the parent, which are lines of standard input, until that ends."""
    if hasattr(os, "nice"):
        os.nice(LOWEST_PRIORITY)
    os.umask(0o077)
    jobs: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        job = msgspec.json.decode(jobs.get(), type=Job)
        try:
            _answer(Done(Raw(msgspec.json.encode(DO[type(job)](job, _Teller())))))
        except Exception as error:
            explained = error if isinstance(error, BackscrollError) else wire_error(error)
            if explained is None:
                raise
            _answer(Failed(explained.message, explained.retryable))


def _read_jobs(jobs: "queue.Queue[bytes]") -> None:
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(0)  # the parent has ended: what it would do with the result is done by nobody


class _Teller:
    """The `Progress` of the child: each new step is told at once, and the same one a few times a second."""

    def __init__(self) -> None:
        self._step, self._told_at = "", 0.0

    def __call__(self, step: str, done: int, total: int | None) -> None:
        if step != self._step or time.monotonic() - self._told_at > TELL_SECONDS:
            self._step, self._told_at = step, time.monotonic()
            _answer(Step(step, done, total))


def _answer(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()
