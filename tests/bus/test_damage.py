"""Damage to files on the disk, at random: no answer is ever wrong, and a start that is refused says why.

A trial changes a bit, 600 bytes, a page or the length of a database or of its write-ahead log, while a daemon runs or
before it starts, and compares every answer with the known one. `--long` does many more of them.
"""

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.schema.errors import Storage
from tests.support.local import Local
from tests.support.messages import save_payload
from tests.support.requests import body

PAGE_BYTES = 4096
SEED = 20_261_126
TRIALS, TRIALS_LONG = 3, 150  # of each kind
Plain = dict[str, Any]
Kind = Callable[[int, int, random.Random], None]


class Truth(NamedTuple):
    """A data directory after a kill and after a stop, and the right answers to queries."""

    killed: Path
    stopped: Path
    answers: dict[str, Plain]


def queries() -> Iterator[tuple[str, Plain]]:
    for number in range(0, 120, 3):
        yield "get-message-by-id", {"messageId": f"m{number}"}
    for room in ("r0", "r1", "r2"):
        yield "get-message-page", {"roomId": room, "limit": 50}
    yield "get-log", {"fromSeq": 1, "limit": 500}
    yield "list-users", {}


def answers_of(local: Local) -> dict[str, Plain]:
    """The reply to each query, without the request's id."""
    found = {}
    for operation, payload in queries():
        reply = local.ask(operation, payload, request_id="query")
        found[f"{operation} {payload}"] = reply
    return found


def fill_in(local: Local) -> None:
    """Some messages in pages of their own, some that share one, some deleted, half of them in the log alone."""
    for number in range(120):
        text = f"{number} " * (3_000 if number % 10 == 0 else 40)
        local.result("save-message", save_payload(number, text, room_id=f"r{number % 3}"))
        if number == 60:
            local.store().checkpoint_fully()
    for number in range(0, 120, 11):
        local.result("delete-message", {"messageId": f"m{number}"})


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    place = tmp_path_factory.mktemp("truth")
    ignored = shutil.ignore_patterns("*-shm", "pid", "lock", "reserve")
    with Local(place / "data") as local:
        fill_in(local)
        answers = answers_of(local)
        shutil.copytree(place / "data", place / "killed", ignore=ignored)
    shutil.copytree(place / "data", place / "stopped", ignore=ignored)
    return Truth(place / "killed", place / "stopped", answers)


# What is done to a file


def flip_bit(file: int, size: int, chance: random.Random) -> None:
    at = chance.randrange(size)
    os.pwrite(file, bytes([os.pread(file, 1, at)[0] ^ 1 << chance.randrange(8)]), at)


def overwrite(file: int, size: int, chance: random.Random) -> None:
    os.pwrite(file, chance.randbytes(600), chance.randrange(max(1, size - 600)))


