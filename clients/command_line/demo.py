"""`backscroll demo`: what a newcomer runs first. A real daemon, a small conversation, and a look at what it stored."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import apsw

from backscroll.clients.python.client import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    Category,
    Channel,
    Command,
    DeleteMessage,
    GetMessages,
    GetRoom,
    GetUsersByRoom,
    Message,
    MessageUpdates,
    Reaction,
    Room,
    RoomMember,
    SaveMessage,
    SaveReaction,
    SaveRoom,
    SaveUser,
    UpdateMessage,
    User,
)

START_MS = 1_767_258_000_000  # 2026-01-01 09:00 UTC
MINUTE_MS = 60_000
ROOM = "harbour"
NAMES = {"ada": "Ada", "bo": "Bo", "chen": "Chen"}
ROWS_SHOWN = {
    "rooms": "id, name, topic",
    "channels": "room_id, id, type, position, category_id",
    "members": "room_id, oder_id, role",
    "messages": "id, room_id, sender_id, content, is_deleted",
    "reactions": "message_id, oder_id, emoji",
}


def demo(out: TextIO) -> None:
    """Run the whole demonstration, writing what happens to `out`."""
    with tempfile.TemporaryDirectory(prefix="backscroll-demo-") as directory:
        with DaemonProcess(directory, "--log-level", "warning") as daemon:
            out.write(f"A daemon is ready at {daemon.endpoint} (process {daemon.ready['pid']}).\n")
            with Client(daemon.endpoint) as client:
                commands = list(conversation())
                for command in commands:
                    client.execute(command)
                out.write(f"{len(commands)} commands were sent, each is on disk.\n")
                _show_room(client, out)
                _show_messages(client, out)
        out.write("\nThe daemon has stopped. What it leaves is one SQLite file, with every list in rows of its own:\n")
        _show_rows(Path(directory) / "default.db", out)


def conversation() -> Iterator[Command[None]]:
    """The commands of the demonstration, in order."""
    for oder_id, name in NAMES.items():
        yield SaveUser(User(oder_id=oder_id, id=f"user-{oder_id}", username=oder_id, display_name=name))
    yield SaveRoom(
        Room(
            id=ROOM,
            name="Harbour",
            topic="boats, tides and tea",
            created_at=START_MS,
            categories=[Category(id="talk", name="Talk")],
            channels=[
                Channel(id="general", name="general", type="text", category_id="talk"),
                Channel(id="bridge", name="bridge", type="voice", position=1),
            ],
            members=[
                RoomMember(oder_id=oder_id, role="host" if oder_id == "ada" else "guest", joined_at=START_MS + at)
                for at, oder_id in enumerate(NAMES)
            ],
        )
    )
    yield SaveMessage(_said("m1", "ada", "Good morning! High tide is at 11:20.", 1))
    yield SaveMessage(_said("m2", "bo", "Then we leave at elevn.", 2, reply_to_id="m1"))
    yield SaveMessage(_said("m3", "chen", "wrong channel, sorry", 3))
    yield SaveMessage(_said("m4", "chen", "I bring the tea 🍵", 4))
    yield SaveReaction(Reaction(message_id="m1", oder_id="bo", emoji="👍", timestamp=START_MS + 2 * MINUTE_MS))
    yield SaveReaction(Reaction(message_id="m1", oder_id="chen", emoji="👍", timestamp=START_MS + 3 * MINUTE_MS))
    yield SaveReaction(Reaction(message_id="m4", oder_id="ada", emoji="❤️", timestamp=START_MS + 5 * MINUTE_MS))
    yield UpdateMessage("m2", MessageUpdates(content="Then we leave at eleven.", edited_at=START_MS + 6 * MINUTE_MS))
    yield DeleteMessage("m3")


def _said(message_id: str, sender: str, content: str, minute: int, reply_to_id: str | None = None) -> Message:
    return Message(
        id=message_id,
        room_id=ROOM,
        channel_id="general",
        sender_id=sender,
        sender_name=NAMES[sender],
        content=content,
        timestamp=START_MS + minute * MINUTE_MS,
        reply_to_id=reply_to_id,
    )


def _show_room(client: Client, out: TextIO) -> None:
    room = client.ask(GetRoom(ROOM))
    assert room is not None
    users = client.ask(GetUsersByRoom(ROOM))
    out.write(f"\n{room.name} · {room.topic}\n")
    out.write("  channels  " + ", ".join(f"#{each.name} ({each.type})" for each in room.channels or []) + "\n")
    out.write("  members   " + ", ".join(user.display_name or user.username for user in users) + "\n\n")


def _show_messages(client: Client, out: TextIO) -> None:
    for message in client.ask(GetMessages(ROOM)):
        time = datetime.fromtimestamp(message.timestamp / 1000, UTC).strftime("%H:%M")
        edited = " (edited)" if message.edited_at else ""
        reply = f" ↩ {message.reply_to_id}" if message.reply_to_id else ""
        out.write(f"  {time}  {message.sender_name or message.sender_id:<5} {message.content}{edited}{reply}\n")
        for emoji in dict.fromkeys(reaction.emoji for reaction in message.reactions or []):
            who = [NAMES[r.oder_id] for r in message.reactions or [] if r.emoji == emoji]
            out.write(f"               {emoji} {', '.join(who)}\n")


def _show_rows(database: Path, out: TextIO) -> None:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    for table, columns in ROWS_SHOWN.items():
        rows = connection.execute(f"SELECT {columns} FROM {table}").fetchall()
        out.write(f"\n  {table} ({columns})\n")
        for row in rows:
            out.write("    " + " | ".join("·" if value is None else str(value) for value in row) + "\n")
    connection.close()
