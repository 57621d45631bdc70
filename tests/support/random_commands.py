"""Random commands of every type in the registry, about few records, so that they affect the same ones again
and again.
"""

import base64
import random
from collections.abc import Callable
from typing import Any

from backscroll.schema.operations import OPERATIONS, Command
from tests.support.requests import example

Payload = dict[str, Any]
Drawn = tuple[str, Payload]

MESSAGES = [f"m{number}" for number in range(8)]
LOCAL = [f"local{number}" for number in range(4)]
ROOMS = ["r1", "r2", "default"]
PEOPLE = ["ada", "bo", "chen"]
CHANNELS = ["c1", "c2"]
ATTACHMENTS = ["a1", "a2", "a3"]
EMOJIS = ["👍", "👎", "party"]
NEVER_IN_A_BATCH = {"batch", "clear-all-data", "put-media-part", "put-media"}
RARE = {
    "clear-all-data": 0.02,
    "delete-room": 0.3,
    "clear-room-messages": 0.3,
    "delete-messages-before": 0.3,
    "initialize": 0.2,
    "rename-message": 0.5,
}


class RandomCommands:
    """Draws commands. It remembers ids made by the daemon, so that later commands can be about them."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._made: dict[str, list[str]] = {"channel": [], "category": [], "user": [], "media": [], "part": []}
        self._counter = 0
        self.names = sorted(name for name, operation in OPERATIONS.items() if issubclass(operation, Command))

    def next(self) -> Drawn:
        """A command: its wire name and its payload."""
        weights = [RARE.get(name, 1.0) for name in self.names]
        [name] = self._draw.choices(self.names, weights)
        return name, self._payload(name)

    def learn(self, name: str, payload: Payload, result: Any) -> None:
        """Note the ids in the result of a command."""
        noun = {"create-channel": "channel", "create-category": "category", "put-media": "media"}.get(name)
        if noun is not None:
            self._made[noun].append(result["id"])
        elif name == "create-user":
            self._made["user"].append(result["oderId"])
        elif name == "put-media-part":
            self._made["part"].append(result)
        elif name == "batch":
            for member, each in zip(payload["commands"], result, strict=True):
                self.learn(member["type"], member["payload"], each)

    def _payload(self, name: str) -> Payload:
        draw: Callable[[], Payload] | None = getattr(self, f"_draw_{name.replace('-', '_')}", None)
        return self._like_example(name) if draw is None else draw()

    def _like_example(self, name: str) -> Payload:
        """The example of a command that has no `_draw_` method, about one of the messages, rooms and people here."""
        ids = {"messageId": MESSAGES, "roomId": ROOMS, "channelId": CHANNELS, "attachmentId": ATTACHMENTS}
        people = {"oderId": PEOPLE, "userId": PEOPLE}
        fields: Payload = example(OPERATIONS[name])
        return {
            field: self._one_of(known) if (known := (ids | people).get(field)) else value
            for field, value in fields.items()
        }

    def _one_of(self, fixed: list[str], noun: str = "") -> str:
        return self._draw.choice(fixed + self._made.get(noun, [])[-3:])

    def _text(self) -> str:
        self._counter += 1
        return f"text {self._counter}" if self._draw.random() < 0.8 else "same text"

    def _maybe(self, **fields: Any) -> Payload:
        return {name: value for name, value in fields.items() if self._draw.random() < 0.5}

    def _reaction_key(self, message_id: str) -> Payload:
        oder_id = self._one_of(PEOPLE) if self._draw.random() < 0.8 else None
        return {"messageId": message_id, "oderId": oder_id, "emoji": self._one_of(EMOJIS)}

    def _reaction(self, message_id: str) -> Payload:
        key = self._reaction_key(message_id)
        count = {} if key["oderId"] else {"count": self._draw.randrange(1, 5)}
        return key | count | self._maybe(metadata={"k": self._text()})

    def _reactions(self, message_id: str) -> list[Payload]:
        drawn = [self._reaction(message_id) for _ in range(self._draw.randrange(3))]
        return list({(each["oderId"], each["emoji"]): each for each in drawn}.values())

    def _arrival(self, **fields: Any) -> Payload:
        """Sometimes as an event that may come in any order, with what it needs for that."""
        return fields | {"arrival": "any-order"} if self._draw.random() < 0.4 else {}

    def _draw_rename_message(self) -> Payload:
        return {"messageId": self._one_of([*MESSAGES, *LOCAL]), "newId": self._one_of(MESSAGES)}

    def _draw_save_message(self) -> Payload:
        message_id = self._one_of([*MESSAGES, *LOCAL])
        message = {
            "id": message_id,
            "roomId": self._one_of(ROOMS),
            "senderId": self._one_of(PEOPLE),
            "content": self._text(),
            "timestamp": self._draw.randrange(100),
        }
        more = self._maybe(
            channelId=self._one_of(CHANNELS, "channel"),
            reactions=self._reactions(message_id),
            metadata={"k": self._counter},
            isDeleted=self._draw.random() < 0.15,
            replyToId=self._one_of([*MESSAGES, *LOCAL]),
            revision=self._draw.randrange(3),
            ordinal=self._draw.randrange(3),
            threadId=self._one_of(MESSAGES),
            forwardedFrom={"chat": self._text()},
            mentions=[self._text()],
            pinnedAt=1,
            expiresAt=self._draw.choice([1, 10**13]),
        )
        return {"message": message | more} | self._arrival()

    def _draw_update_message(self) -> Payload:
        message_id = self._one_of(MESSAGES)
        updates = self._maybe(
            content=self._text(),
            roomId=self._one_of(ROOMS),
            reactions=self._reactions(message_id),
            editedAt=self._draw.randrange(100),
            forwardedFrom=self._draw.choice([None, {"chat": self._text()}]),
            mentions=[self._text()],
            pinnedAt=self._draw.choice([None, 2]),
            expiresAt=None,
        )
        return {"messageId": message_id, "updates": updates} | self._arrival()

    def _draw_delete_message(self) -> Payload:
        return {"messageId": self._one_of(MESSAGES)} | self._arrival()

    def _draw_clear_room_messages(self) -> Payload:
        return {"roomId": self._one_of(ROOMS)}

    def _draw_delete_messages_before(self) -> Payload:
        return {"roomId": self._one_of(ROOMS), "timestamp": self._draw.randrange(50)}

    def _draw_delete_expired_messages(self) -> Payload:
        return {}

    def _draw_create_message(self) -> Payload:
        author, channel = self._one_of(PEOPLE, "user"), self._one_of(CHANNELS, "channel")
        return {"channelId": channel, "authorId": author, "content": self._text(), "roomId": self._one_of(ROOMS)}

    def _draw_save_reaction(self) -> Payload:
        reaction = self._reaction(self._one_of(MESSAGES)) | self._maybe(timestamp=self._draw.randrange(3))
        return {"reaction": reaction} | self._arrival()

    def _draw_remove_reaction(self) -> Payload:
        return self._reaction_key(self._one_of(MESSAGES)) | self._arrival(timestamp=self._draw.randrange(3))

    def _draw_save_attachment(self) -> Payload:
        attachment = {"id": self._one_of(ATTACHMENTS), "messageId": self._one_of(MESSAGES), "filename": self._text()}
        more = self._maybe(size=1, mime="image/png", mediaId=self._one_of(["unknown"], "media"))
        return {"attachment": attachment | more} | self._arrival()

    def _draw_delete_attachments_for_message(self) -> Payload:
        return {"messageId": self._one_of(MESSAGES)}

    def _draw_save_user(self) -> Payload:
        oder_id = self._one_of(PEOPLE)
        user = {"oderId": oder_id, "id": f"id-{oder_id}", "username": self._text()}
        return {"user": user | self._maybe(pubkey=f"key-{self._draw.randrange(3)}")}

    def _draw_update_user(self) -> Payload:
        return {"userId": self._one_of(PEOPLE, "user"), "updates": self._maybe(status=self._text(), displayName=None)}

    def _draw_create_user(self) -> Payload:
        return {"pubkey": f"key-{self._draw.randrange(50)}"}

    def _draw_set_current_user_id(self) -> Payload:
        return {"userId": self._draw.choice([*PEOPLE, None])}

    def _draw_save_room(self) -> Payload:
        room = {"id": self._one_of(ROOMS), "name": self._text()}
        return {"room": room | self._room_lists()}

    def _draw_update_room(self) -> Payload:
        return {"roomId": self._one_of(ROOMS), "updates": self._maybe(topic=self._text()) | self._room_lists()}

    def _room_lists(self) -> Payload:
        channels = self._draw.sample(CHANNELS, self._draw.randrange(3))
        people = self._draw.sample(PEOPLE, self._draw.randrange(4))
        return self._maybe(
            channels=[{"id": each, "name": self._text(), "type": "text"} for each in channels],
            categories=[{"id": "k1", "name": self._text()}][: self._draw.randrange(2)],
            members=[{"oderId": each, "displayName": self._text()} for each in people],
        )

    def _draw_delete_room(self) -> Payload:
        return {"roomId": self._one_of(ROOMS)}

    def _draw_save_member(self) -> Payload:
        member = {"oderId": self._one_of(PEOPLE)} | self._maybe(displayName=self._text(), role=self._text())
        return {"roomId": self._one_of(ROOMS), "member": member}

    def _draw_remove_member(self) -> Payload:
        return {"roomId": self._one_of(ROOMS), "oderId": self._one_of(PEOPLE)}

    def _draw_save_channel(self) -> Payload:
        channel = {"id": self._one_of(CHANNELS, "channel"), "name": self._text(), "type": self._text()}
        more = self._maybe(topic=self._text(), categoryId=self._one_of(["k1"], "category"))
        return {"channel": channel | more, "roomId": self._one_of(ROOMS)}

    def _draw_save_category(self) -> Payload:
        category = {"id": self._one_of(["k1"], "category"), "name": self._text()}
        return {"category": category, "roomId": self._one_of(ROOMS)}

    def _draw_create_channel(self) -> Payload:
        return {"name": self._text(), "roomId": self._one_of(ROOMS)}

    def _draw_update_channel(self) -> Payload:
        channel = self._one_of(CHANNELS, "channel")
        return {"channelId": channel, "roomId": self._one_of(ROOMS), "updates": self._maybe(topic=self._text())}

    def _draw_delete_channel(self) -> Payload:
        channel = self._one_of(CHANNELS, "channel")
        return {"channelId": channel, "roomId": self._one_of(ROOMS), "cascade": self._draw.random() < 0.5}

    def _draw_create_category(self) -> Payload:
        return {"name": self._text(), "roomId": self._one_of(ROOMS)}

    def _draw_update_category(self) -> Payload:
        category = self._one_of(["k1"], "category")
        return {"categoryId": category, "roomId": self._one_of(ROOMS), "updates": self._maybe(name=self._text())}

    def _draw_delete_category(self) -> Payload:
        return {"categoryId": self._one_of(["k1"], "category"), "roomId": self._one_of(ROOMS)}

    def _draw_save_ban(self) -> Payload:
        ban = {"roomId": self._one_of(ROOMS), "oderId": self._one_of(PEOPLE), "timestamp": 1}
        return {"ban": ban | self._maybe(reason=self._text())}

    def _draw_remove_ban(self) -> Payload:
        return {"roomId": self._one_of(ROOMS), "oderId": self._one_of(PEOPLE)}

    def _draw_create_session(self) -> Payload:
        token_hash = f"{self._draw.getrandbits(256):064x}"
        duration = self._draw.choice([0, 10**9])
        return {"userId": self._one_of(PEOPLE, "user"), "durationMs": duration, "tokenHash": token_hash}

    def _draw_delete_session(self) -> Payload:
        return {"tokenHash": "0" * 64}

    def _draw_delete_expired_sessions(self) -> Payload:
        return {}

    def _draw_put_media_part(self) -> Payload:
        return {"data": base64.b64encode(f"part {self._draw.randrange(4)}".encode()).decode()}

    def _draw_put_media(self) -> Payload:
        parts = [self._one_of(["0" * 64], "part") for _ in range(self._draw.randrange(1, 3))]
        return {"parts": parts, "mime": "text/plain"}

    def _draw_delete_media(self) -> Payload:
        return {"mediaId": self._one_of(["unknown"], "media")}

    def _draw_initialize(self) -> Payload:
        return {}

    def _draw_clear_all_data(self) -> Payload:
        return {}

    def _draw_batch(self) -> Payload:
        names = [name for name in self.names if name not in NEVER_IN_A_BATCH]
        chosen = [self._draw.choice(names) for _ in range(self._draw.randrange(1, 5))]
        return {"commands": [{"type": name, "payload": self._payload(name)} for name in chosen]}
