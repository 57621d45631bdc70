"""What Electron applications do today: better-sqlite3 in a child process of Node, over Node's own IPC channel.

The programs are in `worker/`: `caller.mjs` is the application that sends requests and measures the time, `worker.mjs`
its child that owns the file. Node fetches (or builds) better-sqlite3 once, into `worker/node_modules`.
"""

import shutil
import subprocess
from pathlib import Path

from tests.bench.program import Program
from tests.bench.tables import make_file
from tests.bench.work import NotHere, Way, Work

FOLDER = Path(__file__).parent / "worker"
PACKAGE, INSTALLED = FOLDER / "package.json", FOLDER / "node_modules" / "installed-package.json"
INSTALL_SECONDS = 400  # without a prebuilt binary it is compiled


class Worker(Program):
    """The Node application, controlled by its standard input."""

    name = "worker"

    def __init__(self, directory: Path) -> None:
        node = install()
        directory.mkdir()
        self.file = make_file(directory / "worker.db")
        self._loaded = ""
        super().__init__([node, str(FOLDER / "caller.mjs"), str(self.file)], directory / "work.json")

    def save(self, work: Work, way: Way) -> float:
        self.load(work)
        return float(self.order(do="save", atOnce=way.callers * way.in_flight)["seconds"])

    def read(self, work: Work, way: Way, _operation: str) -> float:
        self.load(work)
        return float(self.order(do="read", atOnce=way.callers * way.in_flight)["seconds"])

    def load(self, work: Work) -> None:
        if self._loaded != work.name:
            super().load(work)
            self._loaded = work.name


def install() -> str:
    """Fetch the package if needed; the path of node. Raises `NotHere`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotHere("node and npm are not installed")
    if not INSTALLED.exists() or INSTALLED.read_bytes() != PACKAGE.read_bytes():
        command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        if done.returncode != 0:
            raise NotHere(f"npm cannot install better-sqlite3: {done.stderr.strip()[-500:]}")
        shutil.copyfile(PACKAGE, INSTALLED)
    return node
