"""A cache of encoded query results.

A store knows what is committed, so it knows how long a result stays correct: a page of messages until something changes
in its room, any other result until the scope's `seq` changes (`handlers.registry.Cached`). Commands declare what they
change; see `handlers/changes.py`.
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
ENTRY_BYTES = 500  # the memory overhead of an entry
ROOMS_MAX = 10_000

Key = tuple[Query[Any], str]
"""The query, and the name of the encoding."""


class QueryCache:
    """Encoded results of one scope's queries, each as of a `seq`. Safe to use from any thread.

    When they would exceed `bytes_max`, all are evicted.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._pages: dict[Key, tuple[int, bytes]] = {}  # pages of messages, each as of its own seq
        self._others: tuple[int, dict[Key, bytes]] = (-1, {})  # a tuple, so that it is replaced atomically
        self._bytes = self._bytes_of_others = 0
        self._lock = threading.Lock()
        self._room_changed: dict[str, int] = {}  # the last commit that changed a room's messages
        self._all_changed = 0  # the last commit that may have changed those of any room

    def __len__(self) -> int:
        """The number of cached results."""
        return len(self._pages) + len(self._others[1])

    @property
    def size(self) -> int:
        """The memory used by the cached results, in bytes."""
        return self._bytes

    @property
    def rooms(self) -> int:
        """The number of rooms whose changes are tracked individually."""
        return len(self._room_changed)

    def get(self, query: Query[Any], codec: Codec, seq: int, cached: Cached) -> bytes | None:
        """The result of a query as of `seq` if it is cached, else None."""
        key = (query, codec.name)
        if cached is Cached.UNTIL_ROOM_CHANGES:
            page_as_of, page = self._pages.get(key, (-1, None))
            return page if self._room_changed_at(query) <= page_as_of <= seq else None
        as_of, results = self._others
        return results.get(key) if as_of == seq else None

    def put(self, query: Query[Any], codec: Codec, seq: int, cached: Cached, result: bytes) -> None:
        """Cache a result as of `seq`, unless a newer one is cached."""
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
        """Invalidate what the commit that leads to `seq` changes.

        Call it before the commit, so that no client sees the commit together with an older result. If the commit fails,
        results of these rooms are not used until another commit reaches `seq`.
        """
        for room_id in rooms_with_changed_messages(changes):
            if room_id is None or len(self._room_changed) >= ROOMS_MAX:
                self.evict_all(seq)
                return
            self._room_changed[room_id] = seq

    def evict_all(self, seq: int) -> None:
        """The same for a commit that may change anything."""
        self._all_changed = seq
        self._room_changed = {}

    def clear(self) -> None:
        """Evict everything."""
        with self._lock:
            self._evict_all(self._others[0])

    def _put_page(self, key: Key, seq: int, result: bytes) -> None:
        as_of, before = self._pages.get(key, (-1, None))
        if seq >= as_of:
            self._pages[key] = (seq, result)
            self._bytes += len(result) + ENTRY_BYTES - (0 if before is None else len(before) + ENTRY_BYTES)

    def _put_other(self, key: Key, seq: int, result: bytes) -> None:
        as_of, results = self._others
        if seq > as_of:  # older results are no longer correct
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
