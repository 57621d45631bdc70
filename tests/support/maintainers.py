"""A caller of what concerns whole scopes and files, while the daemon is killed again and again.

It replays a scope's log into a scope of its own, deletes that scope, compacts, and puts and deletes media. What was
acknowledged must be there after any kill, and what was deleted must be gone.
"""

import base64
import random
import threading
from typing import Any

from tests.support.peers import Peer, Reply
from tests.support.requests import body

COPY, FILES = "copy", "files"
OWN = "delete-expired-sessions"  # which the daemon executes by itself
WAIT_MS = 400
PAGE = 40
PARTS = 4


class Maintainer(threading.Thread):
    """Works on one request at a time until `finish`, and sends each until it is answered. `problems` must stay empty.

    `done` counts what was acknowledged.
    """

    def __init__(self, endpoint: str, compacted: list[str], seed: str) -> None:
        super().__init__(name="maintainer")
        self.problems: list[str] = []
        self.done = {"compact-scope": 0, "delete-scope": 0, "append-log": 0, "put-media": 0, "delete-media": 0}
        self._draw = random.Random(seed)
        self._endpoint = endpoint
        self._compacted = compacted
        self._finishing = threading.Event()
        self._number = 0
        self._replayed = 0  # the number of entries in the copy
        self._media: dict[str, list[bytes]] = {}

    def finish(self) -> None:
        """Begin nothing new; the thread ends when its last request is answered."""
        self._finishing.set()

    def run(self) -> None:
        try:
            while not self._finishing.is_set():
                self._draw.choice((self._compact, self._replay, self._replay, self._delete, self._put, self._remove))()
                self._check_copy()
            self._check_media()
        except Exception as error:  # noqa: BLE001  # an error of a thread would be lost
            self.problems.append(repr(error))

    def _ask(self, operation: str, payload: Any, scope: str) -> Reply:
        """Send a request until it is answered; under the same id, so that it is executed once."""
        self._number += 1
        request = body(operation, payload, id=f"maintainer-{self._number:08}", scope=scope)
        while True:
            with Peer(self._endpoint) as peer:
                peer.send(request)
                while not peer.silent(WAIT_MS):
                    reply = peer.reply()
                    if reply["ok"] or reply["error"]["code"] not in ("busy", "unavailable"):
                        return reply
                    peer.send(request)

    def _result(self, operation: str, payload: Any, scope: str) -> Any:
        reply = self._ask(operation, payload, scope)
        if not reply["ok"]:
            self.problems.append(f"{operation} in {scope}: {reply}")
            return None
        if operation in self.done:
            self.done[operation] += 1
        return reply["result"]

    def _compact(self) -> None:
        self._result("compact-scope", {}, self._draw.choice([*self._compacted, COPY, FILES]))

    def _replay(self) -> None:
        """Append what the copy lacks. A part of it may be there already, if a kill came before the answer."""
        page = self._result("get-log", {"fromSeq": self._replayed + 1, "limit": PAGE}, self._compacted[0])
        if page and page["entries"]:
            reply = self._ask("append-log", {"entries": page["entries"]}, COPY)
            if reply["ok"]:
                self.done["append-log"] += 1
                self._replayed = page["entries"][-1]["seq"]
            elif reply["error"]["code"] not in ("conflict", "invalid", "not-found"):
                self.problems.append(f"append-log: {reply}")

    def _delete(self) -> None:
        self._result("delete-scope", {}, COPY)
        self._replayed = 0

    def _check_copy(self) -> None:
        """The copy has exactly the entries that were appended since it was deleted, and the daemon's own after them."""
        if self._replayed:
            last = self._result("get-log", {"fromSeq": self._replayed, "limit": 1}, COPY)
            if last and [entry["seq"] for entry in last["entries"]] != [self._replayed]:
                self.problems.append(f"the copy lost its command {self._replayed}")
        page = self._result("get-log", {"fromSeq": self._replayed + 1, "limit": 500}, COPY)
        more = [entry["type"] for entry in page["entries"]] if page else []
        if set(more) - {OWN}:
            self.problems.append(f"the copy has {more} after its command {self._replayed}")
        elif more:  # they have taken the numbers of entries of the log
            self._delete()

    def _put(self) -> None:
        parts = [self._draw.randbytes(self._draw.randrange(1, 30_000)) for _ in range(PARTS)]
        sums = [self._result("put-media-part", {"data": base64.b64encode(part).decode()}, FILES) for part in parts]
        media = self._result("put-media", {"parts": sums, "mime": "text/plain"}, FILES)
        if media:
            self._media[media["id"]] = parts

    def _remove(self) -> None:
        if self._media:
            media_id = self._draw.choice(list(self._media))
            self._result("delete-media", {"mediaId": media_id}, FILES)
            del self._media[media_id]

    def _check_media(self) -> None:
        """All media that were put and not deleted can be read, and there are no others."""
        for media_id, parts in self._media.items():
            for at, part in enumerate(parts):
                data = self._result("get-media-part", {"mediaId": media_id, "part": at}, FILES)
                if data is None or base64.b64decode(data) != part:
                    self.problems.append(f"part {at} of {media_id} is lost")
        info = self._result("get-scope-info", {}, FILES)
        if info and info["rows"]["media"] != len(self._media):
            self.problems.append(f"there are {info['rows']['media']} media, not {len(self._media)}")
