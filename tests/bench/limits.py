"""Limits that no daemon can exceed: SQLite alone with prepared rows, and the sync of the disk."""

import os
import statistics
from contextlib import closing
from pathlib import Path

from tests.bench import tables
from tests.bench.measuring import seconds
from tests.bench.tables import connect, make_file
from tests.bench.work import PAGE, Page, Way, Work

SYNC_BYTES = 4096


class Apsw:
    """Inserts of prepared rows in one transaction: the limit of the storage."""

    name = "apsw"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.file = make_file(directory / "apsw.db")

    def save(self, work: Work, _way: Way) -> float:
        """A connection for each job, closed after the clock has stopped, so that the checkpoint is not timed."""
        messages = [tables.message_row(message) for message in work.messages]
        reactions = [tables.reaction_row(each) for message in work.messages for each in message.reactions or []]

        def save() -> None:
            with connection:
                connection.executemany(tables.insert("messages", tables.MESSAGE), messages)
                connection.executemany(tables.insert("reactions", tables.REACTION), reactions)

        with closing(connect(self.file)) as connection:
            return seconds(save)

    def read(self, work: Work, _way: Way, _operation: str) -> float:
        return seconds(lambda: self._pages(work.visits))

    def read_back(self, work: Work) -> list[Page]:
        return self._pages(work.rooms)

    def close(self) -> None:
        pass

    def _pages(self, rooms: list[str]) -> list[Page]:
        with closing(connect(self.file)) as connection:
            return [
                tables.page_of(
                    connection.execute(tables.SELECT_NEWEST, (room, PAGE)),
                    connection.execute(tables.SELECT_REACTIONS, (room, PAGE)),
                )
                for room in rooms
            ]


def sync_seconds(directory: Path, times: int) -> float:
    """The median time to append 4 KiB to a file and sync it."""

    def append() -> None:
        file.write(bytes(SYNC_BYTES))
        os.fsync(file.fileno())

    with (directory / "sync").open("ab", buffering=0) as file:
        return statistics.median(seconds(append) for _ in range(times))
