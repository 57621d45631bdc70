"""What the daemon is an alternative to: peewee models on the same tables, in the caller's own process.

The file has the same schema, WAL mode and `synchronous=FULL`, so a save is as durable as the daemon's when it returns.
Each save is a transaction; a page is two queries whose models are converted to the payloads of the wire.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee
from playhouse.apsw_ext import APSWDatabase

from backscroll.schema import Message
from backscroll.schema.records import Record
from backscroll.schema.tables import TABLES, Flag, InternalColumn, Json, Messages, Reactions, Table
from tests.bench.measuring import seconds
from tests.bench.tables import make_file
from tests.bench.work import PAGE, Page, Payload, Way, Work

PRAGMAS = {"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1, "cache_size": -16_384}


class Orm:
    """The models of `schema/tables.py`, bound to a file; only one call can be in flight."""

    name = "orm"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.file = make_file(directory / "orm.db")
        self._database = APSWDatabase(str(self.file), pragmas=PRAGMAS)
        self._database.connect()
        self._database.bind(TABLES)

    def save(self, work: Work, _way: Way) -> float:

        def save_all() -> None:
            for message in work.messages:
                self._save(message)

        return seconds(save_all)

    def read(self, work: Work, _way: Way, _operation: str) -> float:
        return seconds(lambda: [_newest(room) for room in work.visits])

    def read_back(self, work: Work) -> list[Page]:
        return [_newest(room) for room in work.rooms]

    def close(self) -> None:
        self._database.close()

    def _save(self, message: Message) -> None:
        with self._database.atomic("IMMEDIATE"):
            Messages.replace(_row(message, Messages)).execute()  # type: ignore[no-untyped-call]  # peewee leaves it untyped
            Reactions.delete().where(Reactions.message_id == message.id).execute()
            if message.reactions:
                Reactions.insert_many([_row(reaction, Reactions) for reaction in message.reactions]).execute()


def _newest(room: str) -> Page:
    of_room = Messages.select().where(Messages.room_id == room)
    newest_first = of_room.order_by(-Messages.timestamp, -Messages.ordinal, -Messages.id)
    messages = list(newest_first.limit(PAGE))[::-1]
    by_message = defaultdict(list)
    reactions = Reactions.select().where(Reactions.message_id.in_([message.id for message in messages]))
    for reaction in reactions.order_by(Reactions.timestamp, Reactions.oder_id, Reactions.emoji):
        by_message[reaction.message_id].append(_payload(reaction))
    return [{**_payload(message), "reactions": by_message[message.id]} for message in messages]


def _row(record: Record, table: type[Table]) -> dict[str, Any]:
    """The values of a record's columns."""
    row = {name: getattr(record, name) for name in table._meta.fields if hasattr(record, name)}
    for name in DOCUMENTS[table]:
        if row.get(name) is not None:
            row[name] = json.dumps(row[name])
    return row


def _payload(model: Table) -> Payload:
    """A model's fields by their names on the wire, without unset ones and defaults."""
    payload = {}
    for name, wire_name, convert in SPELLINGS[type(model)]:
        value = getattr(model, name)
        if value is not None and value != DEFAULTS.get(name):
            payload[wire_name] = value if convert is None else convert(value)
    return payload


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _conversion(field: peewee.Field) -> Callable[[Any], Any] | None:
    conversions: dict[type[peewee.Field], Callable[[Any], Any]] = {Flag: bool, Json: json.loads}
    return conversions.get(type(field))


DEFAULTS = {"ordinal": 0}
DOCUMENTS = {table: [name for name, field in table._meta.fields.items() if isinstance(field, Json)] for table in TABLES}
SPELLINGS = {
    table: [
        (name, _camel(name), _conversion(field))
        for name, field in table._meta.fields.items()
        if not isinstance(field, InternalColumn)
    ]
    for table in TABLES
}
