"""The pytest plugin: a store for each test, its history from a log file, and snapshots of the store.

pytest loads this module wherever backscroll is installed, so it imports no other part of backscroll and no other
package until a fixture is used. The client is in-process unless a real daemon is requested, so this is the only client
module that imports the bus.
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
    """Make the marker work in tests that do not use `backscroll_client` themselves."""
    names: list[str] = getattr(item, "fixturenames", [])
    if item.get_closest_marker(MARKER) and "backscroll_client" not in names:
        names.append("backscroll_client")


@pytest.fixture
def backscroll_daemon(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[DaemonProcess]":
    """A daemon for this test in a temporary directory; its log lines are in `daemon.log` there."""
    from backscroll.clients.python.daemon_access import private_daemon

    directory = tmp_path_factory.mktemp("backscroll")
    with (directory / "daemon.log").open("w") as log, private_daemon(directory / "data", log=log) as daemon:
        yield daemon


@pytest.fixture
def backscroll_client(request: pytest.FixtureRequest) -> "Iterator[Client]":
    """A client of an empty store, into which the log files of the test's `backscroll_log` markers are replayed.

    The store is in this process; with `--backscroll-real`, or in a test that also uses `backscroll_daemon`, it is that
    of the daemon.
    """
    real = request.config.getoption("--backscroll-real") or "backscroll_daemon" in request.fixturenames
    with _real_client(request) if real else _inprocess_client(request) as client:
        for marker in reversed(list(request.node.iter_markers(MARKER))):  # of the module first, then of the test
            for path in marker.args:
                _replay(client, _beside_test(request, path))
        yield client


@pytest.fixture
def replay_log(request: pytest.FixtureRequest, backscroll_client: "Client") -> ReplayLog:
    """`replay_log(path)` replays a log file into the scope of `backscroll_client`, and returns the number of commands.

    The path is relative to the test's file. Lines without `seq` continue the log of the scope.
    """
    return lambda path: _replay(backscroll_client, _beside_test(request, path))


@pytest.fixture
def backscroll_snapshot(request: pytest.FixtureRequest, backscroll_client: "Client") -> Snapshot:
    """`backscroll_snapshot(name=None)` fails if the scope differs from the stored snapshot.

    The snapshot is the file `__snapshots__/<module>/<test>.json` beside the test, or `<test>.<name>.json`;
    `--backscroll-update` writes it. It has every row of every table. Ids and times that the daemon generates are the
    same each time only in a replayed log.
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
    return Client(data_dir=daemon.data_dir)


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
    """The path of a snapshot, from the test's classes, name and parameters as far as file names allow."""
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
    head = f"the scope differs from the snapshot {path}"
    return "\n".join([head, *lines, "to accept the difference: pytest --backscroll-update"])
