"""The one factory of messages: typed records, and the documents that callers write on the wire.

Both have the same defaults. A message is named by a number, which gives its id and its time (7 is `m7` at 7 ms), or by
its id alone.
"""

from typing import Any

from backscroll.schema import Message, SaveMessage

Document = dict[str, Any]
LARGE_CHARS = 930_000
"""Nearly as many as one field may have."""


def message_record(name: int | str = 1, content: str = "hello", room_id: str = "r1", **fields: Any) -> Message:
    """A typed record; `fields` adds or replaces fields by their names in Python."""
    defaults: dict[str, Any] = {
        "id": _id_of(name),
        "room_id": room_id,
        "sender_id": "ada",
        "content": content,
        "timestamp": _time_of(name),
    }
    return Message(**(defaults | fields))


def message_document(name: int | str = 1, content: str = "hello", room_id: str = "r1", **fields: Any) -> Document:
    """A document, which need not be valid; `fields` adds or replaces fields by their names on the wire."""
    return {
        "id": _id_of(name),
        "roomId": room_id,
        "senderId": "ada",
        "content": content,
        "timestamp": _time_of(name),
        **fields,
    }


def save_message(name: int | str = 1, content: str = "hello", room_id: str = "r1", **fields: Any) -> SaveMessage:
    """The command that saves such a record."""
    return SaveMessage(message_record(name, content, room_id, **fields))


def save_payload(name: int | str = 1, content: str = "hello", room_id: str = "r1", **fields: Any) -> Document:
    """The payload of the `save-message` that saves such a document."""
    return {"message": message_document(name, content, room_id, **fields)}


def large_room(channels: int = 8) -> list[Document]:
    """Commands that save a room `large` that is larger than a reply, although none of its parts is."""
    room = {"id": "large", "name": "large", "description": "x" * LARGE_CHARS, "topic": "x" * LARGE_CHARS}
    saved: list[Document] = [{"type": "save-room", "payload": {"room": room}}]
    for number in range(channels):
        channel = {"id": f"c{number}", "name": "c", "type": "text", "topic": "x" * LARGE_CHARS}
        saved.append({"type": "save-channel", "payload": {"roomId": "large", "channel": channel}})
    return saved


def from_history(item: Document, **fields: Any) -> Message:
    """An item of the chat history as a record."""
    known: dict[str, Any] = {
        "room_id": item["stream"],
        "channel_id": item["topic"][:30],
        "sender_id": item["sender"],
        "timestamp": item["timestamp"],
    }
    return message_record(str(item["id"]), item["content"], **(known | fields))


def _id_of(name: int | str) -> str:
    return f"m{name}" if isinstance(name, int) else name


def _time_of(name: int | str) -> int:
    return name if isinstance(name, int) else 1
