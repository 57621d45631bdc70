"""Figures and their evaluation: alternating rounds, medians, ratios, and rows that are compared with targets.

Independent of peers and workloads.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Rounds = dict[str, list[float]]


class Figure(NamedTuple):
    """What one peer measured in a workload, round by round."""

    what: str
    peer: str
    unit: str
    rounds: Sequence[float]


class Target(NamedTuple):
    """A bound that a value must reach at least, or at most."""

    bound: float
    at_least: bool = True
    unit: str = "×"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{_spaced(self.unit)}"


class Row(NamedTuple):
    """One line of the table; `rounds` is empty where it could not be measured, and `note` gives the reason."""

    what: str
    against: str
    target: Target
    value: float | None
    rounds: Sequence[float] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.target.bound if self.target.at_least else self.value <= self.target.bound

    @property
    def share(self) -> float | None:
        """How far the target is reached: 1 is just met, 2 twice as good."""
        if self.value is None:
            return None
        if self.target.at_least:
            return self.value / self.target.bound
        return self.target.bound / self.value if self.value else math.inf

    @property
    def measured(self) -> str:
        return "–" if self.value is None else f"{self.value:.2f}{_spaced(self.target.unit)}"

    @property
    def spread(self) -> str:
        return f"{min(self.rounds):.2f}–{max(self.rounds):.2f}" if self.rounds else ""


class Outcome(NamedTuple):
    """The figures and rows of a workload."""

    figures: list[Figure]
    rows: list[Row]


def alternate(jobs: Mapping[str, Callable[[int], float]], rounds: int) -> Rounds:
    """The values of each job in each round; rounds begin with different jobs, so that a slow minute affects all of
    them.
    """
    names = list(jobs)
    found: Rounds = {name: [] for name in jobs}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()  # so that no job pays for the garbage of another
            found[name].append(jobs[name](number))
    return found


def seconds(job: Callable[[], object]) -> float:
    """How long a job takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def processor_seconds(pid: int) -> float:
    """What all threads of a process have used; its ticks are too coarse for one that does nothing."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that this percentage of values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def peak_megabytes(pid: int) -> float | None:
    """The peak memory of a process so far; None where the system does not tell, or it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e6


def compare(what: str, against: str, target: Target, above: Sequence[float], below: Sequence[float]) -> Row:
    """The row of a ratio of medians; its spread is that of the ratios of the rounds."""
    rounds = [a / b for a, b in zip(above, below, strict=True)]
    return Row(what, against, target, statistics.median(above) / statistics.median(below), rounds)


def plain(what: str, against: str, target: Target, rounds: Sequence[float]) -> Row:
    """The row of a median that is compared with the target directly."""
    return Row(what, against, target, statistics.median(rounds), rounds)


def missing(what: str, against: str, target: Target, why: str) -> Row:
    """The row of what could not be measured."""
    return Row(what, against, target, None, note=why)


def _spaced(unit: str) -> str:
    return unit if unit == "×" else f" {unit}"
