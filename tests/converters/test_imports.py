"""The converters and their importer: what a person wants to keep of an export arrives, in its order, and nothing else.

What each sample contains is written down here by hand, as one reads it in the file, and not taken from a converter.
"""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.listing import items_of
from backscroll.schema import (
    DELETED_TEXT,
    Command,
    DeleteMessage,
    GetAllAttachments,
    GetAllRooms,
    GetLog,
    GetMember,
    GetMessageById,
    GetMessagePage,
    GetScopeInfo,
    GetUser,
    Message,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.limits import BATCH_COMMANDS_MAX, ID_BYTES_MAX
from backscroll.schema.tables import CONTENT, InternalColumn
from tests.converters import discord, irc, matrix, mattermost, slack, telegram, whatsapp
from tests.converters.importing import Commands, import_commands
from tests.converters.source import millis, storable
from tests.support.sql import sql

SAMPLES = Path(__file__).parent / "samples"
T = 1_767_647_100_000  # 2026-01-05 21:05 UTC, when most samples begin
WHOLE_MESSAGES = [
    json.loads(line) for line in (SAMPLES / "messages.jsonl").read_text(encoding="utf-8").split("\n") if line
]
"""Messages as they must be in the end, written by hand, with what each is about."""
HALF_EMOJI = "\ufffd"
"""Half an emoji, and NUL, cannot be stored; this stands for them."""


class Source(NamedTuple):
    """An export: how it is converted, and what is in it.

    `texts` are those of the messages of each room in their order; `without_sender` those that nobody sent; `unsized`
    the names of files of which it tells no size; `tells` whatever it tells of any message.
    """

    convert: Callable[[], Commands]
    texts: dict[str, list[str]]
    without_sender: list[str]
    unsized: list[str]
    tells: set[str]
    any_order: bool = False


def discord_files() -> Commands:
    """Three channels, each in a file of its own."""
    return chain.from_iterable(
        discord.commands_of(SAMPLES / name) for name in ("discord.json", "discord-thread.json", "discord-direct.json")
    )


LINES = {"id", "roomId", "senderId", "content", "timestamp", "ordinal", "sentAt", "type"}
RECORDS = {"id", "roomId", "senderId", "senderName", "content", "timestamp", "ordinal", "type", "editedAt", "metadata"}
RECORDS |= {"reactions", "attachments", "mentions", "forwardedFrom", "pinnedAt"}

SOURCES = {
    "slack": Source(
        lambda: slack.commands_of(SAMPLES / "slack"),
        {
            "C1": [
                "<@U1> has joined the channel",
                "High tide is at 11:20 &amp; <@U2|bo> knows, <@U2>!",
                "Then we leave at eleven.",
                DELETED_TEXT,
                "",
                "A reminder was set.",
                "Who brings bread?",
                "I do.",
                "See below",
                "",
                "A huddle started",
                f"well done {HALF_EMOJI}",
                "waves",
                DELETED_TEXT,
                "And butter!",
                "Edited once",
            ],
            "D1": ["The same moment, another channel"],
            "old plans": ["In a channel that no list names"],
        },
        ["A reminder was set."],
        [""],
        RECORDS | {"isDeleted", "threadId", "linkMetadata"},
        any_order=True,
    ),
    "discord": Source(
        discord_files,
        {
            "100": [
                "Joined the server.",
                "High tide is at 11:20, @bo",
                "Then we leave at eleven.",
                "Pinned a message.",
                "Pinned, and nobody knows when",
                "A reply to what was deleted",
                "",
                "",
                "",
                "Started a call.",
                "",
                f"https://tides.example/ {HALF_EMOJI}",
                "",
                "",
                "Who brings bread?",
            ],
            "900": ["Only between us"],
        },
        [""],
        [""],
        RECORDS | {"channelId", "threadId", "replyToId", "linkMetadata"},
    ),
    "telegram": Source(
        lambda: telegram.commands_of(SAMPLES / "telegram.json"),
        {
            "private_supergroup:123": [
                "From before the group was upgraded",
                "",
                "High tide is at 11:20, @bo_boat and Cy table",
                "Then we leave at eleven.",
                "The ferry is late.",
                "From a deleted account",
                "The boat",
                "",
                "",
                "",
                "",
                "",
                f"A negative time {HALF_EMOJI}",
                "No time at all",
            ],
            "personal_chat:123": ["The same ids in another chat, in an older file"],
        },
        [""],
        ["", "sticker.webp"],
        RECORDS | {"replyToId"},
    ),
    "whatsapp-android": Source(
        lambda: whatsapp.commands_of(SAMPLES / "whatsapp-android.txt", "trip"),
        {
            "trip": [
                "Messages and calls are end-to-end encrypted. Tap to learn more.",
                'Ada created group "Trip: Lisbon 🌊"',
                'Ada changed the subject from "Trip" to "Trip: Lisbon"',
                "High tide is at 11:20\nand low tide: 17:40\n\n05/45/2026, 99:99 - is no date",
                "Then we leave at eleven.",
                "one",
                "one",
                "two",
                "three",
                "four",
                "five",
                DELETED_TEXT,
                "Better spelled",
                "IMG-20260105-WA0001.jpg (file attached)\nThe boat",
                "<Media omitted>",
                "POLL:\nBread?\nOPTION: yes (2 votes)",
                "Missed voice call",
                "Thanks @\u2068Bø\u2069, \u202bשלום\u202c",
                "The clocks were put back",
                "",
            ]
        },
        [
            "Messages and calls are end-to-end encrypted. Tap to learn more.",
            'Ada created group "Trip: Lisbon 🌊"',
            'Ada changed the subject from "Trip" to "Trip: Lisbon"',
            "Missed voice call",
        ],
        ["IMG-20260105-WA0001.jpg"],
        LINES | {"isDeleted", "mentions", "metadata", "attachments"},
    ),
    "whatsapp-ios": Source(
        lambda: whatsapp.commands_of(SAMPLES / "whatsapp-ios.txt", "harbour"),
        {
            "harbour": [
                "Messages and calls are end-to-end encrypted.",
                "High tide is at 11:20",
                "Then we leave\u2028at eleven.",
                "<attached: 00000012-PHOTO-2026-01-13-21-05-13.jpg>",
                "image omitted",
                "Report left.pdf • \u200e2 pages \u200e<attached: 00000013-Report left.pdf>",
                DELETED_TEXT,
                "Better spelled",
                "Bo left",
                "Voice call, \u200eNo answer",
                "Midnight",
                "Noon",
            ]
        },
        ["Messages and calls are end-to-end encrypted.", "Bo left"],
        ["00000012-PHOTO-2026-01-13-21-05-13.jpg", "00000013-Report left.pdf"],
        LINES | {"isDeleted", "metadata", "attachments"},
    ),
    "irssi": Source(
        lambda: irc.commands_of(SAMPLES / "irssi.log", "#harbour"),
        {
            "#harbour": [
                "bo [~bo@host.example] has joined #harbour",
                "High tide is at 11:20",
                "one",
                "one",
                "Then we leave -> <eleven>",
                "waves",
                "Low tide at 17:40",
                "\x0304red\x03 \x02bold\x02\x0f",
                "ada changed the topic of #harbour to: Tides: all of them",
                "café \u2028 in UTF-8",
                "café in Latin-1 “quoted”",
                "last",
                "first",
                "later",
                "the clock was put back",
                "99:99 garbage",
                HALF_EMOJI * 3,
                "bo [~bo@host.example] has quit [Ping timeout: 240 seconds]",
            ]
        },
        [
            "bo [~bo@host.example] has joined #harbour",
            "ada changed the topic of #harbour to: Tides: all of them",
            "99:99 garbage",
            HALF_EMOJI * 3,
            "bo [~bo@host.example] has quit [Ping timeout: 240 seconds]",
        ],
        [],
        LINES,
    ),
    "weechat": Source(
        lambda: irc.commands_of(SAMPLES / "weechat.log", "#harbour"),
        {
            "#harbour": [
                "bo (~bo@host.example) has joined #harbour",
                "High tide is at 11:20\tor so",
                "Then we leave at eleven.",
                "",
                "waves",
                "Mode #harbour [+o bo] by ada",
                "no prefix",
                "bo (~bo@host.example) has quit (*.net *.split)",
            ]
        },
        [
            "bo (~bo@host.example) has joined #harbour",
            "Mode #harbour [+o bo] by ada",
            "no prefix",
            "bo (~bo@host.example) has quit (*.net *.split)",
        ],
        [],
        LINES,
    ),
    "matrix": Source(
        lambda: matrix.commands_of(SAMPLES / "matrix.json"),
        {
            "!harbour:a.example": [
                "Harbour",
                "",
                "High tide is at 11:20",
                "Then we leave at eleven.",
                "Fine, @bo",
                "In the thread",
                "Really a reply",
                "waves",
                DELETED_TEXT,
                DELETED_TEXT,
                "The boat",
                "voice.ogg",
                "",
                "Bread?",
                "",
                "From a server whose clock is behind",
                "A negative time",
                f"No time, and half an emoji {HALF_EMOJI}",
                "A time of no century",
                "",
                "",
            ]
        },
        [],
        ["voice.ogg"],
        (RECORDS - {"senderName", "forwardedFrom"}) | {"isDeleted", "threadId", "replyToId", "sentAt"},
        any_order=True,
    ),
    "mattermost": Source(
        lambda: mattermost.commands_of(SAMPLES / "mattermost.jsonl"),
        {
            "sea": [
                "Nobody wrote this, and never",
                "bo.boat joined the channel.",
                "High tide is at 11:20, @bo.boat and @nobody @all",
                "one",
                "one",
                "Then we leave at eleven.",
                "Fine.",
                "*waves*",
                "",
                "In seconds by mistake",
                "In microseconds by mistake",
                "",
                DELETED_TEXT,
                "Look",
                f"well done {HALF_EMOJI}",
                "Late in time, early in the file",
            ],
            "direct/ada,bo.boat": ["Only between us"],
        },
        ["Nobody wrote this, and never"],
        ["boat.png"],
        RECORDS | {"isDeleted", "channelId", "threadId", "replyToId", "linkMetadata"},
        any_order=True,
    ),
}

each_source = pytest.mark.parametrize("name", SOURCES)
each_in_any_order = pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.any_order])


