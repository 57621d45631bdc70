"""Changes that make a conformance vector wrong, so that every runner must fail it."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.vectors import LISTS, Vector, load, write

Change = Callable[[Vector], object]


def another_digit(text: str) -> str:
    """The text with another last hexadecimal digit."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


CHANGES: list[tuple[str, str, Change]] = [
    ("codec", "requests", lambda each: each.update(canonical=another_digit(each["canonical"]))),
    ("codec", "replies", lambda each: each.update(result="another")),
    ("canonical", "vectors", lambda each: each.update(digest=another_digit(each["digest"]))),
    ("hello", "vectors", lambda each: each.update(proof=another_digit(each["proof"]))),
    ("refusals", "vectors", lambda each: each["error"].update(code="conflict")),
    ("zmtp", "vectors", lambda each: each["connections"][-1].append({"receive": "request"})),
    ("retry", "table", lambda each: each.update(to="settled")),
    ("retry", "sequences", lambda each: each["events"][3]["sends"].reverse()),
    ("scenarios", "vectors", lambda each: each["steps"][1]["result"].update(content="another")),
]
"""One for each list: what a runner in any language notices in its first vector."""


def write_broken(source: Path, target: Path) -> set[tuple[str, str]]:
    """Write a copy in which the first vector of each list is wrong; returns the set and the name of these."""
    files = {name: load(source, name) for name in LISTS}
    broken = set()
    for name, which, change in CHANGES:
        vector = files[name][which][0]
        before = json.dumps(vector)
        change(vector)
        assert json.dumps(vector) != before
        broken.add((name, vector["name"]))
    for name, content in files.items():
        write(target, name, content)
    return broken
