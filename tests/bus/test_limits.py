"""Every limit in the table of PROTOCOL.md is enforced as it says: its value passes, one more is refused and named."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.schema.limits import LIMITS
from backscroll.schema.wire import JSON, MSGPACK
from tests.support.messages import message_document, message_record, save_payload
from tests.support.peers import Peer, running
from tests.support.requests import body, fresh_id

Document = dict[str, Any]
Frames = list[bytes]

ENVELOPE_BYTES = 1_024  # of a reply with a list, which are reserved for the rest of it
ROUTING_ID_BYTES = 5  # of the id that libzmq gives a client
KEY = "0" * 40


def with_body_of(size: int, request: bytes) -> Frames:
    """A request in JSON with spaces at its end."""
    return [request + b" " * (size - len(request))]


def save(**fields: Any) -> Frames:
    return [body("save-message", {"message": message_document("m", **fields)}, MSGPACK)]


def item_of(size: int) -> Frames:
    """A message that takes so many bytes in JSON, where a control character takes six."""
    empty = len(JSON.encode(message_record("m", "")))
    controls, rest = divmod(size - empty - len(',"senderName":""'), 6)
    return save(content="\x01" * (controls - 100_000), senderName="\x01" * 100_000 + "x" * rest, roomId="large")


def batch(*commands: Document) -> Frames:
    return [body("batch", {"commands": list(commands)}, MSGPACK)]


def entries(*listed: Document, **fields: Any) -> Frames:
    """Entries of a log, in a new scope."""
    return [body("append-log", {"entries": [*listed], **fields}, scope=fresh_id())]


def entry(seq: int, at: int = 1, **fields: Any) -> Document:
    return {"seq": seq, "at": at, "id": f"line-{seq:06}", "type": "initialize", "payload": {}, **fields}


def commands_in_log(number: int) -> Frames:
    """Batches and their members count; entries that do not follow the log are a `conflict`, so nothing is executed."""
    batches, rest = divmod(number, 1_001)
    member = {"type": "initialize"}
    listed = [
        entry(seq, type="batch", payload={"commands": [member] * (1_000 if seq - 1_000 < batches else rest - 1)})
        for seq in range(1_000, 1_000 + batches + 1)
    ]
    return entries(*listed)


def log_entry_of(size: int) -> Frames:
    """A batch whose entry has about so many bytes; numbers that are short in JSON are longer there."""
    numbers, count = [0.5] * 49_000, 5
    texts = size - 9 * len(numbers) * count - 1_200
    each = texts // (count + 1)
    saves = [save_payload(number, "x" * each, metadata={"x": numbers}) for number in range(count)]
    saves.append(save_payload(count, "x" * (texts - each * count)))
    return [body("batch", {"commands": [{"type": "save-message", "payload": each} for each in saves]})]


def listed_users(size: int) -> Frames:
    """A scope whose list of users takes so many bytes of a reply, and the query for it."""
    scope, room = fresh_id(), size - ENVELOPE_BYTES - 5
    frames: Frames = []
    for number in range(10):
        user = {"id": f"{number}", "oderId": f"u{number}", "username": ""}
        room -= len(JSON.encode(user)) + 1
        user["username"] = "x" * (900_000 if number < 9 else room)
        room -= 900_000
        frames.append(body("save-user", {"user": user}, scope=scope))
    return [*frames, body("list-users", {}, scope=scope)]


def channel(type_bytes: int) -> Frames:
    """A scope with a room, and a channel of it with a type of so many bytes."""
    scope = fresh_id()
    typed = {"id": "c", "name": "c", "type": "x" * type_bytes}
    room = body("save-room", {"room": {"id": "r", "name": "r"}}, scope=scope)
    return [room, body("save-channel", {"roomId": "r", "channel": typed}, scope=scope)]


def waiting_edits(number: int) -> Frames:
    """Edits of so many messages that have not arrived, in one scope; those that were sent before change nothing."""
    edit = {"updates": {"revision": 1}, "arrival": "any-order"}
    edits = [{"type": "update-message", "payload": edit | {"messageId": f"{at}"}} for at in range(number)]
    return [
        body("batch", {"commands": edits[at : at + 1_000]}, MSGPACK, scope="waiting") for at in range(0, number, 1_000)
    ]


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels > 1 else {}


def now() -> int:
    return time.time_ns() // 1_000_000


CASES: dict[str, Callable[[int], Frames]] = {
    "bodyBytes": lambda size: with_body_of(size, body("ping")),
    "logBodyBytes": lambda size: with_body_of(size, entries(entry(1))[0]),
    "replyBytes": listed_users,
    "routingFrames": lambda number: [*[b""] * (number - 1), body("ping")],
    "routingBytes": lambda size: [b"x" * (size - ROUTING_ID_BYTES), body("ping")],
    "requestIdBytes": lambda size: [body("ping", id="x" * size)],
    "clientBytes": lambda size: [body("save-message", save_payload("m"), client="x" * size, n=1)],
    "scopeBytes": lambda size: [body("get-all-rooms", scope="x" * size)],
    "traceparentBytes": lambda size: [body("ping", traceparent="x" * size)],
    "idBytes": lambda size: [body("save-message", save_payload("x" * size))],
    "channelTypeBytes": channel,
    "textBytes": lambda size: save(content="x" * size),
    "itemBytes": item_of,
    "listItems": lambda number: [
        body(
            "save-message",
            save_payload("m", reactions=[{"messageId": "m", "oderId": f"{at}", "emoji": "x"} for at in range(number)]),
            MSGPACK,
        )
    ],
    "freeJsonBytes": lambda size: save(metadata={"x": "x" * (size - 8)}),
    "reactionMetadataBytes": lambda size: [
        body(
            "save-reaction",
            {"reaction": {"messageId": "m", "oderId": "ada", "emoji": "x", "metadata": {"x": "x" * (size - 8)}}},
        )
    ],
    "freeJsonValues": lambda number: save(metadata={"x": [0] * (number - 2)}),
    "freeJsonDepth": lambda levels: save(metadata=nested(levels)),
    "integer": lambda number: [body("create-category", {"name": "x", "position": number})],
    "millis": lambda number: save(timestamp=number),
    "waitMs": lambda wait_ms: [body("get-changes", {"waitMs": wait_ms, "after": "now"})],
    "changedRooms": lambda number: [body("get-changes", {"rooms": [f"{at}" for at in range(number)]})],
    "pageItems": lambda number: [body("get-messages", {"roomId": "empty", "limit": number})],
    "cursorChars": lambda number: [body("get-message-page", {"roomId": "r1", "before": "x" * number})],
    "batchCommands": lambda number: batch(*[{"type": "initialize"}] * number),
    "waitingMessages": waiting_edits,
    "logCommands": commands_in_log,
    "futureMs": lambda ms: entries(entry(1, now() + ms)),
    "logEntryBytes": log_entry_of,
    "mediaPartBytes": lambda size: [body("put-media-part", {"data": bytes(size)}, MSGPACK)],
    "mediaParts": lambda number: [body("put-media", {"parts": ["0" * 64] * number, "mime": "x"})],
    "tokenBytes": lambda size: [body("get-session", {"token": "x" * size})],
    "authBytes": lambda size: [body("ping", auth="x" * size)],
    "tokens": lambda number: [
        body("create-token", {"name": f"{at}", "tokenHash": f"{at:064}", "right": "read"}) for at in range(number)
    ],
    "tokenScopes": lambda number: [
        body(
            "create-token",
            {"name": f"{number}", "tokenHash": f"{number:064}", "right": "read", "scopes": ["s"] * number},
        )
    ],
    "clientKeys": lambda number: [body("add-key", {"name": f"{at}", "publicKey": KEY}) for at in range(number)],
    "pathChars": lambda number: [body("adopt-legacy-database", {"path": "x" * number, "userId": "ada"}, scope="new")],
}
"""The messages that exceed or reach a limit, by the value; the last is the one that counts."""

REFUSED_OTHERWISE = {
    "cursorChars": "invalid",
    "logCommands": "conflict",
    "mediaParts": "not-found",
    "pathChars": "not-found",
}
"""The codes of what does not exceed a limit, but cannot succeed for another reason."""

SLACK = {"futureMs": 60_000, "itemBytes": 256, "logEntryBytes": 4_096, "replyBytes": 64}
"""How much less than the value passes here, and how much more is refused, where a test cannot be as exact."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "data") as served:
        yield served.endpoint


