"""A short run of the benchmark, checked for completeness and not for speed.

The run of everything takes half a minute and needs other toolchains, so it is made only where `CI` is set. The peers
that are fetched or built (better-sqlite3 and clients for Node, sqlite-rx) must all be there then.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests import ROOT

SECONDS = 900  # the first run on a machine may have to compile better-sqlite3
BY_HAND = "psycopg, the same statements"
SAVES = "save-message, one client, 256 in flight"
TARGETS = {
    (SAVES, "worker"): 10,
    (SAVES, "orm"): 5,
    (SAVES, "sqlite-rx"): 20,
    ("save-message, 8 callers, 1 at a time each", "worker"): 3,
    ("save-message, one at a time", "echo + one disk sync"): 1.5,
    ("save-message, one at a time (bare socket)", "echo + one disk sync"): 1.5,
    ("get-messages of 50, 32 in flight", "worker"): 10,
    ("get-messages of 50, 32 in flight", "orm"): 15,
    ("get-messages of 50, 32 in flight", "daemon without its cache"): 2,
    ("get-message-page of 50, 32 in flight", "worker"): 10,
    ("get-message-page of 50, 32 in flight", "orm"): 15,
    ("get-message-page of 50, 32 in flight", "daemon without its cache"): 2,
    ("get-messages of 50, one at a time", "worker"): 2,
    ("import of 300 messages", "apsw"): 0.4,
    ("reader's p99 during an import", "quiet p99"): 3,
    ("reader's p99 during an import, each page built", "quiet p99"): 3,
    ("reader's p99 during a 1-second statement", "quiet p99"): 3,
    ("reader's p99 during list-users of 500", "quiet p99"): 3,
    ("reader's p99 with 20 ms syncs", "quiet p99"): 3,
    ("page of 50 at the end, a file of 10,000", "a file of 5,000"): 1.3,
    ("page of 50 at the middle, a file of 10,000", "a file of 5,000"): 1.3,
    ("page of 50 at the start, a file of 10,000", "a file of 5,000"): 1.3,
    ("start to ready, a file of 10,000", ""): 0.5,
    ("peak memory serving it, a file of 10,000", ""): 120,
    ("pages that are read, checksums", "without"): 1.25,
    ("saves, 256 in flight, checksums", "without"): 1.1,
    ("saves, one at a time, checksums", "without"): 1.1,
    ("start to ready, checksums", "without"): 1.1,
    ("told of a commit, one watcher", ""): 1,
    ("p99 told of a commit, 20 watchers", ""): 50,
    ("processor while idle, 20 watchers", ""): 0.5,
    ("save-message, 256 in flight, 20 watchers", "without them"): 0.85,
    ("p99 of saves beside a watcher that does not read", "quiet p99"): 3,
    ("p99 of saves beside queries of watchers that are gone", "quiet p99"): 3,
    ("p99 of saves beside a client that asks for the whole feed", "quiet p99"): 3,
    ("p99 of saves during a backup, 1 in flight", "between backups"): 1.5,
    ("p99 of saves during a backup, 256 in flight", "between backups"): 1.5,
    ("full backup, 1,700 messages with media", ""): 180,
    ("bytes of an increment after 1,000 saves", "their requests"): 2,
    ("saves, PostgreSQL, 1 in flight", BY_HAND): 0.7,
    ("saves, PostgreSQL, 256 in flight", BY_HAND): 0.7,
    ("get-message-page, PostgreSQL, 1 in flight", BY_HAND): 1,
    ("get-message-page, PostgreSQL, 32 in flight", BY_HAND): 1,
}
FETCHED = {"worker", "sqlite-rx", "TypeScript client", "npm's zeromq"}
ALWAYS = {"daemon", "daemon, bare socket", "echo", "orm", "apsw"}


@pytest.mark.skipif(not os.environ.get("CI"), reason="CI is not set")
@pytest.mark.timeout(SECONDS + 30)
def test_the_benchmark_measures_every_target_on_equal_data(tmp_path: Path) -> None:
    """All peers store and return the same data before anything is timed, and each target has a row, an entry
    and a bar.
    """
    out = tmp_path / "results"
    done = _run("--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    assert {(row["what"], row["against"]): row["target"] for row in found["targets"]} == TARGETS
    for row in found["targets"]:
        assert f"{row['what']:62}{row['against']:26}" in done.stdout
        _check_measured(row, found["about"]["not here"])
    checked = found["about"]["equal data"]
    assert all(name in checked for name in ALWAYS | FETCHED), found["about"]["not here"]
    assert all(figure["median"] > 0 and figure["rounds"] for figure in found["figures"])
    _check_chart(out / "bench.svg")


def test_workloads_can_be_selected_by_name(tmp_path: Path) -> None:
    """Only the named workload is measured; an unknown name is refused."""
    done = _run("--quick", "--out", tmp_path, "latency-syncs")
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["targets"]
    assert row["what"] == "reader's p99 with 20 ms syncs"
    refused = _run("--quick", "--out", tmp_path, "nonsense")
    assert refused.returncode == 2
    assert "no such workload: nonsense" in refused.stderr


def _check_measured(row: dict[str, Any], not_here: str) -> None:
    """A row has a value and a verdict, or a reason why it has none."""
    if row["median"] is None:
        assert row["met"] is None
        assert row["note"]
        assert row["against"] == "daemon without its cache" or row["against"] in not_here or "memory" in row["what"]
    else:
        assert row["median"] > 0
        assert isinstance(row["met"], bool)
        assert len(row["rounds"]) >= 1


def _check_chart(path: Path) -> None:
    """The chart is an SVG that names every row."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for what, against in TARGETS:
        assert (f"{what} / {against}" if against else what) in texts


def _run(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS, check=False, cwd=ROOT
    )
