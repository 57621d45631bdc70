"""Matrix: events of rooms as a server returns them, newest first, in a list or in an object's `chunk` or `messages`.

A file that is oldest first is known by its times.

Edits, reactions and redactions are events of their own, and come before what they are about: so everything arrives in
any order. Events that are no text (calls, polls, members who come and go, what nobody could decrypt) are messages with
their `type` and their content in `metadata`. `origin_server_ts` is a server's claim: one that cannot be a time gives
the event the time of the one before it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backscroll.schema import (
    Attachment,
    Command,
    DeleteMessage,
    Message,
    MessageUpdates,
    RemoveReaction,
    Room,
    SaveAttachment,
    SaveMessage,
    SaveReaction,
    SaveRoom,
    UpdateMessage,
)
from tests.converters.importing import Commands
from tests.converters.source import (
    MILLISECONDS,
    FileOrder,
    Place,
    Plain,
    Reactor,
    as_id,
    millis,
    parse_json,
    picked,
    reactions,
    read_text,
    some,
)

TYPES = {"m.room.message": None, "m.sticker": "sticker", "m.call.invite": "call"} | dict.fromkeys(
    ("m.poll.start", "org.matrix.msc3381.poll.start"), "poll"
)
FILES = ("m.image", "m.file", "m.audio", "m.video")
TEXT_METADATA = ("formatted_body", "geo_uri")
TEXT_KEYS = ("body", "org.matrix.msc1767.text", "name")


class Timeline(NamedTuple):
    """What has to be known of all events to convert one."""

    events: dict[str, Plain]
    places: dict[str, Place]
    redacted: set[str]


def commands_of(path: Path) -> Commands:
    """The commands for the rooms and events of a file, in its order."""
    read = parse_json(read_text(path))
    events: list[Plain] = read if isinstance(read, list) else read.get("chunk") or read["messages"]
    oldest_first = events[::-1] if _is_newest_first(events) else events
    order = FileOrder()
    timeline = Timeline(
        {event["event_id"]: event for event in oldest_first},
        {event["event_id"]: order.place(event["room_id"], _time(event)) for event in oldest_first},
        {_redacts(event) for event in oldest_first if event["type"] == "m.room.redaction"},
    )
    yield from _rooms(oldest_first)
    for event in events:
        yield from _commands_of_event(event, timeline)
    yield from _pins(oldest_first)


def _is_newest_first(events: list[Plain]) -> bool:
    times = [time for event in events if (time := _time(event)) is not None]
    return not times or times[0] >= times[-1]


def _rooms(oldest_first: list[Plain]) -> Iterator[SaveRoom]:
    states: dict[str, dict[str, Plain]] = {}
    for event in oldest_first:
        states.setdefault(event["room_id"], {})[event["type"]] = event.get("content") or {}
    for room_id, state in states.items():
        name, topic, created = (state.get(f"m.room.{each}") or {} for each in ("name", "topic", "create"))
        host = as_id(created.get("creator"))
        yield SaveRoom(Room(id=room_id, name=name.get("name") or "", topic=topic.get("topic") or None, host_id=host))


def _pins(oldest_first: list[Plain]) -> Iterator[UpdateMessage]:
    """Pins of messages that are pinned in the end, since when; also of messages that are not in the file."""
    pinned: dict[str, dict[str, int]] = {}
    for event in oldest_first:
        time = _time(event)
        if event["type"] == "m.room.pinned_events" and time is not None:
            before = pinned.get(event["room_id"], {})
            ids = (event.get("content") or {}).get("pinned") or []
            pinned[event["room_id"]] = {each: before.get(each, time) for each in ids}
    for since in pinned.values():
        for message_id, time in since.items():
            yield UpdateMessage(message_id, MessageUpdates(pinned_at=time), arrival="any-order")


def _commands_of_event(event: Plain, timeline: Timeline) -> Commands:
    content: Plain = event.get("content") or {}
    relation: Plain = content.get("m.relates_to") or {}
    if event["type"] == "m.room.redaction":
        yield from _deletion(_redacts(event), event, timeline)
    elif event["type"] == "m.reaction":
        if relation and event["event_id"] not in timeline.redacted:
            yield _save_reaction(event, relation)
    elif relation.get("rel_type") == "m.replace":
        yield from _edit(event, timeline)
    else:
        yield from _commands_of_message(event, content, relation, timeline)


def _time(event: Plain) -> int | None:
    return millis(event.get("origin_server_ts"), MILLISECONDS)


def _bad_time(event: Plain) -> list[str]:
    """The name of the time, where it cannot be one; it is kept as it is."""
    return ["origin_server_ts"] if _time(event) is None else []


def _redacts(event: Plain) -> str:
    """Newer rooms have it in the content."""
    return str(event.get("redacts") or (event.get("content") or {}).get("redacts") or "")


def _deletion(target_id: str, event: Plain, timeline: Timeline) -> Iterator[Command[None]]:
    """A redaction deletes a message or removes a reaction; an edit that was redacted is left out."""
    target = timeline.events.get(target_id, {})
    relation: Plain = (target.get("content") or {}).get("m.relates_to") or {}
    if target.get("type") == "m.reaction":
        if relation:
            yield RemoveReaction(
                relation["event_id"],
                target["sender"],
                as_id(relation["key"]) or "",
                timestamp=_time(event) or 0,
                arrival="any-order",
            )
    elif target_id and relation.get("rel_type") != "m.replace":
        yield DeleteMessage(target_id, arrival="any-order")


def _save_reaction(event: Plain, relation: Plain) -> Command[Any]:
    reactor = Reactor(event["sender"], _time(event), event["event_id"])
    [command] = reactions(relation["event_id"], relation["key"], [reactor], arrival="any-order")
    return command


def _edit(event: Plain, timeline: Timeline) -> Iterator[UpdateMessage]:
    """An edit, unless it was redacted, or is of another's message, which is none."""
    content: Plain = event["content"]
    target_id = content["m.relates_to"]["event_id"]
    author = timeline.events.get(target_id, event).get("sender")
    if event["event_id"] in timeline.redacted or event.get("sender") != author:
        return
    new = content.get("m.new_content") or {}
    updates = MessageUpdates(
        content=_text(new, is_reply=False),
        mentions=_mentions(new),
        metadata=picked(new, *TEXT_METADATA),
        edited_at=_time(event),
    )
    yield UpdateMessage(target_id, updates, arrival="any-order")


