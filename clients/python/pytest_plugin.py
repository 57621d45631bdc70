"""The pytest plugin: a store for a test, its history from a log file, and a snapshot of what the test left there.

pytest loads this module wherever backscroll is installed, so it imports nothing of ours or of others until a fixture
is used. The client is in-process unless a real daemon is asked for; that is the one place where a caller's module
reaches into the bus.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backscroll.clients.python import Client
    from backscroll.clients.python.daemon_process import DaemonProcess

MARKER = "backscroll_log"
SNAPSHOTS = "__snapshots__"
DIFF_LINES_MAX = 200

ReplayLog = Callable[[str | Path], int]
Snapshot = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("backscroll")
    group.addoption("--backscroll-real", action="store_true", help="run backscroll_client against real daemons")
    group.addoption("--backscroll-update", action="store_true", help="write the snapshots of backscroll_snapshot")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}(path, ...): replay these log files into backscroll_client before the test"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let the marker work in a test that talks to the daemon in its own way."""
    names: list[str] = getattr(item, "fixturenames", [])
    if item.get_closest_marker(MARKER) and "backscroll_client" not in names:
        names.append("backscroll_client")


@pytest.fixture
def backscroll_daemon(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[DaemonProcess]":
    """A daemon of this test's own in a temporary directory; its log lines are in `daemon.log` there."""
    from backscroll.clients.python.daemon_access import private_daemon

    directory = tmp_path_factory.mktemp("backscroll")
    with (directory / "daemon.log").open("w") as log, private_daemon(directory / "data", log=log) as daemon:
        yield daemon


@pytest.fixture
def backscroll_client(request: pytest.FixtureRequest) -> "Iterator[Client]":
    """A client of an empty store, with what the test's `backscroll_log` marker names replayed into it.

    The store is in this process; with `--backscroll-real`, or in a test that also uses `backscroll_daemon`, it is that
    daemon's.
    """
    real = request.config.getoption("--backscroll-real") or "backscroll_daemon" in request.fixturenames
    with _real_client(request) if real else _inprocess_client(request) as client:
        for marker in reversed(list(request.node.iter_markers(MARKER))):  # of the module first, then of the test
            for path in marker.args:
                _replay(client, _beside_test(request, path))
        yield client


@pytest.fixture
def replay_log(request: pytest.FixtureRequest, backscroll_client: "Client") -> ReplayLog:
    """`replay_log(path)` replays a log file into `backscroll_client`'s scope; how many commands there were.

    The path is relative to the test's file. Where lines have no `seq` they follow what the scope has already.
    """
    return lambda path: _replay(backscroll_client, _beside_test(request, path))


@pytest.fixture
def backscroll_snapshot(request: pytest.FixtureRequest, backscroll_client: "Client") -> Snapshot:
    """`backscroll_snapshot(name=None)` fails unless the scope holds what it held when the snapshot was written.

    It is the file `__snapshots__/<module>/<test>.json` beside the test, or `<test>.<name>.json`; `--backscroll-update`
    writes it. It has every row of every table, so ids and times that the daemon made belong into a replayed log.
    """
    from backscroll.clients.python.compare import state_of

    taken: set[Path] = set()

    def snapshot(name: str | None = None) -> None:
        __tracebackhide__ = True
        path = _snapshot_path(request, name)
        if path in taken:
            pytest.fail("a test's second snapshot needs a name: backscroll_snapshot('after')", pytrace=False)
        taken.add(path)
        _compare(path, state_of(backscroll_client), update=request.config.getoption("--backscroll-update"))

    return snapshot


def _real_client(request: pytest.FixtureRequest) -> "Client":
    from backscroll.clients.python import Client

    daemon: DaemonProcess = request.getfixturevalue("backscroll_daemon")
    return Client(daemon.endpoint)


def _inprocess_client(request: pytest.FixtureRequest) -> "Client":
    from backscroll.bus.inprocess import InProcess
    from backscroll.clients.python import Client

    directory: Path = request.getfixturevalue("tmp_path_factory").mktemp("backscroll")
    return Client(transport=InProcess(directory / "data"))


def _beside_test(request: pytest.FixtureRequest, path: str | Path) -> Path:
    return request.path.parent / path


def _replay(client: "Client", path: Path) -> int:
    from backscroll.clients.python.log_replay import checked, lines_of, of_one_scope, replay
    from backscroll.schema.log_file import BadLine, LogReader
    from backscroll.schema.operations import GetLog

    last_seq = client.ask(GetLog(limit=1)).last_seq
    try:
        with path.open("rb") as file:
            lines = checked(of_one_scope(LogReader(next_seq=last_seq + 1).read(lines_of(file))))
            return sum(len(chunk.lines) for chunk in replay(lines, lambda _: client))
    except (BadLine, OSError) as error:
        pytest.fail(f"{path.name}: {error}", pytrace=False)


def _snapshot_path(request: pytest.FixtureRequest, name: str | None) -> Path:
    """Where a snapshot lies: named by the test's classes, name and parameters, as far as a file can be named so."""
    test = ".".join(request.node.nodeid.split("::")[1:])
    whole = test if name is None else f"{test}.{name}"
    plain = re.sub(r"[^\w.\[\]-]", "_", whole)
    if plain != whole:  # two names must not become one
        plain += f"-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return request.path.parent / SNAPSHOTS / request.path.stem / f"{plain}.json"


def _compare(path: Path, state: str, *, update: bool) -> None:
    __tracebackhide__ = True
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(state, encoding="utf-8", newline="\n")
        return
    if not path.exists():
        pytest.fail(f"there is no snapshot {path}\nwrite it with: pytest --backscroll-update", pytrace=False)
    expected = path.read_text(encoding="utf-8")
    if state != expected:
        pytest.fail(_difference(path, expected, state), pytrace=False)


def _difference(path: Path, expected: str, state: str) -> str:
    lines = list(difflib.unified_diff(expected.splitlines(), state.splitlines(), "snapshot", "now", lineterm=""))
    if len(lines) > DIFF_LINES_MAX:
        lines[DIFF_LINES_MAX:] = [f"… and {len(lines) - DIFF_LINES_MAX} more lines"]
    head = f"the scope is not as it was in {path}"
    return "\n".join([head, *lines, "if it is right now: pytest --backscroll-update"])
