"""Callers that send random commands until each is acknowledged, and the ledger they keep of it.

A caller knows only its own requests: when no reply comes for a while it resends all unacknowledged ones under the same
ids, often over a new connection. One that numbers them (`client` and `n`) may learn that a command is superseded, which
then has had no effect.
"""

import random
import threading
from typing import Any

from backscroll.schema.wire import JSON, MSGPACK
from tests.support.exchanges import value_of
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.requests import body

WINDOW = 12  # requests in flight at once
RESEND_MS = 150
MESSAGES = 60  # shared by all callers
NOT_DONE = {"not-found", "conflict"}
NOT_YET = {"busy", "unavailable"}

Drawn = tuple[str, dict[str, Any]]


class Ledger:
    """What the callers of one scope sent and the replies they got. `problems` are replies that must not occur."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.sent: dict[str, bytes] = {}
        self.replies: dict[str, bytes] = {}  # of acknowledged commands
        self.seqs: dict[str, int] = {}  # of those, and of commands whose result had expired when they were retried
        self.resent = self.answered_again = self.refused = self.superseded = 0
        self.problems: list[str] = []

    def note(self, reply: bytes) -> bool:
        """Record a reply; whether the command need not be sent again."""
        value = value_of(reply)
        request_id = value["id"]
        if value["ok"]:
            before = self.replies.setdefault(request_id, reply)
            if before is not reply:
                self.answered_again += 1
                if before != reply:
                    self.problems.append(f"{before!r} and then {reply!r}")
            self._note_seq(request_id, value["seq"])
            return True
        error = value["error"]
        if "seq" in (error.get("details") or {}):
            self._note_seq(request_id, error["details"]["seq"])
        elif error["code"] in NOT_YET:
            return False
        elif error["code"] == "superseded":
            self.superseded += 1
            if request_id in self.replies:
                self.problems.append(f"{request_id!r} took effect, and then got {reply!r}")
        elif error["code"] not in NOT_DONE or (error.get("details") or {}).get("path") == "$.id":
            self.problems.append(f"{self.sent[request_id]!r} got {reply!r}")
        else:
            self.refused += 1
        return True

    def _note_seq(self, request_id: str, seq: int) -> None:
        if self.seqs.setdefault(request_id, seq) != seq:
            self.problems.append(f"{request_id!r} is {self.seqs[request_id]} and {seq}")


class Caller(threading.Thread):
    """Sends random commands in one scope until `finish`, and then waits until all are acknowledged.

    With several endpoints, of daemons on one database, each connection is to one of them.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        ledger: Ledger,
        seed: str,
        bytes_max: int = 3_000,
        *others: str,
        numbered: bool = False,
    ) -> None:
        super().__init__(name=name)
        self._numbered = numbered
        self._draw = random.Random(seed)
        self._endpoints = (endpoint, *others)
        self._ledger = ledger
        self._bytes_max = bytes_max
        self._made = 0
        self._open: dict[str, bytes] = {}  # not acknowledged
        self._finishing = threading.Event()

    def finish(self) -> None:
        """Send nothing new; the thread ends when everything is acknowledged."""
        self._finishing.set()

    def run(self) -> None:
        try:
            while not self._is_done():
                with Peer(self._draw.choice(self._endpoints)) as peer:
                    self._use(peer)
        except Exception as error:  # noqa: BLE001  # an error of a thread would be lost
            self._ledger.problems.append(f"{self.name} ended: {error!r}")

    def _is_done(self) -> bool:
        return self._finishing.is_set() and not self._open

    def _use(self, peer: Peer) -> None:
        """Send and receive over one connection, until it seems dead."""
        for request in self._open.values():
            peer.send(request)
        self._ledger.resent += len(self._open)
        while not self._is_done():
            while len(self._open) < WINDOW and not self._finishing.is_set():
                peer.send(self._next())
            if not peer.silent(RESEND_MS):
                reply = peer.frames()[-1]
                if self._ledger.note(reply):
                    self._open.pop(value_of(reply)["id"], None)
            elif self._draw.random() < 0.5:
                return
            else:
                for request in self._open.values():
                    peer.send(request)
                self._ledger.resent += len(self._open)

    def _next(self) -> bytes:
        self._made += 1
        request_id = f"{self.name}-{self._made}"
        operation, payload = random_command(self._draw, request_id, self._bytes_max)
        codec = self._draw.choice((JSON, MSGPACK))
        sender = {"client": self.name, "n": self._made} if self._numbered else {}
        request = body(operation, payload, codec, id=request_id, scope=self._ledger.scope, **sender)
        self._ledger.sent[request_id] = self._open[request_id] = request
        return request


def setup(scope: str) -> list[bytes]:
    """The commands that must be executed before the random ones."""
    room = {"id": "default", "name": "d", "channels": [{"id": "general", "name": "general", "type": "text"}]}
    user = {"oderId": "ada", "id": "ada", "username": "ada"}
    return [
        body("save-room", {"room": room}, id="setup-room", scope=scope),
        body("save-user", {"user": user}, id="setup-user", scope=scope),
    ]


def random_command(draw: random.Random, request_id: str, bytes_max: int) -> Drawn:
    """A random command. What it creates has its id, so that a second execution would show."""
    if draw.random() < 0.15:
        members = [_random_single(draw, f"{request_id}/{at}", bytes_max) for at in range(draw.randrange(1, 5))]
        return "batch", {"commands": [{"type": operation, "payload": payload} for operation, payload in members]}
    return _random_single(draw, request_id, bytes_max)


def _random_single(draw: random.Random, name: str, bytes_max: int) -> Drawn:
    number = draw.randrange(MESSAGES)
    reaction = {"messageId": f"m{number}", "oderId": draw.choice(["ada", "bob"]), "emoji": draw.choice("👍👎")}
    text = f"{name} " + "x" * draw.randrange(bytes_max)
    kinds: dict[str, tuple[int, dict[str, Any]]] = {
        "save-message": (8, save_payload(number, text, reactions=[reaction])),
        "update-message": (4, {"messageId": f"m{number}", "updates": {"content": text}}),
        "delete-message": (1, {"messageId": f"m{number}"}),
        "save-reaction": (2, {"reaction": reaction}),
        "remove-reaction": (1, reaction),
        "create-message": (4, {"channelId": "general", "authorId": "ada", "content": name}),
        "create-channel": (1, {"name": name}),
        "create-category": (1, {"name": name}),
        "create-user": (2, {"pubkey": name}),
        "create-session": (
            1,
            {"userId": "ada", "durationMs": draw.choice((1, 10**12)), "token": f"the token of {name}".ljust(22)},
        ),
    }
    [operation] = draw.choices(list(kinds), [weight for weight, _ in kinds.values()])
    return operation, kinds[operation][1]