def imported(client: Client, name: str) -> Source:
    """A source that was imported whole."""
    source = SOURCES[name]
    assert import_commands(client, name, source.convert()) == []
    return source


def messages_of(client: Client, room_id: str) -> list[Message]:
    page = client.ask(GetMessagePage(room_id, limit=500, attachments=True))
    assert not page.has_older
    return page.messages


def told(message: Message) -> dict[str, Any]:
    """A message as it is on the wire, without what is not set."""
    fields = msgspec.to_builtins(message).items()
    return {name: value for name, value in fields if value != [] and value is not False}


def last_seq(client: Client) -> int:
    return client.ask(GetLog(limit=1)).last_seq


def rows(transport: InProcess, scope: str) -> dict[str, list[Any]]:
    """Every row that callers' data is in, without numbers for the daemon's own use."""
    found = {}
    with transport.scopes.open(scope).read() as snapshot:
        for table in CONTENT:
            fields = table._meta.fields.items()
            columns = ", ".join(name for name, each in fields if not isinstance(each, InternalColumn))
            name = table._meta.table_name
            found[name] = sorted(snapshot.rows(sql(f"SELECT {columns} FROM {name}")), key=repr)
    return found


# All formats


@each_source
def test_every_message_arrives_in_its_order(client: Client, name: str) -> None:
    """Nothing that a person would want to keep is refused or left out, and the order of the file survives."""
    source = imported(client, name)
    found = {room_id: [each.content for each in messages_of(client, room_id)] for room_id in source.texts}
    assert found == source.texts


