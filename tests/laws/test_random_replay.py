"""A random history of every command replays to the same rows and the same chain, whatever was erased since."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local import MSGPACK, REPLAYED, Local, Tables
from tests.support.messages import save_payload
from tests.support.random_commands import RandomCommands
from tests.support.requests import body
from tests.support.sql import sql

COMMANDS, COMMANDS_LONG = 1_500, 30_000
ENTRIES_AT_ONCE = 100
COMPARED_EVERY = 50
SEQ, TYPE, PAYLOAD, RESULT = 0, 2, 4, 8
FORGOTTEN_BY_ITSELF = (4, 5, 6)
"""Columns of `commands` that change for a `put-media-part` when its part is in no media."""


def comparable(tables: Tables) -> Tables:
    """The rows without what only the original has: results, and references for erasing text that is gone by now."""
    payloads = {row[SEQ]: row[PAYLOAD] for row in tables["commands"]}
    references = [row for row in tables["log_references"] if payloads[row[3]] is not None]
    return tables | {"commands": list(map(_command, tables["commands"])), "log_references": references}


def _command(row: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden = {RESULT, *(FORGOTTEN_BY_ITSELF if row[TYPE] == "put-media-part" else ())}
    return tuple(None if at in hidden else value for at, value in enumerate(row))


def execute_random(local: Local, seed: int, number: int) -> Iterator[None]:
    """Execute a number of random commands, of which some are refused; yields after each that took effect."""
    commands = RandomCommands(seed)
    for _ in range(number):
        name, payload = commands.next()
        reply = local.ask(name, payload)
        if reply["ok"]:
            commands.learn(name, payload, reply["result"])
            yield


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_history_replays_to_the_same_rows(tmp_path: Path, seed: int, long: bool) -> None:
    """Every table, and number, time, facts and chain of every entry, are equal although earlier text was erased."""
    with Local(tmp_path / "data") as local:
        for _ in execute_random(local, seed, COMMANDS_LONG if long else COMMANDS):
            pass
        entries = local.entries()
        local.replay(entries, at_once=ENTRIES_AT_ONCE)
        wanted, found = comparable(local.tables()), comparable(local.tables(REPLAYED))
        assert [name for name in wanted if found[name] != wanted[name]] == []
        redacted = [entry for entry in entries if entry.get("redacted")]
        assert len(redacted) > len(entries) / 10


@pytest.mark.parametrize("seed", [1, 2])
def test_a_copy_that_follows_a_scope_has_the_same_rows(tmp_path: Path, seed: int, long: bool) -> None:
    """Each entry is appended before anything in it is erased, as in a file written by `--record`. Then a command that
    erases text must itself name what it removes; the log of the copy is erased by the same commands.
    """
    with Local(tmp_path / "data") as local:
        seq = 0
        for _ in execute_random(local, seed, COMMANDS_LONG if long else COMMANDS):
            entries = local.result("get-log", {"fromSeq": seq + 1}, codec=MSGPACK)["entries"]
            local.replay(entries)
            seq += len(entries)
            if seq % COMPARED_EVERY == 0:  # a room that is cleared later would hide a difference
                wanted, found = comparable(local.tables()), comparable(local.tables(REPLAYED))
                assert [name for name in wanted if found[name] != wanted[name]] == [], f"seed {seed}, seq {seq}"


def test_cached_results_in_a_replay_equal_the_file(tmp_path: Path) -> None:
    """Also where a redacted command changes more than its entry records."""
    reaction = {"messageId": "m1", "oderId": "ada", "emoji": "A"}
    with Local(tmp_path / "data") as local:
        local.result("save-message", save_payload(1, ""))
        local.result("save-reaction", {"reaction": reaction})
        local.result("remove-reaction", reaction | {"emoji": "B"})  # there is none
        local.result("remove-reaction", reaction)
        local.result("delete-message", {"messageId": "m1"})
        for entry in local.entries():
            local.replay([entry])
            page = body("get-messages", {"roomId": "r1"}, scope=REPLAYED)
            for _ in range(2):  # from the file, and then from the cache
                shown = local.dispatcher.answer(page)
            with local.store(REPLAYED).read() as snapshot:
                stored = snapshot.rows(sql("SELECT emoji FROM reactions"))
            assert (b'"emoji"' in shown) == bool(stored), entry
