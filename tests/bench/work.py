"""The work of every peer of the benchmark: the same messages to save, and the same rooms to read.

Independent of peers. Texts and senders come from the chat history beside the repository if there is one, else they are
generated; ids, rooms and reactions are seeded. Every second message has three reactions. Reads are always of the newest
50 messages of a room, as the payloads of the wire.
"""

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from backscroll.schema import Message, Reaction

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "equational.jsonl.gz"
SEED = 20260103
PAGE = 50
PEOPLE = 40
START_MS = 1_767_225_600_000
EMOJIS = ["👍", "❤️", "🧑🏽‍🚀", "🎉", "😀"]
WORDS = ["<p>a", "the", "room", "daemon", "writes", "reads</p>", "Ωmega", "ünïcode", "😀", "∑", "page", '"noon"']
WORDS_MIN, WORDS_MAX = 4, 600  # about as much text as in the chat history
GENERATED_TEXTS = 1_000

Payload = dict[str, Any]
Page = list[Payload]


class Text(NamedTuple):
    """A message's text and sender."""

    sender: str
    topic: str
    content: str


class Work(NamedTuple):
    """Messages to save into rooms of their own, and which of the rooms to read afterwards."""

    name: str
    messages: list[Message]
    rooms: list[str]
    visits: list[str]

    def offset(self, room: str) -> int:
        """How many messages of a room come before its newest page."""
        return max(0, sum(message.room_id == room for message in self.messages) - PAGE)


class Way(NamedTuple):
    """How requests are sent: by how many callers, each with how many in flight."""

    callers: int = 1
    in_flight: int = 1

    @property
    def title(self) -> str:
        if self.callers > 1:
            return f"{self.callers} callers, {self.in_flight} at a time each"
        return "one at a time" if self.in_flight == 1 else f"{self.in_flight} in flight"


ONE = Way()


class NotHere(Exception):
    """A peer that cannot run on this machine, and the reason."""


class Peer(Protocol):
    """One way to store messages and read them. Jobs return seconds that count only the peer's own work."""

    name: str

    @property
    def file(self) -> Path | None:
        """The peer's database, where it has one."""

    def save(self, work: Work, way: Way, /) -> float:
        """Save every message durably, in a transaction each or in shared ones."""

    def read(self, work: Work, way: Way, operation: str, /) -> float:
        """Read the newest page of each room to be visited."""

    def read_back(self, work: Work) -> list[Page]:
        """The newest page of every room as payloads of the wire, to be compared before anything is timed."""

    def close(self) -> None: ...


def make_work(name: str, messages: int, visits: int = 0, rooms: int = 1) -> Work:
    """The work of a name; the same name gives the same work. Messages are distributed over the rooms in turn."""
    draw = random.Random(f"{SEED} {name}")
    names = [f"{name}-{number}" for number in range(rooms)]
    return Work(name, list(islice(stream(name, names), messages)), names, [draw.choice(names) for _ in range(visits)])


def stream(name: str, rooms: list[str]) -> Iterator[Message]:
    """Messages without end, with ids that no other name has."""
    draw = random.Random(f"{SEED} {name} messages")
    for number, (room, text) in enumerate(zip(cycle(rooms), cycle(texts()), strict=False)):
        yield _message(f"{name}-{number:07}-{draw.getrandbits(40):010x}", room, number, text, draw)


def expected_pages(work: Work) -> list[Page]:
    """What every peer must read back, computed from the messages alone."""
    by_room: dict[str, list[Message]] = defaultdict(list)
    for message in work.messages:
        by_room[message.room_id].append(message)
    return [[_as_read(message) for message in sorted(by_room[room], key=_place)[-PAGE:]] for room in work.rooms]


def source() -> str:
    """Where the texts come from."""
    return "real chat history" if CORPUS.exists() else f"generated, seed {SEED}"


@cache
def texts() -> list[Text]:
    """The chat history, or generated texts."""
    if CORPUS.exists():
        with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
            return [Text(item["sender"], item["topic"], item["content"]) for item in map(json.loads, lines)]
    draw = random.Random(SEED)
    return [
        Text(
            sender=f"user-{draw.randrange(PEOPLE)}",
            topic=f"topic {draw.randrange(PEOPLE)} – ünïcödé",
            content=" ".join(draw.choices(WORDS, k=draw.randint(WORDS_MIN, WORDS_MAX))),
        )
        for _ in range(GENERATED_TEXTS)
    ]


def _message(message_id: str, room: str, number: int, text: Text, draw: random.Random) -> Message:
    timestamp = START_MS + number * 1_000
    return Message(
        id=message_id,
        room_id=room,
        channel_id=text.topic[:30],
        sender_id=text.sender,
        sender_name=text.sender,
        content=text.content,
        timestamp=timestamp,
        metadata={"client": "bench", "number": number} if number % 10 == 0 else None,
        reactions=_reactions(message_id, timestamp, draw) if number % 2 == 0 else [],
    )


def _reactions(message_id: str, timestamp: int, draw: random.Random) -> list[Reaction]:
    people = draw.sample(range(PEOPLE), 3)
    choices = [(f"user-{person}", draw.choice(EMOJIS), timestamp + 1 + place) for place, person in enumerate(people)]
    return [
        Reaction(message_id=message_id, oder_id=person, emoji=emoji, timestamp=time) for person, emoji, time in choices
    ]


def _place(message: Message) -> tuple[int, str]:
    return message.timestamp, message.id


def _as_read(message: Message) -> Payload:
    reactions = sorted(message.reactions or [], key=lambda item: (item.timestamp, item.oder_id, item.emoji))
    payload: Payload = msgspec.to_builtins(msgspec.structs.replace(message, reactions=reactions))
    return payload
