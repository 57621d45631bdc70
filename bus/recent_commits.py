"""The last commits of a scope, from which queries that wait learn whether something is new, without the database."""

from collections import deque
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from backscroll.bus.stores import Commit
from backscroll.handlers.feed import Head, Key, cursor_at, keys_of

COMMITS_MAX = 64
CHANGES_MAX = 1_000  # of a commit that are looked at; one with more counts as news for everybody


class RecentCommit(NamedTuple):
    """The end of the log after a commit, and what the commit is news for; None: for everybody."""

    head: Head
    keys: frozenset[Key] | None

    def concerns(self, wanted: AbstractSet[Key]) -> bool:
        return self.keys is None or not self.keys.isdisjoint(wanted)


class RecentCommits:
    """All commits after the seq `since`, the last of them at the end, and no more than `COMMITS_MAX`."""

    def __init__(self, since: int) -> None:
        self.since = since
        self._commits: deque[RecentCommit] = deque()

    @property
    def last(self) -> Head | None:
        return self._commits[-1].head if self._commits else None

    def add(self, commit: Commit) -> RecentCommit | None:
        """Add the next commit; None if it is not later than the others."""
        if commit.seq <= (self._commits[-1].head.seq if self._commits else self.since):
            return None
        changes = [change for command in commit.commands for change in command.changes]
        keys = keys_of(changes) if len(changes) <= CHANGES_MAX else None
        added = RecentCommit(Head(commit.seq, commit.chain), keys)
        self._commits.append(added)
        if len(self._commits) > COMMITS_MAX:
            self.since = self._commits.popleft().head.seq
        return added

    def has_news(self, seq: int, wanted: AbstractSet[Key]) -> bool:
        """Whether a commit after this seq is news for who wants these; also if that is not known."""
        if seq < self.since:
            return True
        for commit in reversed(self._commits):
            if commit.head.seq <= seq:
                return False
            if commit.concerns(wanted):
                return True
        return False

    def knows(self, seq: int, cursor: str) -> bool:
        """Whether this is the cursor after a commit, and so certainly of this history."""
        for commit in reversed(self._commits):
            if commit.head.seq <= seq:
                return commit.head.seq == seq and cursor_at(commit.head) == cursor
        return False
