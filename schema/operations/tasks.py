"""Long tasks on whole databases: checks, backups and their verification. One runs at a time; `get-tasks` follows it."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.limits import PATH_CHARS_MAX, PageSize, ScopeName
from backscroll.schema.operations.base import Administration, Builtin
from backscroll.schema.replies import Backup, Task, TaskList

Directory = Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]
BackupName = Annotated[str, Meta(pattern=r"^[0-9TZ.-]{1,64}$(?!\n)", max_length=64)]


class StartCheck(Administration[Task], frozen=True):
    """Start to check databases and media in the background, while they are in use. `busy` while another task runs.

    All pages, SQLite's own check, the command log with its chain, the tables against the log, and the hashes of media.

    Attributes:
        scope: Only this scope; without it, all.

    Example: {}
    """

    ERRORS = ("not-found",)

    scope: ScopeName | None = None


class StartBackup(Administration[Task], frozen=True):
    """Start to make a backup in the background, while the databases are in use. `busy` while another task runs.

    What was acknowledged before this is answered is in the backup. It is verified before it counts as made.

    Attributes:
        directory: The directory of the backups on the daemon's machine, outside its data directory; without it, the one
            in the daemon's settings.
        scope: Only this scope; without it, all.
        full: Whether to copy everything also where only what changed since the backup before would have to be.

    Example: {"directory": "/media/disk/backups"}
    """

    ERRORS = ("not-found",)

    directory: Directory | None = None
    scope: ScopeName | None = None
    full: bool = False


class StartBackupVerification(Administration[Task], frozen=True):
    """Start to verify a backup in the background, without restoring it. `busy` while another task runs.

    Attributes:
        directory: The directory of the backups on the daemon's machine; without it, the one in the daemon's settings.
        name: Which backup, as `list-backups` calls it; without it, the newest.

    Example: {"directory": "/media/disk/backups"}
    """

    ERRORS = ("not-found",)

    directory: Directory | None = None
    name: BackupName | None = None


class ListBackups(Administration[list[Backup]], frozen=True):
    """The backups in a directory, the oldest first. `not-found` if it is no directory of backups.

    Attributes:
        directory: The directory of the backups on the daemon's machine; without it, the one in the daemon's settings.
        limit: The most items of a page. Without it the result is the whole list.
        after: The last name of the page before. The end is an empty page.

    Example: {"directory": "/media/disk/backups"}
    """

    ERRORS = ("not-found",)

    directory: Directory | None = None
    limit: PageSize | None = None
    after: BackupName | None = None


class GetTasks(Builtin[TaskList], frozen=True):
    """The task that is running and how far it is, and how the last ones ended.

    Example: {}
    """

    RIGHT = "admin"
    DAEMON_WIDE = True
