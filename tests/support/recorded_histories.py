"""Random histories that remember how the store was after each command, to compare it with what is restored."""

import base64
import random
from pathlib import Path
from typing import Any

from backscroll.bus.sqlite.maintenance.backups import take_backup
from backscroll.bus.sqlite.maintenance.catalog import Backup
from tests.support.clocks import Clock
from tests.support.local import Local, Plain, Tables
from tests.support.random_commands import RandomCommands

LOG_TABLES = ("commands", "log_references")


def nothing(*_: object) -> None:
    """Progress that nobody looks at."""


class _UniqueTexts(RandomCommands):
    def _text(self) -> str:
        self._counter += 1
        return f"text {self._counter}"


class RecordedHistory:
    """A data directory to which random commands are sent; `states` has the rows after each, without those of the log.

    The clock goes on, or stands still for some commands; `times` has the time of each command.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.clock = Clock()
        self.local = Local(directory, clock=self.clock)
        self.states: list[Tables] = [self.rows(self.local)]
        self.entries: list[Plain] = []
        self.parts: dict[int, dict[str, bytes]] = {}
        self.times: list[int] = [0]
        self.draw = random.Random(seed)
        self._commands = _UniqueTexts(seed)

    @staticmethod
    def rows(local: Local) -> Tables:
        found = local.tables()
        found["sequence"] = [row[:3] for row in found["sequence"]]
        return {name: rows for name, rows in found.items() if name not in LOG_TABLES}

    def go_on(self, number: int) -> None:
        """Send random commands until so many more have taken effect."""
        wanted = len(self.states) + number
        while len(self.states) < wanted:
            self.clock.now += self.draw.choice((0, 1, 1_000))
            name, payload = self._commands.next()
            if name in ("save-room", "update-room") and self.draw.random() < 0.7:
                where = payload["room"] if name == "save-room" else payload["updates"]
                where["password"] = f"password {self.draw.random()}"
            reply = self.local.ask(name, payload)
            if reply["ok"]:
                self._commands.learn(name, payload, reply["result"])
            self._note()

    def _note(self) -> None:
        """Note how the store is after a command, if it took effect."""
        if (seq := self.local.store().seq) >= len(self.states):
            assert seq == len(self.states)
            self.states.append(self.rows(self.local))
            self.times.append(self.clock.now)

    def put_media(self, data: bytes) -> str:
        """Put a media of one part, which an attachment could name; its id."""
        part = self.local.result("put-media-part", {"data": base64.b64encode(data).decode()})
        self._note()
        media: dict[str, Any] = self.local.result("put-media", {"parts": [part], "mime": "a/b"})
        self._note()
        return str(media["id"])

    def back_up(self, into: Path, **how: Any) -> Backup:
        backup = take_backup(self.local.scopes, into, nothing, stopped=True, **how)
        self.parts[self.local.store().seq] = self.local.parts()
        return backup

    def close(self) -> None:
        self.entries = self.local.entries()
        self.local.close()

    def until(self, at: int) -> int:
        """The number of commands that took effect until a time."""
        return max(seq for seq, time in enumerate(self.times) if time <= at)
