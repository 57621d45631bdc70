"""The table of languages and conformance vectors: how many each passes. `schema/vectors/README.md` has the contract.

    python -m tests.support.conformance [--vectors DIRECTORY] [--runner NAME "COMMAND" …] [--only NAME …] [--break]

Exits with 1 where a vector fails or is missing in the output of a runner, which is then listed below the table. With
`--break`, one vector of each list is made wrong in a copy, and it exits with 1 unless every runner fails exactly those.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests import ROOT
from tests.support.broken_vectors import write_broken
from tests.support.vectors import DIRECTORY, LISTS, Result, load, vectors_in

JAVA = "clients/java/target"
RUNNERS: dict[str, list[str]] = {
    "python": [sys.executable, "-m", "tests.support.vector_runner"],
    "typescript": ["node", "clients/typescript/core/build/test/vectors/main.js"],
    "go": ["clients/go/build/vectors"],
    "rust": ["clients/rust/target/debug/vectors"],
    "java": ["java", "-cp", f"{JAVA}/classes:{JAVA}/test-classes:{JAVA}/dependencies/*", "backscroll.VectorRunner"],
    "c": ["clients/c/build/vectors"],
}
BUILD = {
    "typescript": "npm install && npm run pretest -w core, in clients/typescript",
    "go": "go test -c -o build/vectors ., in clients/go",
    "rust": "cargo build --workspace, in clients/rust",
    "java": "mvn test-compile, in clients/java",
    "c": "make build/vectors, in clients/c",
}
"""What makes a runner that has to be built."""
RUN_SECONDS = 300
WHY_CHARS_MAX = 500
SERVE = shlex.join([sys.executable, "-m", "backscroll.bus"])
"""The command that runners start daemons with."""

Names = dict[str, list[str]]
"""The names of the vectors in each set."""


class Column(NamedTuple):
    """What the runner of one language said."""

    language: str
    results: list[Result]
    problem: str = ""

    def of(self, name: str) -> dict[str, Result]:
        return {result.name: result for result in self.results if result.set == name}


def run(language: str, command: list[str], directory: Path) -> Column:
    """Run one language's runner."""
    words, env = [*command, str(directory)], {"CONFORMANCE_SERVE": SERVE} | os.environ
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=RUN_SECONDS, check=False
        )
        results = [Result(**json.loads(line)) for line in done.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError) as error:
        return Column(language, [], f"its runner failed: {error}{_hint(language)}")
    ended = f"its runner ended with {done.returncode}{_hint(language)}" if done.returncode else ""
    return Column(language, results, ended)


def _hint(language: str) -> str:
    return f"; was it built ({BUILD[language]})?" if language in BUILD else ""


def cell(expected: list[str], column: Column, name: str) -> str:
    """How many vectors of a set passed, such as `28/30`, and how many the language cannot express."""
    found = column.of(name)
    passed = sum(found[each].ok is True for each in expected if each in found)
    lacking = sum(found[each].ok is None for each in expected if each in found)
    return f"{passed}/{len(expected)}" + (f" ({lacking} not expressible)" if lacking else "")


def complaints(expected: Names, needs: set[tuple[str, str]], column: Column) -> Iterable[str]:
    """What is wrong with a column, in a line each."""
    if column.problem:
        yield f"{column.language}: {column.problem}"
    if column.problem and not column.results:
        return
    for name, vectors in expected.items():
        found = column.of(name)
        for each in vectors:
            result = found.get(each)
            if result is None:
                yield f"{column.language}: {name}: {each}: not run"
            elif result.ok is not True and not (result.ok is None and (name, each) in needs):
                yield f"{column.language}: {name}: {each}: {result.why[:WHY_CHARS_MAX]}"
    for (name, each), number in Counter((result.set, result.name) for result in column.results).items():
        if each not in expected.get(name, []):
            yield f"{column.language}: {name}: {each}: there is no such vector"
        elif number > 1:
            yield f"{column.language}: {name}: {each}: run {number} times"


def unnoticed(broken: set[tuple[str, str]], column: Column) -> Iterable[str]:
    """Which of the broken vectors a column does not fail, and what it fails besides, in a line each."""
    if column.problem:
        yield f"{column.language}: {column.problem}"
    failed = {(each.set, each.name): each.why[:WHY_CHARS_MAX] for each in column.results if each.ok is False}
    for name, vector in sorted(failed.keys() - broken):
        yield f"{column.language}: {name}: {vector}: fails, although nothing is wrong with it: {failed[name, vector]}"
    for name, vector in sorted(broken - failed.keys()):
        yield f"{column.language}: {name}: {vector}: passes, although it is wrong"


def run_broken(runners: dict[str, list[str]], directory: Path) -> int:
    """Have every runner run a copy with a wrong vector in each list; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="backscroll-") as copy:
        broken = write_broken(directory, Path(copy))
        columns = [run(language, command, Path(copy)) for language, command in runners.items()]
    wrong = [line for column in columns for line in unnoticed(broken, column)]
    if not wrong:
        wrong_ones = "\n".join(f"  {name}: {vector}" for name, vector in sorted(broken))
        sys.stdout.write(f"{', '.join(runners)}: each fails exactly the vectors that were made wrong\n{wrong_ones}\n")
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


def table(expected: Names, columns: list[Column]) -> str:
    """The table in Markdown."""
    rows = [["", *(column.language for column in columns)]]
    rows += [[name, *(cell(vectors, column, name) for column in columns)] for name, vectors in expected.items()]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def main() -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.conformance", description=__doc__.split("\n")[0])
    parser.add_argument("--vectors", type=Path, default=DIRECTORY, help="default: schema/vectors")
    parser.add_argument("--runner", nargs=2, action="append", default=[], metavar=("NAME", "COMMAND"))
    parser.add_argument("--only", action="append", metavar="NAME", help="a language, instead of all")
    parser.add_argument("--break", dest="breaks", action="store_true", help="whether wrong vectors are noticed")
    options = parser.parse_args()
    runners = RUNNERS | {name: shlex.split(command) for name, command in options.runner}
    if options.only:
        runners = {name: runners[name] for name in options.only}
    if options.breaks:
        return run_broken(runners, options.vectors)
    files = {name: load(options.vectors, name) for name in LISTS}
    expected = {name: [vector["name"] for _, vector in vectors_in(files[name], name)] for name in LISTS}
    needs = {(name, each["name"]) for name in LISTS for _, each in vectors_in(files[name], name) if "needs" in each}
    columns = [run(language, command, options.vectors.resolve()) for language, command in runners.items()]
    wrong = [line for column in columns for line in complaints(expected, needs, column)]
    sys.stdout.write(table(expected, columns) + "\n" + "".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
