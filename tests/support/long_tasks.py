"""Long tasks of a real daemon, from their start to their end."""

from pathlib import Path

from backscroll.clients.python import Client
from backscroll.schema.operations import GetTasks, StartBackup
from backscroll.schema.replies import Task
from tests.support.waiting import wait_until

ENDING_SECONDS = 120


def ended(client: Client, kind: str) -> Task:
    """The last task of a kind, when none is running any more."""
    wait_until(lambda: client.ask(GetTasks()).running is None, ENDING_SECONDS)
    return next(each for each in client.ask(GetTasks()).last if each.task == kind)


def back_up(client: Client, into: Path, *, full: bool = False) -> str:
    """Have a backup made, and return its name."""
    client.execute(StartBackup(directory=str(into), full=full))
    task = ended(client, "backup")
    assert task.state == "ok", task
    assert task.backup is not None
    return task.backup
