"""A model of every command on plain dicts, which real stores are compared with.

Written from the description of the operations; it shares no code with the product. Payloads and results are JSON
values. A command returns its result, or the code of the error it must get. Ids and times that only the daemon
can know are taken from its reply, and checked for plausibility.
"""

import base64
import hashlib
from copy import deepcopy
from typing import Any, NamedTuple

DELETED_TEXT = "[Message deleted]"
DEFAULT_ROOM = "default"
DELETED_MAX = 1_000
Payload = dict[str, Any]


class Refused(NamedTuple):
    """The error that a command gets instead of a result, and its position in a batch."""

    code: str
    member: int | None = None


NOT_FOUND, CONFLICT, INVALID = Refused("not-found"), Refused("conflict"), Refused("invalid")


class Model:
    """A chat history in dicts. The test sets `now`.

    Commands are counted in `steps`, those in batches one by one. `subjects` collects what results are about, as (noun,
    id, step); `forgotten` has the last step at which something was deleted, and `cleared` the one at which everything
    was. A result about something that was deleted since is no longer repeated.
    """

    def __init__(self) -> None:
        self.now = 0
        self.made: Any = None
        self.unmade = 0
        self.last_id = ""
        self.steps = self.cleared = 0
        self.subjects: list[tuple[str, str, int]] = []
        self.forgotten: dict[tuple[str, str], int] = {}
        self.clear()

    def clear(self) -> None:
        self.messages: dict[str, Payload] = {}
        self.buried: dict[str, str] = {}
        self.reactions: dict[tuple[str, str | None, str], Payload] = {}
        self.attachments: dict[str, Payload] = {}
        self.users: dict[str, Payload] = {}
        self.rooms: dict[str, Payload] = {}
        self.bans: dict[tuple[str, str], Payload] = {}
        self.sessions: dict[str, Payload] = {}
        self.parts: dict[str, bytes] = {}
        self.media: dict[str, Payload] = {}
        self.media_parts: dict[str, list[str]] = {}
        self.current_user: str | None = None

    def execute(self, operation: str, payload: Payload, made: Any = None) -> Any:
        """Execute a command whose result on the daemon was `made`; its result, or `Refused`."""
        self.made = made
        self.steps += 1
        return getattr(self, operation.replace("-", "_"))(**payload)

    def batch(self, commands: list[Payload]) -> list[Any] | Refused:
        """All commands or none; then the error of the first that is refused, with its position."""
        before, results = deepcopy(vars(self)), []
        made = self.made if isinstance(self.made, list) else [None] * len(commands)
        for index, (command, its) in enumerate(zip(commands, made, strict=True)):
            result = self.execute(command["type"], command["payload"], its)
            if isinstance(result, Refused):
                vars(self).update(before)
                return result._replace(member=index)
            results.append(deepcopy(result))
        return results

    def _note_subject(self, noun: str, subject: str) -> None:
        self.subjects.append((noun, subject, self.steps))

    def _forget(self, noun: str, subject: str) -> None:
        self.forgotten[noun, subject] = self.steps

    def _new_id(self) -> str:
        """The id in the daemon's reply, which is greater than all before it."""
        if not isinstance(self.made, dict):
            self.unmade += 1
            return f"none was made {self.unmade}"
        new_id: str = self.made["id"]
        assert new_id > self.last_id
        self.last_id = new_id
        return new_id

    # Messages

    def save_message(self, message: Payload, *, moves: bool = False) -> Refused | None:
        message = _without_nulls(message)
        if message.get("ordinal") == 0:
            del message["ordinal"]
        reactions = message.pop("reactions", None)
        if any(each["messageId"] != message["id"] or not _has_reactors(each) for each in reactions or []):
            return INVALID
        if self._is_deleted(message["id"]):
            return None
        stored = self.messages.get(message["id"])
        if stored and stored["roomId"] != message["roomId"] and not moves:
            return CONFLICT
        self.messages[message["id"]] = message | {"isDeleted": message.get("isDeleted", False)}
        if message.get("isDeleted"):
            self._bury(message["id"])
        elif reactions is not None:
            self._drop_reactions(message["id"])
            for each in reactions:
                self.save_reaction(each)
        return None

    def update_message(self, messageId: str, updates: Payload) -> Refused | None:  # noqa: N803
        if self._is_deleted(messageId):
            return CONFLICT
        if messageId not in self.messages:
            return NOT_FOUND
        return self.save_message(self.messages[messageId] | updates, moves=True)

    def delete_message(self, messageId: str) -> Refused | None:  # noqa: N803
        if messageId in self.buried:
            return None
        if messageId not in self.messages:
            return NOT_FOUND
        self._bury(messageId)
        return None

    def clear_room_messages(self, roomId: str) -> None:  # noqa: N803
        for message_id in [each["id"] for each in self.messages.values() if each["roomId"] == roomId]:
            self._remove(message_id)

    def forget_deletions(self, roomId: str) -> None:  # noqa: N803
        of_room = [key for key, each in self.messages.items() if each["roomId"] == roomId and each["isDeleted"]]
        for message_id in of_room:
            del self.messages[message_id]
        self.buried = {key: room_id for key, room_id in self.buried.items() if room_id != roomId}

    def delete_messages_before(self, roomId: str, timestamp: int) -> Payload:  # noqa: N803
        old = [each["id"] for each in self.get_messages(roomId) if each["timestamp"] < timestamp]
        for message_id in old[:DELETED_MAX]:
            self._remove(message_id)
        return {"deleted": len(old[:DELETED_MAX]), "hasMore": len(old) > DELETED_MAX}

    def delete_expired_messages(self) -> Payload:
        over = [each for each in self.messages.values() if not each["isDeleted"] and "expiresAt" in each]
        ids = [each["id"] for each in sorted(over, key=lambda each: (each["expiresAt"], each["id"]))]
        expired = [each for each in ids if self.messages[each]["expiresAt"] <= self.now]
        for message_id in expired[:DELETED_MAX]:
            self._bury(message_id)
        return {"deleted": len(expired[:DELETED_MAX]), "hasMore": len(expired) > DELETED_MAX}

    def create_message(
        self,
        channelId: str,  # noqa: N803
        authorId: str,  # noqa: N803
        content: str,
        roomId: str = DEFAULT_ROOM,  # noqa: N803
        replyToId: str | None = None,  # noqa: N803
    ) -> Payload | Refused:
        author = self.get_user(authorId)
        if author is None or self.get_channel(channelId, roomId) is None:
            return NOT_FOUND
        message = {
            "id": self._new_id(),
            "roomId": roomId,
            "channelId": channelId,
            "senderId": author["oderId"],
            "senderName": author.get("displayName"),
            "content": content,
            "timestamp": self.made["timestamp"] if isinstance(self.made, dict) else self.now,
            "replyToId": replyToId,
        }
        assert message["timestamp"] >= self.now
        same = [each for each in self.get_messages(roomId) if each["timestamp"] == message["timestamp"]]
        if same:
            last = same[-1].get("ordinal", 0)
            message["ordinal"] = max(0, last if same[-1]["id"] < message["id"] else last + 1)
        self.save_message(message)
        self._note_subject("message", message["id"])
        return self._shown(self.messages[message["id"]])

    def get_messages(self, room_id: str) -> list[Payload]:
        found = [self._shown(each) for each in self.messages.values() if each["roomId"] == room_id]
        return sorted(found, key=lambda each: (each["timestamp"], each.get("ordinal", 0), each["id"]))

    def get_message_page(self, room_id: str, limit: int) -> Payload:
        """The newest page, without its cursors."""
        every = self.get_messages(room_id)
        return {"messages": every[-limit:], "hasOlder": len(every) > limit, "hasNewer": False}

    def list_messages(self, channel_id: str, room_id: str, limit: int) -> Payload:
        every = [each for each in self._of_channel(channel_id, room_id) if not each["isDeleted"]]
        return {"messages": every[::-1][:limit], "hasMore": len(every) > limit}

    def _of_channel(self, channel_id: str, room_id: str) -> list[Payload]:
        return [each for each in self.get_messages(room_id) if each.get("channelId") == channel_id]

    def _remove(self, message_id: str) -> None:
        self._forget("message", message_id)
        self._drop_reactions(message_id)
        self._drop_attachments(message_id)
        if self._is_deleted(message_id):
            self.buried[message_id] = self.messages[message_id]["roomId"]
        del self.messages[message_id]

    def _shown(self, message: Payload) -> Payload:
        content = DELETED_TEXT if message["isDeleted"] else message["content"]
        return message | {"content": content, "reactions": self.get_reactions(message["id"])}

    def _is_deleted(self, message_id: str) -> bool:
        return message_id in self.buried or bool(self.messages.get(message_id, {}).get("isDeleted"))

    def _bury(self, message_id: str) -> None:
        self._forget("message", message_id)
        message = self.messages[message_id]
        message |= {"isDeleted": True, "content": ""}
        for name in ("metadata", "linkMetadata", "forwardedFrom", "mentions", "pinnedAt"):
            message.pop(name, None)
        self._drop_reactions(message_id)
        self._drop_attachments(message_id)

    # Reactions and attachments

    def save_reaction(self, reaction: Payload) -> Refused | None:
        if not _has_reactors(reaction):
            return INVALID
        if not self._is_deleted(reaction["messageId"]):
            key = (reaction["messageId"], reaction.get("oderId"), reaction["emoji"])
            self.reactions[key] = _without_nulls(reaction)
        return None

    def remove_reaction(self, messageId: str, oderId: str | None, emoji: str) -> None:  # noqa: N803
        self.reactions.pop((messageId, oderId, emoji), None)

    def get_reactions(self, message_id: str) -> list[Payload]:
        found = [each for key, each in self.reactions.items() if key[0] == message_id]
        return sorted(found, key=lambda each: (each.get("timestamp", -1), each.get("oderId", ""), each["emoji"]))

    def save_attachment(self, attachment: Payload) -> None:
        if not self._is_deleted(attachment["messageId"]):
            self.attachments[attachment["id"]] = _without_nulls(attachment)

    def delete_attachments_for_message(self, messageId: str) -> None:  # noqa: N803
        self._drop_attachments(messageId)

    def get_all_attachments(self) -> list[Payload]:
        return sorted(self.attachments.values(), key=lambda each: each["id"])

    def _drop_reactions(self, message_id: str) -> None:
        self.reactions = {key: each for key, each in self.reactions.items() if key[0] != message_id}

    def _drop_attachments(self, message_id: str) -> None:
        self.attachments = {k: each for k, each in self.attachments.items() if each["messageId"] != message_id}

    # Users

    def save_user(self, user: Payload) -> Refused | None:
        user = _without_nulls(user)
        others = [each for each in self.users.values() if each["oderId"] != user["oderId"]]
        if "pubkey" in user and any(each.get("pubkey") == user["pubkey"] for each in others):
            return CONFLICT
        self.users[user["oderId"]] = user
        return None

    def update_user(self, userId: str, updates: Payload) -> Refused | None:  # noqa: N803
        user = self.get_user(userId)
        return NOT_FOUND if user is None else self.save_user(user | updates)

    def create_user(self, pubkey: str, displayName: str | None = None) -> Payload | Refused:  # noqa: N803
        if self.get_user_by_pubkey(pubkey):
            return CONFLICT
        new_id = self._new_id()
        user = {"oderId": new_id, "id": new_id, "username": displayName or new_id, "displayName": displayName}
        self.save_user(user | {"pubkey": pubkey, "createdAt": self.now, "updatedAt": self.now})
        return self.users[new_id]

    def get_user_by_pubkey(self, pubkey: str) -> Payload | None:
        found = [each for each in self.users.values() if each.get("pubkey") == pubkey]
        return found[0] if found else None

    def list_users(self) -> list[Payload]:
        return sorted(self.users.values(), key=lambda each: (each.get("createdAt", -1), each["oderId"]))

    def set_current_user_id(self, userId: str | None) -> None:  # noqa: N803
        self.current_user = userId

    def get_user(self, user_id: str) -> Payload | None:
        by_id = [each for _, each in sorted(self.users.items()) if each["id"] == user_id]
        return self.users.get(user_id) or (by_id[0] if by_id else None)

    def get_current_user(self) -> Payload | None:
        return None if self.current_user is None else self.get_user(self.current_user)

    def get_users_by_room(self, room_id: str) -> list[Payload]:
        room = self.get_room(room_id) or {"members": []}
        members = sorted(room["members"], key=lambda each: each["oderId"])
        return [self.users.get(member["oderId"]) or _as_user(member) for member in members]

    # Rooms

    def save_room(self, room: Payload) -> None:
        stored = self.rooms.get(room["id"], {})
        lists = {name: room.get(name) for name in ("channels", "categories", "members")}
        kept = {name: stored.get(name, []) if each is None else each for name, each in lists.items()}
        self.rooms[room["id"]] = _without_nulls(room) | kept

    def update_room(self, roomId: str, updates: Payload) -> Refused | None:  # noqa: N803
        if roomId not in self.rooms:
            return NOT_FOUND
        cleared: Payload = {"categories": []} if updates.get("categories", ()) is None else {}
        self.save_room(self.rooms[roomId] | updates | cleared)
        return None

    def delete_room(self, roomId: str) -> None:  # noqa: N803
        self.clear_room_messages(roomId)
        self._forget("room", roomId)
        self.rooms.pop(roomId, None)
        self.bans = {key: each for key, each in self.bans.items() if key[0] != roomId}

    def get_room(self, room_id: str) -> Payload | None:
        room = self.rooms.get(room_id)
        if room is None:
            return None
        by_position = {name: sorted(room[name], key=_position) for name in ("channels", "categories")}
        members = sorted(room["members"], key=lambda each: (each.get("joinedAt", -1), each["oderId"]))
        shown = room | by_position | {"members": members}
        if not shown["categories"]:
            del shown["categories"]
        return shown

    def get_all_rooms(self) -> list[Payload]:
        ids = sorted(self.rooms, key=lambda room_id: (self.rooms[room_id].get("createdAt", -1), room_id))
        return [room for room_id in ids if (room := self.get_room(room_id))]

    # Members

    def save_member(self, roomId: str, member: Payload) -> Refused | None:  # noqa: N803
        if roomId not in self.rooms:
            return NOT_FOUND
        self.remove_member(roomId, member["oderId"])
        self.rooms[roomId]["members"].append(_without_nulls(member))
        return None

    def remove_member(self, roomId: str, oderId: str) -> None:  # noqa: N803
        members = self.rooms.get(roomId, {}).get("members", [])
        if roomId in self.rooms:
            self.rooms[roomId]["members"] = [each for each in members if each["oderId"] != oderId]

    def get_members(self, room_id: str) -> list[Payload]:
        members: list[Payload] = (self.get_room(room_id) or {"members": []})["members"]
        return members

    def get_member(self, room_id: str, oder_id: str) -> Payload | None:
        return next((each for each in self.get_members(room_id) if each["oderId"] == oder_id), None)

    # Channels and categories

    def save_channel(self, channel: Payload, roomId: str = DEFAULT_ROOM) -> Refused | None:  # noqa: N803
        if not self._may_have_lists(roomId) or self._lacks_category(channel.get("categoryId"), roomId):
            return NOT_FOUND
        self._put("channels", roomId, channel)
        return None

    def save_category(self, category: Payload, roomId: str = DEFAULT_ROOM) -> Refused | None:  # noqa: N803
        if not self._may_have_lists(roomId):
            return NOT_FOUND
        self._put("categories", roomId, category)
        return None

    def create_channel(
        self,
        name: str,
        type: str = "text",
        roomId: str = DEFAULT_ROOM,  # noqa: N803
        topic: str | None = None,
        categoryId: str | None = None,  # noqa: N803
        position: int = 0,
    ) -> Payload | Refused:
        if not self._may_have_lists(roomId) or self._lacks_category(categoryId, roomId):
            return NOT_FOUND
        times = {"createdAt": self.now, "updatedAt": self.now}
        fields = {"name": name, "type": type, "position": position, "topic": topic, "categoryId": categoryId}
        return self._add("channels", roomId, fields | times)

    def update_channel(self, channelId: str, updates: Payload, roomId: str = DEFAULT_ROOM) -> Any:  # noqa: N803
        if self._lacks_category(updates.get("categoryId"), roomId):
            return NOT_FOUND
        return self._change("channels", channelId, roomId, {"updatedAt": self.now} | updates)

    def delete_channel(
        self,
        channelId: str,  # noqa: N803
        roomId: str = DEFAULT_ROOM,  # noqa: N803
        cascade: bool = False,
    ) -> Refused | None:
        if self.get_channel(channelId, roomId) is None:
            return NOT_FOUND
        messages = self._of_channel(channelId, roomId)
        if messages and not cascade:
            return CONFLICT
        for message in messages:
            self._remove(message["id"])
        self._take_out("channels", channelId, roomId)
        self._forget("channels", f"{channelId} in {roomId}")
        return None

    def create_category(
        self,
        name: str,
        roomId: str = DEFAULT_ROOM,  # noqa: N803
        position: int = 0,
    ) -> Payload | Refused:
        if not self._may_have_lists(roomId):
            return NOT_FOUND
        return self._add("categories", roomId, {"name": name, "position": position, "createdAt": self.now})

    def update_category(self, categoryId: str, updates: Payload, roomId: str = DEFAULT_ROOM) -> Any:  # noqa: N803
        return self._change("categories", categoryId, roomId, updates)

    def delete_category(self, categoryId: str, roomId: str = DEFAULT_ROOM) -> Refused | None:  # noqa: N803
        if self._lacks_category(categoryId, roomId):
            return NOT_FOUND
        for channel in self.rooms[roomId]["channels"]:
            if channel.get("categoryId") == categoryId:
                del channel["categoryId"]
        self._take_out("categories", categoryId, roomId)
        self._forget("categories", f"{categoryId} in {roomId}")
        return None

    def get_channel(self, channel_id: str, room_id: str) -> Payload | None:
        return next((each for each in self.list_of("channels", room_id) if each["id"] == channel_id), None)

    def list_of(self, name: str, room_id: str) -> list[Payload]:
        """The channels or categories of a room, in order."""
        return sorted(self.rooms.get(room_id, {}).get(name, []), key=_position)

    def _may_have_lists(self, room_id: str) -> bool:
        return room_id in self.rooms or room_id == DEFAULT_ROOM

    def _lacks_category(self, category_id: str | None, room_id: str) -> bool:
        known = [each["id"] for each in self.list_of("categories", room_id)]
        return category_id is not None and category_id not in known

    def _put(self, name: str, room_id: str, child: Payload) -> None:
        """Write a channel or category, over one with its id; the default room is made with its first."""
        if room_id not in self.rooms:
            self.save_room({"id": room_id, "name": room_id, "createdAt": self.now})
        self._take_out(name, child["id"], room_id)
        self.rooms[room_id][name].append({"position": 0} | _without_nulls(child))

    def _add(self, name: str, room_id: str, fields: Payload) -> Payload:
        child = _without_nulls({"id": self._new_id()} | fields)
        self._put(name, room_id, child)
        self._note_subject("room", room_id)
        self._note_subject(name, f"{child['id']} in {room_id}")
        return child

    def _change(self, name: str, child_id: str, room_id: str, updates: Payload) -> Payload | Refused:
        stored = [each for each in self.list_of(name, room_id) if each["id"] == child_id]
        if not stored:
            return NOT_FOUND
        changed = _without_nulls(stored[0] | updates)
        self._take_out(name, child_id, room_id)
        self.rooms[room_id][name].append(changed)
        self._note_subject("room", room_id)
        self._note_subject(name, f"{child_id} in {room_id}")
        return changed

    def _take_out(self, name: str, child_id: str, room_id: str) -> None:
        self.rooms[room_id][name] = [each for each in self.rooms[room_id][name] if each["id"] != child_id]

    # Sessions

    def create_session(self, userId: str, durationMs: int, token: str, readOnly: bool | None = None) -> Any:  # noqa: N803
        user = self.get_user(userId)
        if user is None:
            return NOT_FOUND
        if token in self.sessions:
            return CONFLICT
        times = {"createdAt": self.now, "expiresAt": self.now + durationMs}
        self.sessions[token] = _without_nulls({"userId": user["oderId"], "readOnly": readOnly} | times)
        return self.sessions[token]

    def delete_session(self, token: str) -> None:
        self.sessions.pop(token, None)

    def delete_expired_sessions(self) -> int:
        over = [token for token, each in self.sessions.items() if each["expiresAt"] <= self.now]
        for token in over:
            del self.sessions[token]
        return len(over)

    def get_session(self, token: str) -> Payload | None:
        session = self.sessions.get(token)
        return session if session and session["expiresAt"] > self.now else None

    # Media

    def put_media_part(self, data: str) -> str:
        content = base64.b64decode(data)
        name = hashlib.sha256(content).hexdigest()
        self.parts[name] = content
        return name

    def put_media(self, parts: list[str], mime: str, uploaderId: str | None = None) -> Payload | Refused:  # noqa: N803
        if any(name not in self.parts for name in parts):
            return NOT_FOUND
        whole = b"".join(self.parts[name] for name in parts)
        sha256 = hashlib.sha256(whole).hexdigest()
        for each in self.media.values():
            if each["sha256"] == sha256:
                return each
        known = {"id": self._new_id(), "sha256": sha256, "mime": mime, "size": len(whole), "parts": len(parts)}
        media = _without_nulls(known | {"createdAt": self.now, "uploaderId": uploaderId})
        self._note_subject("media", media["id"])
        self.media[media["id"]] = media
        self.media_parts[media["id"]] = parts
        return media

    def delete_media(self, mediaId: str) -> None:  # noqa: N803
        self._forget("media", mediaId)
        self.media.pop(mediaId, None)
        own = self.media_parts.pop(mediaId, [])
        used = {name for parts in self.media_parts.values() for name in parts}
        self.parts = {name: data for name, data in self.parts.items() if name not in own or name in used}

    def get_media_part(self, media_id: str, part: int) -> str:
        return base64.b64encode(self.parts[self.media_parts[media_id][part]]).decode()

    # Bans

    def save_ban(self, ban: Payload) -> None:
        self.bans[ban["roomId"], ban["oderId"]] = _without_nulls(ban)

    def remove_ban(self, roomId: str, oderId: str) -> None:  # noqa: N803
        self.bans.pop((roomId, oderId), None)

    def get_bans_for_room(self, room_id: str) -> list[Payload]:
        found = [each for key, each in self.bans.items() if key[0] == room_id and self._in_force(each)]
        return sorted(found, key=lambda each: (each["timestamp"], each["oderId"]))

    def is_user_banned(self, user_id: str, room_id: str) -> bool:
        return any(user_id in (each["oderId"], each.get("userId")) for each in self.get_bans_for_room(room_id))

    def _in_force(self, ban: Payload) -> bool:
        return "expiresAt" not in ban or ban["expiresAt"] > self.now

    # Lifecycle

    def initialize(self) -> None:
        pass

    def clear_all_data(self) -> None:
        self.cleared = self.steps
        self.clear()


def _has_reactors(reaction: Payload) -> bool:
    """Whether a reaction has either an oderId or a count."""
    return (reaction.get("oderId") is None) != (reaction.get("count") is None)


def _without_nulls(payload: Payload) -> Payload:
    return {name: value for name, value in payload.items() if value is not None}


def _position(entry: Payload) -> tuple[int, str]:
    return entry["position"], entry["id"]


def _as_user(member: Payload) -> Payload:
    """What a member row knows of a person who is not stored."""
    user = {"oderId": member["oderId"], "id": member.get("id") or member["oderId"]}
    user["username"] = member.get("username") or member["oderId"]
    known = ("displayName", "avatarUrl", "role", "joinedAt")
    return user | {name: member[name] for name in known if name in member}
