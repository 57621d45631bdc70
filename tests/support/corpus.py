"""The chat history as commands, interspersed with seeded edits, reactions, rooms, sessions and media."""

import base64
import random
from collections.abc import Iterator, Sequence
from typing import Any

from tests.support.messages import message_document

Plain = dict[str, Any]
NamedCommand = tuple[str, Plain]

PEOPLE = ["ada", "bob"]
EMOJIS = ["👍", "❤️", "🧑🏽‍🚀", ":custom:"]
ADA = {"oderId": "ada", "id": "u-ada", "username": "ada", "displayName": "Ada"}
MEDIA = [b"", b"one", b"two" * 1_000, "ünïcödé".encode()]


class HistoryCommands:
    """Commands from a history, drawn by `seed`; some of them delete if `deleting`.

    Ids made by the store are taken from the results given to `note_result`.
    """

    def __init__(self, history: Sequence[Plain], seed: int, *, deleting: bool) -> None:
        self._history = history
        self._draw = random.Random(seed)
        self._deleting = deleting
        self._saved: list[Plain] = []
        self._channels: list[str] = []
        self._media: list[str] = []
        self._tokens: list[str] = []
        self._parts: list[str] = []

    def commands(self) -> Iterator[NamedCommand]:
        """The messages of the history in order, each followed by a random command now and then."""
        yield "save-user", {"user": ADA}
        yield "create-channel", {"name": "first"}
        for room in dict.fromkeys(item["stream"] for item in self._history):
            yield "save-room", {"room": {"id": room, "name": room, "members": [{"oderId": "ada"}]}}
        batch: list[Plain] = []
        for item in self._history:
            message = self._message(item)
            self._saved = [*self._saved[-500:], message]
            batch.append({"type": "save-message", "payload": {"message": message}})
            if self._draw.random() < 0.8 or len(batch) > 20:
                yield ("batch", {"commands": batch}) if len(batch) > 1 else ("save-message", batch[0]["payload"])
                batch = []
                if self._draw.random() < 0.6:
                    yield from self._extra_command()

    def note_result(self, name: str, result: Any) -> None:
        """Record the id in the result of a command."""
        if name == "create-channel":
            self._channels.append(result["id"])
        elif name == "put-media-part":
            self._parts.append(result)
        elif name == "put-media":
            self._media.append(result["id"])

    def _new_token(self) -> str:
        token = f"a token {self._draw.getrandbits(128):032x}"
        self._tokens.append(token)
        return token

    def _message(self, item: Plain) -> Plain:
        message = message_document(
            str(item["id"]),
            item["content"],
            item["stream"],
            channelId=item["topic"][:30],
            senderId=item["sender"],
            senderName=item["sender"],
            timestamp=item["timestamp"],
            metadata={"topic": item["topic"], "number": item["id"] / 2},
        )
        if self._draw.random() < 0.3:
            message["reactions"] = [self._reaction(message["id"])]
        return message

    def _reaction(self, message_id: str) -> Plain:
        return {"messageId": message_id, "oderId": self._draw.choice(PEOPLE), "emoji": self._draw.choice(EMOJIS)}

    def _extra_command(self) -> Iterator[NamedCommand]:
        draw, message = self._draw, self._draw.choice(self._saved)
        about = {"messageId": message["id"]}
        edit = {"content": message["content"] + " (edited)", "editedAt": message["timestamp"] + 1}
        attachment = {"id": f"a{draw.randrange(40)}", "filename": "cat.png", "size": 1, "mime": "image/png"} | about
        ban = {"roomId": message["roomId"], "oderId": message["senderId"], "timestamp": 1, "reason": "spam"}
        channel = draw.choice(self._channels) if self._channels else "none"
        choices: list[NamedCommand] = [
            ("update-message", about | {"updates": edit}),
            ("update-message", about | {"updates": {"roomId": draw.choice(self._saved)["roomId"]}}),
            ("save-reaction", {"reaction": self._reaction(message["id"])}),
            ("save-attachment", {"attachment": attachment}),
            ("create-message", {"channelId": channel, "authorId": "ada", "content": message["content"][:50]}),
            ("create-channel", {"name": message["channelId"], "topic": "made"}),
            ("update-channel", {"channelId": channel, "updates": {"topic": message["content"][:20]}}),
            ("create-category", {"name": "made"}),
            ("create-user", {"pubkey": f"k{draw.randrange(99)}"}),
            ("save-user", {"user": {"oderId": message["senderId"], "id": "u", "username": message["senderId"]}}),
            ("save-ban", {"ban": ban}),
            ("create-session", {"userId": "ada", "durationMs": draw.choice([0, 10**9]), "token": self._new_token()}),
            ("put-media-part", {"data": base64.b64encode(draw.choice(MEDIA)).decode()}),
            ("set-current-user-id", {"userId": draw.choice(["ada", None])}),
        ]
        if self._parts:
            parts = draw.choices(self._parts, k=draw.randint(1, 3))
            choices.append(("put-media", {"parts": parts, "mime": "text/plain"}))
        if self._tokens:
            choices.append(("delete-session", {"token": draw.choice(self._tokens)}))
        if self._deleting:
            choices += [("delete-message", about)] * 3
            choices += [("save-message", {"message": message | {"isDeleted": True}})]
            choices += [
                ("remove-reaction", self._reaction(message["id"])),
                ("delete-attachments-for-message", about),
                ("delete-channel", {"channelId": channel, "cascade": True}),
            ]
            if self._media:
                choices.append(("delete-media", {"mediaId": draw.choice(self._media)}))
            if draw.random() < 0.02:
                choices = [
                    ("clear-room-messages", {"roomId": message["roomId"]}),
                    ("delete-room", {"roomId": "default"}),
                ]
        yield draw.choice(choices)
