"""Attachments, in rows of their own."""

from backscroll.handlers import command_log
from backscroll.handlers.reactions import begin_change
from backscroll.handlers.sql import Named, RowMapper, statement
from backscroll.handlers.storage import Database
from backscroll.schema.operations import (
    DeleteAttachmentsForMessage,
    GetAllAttachments,
    GetAttachmentsForMessage,
    SaveAttachment,
)
from backscroll.schema.records import Attachment
from backscroll.schema.tables import Attachments

ROWS = RowMapper(Attachment, Attachments)

UPSERT = ROWS.upsert()
DELETE_OF_MESSAGE = statement(Attachments.delete().where(Attachments.message_id == Named("message_id")))
SELECT_OF_MESSAGE = statement(
    Attachments.select(*ROWS.columns).where(Attachments.message_id == Named("message_id")).order_by(Attachments.id)
)
SELECT_ALL = statement(Attachments.select(*ROWS.columns).order_by(Attachments.id))


def save_attachment(command: SaveAttachment, db: Database) -> None:
    if begin_change(command.attachment.message_id, db):
        command_log.mention("attachment", command.attachment.id, db)
        db.write(UPSERT, ROWS.to_row(command.attachment))


def delete_attachments_for_message(command: DeleteAttachmentsForMessage, db: Database) -> None:
    db.run(DELETE_OF_MESSAGE, message_id=command.message_id)


def get_attachments_for_message(query: GetAttachmentsForMessage, db: Database) -> list[Attachment]:
    return [ROWS.to_record(row) for row in db.rows(SELECT_OF_MESSAGE, message_id=query.message_id)]


def get_all_attachments(_query: GetAllAttachments, db: Database) -> list[Attachment]:
    return [ROWS.to_record(row) for row in db.rows(SELECT_ALL)]