@each_source
def test_nothing_is_invented(client: Client, name: str) -> None:
    """No field is set that the file does not tell: no sender of a line of the system, no size of a file without one."""
    source = imported(client, name)
    messages = [each for room_id in source.texts for each in messages_of(client, room_id)]
    assert client.execute(GetScopeInfo()).rows["messages"] - len(messages) in (0, 1)  # 1: an edit that waits
    assert [each.content for each in messages if each.sender_id is None] == source.without_sender
    attachments = items_of(client, GetAllAttachments())
    assert sorted(each.filename for each in attachments if each.size is None) == source.unsized
    assert {field for each in messages for field in told(each)} <= source.tells


@each_source
def test_a_second_import_changes_nothing(client: Client, transport: InProcess, name: str) -> None:
    """The same file again adds nothing to the command log and leaves all rows as they are, also after a restart."""
    imported(client, name)
    seq, before = last_seq(client), rows(transport, "default")
    imported(client, name)
    assert import_commands(Client(transport=transport), name, SOURCES[name].convert()) == []
    assert (last_seq(client), rows(transport, "default")) == (seq, before)


@pytest.mark.parametrize(
    ("name", "file", "key"), [("matrix", "matrix.json", "chunk"), ("discord", "discord.json", "messages")]
)
def test_a_file_the_other_way_round(
    client: Client, transport: InProcess, tmp_path: Path, name: str, file: str, key: str
) -> None:
    """Exports that can be written oldest first or newest first lead to equal rows."""
    converter = {"matrix": matrix, "discord": discord}[name]
    export = json.loads((SAMPLES / file).read_text(encoding="utf-8"))
    export[key].reverse()
    (tmp_path / file).write_text(json.dumps(export), encoding="utf-8")
    assert import_commands(client, "one way", converter.commands_of(SAMPLES / file)) == []
    other = Client(transport=transport, scope="other")
    assert import_commands(other, "the other way", converter.commands_of(tmp_path / file)) == []
    assert rows(transport, "other") == rows(transport, "default")


