"""Messages. Their reactions are stored in a table of their own and added again when messages are read."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from peewee import SQL, Expression

from backscroll.handlers import changes, media, reactions
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, RowMapper, field_changes, insertion, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Fields
from backscroll.schema.errors import Conflict, NotFound, TooLarge
from backscroll.schema.limits import REPLY_BYTES_MAX
from backscroll.schema.operations import (
    ClearRoomMessages,
    DeleteMessage,
    GetMessageById,
    GetMessages,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.records import DELETED_TEXT, Message
from backscroll.schema.tables import Attachments, LogReferences, Messages, Reactions

ROWS = RowMapper(Message, Messages, elsewhere=("reactions", "attachments"))
TEXT: Fields = frozenset(changes.MESSAGE_TEXT)
ID_AT = ROWS.names.index("id")

INSERT = statement(insertion(Messages, [*ROWS.names, "origin_seq", "origin_member"]).on_conflict_ignore())
UPSERT = ROWS.upsert()
UPSERT_IN_PLACE = ROWS.upsert(unless=(Messages.is_deleted == SQL("1")) | (Messages.room_id != SQL("excluded.room_id")))
MAKE_TOMBSTONE = statement(
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
    """The statements that delete the messages matching `where`, with their reactions and attachments.

    The text of all of these is erased from the command log, including text about an attachment from a time when it
    belonged to another message.
    """

    def __init__(self, where: Expression) -> None:
        ids = Messages.select(Messages.id).where(where)
        attachment_ids = Attachments.select(Attachments.id).where(Attachments.message_id.in_(ids))
        about = [
            (LogReferences.noun == SQL("'message'"))
            & (LogReferences.parent == SQL("''"))
            & LogReferences.subject.in_(ids),
            (LogReferences.noun == SQL("'attachment'"))
            & (LogReferences.parent == SQL("''"))
            & LogReferences.subject.in_(attachment_ids),
        ]
        origins: Any = Messages.select(Messages.origin_seq, Messages.origin_member, SQL("0")).where(
            where & (Messages.origin_seq > SQL("0"))
        )
        for each in about:
            columns = (LogReferences.seq, LogReferences.member, SQL("1"))
            origins = origins.union_all(LogReferences.select(*columns).where(each))
        self.select_places = statement(origins)
        self.delete_references = [statement(LogReferences.delete().where(each)) for each in about]
        self.delete_reactions = statement(Reactions.delete().where(Reactions.message_id.in_(ids)))
        self.delete_attachments = statement(
            Attachments.delete().where(Attachments.message_id.in_(ids)).returning(Attachments.media_id)
        )
        self.delete = statement(Messages.delete().where(where))

    def execute(self, db: Writes, context: CommandContext, **place: str) -> int:
        """Delete the messages of a room or channel, including their rows. Returns how many."""
        self.delete_contents(db, context, **place)
        return db.run(self.delete, **place)

    def delete_contents(self, db: Writes, context: CommandContext, **place: str) -> None:
        """Delete everything that belongs to the messages, but not their rows."""
        places = db.rows(self.select_places, **place)
        changes.redact([(seq, member) for seq, member, _ in places], db, context)
        if any(is_reference for _, _, is_reference in places):
            for delete in self.delete_references:
                db.run(delete, **place)
        db.run(self.delete_reactions, **place)
        if deleted := db.rows(self.delete_attachments, **place):
            media.note_gone([row[0] for row in deleted], db, context)


OF_ROOM = Messages.room_id == Named("room_id")
INSERT_ORIGIN_REFERENCE = statement(
    LogReferences.insert_from(
        Messages.select(
            SQL("'message'"),
            SQL("''"),
            Messages.id,
            Messages.origin_seq,
            Messages.origin_member,
            SQL(str(changes.ALL_TEXT)),
        ).where((Messages.id == Named("message_id")) & (Messages.origin_seq > SQL("0"))),
        list(LogReferences._meta.fields.values()),
    ).on_conflict_ignore()
)
DELETION_OF_ONE = Deletion(Messages.id == Named("message_id"))
DELETION_OF_ROOM = Deletion(OF_ROOM)
DELETION_OF_CHANNEL = Deletion(OF_ROOM & (Messages.channel_id == Named("channel_id")))


@handles(SaveMessage)
def save_message(command: SaveMessage, db: Writes, context: CommandContext) -> None:
    save(command.message, "$.payload.message.reactions", db, context)


@handles(UpdateMessage)
def update_message(command: UpdateMessage, db: Writes, context: CommandContext) -> None:
    stored = _stored(command.message_id, db)
    if stored.is_deleted:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was deleted")
    changed = field_changes(command.updates, stored)
    save(replace(stored, **changed), "$.payload.updates.reactions", db, context, replaced=TEXT.intersection(changed))


@handles(DeleteMessage)
def delete_message(command: DeleteMessage, db: Writes, context: CommandContext) -> None:
    stored = _stored(command.message_id, db)
    if not stored.is_deleted:
        changes.saved(context, "message", stored.id, stored.room_id)
        _make_tombstone(stored.id, db, context)


@handles(ClearRoomMessages)
def clear_room_messages(command: ClearRoomMessages, db: Writes, context: CommandContext) -> None:
    clear_room(command.room_id, db, context)


@handles(GetMessages, cached=Cached.UNTIL_ROOM_CHANGES)
def get_messages(query: GetMessages, db: Reads) -> list[Message]:
    bound = {"room_id": query.room_id, "limit": query.limit, "offset": query.offset}
    found = db.rows_within(REPLY_BYTES_MAX, ROWS.take_by_long_size, SELECT_OF_ROOM, **bound)
    messages = with_reactions(found.rows, query.child_lists, db) if found.complete else None
    if messages is None:  # a shorter list would look like the end of the room
        raise TooLarge(f"the messages do not fit into a reply of {REPLY_BYTES_MAX} bytes: ask with a smaller `limit`")
    return messages


@handles(GetMessageById, cached=Cached.UNTIL_COMMIT)
def get_message_by_id(query: GetMessageById, db: Reads) -> Message | None:
    messages = with_reactions(db.rows(SELECT_ONE, message_id=query.message_id), query.child_lists, db)
    if messages is None:
        raise too_many_reactions(query.message_id)
    return messages[0] if messages else None


def save(message: Message, reactions_path: str, db: Writes, context: CommandContext, replaced: Fields = TEXT) -> None:
    """Write a whole message, unless it was deleted: a tombstone is never overwritten.

    `replaced` are the fields whose text the command contains, or unsets, if the message is stored already.
    """
    if message.reactions is not None:
        reactions.check_reactions(message, message.reactions, reactions_path)
    row = ROWS.to_row(message)
    is_new = db.write(INSERT, (*row, context.seq, context.member))
    if not is_new and not _overwrite(message, row, replaced, db, context):
        return
    changes.saved(context, "message", message.id, message.room_id)
    if message.is_deleted:
        _make_tombstone(message.id, db, context)
    elif message.reactions is not None:
        reactions.replace_reactions(message.id, message.reactions, db, context)


def clear_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a room."""
    if DELETION_OF_ROOM.execute(db, context, room_id=room_id):
        changes.cleared(context, "message", room_id)


