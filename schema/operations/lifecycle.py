"""The life of a database, and of the daemon that owns it."""

from backscroll.schema.operations.base import Builtin, Command
from backscroll.schema.replies import HealthReport, Pong


class Initialize(Command[None], frozen=True):
    """Do nothing, successfully: the database exists before any client can connect.

    Example: {}
    """


class ClearAllData(Command[None], frozen=True):
    """Remove everything in the scope, the current user and all media included.

    Example: {}
    """

    ALONE = True


class Ping(Builtin[Pong], frozen=True):
    """Is anybody there?

    Example: {}
    """


class Health(Builtin[HealthReport], frozen=True):
    """How the daemon is: versions, uptime, queues.

    Example: {}
    """
