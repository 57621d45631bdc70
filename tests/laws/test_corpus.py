"""A chat history, saved through a real daemon and read back unchanged.

A stream is stored as a room, a topic as a channel, a sender as a user and as a member of the rooms they wrote in. The
history has no reactions, so seeded ones are added to every third message.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import zmq

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    Channel,
    GetAllRooms,
    GetMessageById,
    GetMessages,
    GetReactionsForMessage,
    GetRoom,
    GetUser,
    GetUsersByRoom,
    Message,
    Reaction,
    Room,
    RoomMember,
    SaveMessage,
    SaveRoom,
    SaveUser,
    User,
)
from backscroll.schema.limits import ID_BYTES_MAX, PAGE_ITEMS_MAX
from tests.support.messages import from_history

REACTIONS_SEED = 20260102
EMOJIS = ["👍", "❤️", "🧑🏽‍🚀", "🏳️‍🌈", "👩‍👩‍👧‍👦", "🇳🇿", "4️⃣", "é", "e\u0301", ":custom:"]
BY_ID_EVERY = 37
PLAIN_MESSAGES = 2_000
PLAIN_WINDOW = 200
TIMEOUT_MS = 60_000

Saved = dict[str, Any]
Exchange = Callable[[Sequence[Saved]], list[Saved]]


class Chat(NamedTuple):
    """The records that a history is saved as."""

    rooms: list[Room]
    users: list[User]
    messages: list[Message]


@pytest.fixture(scope="module")
def chat(chat_history: Any) -> Chat:
    # Shown with `-s`, and when a test fails.
    print(f"{chat_history.source}: {len(chat_history.messages)} messages; reactions by seed {REACTIONS_SEED}")  # noqa: T201
    return Chat(
        rooms=list(_rooms(chat_history.messages)),
        users=list(_users(chat_history.messages)),
        messages=list(_messages(chat_history.messages)),
    )


def test_a_history_is_read_back_unchanged_after_a_restart(
    start_daemon: Callable[..., DaemonProcess], chat: Chat
) -> None:
    """A restarted daemon returns everything that was saved, equal in every field and in the documented order."""
    daemon = start_daemon("--log-level", "warning")
    with Client(daemon.endpoint, timeout_ms=TIMEOUT_MS) as client:
        _save(chat, client)
    assert daemon.stop() == 0
    with Client(start_daemon("--log-level", "warning").endpoint, timeout_ms=TIMEOUT_MS) as client:
        _check_rooms_and_users(chat, client)
        _check_pages(chat, client)
        _check_single_messages(chat, client)


@pytest.mark.parametrize("pattern", ["REQ", "DEALER"])
def test_a_zmq_socket_and_a_json_library_are_a_client(
    start_daemon: Callable[..., DaemonProcess], chat: Chat, pattern: str
) -> None:
    """What a plain REQ or DEALER socket saves as JSON over tcp it reads back unchanged."""
    payloads = [_plain(message) for message in chat.messages[:PLAIN_MESSAGES]]
    daemon = start_daemon("--log-level", "warning", "--endpoint", "tcp://127.0.0.1:*")
    with zmq.Context() as context, context.socket(getattr(zmq, pattern)) as socket:
        socket.linger = 0
        socket.connect(daemon.endpoint)
        exchange = _lock_step(socket) if pattern == "REQ" else _pipelined(socket)
        saves = [_request("save-message", {"message": payload}) for payload in payloads]
        assert daemon.token is not None
        exchange = _with_token(exchange, daemon.token)
        assert [reply["result"] for reply in exchange(saves)] == [None] * len(saves)
        found = list(_plain_pages(payloads, exchange))
    assert found == sorted(map(_plain_canonical, payloads), key=lambda item: (item["timestamp"], item["id"]))


# From the history to records


def _rooms(history: Sequence[Saved]) -> Iterator[Room]:
    """A room for each stream, with its topics and senders in the order of their first message."""
    for stream in _first_seen(history, "stream"):
        part = [item for item in history if item["stream"] == stream]
        topics, senders = _first_seen(part, "topic"), _first_seen(part, "sender")
        yield Room(
            id=stream,
            name=stream,
            created_at=part[0]["timestamp"],
            channels=[
                Channel(id=_id(topic), name=topic, type="text", position=position, topic=topic, created_at=created_at)
                for position, (topic, created_at) in enumerate(topics.items())
            ],
            members=[
                RoomMember(oder_id=sender, role_ids=["reader", "writer"], joined_at=joined_at)
                for sender, joined_at in senders.items()
            ],
        )


def _users(history: Sequence[Saved]) -> Iterator[User]:
    for number, (sender, joined_at) in enumerate(_first_seen(history, "sender").items()):
        yield User(
            oder_id=sender,
            id=f"account-{number}",
            username=sender,
            joined_at=joined_at,
            is_admin=number == 0,
            metadata={"number": number},
        )


def _messages(history: Sequence[Saved]) -> Iterator[Message]:
    draw = random.Random(REACTIONS_SEED)
    senders = list(_first_seen(history, "sender"))
    for number, item in enumerate(history):
        reactions = _reactions(str(item["id"]), item["timestamp"], senders, draw) if number % 3 == 0 else None
        yield from_history(
            item,
            channel_id=_id(item["topic"]),
            sender_name=item["sender"],
            metadata={"zulip": {"id": item["id"], "topic": item["topic"]}},
            reactions=reactions,
        )


def _reactions(message_id: str, timestamp: int, senders: list[str], draw: random.Random) -> list[Reaction]:
    """One to four reactions of different people, some at the same millisecond, so that the order needs more than the
    time.
    """
    people = draw.sample(senders, draw.randint(1, min(4, len(senders))))
    choices = [(person, draw.choice(EMOJIS), timestamp + draw.randrange(3)) for person in people]
    return [
        Reaction(message_id=message_id, oder_id=person, emoji=emoji, timestamp=time) for person, emoji, time in choices
    ]


def _first_seen(history: Sequence[Saved], field: str) -> dict[str, int]:
    """Each value of a field with the time of the first message that has it, in that order."""
    found: dict[str, int] = {}
    for item in history:
        found.setdefault(item[field], item["timestamp"])
    return found


def _id(topic: str) -> str:
    """A topic as a channel id: the topic itself, or its hash where it is longer than an id may be."""
    encoded = topic.encode()
    return topic if len(encoded) <= ID_BYTES_MAX else hashlib.sha256(encoded).hexdigest()


# Through the Python client


def _save(chat: Chat, client: Client) -> None:
    commands = [*map(SaveRoom, chat.rooms), *map(SaveUser, chat.users), *map(SaveMessage, chat.messages)]
    assert list(client.pipeline(commands)) == [None] * len(commands)


def _check_rooms_and_users(chat: Chat, client: Client) -> None:
    rooms = sorted(map(_canonical_room, chat.rooms), key=lambda room: (room.created_at, room.id))
    assert client.ask(GetAllRooms()) == rooms
    assert list(client.pipeline(GetRoom(room.id) for room in rooms)) == rooms
    assert list(client.pipeline(GetUser(user.oder_id) for user in chat.users)) == chat.users
    by_oder_id = {user.oder_id: user for user in chat.users}
    for room in rooms:
        members = sorted(member.oder_id for member in room.members or [])
        assert client.ask(GetUsersByRoom(room.id)) == [by_oder_id[each] for each in members]


def _check_pages(chat: Chat, client: Client) -> None:
    for room in chat.rooms:
        of_room = [_canonical(message) for message in chat.messages if message.room_id == room.id]
        of_room.sort(key=lambda message: (message.timestamp, message.id))
        offsets = range(0, len(of_room) + 1, PAGE_ITEMS_MAX)
        pages = (GetMessages(room.id, limit=PAGE_ITEMS_MAX, offset=offset) for offset in offsets)
        found = itertools.chain.from_iterable(client.pipeline(pages, window=4))
        for message, saved in itertools.zip_longest(found, of_room):
            assert message == saved


def _check_single_messages(chat: Chat, client: Client) -> None:
    some = [_canonical(message) for message in chat.messages[::BY_ID_EVERY]]
    ids = [message.id for message in some]
    assert list(client.pipeline(map(GetMessageById, ids))) == some
    assert list(client.pipeline(map(GetReactionsForMessage, ids))) == [message.reactions for message in some]


def _canonical(message: Message) -> Message:
    """A message as queries return it: with the list of reactions, by (timestamp, oderId, emoji)."""
    ordered = sorted(message.reactions or [], key=lambda item: (item.timestamp, item.oder_id, item.emoji))
    return Message(**{**_fields(message), "reactions": ordered})


def _canonical_room(room: Room) -> Room:
    channels = sorted(room.channels or [], key=lambda channel: (channel.position, channel.id))
    members = sorted(room.members or [], key=lambda member: (member.joined_at, member.oder_id))
    return Room(**{**_fields(room), "channels": channels, "members": members})


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


# Through ZeroMQ and JSON alone


def _plain(message: Message) -> Saved:
    """A message's payload written out field by field, as another program would send it."""
    payload: Saved = {
        "id": message.id,
        "roomId": message.room_id,
        "channelId": message.channel_id,
        "senderId": message.sender_id,
        "senderName": message.sender_name,
        "content": message.content,
        "timestamp": message.timestamp,
        "metadata": message.metadata,
    }
    if message.reactions is not None:
        payload["reactions"] = [
            {
                "messageId": reaction.message_id,
                "oderId": reaction.oder_id,
                "emoji": reaction.emoji,
                "timestamp": reaction.timestamp,
            }
            for reaction in message.reactions
        ]
    return payload


