"""Answers that are kept until the next commit: a page that is asked for again is sent again, not built again.

The daemon is the only writer of the file, so an answer stays right exactly until the scope's `seq` moves. What depends
on the clock or on other files is not kept (`Query.KEPT`).
"""

import threading
from typing import Any

from backscroll.schema.operations import Query
from backscroll.schema.wire import Codec

BYTES_MAX = 16 * 2**20


class Answers:
    """Encoded results of one scope's queries, all as of one `seq`. Safe to use from any thread.

    When they are more than `bytes_max` all are let go.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: tuple[int, dict[tuple[Query[Any], str], bytes]] = (-1, {})  # one value, so that it changes at once
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, query: Query[Any], codec: Codec, seq: int) -> bytes | None:
        """The result of a query as of `seq`, if it is here."""
        as_of, results = self._kept
        return results.get((query, codec.name)) if as_of == seq else None

    def put(self, query: Query[Any], codec: Codec, seq: int, result: bytes) -> None:
        """Keep a result as of `seq`, unless what is here is newer."""
        with self._lock:
            as_of, results = self._kept
            if seq < as_of or len(result) > self._bytes_max:
                return
            if seq > as_of or self._bytes + len(result) > self._bytes_max:
                results, self._bytes = {}, 0
                self._kept = (seq, results)
            results[query, codec.name] = result
            self._bytes += len(result)
