"""After `compact-scope` no file has a byte of deleted text, whatever command wrote or deleted it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.local import bytes_in
from tests.support.messages import save_payload
from tests.support.peers import Peer

Plain = dict[str, Any]
NamedCommand = tuple[str, Plain]

MARKER = re.compile(rb"<[a-z]+/[a-z-]+/[a-z0-9 -]+>")
DELETE_MESSAGES = ("delete-message", "save-deleted", "update-deleted", "batch-deleted")
WAYS = (*DELETE_MESSAGES, "clear-room", "delete-channel", "delete-room")


class World:
    """A room with one message in which every text is unique.

    `texts` are those that are deleted with the message, `of_channel` and `of_room` those that are deleted with the
    channel or the room.
    """

    def __init__(self, way: str, fate: str) -> None:
        self.way = way
        self.name = f"{fate}-{way}"
        self.room = f"room {self.name}"
        self.made = ""  # by create-message
        self.texts: list[str] = []
        self.of_room: list[str] = []
        self.of_channel: list[str] = []
        self._prefix = f"<{fate}/{way}"

    def text(self, what: str) -> str:
        """A new text that is deleted with the message."""
        return self._new(what, self.texts)

    def room_text(self, what: str) -> str:
        """A new text that is deleted with the room."""
        return self._new(what, self.of_room)

    def _new(self, what: str, texts: list[str]) -> str:
        text = f"{self._prefix}/{what}>"
        assert MARKER.fullmatch(text.encode())
        assert text not in texts
        texts.append(text)
        return text

    def reaction(self, what: str) -> Plain:
        return {"messageId": self.name, "oderId": "ada", "emoji": self.text(what)}

    def message(self, what: str, **fields: Any) -> Plain:
        free = {"metadata": {self.text(f"{what} key"): 1}, "linkMetadata": {"a": [self.text(f"{what} link")]}}
        reactions = [self.reaction(f"{what} reaction")]
        known = {"channelId": "c1", "reactions": reactions, **free}
        return save_payload(self.name, self.text(what), self.room, **(known | fields))

    def update(self, what: str, **fields: Any) -> Plain:
        updates = {"content": self.text(what), "metadata": {"a": self.text(f"{what} metadata")}, **fields}
        return {"messageId": self.name, "updates": updates}

    def attachment(self, what: str) -> Plain:
        texts = {name: self.text(f"{what} {name.lower()}") for name in ("filename", "filePath", "savedPath", "sha256")}
        about = {"id": f"{what} {self.name}", "messageId": self.name, "size": 1, "mime": "a/b"}
        return {"attachment": about | texts | {"metadata": {"a": self.text(f"{what} metadata")}}}

    def commands(self) -> list[NamedCommand]:
        """All commands that write text, alone and in batches; some reactions and attachments come before
        their message.
        """
        removed = self.reaction("removed reaction")
        return [
            ("save-room", {"room": self._room("room") | {"id": self.room}}),
            ("update-room", {"roomId": self.room, "updates": self._room("room update")}),
            ("update-channel", self._channel("channel update")),
            (
                "create-channel",
                {"roomId": self.room, "name": self.room_text("made channel"), "topic": self.room_text("made")},
            ),
            ("create-category", {"roomId": self.room, "name": self.room_text("made category")}),
            ("save-member", self._member("member")),
            ("save-channel", self._saved("channel", "saved channel", type=self.room_text("saved channel type"))),
            ("save-category", self._saved("category", "saved category")),
            ("save-ban", {"ban": self._ban("ban")}),
            ("save-reaction", {"reaction": self.reaction("early reaction")}),
            ("save-attachment", self.attachment("early file")),
            ("save-message", self.message("first")),
            ("save-message", self.message("second")),
            ("update-message", self.update("edit", reactions=[self.reaction("edit reaction")])),
            ("save-reaction", {"reaction": self.reaction("single reaction")}),
            ("save-reaction", {"reaction": removed}),
            ("remove-reaction", removed),
            ("save-attachment", self.attachment("file")),
            batch(
                ("save-ban", {"ban": self._ban("batch ban")}),
                ("save-member", self._member("batch member")),
                ("save-message", self.message("batch")),
                ("update-message", self.update("batch edit")),
                ("save-reaction", {"reaction": self.reaction("batched reaction")}),
                ("save-attachment", self.attachment("batch file")),
            ),
        ]

    def create(self) -> NamedCommand:
        fields = {"channelId": "c1", "roomId": self.room, "authorId": "ada"}
        return "create-message", fields | {"content": self.text("made message")}

    def deletion(self) -> list[NamedCommand]:
        """The commands that delete this world in its way, and late commands after that."""
        of_made = ("delete-message", {"messageId": self.made})
        gone: list[NamedCommand] = {
            "delete-message": [("delete-message", {"messageId": self.name}), of_made],
            "save-deleted": [("save-message", self.message("deleting", isDeleted=True)), of_made],
            "update-deleted": [("update-message", self.update("deleting edit", isDeleted=True)), of_made],
            "batch-deleted": [batch(("delete-message", {"messageId": self.name}), of_made)],
            "clear-room": [("clear-room-messages", {"roomId": self.room})],
            "delete-channel": [("delete-channel", {"roomId": self.room, "channelId": "c1", "cascade": True})],
            "delete-room": [("delete-room", {"roomId": self.room})],
        }[self.way]
        if self.way not in DELETE_MESSAGES:
            return gone
        late: list[NamedCommand] = [
            ("save-message", self.message("late")),
            ("save-reaction", {"reaction": self.reaction("late single reaction")}),
            ("remove-reaction", self.reaction("late removed reaction")),
            ("save-attachment", self.attachment("late file")),
        ]
        return [*gone, *late, batch(("save-message", self.message("late batch")), ("initialize", {}))]

    def _member(self, what: str) -> Plain:
        texts = {name: self.room_text(f"{what} {name.lower()}") for name in ("username", "displayName", "role")}
        return {"roomId": self.room, "member": {"oderId": what} | texts}

    def _saved(self, noun: str, what: str, **fields: Any) -> Plain:
        child = {"id": what, "name": self.room_text(f"{what} name")} | fields
        return {"roomId": self.room, noun: child}

    def _room(self, what: str) -> Plain:
        def room_text(field: str) -> str:
            return self.room_text(f"{what} {field.lower()}")

        plain = ["name", "description", "topic", "hostName", "icon", "sourceName", "sourceUrl"]
        if what == "room update":  # the log has no passwords, so one that is replaced is nowhere
            plain.append("password")
        channel = {
            "id": "c1",
            "type": "text",
            "name": self._new(f"{what} c name", self.of_channel),
            "topic": self._new(f"{what} c topic", self.of_channel),
            "metadata": {"a": self._new(f"{what} c metadata", self.of_channel)},
        }
        category = {"id": "k1", "name": room_text("k name"), "metadata": {"a": room_text("k metadata")}}
        member = {name: room_text(f"m {name}") for name in ("username", "displayName", "avatarUrl")}
        return {name: room_text(name) for name in plain} | {
            "roles": [room_text("roles")],
            "permissions": {"a": room_text("permissions")},
            "roleAssignments": [room_text("assignments")],
            "channelPermissions": [{"a": room_text("channel permissions")}],
            "metadata": {room_text("key"): room_text("value")},
            "channels": [channel],
            "categories": [category],
            "members": [member | {"oderId": "ada", "metadata": {"a": room_text("m metadata")}}],
        }

    def _channel(self, what: str) -> Plain:
        updates = {name: self._new(f"{what} {name}", self.of_channel) for name in ("name", "topic")}
        return {"channelId": "c1", "roomId": self.room, "updates": updates}

    def _ban(self, what: str) -> Plain:
        texts = {"reason": self.room_text(what), "displayName": self.room_text(f"{what} name")}
        return {
            "roomId": self.room,
            "oderId": what,
            "timestamp": 1,
            "metadata": {"a": self.room_text(f"{what} a")},
            **texts,
        }


def batch(*commands: NamedCommand) -> NamedCommand:
    return "batch", {"commands": [{"type": name, "payload": payload} for name, payload in commands]}


def markers_in(directory: Path) -> set[str]:
    """All texts of this test that are in any file."""
    return {found.decode() for content in bytes_in(directory).values() for found in MARKER.findall(content)}


def ask(peer: Peer, command: NamedCommand) -> Any:
    reply = peer.ask(*command)
    assert reply["ok"], reply
    return reply["result"]


@pytest.mark.parametrize("compact", [True, False])
def test_deleted_text_is_in_no_file(start_daemon: Callable[..., DaemonProcess], tmp_path: Path, compact: bool) -> None:
    """Half of all texts are deleted, in each way there is; after compaction no byte of them is in any file, while the
    daemon runs and after it stopped, and every other text is there.

    Without compaction the same holds once the daemon has stopped, because deleted text is overwritten in place.
    """
    data = tmp_path / "data"
    gone, kept = [World(way, "gone") for way in WAYS], [World(way, "kept") for way in WAYS]
    daemon = start_daemon("--log-level", "warning")
    with Peer(daemon.endpoint) as peer:
        ask(peer, ("save-user", {"user": {"oderId": "ada", "id": "u1", "username": "ada"}}))
        for world in [each for pair in zip(gone, kept, strict=True) for each in pair]:
            for command in world.commands():
                ask(peer, command)
            world.made = ask(peer, world.create())["id"]
        everything = {text for world in gone + kept for text in world.texts + world.of_room + world.of_channel}
        assert markers_in(data) == everything
        for world in gone:
            for command in world.deletion():
                ask(peer, command)
        wanted = {text for world in kept for text in world.texts + world.of_room + world.of_channel}
        wanted |= {text for world in gone if world.way != "delete-room" for text in world.of_room}
        wanted |= {
            text for world in gone if world.way not in ("delete-room", "delete-channel") for text in world.of_channel
        }
        if compact:
            ask(peer, ("compact-scope", {}))
            assert markers_in(data) == wanted
    daemon.stop()
    assert markers_in(data) == wanted
    if compact:
        daemon = start_daemon("--log-level", "warning")
        with Peer(daemon.endpoint) as peer:
            ask(peer, ("clear-all-data", {}))
            ask(peer, ("compact-scope", {}))
            assert markers_in(data) == set()
