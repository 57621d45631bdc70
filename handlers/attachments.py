"""Attachments, in a table of their own."""

from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers import arrival, changes
from backscroll.handlers.aliases import message_of, resolve
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.reactions import declare_message
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import Named, RowMapper, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.operations import (
    DeleteAttachmentsForMessage,
    GetAllAttachments,
    GetAttachmentsForMessage,
    SaveAttachment,
)
from backscroll.schema.records import Attachment
from backscroll.schema.tables import Attachments, LogReferences

ROWS = RowMapper(Attachment, Attachments)
MESSAGE_AT = ROWS.names.index("message_id")
OF_MESSAGE = Attachments.message_id == Named("message_id")

UPSERT = ROWS.upsert()
DELETE_OF_MESSAGE = statement(Attachments.delete().where(OF_MESSAGE))
MOVE_ALL = statement(Attachments.update({Attachments.message_id: Named("new_id")}).where(OF_MESSAGE))
SELECT_OF_MESSAGE = OrderedRows(Attachments.select(*ROWS.columns).where(OF_MESSAGE), [Attachments.id])
SELECT_ONE = statement(Attachments.select(*ROWS.columns).where(Attachments.id == Named("attachment_id")))
SELECT_ALL = OrderedRows(Attachments.select(*ROWS.columns), [Attachments.id])
SELECT_COMMANDS_ABOUT, DELETE_REFERENCES = changes.references(
    (LogReferences.noun == SQL("'attachment'"))
    & (LogReferences.parent == SQL("''"))
    & LogReferences.subject.in_(Attachments.select(Attachments.id).where(OF_MESSAGE))
)


@handles(SaveAttachment)
def save_attachment(command: SaveAttachment, db: Writes, context: CommandContext) -> None:
    found = message_of(command.attachment.message_id, db)
    if found.is_deleted:
        context.redact_own(context.member)
        return
    row = ROWS.to_row(replace(command.attachment, message_id=found.id))
    before = db.row(SELECT_ONE, attachment_id=command.attachment.id)
    if before is not None and command.arrival is not None:
        row = arrival.joined_attachment(before, row, MESSAGE_AT)
    changes.add_reference(changes.attachment(command.attachment.id), db, context)
    if row == before:
        return
    db.write(UPSERT, row)
    for message_id in dict.fromkeys(each[MESSAGE_AT] for each in (before, row) if each is not None):
        declare_message(found if message_id == found.id else message_of(message_id, db), context)


@handles(DeleteAttachmentsForMessage)
def delete_attachments_for_message(command: DeleteAttachmentsForMessage, db: Writes, context: CommandContext) -> None:
    found = message_of(command.message_id, db)
    of_message = {"message_id": found.id}
    changes.redact(db.rows(SELECT_COMMANDS_ABOUT, **of_message), db, context)
    db.run(DELETE_REFERENCES, **of_message)
    if db.run(DELETE_OF_MESSAGE, **of_message):
        declare_message(found, context)


@handles(GetAttachmentsForMessage)
def get_attachments_for_message(query: GetAttachmentsForMessage, db: Reads) -> Items[Attachment]:
    rows = SELECT_OF_MESSAGE.read(db, query.after, query.limit, message_id=resolve(query.message_id, db))
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)


@handles(GetAllAttachments)
def get_all_attachments(query: GetAllAttachments, db: Reads) -> Items[Attachment]:
    rows = SELECT_ALL.read(db, query.after, query.limit)
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)
