"""What Electron applications do today: better-sqlite3 in a child process of Node, over Node's own IPC channel.

The programs are in `worker/`: `caller.mjs` is the application that sends requests and measures the time, `worker.mjs`
its child that owns the file. Node fetches (or builds) better-sqlite3 once, into `worker/node_modules`.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.tables import make_file
from tests.bench.work import NotHere, Page, Way, Work

FOLDER = Path(__file__).parent / "worker"
PACKAGE, INSTALLED = FOLDER / "package.json", FOLDER / "node_modules" / "installed-package.json"
INSTALL_SECONDS = 400  # without a prebuilt binary it is compiled


class Worker:
    """The Node application, controlled by its standard input."""

    name = "worker"

    def __init__(self, directory: Path) -> None:
        node = install()
        directory.mkdir()
        self.file = make_file(directory / "worker.db")
        self._given = directory / "work.json"
        self._loaded = ""
        command = [node, str(FOLDER / "caller.mjs"), str(self.file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def save(self, work: Work, way: Way) -> float:
        self._load(work)
        return float(self._order(do="save", atOnce=way.callers * way.in_flight)["seconds"])

    def read(self, work: Work, way: Way, _operation: str) -> float:
        self._load(work)
        return float(self._order(do="read", atOnce=way.callers * way.in_flight)["seconds"])

    def read_back(self, work: Work) -> list[Page]:
        self._load(work)
        pages: list[Page] = self._order(do="readBack")["pages"]
        return pages

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _load(self, work: Work) -> None:
        if self._loaded != work.name:
            self._given.write_bytes(msgspec.json.encode(work._asdict()))
            self._order(do="load", path=str(self._given))
            self._loaded = work.name

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker's application has ended; its standard error says why")
        answer: dict[str, Any] = json.loads(line)
        return answer


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
