"""The clients of all languages and npm's zeromq with one daemon, beside a bare echo.

The packages for Node are installed as an application installs them: ours as `npm pack` makes it, from the `dist` of
`clients/typescript/core`, and `zeromq` from npm, each into a temporary folder. The others are the programs of
`drivers.py`.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from backscroll.clients.python import Client
from backscroll.schema import Ping
from tests import ROOT
from tests.bench.bench import Bench
from tests.bench.daemon import ByClient
from tests.bench.drivers import DRIVERS, NODE_DRIVER, Driver, start_driver
from tests.bench.echo import Echo
from tests.bench.measuring import Figure, Outcome, alternate, seconds
from tests.bench.sockets import TIMEOUT_MS
from tests.bench.work import PAGE, NotHere, Way, Work, expected_pages, make_work

PACKAGE = ROOT / "clients" / "typescript" / "core"
ZEROMQ = "zeromq@6.8.0"
INSTALL_SECONDS = 240
PYTHON, TYPESCRIPT, NPM_ZEROMQ = "Python client", "TypeScript client", "npm's zeromq"
ROOMS, MESSAGES_OF_ROOM = 20, 100
SAVES, PAGES = Way(in_flight=256), Way(in_flight=32)
NPM = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--omit=optional"]


class Caller(NamedTuple):
    """How one of them does the work, in seconds."""

    ping: Callable[[int], float]
    save: Callable[[Work, Way], float]
    read: Callable[[Work, Way], float]


class Installed(NamedTuple):
    """A folder in which a package for Node is installed, and what that brought."""

    folder: Path
    files: int
    bytes: int


def _driver_of(package: Installed, endpoint: str) -> Driver:
    """`driver.mjs` with one of the packages."""
    shutil.copy(NODE_DRIVER, package.folder)
    command = ["node", str(package.folder / NODE_DRIVER.name), package.folder.name, endpoint]
    return Driver(command, package.folder / "work.json")


def compare_languages(bench: Bench) -> Outcome:
    """Round trips, pipelined saves and pages of each, in alternating rounds, and what `npm install` brings."""
    daemon, echo = bench.peer(ByClient.name), bench.peer(Echo.name)
    assert isinstance(daemon, ByClient)
    assert isinstance(echo, Echo)
    rooms = make_work("languages", ROOMS * MESSAGES_OF_ROOM, rooms=ROOMS)
    bench.save_once(daemon, rooms)
    endpoint = daemon.process.endpoint
    figures: list[Figure] = []
    with ExitStack() as stack:
        client = stack.enter_context(Client(endpoint, timeout_ms=TIMEOUT_MS))
        callers = {
            PYTHON: Caller(_pings(client), daemon.save, lambda work, way: daemon.read(work, way, "get-message-page")),
            "echo": Caller(echo.ping, echo.save, lambda work, way: echo.read(work, way, "get-message-page")),
        }
        try:
            packages = {TYPESCRIPT: install_ours(bench.directory), NPM_ZEROMQ: install_zeromq(bench.directory)}
        except NotHere as reason:
            bench.missing |= dict.fromkeys((TYPESCRIPT, NPM_ZEROMQ), str(reason))
            packages = {}
        drivers = {name: _driver_of(each, endpoint) for name, each in packages.items()}
        for language in (each for each in DRIVERS if each != "TypeScript"):
            try:
                drivers[f"{language} client"] = start_driver(language, endpoint, bench.directory)
            except NotHere as reason:
                bench.missing[f"{language} client"] = str(reason)
        for name, driver in drivers.items():
            stack.enter_context(closing(driver))
            assert driver.read_back(rooms) == expected_pages(rooms), f"{name} does not read what was saved"
            bench.checked.append(name)
            callers[name] = Caller(driver.ping, driver.save, driver.read)
        for name, installed in packages.items():
            figures.append(Figure("npm install", name, "files", [installed.files]))
            figures.append(Figure("npm install", name, "KiB", [installed.bytes / 1024]))
        figures[:0] = _measured(bench, callers, rooms)
    return Outcome(figures, [])


def _measured(bench: Bench, callers: dict[str, Caller], rooms: Work) -> Iterator[Figure]:
    sizes = bench.sizes

    def pings(name: str) -> Callable[[int], float]:
        return lambda _number: callers[name].ping(sizes.single) / sizes.single

    def saves(name: str) -> Callable[[int], float]:
        return lambda number: (
            sizes.pipelined / callers[name].save(make_work(f"{name} {number}", sizes.pipelined, rooms=ROOMS), SAVES)
        )

    def pages(name: str) -> Callable[[int], float]:
        def job(number: int) -> float:
            visits = make_work("languages", 0, sizes.pages * (number + 1), ROOMS).visits[-sizes.pages :]
            return sizes.pages / callers[name].read(rooms._replace(name=f"languages {number}", visits=visits), PAGES)

        return job

    for what, unit, job_of in (
        ("ping, one at a time", "s", pings),
        (f"save-message, {SAVES.title}", "messages/s", saves),
        (f"get-message-page of {PAGE}, {PAGES.title}", "pages/s", pages),
    ):
        found = alternate({name: job_of(name) for name in callers}, sizes.rounds + 1)
        yield from (Figure(what, name, unit, rounds[1:]) for name, rounds in found.items())  # after one to warm up


def _pings(client: Client) -> Callable[[int], float]:
    def send(count: int) -> None:
        for _ in range(count):
            client.ask(Ping())

    return lambda count: seconds(lambda: send(count))


def install_ours(directory: Path) -> Installed:
    """Install the client for Node as it would be published; raises `NotHere`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotHere("node and npm are not installed")
    if not (PACKAGE / "dist" / "esm" / "index.js").exists():
        raise NotHere("the client is not built: run `npm install && npm run build -w core` in clients/typescript")
    folder = directory / "backscroll"
    folder.mkdir()
    _run(["npm", "pack", str(PACKAGE), "--ignore-scripts", "--silent"], folder)
    [packed] = folder.glob("*.tgz")
    return _installed(folder, f"./{packed.name}")


def install_zeromq(directory: Path) -> Installed:
    """Install npm's zeromq; raises `NotHere`."""
    folder = directory / "zeromq"
    folder.mkdir()
    return _installed(folder, ZEROMQ)


def _installed(folder: Path, package: str) -> Installed:
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    _run([*NPM, package], folder)
    files = [path for path in (folder / "node_modules").rglob("*") if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path.name != ".package-lock.json"]
    return Installed(folder, len(files), sum(path.stat().st_size for path in files))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise NotHere(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-500:]}")
