"""Long tasks on whole databases, which the daemon executes in the background."""

from itertools import islice

from backscroll.handlers.lists import Items
from backscroll.handlers.registry import handles
from backscroll.handlers.storage import Status
from backscroll.schema.operations import GetTasks, ListBackups, StartBackup, StartBackupVerification, StartCheck
from backscroll.schema.replies import Backup, Task, TaskList


@handles(StartCheck)
def start_check(command: StartCheck, status: Status) -> Task:
    return status.upkeep.check(command.scope)


@handles(StartBackup)
def start_backup(command: StartBackup, status: Status) -> Task:
    return status.upkeep.back_up(command.directory, command.scope, full=command.full)


@handles(StartBackupVerification)
def start_backup_verification(command: StartBackupVerification, status: Status) -> Task:
    return status.upkeep.verify(command.directory, command.name)


@handles(ListBackups)
def list_backups(query: ListBackups, status: Status) -> Items[Backup]:
    found = (each for each in status.upkeep.backups(query.directory) if query.after is None or each.name > query.after)
    return Items(islice(found, query.limit), is_page=query.limit is not None)


@handles(GetTasks)
def get_tasks(_query: GetTasks, status: Status) -> TaskList:
    return status.upkeep.tasks()
