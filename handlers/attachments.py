"""Attachments, in a table of their own."""

from collections import defaultdict
from collections.abc import Iterable

from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers import arrival, changes, media
from backscroll.handlers.aliases import message_of, shown_id
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.reactions import declare_message
from backscroll.handlers.registry import handles
from backscroll.handlers.shown import NOT_SHOWN_IDS
from backscroll.handlers.sql import Named, Row, RowMapper, one_of, statement, to_json
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
MESSAGE_AT = ROWS.names.index("message_id")
MEDIA_AT = ROWS.names.index("media_id")
OF_MESSAGE = Attachments.message_id == Named("message_id")

UPSERT = ROWS.upsert()
DELETE_OF_MESSAGE = statement(Attachments.delete().where(OF_MESSAGE).returning(Attachments.media_id))
MOVE_ALL = statement(Attachments.update({Attachments.message_id: Named("new_id")}).where(OF_MESSAGE))
SELECT_OF_MESSAGE = OrderedRows(Attachments.select(*ROWS.columns).where(OF_MESSAGE), [Attachments.id])
SELECT_OF_MESSAGES = statement(
    Attachments.select(*ROWS.columns)
    .where(one_of(Attachments.message_id, "message_ids"))
    .order_by(Attachments.message_id, Attachments.id)
    .limit(Named("limit"))
)
SELECT_ONE = statement(Attachments.select(*ROWS.columns).where(Attachments.id == Named("attachment_id")))
SELECT_ALL = OrderedRows(
    Attachments.select(*ROWS.columns).where(Attachments.message_id.not_in(NOT_SHOWN_IDS)), [Attachments.id]
)
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
    saved = ROWS.to_row(replace(command.attachment, message_id=found.id))
    row, about = saved, changes.attachment(command.attachment.id)
    before = db.row(SELECT_ONE, attachment_id=command.attachment.id)
    if before is not None and command.arrival is not None:
        row = arrival.joined_attachment(before, saved, MESSAGE_AT)
    changes.add_reference(about, db, context)
    is_newer = _content(row) == _content(saved)
    if db.retention.redact_replaced and not is_newer:
        context.redact_own(context.member)
    if row == before:
        media.note_gone([saved[MEDIA_AT]], db, context)  # as if it had come first, and been replaced
        return
    if before is not None and db.retention.redact_replaced and is_newer:
        changes.erase_earlier(about, db, context)
    db.write(UPSERT, row)
    if row[MEDIA_AT] is not None:
        media.note_named(row[MEDIA_AT], db)
    if before is not None:
        media.note_gone([before[MEDIA_AT], saved[MEDIA_AT]], db, context)
    for message_id in dict.fromkeys(each[MESSAGE_AT] for each in (before, row) if each is not None):
        declare_message(found if message_id == found.id else message_of(message_id, db), context)


@handles(DeleteAttachmentsForMessage)
def delete_attachments_for_message(command: DeleteAttachmentsForMessage, db: Writes, context: CommandContext) -> None:
    found = message_of(command.message_id, db)
    of_message = {"message_id": found.id}
    changes.redact(db.rows(SELECT_COMMANDS_ABOUT, **of_message), db, context)
    db.run(DELETE_REFERENCES, **of_message)
    if deleted := db.rows(DELETE_OF_MESSAGE, **of_message):
        media.note_gone([row[0] for row in deleted], db, context)
        declare_message(found, context)


@handles(GetAttachmentsForMessage)
def get_attachments_for_message(query: GetAttachmentsForMessage, db: Reads) -> Items[Attachment]:
    message_id = shown_id(query.message_id, db)
    rows = SELECT_OF_MESSAGE.read(db, query.after, query.limit, message_id=message_id)
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


def _content(row: Row) -> Row:
    """A row without the message that it belongs to."""
    return (*row[:MESSAGE_AT], *row[MESSAGE_AT + 1 :])
