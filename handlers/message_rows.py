"""The rows of messages, and their deletion with everything that belongs to them."""

from typing import Any

from peewee import SQL, Case, Expression, Field, IntegerField, Node, NodeList

from backscroll.handlers import changes
from backscroll.handlers.aliases import HIDDEN, resolved
from backscroll.handlers.sql import Named, RowMapper, statement
from backscroll.handlers.storage import CommandContext, Writes
from backscroll.schema.records import Message
from backscroll.schema.tables import Attachments, LogReferences, Messages, ReactionRemovals, Reactions


def _reply_to(message_id: Node) -> Any:
    """What is written for the id of the message that is replied to, which may have been renamed."""
    return Case(None, [(NodeList((message_id, SQL("IS NOT NULL"))), resolved(message_id))])


ROWS = RowMapper(Message, Messages, elsewhere=("reactions", "attachments"), written={"reply_to_id": _reply_to})
ID_AT = ROWS.names.index("id")
ROOM_AT = ROWS.names.index("room_id")
IS_DELETED_AT = ROWS.names.index("is_deleted")

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


def hidden_row(**columns: Any) -> dict[Field, Any]:
    """The columns of a hidden row; those that are not given are unset, or empty."""
    given = {"room_id": SQL(f"'{HIDDEN}'")} | columns
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
        self.delete_children = [
            statement(table.delete().where(table.message_id.in_(ids)))
            for table in (Reactions, ReactionRemovals, Attachments)
        ]
        self.hide_tombstones = statement(Messages.update(HIDE).where(where & (Messages.is_deleted == SQL("1"))))
        self.delete = statement(Messages.delete().where(where))

    def execute(self, db: Writes, context: CommandContext, **place: str) -> int:
        """Delete the messages of a room or channel, including their rows. Returns how many.

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
        for delete in self.delete_children:
            db.run(delete, **place)


OF_ROOM = Messages.room_id == Named("room_id")
DELETION_OF_ONE = Deletion(Messages.id == Named("message_id"))
DELETION_OF_ROOM = Deletion(OF_ROOM)
DELETION_OF_CHANNEL = Deletion(OF_ROOM & (Messages.channel_id == Named("channel_id")))
