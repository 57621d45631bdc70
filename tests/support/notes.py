"""Notes of tests for the summary at the end of the run: what is worth telling, and no failure."""

import pytest

Note = tuple[str, str]
NOTES = pytest.StashKey[list[Note]]()


def add_note(stash: pytest.Stash, title: str, text: str) -> None:
    """Have a text shown under a title; `stash` is that of the run's configuration."""
    stash.setdefault(NOTES, []).append((title, text))


def notes_in(stash: pytest.Stash) -> list[Note]:
    """The notes of the run so far, each with its title."""
    return stash.get(NOTES, [])
