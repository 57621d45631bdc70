"""The outcome as lines for people and as a document for programs."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from tests.bench.measuring import Figure, Row

VERDICTS = {True: "met", False: "NOT met", None: "not measured"}


def figure_lines(figures: Sequence[Figure]) -> Iterator[str]:
    """The figures, one peer's on each line."""
    yield f"{'measured':62}{'peer':34}{'median':>9}{'':14}min–max"
    for figure in figures:
        scale, unit = (1e3, "m" + figure.unit) if figure.unit.startswith("s") else (1, figure.unit)
        values = [value * scale for value in figure.rounds]
        spread = f"{_number(min(values))}–{_number(max(values))}"
        yield f"{figure.what:62}{figure.peer:34}{_number(statistics.median(values)):>9} {unit:12} {spread}"


def row_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The targets, one on each line."""
    yield f"{'target':62}{'against':26}{'wanted':>10}{'median':>11}   min–max"
    for row in rows:
        line = f"{row.what:62}{row.against:26}{row.target!s:>10}{row.measured:>11}   {row.spread:15}"
        yield f"{line} {VERDICTS[row.met]}{': ' + row.note if row.note else ''}"


def as_json(about: dict[str, str], figures: Sequence[Figure], rows: Sequence[Row]) -> dict[str, Any]:
    """Everything, including the values of every round."""
    return {
        "about": about,
        "targets": [
            {
                "what": row.what,
                "against": row.against,
                "target": row.target.bound,
                "atLeast": row.target.at_least,
                "unit": row.target.unit,
                "median": row.value,
                "rounds": row.rounds,
                "met": row.met,
                "note": row.note,
            }
            for row in rows
        ],
        "figures": [{**figure._asdict(), "median": statistics.median(figure.rounds)} for figure in figures],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
