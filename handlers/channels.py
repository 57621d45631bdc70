"""Channels and categories one at a time, in the tables that contain the lists of rooms."""

from typing import Any

from msgspec.structs import replace
from peewee import SQL

from backscroll.handlers import changes, messages, rooms, users
from backscroll.handlers.aliases import resolve
from backscroll.handlers.lists import Items
from backscroll.handlers.registry import Cached, handles
from backscroll.handlers.rooms import CATEGORIES, CHANNELS, ChildList
from backscroll.handlers.sql import Named, field_changes, statement
from backscroll.handlers.storage import CommandContext, Reads, Writes
from backscroll.schema.command_log import Target
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
    SaveCategory,
    SaveChannel,
    UpdateCategory,
    UpdateChannel,
)
from backscroll.schema.operations.channels import DEFAULT_ROOM
from backscroll.schema.records import Category, Channel, Message, Room
from backscroll.schema.tables import Channels, Messages

CLEAR_CATEGORY = statement(
    Channels.update({Channels.category_id: SQL("NULL")}).where(
        (Channels.room_id == Named("room_id")) & (Channels.category_id == Named("category_id"))
    )
)
HAS_MESSAGES = statement(
    Messages.select(SQL("1"))
    .where((Messages.room_id == Named("room_id")) & (Messages.channel_id == Named("channel_id")))
    .limit(SQL("1"))
)


@handles(SaveChannel)
def save_channel(command: SaveChannel, db: Writes, context: CommandContext) -> None:
    channel = command.channel
    _require_room(command.room_id, db, context)
    _require_category(channel.category_id, command.room_id, "$.payload.channel.categoryId", db)
    _save(CHANNELS, command.room_id, channel, db, context)


@handles(CreateChannel)
def create_channel(command: CreateChannel, db: Writes, context: CommandContext) -> Channel:
    _require_room(command.room_id, db, context)
    _require_category(command.category_id, command.room_id, "$.payload.categoryId", db)
    channel = Channel(
        id=context.new_id(),
        name=command.name,
        type=command.type,
        position=command.position,
        topic=command.topic,
        category_id=command.category_id,
        created_at=context.now,
        updated_at=context.now,
    )
    _save(CHANNELS, command.room_id, channel, db, context)
    return channel


@handles(UpdateChannel)
def update_channel(command: UpdateChannel, db: Writes, context: CommandContext) -> Channel:
    stored = _stored(CHANNELS, command.channel_id, command.room_id, "$.payload.channelId", db)
    updates = {"updated_at": context.now} | field_changes(command.updates, stored)
    _require_category(updates.get("category_id"), command.room_id, "$.payload.updates.categoryId", db)
    channel: Channel = replace(stored, **updates)
    _save(CHANNELS, command.room_id, channel, db, context)
    return channel


@handles(DeleteChannel)
def delete_channel(command: DeleteChannel, db: Writes, context: CommandContext) -> None:
    room_id, channel_id = command.room_id, command.channel_id
    _stored(CHANNELS, channel_id, room_id, "$.payload.channelId", db)
    if command.cascade:
        messages.clear_channel(room_id, channel_id, db, context)
    elif db.row(HAS_MESSAGES, room_id=room_id, channel_id=channel_id):
        raise Conflict.at("$.payload.channelId", "the channel has messages; delete it with cascade")
    _remove(CHANNELS, room_id, channel_id, db, context)


@handles(GetChannel)
def get_channel(query: GetChannel, db: Reads) -> Channel | None:
    return CHANNELS.find(query.room_id, query.channel_id, db)


@handles(ListChannels, cached=Cached.UNTIL_COMMIT)
def list_channels(query: ListChannels, db: Reads) -> Items[Channel]:
    return CHANNELS.page(query.room_id, query.after, query.limit, db)


@handles(SaveCategory)
def save_category(command: SaveCategory, db: Writes, context: CommandContext) -> None:
    _require_room(command.room_id, db, context)
    _save(CATEGORIES, command.room_id, command.category, db, context)