@each_in_any_order
def test_batches_in_any_order(client: Client, transport: InProcess, name: str) -> None:
    """Events that a file has out of order lead to equal rows in every order, in batches of any size and repeated."""
    commands = list(imported(client, name).convert())
    first = [each for each in commands if getattr(each, "arrival", None) is None]
    events = [each for each in commands if getattr(each, "arrival", None) == "any-order"]
    assert len(events) > len(first)
    wanted = rows(transport, "default")
    for seed in range(5):
        scope = f"shuffled-{seed}"
        other = Client(transport=transport, scope=scope)
        draw = random.Random(seed)
        assert import_commands(other, "first", first) == []
        shuffled = [*events, *draw.sample(events, 5)]
        draw.shuffle(shuffled)
        for number, batch in enumerate(_cut(shuffled, draw)):
            assert import_commands(other, f"batch {number}", batch) == []
        assert rows(transport, scope) == wanted, scope


def _cut(commands: list[Command[Any]], draw: random.Random) -> Iterator[list[Command[Any]]]:
    """Batches of random sizes."""
    while commands:
        size = draw.randrange(1, 6)
        yield commands[:size]
        commands = commands[size:]


# What arrives of single messages


@each_source
def test_all_of_a_message_arrives(client: Client, name: str) -> None:
    """Reactions, files, replies, threads, forwards, edits, deletions, pins and mentions: that, and no other field."""
    imported(client, name)
    wanted = {each["what"]: each["message"] for each in WHOLE_MESSAGES if each["source"] == name}
    assert wanted
    found = {what: client.ask(GetMessageById(each["id"], attachments=True)) for what, each in wanted.items()}
    assert {what: message and told(message) for what, message in found.items()} == wanted


def test_an_emoji_longer_than_an_id(client: Client) -> None:
    """It is cut and ends with its digest, so that two stay two; its whole text is in the metadata of the reaction."""
    imported(client, "matrix")
    message = client.ask(GetMessageById("$m1"))
    assert message is not None
    [reaction] = [each for each in message.reactions or [] if each.oder_id == "@ada:a.example"]
    whole = f"mxc://a.example/{'x' * 600}"
    assert (len(reaction.emoji.encode()), reaction.metadata) == (ID_BYTES_MAX, {"emoji": whole})
    assert whole.startswith(reaction.emoji.partition("…")[0])


def test_reactions_that_were_taken_back_and_pins(client: Client) -> None:
    """A redacted reaction is gone, a server's count is without those who are named, and an unpinned message is so."""
    imported(client, "matrix")
    message = client.ask(GetMessageById("$m1"))
    assert message is not None
    assert [(each.oder_id, each.count, each.emoji[:3]) for each in message.reactions or []] == [
        (None, 6, "👍"),
        ("@bo:a.example", None, "👍"),
        ("@ada:a.example", None, "mxc"),
    ]
    pinned = client.ask(GetMessagePage("!harbour:a.example", pinned=True)).messages
    assert [(each.id, each.pinned_at) for each in pinned] == [("$m1", T + 50_000)]


def test_deleted_text_is_not_stored(client: Client) -> None:
    """Text that the file itself says was deleted is nowhere in the command log, although the file still has it."""
    for name in ("slack", "matrix", "mattermost"):
        imported(client, name)
    log = msgspec.json.encode(client.ask(GetLog(limit=100)))
    assert b"Then we leave at eleven." in log
    assert b"a secret" not in log


