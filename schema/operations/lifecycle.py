"""Operations on the database as a whole, and on the daemon itself."""

from typing import Any

from backscroll.schema.operations.base import Builtin, Command
from backscroll.schema.replies import HealthReport, Pong


class Initialize(Command[None], frozen=True):
    """Do nothing and succeed: the database is created before any client can connect.

    Example: {}
    """


class ClearAllData(Command[None], frozen=True):
    """Remove all data in the scope, including the current user and all media.

    Example: {}
    """

    RIGHT = "admin"
    ADDS = False
    ALONE = True


class Ping(Builtin[Pong], frozen=True):
    """Check that the daemon answers.

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
