"""What every command means, on plain dicts: the oracle that a real store is held against.

Written from the meaning of the operations alone; shares no code with the product. Payloads and answers are what JSON
carries. A command gives None, or the code of the error it must be refused with.
"""

from typing import Any

DELETED_TEXT = "[Message deleted]"
Payload = dict[str, Any]


class Model:
    """A chat history in dicts. `now` is moved by the test."""

    def __init__(self) -> None:
        self.now = 0
        self.clear()

    def clear(self) -> None:
        self.messages: dict[str, Payload] = {}
        self.reactions: dict[tuple[str, str, str], Payload] = {}
        self.attachments: dict[str, Payload] = {}
        self.users: dict[str, Payload] = {}
        self.rooms: dict[str, Payload] = {}
        self.bans: dict[tuple[str, str], Payload] = {}
        self.current_user: str | None = None

    def execute(self, operation: str, payload: Payload) -> str | None:
        """Carry out a command; None or an error code."""
        result: str | None = getattr(self, operation.replace("-", "_"))(**payload)
        return result

    # Messages

    def save_message(self, message: Payload) -> str | None:
        message = _without_nulls(message)
        if self._is_deleted(message["id"]):
            return None
        reactions = message.pop("reactions", None)
        if reactions is not None and any(each["messageId"] != message["id"] for each in reactions):
            return "invalid"
        self.messages[message["id"]] = message | {"isDeleted": message.get("isDeleted", False)}
        if message.get("isDeleted"):
            self._bury(message["id"])
        elif reactions is not None:
            self._drop_reactions(message["id"])
            for each in reactions:
                self.save_reaction(each)
        return None

    def update_message(self, messageId: str, updates: Payload) -> str | None:  # noqa: N803
        if messageId not in self.messages:
            return "not-found"
        if self._is_deleted(messageId):
            return "conflict"
        return self.save_message(self.messages[messageId] | updates)

    def delete_message(self, messageId: str) -> str | None:  # noqa: N803
        if messageId not in self.messages:
            return "not-found"
        self._bury(messageId)
        return None

    def clear_room_messages(self, roomId: str) -> None:  # noqa: N803
        for message_id in [each["id"] for each in self.messages.values() if each["roomId"] == roomId]:
            self._drop_reactions(message_id)
            self._drop_attachments(message_id)
            del self.messages[message_id]

    def get_messages(self, room_id: str) -> list[Payload]:
        found = [self._shown(each) for each in self.messages.values() if each["roomId"] == room_id]
        return sorted(found, key=lambda each: (each["timestamp"], each["id"]))

    def _shown(self, message: Payload) -> Payload:
        content = DELETED_TEXT if message["isDeleted"] else message["content"]
        return message | {"content": content, "reactions": self.get_reactions(message["id"])}

    def _is_deleted(self, message_id: str) -> bool:
        return bool(self.messages.get(message_id, {}).get("isDeleted"))

    def _bury(self, message_id: str) -> None:
        message = self.messages[message_id]
        message |= {"isDeleted": True, "content": ""}
        message.pop("metadata", None)
        message.pop("linkMetadata", None)
        self._drop_reactions(message_id)
        self._drop_attachments(message_id)

    # Reactions and attachments

    def save_reaction(self, reaction: Payload) -> None:
        if not self._is_deleted(reaction["messageId"]):
            key = (reaction["messageId"], reaction["oderId"], reaction["emoji"])
            self.reactions[key] = _without_nulls(reaction)

    def remove_reaction(self, messageId: str, oderId: str, emoji: str) -> None:  # noqa: N803
        self.reactions.pop((messageId, oderId, emoji), None)

    def get_reactions(self, message_id: str) -> list[Payload]:
        found = [each for key, each in self.reactions.items() if key[0] == message_id]
        return sorted(found, key=lambda each: (each.get("timestamp", -1), each["oderId"], each["emoji"]))

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

    def save_user(self, user: Payload) -> str | None:
        user = _without_nulls(user)
        others = [each for each in self.users.values() if each["oderId"] != user["oderId"]]
        if "pubkey" in user and any(each.get("pubkey") == user["pubkey"] for each in others):
            return "conflict"
        self.users[user["oderId"]] = user
        return None

    def update_user(self, userId: str, updates: Payload) -> str | None:  # noqa: N803
        user = self.get_user(userId)
        return "not-found" if user is None else self.save_user(user | updates)

    def set_current_user_id(self, userId: str | None) -> None:  # noqa: N803
        self.current_user = userId

    def get_user(self, user_id: str) -> Payload | None:
        by_id = [each for _, each in sorted(self.users.items()) if each["id"] == user_id]
        return self.users.get(user_id) or (by_id[0] if by_id else None)

    def get_current_user(self) -> Payload | None:
        return None if self.current_user is None else self.get_user(self.current_user)

    def get_users_by_room(self, room_id: str) -> list[Payload]:
        room = self.get_room(room_id) or {"members": []}
        return [self.users.get(member["oderId"]) or _as_user(member) for member in room["members"]]

    # Rooms

    def save_room(self, room: Payload) -> None:
        stored = self.rooms.get(room["id"], {})
        lists = {name: room.get(name) for name in ("channels", "categories", "members")}
        kept = {name: stored.get(name, []) if each is None else each for name, each in lists.items()}
        self.rooms[room["id"]] = _without_nulls(room) | kept

    def update_room(self, roomId: str, updates: Payload) -> str | None:  # noqa: N803
        if roomId not in self.rooms:
            return "not-found"
        cleared = {"categories": []} if updates.get("categories", ()) is None else {}
        self.save_room(self.rooms[roomId] | updates | cleared)
        return None

    def delete_room(self, roomId: str) -> None:  # noqa: N803
        self.clear_room_messages(roomId)
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
        self.clear()


def _without_nulls(payload: Payload) -> Payload:
    return {name: value for name, value in payload.items() if value is not None}


def _position(entry: Payload) -> tuple[int, str]:
    return entry["position"], entry["id"]


def _as_user(member: Payload) -> Payload:
    """What the member row knows of a person who is not stored."""
    user = {"oderId": member["oderId"], "id": member.get("id") or member["oderId"]}
    user["username"] = member.get("username") or member["oderId"]
    known = ("displayName", "avatarUrl", "role", "joinedAt")
    return user | {name: member[name] for name in known if name in member}
