"""Notes of tests for the summary at the end of the run, for what is worth reporting and is no failure."""

import sys

import pytest

Note = tuple[str, str]
NOTES = pytest.StashKey[list[Note]]()


def add_note(stash: pytest.Stash, title: str, text: str) -> None:
    """Show a text under a title in the summary; `stash` is that of the run's configuration."""
    stash.setdefault(NOTES, []).append((title, text))


def notes_in(stash: pytest.Stash) -> list[Note]:
    """The notes of the run so far, each with its title."""
    return stash.get(NOTES, [])


def say(line: str) -> None:
    """Print a line, which is shown with `-s`, or if the test fails."""
    sys.stdout.write(f"{line}\n")
