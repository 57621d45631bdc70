"""Messages. Their reactions are stored in a table of their own and added again when messages are read."""

from collections.abc import Sequence
from typing import Any

from msgspec import UnsetType
from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers import changes, message_states, reactions
from backscroll.handlers.aliases import HIDDEN, find_row, resolve
from backscroll.handlers.message_rows import (
    DELETION_OF_CHANNEL,
    DELETION_OF_ONE,
    DELETION_OF_ROOM,
    ID_AT,
    IS_DELETED_AT,
    MAKE_TOMBSTONE,
    ROOM_AT,
    ROWS,
)
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.sql import Named, Row, field_changes, insertion, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import Conflict, NotFound, TooLarge
from backscroll.schema.limits import REPLY_BYTES_MAX
from backscroll.schema.operations import (
    ClearRoomMessages,
    DeleteMessage,
    ForgetDeletions,
    GetMessageById,
    GetMessages,
    SaveMessage,
    UpdateMessage,
)
from backscroll.schema.records import DELETED_TEXT, Message
from backscroll.schema.tables import Messages

ORIGIN = ("origin_seq", "origin_member")
INSERT_REPLY = statement(ROWS.insert(*ORIGIN).on_conflict_ignore())
INSERT = statement(insertion(Messages, [*ROWS.names, *ORIGIN]).on_conflict_ignore())
"""Of a message that is no reply, which costs less."""
UPSERT = ROWS.upsert(clears=[Messages.field_versions])
UPSERT_IN_PLACE = ROWS.upsert(
    unless=(Messages.is_deleted == SQL("1")) | (Messages.room_id != SQL("excluded.room_id")),
    clears=[Messages.field_versions],
)
IS_DELETED = Messages.is_deleted == SQL("1")
DELETE_TOMBSTONES = statement(Messages.delete().where((Messages.room_id == Named("room_id")) & IS_DELETED))
DELETE_HIDDEN_TOMBSTONES = statement(
    Messages.delete().where(
        (Messages.room_id == SQL(f"'{HIDDEN}'")) & (Messages.channel_id == Named("room_id")) & IS_DELETED
    )
)
SELECT_ONE = statement(Messages.select(*ROWS.columns).where(Messages.id == Named("message_id")))
SELECT_OF_ROOM = statement(
    Messages.select(*ROWS.columns)
    .where(Messages.room_id == Named("room_id"))
    .order_by(Messages.timestamp, Messages.id)
    .limit(Named("limit"))
    .offset(Named("offset"))
)


@handles(SaveMessage)
def save_message(command: SaveMessage, db: Writes, context: CommandContext) -> None:
    write = save if command.arrival is None else _join_saved
    write(command.message, "$.payload.message.reactions", db, context)


@handles(UpdateMessage)
def update_message(command: UpdateMessage, db: Writes, context: CommandContext) -> None:
    path = "$.payload.updates.reactions"
    if command.arrival is not None:
        _join_updated(command, path, db, context)
        return
    stored = _stored(command.message_id, db)
    if stored.is_deleted:
        raise Conflict.at("$.payload.messageId", f"message {command.message_id!r} was deleted")
    updated = replace(stored, **field_changes(command.updates, stored))
    if updated.reactions and stored.id != command.message_id:
        reactions.check_reactions(command.message_id, updated.reactions, path)
        updated = _renamed(updated, stored.id)
    save(updated, path, db, context)


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
    clear_room(command.room_id, db, context)


@handles(ForgetDeletions)
def forget_deletions(command: ForgetDeletions, db: Writes, context: CommandContext) -> None:
    if db.run(DELETE_TOMBSTONES, room_id=command.room_id):
        changes.replaced(context, "message", command.room_id)
    db.run(DELETE_HIDDEN_TOMBSTONES, room_id=command.room_id)


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
    _, row = find_row(SELECT_ONE, ROOM_AT, query.message_id, db)
    if row is None or row[ROOM_AT] == HIDDEN:
        return None
    messages = with_reactions([row], query.child_lists, db)
    if messages is None:
        raise too_many_reactions(query.message_id)
    return messages[0]


def save(message: Message, reactions_path: str, db: Writes, context: CommandContext) -> None:
    """Write a whole message, unless it was deleted: a tombstone is never overwritten."""
    if message.reactions is not None:
        reactions.check_reactions(message.id, message.reactions, reactions_path)
    row = ROWS.to_row(message)
    insert = INSERT if message.reply_to_id is None else INSERT_REPLY
    is_new = db.write(insert, (*row, context.seq, context.member))
    if not is_new and not _overwrite(message, row, db, context):
        return
    changes.saved(context, "message", message.id, message.room_id)
    if message.is_deleted:
        _make_tombstone(message.id, db, context)
    elif message.reactions is not None:
        reactions.replace_reactions(message.id, message.reactions, db)


def clear_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a room."""
    if DELETION_OF_ROOM.execute(db, context, room_id=room_id):
        changes.cleared(context, "message", room_id)


def clear_channel(room_id: str, channel_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a channel."""
    if DELETION_OF_CHANNEL.execute(db, context, room_id=room_id, channel_id=channel_id):
        changes.cleared(context, "message", room_id, channel_id)


def _join_saved(message: Message, reactions_path: str, db: Writes, context: CommandContext) -> None:
    """Write a message that may come in any order, joined with what is known about it."""
    if message.reactions is not None:
        reactions.check_reactions(message.id, message.reactions, reactions_path)
    insert = INSERT if message.reply_to_id is None else INSERT_REPLY
    if not db.write(insert, (*ROWS.to_row(message), context.seq, context.member)):
        message_states.join_event(message.id, message_states.saved_event(message), message.reactions, db, context)
        return
    changes.saved(context, "message", message.id, message.room_id)
    if message.is_deleted:
        _make_tombstone(message.id, db, context)
    elif message.reactions is not None:
        reactions.join_listed(message.id, message.reactions, db)


def _join_updated(command: UpdateMessage, reactions_path: str, db: Writes, context: CommandContext) -> None:
    """Join an edit that may come in any order with what is known about its message."""
    listed = command.updates.reactions
    listed = [] if isinstance(listed, UnsetType) else listed
    reactions.check_reactions(command.message_id, listed, reactions_path)
    message_states.join_event(command.message_id, message_states.edited_event(command.updates), listed, db, context)


def _overwrite(message: Message, row: Sequence[Any], db: Writes, context: CommandContext) -> bool:
    """Overwrite the stored message. Returns False if that is a tombstone, or if the message was saved otherwise."""
    if db.write(UPSERT_IN_PLACE, row) or _move(message, row, db, context):
        changes.add_reference(changes.message(message.id), db, context)
        return True
    return False


def _move(message: Message, row: Sequence[Any], db: Writes, context: CommandContext) -> bool:
    """Overwrite a message that is stored in another room. Returns False like `_overwrite`."""
    stored = db.rows(SELECT_ONE, message_id=message.id)[0]
    if stored[IS_DELETED_AT]:
        context.redact_own(context.member)
        return False
    if stored[ROOM_AT] == HIDDEN:
        _save_hidden(message, db, context)
        return False
    changes.gone(context, "message", message.id, stored[ROOM_AT])
    return db.write(UPSERT, row) > 0


def _save_hidden(message: Message, db: Writes, context: CommandContext) -> None:
    """Save a message under the id that it has now, or together with the edits that waited for it."""
    now = resolve(message.id, db)
    if now == message.id:
        message_states.join_event(now, message_states.saved_event(message), message.reactions, db, context)
        return
    save(_renamed(message, now), "$.payload.message.reactions", db, context)


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
