"""Answers that are kept: a page that is asked for again is sent again, not built again.

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
ROOMS_MAX = 10_000


class Answers:
    """Encoded results of one scope's queries, each as of a `seq`. Safe to use from any thread.

    When they are more than `bytes_max` all are let go.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: dict[tuple[Query[Any], str], tuple[int, bytes]] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._touched: dict[str, int] = {}  # by room: the last commit that changed its messages
        self._all_touched = 0  # the last that may have changed any room's

    def get(self, query: Query[Any], codec: Codec, seq: int) -> bytes | None:
        """The result of a query as of `seq`, if it is here."""
        as_of, result = self._kept.get((query, codec.name), (-1, None))
        return result if self._right_since(query, seq) <= as_of <= seq else None

    def put(self, query: Query[Any], codec: Codec, seq: int, result: bytes) -> None:
        """Keep a result as of `seq`, unless what is here is newer."""
        key = (query, codec.name)
        with self._lock:
            as_of, before = self._kept.get(key, (-1, b""))
            if seq < as_of or len(result) > self._bytes_max:
                return
            self._bytes += len(result) - len(before)
            if self._bytes > self._bytes_max:
                self._kept, self._bytes = {}, len(result)
            self._kept[key] = (seq, result)

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

    def _right_since(self, query: Query[Any], seq: int) -> int:
        """The commit since which an answer stays right, as far as `seq`."""
        if not query.OF_ROOM:
            return seq
        room_id: str = query.room_id  # type: ignore[attr-defined]  # `OF_ROOM` says that it has one
        return max(self._touched.get(room_id, 0), self._all_touched)
