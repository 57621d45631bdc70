"""Clearing a room: by a mark, however many messages it has.

A message is written by a command; `messages.written` is the number of the last one that did. `cleared_rooms` says until
which command a room was cleared: the messages in it from before that are not shown any more, wherever they are read
(`IS_SHOWN`). They are removed, and their text is erased from the command log, in steps, which are not logged:

    clear-room-messages ──▶ the mark ──▶ remove_some, again and again ──▶ the mark is removed

Where a command names such a message, it is removed before the command is executed (`remove_named`), so handlers never
see one. So it makes no difference to commands how far the removal is, and a replay gives the same rows.
"""

from itertools import takewhile
from typing import Any

from peewee import SQL, fn

from backscroll.handlers import attachments, changes
from backscroll.handlers.aliases import resolve
from backscroll.handlers.message_rows import DELETION_OF_SOME, OF_ROOM, OF_SOME
from backscroll.handlers.shown import IS_SHOWN, SHOWN_IN_ROOM
from backscroll.handlers.sql import Named, insertion, statement, to_json
from backscroll.handlers.storage import MEMBERS, CommandContext, Reads, Writes
from backscroll.schema.errors import Busy
from backscroll.schema.operations import (
    Command,
    DeleteAttachmentsForMessage,
    DeleteMessage,
    RemoveReaction,
    RenameMessage,
    SaveAttachment,
    SaveMessage,
    SaveReaction,
    UpdateMessage,
)
from backscroll.schema.tables import ClearedRooms, Messages

AT_ONCE = 100
"""A room with so many messages or fewer is cleared without a mark."""
WINDOW = 2_000
"""So many messages are looked at for a step of the removal, more than a batch has."""
OF_ONE_COMMAND = 200
"""So many are removed in a step if one command saved them."""

SELECT_UP_TO = statement(Messages.select(Messages.id).where(SHOWN_IN_ROOM).limit(Named("limit")))
UPSERT_MARK = statement(
    insertion(ClearedRooms).on_conflict(
        conflict_target=[ClearedRooms.room_id], preserve=[ClearedRooms.until, ClearedRooms.after]
    )
)
SELECT_MARK = statement(
    ClearedRooms.select(ClearedRooms.room_id, ClearedRooms.after)
    .where(ClearedRooms.room_id > Named("behind"))
    .order_by(ClearedRooms.room_id)
    .limit(SQL("1"))
)
MOVE_MARK = statement(
    ClearedRooms.update({ClearedRooms.after: Named("after")}).where(ClearedRooms.room_id == Named("room_id"))
)
DELETE_MARK = statement(ClearedRooms.delete().where(ClearedRooms.room_id == Named("room_id")))
LAST_MARK = ClearedRooms.select(fn.MAX(ClearedRooms.until))
SELECT_LAST_MARK = statement(LAST_MARK)
COUNT_MARKS = statement(ClearedRooms.select(fn.COUNT(ClearedRooms.room_id)))
SELECT_REMAINING = statement(
    Messages.select(Messages.id, Messages.timestamp, Messages.origin_seq)
    .where(OF_ROOM & (Messages.timestamp >= Named("after")) & ~IS_SHOWN)
    .order_by(Messages.timestamp)
    .limit(Named("limit"))
)
SELECT_NOT_SHOWN = statement(Messages.select(Messages.id).where(OF_SOME & ~IS_SHOWN))


def clear_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Delete all messages of a room."""
    found = db.rows(SELECT_UP_TO, room_id=room_id, limit=AT_ONCE + 1)
    if not found:
        return
    changes.cleared(context, "message", room_id)
    if len(found) <= AT_ONCE:
        _remove([message_id for (message_id,) in found], db, context)
        return
    db.write(UPSERT_MARK, (room_id, context.written, 0))
    db.clearing = True


def is_clearing(db: Reads) -> bool:
    """Whether there are cleared rooms from which not all messages are removed."""
    return db.row(SELECT_MARK, behind="") is not None


def next_room(db: Reads, behind: str) -> str | None:
    """The first cleared room, in the order of their ids, from which not all messages are removed."""
    mark = db.row(SELECT_MARK, behind=behind)
    return mark[0] if mark else None


def number_of_rooms(db: Reads) -> int:
    """The number of cleared rooms from which not all messages are removed."""
    return int(db.rows(COUNT_MARKS)[0][0])


def check_removed(until: int | None, from_seq: int = 0) -> None:
    """Raise `Busy` while messages are not removed that commands from this one on may have written.

    For what reads rows and the command log as they are; `until` is `LAST_MARK`.
    """
    if until is not None and until // MEMBERS >= from_seq:
        raise Busy("messages of a cleared room are being removed; try again")


def remove_some(db: Writes, number: int, behind: str = "") -> int:
    """Remove this number of messages of a cleared room, with everything that belongs to them. Returns how many.

    It is the first room after the id `behind`, in the order of ids.
    They are more if one command saved them: its entry in the log is to be rewritten a few times, and not for each of
    them. So they are taken in the order of these commands, out of some thousand messages.
    """
    mark = db.row(SELECT_MARK, behind=behind)
    if mark is None:
        db.clearing = bool(behind)
        return 0
    room_id, after = mark
    found = db.rows(SELECT_REMAINING, room_id=room_id, after=after, limit=WINDOW)
    by_origin = sorted((origin_seq, message_id) for message_id, _, origin_seq in found)
    taken = by_origin[:number]
    taken += takewhile(lambda each: each[0] == taken[-1][0] > 0, by_origin[number:OF_ONE_COMMAND])
    _remove([message_id for _, message_id in taken], db, CommandContext(0, "", db.now, "", None))
    if len(found) < WINDOW and len(taken) == len(found):
        db.run(DELETE_MARK, room_id=room_id)
    elif len(taken) == len(found):
        db.run(MOVE_MARK, room_id=room_id, after=found[-1][1])
    return len(taken)


def remove_named(command: Command[Any], db: Writes, context: CommandContext) -> None:
    """Remove the messages that a command names, if they are of a cleared room and still there."""
    named = _named(command, db)
    both = sorted({*named, *(resolve(each, db) for each in named)})
    found = db.rows(SELECT_NOT_SHOWN, message_ids=to_json(both).decode()) if both else []
    if found:
        _remove([message_id for (message_id,) in found], db, context)


def _remove(message_ids: list[str], db: Writes, context: CommandContext) -> None:
    DELETION_OF_SOME.execute(db, context, message_ids=to_json(message_ids).decode())


def _named(command: Command[Any], db: Reads) -> list[str]:
    """The ids of messages that a command writes, or whose reactions and attachments it writes."""
    match command:
        case SaveMessage():
            return [command.message.id]
        case RenameMessage():
            return [command.message_id, command.new_id]
        case UpdateMessage() | DeleteMessage() | RemoveReaction() | DeleteAttachmentsForMessage():
            return [command.message_id]
        case SaveReaction():
            return [command.reaction.message_id]
        case SaveAttachment():
            before = db.row(attachments.SELECT_ONE, attachment_id=command.attachment.id)
            return [command.attachment.message_id, *([before[attachments.MESSAGE_AT]] if before else [])]
    return []
