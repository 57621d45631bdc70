"""Messages: saved with their reactions split off, read with them put back."""

from collections.abc import Sequence

from msgspec.structs import replace
from peewee import SQL, Expression

from backscroll.handlers import attachments, reactions
from backscroll.handlers.database import Database, Row
from backscroll.handlers.sql import Param, Rows, changes, statement
from backscroll.schema.errors import Conflict, NotFound
from backscroll.schema.operations import (
    ClearRoomMessages,
    DeleteMessage,
    GetMessageById,
    GetMessages,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.records import DELETED_TEXT, Message, Reaction
from backscroll.schema.tables import Attachments, Messages, Reactions

ROWS = Rows(Message, Messages)

UPSERT_UNLESS_DELETED = ROWS.upsert(unless=Messages.is_deleted == SQL("1"))
BURY = statement(
    Messages.update(
        {
            Messages.is_deleted: SQL("1"),
            Messages.content: SQL("''"),
            Messages.link_metadata: SQL("NULL"),
            Messages.metadata: SQL("NULL"),
        }
    ).where(Messages.id == Param("message_id"))
)
SELECT_ONE = statement(Messages.select(*ROWS.columns).where(Messages.id == Param("message_id")))
SELECT_OF_ROOM = statement(
    Messages.select(*ROWS.columns)
    .where(Messages.room_id == Param("room_id"))
    .order_by(Messages.timestamp, Messages.id)
    .limit(Param("limit"))
    .offset(Param("offset"))
)


def _deletions(where: Expression) -> tuple[str, ...]:
    """The statements that remove the messages for which `where` holds, what hangs on them first."""
    ids = Messages.select(Messages.id).where(where)
    hanging = [table.delete().where(table.message_id.in_(ids)) for table in (Reactions, Attachments)]
    return tuple(statement(query) for query in (*hanging, Messages.delete().where(where)))


OF_ROOM = Messages.room_id == Param("room_id")
DELETIONS_OF_ROOM = _deletions(OF_ROOM)
DELETIONS_OF_CHANNEL = _deletions(OF_ROOM & (Messages.channel_id == Param("channel_id")))


def save_message(command: SaveMessage, db: Database) -> None:
    save(command.message, "$.payload.message.reactions", db)


def update_message(command: UpdateMessage, db: Database) -> None:
    stored = _stored(command.message_id, db)
    if stored.is_deleted:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was deleted")
    save(replace(stored, **changes(command.updates)), "$.payload.updates.reactions", db)


def delete_message(command: DeleteMessage, db: Database) -> None:
    if not _stored(command.message_id, db).is_deleted:
        _bury(command.message_id, db)


def clear_room_messages(command: ClearRoomMessages, db: Database) -> None:
    delete_messages_of_room(command.room_id, db)


def get_messages(query: GetMessages, db: Database) -> list[Message]:
    rows = db.rows(SELECT_OF_ROOM, room_id=query.room_id, limit=query.limit, offset=query.offset)
    return with_reactions(rows, db)


def get_message_by_id(query: GetMessageById, db: Database) -> Message | None:
    messages = with_reactions(db.rows(SELECT_ONE, message_id=query.message_id), db)
    return messages[0] if messages else None


def delete_messages_of_room(room_id: str, db: Database) -> None:
    """Remove every message of a room with all that hangs on it."""
    for delete in DELETIONS_OF_ROOM:
        db.run(delete, room_id=room_id)


def delete_messages_of_channel(room_id: str, channel_id: str, db: Database) -> None:
    """Remove every message of a channel with all that hangs on it."""
    for delete in DELETIONS_OF_CHANNEL:
        db.run(delete, room_id=room_id, channel_id=channel_id)


def save(message: Message, reactions_path: str, db: Database) -> None:
    """Write a whole message; a tombstone in its place stays what it is."""
    reactions.check_reactions(message, reactions_path)
    written = db.run(UPSERT_UNLESS_DELETED, **ROWS.to_row(message))
    if not written:
        return
    if message.is_deleted:
        _bury(message.id, db)
    else:
        reactions.replace_reactions(message, db)


def _bury(message_id: str, db: Database) -> None:
    """Turn a message into a tombstone: its place stays, its text and all that hangs on it go."""
    db.run(BURY, message_id=message_id)
    db.run(reactions.DELETE_OF_MESSAGE, message_id=message_id)
    db.run(attachments.DELETE_OF_MESSAGE, message_id=message_id)


def _stored(message_id: str, db: Database) -> Message:
    """A message as it lies in its table, without reactions."""
    row = db.row(SELECT_ONE, message_id=message_id)
    if row is None:
        raise NotFound.at("$.payload.messageId", f"there is no message {message_id!r}")
    return ROWS.to_record(row)


def with_reactions(rows: Sequence[Row], db: Database) -> list[Message]:
    messages = [ROWS.to_record(row) for row in rows]
    by_message = reactions.reactions_by_message([message.id for message in messages], db)
    return [_as_read(message, by_message.get(message.id, [])) for message in messages]


def _as_read(message: Message, message_reactions: list[Reaction]) -> Message:
    if message.is_deleted:
        return replace(message, content=DELETED_TEXT, reactions=[])
    return replace(message, reactions=message_reactions)