def clear_channel(room_id: str, channel_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a channel."""
    if DELETION_OF_CHANNEL.execute(db, context, room_id=room_id, channel_id=channel_id):
        changes.cleared(context, "message", room_id, channel_id)


def _overwrite(message: Message, row: Sequence[Any], replaced: Fields, db: Writes, context: CommandContext) -> bool:
    """Overwrite the stored message. Returns False if that is a tombstone."""
    changes.add_reference(changes.message(message.id), db, context)
    if db.write(UPSERT_IN_PLACE, row) or _move(message, row, db, context):
        if replaced and db.retention.redact_replaced:
            db.run(INSERT_ORIGIN_REFERENCE, message_id=message.id)
            changes.erase_replaced(changes.message(message.id), replaced, db, context)
        return True
    changes.erase(changes.message(message.id), db, context)
    return False


def _move(message: Message, row: Sequence[Any], db: Writes, context: CommandContext) -> bool:
    """Overwrite a message that is stored in another room. Returns False if that is a tombstone."""
    stored = _stored(message.id, db)
    if stored.is_deleted:
        return False
    changes.gone(context, "message", stored.id, stored.room_id)
    return db.write(UPSERT, row) > 0


def _make_tombstone(message_id: str, db: Writes, context: CommandContext) -> None:
    """Delete a message's text and everything that belongs to it; its row stays."""
    DELETION_OF_ONE.delete_contents(db, context, message_id=message_id)
    db.run(MAKE_TOMBSTONE, message_id=message_id)


def _stored(message_id: str, db: Reads) -> Message:
    """The message as stored, without reactions; raises `NotFound`."""
    row = db.row(SELECT_ONE, message_id=message_id)
    if row is None:
        raise NotFound.at("$.payload.messageId", f"there is no message {message_id!r}")
    return ROWS.to_record(row)


def with_reactions(rows: Sequence[Row], child_lists: bool, db: Reads) -> list[Message] | None:
    """The messages of these rows as callers see them; tombstones have `DELETED_TEXT` and no reactions.

    None if they have too many reactions for one page. Without `child_lists` the reactions are left out.
    """
    if not child_lists:
        return [replace(each, content=DELETED_TEXT) if each.is_deleted else each for each in ROWS.to_records(rows)]
    by_message = reactions.reactions_by_message([row[ID_AT] for row in rows], db)
    if by_message is None:
        return None
    messages = ROWS.to_records(rows, "reactions", [by_message.get(row[ID_AT], []) for row in rows])
    return [
        replace(message, content=DELETED_TEXT, reactions=[]) if message.is_deleted else message for message in messages
    ]


def too_many_reactions(message_id: str) -> TooLarge:
    """The error for a message whose reactions alone are too many for a reply."""
    instead = "ask with `childLists: false`, and for its reactions with get-reactions-for-message and `limit`"
    return TooLarge(f"message {message_id!r} has too many reactions for a reply: {instead}")
