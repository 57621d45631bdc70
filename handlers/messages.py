"""Messages. Their reactions are stored in a table of their own and added again when messages are read.

Messages have a total order, (timestamp, ordinal, id), which every list of them has.
"""

from collections.abc import Sequence

from msgspec import UnsetType
from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers import attachments, changes, clearing, message_states, reactions
from backscroll.handlers.aliases import HIDDEN, find_row, resolve
from backscroll.handlers.message_rows import (
    DELETION_OF_CHANNEL,
    DELETION_OF_ONE,
    DELETION_OF_SOME,
    ID_AT,
    IS_DELETED,
    IS_DELETED_AT,
    MAKE_TOMBSTONE,
    MAKE_TOMBSTONES,
    OF_ONE,
    OF_ROOM,
    OF_SOME,
    ORDER,
    ROOM_AT,
    ROWS,
    erase_replaced,
    is_elsewhere,
)
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.shown import IS_SHOWN, SHOWN_IN_ROOM
from backscroll.handlers.sql import Named, Row, RowsWithin, field_changes, insertion, statement, to_json
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
    ForgetDeletions,
    GetMessageById,
    GetMessages,
    GetMessagesByIds,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.records import DELETED_TEXT, Message
from backscroll.schema.replies import DeletedMessages
from backscroll.schema.tables import Messages

TEXT: Fields = frozenset(changes.MESSAGE_TEXT)
SAVED_REACTIONS = "$.payload.message.reactions"
"""The path of the reactions in a save."""

ORIGIN = ("origin_seq", "origin_member", "written")
INSERT_NAMING = statement(ROWS.insert(*ORIGIN).on_conflict_ignore())
INSERT = statement(insertion(Messages, [*ROWS.written, *ORIGIN]).on_conflict_ignore())
"""Of a message that names no other, which costs less."""
UPSERT = ROWS.upsert("written", clears=[Messages.field_versions])
UPSERT_IN_PLACE = ROWS.upsert(
    "written", unless=IS_DELETED | (Messages.room_id != SQL("excluded.room_id")), clears=[Messages.field_versions]
)
SELECT_TOMBSTONES = statement(Messages.select(Messages.id).where(SHOWN_IN_ROOM & IS_DELETED).limit(Named("limit")))
DELETE_TOMBSTONES = statement(Messages.delete().where(SHOWN_IN_ROOM & IS_DELETED))
DELETE_HIDDEN_TOMBSTONES = [
    statement(Messages.delete().where(condition & IS_DELETED))
    for condition in (
        (Messages.room_id == SQL(f"'{HIDDEN}'")) & (Messages.channel_id == Named("room_id")),
        OF_ROOM,  # those that are not shown any more
    )
]
SELECT_ONE = statement(Messages.select(*ROWS.columns).where(OF_ONE & IS_SHOWN))
SELECT_PLACE = statement(Messages.select(Messages.room_id, Messages.is_deleted).where(OF_ONE))
SELECT_OF_ROOM = statement(
    Messages.select(*ROWS.columns).where(SHOWN_IN_ROOM).order_by(*ORDER).limit(Named("limit")).offset(Named("offset"))
)
SELECT_SOME = statement(Messages.select(*ROWS.columns).where(OF_SOME & IS_SHOWN))
SELECT_BEFORE = statement(
    Messages.select(Messages.id)
    .where(SHOWN_IN_ROOM & (Messages.timestamp < Named("timestamp")))
    .order_by(*ORDER)
    .limit(Named("limit"))
)
SELECT_LAST_AT = statement(
    Messages.select(Messages.ordinal, Messages.id)
    .where(SHOWN_IN_ROOM & (Messages.timestamp == Named("timestamp")))
    .order_by(Messages.ordinal.desc(), Messages.id.desc())
    .limit(SQL("1"))
)
SELECT_EXPIRED = statement(
    Messages.select(Messages.id, Messages.room_id)
    .where((Messages.expires_at <= Named("now")) & (Messages.is_deleted == SQL("0")) & IS_SHOWN)
    .order_by(Messages.expires_at, Messages.id)
    .limit(Named("limit"))
)
SELECT_NEXT_EXPIRY = statement(
    Messages.select(Messages.expires_at)
    .where(Messages.expires_at.is_null(False) & (Messages.is_deleted == SQL("0")) & IS_SHOWN)
    .order_by(Messages.expires_at)
    .limit(SQL("1"))
)


