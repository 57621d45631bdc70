"""The work that every peer of the benchmark is given: the same seeded messages, and the same pages to read.

Knows no peer. A message carries three reactions on every second one; a page is the first or the last 50 of a room.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from backscroll.schema import GetMessages, Message, Reaction

SEED = 20260103
PAGE = 50
PEOPLE = 40
START_MS = 1_767_225_600_000
EMOJIS = ["👍", "❤️", "🧑🏽‍🚀", "🎉", "😀"]
WORDS = ["a", "the", "room", "daemon", "writes", "reads", "Ωmega", "ünïcode", "😀", "∑", "page", "another", "noon"]
WORDS_MIN, WORDS_MAX = 4, 60

Payload = dict[str, Any]
Page = list[Payload]


class Work(NamedTuple):
    """A room of its own: the messages to save into it, and the pages to read from it once they are there."""

    messages: list[Message]
    pages: list[GetMessages]


class Jobs(NamedTuple):
    """What is timed. Everything that is not the peer's to do was done when the jobs were made."""

    save: Callable[[], object]
    read: Callable[[], object]


class Peer(Protocol):
    """One way to store messages and read them.

    `pipelines` says whether it can have many requests under way; one that cannot is only asked for one at a time.
    """

    name: str
    pipelines: bool

    def jobs(self, work: Work, saves_in_flight: int, reads_in_flight: int) -> Jobs:
        """The jobs of saving the messages and of reading the pages, with so many under way at once."""

    def read_back(self, work: Work) -> Sequence[Page]:
        """The pages as the wire's payloads, to be compared before anything is timed."""

    def close(self) -> None: ...


def make_work(room: str, messages: int, pages: int) -> Work:
    """The work of one room; the same name gives the same work."""
    draw = random.Random(f"{SEED} {room}")
    last = max(0, messages - PAGE)
    return Work(
        messages=[_message(room, number, draw) for number in range(messages)],
        pages=[GetMessages(room, limit=PAGE, offset=last * (number % 2)) for number in range(pages)],
    )


def expected_pages(work: Work) -> list[Page]:
    """What every peer must read, worked out from the messages alone."""
    ordered = sorted(work.messages, key=lambda message: (message.timestamp, message.id))
    payloads = [_as_read(message) for message in ordered]
    return [payloads[page.offset : page.offset + page.limit] for page in work.pages]


def _message(room: str, number: int, draw: random.Random) -> Message:
    message_id = f"{room}-{number:06}-{draw.getrandbits(40):010x}"
    timestamp = START_MS + number * 1_000
    sender = f"user-{draw.randrange(PEOPLE)}"
    return Message(
        id=message_id,
        room_id=room,
        channel_id="general",
        sender_id=sender,
        sender_name=sender,
        content=" ".join(draw.choices(WORDS, k=draw.randint(WORDS_MIN, WORDS_MAX))),
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


def _as_read(message: Message) -> Payload:
    reactions = sorted(message.reactions or [], key=lambda item: (item.timestamp, item.oder_id, item.emoji))
    payload: Payload = msgspec.to_builtins(msgspec.structs.replace(message, reactions=reactions))
    return payload
