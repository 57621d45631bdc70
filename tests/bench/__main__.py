"""The benchmark: the daemon against what it could be replaced with, and against the limits of transport and storage.

    python -m tests.bench [--quick] [--out DIR] [--directory DIR] [WORKLOAD ...]

Prints what was measured and a line for each target, and writes both as `bench.json` with a chart, `bench.svg`. Each
peer is a small program in this folder; it gets the same work and must keep and read the same before anything is timed.
Rounds alternate between the peers, so that a slow minute of the machine hits all of them; medians are quoted, with the
least and the most beside them. Where a peer cannot run, its rows say why. `--quick` only shows that all of it runs.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import apsw
import zmq

from tests import ROOT
from tests.bench.backups import back_up_large_scope, wait_during_backup
from tests.bench.bench import FULL, QUICK, Bench
from tests.bench.chart import svg
from tests.bench.checked_pages import price_checksums
from tests.bench.languages import compare_languages
from tests.bench.latency import wait_during_import, wait_during_list, wait_during_statement, wait_during_syncs
from tests.bench.limits import sync_seconds
from tests.bench.measuring import Figure, Outcome, Row
from tests.bench.on_postgresql import on_postgresql
from tests.bench.reading import read_pipelined, read_single
from tests.bench.report import as_json, figure_lines, row_lines
from tests.bench.saving import import_history, replay_history, save_by_eight, save_pipelined, save_single
from tests.bench.sizes import read_large_file
from tests.bench.watching import endure_watchers, watch
from tests.bench.work import SEED, source

SYNCS = 100
WORKLOADS: dict[str, Callable[[Bench], Outcome]] = {
    "save-pipelined": save_pipelined,
    "save-eight": save_by_eight,
    "save-single": save_single,
    "read-pipelined": read_pipelined,
    "read-single": read_single,
    "import": import_history,
    "replay": replay_history,
    "latency-import": wait_during_import,
    "latency-statement": wait_during_statement,
    "latency-list": wait_during_list,
    "latency-syncs": wait_during_syncs,
    "large-file": read_large_file,
    "checksums": price_checksums,
    "languages": compare_languages,
    "watch": watch,
    "endure-watchers": endure_watchers,
    "backup": wait_during_backup,
    "backup-large": back_up_large_scope,
    "postgresql": on_postgresql,
}


def main() -> None:
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed daemon starts from byte code
    figures: list[Figure] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory:
        about = _about(options, Path(directory))
        print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
        with closing(Bench(Path(directory), QUICK if options.quick else FULL)) as bench:
            for name in options.workloads or WORKLOADS:
                outcome = WORKLOADS[name](bench)
                print("\n".join(["", *figure_lines(outcome.figures)]), flush=True)
                figures.extend(outcome.figures)
                rows.extend(outcome.rows)
            about["equal data"] = ", ".join(bench.checked)
            about["not here"] = "; ".join(f"{name}: {why}" for name, why in bench.missing.items()) or "nothing"
    print("\n".join([f"\nequal data: {about['equal data']}", f"not here: {about['not here']}", "", *row_lines(rows)]))
    _write(options.out, about, figures, rows)


def _write(out: Path, about: dict[str, str], figures: list[Figure], rows: list[Row]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    document = json.dumps(as_json(about, figures, rows), indent=2, ensure_ascii=False)
    (out / "bench.json").write_text(document + "\n", encoding="utf-8")
    (out / "bench.svg").write_text(svg(rows, f"{about['machine']}; {about['versions']}"), encoding="utf-8")
    print(f"\nwritten: bench.json and bench.svg in {out}")


def _about(options: argparse.Namespace, directory: Path) -> dict[str, str]:
    """What the figures depend on."""
    packages = ("backscroll", "msgspec", "peewee", "pyzmq")
    return {
        "work": f"messages from {source()}; rooms and reactions by seed {SEED}",
        "sizes": "quick: no figure means anything" if options.quick else str(FULL),
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                f"SQLite {apsw.sqlite_lib_version()}",
                f"libzmq {zmq.zmq_version()}",
                *(f"{package} {version(package)}" for package in packages),
            ]
        ),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "making 4 KiB durable": f"{sync_seconds(directory, SYNCS) * 1e6:.0f} µs",
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"one of {', '.join(WORKLOADS)}; else all")
    parser.add_argument("--quick", action="store_true", help="as little of everything as shows that it runs")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results", help="where the results are written")
    parser.add_argument("--directory", type=Path, help="where the files are made; else the system's temporary one")
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
