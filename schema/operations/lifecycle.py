"""The life of a database, and of the daemon that owns it."""

from typing import Any

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
    """Whether the daemon answers.

    Example: {}
    """


class Health(Builtin[HealthReport], frozen=True):
    """The state of the daemon: versions, uptime, queues.

    Example: {}
    """


class Describe(Builtin[dict[str, Any]], frozen=True):
    """The whole protocol as data: operations, records, errors and limits, with JSON Schema (2020-12) for all of them.

    Example: {}
    """