def last_reply(peer: Peer, frames: Frames, name: str) -> Document:
    """The reply to the last of these bodies; for a limit on frames there is one message."""
    if name in ("routingFrames", "routingBytes"):
        peer.send(*frames)
        return peer.reply()
    reply: Document = {}
    for each in frames:
        peer.send(each)
        reply = peer.reply()
    return reply


@pytest.mark.parametrize("name", CASES)
def test_a_limit_is_enforced_as_the_page_says(name: str, endpoint: str) -> None:
    """A request that reaches it passes; the refusal of one that exceeds it has the code of the table, and a message
    with the number.
    """
    limit, slack = LIMITS[name], SLACK.get(name, 0)
    with Peer(endpoint) as peer:
        reached = last_reply(peer, CASES[name](limit.value - slack), name)
        if name in REFUSED_OTHERWISE:
            assert reached["error"]["code"] == REFUSED_OTHERWISE[name], reached
        else:
            assert reached["ok"], str(reached)[:500]
        exceeded = last_reply(peer, CASES[name](limit.value + 1 + slack), name)
    assert not exceeded["ok"], str(exceeded)[:500]
    assert exceeded["error"]["code"] == limit.error, exceeded["error"]["message"][:500]
    assert str(limit.value) in exceeded["error"]["message"]


def test_every_limit_with_an_error_is_tested() -> None:
    """The others make a page or a list shorter, or close the connection."""
    assert set(CASES) == {name for name, limit in LIMITS.items() if limit.error}
