"""IRC: the log of one channel, by irssi (`21:05 <@ada> …` below lines with the day) or by WeeChat (columns with tabs).

A line's id is its time and its number within that time. Joins, parts and topics are lines of the system: without a
sender, and with their text. A line that is no UTF-8 is read as Windows-1252, each by itself, as clients do.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, tzinfo
from pathlib import Path
from typing import NamedTuple

from backscroll.schema import Message, Room, SaveMessage, SaveRoom
from tests.converters.importing import Commands
from tests.converters.source import FileOrder, id_of, local_millis, storable

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAY = re.compile(r"--- (?:Log (?:opened|closed)|Day changed) \w+ (\w{3}) +(\d{1,2}) (?:\d\d:\d\d:\d\d )?(\d{4})")
IRSSI = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?) (.*)", re.DOTALL)
WEECHAT = re.compile(r"(\d{4}-(?:0\d|1[0-2])-[0-3]\d (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)\t([^\t]*)\t(.*)", re.DOTALL)
SAID = re.compile(r"<[ @+%&~!]?([^>\s]+)> (.*)", re.DOTALL)
ACTED = re.compile(r" \* (\S+) ?(.*)", re.DOTALL)
NOTICED = re.compile(r"-([^\s:!-][^\s:]*?)(?::[^\s-]+)?- (.*)", re.DOTALL)


class Line(NamedTuple):
    """One line: when, who if anybody, what, and the type."""

    when: datetime | None
    sender: str | None
    text: str
    type: str | None = None


def commands_of(path: Path, room_id: str, *, day: date | None = None, zone: tzinfo = UTC) -> Commands:
    """The commands for a log. `day` is that of the first lines where the log does not begin with it."""
    yield SaveRoom(Room(id=room_id, name=room_id))
    order = FileOrder()
    for line in _lines(path, day):
        place = order.place(room_id, None if line.when is None else local_millis(line.when, zone))
        message = Message(
            id=id_of(room_id, place.timestamp, place.ordinal),
            room_id=room_id,
            **place._asdict(),
            sender_id=line.sender,
            content=line.text,
            type=line.type,
        )
        yield SaveMessage(message)


def _lines(path: Path, day: date | None) -> Iterator[Line]:
    for raw in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        text = storable(_decoded(raw.removesuffix(b"\r")))
        if (changed := DAY.match(text)) and changed[1] in MONTHS:
            day = date(int(changed[3]), MONTHS.index(changed[1]) + 1, int(changed[2]))
        elif text:
            yield _of_weechat(text) or _of_irssi(text, day) or Line(None, None, text, "system")


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace")


def _of_weechat(text: str) -> Line | None:
    match = WEECHAT.fullmatch(text)
    if match is None:
        return None
    when = datetime.fromisoformat(match[1])
    prefix, said = match[2].strip(), match[3]
    if prefix == "*":
        nick, _, action = said.partition(" ")
        return Line(when, nick, action, "action")
    if prefix in ("-->", "<--", "--", "=!=", ""):
        return Line(when, None, said, "system")
    return Line(when, prefix.lstrip("@+%&~"), said)


def _of_irssi(text: str, day: date | None) -> Line | None:
    match = IRSSI.fullmatch(text)
    if match is None:
        return None
    if day is None:
        raise ValueError("the log does not say of which day its first lines are; pass day")
    when = datetime.combine(day, time.fromisoformat(match[1]))
    for pattern, kind in ((SAID, None), (ACTED, "action"), (NOTICED, "notice")):
        if found := pattern.fullmatch(match[2]):
            return Line(when, found[1], found[2], kind)
    return Line(when, None, match[2].removeprefix("-!- "), "system")
