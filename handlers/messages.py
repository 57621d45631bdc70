"""Messages. Their reactions are stored in a table of their own and added again when messages are read.

Messages have a total order, (timestamp, ordinal, id), which every list of them has.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from peewee import SQL, Expression

from backscroll.handlers import attachments, changes, media, reactions
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, RowMapper, field_changes, insertion, one_of, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Fields
from backscroll.schema.errors import Conflict, NotFound, TooLarge
from backscroll.schema.limits import (
    DELETED_MESSAGES_MAX,
    INTEGER_MAX,
    PAGE_REACTIONS_BYTES_MAX,
    REPLY_BYTES_MAX,
)
from backscroll.schema.operations import (
    ClearRoomMessages,
    DeleteExpiredMessages,
    DeleteMessage,
    DeleteMessagesBefore,
    GetMessageById,
    GetMessages,
    GetMessagesByIds,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.records import DELETED_TEXT, Message
from backscroll.schema.replies import DeletedMessages
from backscroll.schema.tables import Attachments, LogReferences, Messages, Reactions

RARE = ("ordinal", "sent_at", "type", "thread_id", "forwarded_from", "mentions", "pinned_at", "expires_at")
"""What few messages have."""
ROWS = RowMapper(Message, Messages, elsewhere=("reactions", "attachments"), rare=RARE, rare_flag="has_rare")
TEXT: Fields = frozenset(changes.MESSAGE_TEXT)
ID_AT = ROWS.names.index("id")

INSERT = statement(insertion(Messages, [*ROWS.written, "origin_seq", "origin_member"]).on_conflict_ignore())
UPSERT = ROWS.upsert()
UPSERT_IN_PLACE = ROWS.upsert(unless=(Messages.is_deleted == SQL("1")) | (Messages.room_id != SQL("excluded.room_id")))
TOMBSTONE: dict[Any, Any] = {
    Messages.is_deleted: SQL("1"),
    Messages.content: SQL("''"),
    Messages.link_metadata: SQL("NULL"),
    Messages.metadata: SQL("NULL"),
    Messages.forwarded_from: SQL("NULL"),
    Messages.mentions: SQL("NULL"),
    Messages.pinned_at: SQL("NULL"),
    Messages.has_rare: (
        (Messages.ordinal != SQL("0"))
        | Messages.sent_at.is_null(False)
        | Messages.type.is_null(False)
        | Messages.thread_id.is_null(False)
        | Messages.expires_at.is_null(False)
    ),
    Messages.origin_seq: SQL("0"),
}
"""What a deleted message loses; its place, its author and its times stay."""
ORDER = (Messages.timestamp, Messages.ordinal, Messages.id)
OF_SOME = one_of(Messages.id, "message_ids")

MAKE_TOMBSTONE = statement(Messages.update(TOMBSTONE).where(Messages.id == Named("message_id")))
MAKE_TOMBSTONES = statement(Messages.update(TOMBSTONE).where(OF_SOME))
SELECT_ONE = statement(Messages.select(*ROWS.columns).where(Messages.id == Named("message_id")))
SELECT_OF_ROOM = statement(
    Messages.select(*ROWS.columns)
    .where(Messages.room_id == Named("room_id"))
    .order_by(*ORDER)
    .limit(Named("limit"))
    .offset(Named("offset"))
)
SELECT_SOME = statement(Messages.select(*ROWS.columns).where(OF_SOME))
SELECT_BEFORE = statement(
    Messages.select(Messages.id)
    .where((Messages.room_id == Named("room_id")) & (Messages.timestamp < Named("timestamp")))
    .order_by(*ORDER)
    .limit(Named("limit"))
)
SELECT_LAST_AT = statement(
    Messages.select(Messages.ordinal, Messages.id)
    .where((Messages.room_id == Named("room_id")) & (Messages.timestamp == Named("timestamp")))
    .order_by(Messages.ordinal.desc(), Messages.id.desc())
    .limit(SQL("1"))
)
SELECT_EXPIRED = statement(
    Messages.select(Messages.id, Messages.room_id)
    .where((Messages.expires_at <= Named("now")) & (Messages.is_deleted == SQL("0")))
    .order_by(Messages.expires_at, Messages.id)
    .limit(Named("limit"))
)
SELECT_NEXT_EXPIRY = statement(
    Messages.select(Messages.expires_at)
    .where(Messages.expires_at.is_null(False) & (Messages.is_deleted == SQL("0")))
    .order_by(Messages.expires_at)
    .limit(SQL("1"))
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
        """Delete the messages, including their rows. Returns how many."""
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
DELETION_OF_SOME = Deletion(OF_SOME)
DELETION_OF_ROOM = Deletion(OF_ROOM)
DELETION_OF_CHANNEL = Deletion(OF_ROOM & (Messages.channel_id == Named("channel_id")))


@handles(SaveMessage)
def save_message(command: SaveMessage, db: Writes, context: CommandContext) -> None:
    save(command.message, "$.payload.message.reactions", db, context, replaced=TEXT)


@handles(UpdateMessage)
def update_message(command: UpdateMessage, db: Writes, context: CommandContext) -> None:
    stored = _stored(command.message_id, db)
    if stored.is_deleted:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was deleted")
    changed = field_changes(command.updates, stored)
    updated, replaced = replace(stored, **changed), TEXT.intersection(changed)
    save(updated, "$.payload.updates.reactions", db, context, moves_from=stored.room_id, replaced=replaced)


@handles(DeleteMessage)
def delete_message(command: DeleteMessage, db: Writes, context: CommandContext) -> None:
    stored = _stored(command.message_id, db)
    if not stored.is_deleted:
        changes.saved(context, "message", stored.id, stored.room_id)
        _make_tombstone(stored.id, db, context)


@handles(ClearRoomMessages)
def clear_room_messages(command: ClearRoomMessages, db: Writes, context: CommandContext) -> None:
    clear_room(command.room_id, db, context)


@handles(DeleteMessagesBefore)
def delete_messages_before(command: DeleteMessagesBefore, db: Writes, context: CommandContext) -> DeletedMessages:
    bound = {"room_id": command.room_id, "timestamp": command.timestamp, "limit": DELETED_MESSAGES_MAX + 1}
    found = [message_id for (message_id,) in db.rows(SELECT_BEFORE, **bound)]
    ids = found[:DELETED_MESSAGES_MAX]
    for message_id in ids:
        changes.gone(context, "message", message_id, command.room_id)
    DELETION_OF_SOME.execute(db, context, message_ids=to_json(ids).decode())
    return DeletedMessages(deleted=len(ids), has_more=len(found) > len(ids))


@handles(DeleteExpiredMessages)
def delete_expired_messages(_command: DeleteExpiredMessages, db: Writes, context: CommandContext) -> DeletedMessages:
    found = db.rows(SELECT_EXPIRED, now=context.now, limit=DELETED_MESSAGES_MAX + 1)
    expired = found[:DELETED_MESSAGES_MAX]
    for message_id, room_id in expired:
        changes.saved(context, "message", message_id, room_id)
    ids = to_json([message_id for message_id, _ in expired]).decode()
    DELETION_OF_SOME.delete_contents(db, context, message_ids=ids)
    db.run(MAKE_TOMBSTONES, message_ids=ids)
    return DeletedMessages(deleted=len(expired), has_more=len(found) > len(expired))


@handles(GetMessages, cached=Cached.UNTIL_ROOM_CHANGES)
def get_messages(query: GetMessages, db: Reads) -> list[Message]:
    bound = {"room_id": query.room_id, "limit": query.limit, "offset": query.offset}
    found = db.rows_within(REPLY_BYTES_MAX, ROWS.take_by_long_size, SELECT_OF_ROOM, **bound)
    messages = with_lists(found.rows, query.child_lists, False, db) if found.complete else None
    if messages is None:  # a shorter list would look like the end of the room
        raise TooLarge(f"the messages do not fit into a reply of {REPLY_BYTES_MAX} bytes: ask with a smaller `limit`")
    return messages


@handles(GetMessageById, cached=Cached.UNTIL_COMMIT)
def get_message_by_id(query: GetMessageById, db: Reads) -> Message | None:
    rows = db.rows(SELECT_ONE, message_id=query.message_id)
    messages = with_lists(rows, query.child_lists, query.attachments, db)
    if messages is None:
        raise too_many_children(query.message_id)
    return messages[0] if messages else None


@handles(GetMessagesByIds)
def get_messages_by_ids(query: GetMessagesByIds, db: Reads) -> list[Message]:
    ids = to_json(query.message_ids).decode()
    found = db.rows_within(REPLY_BYTES_MAX, ROWS.take_by_long_size, SELECT_SOME, message_ids=ids)
    messages = with_lists(found.rows, query.child_lists, query.attachments, db) if found.complete else None
    if messages is None:  # a shorter list would look as if the others were not stored
        raise TooLarge(f"the messages do not fit into a reply of {REPLY_BYTES_MAX} bytes: ask for fewer at once")
    by_id = {message.id: message for message in messages}
    return [by_id[message_id] for message_id in dict.fromkeys(query.message_ids) if message_id in by_id]


def save(
    message: Message,
    reactions_path: str,
    db: Writes,
    context: CommandContext,
    *,
    moves_from: str | None = None,
    replaced: Fields = frozenset(),
) -> None:
    """Write a whole message, unless it was deleted: a tombstone is never overwritten.

    If it is stored already, `replaced` are the fields whose text the command contains or unsets. Raises `Conflict` if
    it is stored in another room than its own and `moves_from`.
    """
    if message.reactions is not None:
        reactions.check_reactions(message, message.reactions, reactions_path)
    row = ROWS.to_row(message)
    is_new = db.write(INSERT, (*row, context.seq, context.member))
    if not is_new and not _overwrite(message, row, moves_from, replaced, db, context):
        return
    changes.saved(context, "message", message.id, message.room_id)
    if message.is_deleted:
        _make_tombstone(message.id, db, context)
        return
    if message.reactions is not None:
        reactions.replace_reactions(message.id, message.reactions, db, context)
    if message.expires_at is not None:
        db.note_due(message.expires_at)


def ordinal_of_last(room_id: str, timestamp: int, message_id: str, db: Reads) -> int:
    """The ordinal with which a message sorts after all others of the room with its timestamp: 0 if that suffices."""
    last = db.row(SELECT_LAST_AT, room_id=room_id, timestamp=timestamp)
    if last is None:
        return 0
    ordinal, last_id = int(last[0]), last[1]
    return min(max(0, ordinal if last_id < message_id else ordinal + 1), INTEGER_MAX)


def next_expiry(db: Reads) -> int | None:
    """The time at which the next message expires, in milliseconds since the epoch."""
    row = db.row(SELECT_NEXT_EXPIRY)
    return None if row is None else int(row[0])


def clear_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a room."""
    if DELETION_OF_ROOM.execute(db, context, room_id=room_id):
        changes.cleared(context, "message", room_id)


