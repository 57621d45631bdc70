"""Media. The tables list the parts of each file; the parts themselves are files beside the database."""

import hashlib
from collections.abc import Collection

from peewee import SQL, fn

from backscroll.handlers import changes, command_log
from backscroll.handlers.lists import Items, OrderedRows
from backscroll.handlers.registry import handles
from backscroll.handlers.sql import Named, Row, RowMapper, one_of, statement, to_json, typed
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.errors import Invalid, NotFound, Storage
from backscroll.schema.operations import DeleteMedia, GetMedia, GetMediaPart, ListMedia, PutMedia, PutMediaPart
from backscroll.schema.replies import Media as MediaRecord
from backscroll.schema.tables import Attachments, Media, MediaParts, UnnamedMedia

ROWS = RowMapper(MediaRecord, Media, elsewhere=("parts",))
PART_COUNT = MediaParts.select(fn.COUNT(MediaParts.position)).where(MediaParts.media_id == Media.id)

INSERT = statement(ROWS.insert())
INSERT_PART = statement(MediaParts.insert({field: Named(name) for name, field in MediaParts._meta.fields.items()}))
DELETE = statement(Media.delete().where(Media.id == Named("media_id")))
SELECT_ONE = statement(Media.select(*ROWS.columns, PART_COUNT).where(Media.id == Named("media_id")))
SELECT_BY_HASH = statement(Media.select(*ROWS.columns, PART_COUNT).where(Media.sha256 == Named("sha256")))
SELECT_ALL = OrderedRows(Media.select(*ROWS.columns, PART_COUNT), [Media.id])
SELECT_PART = statement(
    MediaParts.select(MediaParts.sha256).where(
        (MediaParts.media_id == Named("media_id")) & (MediaParts.position == Named("position"))
    )
)
SELECT_PARTS = statement(MediaParts.select(MediaParts.sha256).where(MediaParts.media_id == Named("media_id")))
SELECT_ALL_FILES = statement(Media.select(Media.id, Media.sha256, Media.size).order_by(Media.id))
SELECT_ORDERED_PARTS = statement(
    MediaParts.select(MediaParts.position, MediaParts.sha256)
    .where(MediaParts.media_id == Named("media_id"))
    .order_by(MediaParts.position)
)
SELECT_USE_OF_PART = statement(MediaParts.select(SQL("1")).where(MediaParts.sha256 == Named("sha256")).limit(SQL("1")))
SELECT_USED_PARTS = statement(
    MediaParts.select(MediaParts.sha256).distinct().where(one_of(MediaParts.sha256, "hashes"))
)
NAMING = Attachments.select(SQL("1")).where(Attachments.media_id == Media.id)
INSERT_UNNAMED = statement(
    UnnamedMedia.insert_from(
        Media.select(Media.id, typed(Named("now"), "bigint")).where(one_of(Media.id, "media_ids") & ~fn.EXISTS(NAMING)),
        [UnnamedMedia.media_id, UnnamedMedia.since],
    ).on_conflict_ignore()
)
DELETE_UNNAMED = statement(UnnamedMedia.delete().where(UnnamedMedia.media_id == Named("media_id")))
SELECT_UNNAMED_PARTS = statement(
    UnnamedMedia.select(UnnamedMedia.media_id, MediaParts.sha256)
    .join(MediaParts, on=MediaParts.media_id == UnnamedMedia.media_id)
    .where(UnnamedMedia.since <= Named("until"))
    .order_by(UnnamedMedia.since, UnnamedMedia.media_id)
)


@handles(PutMediaPart)
def put_media_part(command: PutMediaPart, db: Writes, _context: CommandContext) -> str:
    if (command.data is None) == (command.sha256 is None):
        raise Invalid.at("$.payload", "give either data or sha256")
    if command.data is not None:
        return db.blobs.put(command.data)
    assert command.sha256 is not None
    if not db.blobs.put_again(command.sha256):
        raise NotFound.at("$.payload.sha256", "this part is not stored; put it with data")
    return command.sha256


