"""Mattermost: the lines of a bulk export.

A team becomes a room with its channels, a direct conversation a room by itself. Users are known by their names. Posts
have no ids and are in no order: an id is made of the channel, the time, the user and a number where all are equal, and
everything arrives in any order. Replies stand inside the post that began the thread. A pin has no time; the time of its
post stands for it, so that it is found among the pinned ones.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from backscroll.schema import (
    Attachment,
    Channel,
    Message,
    Room,
    SaveAttachment,
    SaveChannel,
    SaveMessage,
    SaveRoom,
    SaveUser,
    User,
)
from tests.converters.importing import Commands
from tests.converters.source import (
    Place,
    Plain,
    Reactor,
    Ties,
    as_id,
    id_of,
    millis,
    parse_json,
    picked,
    reactions,
    read_text,
)

TYPES = {"me": "action", "custom_calls": "call", "custom_matterpoll": "poll"}
MENTION = re.compile(r"(?<![\w.@])@([a-z0-9][a-z0-9._-]*)")


class Export(NamedTuple):
    """What earlier lines have told, and how many posts were equal."""

    users: set[str]
    ties: Ties
    equal: Ties


class Where(NamedTuple):
    """The room of a post, its channel, and the post that began its thread."""

    room_id: str
    channel_id: str | None = None
    thread_id: str | None = None


def commands_of(path: Path) -> Commands:
    """The commands for the teams, channels, users and posts of a file."""
    export = Export(set(), Ties(), Ties())
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                entry = parse_json(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {path.name} is no JSON; is the file complete?") from error
            yield from _commands_of_line(entry, export)


def _commands_of_line(entry: Plain, export: Export) -> Commands:
    kind = entry["type"]
    content: Plain = entry.get(kind) or {}
    if kind == "team":
        yield SaveRoom(_room(content["name"], content))
    elif kind == "channel":
        yield SaveChannel(_channel(content), content["team"])
    elif kind == "user":
        export.users.add(content["username"])
        yield _save_user(content)
    elif kind == "direct_channel":
        yield SaveRoom(_room(_direct(content["members"]), content))
    elif kind == "post":
        yield from _commands_of_post(content, Where(content["team"], content["channel"]), export)
    elif kind == "direct_post":
        yield from _commands_of_post(content, Where(_direct(content["channel_members"])), export)


def _room(room_id: str, content: Plain) -> Room:
    return Room(
        id=room_id,
        name=content.get("display_name") or "",
        description=content.get("description") or None,
        topic=content.get("header") or None,
    )


def _direct(members: list[str]) -> str:
    return id_of("direct", ",".join(sorted(set(members))))


def _channel(content: Plain) -> Channel:
    return Channel(
        id=content["name"],
        name=content.get("display_name") or content["name"],
        type={"O": "open", "P": "private"}.get(content.get("type") or "", "channel"),
        topic=content.get("header") or None,
        metadata=picked(content, "purpose"),
    )


def _save_user(content: Plain) -> SaveUser:
    username = content["username"]
    full_name = " ".join(filter(None, [content.get("first_name"), content.get("last_name")]))
    user = User(
        oder_id=username,
        id=username,
        username=username,
        display_name=content.get("nickname") or full_name or None,
        metadata=picked(content, "position", "delete_at"),
    )
    return SaveUser(user)


def _commands_of_post(content: Plain, where: Where, export: Export) -> Commands:
    user = as_id(content.get("user"))
    place = _place(content, where, export)
    channel = f"{where.room_id}/{where.channel_id}" if where.channel_id else where.room_id
    key = f"{channel}/{place.timestamp}/{user or ''}"
    message_id = id_of(key, export.equal.next(key))
    replies = content.get("replies") or []
    text = content.get("message") or ""
    props: Plain = content.get("props") or {}
    kind = (content.get("type") or "").removeprefix("system_") or None
    time = content.get("create_at")
    message = Message(
        id=message_id,
        room_id=where.room_id,
        channel_id=where.channel_id,
        thread_id=where.thread_id or (message_id if replies else None),
        reply_to_id=where.thread_id,
        **place._asdict(),
        sender_id=user,
        sender_name=props.get("override_username") or None,
        content=text,
        type=TYPES.get(kind, kind) if kind else None,
        edited_at=millis(content.get("edit_at") or None),
        is_deleted=bool(content.get("delete_at")),
        mentions=[name for name in dict.fromkeys(MENTION.findall(text)) if name in export.users] or None,
        forwarded_from=picked(props, "previewed_post"),
        pinned_at=place.timestamp if content.get("is_pinned") else None,
        link_metadata=picked(props, "attachments"),
        metadata=(picked(content, "flagged_by") or {})
        | ({"create_at": time} if millis(time) is None and time is not None else {})
        or None,
    )
    yield SaveMessage(message, arrival="any-order")
    yield from _reactions(content.get("reactions") or [], message_id)
    for number, file in enumerate(content.get("attachments") or []):
        yield _save_attachment(file["path"], id_of(message_id, number), message_id)
    for reply in replies:
        yield from _commands_of_post(reply, where._replace(thread_id=message_id), export)


def _place(content: Plain, where: Where, export: Export) -> Place:
    """The time of a post, and its number among those of the room with that time. Without a time it is the oldest."""
    timestamp = millis(content.get("create_at")) or 0
    return Place(timestamp, export.ties.next((where.room_id, where.channel_id, timestamp)), None)


def _reactions(listed: list[Plain], message_id: str) -> Commands:
    """Reactions with their users; those of users who are gone are counted."""
    for emoji in dict.fromkeys(each["emoji_name"] for each in listed):
        mine = [each for each in listed if each["emoji_name"] == emoji]
        named = [Reactor(each["user"], millis(each.get("create_at"))) for each in mine if each.get("user")]
        total = len({each.oder_id for each in named}) + Counter(bool(each.get("user")) for each in mine)[False]
        yield from reactions(message_id, emoji, named, total, arrival="any-order")


def _save_attachment(path: str, attachment_id: str, message_id: str) -> SaveAttachment:
    filename = path.rpartition("/")[2]
    attachment = Attachment(id=attachment_id, message_id=message_id, filename=filename, file_path=path)
    return SaveAttachment(attachment, arrival="any-order")
