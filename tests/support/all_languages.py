"""All clients write to one daemon at once; its log is replayed, and each client reads the same pages from its copy.

    python -m tests.support.all_languages

The programs of other languages are built by their tests (`tests/bench/drivers.py`). It raises if one is missing or
anything differs.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

import msgspec

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessagePage, SaveMessage
from tests.bench.drivers import DRIVERS, start_driver
from tests.bench.work import PAGE, Page, Way, Work, expected_pages, stream

MESSAGES_OF_EACH, ROOMS = 1_000, [f"shared-{number}" for number in range(8)]
WAY = Way(in_flight=256)
PYTHON = "Python"
LANGUAGES = (PYTHON, *DRIVERS)
BACKSCROLL = [sys.executable, "-m", "backscroll.clients.command_line"]
SECONDS = 120
QUIET = ("--log-level", "warning")


class Caller(Protocol):
    """A program that uses one of the clients."""

    def save(self, work: Work, way: Way, /) -> float: ...
    def read_back(self, work: Work, /) -> list[Page]: ...
    def close(self) -> None: ...


class PythonCaller:
    """The Python client, as the programs of the other languages use theirs."""

    def __init__(self, endpoint: str) -> None:
        self._client = Client(endpoint)

    def save(self, work: Work, way: Way) -> float:
        for _ in self._client.pipeline((SaveMessage(each) for each in work.messages), window=way.in_flight):
            pass
        return 0.0

    def read_back(self, work: Work) -> list[Page]:
        pages = (self._client.ask(GetMessagePage(room, limit=PAGE)).messages for room in work.rooms)
        return [msgspec.to_builtins(page) for page in pages]

    def close(self) -> None:
        self._client.close()


def start(language: str, daemon: DaemonProcess, directory: Path) -> Caller:
    """Start the program of a language; raises `NotHere` if it was not built."""
    return PythonCaller(daemon.endpoint) if language == PYTHON else start_driver(language, daemon.endpoint, directory)


def work_of(language: str) -> Work:
    """What the client of a language saves, into the rooms of all."""
    return Work(language, list(islice(stream(language, ROOMS), MESSAGES_OF_EACH)), ROOMS, [])


def write_together(daemon: DaemonProcess, directory: Path, works: list[Work]) -> None:
    """Have each client save its messages while the others do."""
    with ExitStack() as stack:
        callers = [stack.enter_context(closing(start(work.name, daemon, directory))) for work in works]
        threads = stack.enter_context(ThreadPoolExecutor(len(callers)))
        saves: list[Callable[[Work, Way], float]] = [caller.save for caller in callers]
        for saved in [threads.submit(save, work, WAY) for save, work in zip(saves, works, strict=True)]:
            saved.result(SECONDS)


def command_line(*words: str) -> tuple[str, str]:
    """Run `backscroll`; returns its output and standard error. Raises `CalledProcessError` if it fails."""
    done = subprocess.run([*BACKSCROLL, *words], check=True, timeout=SECONDS, text=True, capture_output=True)
    return done.stdout, done.stderr


def main() -> None:
    """Print what was shown."""
    with tempfile.TemporaryDirectory(prefix="backscroll-") as temporary, ExitStack() as stack:
        directory = Path(temporary)
        works = [work_of(language) for language in LANGUAGES]
        everything = Work("all", list(chain.from_iterable(work.messages for work in works)), ROOMS, [])
        expected = expected_pages(everything)
        daemon = stack.enter_context(DaemonProcess(directory / "all", *QUIET))
        write_together(daemon, directory, works)
        log = directory / "commands.jsonl"
        log.write_text(command_line("log", "export", "--data-dir", str(daemon.data_dir))[0], encoding="utf-8")
        for language in LANGUAGES:
            copy = directory / f"copy for {language}"
            against = ("--verify", "--against-data-dir", str(daemon.data_dir))
            _, report = command_line("replay", str(log), "--into", str(copy), *against)
            assert "the rows of all tables are equal" in report, report
            with DaemonProcess(copy, *QUIET) as again, closing(start(language, again, directory)) as caller:
                assert caller.read_back(everything) == expected, f"{language} does not read what was saved"
        names = ", ".join(LANGUAGES)
        count = f"{len(everything.messages):,} messages"
        sys.stdout.write(
            f"{names}: wrote {count} at once; each replayed the log, to equal rows, and read the same pages\n"
        )


if __name__ == "__main__":
    main()
