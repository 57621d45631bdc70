"""QueryCache that are kept: a page that is asked for again is sent again, not built again.

The daemon is the only writer of the file, so it knows how long an answer stays right: a page of messages until
something changes in its room, any other until the scope's `seq` moves. What depends on the clock or on other files is
not kept (`Query.KEPT`).
"""

import threading
from collections.abc import Collection
from typing import Any

from backscroll.schema.operations import Query
from backscroll.schema.wire import Codec

BYTES_MAX = 16 * 2**20
ENTRY_BYTES = 500  # of memory, which each takes besides its result
ROOMS_MAX = 10_000

Key = tuple[Query[Any], str]
"""What was asked, and in which encoding."""


class QueryCache:
    """Encoded results of one scope's queries, each as of a `seq`. Safe to use from any thread.

    When they are more than `bytes_max` all are let go.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._pages: dict[Key, tuple[int, bytes]] = {}  # those of rooms, each as of a seq of its own
        self._others: tuple[int, dict[Key, bytes]] = (-1, {})  # one value, so that it changes at once
        self._bytes = self._bytes_of_others = 0
        self._lock = threading.Lock()
        self._touched: dict[str, int] = {}  # by room: the last commit that changed its messages
        self._all_touched = 0  # the last that may have changed any room's

    def get(self, query: Query[Any], codec: Codec, seq: int) -> bytes | None:
        """The result of a query as of `seq`, if it is here."""
        key = (query, codec.name)
        if query.OF_ROOM:
            page_as_of, page = self._pages.get(key, (-1, None))
            return page if self._right_since(query) <= page_as_of <= seq else None
        as_of, results = self._others
        return results.get(key) if as_of == seq else None

    def put(self, query: Query[Any], codec: Codec, seq: int, result: bytes) -> None:
        """Keep a result as of `seq`, unless what is here is newer."""
        size = len(result) + ENTRY_BYTES
        if size > self._bytes_max:
            return
        with self._lock:
            if self._bytes + size > self._bytes_max:
                self._let_go(seq)
            if query.OF_ROOM:
                self._put_page((query, codec.name), seq, result)
            else:
                self._put_other((query, codec.name), seq, result)

    def touch(self, rooms: Collection[str], seq: int) -> None:
        """The commit that leads to `seq` changes messages of these rooms.

        To be called before that commit, so that nobody sees the commit and an answer from before it. If the commit
        fails after all, answers of these rooms are not kept until another leads as far.
        """
        if len(self._touched) + len(rooms) > ROOMS_MAX:
            self.touch_all(seq)
        else:
            self._touched.update(dict.fromkeys(rooms, seq))

    def touch_all(self, seq: int) -> None:
        """The commit that leads to `seq` may change any room's messages; see `touch`."""
        self._all_touched = seq
        self._touched = {}

    def _put_page(self, key: Key, seq: int, result: bytes) -> None:
        as_of, before = self._pages.get(key, (-1, None))
        if seq >= as_of:
            self._pages[key] = (seq, result)
            self._bytes += len(result) + ENTRY_BYTES - (0 if before is None else len(before) + ENTRY_BYTES)

    def _put_other(self, key: Key, seq: int, result: bytes) -> None:
        as_of, results = self._others
        if seq > as_of:  # the older ones will never be right again
            self._bytes -= self._bytes_of_others
            results, self._bytes_of_others = {}, 0
            self._others = (seq, results)
        if seq >= as_of and key not in results:
            results[key] = result
            self._bytes += len(result) + ENTRY_BYTES
            self._bytes_of_others += len(result) + ENTRY_BYTES

    def _let_go(self, seq: int) -> None:
        self._pages, self._others = {}, (max(seq, self._others[0]), {})
        self._bytes = self._bytes_of_others = 0

    def _right_since(self, query: Any) -> int:
        """The last commit that changed what is in the query's room."""
        return max(self._touched.get(query.room_id, 0), self._all_touched)
