"""The migrations of PostgreSQL databases, in order; append-only.

Each is committed together with its version number.
"""

from backscroll.schema.migrations.numbered import scripts_in


def migrations() -> list[str]:
    """The SQL of every migration; the one at index i upgrades a database from version i to version i + 1."""
    return scripts_in(__name__)