def clear_page(file: int, size: int, chance: random.Random) -> None:
    os.pwrite(file, bytes(PAGE_BYTES), chance.randrange(size // PAGE_BYTES) * PAGE_BYTES)


def truncate(file: int, size: int, chance: random.Random) -> None:
    os.truncate(file, chance.randrange(size))


KINDS: list[Kind] = [flip_bit, overwrite, clear_page, truncate]


def damage(path: Path, kind: Kind, chance: random.Random) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        kind(file, os.fstat(file).st_size, chance)
    finally:
        os.close(file)


def check_answers(local: Local, truth: Truth) -> None:
    """Every answer is the known one, or the error `storage`."""
    for query, reply in answers_of(local).items():
        if reply["ok"]:
            assert reply == truth.answers[query], query
        else:
            assert reply["error"]["code"] == "storage", reply


WORDS = ("damaged", "lacks its end", "was shortened", "is missing or empty", "is empty", "does not fit", "older than")


def start_damaged(directory: Path, truth: Truth) -> None:
    """A start with damaged files is refused, with words and the path, or every answer is right."""
    refusal = None
    try:
        local = Local(directory)
    except CannotOpen as error:
        refusal = str(error)
    if refusal is None:
        with local:
            check_answers(local, truth)
    else:
        assert str(directory) in refusal
        assert any(word in refusal for word in WORDS), refusal


def run_damaged(directory: Path, suffix: str, truth: Truth, kind: Kind, chance: random.Random) -> None:
    """Every answer is right after a file was damaged that a daemon has open; of the log from its next checkpoint on."""
    with Local(directory) as local:
        damage(directory / f"default.db{suffix}", kind, chance)
        if suffix:
            with suppress(Storage, apsw.Error):
                local.store().checkpoint_fully()
        check_answers(local, truth)


@pytest.mark.parametrize("number", range(TRIALS))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("suffix", ["", "-wal"], ids=["database", "log"])
@pytest.mark.parametrize("when", ["start", "running"])
def test_damage_never_gives_a_wrong_answer(
    truth: Truth, tmp_path: Path, kind: Kind, suffix: str, when: str, number: int, *, long: bool
) -> None:
    """Every answer is the known one or `storage`, and a start is refused with words."""
    for trial in range(number, TRIALS_LONG if long else TRIALS, TRIALS):
        seed = f"{SEED} {kind.__name__} {suffix} {when} {trial}"
        sys.stdout.write(f"seed {seed}\n")
        chance = random.Random(seed)
        source = truth.stopped if not suffix and chance.random() < 0.5 else truth.killed
        directory = shutil.copytree(source, tmp_path / str(trial))
        if when == "running":
            run_damaged(directory, suffix, truth, kind, chance)
        else:
            damage(directory / f"default.db{suffix}", kind, chance)
            start_damaged(directory, truth)
        shutil.rmtree(directory)


def first_page_of(database: Path, text: bytes) -> int:
    return database.read_bytes().index(text) // PAGE_BYTES


def flip_in(database: Path, page: int) -> None:
    file = os.open(database, os.O_RDWR)
    at = page * PAGE_BYTES + 2_000
    os.pwrite(file, bytes([os.pread(file, 1, at)[0] ^ 1]), at)
    os.close(file)


def test_one_bad_page_fails_only_what_needs_it(truth: Truth, tmp_path: Path) -> None:
    """Of a run of queries and of a batch of commands that are executed together, the others are answered as ever."""
    directory = shutil.copytree(truth.stopped, tmp_path / "data")
    flip_in(directory / "default.db", first_page_of(directory / "default.db", b"50 " * 700))
    numbers = [49, 50, 51, 52, 53]
    with Local(directory) as local:
        requests = [
            local.dispatcher.receive(body("get-message-by-id", {"messageId": f"m{number}"})) for number in numbers
        ]
        replies: list[bytes] = []
        while len(replies) < len(requests):
            replies += local.dispatcher.answer_queries(requests[len(replies) :])
        assert [b'"ok":true' in reply for reply in replies] == [True, False, True, True, True]
        edits = [
            local.dispatcher.receive(body("save-message", save_payload(number, "new", room_id=f"r{number % 3}")))
            for number in numbers
        ]
        replies = local.dispatcher.answer_commands(edits)
        assert [b'"ok":true' in reply for reply in replies] == [True, False, True, True, True]
        assert b"the database file is damaged" in replies[1]
    with Local(directory) as local:
        found = [local.ask("get-message-by-id", {"messageId": f"m{number}"})["ok"] for number in numbers]
        assert found == [True, False, True, True, True]


def test_a_damaged_log_stops_the_scope_and_is_told(truth: Truth, tmp_path: Path) -> None:
    """At the checkpoint nothing is copied: all requests get `storage`, `health` says it, and other scopes go on."""
    directory = shutil.copytree(truth.killed, tmp_path / "data")
    with Local(directory) as local:
        local.result("save-message", save_payload("more"), "more-1")
        before = (directory / "default.db").read_bytes()
        flip_in(directory / "default.db-wal", 1)
        store = local.store()
        store.checkpoint_due = True
        local.dispatcher.checkpoint("default")
        for operation, payload in [("get-message-by-id", {"messageId": "m1"}), ("save-message", save_payload("later"))]:
            error = local.ask(operation, payload, f"{operation}-1")["error"]
            assert error["code"] == "storage"
            assert "default.db-wal was damaged on the disk" in error["message"]
        assert "was damaged on the disk" in local.scopes.health().state
        assert local.result("save-message", save_payload(1), "other-1", scope="other") is None
    assert (directory / "default.db").read_bytes() == before
    with pytest.raises(CannotOpen, match=r"older than default\.db-wal-lineage"):
        Local(directory)