def _plain_canonical(payload: Saved) -> Saved:
    reactions = payload.get("reactions", [])
    ordered = sorted(reactions, key=lambda item: (item["timestamp"], item["oderId"], item["emoji"]))
    return {**payload, "isDeleted": False, "reactions": ordered}


def _plain_pages(payloads: Sequence[Saved], exchange: Exchange) -> Iterator[Saved]:
    """Every saved message, read back page by page."""
    for room_id in sorted({payload["roomId"] for payload in payloads}):
        offsets = range(0, len(payloads) + 1, PAGE_ITEMS_MAX)
        pages = [{"roomId": room_id, "limit": PAGE_ITEMS_MAX, "offset": offset} for offset in offsets]
        for reply in exchange([_request("get-messages", page) for page in pages]):
            yield from reply["result"]


_numbers = itertools.count(1)


def _request(operation: str, payload: Saved) -> Saved:
    return {"id": f"plain-{next(_numbers)}", "type": operation, "payload": payload}


def _with_token(exchange: Exchange, token: str) -> Exchange:
    """The same exchange, with the token that requests over tcp need."""
    return lambda requests: exchange([request | {"auth": token} for request in requests])


def _lock_step(socket: Any) -> Exchange:
    """One request in flight at a time."""

    def exchange(requests: Sequence[Saved]) -> list[Saved]:
        replies = []
        for request in requests:
            socket.send_string(json.dumps(request))
            replies.append(_receive(socket))
        return _matched(requests, replies)

    return exchange


def _pipelined(socket: Any) -> Exchange:
    """Many requests in flight, their replies put into order by id."""

    def exchange(requests: Sequence[Saved]) -> list[Saved]:
        replies: list[Saved] = []
        for number, request in enumerate(requests):
            socket.send_string(json.dumps(request, ensure_ascii=False))
            if number >= PLAIN_WINDOW:
                replies.append(_receive(socket))
        while len(replies) < len(requests):
            replies.append(_receive(socket))
        return _matched(requests, replies)

    return exchange


def _receive(socket: Any) -> Saved:
    assert socket.poll(TIMEOUT_MS), "the daemon does not answer"
    reply: Saved = json.loads(socket.recv())
    return reply


def _matched(requests: Sequence[Saved], replies: Sequence[Saved]) -> list[Saved]:
    """The replies in the order of their requests; each must be a success, and there must be no others."""
    by_id = {reply["id"]: reply for reply in replies}
    assert by_id.keys() == {request["id"] for request in requests}
    failures = [reply for reply in replies if not reply["ok"]]
    assert not failures, failures[0]
    return [by_id[request["id"]] for request in requests]
