"""Channels and the categories they are listed under, one at a time; `save-room` writes a room's whole lists."""

from backscroll.schema.limits import ChannelType, Id, Integer, PageSize, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import ChannelPosition
from backscroll.schema.records import Category, CategoryUpdates, Channel, ChannelUpdates

DEFAULT_ROOM = "default"
"""The room of applications that have no rooms; it is created with its first channel or category."""


class SaveChannel(Command[None], frozen=True):
    """Save a channel, or replace the one with the same id. `not-found` if the room or category does not exist.

    Example: {"channel": {"id": "general", "name": "general", "type": "text", "position": 1}}
    """

    ERRORS = ("not-found",)

    channel: Channel
    room_id: Id = DEFAULT_ROOM


class CreateChannel(Command[Channel], frozen=True):
    """Create a channel; the daemon generates its id. `not-found` if the room or category does not exist.

    Attributes:
        type: Any word of the application's, such as `text` or `voice`; the daemon does nothing with it.
        category_id: The category of the room that the channel is listed under, if any.
        position: The place among the channels of the room, which are in the order (position, id).

    Example: {"name": "general", "topic": "anything", "position": 1}
    """

    REPLACED_BY = "save-channel"

    ERRORS = ("not-found",)

    REDACTABLE = {"name": "", "type": "text", "topic": None}

    name: Text
    type: ChannelType = "text"
    room_id: Id = DEFAULT_ROOM
    topic: Text | None = None
    category_id: Id | None = None
    position: Integer = 0


class UpdateChannel(Command[Channel], frozen=True):
    """Change some fields of a channel. `not-found` if it does not exist.

    Example: {"channelId": "general", "updates": {"topic": null, "position": 2}}
    """

    ERRORS = ("not-found",)

    channel_id: Id
    updates: ChannelUpdates
    room_id: Id = DEFAULT_ROOM


class DeleteChannel(Command[None], frozen=True):
    """Delete a channel. `conflict` if it has messages, except with `cascade`, which deletes them too.

    Attributes:
        cascade: Whether to delete the channel's messages too.

    Example: {"channelId": "general", "cascade": true}
    """

    ADDS = False
    ERRORS = ("not-found", "conflict")

    channel_id: Id
    room_id: Id = DEFAULT_ROOM
    cascade: bool = False


class GetChannel(Query[Channel | None], frozen=True):
    """The channel with this id, or null.

    Example: {"channelId": "general"}
    """

    READS = ("room",)

    channel_id: Id
    room_id: Id = DEFAULT_ROOM


class ListChannels(Query[list[Channel]], frozen=True):
    """The channels of a room, ordered by (position, id).

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"roomId": "r1"}
    """

    READS = ("room",)

    room_id: Id = DEFAULT_ROOM
    limit: PageSize | None = None
    after: ChannelPosition | None = None


class SaveCategory(Command[None], frozen=True):
    """Save a category, or replace the one with the same id. `not-found` if the room does not exist.

    Example: {"category": {"id": "talk", "name": "Talk", "position": 1}}
    """

    ERRORS = ("not-found",)

    category: Category
    room_id: Id = DEFAULT_ROOM


class CreateCategory(Command[Category], frozen=True):
    """Create a category; the daemon generates its id. `not-found` if the room does not exist.

    Attributes:
        position: The place among the categories of the room, which are in the order (position, id).

    Example: {"name": "Talk", "position": 1}
    """

    REPLACED_BY = "save-category"

    ERRORS = ("not-found",)

    REDACTABLE = {"name": ""}

    name: Text
    room_id: Id = DEFAULT_ROOM
    position: Integer = 0


class UpdateCategory(Command[Category], frozen=True):
    """Change some fields of a category. `not-found` if it does not exist.

    Example: {"categoryId": "talk", "updates": {"name": "Talking"}}
    """

    ERRORS = ("not-found",)

    category_id: Id
    updates: CategoryUpdates
    room_id: Id = DEFAULT_ROOM


class DeleteCategory(Command[None], frozen=True):
    """Delete a category; its channels stay, without a category. `not-found` if it does not exist.

    Example: {"categoryId": "talk"}
    """

    ADDS = False
    ERRORS = ("not-found",)

    category_id: Id
    room_id: Id = DEFAULT_ROOM


class ListCategories(Query[list[Category]], frozen=True):
    """The categories of a room, ordered by (position, id).

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {}
    """

    READS = ("room",)

    room_id: Id = DEFAULT_ROOM
    limit: PageSize | None = None
    after: ChannelPosition | None = None
