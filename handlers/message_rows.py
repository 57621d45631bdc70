"""The rows of messages, and their deletion with everything that belongs to them."""

from typing import Any

from peewee import SQL, Case, ColumnBase, Field, IntegerField, Node, NodeList

from backscroll.handlers import changes, media
from backscroll.handlers.aliases import HIDDEN, resolved
from backscroll.handlers.shown import SHOWN_IN_ROOM
from backscroll.handlers.sql import Guarded, Named, RowMapper, as_number, one_of, statement, typed
from backscroll.handlers.storage import CommandContext, Writes
from backscroll.schema.command_log import Fields
from backscroll.schema.errors import Conflict
from backscroll.schema.records import Message
from backscroll.schema.tables import Attachments, LogReferences, Messages, ReactionRemovals, Reactions


def _id_now(message_id: Node) -> Any:
    """What is written for the id of another message, which may have been renamed."""
    return Case(None, [(NodeList((typed(message_id, "text"), SQL("IS NOT NULL"))), resolved(message_id))])


RARE = ("ordinal", "sent_at", "type", "thread_id", "forwarded_from", "mentions", "pinned_at", "expires_at")
"""What few messages have."""
OF_OTHERS = (Messages.reply_to_id, Messages.thread_id)
"""The columns with the id of another message."""
ROWS = RowMapper(
    Message,
    Messages,
    elsewhere=("reactions", "attachments"),
    rare=RARE,
    rare_flag="has_rare",
    expressions={column.name: _id_now for column in OF_OTHERS},
    guarded=Guarded(Messages.content, Messages.written),
)
ORDER = (Messages.timestamp, Messages.ordinal, Messages.id)
ID_AT = ROWS.names.index("id")
ROOM_AT = ROWS.names.index("room_id")
IS_DELETED_AT = ROWS.names.index("is_deleted")

OF_ONE = Messages.id == Named("message_id")
OF_SOME = one_of(Messages.id, "message_ids")
OF_ROOM = Messages.room_id == Named("room_id")
IS_DELETED = Messages.is_deleted == SQL("1")

HAS_RARE = (
    (Messages.ordinal != SQL("0"))
    | Messages.sent_at.is_null(False)
    | Messages.type.is_null(False)
    | Messages.thread_id.is_null(False)
    | Messages.expires_at.is_null(False)
)
TOMBSTONE: dict[Any, Any] = {
    Messages.is_deleted: SQL("1"),
    Messages.content: SQL("''"),
    Messages.link_metadata: SQL("NULL"),
    Messages.metadata: SQL("NULL"),
    Messages.forwarded_from: SQL("NULL"),
    Messages.mentions: SQL("NULL"),
    Messages.pinned_at: SQL("NULL"),
    Messages.has_rare: as_number(HAS_RARE),
    Messages.origin_seq: SQL("0"),
}
"""What a deleted message loses (`arrival.LOST`); its place, its author and its times stay."""
MAKE_TOMBSTONE = statement(Messages.update(TOMBSTONE).where(OF_ONE))
MAKE_TOMBSTONES = statement(Messages.update(TOMBSTONE).where(OF_SOME))

INSERT_ORIGIN_REFERENCE = statement(
    LogReferences.insert_from(
        Messages.select(
            SQL("'message'"),
            SQL("''"),
            Messages.id,
            Messages.origin_seq,
            Messages.origin_member,
            SQL(str(changes.ALL_TEXT)),
        ).where(OF_ONE & (Messages.origin_seq > SQL("0"))),
        list(LogReferences._meta.fields.values()),
    ).on_conflict_ignore()
)


def hidden_row(**columns: Any) -> dict[Field, Any]:
    """The columns of a hidden row; those that are not given are unset, or empty."""
    given = {"room_id": SQL(f"'{HIDDEN}'"), "written": SQL("1")} | columns
    return {
        field: given.get(name, SQL("NULL" if field.null else "0" if isinstance(field, IntegerField) else "''"))
        for name, field in Messages._meta.fields.items()
        if name != "id"
    }


HIDE = hidden_row(channel_id=Messages.room_id, is_deleted=SQL("1"))
"""The update that hides a tombstone; it keeps the room that it was in, for forget-deletions."""


class Deletion:
    """The statements that delete the messages matching `where`, with their reactions and attachments.

    The text of all of these is erased from the command log, including text about an attachment from a time when it
    belonged to another message.
    """

    def __init__(self, where: ColumnBase) -> None:
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
        self.delete_reactions = [
            statement(table.delete().where(table.message_id.in_(ids))) for table in (Reactions, ReactionRemovals)
        ]
        self.delete_attachments = statement(
            Attachments.delete().where(Attachments.message_id.in_(ids)).returning(Attachments.media_id)
        )
        self.hide_tombstones = statement(Messages.update(HIDE).where(where & IS_DELETED))
        self.delete = statement(Messages.delete().where(where & (Messages.is_deleted == SQL("0"))))

    def execute(self, db: Writes, context: CommandContext, **place: str) -> int:
        """Delete the messages, which must not be hidden, including their rows. Returns how many.

        Of those that were deleted before, a hidden tombstone is left, so that no late copy brings them back.
        """
        self.delete_contents(db, context, **place)
        return db.run(self.hide_tombstones, **place) + db.run(self.delete, **place)

    def delete_contents(self, db: Writes, context: CommandContext, **place: str) -> None:
        """Delete everything that belongs to the messages, but not their rows."""
        places = db.rows(self.select_places, **place)
        changes.redact([(seq, member) for seq, member, _ in places], db, context)
        if any(is_reference for _, _, is_reference in places):
            for delete in self.delete_references:
                db.run(delete, **place)
        for delete in self.delete_reactions:
            db.run(delete, **place)
        if deleted := db.rows(self.delete_attachments, **place):
            media.note_gone([row[0] for row in deleted], db, context)


DELETION_OF_ONE = Deletion(OF_ONE)
DELETION_OF_SOME = Deletion(OF_SOME)
DELETION_OF_CHANNEL = Deletion(SHOWN_IN_ROOM & (Messages.channel_id == Named("channel_id")))


def erase_replaced(message_id: str, replaced: Fields, db: Writes, context: CommandContext) -> None:
    """Erase the text in these fields of a message from the commands before this one, if the log is not to keep it."""
    if replaced and db.retention.redact_replaced:
        db.run(INSERT_ORIGIN_REFERENCE, message_id=message_id)
        changes.erase_replaced(changes.message(message_id), replaced, db, context)


def is_elsewhere(message_id: str, room_id: str) -> Conflict:
    """The error for a message that is saved to another room than the one which it is in."""
    problem = f"message {message_id!r} is in room {room_id!r}; update its roomId to move it, or give another id"
    return Conflict.at("$.payload.message.id", problem, roomId=room_id)
