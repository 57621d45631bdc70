"""When the messages of a cleared room are removed makes no difference to anything that callers see or store."""

import random
from pathlib import Path
from typing import Any

import pytest

from backscroll.handlers import clearing
from tests.support.clocks import Clock
from tests.support.local import Local
from tests.support.random_commands import CHANNELS, MESSAGES, ROOMS, RandomCommands

COMMANDS, COMMANDS_LONG = 1_500, 30_000
CLEARED_EVERY = 12
ABOUT_MESSAGES = {
    *("save-message", "update-message", "delete-message", "rename-message", "save-reaction", "remove-reaction"),
    *("save-attachment", "delete-attachments-for-message", "forget-deletions", "delete-channel", "save-channel"),
    *("create-message", "delete-room", "save-room", "batch", "delete-messages-before", "delete-expired-messages"),
}
SEQ, TYPE, PAYLOAD, REDACTED = 0, 2, 4, 6

QUERIES: list[tuple[str, dict[str, Any]]] = [
    *(("get-messages", {"roomId": room, "limit": 100}) for room in ROOMS),
    *(("get-message-page", {"roomId": room, "limit": 3}) for room in ROOMS),
    *(("get-message-page", {"roomId": ROOMS[0], "channelId": channel}) for channel in CHANNELS),
    *(("get-message-by-id", {"messageId": message}) for message in MESSAGES),
    *(("get-reactions-for-message", {"messageId": message}) for message in MESSAGES),
    *(("get-attachments-for-message", {"messageId": message}) for message in MESSAGES),
    *(("get-message-page", {"roomId": room, "around": MESSAGES[0]}) for room in ROOMS),
    *(("get-message-page", {"roomId": room, "pinned": True}) for room in ROOMS),
    *(("get-message-page", {"roomId": ROOMS[0], "threadId": message, "attachments": True}) for message in MESSAGES),
    ("get-messages-by-ids", {"messageIds": MESSAGES}),
    ("get-all-attachments", {}),
    ("get-all-rooms", {}),
]


class Delayed(Local):
    """A scope whose cleared rooms are emptied by and by, a few messages at a time."""

    def __init__(self, directory: Path, draw: random.Random) -> None:
        super().__init__(directory, clock=Clock())
        self._draw = draw

    def settle(self, scope: str) -> None:
        """Nothing is removed yet."""

    def remove_some(self) -> None:
        self.dispatcher._removed_at_once = self._draw.randrange(1, 4)
        if self._draw.random() < 0.15:
            self.dispatcher.remove_cleared("default")

    def remove_all(self) -> None:
        super().settle("default")


def logged(local: Local) -> list[tuple[Any, ...]]:
    return [(row[SEQ], row[TYPE], row[PAYLOAD], row[REDACTED]) for row in local.tables()["commands"]]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_when_messages_are_removed_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, long: bool
) -> None:
    """One scope removes them at once, the other by and by: each command gets the same reply, each query finds the same,
    and in the end all rows are the same, and the same text is in the log.
    """
    monkeypatch.setattr(clearing, "AT_ONCE", 0)
    draw, commands = random.Random(seed), RandomCommands(seed)
    commands.names = sorted(ABOUT_MESSAGES)
    delayed_steps = 0
    with Local(tmp_path / "at-once", clock=Clock()) as at_once, Delayed(tmp_path / "delayed", draw) as delayed:
        for number in range(COMMANDS_LONG if long else COMMANDS):
            name, payload = commands.next()
            if number % CLEARED_EVERY == 0:
                name, payload = "clear-room-messages", {"roomId": draw.choice(ROOMS)}
            reply = at_once.ask(name, payload)
            assert delayed.ask(name, payload) == reply, (seed, number, name, payload)
            if reply["ok"]:
                commands.learn(name, payload, reply["result"])
            delayed_steps += delayed.store().clearing
            delayed.remove_some()
            query, about = draw.choice(QUERIES)
            assert delayed.ask(query, about) == at_once.ask(query, about), (seed, number, query, about)
        delayed.remove_all()
        wanted, found = at_once.state(), delayed.state()
        assert [table for table in wanted if found[table] != wanted[table]] == []
        assert logged(delayed) == logged(at_once)
    assert delayed_steps > COMMANDS / 20