@handles(SaveMessage)
def save_message(command: SaveMessage, db: Writes, context: CommandContext) -> None:
    if command.arrival is None:
        save(command.message, SAVED_REACTIONS, db, context, replaced=TEXT)
    else:
        _join_saved(command.message, SAVED_REACTIONS, db, context)


@handles(UpdateMessage)
def update_message(command: UpdateMessage, db: Writes, context: CommandContext) -> None:
    path = "$.payload.updates.reactions"
    if command.arrival is not None:
        _join_updated(command, path, db, context)
        return
    stored = _stored(command.message_id, db)
    if stored.is_deleted:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was deleted")
    changed = field_changes(command.updates, stored)
    updated, replaced = replace(stored, **changed), TEXT.intersection(changed)
    if updated.reactions and stored.id != command.message_id:
        reactions.check_reactions(command.message_id, updated.reactions, path)
        updated = _renamed(updated, stored.id)
    save(updated, path, db, context, moves_from=stored.room_id, replaced=replaced)


@handles(DeleteMessage)
def delete_message(command: DeleteMessage, db: Writes, context: CommandContext) -> None:
    if command.arrival is not None:
        message_states.join_event(command.message_id, message_states.DELETED_EVENT, None, db, context)
        return
    stored = _stored(command.message_id, db)
    if not stored.is_deleted:
        changes.saved(context, "message", stored.id, stored.room_id)
        _make_tombstone(stored.id, db, context)


@handles(ClearRoomMessages)
def clear_room_messages(command: ClearRoomMessages, db: Writes, context: CommandContext) -> None:
    clearing.clear_room(command.room_id, db, context)


@handles(ForgetDeletions)
def forget_deletions(command: ForgetDeletions, db: Writes, context: CommandContext) -> None:
    found = db.rows(SELECT_TOMBSTONES, room_id=command.room_id, limit=changes.NAMED_MAX + 1)
    if len(found) > changes.NAMED_MAX:
        changes.replaced(context, "message", command.room_id)
    else:
        for (message_id,) in found:
            changes.gone(context, "message", message_id, command.room_id)
    db.run(DELETE_TOMBSTONES, room_id=command.room_id)
    for delete in DELETE_HIDDEN_TOMBSTONES:
        db.run(delete, room_id=command.room_id)


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
    _, row = find_row(SELECT_ONE, ROOM_AT, query.message_id, db)
    if row is None or row[ROOM_AT] == HIDDEN:
        return None
    messages = with_lists([row], query.child_lists, query.attachments, db)
    if messages is None:
        raise too_many_children(query.message_id)
    return messages[0]


@handles(GetMessagesByIds)
def get_messages_by_ids(query: GetMessagesByIds, db: Reads) -> list[Message]:
    ids, found = query.message_ids, some(query.message_ids, db)
    hidden = {row[ID_AT] for row in found.rows if row[ROOM_AT] == HIDDEN}
    if hidden:  # some may be former ids
        ids = [resolve(each, db) if each in hidden else each for each in ids]
        found = some(ids, db)
    rows = [row for row in found.rows if row[ROOM_AT] != HIDDEN]
    messages = with_lists(rows, query.child_lists, query.attachments, db) if found.complete else None
    if messages is None:  # a shorter list would look as if the others were not stored
        raise TooLarge(f"the messages do not fit into a reply of {REPLY_BYTES_MAX} bytes: ask for fewer at once")
    by_id = {message.id: message for message in messages}
    return [by_id[message_id] for message_id in dict.fromkeys(ids) if message_id in by_id]


def some(message_ids: list[str], db: Reads) -> RowsWithin:
    """The rows with these ids, hidden ones too, as many as fit into a reply."""
    ids = to_json(message_ids).decode()
    return db.rows_within(REPLY_BYTES_MAX, ROWS.take_by_long_size, SELECT_SOME, message_ids=ids)


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
        reactions.check_reactions(message.id, message.reactions, reactions_path)
    row = ROWS.to_row(message)
    insert = INSERT if message.reply_to_id is None and message.thread_id is None else INSERT_NAMING
    is_new = db.write(insert, (*row, context.seq, context.member, context.written))
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


