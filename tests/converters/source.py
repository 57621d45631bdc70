"""What all converters need: text as it can be stored, ids that fit, times in any unit, and the order of a file."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from backscroll.schema import Arrival, Command, Reaction, SaveReaction
from backscroll.schema.limits import (
    ID_BYTES_MAX,
    JSON_INTEGER_MAX,
    JSON_INTEGER_MIN,
    MILLIS_MAX,
    REACTION_METADATA_BYTES_MAX,
)

Plain = dict[str, Any]

STEP_BACK_MAX_MS = 2 * 60 * 60 * 1000
"""How far times in a file that is in order may step back because a clock was put back, as in autumn."""


# Text and ids


def read_text(path: Path) -> str:
    """The text of a file with its line ends, without a byte order mark; each byte that is not UTF-8 is a U+FFFD."""
    return path.read_bytes().decode("utf-8-sig", errors="replace")


def parse_json(text: str) -> Any:
    """JSON whose texts can all be stored: Python reads halves of emoji, NUL, NaN and integers of any size."""
    return storable(json.loads(text, parse_constant=lambda _: None))


def storable(value: Any) -> Any:
    """A value of JSON with U+FFFD in place of unpaired surrogates and NUL, and numbers beyond 64 bits as text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {storable(key): storable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, int) and not JSON_INTEGER_MIN <= value <= JSON_INTEGER_MAX:
        return str(value)
    return value


def as_id(value: object) -> str | None:
    """An id or an emoji, or None where there is none. One that is too long is cut and ends with its digest."""
    text = "" if value is None else str(value)
    if len(text.encode()) <= ID_BYTES_MAX:
        return text or None
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.encode()[: ID_BYTES_MAX - len(digest) - 3].decode(errors="ignore") + "…" + digest


def id_of(*parts: object) -> str:
    """An id that is made of several, such as the room's and the message's."""
    return as_id("/".join(map(str, parts))) or ""


def some(**fields: Any) -> Plain | None:
    """The fields that a file has, or None if it has none of them."""
    return {name: value for name, value in fields.items() if value is not None} or None


def picked(source: Mapping[str, Any], *names: str) -> Plain | None:
    """The fields with these names that a record has, as they are, or None if it has none of them."""
    return {name: source[name] for name in names if source.get(name) not in (None, "", [], {})} or None


# Times


SECONDS, MILLISECONDS = 1000.0, 1.0
"""Units of time, in milliseconds."""


def millis(value: object, unit: float | None = None) -> int | None:
    """Milliseconds since the epoch of a number; None if it is none, or cannot be a time.

    Where the unit is not sure it is told by the size: seconds, ms, µs and ns since 1973 differ by a factor of 1,000.
    """
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 1e20:
        return None
    if unit is None:
        limits = ((1e11, SECONDS), (1e14, MILLISECONDS), (1e17, MILLISECONDS / 1e3), (1e20, MILLISECONDS / 1e6))
        unit = next(each for limit, each in limits if number < limit)
    found = round(number * unit)
    return found if found <= MILLIS_MAX else None


def iso_millis(text: object, zone: tzinfo = UTC) -> int | None:
    """The milliseconds of a time in ISO 8601; without an offset it is in `zone`."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return local_millis(when, zone) if when.tzinfo is None else _valid(when)


def local_millis(when: datetime, zone: tzinfo) -> int | None:
    return _valid(when.replace(tzinfo=zone))


def _valid(when: datetime) -> int | None:
    found = round(when.timestamp() * 1000)
    return found if 0 <= found <= MILLIS_MAX else None


# Order


class Ties:
    """Counts what has the same key, from 0."""

    def __init__(self) -> None:
        self._seen: Counter[object] = Counter()

    def next(self, key: object) -> int:
        number = self._seen[key]
        self._seen[key] += 1
        return number


class Place(NamedTuple):
    """Where a message is in the order of its room. `sent_at` is what the file says, where that would not lead there."""

    timestamp: int
    ordinal: int
    sent_at: int | None


class FileOrder:
    """Gives the messages of a file that is in order their places.

    A message without a time has that of the message before it. Where times step back by an hour or so, because clocks
    were put back, `timestamp` stays and `sent_at` is what the file says. A greater step is believed: otherwise one
    wrong time far ahead would move all that follow.
    """

    def __init__(self) -> None:
        self._last: dict[object, int] = {}
        self._ties = Ties()

    def place(self, room_id: object, time: int | None) -> Place:
        last = self._last.get(room_id, 0)
        steps_back = time is not None and last - STEP_BACK_MAX_MS <= time < last
        timestamp = last if time is None or steps_back else time
        self._last[room_id] = timestamp
        return Place(timestamp, self._ties.next((room_id, timestamp)), time if steps_back else None)


# Reactions


class Reactor(NamedTuple):
    """Somebody who reacted, and when, if the file tells."""

    oder_id: str
    timestamp: int | None = None
    id: str | None = None


def reactions(
    message_id: str,
    emoji: str,
    reactors: Iterable[Reactor],
    total: object = None,
    *,
    metadata: Plain | None = None,
    arrival: Arrival | None = None,
) -> Iterator[Command[None]]:
    """The reactions with one emoji: of those who are named, and the number of the others out of `total`."""
    key = as_id(emoji)
    if key is None:
        return
    if key != emoji:
        metadata = {"emoji": emoji} | (metadata or {})
    if metadata is not None and len(msgspec.json.encode(metadata)) > REACTION_METADATA_BYTES_MAX:
        metadata = None  # a reaction without the address of its image is better than none
    named = {each.oder_id: each for each in reactors}
    for each in named.values():
        reaction = Reaction(
            message_id=message_id,
            oder_id=each.oder_id,
            emoji=key,
            id=each.id,
            timestamp=each.timestamp,
            metadata=metadata,
        )
        yield SaveReaction(reaction, arrival=arrival)
    unnamed = total - len(named) if isinstance(total, int) else 0
    if unnamed > 0:
        yield SaveReaction(
            Reaction(message_id=message_id, emoji=key, count=unnamed, metadata=metadata), arrival=arrival
        )
