"""How work that takes long tells how far it is, and how it is stopped."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Receives the current step in words, how much of it is done, and how much there is (None: unknown). May raise
`Stopped`."""


class Stopped(Exception):
    """The work is not wanted any more. It leaves nothing behind but files that are removed at the next start."""
