"""`backscroll demo`: what a newcomer runs first. A real daemon, a short conversation, and a look at what was stored."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backscroll.clients.command_line import output
from backscroll.clients.command_line.results import readable
from backscroll.clients.python.client import Client
from backscroll.clients.python.daemon_access import private_daemon
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    Category,
    Channel,
    Command,
    DeleteMessage,
    GetMessages,
    GetRoom,
    GetRows,
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

if TYPE_CHECKING:
    from rich.console import Console

START_MS = 1_767_258_000_000  # 2026-01-01 09:00 UTC
MINUTE_MS = 60_000
ROOM = "harbour"
NAMES = {"ada": "Ada", "bo": "Bo", "chen": "Chen"}
ROWS_SHOWN = {
    "rooms": ["id", "name", "topic"],
    "channels": ["room_id", "id", "type", "category_id"],
    "members": ["room_id", "oder_id", "role"],
    "messages": ["id", "sender_id", "content", "is_deleted", "reply_to_id"],
    "reactions": ["message_id", "oder_id", "emoji"],
}
INDENT = 3
NEXT = """\
backscroll serve --data-dir ./data
backscroll call save-message '{"message": {"id": "m1", "roomId": "harbour", "senderId": "ada", "content": "Hello!", \
"timestamp": 1767258000000}}' --data-dir ./data
backscroll call get-messages '{"roomId": "harbour"}' --data-dir ./data
backscroll describe"""


def demo(_options: argparse.Namespace) -> int:
    """Run the whole demonstration and explain each step."""
    out = output.console(sys.stdout)
    out.print(
        "Backscroll keeps the history of a chat in one SQLite file. A daemon owns the file, and applications send it"
        " commands and queries."
    )
    with tempfile.TemporaryDirectory(prefix="backscroll-demo-") as directory:
        _step(out, "1", "Start a daemon", "in a temporary directory, which is removed at the end")
        with private_daemon(Path(directory)) as daemon, Client(daemon.endpoint) as client:
            _say(out, f"It is ready at {daemon.endpoint} (process {daemon.ready['pid']}).")
            _send_commands(client, out)
            _show_conversation(client, out)
            _kill(daemon, out)
        with private_daemon(Path(directory)) as daemon, Client(daemon.endpoint) as client:
            _say(out, f"Another daemon has opened the same file (process {daemon.ready['pid']}). Nothing is lost.")
            _show_rows(client, out)
    _step(out, "6", "Now you", "with a daemon that keeps running in another terminal")
    for line in NEXT.splitlines():
        out.print(line, soft_wrap=True)
    return 0


def _step(out: "Console", number: str, title: str, explanation: str) -> None:
    from rich.text import Text

    out.print()
    out.print(Text.assemble((f"{number}  {title}", "bold"), "  ", (explanation, "dim")))


def _say(out: "Console", text: str) -> None:
    from rich.padding import Padding

    out.print(Padding.indent(text, INDENT))


def _send_commands(client: Client, out: "Console") -> None:
    _step(out, "2", "Send commands", "each reply means that the command is on disk")
    commands = list(conversation())
    started = time.perf_counter()
    for command in commands:
        client.execute(command)
    milliseconds = (time.perf_counter() - started) * 1000
    for command in commands:
        _say(out, f"{command.wire_name:<14}  {_summary(command)}")
    _say(out, f"{len(commands)} commands in {milliseconds:.0f} ms.")


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
    yield SaveMessage(_message("m1", "ada", "Good morning! High tide is at 11:20.", 1))
    yield SaveMessage(_message("m2", "bo", "Then we leave at elevn.", 2, reply_to_id="m1"))
    yield SaveMessage(_message("m3", "chen", "wrong channel, sorry", 3))
    yield SaveMessage(_message("m4", "chen", "I bring the tea 🍵", 4))
    yield SaveReaction(Reaction(message_id="m1", oder_id="bo", emoji="👍", timestamp=START_MS + 2 * MINUTE_MS))
    yield SaveReaction(Reaction(message_id="m1", oder_id="chen", emoji="👍", timestamp=START_MS + 3 * MINUTE_MS))
    yield SaveReaction(Reaction(message_id="m4", oder_id="ada", emoji="⛵", timestamp=START_MS + 5 * MINUTE_MS))
    yield UpdateMessage("m2", MessageUpdates(content="Then we leave at eleven.", edited_at=START_MS + 6 * MINUTE_MS))
    yield DeleteMessage("m3")


def _message(message_id: str, sender: str, content: str, minute: int, reply_to_id: str | None = None) -> Message:
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


def _summary(command: Command[None]) -> str:
    """What a command is about, in a few words."""
    match command:
        case SaveUser(user):
            return user.display_name or user.username
        case SaveRoom(room):
            return f"{room.name}, with channels, a category and members"
        case SaveMessage(message):
            return f"{message.id}  {message.sender_name}: {message.content}"
        case SaveReaction(reaction):
            return f"{reaction.message_id}  {_reactor(reaction)}: {reaction.emoji}"
        case UpdateMessage(message_id, updates):
            return f"{message_id}  {updates.content}"
        case DeleteMessage(message_id):
            return message_id
        case _:
            return ""


def _reactor(reaction: Reaction) -> str:
    return NAMES[reaction.oder_id] if reaction.oder_id else f"{reaction.count} others"


def _show_conversation(client: Client, out: "Console") -> None:
    _step(out, "3", "Ask for the room and its messages", "get-room, get-users-by-room, get-messages")
    room = client.ask(GetRoom(ROOM))
    assert room is not None
    channels = ", ".join(f"#{each.name} ({each.type})" for each in room.channels or [])
    people = ", ".join(user.display_name or user.username for user in client.ask(GetUsersByRoom(ROOM)))
    _say(out, f"{room.name}: {room.topic}")
    _say(out, f"{channels}; {people}")
    out.print()
    for message in client.ask(GetMessages(ROOM)):
        at = datetime.fromtimestamp(message.timestamp / 1000, UTC).strftime("%H:%M")
        edited = " (edited)" if message.edited_at else ""
        reply = f" ↩ {message.reply_to_id}" if message.reply_to_id else ""
        _say(out, f"{at}  {message.sender_name or message.sender_id:<4}  {message.content}{edited}{reply}")
        for emoji in dict.fromkeys(reaction.emoji for reaction in message.reactions or []):
            who = [_reactor(each) for each in message.reactions or [] if each.emoji == emoji]
            _say(out, f"{'':13}{emoji} {', '.join(who)}")


def _kill(daemon: DaemonProcess, out: "Console") -> None:
    _step(out, "4", "Kill the daemon", "as a crash would, and start it again")
    daemon.kill()


def _show_rows(client: Client, out: "Console") -> None:
    _step(out, "5", "Look at the rows", "get-rows returns them as they are in the SQLite file")
    _say(out, "Reactions, channels and members have tables of their own. Nothing is left of the text of m3.")
    for table, columns in ROWS_SHOWN.items():
        rows = client.ask(GetRows(table)).rows
        cells = [[readable(column, row.get(column)) for column in columns] for row in rows]
        out.print(f"\n{'':{INDENT}}{table}", style="cyan")
        out.print(output.table(columns, cells, indent=INDENT))
