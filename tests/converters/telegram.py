"""Telegram Desktop: `result.json`, of one chat or of a whole account.

A chat becomes a room; its id is unique among chats of its type only, and a message's in its chat only, so the ids are
`type:chat/message`. Times in older files are local ones without a zone. Who reacted is named for the latest three only.
A pin is known by the line "pinned a message", and an unpinning not at all.
"""

from datetime import UTC, tzinfo
from pathlib import Path, PurePosixPath
from typing import Any

from backscroll.schema import Attachment, Message, Room, SaveAttachment, SaveMessage, SaveRoom
from tests.converters.importing import Commands
from tests.converters.source import (
    SECONDS,
    FileOrder,
    Plain,
    Reactor,
    as_id,
    id_of,
    iso_millis,
    millis,
    parse_json,
    picked,
    reactions,
    read_text,
    some,
)

TYPES = {"phone_call": "call", "group_call": "call", "conference_call": "call"}
NOT_INCLUDED = "(File "
"""Begins what stands in place of a path where the file was not exported."""
SERVICE_FIELDS = ("title", "members", "inviter", "duration_seconds", "discard_reason", "new_title", "message_id")
REPLY_FIELDS = ("reply_to_message_id", "reply_to_peer_id")
MESSAGE_FIELDS = ("poll", "location_information", "contact_information", "via_bot", "saved_from", "sticker_emoji")


def commands_of(path: Path, *, zone: tzinfo = UTC) -> Commands:
    """The commands for the chats and messages of a file; `zone` is where times without a zone are from."""
    export = parse_json(read_text(path))
    chats = export["chats"]["list"] if "chats" in export else [export]
    for chat in chats:
        room_id = f"{chat['type']}:{chat['id']}"
        yield SaveRoom(Room(id=room_id, name=chat.get("name") or ""))  # the other's account may be deleted
        order = FileOrder()
        pins = _pins(chat["messages"], zone)
        for entry in chat["messages"]:
            yield from _commands_of_message(entry, room_id, order, pins, zone)


def _pins(messages: list[Plain], zone: tzinfo) -> dict[int, int | None]:
    lines = [each for each in messages if each.get("action") == "pin_message" and each.get("message_id")]
    return {each["message_id"]: _time(each, "date", zone) for each in lines}


def _time(entry: Plain, name: str, zone: tzinfo) -> int | None:
    """A time of a record: its Unix time in seconds, or in older files only the local time."""
    found = millis(entry.get(f"{name}_unixtime"), SECONDS)
    return iso_millis(entry.get(name), zone) if found is None and name in entry else found


def _commands_of_message(
    entry: Plain, room_id: str, order: FileOrder, pins: dict[int, int | None], zone: tzinfo
) -> Commands:
    message_id = id_of(room_id, entry["id"])
    action = entry.get("action")
    kind = action or ("poll" if "poll" in entry else "sticker" if entry.get("media_type") == "sticker" else None)
    parts = _parts(entry.get("text"))
    time = _time(entry, "date", zone)
    replied = entry.get("reply_to_message_id")
    elsewhere = entry.get("reply_to_peer_id")  # a message of another chat, whose type the file does not tell
    fields: tuple[str, ...] = SERVICE_FIELDS if entry.get("type") == "service" else MESSAGE_FIELDS
    fields += (("date", "date_unixtime") if time is None else ()) + (REPLY_FIELDS if elsewhere else ())
    entities = [part for part in parts if part.keys() - {"type", "text"}]
    message = Message(
        id=message_id,
        room_id=room_id,
        **order.place(room_id, time)._asdict(),
        sender_id=as_id(entry.get("from_id") or entry.get("actor_id")),
        sender_name=entry.get("from") or entry.get("actor") or None,
        content="".join(part["text"] for part in parts),
        type=TYPES.get(kind, kind) if kind else None,
        edited_at=_time(entry, "edited", zone),
        reply_to_id=id_of(room_id, replied) if replied and not elsewhere else None,
        forwarded_from=picked(entry, "forwarded_from", "forwarded_from_id") or _nobody(entry),
        mentions=_mentions(parts),
        pinned_at=pins.get(entry["id"]),
        metadata=(picked(entry, *fields) or {}) | (some(entities=entities or None) or {}) or None,
    )
    yield SaveMessage(message)
    for reaction in entry.get("reactions") or []:
        named = [
            Reactor(each["from_id"], _time(each, "date", zone))
            for each in reaction.get("recent") or []
            if each.get("from_id")
        ]
        emoji = reaction.get("emoji") or reaction.get("document_id") or reaction.get("type") or ""  # "paid" has neither
        metadata = some(documentId=reaction.get("document_id"))
        yield from reactions(message_id, emoji, named, reaction.get("count"), metadata=metadata)
    for name in ("photo", "file"):
        if name in entry:
            yield _save_attachment(entry, name, message_id)


def _parts(text: Any) -> list[Plain]:
    """A text is a text, or a list of texts and of marked parts."""
    listed = text if isinstance(text, list) else [text or ""]
    return [part if isinstance(part, dict) else {"type": "plain", "text": part} for part in listed]


def _mentions(parts: list[Plain]) -> list[str] | None:
    """Users by their ids where the file has them, otherwise as they are written: `@name`."""
    users = [
        f"user{part['user_id']}" if "user_id" in part else part["text"] for part in parts if "mention" in part["type"]
    ]
    return list(dict.fromkeys(users)) or None


def _nobody(entry: Plain) -> Plain | None:
    """A forward whose author has deleted the account: the field is there, and empty."""
    return {"forwarded_from": None} if "forwarded_from" in entry else None


def _save_attachment(entry: Plain, name: str, message_id: str) -> SaveAttachment:
    path = entry[name] or ""
    exported = not path.startswith(NOT_INCLUDED)
    return SaveAttachment(
        Attachment(
            id=id_of(message_id, name),
            message_id=message_id,
            filename=entry.get("file_name") or (PurePosixPath(path).name if exported else ""),
            size=entry.get(f"{name}_file_size", entry.get("file_size") if name == "file" else None),
            mime=(entry.get("mime_type") or None) if name == "file" else None,
            is_image=True if name == "photo" else None,
            file_path=path if exported else None,
            metadata=picked(entry, "media_type", "duration_seconds", "width", "height"),
        )
    )
