"""A long task of the daemon, followed on a terminal until it ends."""

import sys
import time

from backscroll.clients.command_line.exits import EXIT_FAILED
from backscroll.clients.command_line.output import printable, steps
from backscroll.clients.python.client import Client
from backscroll.schema.errors import Unavailable
from backscroll.schema.operations import GetTasks
from backscroll.schema.operations.base import Administration
from backscroll.schema.replies import Task

LOOK_SECONDS = 0.1


def run_task(client: Client, command: Administration[Task]) -> int:
    """Start a task, show how far it is, and print how it ended; the exit code: 0 only if nothing is damaged."""
    ended = _followed(client, client.execute(command))
    for problem in ended.problems or []:
        sys.stdout.write(f"{printable(problem)}\n")
    sys.stdout.write(f"{printable(ended.message or ended.state)}\n")
    return 0 if ended.state == "ok" else EXIT_FAILED


def _followed(client: Client, task: Task) -> Task:
    """The task when it has ended."""
    with steps() as progress:
        while True:
            tasks = client.ask(GetTasks())
            running = tasks.running
            if running is None or running.started_at != task.started_at:
                break
            progress(running.step or running.task, running.done or 0, running.total)
            time.sleep(LOOK_SECONDS)
    for ended in tasks.last:
        if (ended.task, ended.started_at) == (task.task, task.started_at):
            return ended
    raise Unavailable(f"the {task.task} did not end: the daemon was stopped meanwhile")
