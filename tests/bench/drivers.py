"""The programs that use the clients of other languages as the benchmark wants, as their tests build them."""

import shutil
from pathlib import Path

from tests import ROOT
from tests.bench.program import Program
from tests.bench.work import NotHere, Way, Work

CLIENTS = ROOT / "clients"
NODE_DRIVER = Path(__file__).parent / "node" / "driver.mjs"
JAVA = CLIENTS / "java" / "target"
RUST = [CLIENTS / "rust" / "target" / profile / "driver" for profile in ("release", "debug")]
DRIVERS: dict[str, list[str]] = {
    "TypeScript": ["node", str(CLIENTS / "typescript" / "core" / "build" / NODE_DRIVER.name), "backscroll"],
    "Go": [str(CLIENTS / "go" / "build" / "driver")],
    "Rust": [str(next((each for each in RUST if each.exists()), RUST[0]))],
    "Java": ["java", "-cp", f"{JAVA}/classes:{JAVA}/test-classes:{JAVA}/dependencies/*", "backscroll.Driver"],
    "C": [str(CLIENTS / "c" / "build" / "driver")],
}
"""The command of each, to which an endpoint is added. The language's tests build it: see CONTRIBUTING.md."""


class Driver(Program):
    """One of the programs, connected with a daemon."""

    def ping(self, count: int) -> float:
        return float(self.order(do="ping", count=count)["seconds"])

    def save(self, work: Work, way: Way) -> float:
        self.load(work)
        return float(self.order(do="save", inFlight=way.in_flight)["seconds"])

    def read(self, work: Work, way: Way) -> float:
        self.load(work)
        return float(self.order(do="read", inFlight=way.in_flight)["seconds"])


def start_driver(language: str, endpoint: str, directory: Path) -> Driver:
    """Start the program of a language; raises `NotHere` if it was not built."""
    command = DRIVERS[language]
    if language == "TypeScript":
        if not Path(command[1]).parent.is_dir():
            raise NotHere("the TypeScript client is not built")
        shutil.copy(NODE_DRIVER, command[1])  # where the package finds itself
    if shutil.which(command[0]) is None:
        raise NotHere(f"there is no {command[0]}: run the tests of the {language} client, which build it")
    return Driver([*command, endpoint], directory / f"{language}.json")