def test_rooms_users_and_members(client: Client) -> None:
    """Rooms have the names of the file or none, channels and categories theirs; users and members are stored."""
    for name in SOURCES:
        imported(client, name) if name != "irssi" else None  # the same channel as weechat's
    rooms = {each.id: each for each in client.ask(GetAllRooms())}
    assert {room_id: room.name for room_id, room in rooms.items()} == {
        "C1": "harbour",
        "D1": "",
        "100": "Harbour \u202e🌊",
        "900": "bo",
        "private_supergroup:123": "Harbour 🌊",
        "personal_chat:123": "",
        "trip": "trip",
        "harbour": "harbour",
        "#harbour": "#harbour",
        "!harbour:a.example": "Harbour",
        "sea": "The sea",
        "direct/ada,bo.boat": "",
    }
    assert [(each.id, each.category_id) for each in rooms["100"].channels or []] == [("201", "200")]
    assert [(each.id, each.name) for each in rooms["sea"].channels or []] == [("harbour", "Harbour 🌊")]
    assert client.ask(GetMember("C1", "U2")) is not None
    bo = client.ask(GetUser("U2"))
    assert bo is not None
    assert (bo.username, bo.display_name) == ("bo", 'Bø 🌊 "the boat" O\'Neill')


# The importer


def saves(count: int, **fields: Any) -> Iterator[SaveMessage]:
    for number in range(count):
        yield SaveMessage(Message(id=f"m{number}", room_id="r1", content="hello", timestamp=T + number, **fields))


def test_what_is_refused_is_reported_and_the_rest_imported(client: Client) -> None:
    """Commands that cannot be executed, or not even sent, are left out and returned; a second import is as harmless."""
    good = list(saves(3))
    bad = [
        SaveMessage(msgspec.structs.replace(good[0].message, id="early", timestamp=-1)),
        SaveMessage(msgspec.structs.replace(good[0].message, id="half", content="\ud83d")),
        DeleteMessage("early"),
    ]
    for _ in range(2):
        left_out = import_commands(client, "mixed", [good[0], bad[0], good[1], *bad[1:], good[2]])
        assert sorted(bad.index(each.command) for each in left_out) == [0, 1, 2]
        assert all(each.reason for each in left_out)
        assert [each.id for each in messages_of(client, "r1")] == ["m0", "m1", "m2"]
        assert last_seq(client) == 1


def test_an_interrupted_import_goes_on(client: Client) -> None:
    """What was sent before an importer died is not executed again; the log has each batch once."""

    def interrupted() -> Iterator[SaveMessage]:
        for number, command in enumerate(saves(2 * BATCH_COMMANDS_MAX + 1)):
            if number == BATCH_COMMANDS_MAX + 500:
                raise KeyboardInterrupt
            yield command

    with pytest.raises(KeyboardInterrupt):
        import_commands(client, "long", interrupted())
    assert last_seq(client) == 1
    assert import_commands(client, "long", saves(2 * BATCH_COMMANDS_MAX + 1)) == []
    assert last_seq(client) == 3
    assert client.execute(GetScopeInfo()).rows["messages"] == 2 * BATCH_COMMANDS_MAX + 1


def test_large_messages_make_smaller_batches(client: Client) -> None:
    """A batch is within the limit on free JSON, and a message that alone is too large is all that is left out."""
    large = list(saves(150, metadata={"preview": "x" * 20_000}))
    too_large = SaveMessage(Message(id="huge", room_id="r1", content="x" * 1_100_000, timestamp=T))
    left_out = import_commands(client, "large", [*large[:75], too_large, *large[75:]])
    assert [each.command for each in left_out] == [too_large]
    assert client.execute(GetScopeInfo()).rows["messages"] == 150


