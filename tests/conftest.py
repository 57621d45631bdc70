"""Fixtures shared by all tests: clients on real stores and real daemons, a settable clock, and a chat history.

`--long` runs the long forms. In the short form Hypothesis is derandomised, so that a run can be repeated; the long form
draws new examples and prints how to reproduce a failure.
"""

import gzip
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest

from backscroll.bus.dispatch import Request
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.errors import BackscrollError
from tests.support.behaviour import BEHAVIOUR, ONLY_FILES
from tests.support.chosen_store import CHOSEN
from tests.support.clocks import Clock
from tests.support.notes import add_note, notes_in
from tests.support.postgresql import Server
from tests.support.schemas import ReplyChecker
from tests.support.stores import in_process

CORPUS = Path(__file__).parent.parent.parent / "shared" / "corpus" / "equational.jsonl.gz"
GENERATED_MESSAGES = 2_000
GENERATED_SEED = 20260101

IN_MEMORY = Path("/dev/shm")
IN_MEMORY_BYTES_MIN = 4 * 2**30

hypothesis.settings.register_profile("short", max_examples=60, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=2_000, deadline=None, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of simulations and property tests")
    parser.addoption(
        "--store",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="where the tests of behaviour keep their data; the other tests are of one store",
    )
    parser.addoption("--store-counts", action="store_true", help="store what tests/laws/test_counts.py counts")
    parser.addoption("--store-losses", action="store_true", help="store what tests/bus/test_losses.py finds")


REPLY_CHECKER = pytest.StashKey[ReplyChecker]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    use_files_in_memory(config)
    CHOSEN.is_postgresql = config.getoption("--store") == "postgresql"
    config.add_cleanup(CHOSEN.close)
    if CHOSEN.is_postgresql:  # the pool of connections draws its pauses from it, in a thread of its own
        config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")
    config.stash[REPLY_CHECKER] = ReplyChecker()
    config.addinivalue_line("markers", "undescribed: replies are not compared with the description")
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another store than files, leave out the tests that are about files, or about no store."""
    if config.getoption("--store") == "sqlite":
        return
    others = [item for item in items if not item.nodeid.startswith(BEHAVIOUR)]
    items[:] = [item for item in items if item.nodeid.startswith(BEHAVIOUR)]
    config.hook.pytest_deselected(items=others)
    for item in items:
        reason = next((why for name, why in ONLY_FILES.items() if item.nodeid.startswith(name)), "")
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"about files: {reason}"))


def use_files_in_memory(config: pytest.Config) -> None:
    """Put temporary files where a sync takes no time, if there is room; TMPDIR or --basetemp name another place.

    Waiting for the disk was most of the time of many tests. They kill processes and fill disks of their own, but take
    no power away, so none can tell whether a sync has reached a disk. The directory has a short name, because the path
    of a socket may have 107 bytes.
    """
    if "TMPDIR" in os.environ or config.option.basetemp or not IN_MEMORY.is_dir():
        return
    if shutil.disk_usage(IN_MEMORY).free >= IN_MEMORY_BYTES_MIN:
        os.environ["TMPDIR"] = str(IN_MEMORY)  # for the processes that tests start, too
        tempfile.tempdir = None  # so that it is read again
        config.option.basetemp = directory = tempfile.mkdtemp(prefix="t-")
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tests run in processes of their own; what these note is sent to the one that prints the summary."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["notes"] = notes_in(session.config.stash)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for title, text in getattr(node, "workeroutput", {}).get("notes", []):
        add_note(node.config.stash, title, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, text in notes_in(terminalreporter.config.stash):
        terminalreporter.section(title)
        terminalreporter.write_line(text)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms are run."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def postgresql() -> Server:
    """A PostgreSQL server, started when the first test needs one."""
    return CHOSEN.server


@pytest.fixture(autouse=True)
def _databases_are_dropped(request: pytest.FixtureRequest) -> Iterator[None]:
    """The databases of a test's data directories go with it."""
    if "tmp_path" not in request.fixturenames:
        yield
        return
    directory: Path = request.getfixturevalue("tmp_path")
    yield
    CHOSEN.drop_below(directory)


@pytest.fixture
def transport(tmp_path: Path, clock: Clock) -> Iterator[InProcess]:
    """A real store and dispatcher without a socket, with `clock` as its clock."""
    with in_process(tmp_path / "data", clock=clock) as transport:
        yield transport


@pytest.fixture
def client(transport: InProcess) -> Client:
    """A client of `transport`."""
    return Client(transport=transport)


@pytest.fixture(autouse=True)
def _replies_are_as_described(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every reply of a dispatcher in this process is compared with the schemas and error codes of `describe`.

    The marker `undescribed` turns it off, for tests that count calls or have handlers of their own.
    """
    if request.node.get_closest_marker("undescribed"):
        yield
        return
    checker: ReplyChecker = request.config.stash[REPLY_CHECKER]
    success, failure = Request.success, Request.failure

    def checked_success(self: Request, result: Any, seq: int) -> bytes:
        reply = success(self, result, seq)
        checker.check(self.as_type.wire_name, reply)
        return reply

    def checked_failure(self: Request, error: BackscrollError) -> bytes:
        reply = failure(self, error)
        checker.check(self.as_type.wire_name, reply)
        return reply

    monkeypatch.setattr(Request, "success", checked_success)
    monkeypatch.setattr(Request, "failure", checked_failure)
    yield
    problems, checker.problems = checker.problems, []
    assert problems[:5] == []


StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts real daemon processes, `start_daemon(*flags, data_dir=…)`, which are stopped after the test.

    Their log lines are in `tmp_path / "daemon.log"`.
    """
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "daemon.log").open("a"))

        def start(*flags: str, data_dir: Path | None = None) -> DaemonProcess:
            directory = data_dir or tmp_path / "data"
            store = ["--store", address] if (address := CHOSEN.address(directory)) else []
            return stack.enter_context(DaemonProcess(directory, *store, *flags, log=log))

        yield start


@pytest.fixture(params=["sqlite", "postgresql"])
def start_on_each_store(request: pytest.FixtureRequest, start_daemon: StartDaemon) -> Iterator[StartDaemon]:
    """`start_daemon`, once with files and once with an empty database for all daemons that it starts."""
    if request.param == "sqlite":
        yield start_daemon
        return
    server: Server = request.getfixturevalue("postgresql")
    with server.database() as address:
        yield partial(start_daemon, "--store", address)


class ChatHistory(NamedTuple):
    """Messages as `{"id", "stream", "topic", "sender", "timestamp", "content"}`, ordered by time."""

    source: str
    messages: list[dict[str, Any]]


@pytest.fixture(scope="session")
def chat_history() -> ChatHistory:
    """A real chat history if there is one beside the repository, else a generated conversation."""
    if CORPUS.exists():
        with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
            return ChatHistory("real chat history", [json.loads(line) for line in lines])
    draw = random.Random(GENERATED_SEED)
    messages = [
        {
            "id": 1_000 + number,
            "stream": "Generated",
            "topic": f"topic {draw.randrange(40)} – ünïcödé ∀x",
            "sender": f"user-{draw.randrange(25)}",
            "timestamp": 1_700_000_000_000 + number * 1_000,
            "content": f"<p>{'ΑΩ∑😀 text ' * draw.randrange(1, 60)}</p>",
        }
        for number in range(GENERATED_MESSAGES)
    ]
    return ChatHistory(f"a generated conversation, seed {GENERATED_SEED}", messages)
