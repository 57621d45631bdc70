"""Replaying a log leads to the same rows, whatever commands were executed and whatever was deleted since."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clocks import Clock
from tests.support.corpus import HistoryCommands
from tests.support.histories import HistoryRunner, Step, histories, texts_in
from tests.support.local import JSON, MSGPACK, Local, check_replay

Plain = dict[str, Any]

HISTORY = 3_000  # messages in the short form
SEED = 20260104
STRETCHES, STRETCHES_LONG = 4, 8
EXAMPLES, EXAMPLES_LONG = 60, 3_000


def check_history(history: list[Step], cut: int, at_once: int, codec_number: int) -> None:
    """Execute a history, replay it as a whole and in two parts, and compare all scopes."""
    directory = Path(tempfile.mkdtemp(prefix="backscroll-replay-"))
    clock, codec = Clock(), (JSON, MSGPACK)[codec_number]
    local = Local(directory, clock=clock)
    try:
        runner = HistoryRunner(local, clock)
        for number, step in enumerate(history):
            runner.execute(step)
            if number == cut:
                local.replay(local.entries(codec=codec), "follower", at_once=at_once, codec=codec)
                check_replay(local, "follower")
        entries = local.entries(codec=codec)
        behind = len(local.entries("follower"))
        local.replay(entries, at_once=at_once, codec=codec)
        check_replay(local, "replayed")
        local.replay(entries[behind:], "follower", at_once=at_once, codec=codec)
        check_replay(local, "follower")
        check_texts(local, runner)
    finally:
        local.close()
        shutil.rmtree(directory)


def check_texts(local: Local, runner: HistoryRunner) -> None:
    """Deleted texts are in no row of any scope; all others are in the log."""
    for scope in ("default", "replayed", "follower"):
        for table, rows in local.tables(scope).items():
            assert not runner.gone & set(texts_in(rows)), (scope, table)
    logged = set(texts_in((repr(entry.get("payload")),) for entry in local.entries()))
    assert runner.texts.keys() <= logged


def test_a_replay_leads_to_the_same_rows(long: bool) -> None:
    """For random histories with moves and deletions: the entries of `get-log`, appended to an empty scope, lead to
    equal rows in every table, equal media and an equal log; so do the first entries if they are replayed before the
    rest happens.

    Deleted texts are in none of the three scopes.
    """
    stretches, examples = (STRETCHES_LONG, EXAMPLES_LONG) if long else (STRETCHES, EXAMPLES)
    search = given(histories(stretches), st.integers(0, 5 * stretches), st.sampled_from([1, 3, 100]), st.integers(0, 1))
    settings(max_examples=examples)(search(check_history))()


# A chat history


@pytest.fixture
def local() -> Iterator[Local]:
    directory = Path(tempfile.mkdtemp(prefix="backscroll-replay-"))
    with Local(directory, clock=Clock()) as local:
        yield local
    shutil.rmtree(directory)


def execute_all(local: Local, commands: HistoryCommands, after: Callable[[int], object] = bool) -> list[int]:
    """Execute the commands, and from time to time the chores; `after` is called with each `seq`."""
    numbers = []
    clock: Any = local.clock
    for count, (name, payload) in enumerate(commands.commands()):
        clock.now += 7
        reply = local.ask(name, payload, f"history-{count:06}")
        if reply["ok"]:
            commands.note_result(name, reply["result"])
            numbers.append(reply["seq"])
            after(reply["seq"])
        else:
            assert reply["error"]["code"] in ("not-found", "conflict"), reply
        if count % 1_000 == 999:
            clock.now += 10**9
            local.dispatcher.run_chores("default")
    return numbers


def rows_by_query(local: Local, scope: str) -> dict[str, list[Plain]]:
    """All rows of a scope by `get-rows`, as a client can read them."""
    tables = local.result("get-scope-info", scope=scope)["rows"]
    return {table: local.rows(table, scope) for table in tables if table != "commands"}


def test_a_history_with_deletions_replays_to_equal_rows(local: Local, chat_history: Any, long: bool) -> None:
    """A chat history with edits, moves and deletions: rows, media and chain are equal."""
    history = chat_history.messages if long else chat_history.messages[:HISTORY]
    numbers = execute_all(local, HistoryCommands(history, SEED, deleting=True))
    entries = local.entries()
    assert len(entries) >= len(numbers) > len(history) * 0.7
    assert sum(entry.get("redacted", False) for entry in entries) > 50
    local.replay(entries, at_once=1_000 if long else 500)
    check_replay(local, "replayed")
    assert rows_by_query(local, "replayed") == rows_by_query(local, "default")


def test_a_prefix_of_a_log_replays_to_the_rows_of_its_time(local: Local, chat_history: Any, long: bool) -> None:
    """Where nothing was deleted since, the first entries lead to the rows that there were after the last of them."""
    history = chat_history.messages if long else chat_history.messages[:HISTORY]
    draw, snapshots = random.Random(SEED), {}
    chosen = set(draw.sample(range(1, int(len(history) * 0.9)), 12 if long else 5))

    def note(seq: int) -> None:
        if seq in chosen:
            snapshots[seq] = rows_by_query(local, "default")

    execute_all(local, HistoryCommands(history, SEED, deleting=False), note)
    entries = local.entries()
    assert not any(entry.get("redacted") for entry in entries if entry["type"] not in ("put-media", "put-media-part"))
    done = 0
    for seq in sorted(chosen):
        local.replay(entries[done:seq], at_once=500)
        assert rows_by_query(local, "replayed") == snapshots[seq]
        done = seq
    local.replay(entries[done:], at_once=500)
    check_replay(local, "replayed")
