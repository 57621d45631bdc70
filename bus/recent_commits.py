"""The last commits of a scope, from which queries that wait learn whether something is new, without the database."""

from collections import deque
from typing import NamedTuple

from backscroll.bus.stores import Commit, Store
from backscroll.handlers.feed import Head, Pair, cursor_at, is_wanted, pairs_of

COMMITS_MAX = 32
PAIRS_MAX = 32  # of a commit that are kept; one with more counts as news for everybody


class Wanted(NamedTuple):
    """The filter of a query: the nouns and the rooms that it lets through; None for all."""

    nouns: frozenset[str] | None
    rooms: frozenset[str] | None


class RecentCommit(NamedTuple):
    """The end of the log after a commit, and what the commit was about; None if that is too much."""

    head: Head
    pairs: frozenset[Pair] | None

    def is_news_for(self, wanted: Wanted) -> bool:
        return self.pairs is None or any(is_wanted(pair, *wanted) for pair in self.pairs)


class RecentCommits:
    """All commits of an open store after the seq `since`, the last of them at the end, at most `COMMITS_MAX`.

    `store` is None for a scope that is not open. What is known is worth nothing when the scope has another store.
    """

    def __init__(self, store: Store | None, since: int) -> None:
        self.store = store
        self.since = since
        self._commits: deque[RecentCommit] = deque()

    @property
    def last(self) -> Head | None:
        return self._commits[-1].head if self._commits else None

    @property
    def last_seq(self) -> int:
        return self._commits[-1].head.seq if self._commits else self.since

    def add(self, commit: Commit) -> RecentCommit | None:
        """Add the next commit; None if it is not later than the others."""
        if commit.seq <= self.last_seq:
            return None
        pairs = None
        if commit.commands is not None:
            pairs = pairs_of(change for command in commit.commands for change in command.changes)
            pairs = pairs if len(pairs) <= PAIRS_MAX else None
        added = RecentCommit(Head(commit.seq, commit.chain), pairs)
        self._commits.append(added)
        if len(self._commits) > COMMITS_MAX:
            self.since = self._commits.popleft().head.seq
        return added

    def may_have_news(self, seq: int, wanted: Wanted) -> bool:
        """Whether there may be news after this seq; False only if it is certain that there are none."""
        if not self.since <= seq <= self.last_seq:
            return True
        for commit in reversed(self._commits):
            if commit.head.seq <= seq:
                return False
            if commit.is_news_for(wanted):
                return True
        return False

    def knows(self, seq: int, cursor: str) -> bool:
        """Whether this is the cursor after one of the commits, and so certainly of this history."""
        for commit in reversed(self._commits):
            if commit.head.seq <= seq:
                return commit.head.seq == seq and cursor_at(commit.head) == cursor
        return False