def clear_channel(room_id: str, channel_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a channel."""
    if DELETION_OF_CHANNEL.execute(db, context, room_id=room_id, channel_id=channel_id):
        changes.cleared(context, "message", room_id, channel_id)


def _overwrite(
    message: Message, row: Row, moves_from: str | None, replaced: Fields, db: Writes, context: CommandContext
) -> bool:
    """Overwrite the stored message. Returns False if that is a tombstone; raises `Conflict` if it is elsewhere."""
    about = changes.message(message.id)
    is_written = db.write(UPSERT_IN_PLACE, row) > 0 or _move(message, row, moves_from, db, context)
    if not is_written:
        _refuse_if_elsewhere(message, db)
    changes.add_reference(about, db, context)
    if not is_written:
        changes.erase(about, db, context)
    elif replaced and db.retention.redact_replaced:
        db.run(INSERT_ORIGIN_REFERENCE, message_id=message.id)
        changes.erase_replaced(about, replaced, db, context)
    return is_written


def _move(message: Message, row: Row, moves_from: str | None, db: Writes, context: CommandContext) -> bool:
    """Overwrite the stored message, which is in the room `moves_from`. Returns False if that is None."""
    if moves_from is None:
        return False
    changes.gone(context, "message", message.id, moves_from)
    return db.write(UPSERT, row) > 0


def _refuse_if_elsewhere(message: Message, db: Reads) -> None:
    """Raise `Conflict` if the message is stored in another room."""
    room_id, _ = reactions.message_of(message.id, db)
    if room_id != message.room_id:
        problem = f"message {message.id!r} is in room {room_id!r}; update its roomId to move it, or give another id"
        raise Conflict.at("$.payload.message.id", problem, roomId=room_id)


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


def with_lists(rows: Sequence[Row], child_lists: bool, attached: bool, db: Reads) -> list[Message] | None:
    """The messages of these rows as callers see them; tombstones have `DELETED_TEXT` and no reactions.

    Without `child_lists` the reactions are left out; if `attached`, the attachments are added. None if the reactions
    and attachments together are too many or too large for one page.
    """
    if not child_lists:
        messages = [replace(each, content=DELETED_TEXT) if each.is_deleted else each for each in ROWS.to_records(rows)]
        return _with_attachments(messages, db) if attached else messages
    by_message = reactions.reactions_by_message([row[ID_AT] for row in rows], db)
    if by_message is None:
        return None
    messages = ROWS.to_records(rows, "reactions", [by_message.get(row[ID_AT], []) for row in rows])
    messages = [
        replace(message, content=DELETED_TEXT, reactions=[]) if message.is_deleted else message for message in messages
    ]
    return _with_attachments(messages, db) if attached else messages


def _with_attachments(messages: list[Message], db: Reads) -> list[Message] | None:
    """The messages with their attachments; None if these and the reactions are too many or too large for one page."""
    size = len(to_json([message.reactions for message in messages]))
    ids = [message.id for message in messages]
    found = attachments.attachments_by_message(ids, PAGE_REACTIONS_BYTES_MAX - size, db)
    if found is None:
        return None
    return [replace(message, attachments=found.get(message.id, [])) for message in messages]


def too_many_children(message_id: str) -> TooLarge:
    """The error for a message whose reactions and attachments alone are too many for a reply."""
    instead = (
        "ask with `childLists: false` and without `attachments`, and for them with get-reactions-for-message or"
        " get-attachments-for-message and `limit`"
    )
    return TooLarge(f"message {message_id!r} has too many reactions or attachments for a reply: {instead}")
