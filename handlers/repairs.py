"""Rows that need others which a repair could not save: a room for its channels and members, media for their parts."""

from typing import Any

from peewee import SQL

from backscroll.handlers.sql import Named, statement
from backscroll.schema.tables import (
    Attachments,
    Categories,
    Channels,
    Media,
    MediaParts,
    Members,
    Rooms,
    Table,
    UnnamedMedia,
)

IN_ROOMS: tuple[type[Table], ...] = (Channels, Categories, Members)
OF_MEDIA: tuple[type[Table], ...] = (MediaParts, UnnamedMedia)


def _without_parent(table: Any, column: Any, parent: Any) -> Any:
    return table.select(column).where(column.not_in(parent.select(parent.id))).distinct()


SELECT_ROOMS_MISSING = [statement(_without_parent(table, table.room_id, Rooms)) for table in IN_ROOMS]  # type: ignore[attr-defined]
INSERT_ROOM = statement(Rooms.insert({Rooms.id: Named("id"), Rooms.name: Named("id")}).on_conflict_ignore())
SELECT_MEDIA_MISSING = [statement(_without_parent(table, table.media_id, Media)) for table in OF_MEDIA]  # type: ignore[attr-defined]
INSERT_MEDIA = statement(
    Media.insert(
        {
            Media.id: Named("id"),
            Media.sha256: Named("sha256"),
            Media.mime: Named("mime"),
            Media.size: Named("size"),
            Media.created_at: Named("created_at"),
        }
    ).on_conflict_ignore()
)
DELETE_OF_MEDIA = [
    statement(table.delete().where(table.media_id == Named("media_id")))  # type: ignore[attr-defined]
    for table in OF_MEDIA
]
SELECT_NAMING = statement(
    MediaParts.select(MediaParts.media_id).where(MediaParts.sha256 == Named("sha256")).order_by(SQL("1"))
)
SELECT_ATTACHMENTS = statement(
    Attachments.select(Attachments.id, Attachments.message_id)
    .where(Attachments.media_id == Named("media_id"))
    .order_by(Attachments.id)
)
