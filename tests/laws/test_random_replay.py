"""A random history of every command, with all that it erased since, is executed again to the same rows and chain."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.local import REPLAYED, Local, Tables
from tests.support.random_commands import RandomCommands
from tests.support.requests import body
from tests.support.sql import sql

COMMANDS, COMMANDS_LONG = 1_500, 30_000
ENTRIES_AT_ONCE = 100
SEQ, TYPE, PAYLOAD, RESULT = 0, 2, 4, 8
FORGOTTEN_BY_ITSELF = (4, 5, 6)
"""Columns of `commands` in which a `put-media-part` changes when no media is made of its part."""


def comparable(tables: Tables) -> Tables:
    """Rows without what only the first time has: results, and what was noted for erasing text that is gone by now."""
    payloads = {row[SEQ]: row[PAYLOAD] for row in tables["commands"]}
    references = [row for row in tables["log_references"] if payloads[row[3]] is not None]
    return tables | {"commands": list(map(_command, tables["commands"])), "log_references": references}


def _command(row: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden = {RESULT, *(FORGOTTEN_BY_ITSELF if row[TYPE] == "put-media-part" else ())}
    return tuple(None if at in hidden else value for at, value in enumerate(row))


def tell(local: Local, seed: int, number: int) -> None:
    """Execute so many random commands, of which some are refused."""
    commands = RandomCommands(seed)
    for _ in range(number):
        name, payload = commands.next()
        reply = local.ask(name, payload)
        if reply["ok"]:
            commands.learn(name, payload, reply["result"])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_history_is_replayed_to_the_same_rows(tmp_path: Path, seed: int, long: bool) -> None:
    """Every table, every entry's number, time, facts and chain; however the text of earlier commands was erased."""
    with Local(tmp_path / "data") as local:
        tell(local, seed, COMMANDS_LONG if long else COMMANDS)
        entries = local.entries()
        local.replay(entries, at_once=ENTRIES_AT_ONCE)
        wanted, found = comparable(local.tables()), comparable(local.tables(REPLAYED))
        assert [name for name in wanted if found[name] != wanted[name]] == []
        redacted = [entry for entry in entries if entry.get("redacted")]
        assert len(redacted) > len(entries) / 10


def test_what_is_cached_in_a_replay_is_what_is_in_the_file(tmp_path: Path) -> None:
    """Also where a command changes more than its entry says, because it lost what told it from another."""
    reaction = {"messageId": "m1", "oderId": "ada", "emoji": "A"}
    message = {"id": "m1", "roomId": "r1", "senderId": "ada", "content": "", "timestamp": 1}
    with Local(tmp_path / "data") as local:
        local.result("save-message", {"message": message})
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
