"""The migrations of SQLite database files, in order; append-only.

Each migration is committed together with its version number.
"""

from backscroll.schema.migrations.numbered import scripts_in

APPLICATION_ID = 0x62736372
"""`PRAGMA application_id` of backscroll's files: the bytes `bscr`."""


def migrations() -> list[str]:
    """The SQL of every migration; the one at index i upgrades a file from version i to version i + 1."""
    return scripts_in(__name__)