@handles(PutMedia)
def put_media(command: PutMedia, db: Writes, context: CommandContext) -> MediaRecord:
    digest, size = hashlib.sha256(), 0
    for index, sha256 in enumerate(command.parts):
        data = db.blobs.read(sha256)
        if data is None:
            raise NotFound.at(f"$.payload.parts[{index}]", "this part is not stored; put it again")
        digest.update(data)
        size += len(data)
    row = db.row(SELECT_BY_HASH, sha256=digest.hexdigest())
    if row is not None:
        context.payload_dropped = True  # it changes nothing, and a replay may no longer have its parts
        for (sha256,) in db.rows(SELECT_PARTS, media_id=row[0]):
            db.blobs.put_again(sha256)  # so that it is not deleted before an attachment names it
        changes.add_reference(changes.media(row[0]), db, context)  # because of the result, which refers to it
        return _record(row)
    media = MediaRecord(
        id=context.new_id(),
        sha256=digest.hexdigest(),
        mime=command.mime,
        size=size,
        parts=len(command.parts),
        created_at=context.now,
        uploader_id=command.uploader_id,
    )
    changes.add_reference(changes.media(media.id), db, context)
    changes.saved(context, "media", media.id)
    db.write(INSERT, ROWS.to_row(media))
    for position, sha256 in enumerate(command.parts):
        db.run(INSERT_PART, media_id=media.id, position=position, sha256=sha256)
    return media


@handles(DeleteMedia)
def delete_media(command: DeleteMedia, db: Writes, context: CommandContext) -> None:
    hashes = {row[0] for row in db.rows(SELECT_PARTS, media_id=command.media_id)}
    if db.run(DELETE, media_id=command.media_id):
        changes.gone(context, "media", command.media_id)
    for seq in changes.take_references(changes.media(command.media_id), db):
        command_log.erase_payload(seq, db)
    for sha256 in sorted(hashes):
        if db.row(SELECT_USE_OF_PART, sha256=sha256) is None:
            db.blobs.remove_after_commit(sha256)


@handles(GetMedia)
def get_media(query: GetMedia, db: Reads) -> MediaRecord | None:
    return find(query.media_id, db)


@handles(ListMedia)
def list_media(query: ListMedia, db: Reads) -> Items[MediaRecord]:
    rows = SELECT_ALL.read(db, query.after, query.limit)
    return Items(map(_record, rows), is_page=query.limit is not None)


@handles(GetMediaPart)
def get_media_part(query: GetMediaPart, db: Reads) -> bytes:
    row = db.row(SELECT_PART, media_id=query.media_id, position=query.part)
    if row is None:
        raise NotFound.at("$.payload.part", f"there is no part {query.part} of media {query.media_id!r}")
    data = db.blobs.read(row[0])
    if data is None:
        raise Storage("the part is missing on the disk, or the media has just been deleted; try again", retryable=True)
    return data


# Media that attachments name. Which of them none names any more is noted; the chores delete them after a time.


def note_named(media_id: str, db: Writes) -> None:
    """Note that an attachment names a media."""
    db.run(DELETE_UNNAMED, media_id=media_id)


def note_gone(media_ids: Collection[str | None], db: Writes, context: CommandContext) -> None:
    """Note which of these media no attachment names any more, after attachments that named them are gone."""
    named = sorted({each for each in media_ids if each is not None})
    if named:
        db.run(INSERT_UNNAMED, media_ids=to_json(named).decode(), now=context.now)


def find(media_id: str, db: Reads) -> MediaRecord | None:
    """The media with this id, or None."""
    row = db.row(SELECT_ONE, media_id=media_id)
    return _record(row) if row else None


def _record(row: Row) -> MediaRecord:
    *columns, parts = row
    return ROWS.to_record(tuple(columns), parts=parts)