def clear_channel(room_id: str, channel_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a channel."""
    if DELETION_OF_CHANNEL.execute(db, context, room_id=room_id, channel_id=channel_id):
        changes.cleared(context, "message", room_id, channel_id)


def _join_saved(message: Message, reactions_path: str, db: Writes, context: CommandContext) -> None:
    """Write a message that may come in any order, joined with what is known about it."""
    if message.reactions is not None:
        reactions.check_reactions(message.id, message.reactions, reactions_path)
    insert = INSERT if message.reply_to_id is None and message.thread_id is None else INSERT_NAMING
    if not db.write(insert, (*ROWS.to_row(message), context.seq, context.member, context.written)):
        message_states.join_event(message.id, message_states.saved_event(message), message.reactions, db, context)
        return
    changes.saved(context, "message", message.id, message.room_id)
    if message.is_deleted:
        _make_tombstone(message.id, db, context)
        return
    if message.reactions is not None:
        reactions.join_listed(message.id, message.reactions, db, context)
    if message.expires_at is not None:
        db.note_due(message.expires_at)


def _join_updated(command: UpdateMessage, reactions_path: str, db: Writes, context: CommandContext) -> None:
    """Join an edit that may come in any order with what is known about its message."""
    listed = command.updates.reactions
    listed = [] if isinstance(listed, UnsetType) else listed
    reactions.check_reactions(command.message_id, listed, reactions_path)
    message_states.join_event(command.message_id, message_states.edited_event(command.updates), listed, db, context)


def _overwrite(
    message: Message, row: Row, moves_from: str | None, replaced: Fields, db: Writes, context: CommandContext
) -> bool:
    """Overwrite the stored message. Returns False if that is a tombstone, or if the message was saved otherwise.

    Raises `Conflict` if it is in another room than its own and `moves_from`.
    """
    if not db.write(UPSERT_IN_PLACE, (*row, context.written)):
        if moves_from is None:
            _save_elsewhere(message, replaced, db, context)
            return False
        changes.gone(context, "message", message.id, moves_from)
        db.write(UPSERT, (*row, context.written))
    changes.add_reference(changes.message(message.id), db, context)
    erase_replaced(message.id, replaced, db, context)
    return True


def _save_elsewhere(message: Message, replaced: Fields, db: Writes, context: CommandContext) -> None:
    """Save a message whose id has a tombstone, a hidden row or a row in another room, which is a `Conflict`."""
    [(room_id, is_deleted)] = db.rows(SELECT_PLACE, message_id=message.id)
    if is_deleted:
        context.redact_own(context.member)
    elif room_id == HIDDEN:
        _save_hidden(message, replaced, db, context)
    else:
        raise is_elsewhere(message.id, room_id)


def _save_hidden(message: Message, replaced: Fields, db: Writes, context: CommandContext) -> None:
    """Save a message under the id that it has now, or together with the edits that waited for it."""
    now = resolve(message.id, db)
    if now == message.id:
        message_states.join_event(now, message_states.saved_event(message), message.reactions, db, context)
        return
    save(_renamed(message, now), SAVED_REACTIONS, db, context, replaced=replaced)


def _renamed(message: Message, message_id: str) -> Message:
    """The message and the reactions in it under another id."""
    listed = message.reactions and [replace(each, message_id=message_id) for each in message.reactions]
    return replace(message, id=message_id, reactions=listed)


def _make_tombstone(message_id: str, db: Writes, context: CommandContext) -> None:
    """Delete a message's text and everything that belongs to it; its row stays."""
    DELETION_OF_ONE.delete_contents(db, context, message_id=message_id)
    db.run(MAKE_TOMBSTONE, message_id=message_id)


def _stored(message_id: str, db: Reads) -> Message:
    """The message as stored, without reactions, or a hidden tombstone; raises `NotFound`."""
    _, row = find_row(SELECT_ONE, ROOM_AT, message_id, db)
    if row is None or (row[ROOM_AT] == HIDDEN and not row[IS_DELETED_AT]):
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
