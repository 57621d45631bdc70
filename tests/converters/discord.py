"""DiscordChatExporter: a file in JSON for each channel.

A server becomes a room with the channel in it; a thread's messages are in the channel above it; a direct conversation,
whose server is "0" for everybody, is a room by itself. Ids are unique everywhere. Reactions of newer exporters name
users, those of older ones have counts only. A pin has no time unless the line "pinned a message" is in the file: then
the time of the message stands for it, so that it is found among the pinned ones.
"""

from pathlib import Path
from typing import Any

from backscroll.schema import (
    Attachment,
    Category,
    Channel,
    Message,
    Room,
    SaveAttachment,
    SaveCategory,
    SaveChannel,
    SaveMessage,
    SaveRoom,
    SaveUser,
    User,
)
from tests.converters.importing import Commands
from tests.converters.source import (
    FileOrder,
    Plain,
    Reactor,
    as_id,
    iso_millis,
    parse_json,
    picked,
    reactions,
    read_text,
    some,
)

NO_SERVER = "0"
TYPES = {"Default": None, "Reply": None, "Call": "call"}


def commands_of(path: Path) -> Commands:
    """The commands for the server, channel, users and messages of a file."""
    export = parse_json(read_text(path))
    guild, channel = export["guild"], export["channel"]
    is_thread = "Thread" in channel["type"]
    is_direct = guild["id"] == NO_SERVER
    where: Plain = {
        "room_id": channel["id"] if is_direct else guild["id"],
        "channel_id": None if is_direct else channel.get("categoryId") if is_thread else channel["id"],
        "thread_id": channel["id"] if is_thread else None,
    }
    yield SaveRoom(Room(id=where["room_id"], name=channel["name"] if is_direct else guild["name"]))
    if not is_direct and not is_thread:
        yield from _commands_of_channel(guild["id"], channel)
    messages = sorted(export["messages"], key=lambda each: int(each["id"]))  # newer exporters can write newest first
    known: set[str] = set()
    for entry in messages:
        author = entry.get("author") or {}
        if author.get("id") and author["id"] not in known:
            known.add(author["id"])
            yield _save_user(author)
    order = FileOrder()
    pins = _pins(messages)
    for entry in messages:
        yield from _commands_of_message(entry, where, order, pins)


def _commands_of_channel(room_id: str, channel: Plain) -> Commands:
    if channel.get("categoryId"):
        yield SaveCategory(Category(id=channel["categoryId"], name=channel.get("category") or ""), room_id)
    yield SaveChannel(
        Channel(
            id=channel["id"],
            name=channel["name"],
            type=channel["type"],
            topic=channel.get("topic") or None,
            category_id=channel.get("categoryId") or None,
        ),
        room_id,
    )


def _save_user(author: Plain) -> SaveUser:
    return SaveUser(
        User(
            oder_id=author["id"],
            id=author["id"],
            username=author.get("name") or "",
            display_name=author.get("nickname") or None,
            avatar_url=author.get("avatarUrl") or None,
            metadata=picked(author, "discriminator", "isBot", "color"),
        )
    )


def _pins(messages: list[Plain]) -> dict[str, int | None]:
    """When messages were pinned for the last time, by the lines about it."""
    lines = [each for each in messages if each["type"] == "ChannelPinnedMessage" and each.get("reference")]
    return {each["reference"]["messageId"]: iso_millis(each["timestamp"]) for each in lines}


def _commands_of_message(entry: Plain, where: Plain, order: FileOrder, pins: dict[str, int | None]) -> Commands:
    author: Plain = entry.get("author") or {}
    reference: Plain = entry.get("reference") or {}
    place = order.place(where["room_id"], iso_millis(entry["timestamp"]))
    kind = "poll" if entry.get("poll") else "sticker" if entry.get("stickers") else entry["type"]
    message = Message(
        id=entry["id"],
        **where,
        **place._asdict(),
        sender_id=as_id(author.get("id")),
        sender_name=author.get("nickname") or author.get("name") or None,
        content=entry.get("content") or "",
        type=TYPES.get(kind, kind),
        edited_at=iso_millis(entry.get("timestampEdited")),
        reply_to_id=as_id(reference.get("messageId")) if entry["type"] == "Reply" else None,
        forwarded_from=_forwarded(entry, reference),
        mentions=[each["id"] for each in entry.get("mentions") or []] or None,
        pinned_at=pins.get(entry["id"], place.timestamp) if entry.get("isPinned") else None,
        link_metadata=picked(entry, "embeds"),
        metadata=picked(entry, "callEndedTimestamp", "stickers", "poll", "interaction"),
    )
    yield SaveMessage(message)
    for reaction in entry.get("reactions") or []:
        named = [Reactor(user["id"]) for user in reaction.get("users") or []]
        emoji: Plain = reaction["emoji"]
        metadata = some(imageUrl=emoji.get("imageUrl")) if emoji.get("id") else None
        yield from reactions(message.id, _emoji(emoji), named, reaction.get("count"), metadata=metadata)
    for file in entry.get("attachments") or []:
        yield _save_attachment(file, message.id)


def _forwarded(entry: Plain, reference: Plain) -> Any:
    forwarded: Plain | None = entry.get("forwardedMessage")
    return None if forwarded is None else forwarded | (picked(reference, "messageId", "channelId", "guildId") or {})


def _emoji(emoji: Plain) -> str:
    """A character, or as Discord writes it where the server has made it: one name may stand for many pictures."""
    if not emoji.get("id"):
        return str(emoji.get("name") or "")
    return f"<{'a' if emoji.get('isAnimated') else ''}:{emoji.get('name') or ''}:{emoji['id']}>"


def _save_attachment(file: Plain, message_id: str) -> SaveAttachment:
    return SaveAttachment(
        Attachment(
            id=file["id"],
            message_id=message_id,
            filename=file.get("fileName") or "",
            size=file.get("fileSizeBytes"),
            metadata=picked(file, "url"),
        )
    )
