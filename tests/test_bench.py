"""The benchmark runs: a short one, looked at for completeness and never for speed."""

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "bench" / "run.py"
SECONDS = 120
MEASURED = {
    "saves, one at a time": {"daemon, Client", "daemon, bare socket", "echo, bare socket", "orm, in-process"},
    "saves, 256 in flight": {"daemon, Client", "daemon, bare socket", "echo, bare socket"},
    "pages of 50, one at a time": {"daemon, Client", "daemon, bare socket", "echo, bare socket", "orm, in-process"},
    "pages of 50, 32 in flight": {"daemon, Client", "daemon, bare socket", "echo, bare socket"},
}


def test_the_benchmark_measures_every_peer_on_equal_data(tmp_path: Path) -> None:
    """All peers read the same before anything is timed, and each has its row in the table and in the JSON file."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, RUN, "--messages", "60", "--pages", "8", "--rounds", "1", "--json", figures]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert "equal data: 4 peers" in done.stdout
    found = json.loads(figures.read_text(encoding="utf-8"))
    measured: dict[str, set[str]] = {}
    for row in found["perSecond"]:
        assert row["median"] > 0
        assert len(row["rounds"]) == 1
        assert f"{row['measure']:28}{row['peer']}" in done.stdout
        measured.setdefault(row["measure"], set()).add(row["peer"])
    assert measured == MEASURED
    assert all(ratio > 0 for ratio in found["ratios"].values())
