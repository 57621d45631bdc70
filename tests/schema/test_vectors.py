"""The conformance vectors are well formed, and the schema agrees with those about bytes."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from backscroll.schema.command_log import digest_of
from backscroll.schema.operations import OPERATIONS
from tests import ROOT
from tests.schema.test_canonical import by_the_book
from tests.support.retry_machine import table_as_markdown
from tests.support.vector_runner import Context, results
from tests.support.vectors import DIRECTORY, LISTS, load, vectors_in, write

NEEDS = {"int64", "float", "msgpack"}


@pytest.mark.parametrize("name", LISTS)
def test_a_file_is_well_formed(name: str, tmp_path: Path) -> None:
    """Every vector has a name of its own and no unknown keys, and the file is laid out as `write` does it."""
    content = load(DIRECTORY, name)
    assert content["about"]
    for _, vector in vectors_in(content, name):
        assert set(vector.get("needs", [])) <= NEEDS, vector["name"]
        assert vector.get("type", "ping") in OPERATIONS, vector["name"]
    write(tmp_path, name, content)
    assert (tmp_path / f"{name}.json").read_bytes() == (DIRECTORY / f"{name}.json").read_bytes()


def test_there_are_no_other_files() -> None:
    """Besides the sets there is the page that says what they mean."""
    assert {path.name for path in DIRECTORY.iterdir()} == {"README.md", *(f"{name}.json" for name in LISTS)}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param([{"name": "a"}, {"name": "a"}], id="a name twice"),
        pytest.param([{"steps": []}], id="no name"),
        pytest.param([{"name": "a", "stpes": []}], id="an unknown key"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, broken: list[Any]) -> None:
    """A runner may rely on the names, and misses no key."""
    write(tmp_path, "scenarios", {"about": "x", "vectors": broken})
    with pytest.raises(ValueError, match=r"scenarios\.json"):
        load(tmp_path, "scenarios")


@pytest.mark.parametrize("name", ["codec", "canonical"])
def test_the_schema_agrees_with_the_vectors(name: str) -> None:
    """In both encodings, and with the digest that a daemon has in its log."""
    with ExitStack() as stack:
        assert [result for result in results(DIRECTORY, name, Context(stack)) if not result.ok] == []


def test_canonical_vectors_follow_the_book() -> None:
    """The second implementation, made from PROTOCOL.md and `describe` alone, has the same bytes and digests."""
    for vector in load(DIRECTORY, "canonical")["vectors"]:
        for text in vector["json"]:
            form = by_the_book(vector["type"], json.loads(text))
            assert form.hex() == vector["canonical"], vector["name"]
            assert digest_of(bytes.fromhex(vector["salt"]), form).hex() == vector["digest"], vector["name"]


def test_the_page_shows_the_retry_machine() -> None:
    """The table in PROTOCOL.md is that of `retry.json`."""
    page = (ROOT / "schema" / "PROTOCOL.md").read_text(encoding="utf-8")
    assert table_as_markdown(load(DIRECTORY, "retry")["table"]) in page


def test_the_page_shows_what_a_client_sends_at_first() -> None:
    """The bytes of READY in PROTOCOL.md are those with which this project's clients begin."""
    page = (ROOT / "schema" / "PROTOCOL.md").read_text(encoding="utf-8")
    [shown] = [bytes.fromhex(line) for line in page.splitlines() if line.startswith("    04 1c ")]
    name, value = b"Socket-Type", b"DEALER"
    data = b"\x05READY" + bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
    assert shown == bytes([4, len(data)]) + data


def test_the_scenarios_touch_most_operations() -> None:
    """All but those about tokens, keys, old databases, backups and the daemon itself."""
    text = json.dumps(load(DIRECTORY, "scenarios"))
    used = Counter(name for name in OPERATIONS if f'"type": "{name}"' in text)
    assert set(OPERATIONS) - set(used) <= {
        *("create-token", "revoke-token", "list-tokens", "add-key", "revoke-key", "list-keys", "hello"),
        *("adopt-legacy-database", "health", "describe"),
        *("get-tasks", "start-check", "start-backup", "start-backup-verification", "list-backups"),
    }