def _commands_of_message(event: Plain, content: Plain, relation: Plain, timeline: Timeline) -> Commands:
    unsigned: Plain = event.get("unsigned") or {}
    message_id = event["event_id"]
    replied = None if relation.get("is_falling_back") else (relation.get("m.in_reply_to") or {}).get("event_id")
    message = Message(
        id=message_id,
        room_id=event["room_id"],
        **timeline.places[message_id]._asdict(),
        sender_id=as_id(event.get("sender")),
        content=_text(content, is_reply="m.in_reply_to" in relation),
        type=_type(event, content),
        is_deleted="redacted_because" in unsigned,
        reply_to_id=replied,
        thread_id=relation.get("event_id") if relation.get("rel_type") == "m.thread" else None,
        forwarded_from=content.get("m.forwarded"),
        mentions=_mentions(content),
        metadata=(_metadata(event, content) or {}) | (picked(event, *_bad_time(event)) or {}) or None,
    )
    yield SaveMessage(message, arrival="any-order")
    if content.get("msgtype") in FILES or event["type"] == "m.sticker":
        yield _save_attachment(content, message_id)
    bundled: Plain = unsigned.get("m.relations") or {}
    if "m.replace" in bundled:
        yield from _edit(bundled["m.replace"], timeline)
    yield from _counted(message_id, (bundled.get("m.annotation") or {}).get("chunk") or [], timeline)


def _text(content: Plain, is_reply: bool) -> str:
    """The text of an event; that of a reply without the quotation in front, which is only for old clients."""
    found = next((content[key] for key in TEXT_KEYS if isinstance(content.get(key), str)), "")
    if not (is_reply and found.startswith("> ")):
        return found
    lines = found.split("\n")
    quoted = next((number for number, line in enumerate(lines) if not line.startswith(">")), len(lines))
    return "\n".join(lines[quoted:]).removeprefix("\n")


def _type(event: Plain, content: Plain) -> str | None:
    kind = TYPES.get(event["type"], event["type"])
    msgtype = content.get("msgtype", "m.text")
    return kind if kind is not None or msgtype == "m.text" else as_id(str(msgtype).removeprefix("m."))


def _metadata(event: Plain, content: Plain) -> Plain | None:
    if event["type"] == "m.room.message":
        return picked(content, *TEXT_METADATA)
    return some(content=content or None, state_key=event.get("state_key"))


def _mentions(content: Mapping[str, Any]) -> list[str] | None:
    mentioned: Plain = content.get("m.mentions") or {}
    users = list(dict.fromkeys(mentioned.get("user_ids") or []))
    return users + (["@room"] if mentioned.get("room") else []) or None


def _save_attachment(content: Plain, message_id: str) -> SaveAttachment:
    info: Plain = content.get("info") or {}
    attachment = Attachment(
        id=f"{message_id}/file",
        message_id=message_id,
        filename=content.get("filename") or content.get("body") or "",
        size=info.get("size"),
        mime=info.get("mimetype") or None,
        is_image=True if content.get("msgtype") == "m.image" else None,
        metadata=picked(content, "url", "file"),  # `file` has the keys of an encrypted one
    )
    return SaveAttachment(attachment, arrival="any-order")


def _counted(message_id: str, chunk: list[Plain], timeline: Timeline) -> Iterator[SaveReaction | Command[Any]]:
    """The server's counts of reactions, without those that are in the file with their senders."""
    for each in chunk:
        named = {
            event["sender"]
            for event in timeline.events.values()
            if event["type"] == "m.reaction"
            and event["event_id"] not in timeline.redacted
            and (event.get("content") or {}).get("m.relates_to", {}).get("event_id") == message_id
            and event["content"]["m.relates_to"].get("key") == each["key"]
        }
        yield from reactions(message_id, each["key"], [], each["count"] - len(named), arrival="any-order")
