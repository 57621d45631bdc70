"""Channels and categories one by one, in the tables that rooms keep their lists in."""

from typing import Any

from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers import command_log, messages, rooms, users
from backscroll.handlers.rooms import CATEGORIES, CHANNELS, ChildList
from backscroll.handlers.sql import Named, changes, statement
from backscroll.handlers.storage import Database
from backscroll.schema.errors import Conflict, NotFound
from backscroll.schema.operations import (
    CreateCategory,
    CreateChannel,
    CreateMessage,
    DeleteCategory,
    DeleteChannel,
    GetChannel,
    ListCategories,
    ListChannels,
    UpdateCategory,
    UpdateChannel,
)
from backscroll.schema.operations.channels import DEFAULT_ROOM
from backscroll.schema.records import Category, Channel, Message, Room
from backscroll.schema.tables import Channels, Messages
from backscroll.schema.ulid import time_of

FORGET_CATEGORY = statement(
    Channels.update({Channels.category_id: SQL("NULL")}).where(
        (Channels.room_id == Named("room_id")) & (Channels.category_id == Named("category_id"))
    )
)
HAS_MESSAGES = statement(
    Messages.select(SQL("1"))
    .where((Messages.room_id == Named("room_id")) & (Messages.channel_id == Named("channel_id")))
    .limit(SQL("1"))
)


def create_channel(command: CreateChannel, db: Database) -> Channel:
    _require_room(command.room_id, db)
    _require_category(command.category_id, command.room_id, "$.payload.categoryId", db)
    channel = Channel(
        id=db.new_id(),
        name=command.name,
        type=command.type,
        position=command.position,
        topic=command.topic,
        category_id=command.category_id,
        created_at=db.now,
        updated_at=db.now,
    )
    command_log.mention("room", command.room_id, db)
    CHANNELS.save(command.room_id, channel, db)
    return channel


def update_channel(command: UpdateChannel, db: Database) -> Channel:
    stored = _stored(CHANNELS, command.channel_id, command.room_id, "$.payload.channelId", db)
    updates = {"updated_at": db.now} | changes(command.updates)
    _require_category(updates.get("category_id"), command.room_id, "$.payload.updates.categoryId", db)
    channel: Channel = replace(stored, **updates)
    command_log.mention("room", command.room_id, db)
    CHANNELS.save(command.room_id, channel, db)
    return channel


def delete_channel(command: DeleteChannel, db: Database) -> None:
    _stored(CHANNELS, command.channel_id, command.room_id, "$.payload.channelId", db)
    place = {"room_id": command.room_id, "channel_id": command.channel_id}
    if command.cascade:
        messages.DELETION_OF_CHANNEL.carry_out(db, **place)
    elif db.row(HAS_MESSAGES, **place):
        raise Conflict.at("$.payload.channelId", "the channel has messages: delete it with cascade")
    CHANNELS.remove(command.room_id, command.channel_id, db)


def get_channel(query: GetChannel, db: Database) -> Channel | None:
    return CHANNELS.find(query.room_id, query.channel_id, db)


def list_channels(query: ListChannels, db: Database) -> list[Channel]:
    return CHANNELS.of_room(query.room_id, db)


def create_category(command: CreateCategory, db: Database) -> Category:
    _require_room(command.room_id, db)
    category = Category(id=db.new_id(), name=command.name, position=command.position, created_at=db.now)
    command_log.mention("room", command.room_id, db)
    CATEGORIES.save(command.room_id, category, db)
    return category


def update_category(command: UpdateCategory, db: Database) -> Category:
    stored = _stored(CATEGORIES, command.category_id, command.room_id, "$.payload.categoryId", db)
    category: Category = replace(stored, **changes(command.updates))
    command_log.mention("room", command.room_id, db)
    CATEGORIES.save(command.room_id, category, db)
    return category


def delete_category(command: DeleteCategory, db: Database) -> None:
    _stored(CATEGORIES, command.category_id, command.room_id, "$.payload.categoryId", db)
    db.run(FORGET_CATEGORY, room_id=command.room_id, category_id=command.category_id)
    CATEGORIES.remove(command.room_id, command.category_id, db)


def list_categories(query: ListCategories, db: Database) -> list[Category]:
    return CATEGORIES.of_room(query.room_id, db)


def create_message(command: CreateMessage, db: Database) -> Message:
    author = users.find(command.author_id, db)
    if author is None:
        raise NotFound.at("$.payload.authorId", f"there is no user {command.author_id!r}")
    if CHANNELS.find(command.room_id, command.channel_id, db) is None:
        raise NotFound.at("$.payload.channelId", f"there is no channel {command.channel_id!r}")
    message_id = db.new_id()
    message = Message(
        id=message_id,
        room_id=command.room_id,
        channel_id=command.channel_id,
        sender_id=author.oder_id,
        sender_name=author.display_name,
        content=command.content,
        timestamp=time_of(message_id),
        reply_to_id=command.reply_to_id,
        reactions=[],
    )
    messages.save(message, "$.payload", db)
    return message


def _require_room(room_id: str, db: Database) -> None:
    """Channels are made in rooms that are there; the default one comes into being when it is needed."""
    if rooms.exists(room_id, db):
        return
    if room_id != DEFAULT_ROOM:
        raise NotFound.at("$.payload.roomId", f"there is no room {room_id!r}")
    rooms.save(Room(id=DEFAULT_ROOM, name=DEFAULT_ROOM, created_at=db.now), db)


def _require_category(category_id: str | None, room_id: str, path: str, db: Database) -> None:
    if category_id is not None and CATEGORIES.find(room_id, category_id, db) is None:
        raise NotFound.at(path, f"there is no category {category_id!r} in room {room_id!r}")


def _stored(children: ChildList[Any], child_id: str, room_id: str, path: str, db: Database) -> Any:
    found = children.find(room_id, child_id, db)
    if found is None:
        raise NotFound.at(path, f"there is no {child_id!r} among the {children.name} of room {room_id!r}")
    return found
