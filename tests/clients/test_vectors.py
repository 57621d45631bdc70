"""The Python client passes the conformance vectors, and a vector that is changed makes its runner fail."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.broken_vectors import CHANGES, Change, another_digit, write_broken
from tests.support.conformance import Column, complaints, run, table, unnoticed
from tests.support.vector_runner import Context, results
from tests.support.vectors import DIRECTORY, LISTS, Result, Vector, VectorFile, load, vectors_in, write


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    """What the sets share, with one daemon."""
    with ExitStack() as stack:
        yield Context(stack)


@pytest.mark.parametrize("name", [each for each in LISTS if each not in ("codec", "canonical")])
def test_the_python_client_passes_the_vectors(context: Context, name: str) -> None:
    """Each vector of the set; codec and canonical are in tests/schema."""
    assert [result for result in results(DIRECTORY, name, context) if not result.ok] == []


def first(name: str, content: VectorFile, which: str) -> list[Vector]:
    """The first two vectors of a list, which then are all that its set has."""
    kept: list[Vector] = content[which][:2]
    content.update({each: [] for each in LISTS[name]})
    content[which] = kept
    return kept


MORE_CHANGES: list[tuple[str, str, Change]] = [
    ("codec", "requests", lambda each: each.update(msgpack=another_digit(each["msgpack"]))),
    ("canonical", "vectors", lambda each: each.update(salt=another_digit(each["salt"]))),
    ("canonical", "vectors", lambda each: each["json"].append(each["json"][0].replace("{", '{"x":1,', 1))),
    ("refusals", "vectors", lambda each: each["error"].update(message="another")),
    ("refusals", "vectors", lambda each: each["error"].update(retryable=True)),
    ("zmtp", "vectors", lambda each: each["connections"][0][3].update(send="0406055245414458")),
    ("retry", "sequences", lambda each: each["events"][3]["sends"][0].update(n=2)),
    ("scenarios", "vectors", lambda each: each["steps"][1]["result"].update(another=1)),
]
ALL_CHANGES = CHANGES + MORE_CHANGES


@pytest.mark.parametrize(
    ("name", "which", "change"), ALL_CHANGES, ids=[f"{each[1]}-{at}" for at, each in enumerate(ALL_CHANGES)]
)
def test_a_changed_vector_fails(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, which: str, change: Change
) -> None:
    """That one, and not the one after it."""
    content = load(DIRECTORY, name)
    changed, _ = first(name, content, which)
    before = json.dumps(changed)
    change(changed)
    assert json.dumps(changed) != before
    write(tmp_path, name, content)
    monkeypatch.setattr(context, "timeout_ms", 300 if name == "zmtp" else context.timeout_ms)
    assert [result.ok for result in results(tmp_path, name, context)] == [False, True]


# --- the table ---

EXPECTED = {"codec": ["a", "b", "c"], "zmtp": ["a"]}


def test_a_vector_of_each_list_is_broken(tmp_path: Path) -> None:
    """The copy for `--break` has one that is wrong in every list, and everything else as it was."""
    broken = write_broken(DIRECTORY, tmp_path)
    assert [each[:2] for each in CHANGES] == [(name, which) for name, lists in LISTS.items() for which in lists]
    for name in LISTS:
        pairs = zip(vectors_in(load(DIRECTORY, name), name), vectors_in(load(tmp_path, name), name), strict=True)
        changed = {(name, before["name"]) for (_, before), (_, after) in pairs if before != after}
        assert changed == {each for each in broken if each[0] == name}
        assert len(changed) == len(LISTS[name])


def test_a_runner_must_fail_what_is_broken() -> None:
    """All of that, and nothing else."""
    results = [Result("codec", "a", False), Result("codec", "b", False), Result("codec", "c", True)]
    assert list(unnoticed({("codec", "a"), ("codec", "b")}, Column("go", results))) == []
    assert list(unnoticed({("codec", "b"), ("codec", "c")}, Column("go", results))) == [
        "go: codec: a: fails, although nothing is wrong with it: ",
        "go: codec: c: passes, although it is wrong",
    ]


def test_the_table_shows_each_language() -> None:
    """For each set, how many of its vectors passed; what failed, was not run, or does not exist is listed."""
    good = Column("python", [Result("codec", each, True) for each in "abc"] + [Result("zmtp", "a", True)])
    bad = Column("go", [Result("codec", "a", False, "no"), Result("codec", "b", None), Result("codec", "x", True)])
    shown = table(EXPECTED, [good, bad])
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["|", "codec", "|", "3/3", "|", "0/3", "(1", "not", "expressible)", "|"],
        ["|", "zmtp", "|", "1/1", "|", "0/1", "|"],
    ]
    assert list(complaints(EXPECTED, {("codec", "b")}, good)) == []
    assert list(complaints(EXPECTED, {("codec", "b")}, bad)) == [
        "go: codec: a: no",
        "go: codec: c: not run",
        "go: zmtp: a: not run",
        "go: codec: x: there is no such vector",
    ]


def test_a_result_is_true_false_or_null_and_comes_once() -> None:
    """What is printed twice, of an unknown set, or neither of the three is no success."""
    passed: list[Result] = [Result(name, each, True) for name, vectors in EXPECTED.items() for each in vectors]
    results = [*passed, Result("codec", "a", True), Result("hello", "a", True)]
    assert list(complaints(EXPECTED, set(), Column("go", results))) == [
        "go: codec: a: run 2 times",
        "go: hello: a: there is no such vector",
    ]
    text: Any = "true"
    assert list(complaints({"zmtp": ["a"]}, set(), Column("go", [Result("zmtp", "a", text, "no boolean")]))) == [
        "go: zmtp: a: no boolean"
    ]


PASSES = """import json, os
assert os.environ["CONFORMANCE_SERVE"]
print(json.dumps({"set": "codec", "name": "a", "ok": True, "why": ""}))"""


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (PASSES, ""),
        ("print('no JSON')", "its runner failed: Expecting value"),
        ("raise SystemExit(3)", "its runner ended with 3"),
    ],
)
def test_a_runner_is_any_command(tmp_path: Path, code: str, problem: str) -> None:
    """It prints a JSON line for each vector; one that fails is named."""
    column = run("other", [sys.executable, "-c", code], tmp_path)
    assert column.problem.startswith(problem)
    assert column.problem or column.results == [Result("codec", "a", True)]