@handles(CreateCategory)
def create_category(command: CreateCategory, db: Writes, context: CommandContext) -> Category:
    _require_room(command.room_id, db, context)
    category = Category(id=context.new_id(), name=command.name, position=command.position, created_at=context.now)
    _save(CATEGORIES, command.room_id, category, db, context)
    return category


@handles(UpdateCategory)
def update_category(command: UpdateCategory, db: Writes, context: CommandContext) -> Category:
    stored = _stored(CATEGORIES, command.category_id, command.room_id, "$.payload.categoryId", db)
    category: Category = replace(stored, **field_changes(command.updates, stored))
    _save(CATEGORIES, command.room_id, category, db, context)
    return category


@handles(DeleteCategory)
def delete_category(command: DeleteCategory, db: Writes, context: CommandContext) -> None:
    _stored(CATEGORIES, command.category_id, command.room_id, "$.payload.categoryId", db)
    db.run(CLEAR_CATEGORY, room_id=command.room_id, category_id=command.category_id)
    _remove(CATEGORIES, command.room_id, command.category_id, db, context)


@handles(ListCategories, cached=Cached.UNTIL_COMMIT)
def list_categories(query: ListCategories, db: Reads) -> Items[Category]:
    return CATEGORIES.page(query.room_id, query.after, query.limit, db)


@handles(CreateMessage)
def create_message(command: CreateMessage, db: Writes, context: CommandContext) -> Message:
    author = users.find(command.author_id, db)
    if author is None:
        raise NotFound.at("$.payload.authorId", f"there is no user {command.author_id!r}")
    if CHANNELS.find(command.room_id, command.channel_id, db) is None:
        raise NotFound.at("$.payload.channelId", f"there is no channel {command.channel_id!r}")
    message_id = context.new_id()
    message = Message(
        id=message_id,
        room_id=command.room_id,
        channel_id=command.channel_id,
        sender_id=author.oder_id,
        sender_name=author.display_name,
        content=command.content,
        timestamp=context.now,
        ordinal=messages.ordinal_of_last(command.room_id, context.now, message_id, db),
        reply_to_id=None if command.reply_to_id is None else resolve(command.reply_to_id, db),
        reactions=[],
    )
    messages.save(message, "$.payload", db, context)
    return message


def _save(children: ChildList[Any], room_id: str, record: Any, db: Writes, context: CommandContext) -> None:
    """Write a channel or category, which counts as a change of its room."""
    changes.add_reference(changes.in_room(children.noun, room_id, record.id), db, context)
    children.save(room_id, record, db)
    changes.saved(context, "room", room_id, room_id)


def _remove(children: ChildList[Any], room_id: str, child_id: str, db: Writes, context: CommandContext) -> None:
    """Delete a channel or category, and erase the text about it from the log."""
    item = changes.in_room(children.noun, room_id, child_id)
    changes.erase(item, db, context, Target(children.noun, (child_id,)))
    children.remove(room_id, child_id, db)
    changes.saved(context, "room", room_id, room_id)


def _require_room(room_id: str, db: Writes, context: CommandContext) -> None:
    """Raise `NotFound` for a room that is not stored; create the default room if it is missing."""
    if rooms.exists(room_id, db):
        return
    if room_id != DEFAULT_ROOM:
        raise NotFound.at("$.payload.roomId", f"there is no room {room_id!r}")
    rooms.save(Room(id=DEFAULT_ROOM, name=DEFAULT_ROOM, created_at=context.now), db, context)


def _require_category(category_id: str | None, room_id: str, path: str, db: Reads) -> None:
    if category_id is not None and CATEGORIES.find(room_id, category_id, db) is None:
        raise NotFound.at(path, f"there is no category {category_id!r} in room {room_id!r}")


def _stored(children: ChildList[Any], child_id: str, room_id: str, path: str, db: Reads) -> Any:
    found = children.find(room_id, child_id, db)
    if found is None:
        raise NotFound.at(path, f"there is no {children.noun} {child_id!r} in room {room_id!r}")
    return found
