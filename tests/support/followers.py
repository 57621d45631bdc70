"""Threads that follow the feed of a daemon which is killed again and again, and notes of what they were told."""

import random
import threading
from collections import Counter, defaultdict
from typing import Any

from backscroll.schema.wire import DEFAULT_SCOPE
from tests.support.feed_model import IN_ROOMS, Plain, Watcher
from tests.support.peers import Peer
from tests.support.requests import body, fresh_id

WAIT_MS = 200
LOST_MS = 500
Item = tuple[str, str | None, str | None]
"""Noun, room, id."""


class Follower(threading.Thread):
    """Asks for changes of a scope until `finish`, each question until it is answered. `choice` as for `Watcher`.

    `told` are the changes, each with the `seq` of its page. `problems` must stay empty.
    """

    def __init__(self, endpoint: str, seed: str, scope: str = DEFAULT_SCOPE, **choice: Any) -> None:
        super().__init__(name=f"follower {choice}")
        self.watcher = Watcher(self._ask, random.Random(seed), **choice)
        self.told: list[tuple[int, Plain]] = []
        self.problems: list[str] = []
        self.reconnected = 0
        self._endpoint, self._scope = endpoint, scope
        self._peer = Peer(endpoint)
        self._until: int | None = None

    def finish(self, seq: int) -> None:
        """End when everything up to this `seq` has been told."""
        self._until = seq

    def run(self) -> None:
        try:
            while not (self._until is not None and self.watcher.complete and self.watcher.seq >= self._until):
                self._follow()
            self.watcher.read_named()
        except Exception as error:  # noqa: BLE001  # an error of a thread would be lost
            self.problems.append(repr(error))
        finally:
            self._peer.close()

    def _follow(self) -> None:
        reply = self._ask("get-changes", self.watcher.payload(waitMs=WAIT_MS))
        self.watcher.take(reply)
        self.told += [(reply["seq"], change) for change in reply["result"]["changes"]]

    def _ask(self, operation: str, payload: Plain) -> Plain:
        """Send a request until it is answered, over a new connection when no reply comes."""
        while True:
            request_id = fresh_id()
            self._peer.send(body(operation, payload, id=request_id, scope=self._scope))
            while not self._peer.silent(WAIT_MS + LOST_MS):
                reply = self._peer.reply()
                if reply["id"] != request_id:
                    continue
                if reply["ok"] or reply["error"]["code"] not in ("busy", "unavailable"):
                    return reply
                break
            self._peer.close()
            self._peer = Peer(self._endpoint)
            self.reconnected += 1


def problems_of(follower: Follower, entries: list[Plain]) -> list[str]:
    """Where a follower was told a change of the log twice, or not at all.

    A change may be told with a later one of the same item, or as an earlier one if the page has the later.
    """
    watcher = follower.watcher
    declared: Counter[tuple[int, Item]] = Counter()
    for entry in entries:
        for change in entry.get("changes", ()):
            in_rooms = watcher.rooms is None or (change["noun"] in IN_ROOMS and change.get("roomId") in watcher.rooms)
            if in_rooms and change["noun"] in watcher.watched:
                declared[entry["seq"], item_of(change)] += 1
    told = Counter((change["seq"], item_of(change)) for _, change in follower.told)
    problems = [f"{change} was told {number} times" for change, number in told.items() if number > declared[change]]
    pages: dict[Item, list[tuple[int, int]]] = defaultdict(list)
    for page_seq, change in follower.told:
        pages[item_of(change)].append((change["seq"], page_seq))
    missed = [
        f"{item} at {seq} was not told"
        for seq, item in declared
        if not any(seq <= at or at < seq <= page_seq for at, page_seq in pages[item])
    ]
    return problems + missed


def item_of(change: Plain) -> Item:
    return change["noun"], change.get("roomId"), change.get("id")
