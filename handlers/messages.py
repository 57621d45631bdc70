"""Messages: saved with their reactions split off, read with them put back."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from peewee import SQL, Expression

from backscroll.handlers import command_log, reactions
from backscroll.handlers.sql import Named, RowMapper, changes, insertion, statement
from backscroll.handlers.storage import Database, Row
from backscroll.schema.errors import Conflict, NotFound
from backscroll.schema.operations import (
    ClearRoomMessages,
    DeleteMessage,
    GetMessageById,
    GetMessages,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.records import DELETED_TEXT, Message
from backscroll.schema.tables import Attachments, Mentions, Messages, Reactions

ROWS = RowMapper(Message, Messages)
ID_AT = ROWS.names.index("id")

INSERT = statement(insertion(Messages, [*ROWS.names, "origin_seq", "origin_member"]).on_conflict_ignore())
UPSERT = ROWS.upsert()
UPSERT_IN_PLACE = ROWS.upsert(unless=(Messages.is_deleted == SQL("1")) | (Messages.room_id != SQL("excluded.room_id")))
BURY = statement(
    Messages.update(
        {
            Messages.is_deleted: SQL("1"),
            Messages.content: SQL("''"),
            Messages.link_metadata: SQL("NULL"),
            Messages.metadata: SQL("NULL"),
            Messages.origin_seq: SQL("0"),
        }
    ).where(Messages.id == Named("message_id"))
)
SELECT_ONE = statement(Messages.select(*ROWS.columns).where(Messages.id == Named("message_id")))
SELECT_OF_ROOM = statement(
    Messages.select(*ROWS.columns)
    .where(Messages.room_id == Named("room_id"))
    .order_by(Messages.timestamp, Messages.id)
    .limit(Named("limit"))
    .offset(Named("offset"))
)


class Deletion:
    """The statements that remove the messages for which `where` holds, with all that hangs on them.

    What was said in them goes from the command log, and so does what was said of an attachment while it hung elsewhere.
    """

    def __init__(self, where: Expression) -> None:
        ids = Messages.select(Messages.id).where(where)
        attachment_ids = Attachments.select(Attachments.id).where(Attachments.message_id.in_(ids))
        mentions = [
            (Mentions.noun == SQL("'message'")) & Mentions.subject.in_(ids),
            (Mentions.noun == SQL("'attachment'")) & Mentions.subject.in_(attachment_ids),
        ]
        forgets = [Mentions.delete().where(each) for each in mentions]
        hanging = [table.delete().where(table.message_id.in_(ids)) for table in (Reactions, Attachments)]
        said_by = Messages.select(Messages.origin_seq, Messages.origin_member).where(
            where & (Messages.origin_seq > SQL("0"))
        )
        mentioned = (Mentions.select(Mentions.seq, Mentions.member).where(each) for each in mentions)
        self.sayings = (statement(said_by), *map(statement, mentioned))
        self.around = tuple(statement(query) for query in (*forgets, *hanging))
        self.delete = statement(Messages.delete().where(where))

    def carry_out(self, db: Database, **place: str) -> None:
        """Remove the messages at a place, which is in a room."""
        db.touch(place["room_id"])
        self.carry_out_around(db, **place)
        db.run(self.delete, **place)

    def carry_out_around(self, db: Database, **place: str) -> None:
        """Remove all but the messages' own rows."""
        command_log.redact([row for select in self.sayings for row in db.rows(select, **place)], db)
        for delete in self.around:
            db.run(delete, **place)


OF_ROOM = Messages.room_id == Named("room_id")
DELETION_OF_ONE = Deletion(Messages.id == Named("message_id"))
DELETION_OF_ROOM = Deletion(OF_ROOM)
DELETION_OF_CHANNEL = Deletion(OF_ROOM & (Messages.channel_id == Named("channel_id")))


def save_message(command: SaveMessage, db: Database) -> None:
    save(command.message, "$.payload.message.reactions", db)


def update_message(command: UpdateMessage, db: Database) -> None:
    stored = _stored(command.message_id, db)
    if stored.is_deleted:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was deleted")
    save(replace(stored, **changes(command.updates)), "$.payload.updates.reactions", db)


def delete_message(command: DeleteMessage, db: Database) -> None:
    stored = _stored(command.message_id, db)
    if not stored.is_deleted:
        db.touch(stored.room_id)
        _bury(command.message_id, db)


def clear_room_messages(command: ClearRoomMessages, db: Database) -> None:
    DELETION_OF_ROOM.carry_out(db, room_id=command.room_id)


def get_messages(query: GetMessages, db: Database) -> list[Message]:
    rows = db.rows(SELECT_OF_ROOM, room_id=query.room_id, limit=query.limit, offset=query.offset)
    return with_reactions(rows, db)


def get_message_by_id(query: GetMessageById, db: Database) -> Message | None:
    messages = with_reactions(db.rows(SELECT_ONE, message_id=query.message_id), db)
    return messages[0] if messages else None


def save(message: Message, reactions_path: str, db: Database) -> None:
    """Write a whole message; a tombstone in its place stays what it is."""
    reactions.check_reactions(message, reactions_path)
    row = ROWS.to_row(message)
    is_new = db.write(INSERT, (*row, db.entry.seq, db.entry.member))
    if not is_new and not _write_over(message, row, db):
        return
    db.touch(message.room_id)
    if message.is_deleted:
        _bury(message.id, db)
    else:
        reactions.replace_reactions(message, db)


def _write_over(message: Message, row: Sequence[Any], db: Database) -> bool:
    """Write a message over the one that is there; false where that is a tombstone."""
    command_log.mention("message", message.id, db)
    written = db.write(UPSERT_IN_PLACE, row) or _move(message, row, db)
    if not written:
        command_log.forget("message", message.id, db)
    return bool(written)


def _move(message: Message, row: Sequence[Any], db: Database) -> bool:
    """Write a message over the one in another room; false where that is a tombstone."""
    stored = _stored(message.id, db)
    if stored.is_deleted:
        return False
    db.touch(stored.room_id)
    return db.write(UPSERT, row) > 0


def _bury(message_id: str, db: Database) -> None:
    """Turn a message into a tombstone: its place stays, its text and all that hangs on it go."""
    DELETION_OF_ONE.carry_out_around(db, message_id=message_id)
    db.run(BURY, message_id=message_id)


def _stored(message_id: str, db: Database) -> Message:
    """A message as it lies in its table, without reactions."""
    row = db.row(SELECT_ONE, message_id=message_id)
    if row is None:
        raise NotFound.at("$.payload.messageId", f"there is no message {message_id!r}")
    return ROWS.to_record(row)


def with_reactions(rows: Sequence[Row], db: Database) -> list[Message]:
    """The messages of rows, as they are read: a tombstone shows its sentinel and nothing else."""
    by_message = reactions.reactions_by_message([row[ID_AT] for row in rows], db)
    messages = [ROWS.to_record(row, reactions=by_message.get(row[ID_AT], [])) for row in rows]
    return [
        replace(message, content=DELETED_TEXT, reactions=[]) if message.is_deleted else message for message in messages
    ]
