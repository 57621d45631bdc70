"""Slack: the directory of an export, with a directory for each channel and in it a file for each day.

A channel becomes a room. The time of a message is its id too, unique in its channel; its last three digits, of
microseconds, are the `ordinal`. Corporate exports have edits and deletions as entries of their own, which may stand in
the file of another day than their message: so everything arrives in any order. Texts stay in Slack's notation
(`<@U1>`, `&amp;`).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backscroll.schema import (
    Attachment,
    DeleteMessage,
    Message,
    MessageUpdates,
    Room,
    RoomMember,
    SaveAttachment,
    SaveMember,
    SaveMessage,
    SaveRoom,
    SaveUser,
    UpdateMessage,
    User,
)
from tests.converters.importing import Commands
from tests.converters.source import (
    SECONDS,
    Plain,
    Reactor,
    as_id,
    id_of,
    millis,
    parse_json,
    picked,
    reactions,
    read_text,
    some,
)

CHANNEL_LISTS = ("channels.json", "groups.json", "dms.json", "mpims.json")
TYPES = {
    "huddle_thread": "call",
    "me_message": "action",
    "thread_broadcast": None,
    "bot_message": None,
    "tombstone": None,
}
MENTION = re.compile(r"<@([A-Z0-9]+)(?:\|[^>]*)?>")


def commands_of(directory: Path) -> Commands:
    """The commands for the users, channels and messages of an export."""
    for user in _list_in(directory / "users.json"):
        yield _save_user(user)
    channels = [channel for name in CHANNEL_LISTS for channel in _list_in(directory / name)]
    for channel in channels:
        yield _save_room(channel)
        for member in channel.get("members") or []:
            yield SaveMember(str(channel["id"]), RoomMember(oder_id=member))
    known = {str(channel.get("name") or channel["id"]): channel for channel in channels}
    for folder in sorted(each for each in directory.iterdir() if each.is_dir()):
        channel = known.get(folder.name, {"id": folder.name})
        pins = {pin["id"]: millis(pin.get("created"), SECONDS) for pin in channel.get("pins") or [] if pin.get("id")}
        for day in sorted(folder.glob("*.json")):
            for entry in _list_in(day):
                yield from _commands_of_entry(entry, str(channel["id"]), pins)


def _list_in(path: Path) -> list[Plain]:
    return list(parse_json(read_text(path))) if path.exists() else []


def _save_user(user: Plain) -> SaveUser:
    profile: Plain = user.get("profile") or {}
    return SaveUser(
        User(
            oder_id=user["id"],
            id=user["id"],
            username=user.get("name") or "",
            display_name=profile.get("display_name") or user.get("real_name") or None,
            avatar_url=profile.get("image_512") or None,
            metadata=picked(user, "is_bot", "deleted", "tz"),
        )
    )


def _save_room(channel: Plain) -> SaveRoom:
    return SaveRoom(
        Room(
            id=channel["id"],
            name=channel.get("name") or "",  # a conversation of two has none
            topic=(channel.get("topic") or {}).get("value") or None,
            description=(channel.get("purpose") or {}).get("value") or None,
            host_id=channel.get("creator") or None,
            created_at=millis(channel.get("created"), SECONDS),
            metadata=picked(channel, "is_archived"),
        )
    )


def _commands_of_entry(entry: Plain, room_id: str, pins: Mapping[str, int | None]) -> Commands:
    subtype = entry.get("subtype")
    if subtype == "message_deleted":
        yield DeleteMessage(_id(room_id, entry["deleted_ts"]), arrival="any-order")
    elif subtype == "message_changed":
        changed = entry["message"]
        edited_at = millis((changed.get("edited") or {}).get("ts") or entry["ts"], SECONDS)
        text = changed.get("text") or ""
        updates = MessageUpdates(content=text, mentions=_mentions(text), edited_at=edited_at)
        yield UpdateMessage(_id(room_id, changed["ts"]), updates, arrival="any-order")
    else:
        yield from _commands_of_message(entry, room_id, pins)


def _commands_of_message(entry: Plain, room_id: str, pins: Mapping[str, int | None]) -> Commands:
    ts = entry["ts"]
    message_id = _id(room_id, ts)
    micros = _micros(ts)
    text = entry.get("text") or ""
    shared, linked = _attached(entry)
    subtype = entry.get("subtype")
    message = Message(
        id=message_id,
        room_id=room_id,
        sender_id=as_id(entry.get("user") or entry.get("bot_id")),
        sender_name=entry.get("username") or (entry.get("user_profile") or {}).get("real_name") or None,
        content=text,
        timestamp=micros // 1000,
        ordinal=micros % 1000,
        type=TYPES.get(subtype, subtype) if subtype else None,
        edited_at=millis((entry.get("edited") or {}).get("ts"), SECONDS),
        is_deleted=subtype == "tombstone",
        thread_id=_id(room_id, entry["thread_ts"]) if entry.get("thread_ts") else None,
        mentions=_mentions(text),
        forwarded_from=shared,
        link_metadata=some(attachments=linked or None),
        pinned_at=pins.get(ts),
        metadata=picked(entry, "room", "poll", "topic", "purpose", "inviter"),
    )
    yield SaveMessage(message, arrival="any-order")
    for reaction in entry.get("reactions") or []:
        named = [Reactor(user) for user in reaction.get("users") or []]  # of many users only the first are listed
        total = reaction.get("count")
        yield from reactions(message_id, reaction.get("name") or "", named, total, arrival="any-order")
    for file in entry.get("files") or []:
        yield _save_attachment(file, message_id)


def _mentions(text: str) -> list[str] | None:
    return list(dict.fromkeys(MENTION.findall(text))) or None


def _attached(entry: Plain) -> tuple[Plain | None, list[Any]]:
    """The message that was shared, and the previews of links: Slack lists both as "attachments"."""
    attached: Iterable[Plain] = entry.get("attachments") or []
    shared = [each for each in attached if each.get("is_share") or each.get("is_msg_unfurl")]
    return (shared[0] if shared else None), [each for each in attached if each not in shared[:1]]


def _save_attachment(file: Plain, message_id: str) -> SaveAttachment:
    mime = file.get("mimetype") or None
    return SaveAttachment(
        Attachment(
            id=id_of(message_id, file["id"]),  # one file may be shared in many messages
            message_id=message_id,
            filename=file.get("name") or "",  # a file that was deleted has none
            size=file.get("size"),
            mime=mime,
            is_image=mime.startswith("image/") if mime else None,
            metadata=picked(file, "mode", "url_private", "title"),
        ),
        arrival="any-order",
    )


def _id(room_id: str, ts: str) -> str:
    return id_of(room_id, ts)


def _micros(ts: str) -> int:
    seconds, _, fraction = ts.partition(".")
    return int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