@pytest.mark.parametrize("name", ["whatsapp-android", "irssi"])
def test_a_file_that_has_grown(client: Client, transport: InProcess, name: str) -> None:
    """A later export of the same chat adds its new lines, and the rows are those of importing it alone."""
    commands = list(SOURCES[name].convert())
    import_commands(client, name, commands[: len(commands) // 2])
    import_commands(client, name, commands)
    import_commands(Client(transport=transport, scope="alone"), name, commands)
    assert rows(transport, "default") == rows(transport, "alone")


# Times and texts


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("13/01/2026, 21:05 - Ada: x", "2026-01-13 21:05:00"),
        ("13.01.26, 21:05 - Ada: x", "2026-01-13 21:05:00"),
        ("1/13/26, 9:05 PM - Ada: x", "2026-01-13 21:05:00"),
        ("1/13/26, 9:05\u202fp.\u00a0m. - Ada: x", "2026-01-13 21:05:00"),
        ("2026-01-13, 21:05 - Ada: x", "2026-01-13 21:05:00"),
        ("2026/01/05, 12:05 am - Ada: x", "2026-01-05 00:05:00"),
        ("[13.01.26, 21:05:12] Ada: x", "2026-01-13 21:05:12"),
        ("\u200e[2026-01-13, 9:05:12 PM] Ada: x", "2026-01-13 21:05:12"),
        ("\u200f\u0661\u0663/\u0660\u0661/\u0662\u0660\u0662\u0666, 21:05 - Ada: x", "2026-01-13 21:05:00"),
    ],
)
def test_dates_of_whatsapp(tmp_path: Path, line: str, wanted: str) -> None:
    """Days and months in either order, years first, half days, seconds, and Arabic digits."""
    path = tmp_path / "chat.txt"
    path.write_text(line, encoding="utf-8")
    _, save = whatsapp.commands_of(path, "trip")
    assert isinstance(save, SaveMessage)
    when = datetime.fromtimestamp(save.message.timestamp / 1000, UTC)
    assert (str(when.replace(tzinfo=None)), save.message.sender_id, save.message.content) == (wanted, "Ada", "x")


def test_what_a_file_does_not_tell_must_be_told(tmp_path: Path) -> None:
    """An order of day and month that no date decides, and the day of a log's first lines, are asked for."""
    path = tmp_path / "file"
    path.write_text("05/01/2026, 21:05 - Ada: x", encoding="utf-8")
    with pytest.raises(ValueError, match="day_first"):
        list(whatsapp.commands_of(path, "trip"))
    in_berlin = timezone(timedelta(hours=1))
    _, save = whatsapp.commands_of(path, "trip", day_first=True, zone=in_berlin)
    assert isinstance(save, SaveMessage)
    assert save.message.timestamp == T - 3_600_000
    path.write_text("05/13/2026, 21:05 - Ada: x\n13/05/2026, 21:05 - Ada: x", encoding="utf-8")
    with pytest.raises(ValueError, match="put together"):
        list(whatsapp.commands_of(path, "trip"))
    path.write_text("21:05 < ada> x", encoding="utf-8")
    with pytest.raises(ValueError, match="pass day"):
        list(irc.commands_of(path, "#harbour"))
    _, save = irc.commands_of(path, "#harbour", day=date(2026, 1, 5))
    assert isinstance(save, SaveMessage)
    assert save.message.timestamp == T


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    """A line that is no JSON is an error that names it, after everything before it."""
    path = tmp_path / "export.jsonl"
    path.write_text('{"type": "version", "version": 1}\n{"type": "po', encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 of export\.jsonl"):
        list(mattermost.commands_of(path))


@pytest.mark.parametrize("value", [T // 1000, T, T * 1000, T * 1_000_000, str(T // 1000), f"{T // 1000}.0", T / 1000])
def test_times_in_any_unit(value: object) -> None:
    """Where an export may be in any unit, the size of a number tells which."""
    assert millis(value) == T


@pytest.mark.parametrize("value", [None, "", "soon", -1, float("nan"), float("inf"), True, 2**70, [T]])
def test_what_is_no_time(value: object) -> None:
    """It is None, and never a time that nobody wrote."""
    assert millis(value) is None


def test_text_that_cannot_be_stored() -> None:
    """Half an emoji and NUL are replaced wherever they stand; whole emoji, marks and large numbers are kept."""
    assert storable({"\ud83d": ["a\0b", "😀\udc00", "\ufeff\u202e", 2**70, 1, None, True]}) == {
        "\ufffd": ["a\ufffdb", "😀\ufffd", "\ufeff\u202e", str(2**70), 1, None, True]
    }


def test_edits_of_converters_are_events() -> None:
    """Every edit says when it was made, so that it is the newer in whichever order it arrives."""
    edits = [each for name in SOURCES for each in SOURCES[name].convert() if isinstance(each, UpdateMessage)]
    assert edits
    assert all(each.arrival and (each.updates.edited_at or each.updates.pinned_at) for each in edits)
