"""PostgreSQL, in place of SQLite files: one database for any number of daemons. See DESIGN.md.

This module can be imported without the packages that the others need.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from backscroll.bus.failures import BadSettings


@contextmanager
def packages_needed() -> Iterator[None]:
    """Turn the lack of a package, which the block imports, into a `BadSettings` that says how to install it."""
    try:
        yield
    except ImportError as error:
        package = error.name or "psycopg[binary]"
        raise BadSettings(
            f"a store in PostgreSQL needs the package {package}: pip install 'backscroll[postgresql]'"
        ) from error
