"""WhatsApp: the text file of one chat, from Android (`5/1/26, 21:05 - Ada: …`) or iOS (`[05.01.26, 21:05:12] Ada: …`).

There are no ids, no zone and on Android no seconds. A message's id is its time and its number within that time, which
is the same in every export of the chat that begins before it. Senders are the names that the phone showed. The order of
day and month is taken from a day after the twelfth; where there is none, it must be told.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple

from backscroll.schema import Attachment, Message, Room, SaveAttachment, SaveMessage, SaveRoom
from tests.converters.importing import Commands
from tests.converters.source import FileOrder, id_of, local_millis, read_text, storable

MARKS = "\u200e\u200f\u202a\u202b\u202c\ufeff"
"""Invisible marks of direction, which begin lines and what WhatsApp itself has written in them."""
SPACE = "[ \u00a0\u202f]"
_DATE = r"(\d{1,4})[./-](\d{1,2})[./-](\d{1,4})\.?"
_TIME = rf"(\d{{1,2}})[:.](\d{{2}})(?:[:.](\d{{2}}))?(?:{SPACE}?([AaPp])\.?{SPACE}?[Mm]\.?)?"
HEAD = re.compile(rf"[{MARKS}]*(?:\[{_DATE},?{SPACE}{_TIME}\]|{_DATE},?{SPACE}{_TIME}{SPACE}-){SPACE}?(.*)", re.DOTALL)
SENDER = re.compile(r"([^:\n][^\n]*?):(?: (.*)|(?=\n|$)(.*))", re.DOTALL)
SYSTEM = re.compile(r" changed (?:the subject|the group|this group)| created group |^You (?:changed|created) ")
"""Lines without a sender in which a colon may follow later, in a name that somebody gave."""
OF_WHATSAPP = re.compile(
    r"end-to-end encrypted|joined using|\b(?:added|removed|left|created this group)\b|^Waiting for"
)
DELETED = re.compile(r"(?:This message was deleted|You deleted this message)(?: by admin .*)?\.?")
EDITED = re.compile(rf"{SPACE}?\u200e?<This message was edited>$")
FILE = re.compile(r"\u200e?<attached: ([^>\n]+)>|^\u200e?([^\n/]+\.\w{2,5}) \(file attached\)", re.MULTILINE)
OMITTED = re.compile(r"<Media omitted>|(image|video|audio|sticker|GIF|document|Contact card) omitted")
CALL = re.compile(r"(?:Missed )?(?:voice|video|group|group voice|group video) call\b", re.IGNORECASE)
MENTION = re.compile("@\u2068([^\u2069]+)\u2069")


class Line(NamedTuple):
    """A line that begins a message, with the lines that follow: the numbers of its date and time, and the text."""

    date: tuple[int, int, int]
    time: tuple[int, int, int]
    text: str
    is_ios: bool


def commands_of(path: Path, room_id: str, *, zone: tzinfo = UTC, day_first: bool | None = None) -> Commands:
    """The commands for a chat. `zone` is that of the phone; `day_first` is needed where the file does not tell."""
    lines = list(_lines(storable(read_text(path))))
    yield SaveRoom(Room(id=room_id, name=room_id))
    if day_first is None:
        day_first = _day_first(lines)
    order = FileOrder()
    for line in lines:
        yield from _commands_of_line(line, room_id, order, local_millis(_datetime(line, day_first), zone))


def _lines(text: str) -> Iterator[Line]:
    """The messages; a line that begins with no date, or with one that cannot be, belongs to the one above."""
    last: Line | None = None
    for raw in text.split("\n"):  # a message may contain any other kind of line end
        text_line = raw.removesuffix("\r")
        line = _parsed(text_line)
        if line is not None:
            if last is not None:
                yield last
            last = line
        elif last is not None:
            last = last._replace(text=f"{last.text}\n{text_line}")
    if last is not None:
        yield last._replace(text=last.text.removesuffix("\n"))


def _parsed(raw: str) -> Line | None:
    match = HEAD.fullmatch(raw)
    if match is None:
        return None
    is_ios = match[1] is not None
    first, second, third, hour, minute, seconds, half = match.groups()[:7] if is_ios else match.groups()[7:14]
    hours = int(hour) if half is None else int(hour) % 12 + (12 if half in "Pp" else 0)
    line = Line((int(first), int(second), int(third)), (hours, int(minute), int(seconds or 0)), match[15], is_ios)
    possible = any(_is_date(line, day_first) for day_first in (True, False))
    return line if possible else None


def _is_date(line: Line, day_first: bool) -> bool:
    try:
        _datetime(line, day_first)
    except ValueError:
        return False
    return True


def _datetime(line: Line, day_first: bool) -> datetime:
    first, second, third = line.date
    if first > 31:  # 2026-01-05
        year, month, day = first, second, third
    else:
        year, month, day = third, *((second, first) if day_first else (first, second))
    return datetime(year + 2000 if year < 100 else year, month, day, *line.time)


def _day_first(lines: list[Line]) -> bool:
    """Which order of day and month makes all dates possible."""
    orders = [day_first for day_first in (True, False) if all(_is_date(line, day_first) for line in lines)]
    ambiguous = any(line.date[0] <= 31 and line.date[0] != line.date[1] for line in lines)
    if not orders:
        raise ValueError("no order of day and month fits all dates; is the file put together from two?")
    if len(orders) == 2 and ambiguous:
        raise ValueError("the dates do not tell whether the day or the month comes first; pass day_first")
    return orders[0]


def _commands_of_line(line: Line, room_id: str, order: FileOrder, time: int | None) -> Commands:
    place = order.place(room_id, time)
    sender, text = _sender_and_text(line)
    plain = text.strip(MARKS)
    is_deleted = DELETED.fullmatch(plain) is not None
    was_edited = EDITED.search(text) is not None
    message = Message(
        id=id_of(room_id, place.timestamp, place.ordinal),
        room_id=room_id,
        **place._asdict(),
        sender_id=sender,
        content=EDITED.sub("", text).lstrip("\u200e"),
        type=_type(plain) or (None if sender else "system"),
        is_deleted=is_deleted,
        mentions=list(dict.fromkeys(MENTION.findall(text))) or None,
        metadata={"edited": True} if was_edited else None,  # when, the file does not tell
    )
    yield SaveMessage(message)
    for number, match in enumerate(FILE.finditer(text)):
        filename = (match[1] or match[2]).strip(MARKS)
        yield SaveAttachment(Attachment(id=id_of(message.id, number), message_id=message.id, filename=filename))


def _sender_and_text(line: Line) -> tuple[str | None, str]:
    """Who wrote a line, or None for the system, whose lines on iOS bear the group's name and begin with a mark."""
    match = SENDER.fullmatch(line.text)
    if match is None or SYSTEM.search(match[1]):
        return None, line.text
    sender, text = match[1].strip(MARKS), match[2] or match[3] or ""
    by_whatsapp = line.is_ios and text.startswith("\u200e") and not text.endswith("omitted") and not FILE.search(text)
    if by_whatsapp and (OF_WHATSAPP.search(text) or SYSTEM.search(text)):
        return None, text
    return sender, text


def _type(text: str) -> str | None:
    if text.startswith("POLL:"):
        return "poll"
    if CALL.match(text):
        return "call"
    omitted = OMITTED.fullmatch(text)
    return None if omitted is None else (omitted[1] or "media").lower()
