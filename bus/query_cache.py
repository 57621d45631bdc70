"""Cached replies: a page that is asked for again is sent again, not built again.

The daemon is the only writer, so it knows how long a reply stays correct: a page of messages until something changes in
its room, any other until the scope's `seq` moves (`handlers.registry.Cached`). What a commit changes its commands
declare; see `handlers/changes.py`.
"""

import threading
from collections.abc import Iterable
from typing import Any

from backscroll.handlers.changes import rooms_with_changed_messages
from backscroll.handlers.registry import Cached
from backscroll.schema.command_log import Change
from backscroll.schema.operations import Query
from backscroll.schema.wire import Codec

BYTES_MAX = 16 * 2**20
ENTRY_BYTES = 500  # of memory, which each entry takes besides its result
ROOMS_MAX = 10_000

Key = tuple[Query[Any], str]
"""The query, and the name of the encoding."""


class QueryCache:
    """Encoded results of one scope's queries, each as of a `seq`. Safe to use from any thread.

    When they exceed `bytes_max` all are evicted.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._pages: dict[Key, tuple[int, bytes]] = {}  # those of rooms, each as of a seq of its own
        self._others: tuple[int, dict[Key, bytes]] = (-1, {})  # one value, so that it changes at once
        self._bytes = self._bytes_of_others = 0
        self._lock = threading.Lock()
        self._room_changed: dict[str, int] = {}  # the last commit that changed a room's messages
        self._all_changed = 0  # the last commit that may have changed those of any room

    def __len__(self) -> int:
        """How many results are cached."""
        return len(self._pages) + len(self._others[1])

    @property
    def size(self) -> int:
        """How many bytes of memory they take."""
        return self._bytes

    @property
    def rooms(self) -> int:
        """How many rooms are told apart."""
        return len(self._room_changed)

    def get(self, query: Query[Any], codec: Codec, seq: int, cached: Cached) -> bytes | None:
        """The result of a query as of `seq`, if it is cached."""
        key = (query, codec.name)
        if cached is Cached.UNTIL_ROOM_CHANGES:
            page_as_of, page = self._pages.get(key, (-1, None))
            return page if self._room_changed_at(query) <= page_as_of <= seq else None
        as_of, results = self._others
        return results.get(key) if as_of == seq else None

    def put(self, query: Query[Any], codec: Codec, seq: int, cached: Cached, result: bytes) -> None:
        """Cache a result as of `seq`, unless the cached one is newer."""
        size = len(result) + ENTRY_BYTES
        if size > self._bytes_max:
            return
        with self._lock:
            if self._bytes + size > self._bytes_max:
                self._evict_all(seq)
            if cached is Cached.UNTIL_ROOM_CHANGES:
                self._put_page((query, codec.name), seq, result)
            else:
                self._put_other((query, codec.name), seq, result)

    def evict(self, changes: Iterable[Change], seq: int) -> None:
        """The commit that leads to `seq` changes this.

        To be called before that commit, so that nobody sees the commit and a result from before it. If the commit fails
        after all, results of these rooms are not cached until another leads as far.
        """
        for room_id in rooms_with_changed_messages(changes):
            if room_id is None or len(self._room_changed) >= ROOMS_MAX:
                self._all_changed = seq
                self._room_changed = {}
                return
            self._room_changed[room_id] = seq

    def _put_page(self, key: Key, seq: int, result: bytes) -> None:
        as_of, before = self._pages.get(key, (-1, None))
        if seq >= as_of:
            self._pages[key] = (seq, result)
            self._bytes += len(result) + ENTRY_BYTES - (0 if before is None else len(before) + ENTRY_BYTES)

    def _put_other(self, key: Key, seq: int, result: bytes) -> None:
        as_of, results = self._others
        if seq > as_of:  # the older ones will never be correct again
            self._bytes -= self._bytes_of_others
            results, self._bytes_of_others = {}, 0
            self._others = (seq, results)
        if seq >= as_of and key not in results:
            results[key] = result
            self._bytes += len(result) + ENTRY_BYTES
            self._bytes_of_others += len(result) + ENTRY_BYTES

    def _evict_all(self, seq: int) -> None:
        self._pages, self._others = {}, (max(seq, self._others[0]), {})
        self._bytes = self._bytes_of_others = 0

    def _room_changed_at(self, query: Any) -> int:
        """The last commit that changed messages of the query's room."""
        return max(self._room_changed.get(query.room_id, 0), self._all_changed)
