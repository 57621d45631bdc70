"""The tables that all peers write to: an empty file with the schema of the migrations, plain SQL for it, and its rows.

The peers that use SQL directly (sqlite-rx, apsw) take their statements from here, so that they do the same work.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import msgspec

import backscroll.bus.sqlite.checksums  # noqa: F401  # the daemon's files are written here as well
from backscroll.schema import Message, Reaction
from backscroll.schema.migrations.sqlite import migrations
from tests.bench.work import Page, Payload

MESSAGE = ["id", "room_id", "sender_id", "content", "timestamp", "channel_id", "sender_name", "edited_at", "is_deleted"]
MESSAGE += ["reply_to_id", "revision", "head_hash", "link_metadata", "metadata"]
REACTION = ["message_id", "oder_id", "emoji", "id", "user_id", "timestamp"]
DOCUMENTS = {"link_metadata", "metadata"}

NEWEST = "WHERE room_id = ? ORDER BY timestamp DESC, ordinal DESC, id DESC LIMIT ?"
SELECT_NEWEST = f"SELECT {', '.join(MESSAGE)} FROM messages {NEWEST}"
SELECT_REACTIONS = (
    f"SELECT {', '.join(REACTION)} FROM reactions WHERE message_id IN (SELECT id FROM messages {NEWEST}) "
    "ORDER BY message_id, timestamp, oder_id, emoji"
)
DELETE_REACTIONS = "DELETE FROM reactions WHERE message_id = ?"


def insert(table: str, columns: Sequence[str], verb: str = "INSERT") -> str:
    """The statement that writes a whole row, by position."""
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def connect(path: Path) -> apsw.Connection:
    """A connection that makes every commit durable, as the daemon's does."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("foreign_keys", True)
    connection.pragma("cache_size", -16_384)
    return connection


def make_file(path: Path) -> Path:
    """A new file with empty tables."""
    with closing(connect(path)) as connection:
        for script in migrations():
            connection.execute(script)
    return path


def message_row(message: Message) -> tuple[Any, ...]:
    """The values of `MESSAGE`."""
    return tuple(_stored(name, getattr(message, name)) for name in MESSAGE)


def reaction_row(reaction: Reaction) -> tuple[Any, ...]:
    """The values of `REACTION`."""
    return tuple(getattr(reaction, name) for name in REACTION)


def page_of(messages: Iterable[Sequence[Any]], reactions: Iterable[Sequence[Any]]) -> Page:
    """The payloads of rows that were selected newest first, with their reactions."""
    by_message: dict[str, Page] = defaultdict(list)
    for row in reactions:
        by_message[row[0]].append(_payload(REACTION, row))
    page = [{**_payload(MESSAGE, row), "reactions": by_message[row[0]]} for row in messages]
    return page[::-1]


def rows_of(path: Path, rooms: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """The rows of some rooms in a file, whoever wrote it: messages and reactions, with JSON decoded."""
    marks = ", ".join("?" * len(rooms))
    messages = f"SELECT {', '.join(MESSAGE)} FROM messages WHERE room_id IN ({marks}) ORDER BY id"
    ids = f"SELECT id FROM messages WHERE room_id IN ({marks})"
    reactions = f"SELECT {', '.join(REACTION)} FROM reactions WHERE message_id IN ({ids}) ORDER BY 1, 2, 3"
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        found: list[list[Any]] = [connection.execute(sql, tuple(rooms)).fetchall() for sql in (messages, reactions)]
    documents = len(MESSAGE) - len(DOCUMENTS)
    return [[(*row[:documents], *map(_parsed, row[documents:])) for row in found[0]], found[1]]


def totals_of(path: Path, rooms: Sequence[str]) -> tuple[int, ...]:
    """The numbers of messages, characters and reactions of some rooms in a file."""
    marks = ", ".join("?" * len(rooms))
    messages = f"SELECT count(*), sum(length(content)) FROM messages WHERE room_id IN ({marks})"
    reactions = f"SELECT count(*) FROM reactions JOIN messages m ON m.id = message_id WHERE m.room_id IN ({marks})"
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        found: list[Any] = [connection.execute(sql, tuple(rooms)).fetchall()[0] for sql in (messages, reactions)]
    return (*found[0], *found[1])


def _stored(name: str, value: Any) -> Any:
    if name in DOCUMENTS and value is not None:
        return msgspec.json.encode(value).decode()
    return int(value) if isinstance(value, bool) else value


def _payload(names: Sequence[str], row: Sequence[Any]) -> Payload:
    """The values of a row by their names on the wire, without unset ones."""
    return {CAMEL[name]: _shown(name, value) for name, value in zip(names, row, strict=True) if value is not None}


def _shown(name: str, value: Any) -> Any:
    if name in DOCUMENTS:
        return json.loads(value)
    return bool(value) if name == "is_deleted" else value


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _spelled(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


CAMEL = {name: _spelled(name) for name in MESSAGE + REACTION}
