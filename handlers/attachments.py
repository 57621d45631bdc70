"""Attachments, in a table of their own."""

from collections import defaultdict
from collections.abc import Iterable

from peewee import SQL

from backscroll.handlers import changes, media
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.reactions import declare_message, message_of
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import Named, RowMapper, one_of, statement, to_json
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.limits import PAGE_ATTACHMENTS_MAX
from backscroll.schema.operations import (
    DeleteAttachmentsForMessage,
    GetAllAttachments,
    GetAttachmentsForMessage,
    SaveAttachment,
)
from backscroll.schema.records import Attachment
from backscroll.schema.tables import Attachments, LogReferences

ROWS = RowMapper(Attachment, Attachments)
OF_MESSAGE = Attachments.message_id == Named("message_id")

UPSERT = ROWS.upsert()
DELETE_OF_MESSAGE = statement(Attachments.delete().where(OF_MESSAGE).returning(Attachments.media_id))
SELECT_OF_MESSAGE = OrderedRows(Attachments.select(*ROWS.columns).where(OF_MESSAGE), [Attachments.id])
SELECT_OF_MESSAGES = statement(
    Attachments.select(*ROWS.columns)
    .where(one_of(Attachments.message_id, "message_ids"))
    .order_by(Attachments.message_id, Attachments.id)
    .limit(Named("limit"))
)
SELECT_NAMED = statement(
    Attachments.select(Attachments.message_id, Attachments.media_id).where(Attachments.id == Named("attachment_id"))
)
SELECT_ALL = OrderedRows(Attachments.select(*ROWS.columns), [Attachments.id])
SELECT_COMMANDS_ABOUT, DELETE_REFERENCES = changes.references(
    (LogReferences.noun == SQL("'attachment'"))
    & (LogReferences.parent == SQL("''"))
    & LogReferences.subject.in_(Attachments.select(Attachments.id).where(OF_MESSAGE))
)


@handles(SaveAttachment)
def save_attachment(command: SaveAttachment, db: Writes, context: CommandContext) -> None:
    attachment = command.attachment
    room_id, is_deleted = message_of(attachment.message_id, db)
    if is_deleted:
        context.redact_own(context.member)
        return
    message_before, media_before = db.row(SELECT_NAMED, attachment_id=attachment.id) or (None, None)
    if message_before not in (None, attachment.message_id):
        declare_message(message_before, message_of(message_before, db)[0], context)
    declare_message(attachment.message_id, room_id, context)
    changes.add_reference(changes.attachment(attachment.id), db, context)
    if message_before is not None and db.retention.redact_replaced:
        changes.erase_earlier(changes.attachment(attachment.id), db, context)
    db.write(UPSERT, ROWS.to_row(attachment))
    if attachment.media_id is not None:
        media.note_named(attachment.media_id, db)
    media.note_gone([media_before], db, context)


@handles(DeleteAttachmentsForMessage)
def delete_attachments_for_message(command: DeleteAttachmentsForMessage, db: Writes, context: CommandContext) -> None:
    of_message = {"message_id": command.message_id}
    changes.redact(db.rows(SELECT_COMMANDS_ABOUT, **of_message), db, context)
    db.run(DELETE_REFERENCES, **of_message)
    if deleted := db.rows(DELETE_OF_MESSAGE, **of_message):
        media.note_gone([row[0] for row in deleted], db, context)
        declare_message(command.message_id, message_of(command.message_id, db)[0], context)


@handles(GetAttachmentsForMessage)
def get_attachments_for_message(query: GetAttachmentsForMessage, db: Reads) -> Items[Attachment]:
    rows = SELECT_OF_MESSAGE.read(db, query.after, query.limit, message_id=query.message_id)
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)


@handles(GetAllAttachments)
def get_all_attachments(query: GetAllAttachments, db: Reads) -> Items[Attachment]:
    rows = SELECT_ALL.read(db, query.after, query.limit)
    return Items(map(ROWS.to_record, rows), is_page=query.limit is not None)


def attachments_by_message(message_ids: Iterable[str], bytes_max: int, db: Reads) -> dict[str, list[Attachment]] | None:
    """The attachments of many messages, read with one statement; those of a message in the order of their ids.

    None if they are too many for one page, or larger than `bytes_max` in JSON. A message without any is left out.
    """
    ids = to_json(list(message_ids)).decode()
    bound = {"message_ids": ids, "limit": PAGE_ATTACHMENTS_MAX + 1}
    rows, _, complete = db.rows_within(bytes_max, ROWS.take_by_long_size, SELECT_OF_MESSAGES, **bound)
    if not complete or len(rows) > PAGE_ATTACHMENTS_MAX:
        return None
    records = ROWS.to_records(rows)
    if records and len(to_json(records)) > bytes_max:
        return None
    found: dict[str, list[Attachment]] = defaultdict(list)
    for attachment in records:
        found[attachment.message_id].append(attachment)
    return found
