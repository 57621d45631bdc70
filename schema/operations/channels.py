"""Channels and the categories they are listed under, one by one; `save-room` writes a room's whole list."""

from backscroll.schema.limits import Id, Integer, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Category, CategoryUpdates, Channel, ChannelType, ChannelUpdates

DEFAULT_ROOM = "default"
"""The room of applications that have no rooms; made when its first channel or category is."""


class CreateChannel(Command[Channel], frozen=True):
    """Make a channel, with an id of the daemon's. `not-found` for a room or category that is not there.

    Example: {"name": "general", "topic": "anything", "position": 1}
    """

    ERRORS = ("not-found",)

    REDACTABLE = {"name": "", "topic": None}

    name: Text
    type: ChannelType = "text"
    room_id: Id = DEFAULT_ROOM
    topic: Text | None = None
    category_id: Id | None = None
    position: Integer = 0


class UpdateChannel(Command[Channel], frozen=True):
    """Change some fields of a channel; `not-found` for an unknown one.

    Example: {"channelId": "general", "updates": {"topic": null, "position": 2}}
    """

    ERRORS = ("not-found",)

    channel_id: Id
    updates: ChannelUpdates
    room_id: Id = DEFAULT_ROOM


class DeleteChannel(Command[None], frozen=True):
    """Remove a channel. One that has messages goes only with `cascade`, which takes them along; else `conflict`.

    Example: {"channelId": "general", "cascade": true}
    """

    ERRORS = ("not-found", "conflict")

    channel_id: Id
    room_id: Id = DEFAULT_ROOM
    cascade: bool = False


class GetChannel(Query[Channel | None], frozen=True):
    """One channel, or null.

    Example: {"channelId": "general"}
    """

    channel_id: Id
    room_id: Id = DEFAULT_ROOM


class ListChannels(Query[list[Channel]], frozen=True):
    """The channels of a room by (position, id).

    Example: {"roomId": "r1"}
    """

    room_id: Id = DEFAULT_ROOM


class CreateCategory(Command[Category], frozen=True):
    """Make a category, with an id of the daemon's. `not-found` for a room that is not there.

    Example: {"name": "Talk", "position": 1}
    """

    ERRORS = ("not-found",)

    REDACTABLE = {"name": ""}

    name: Text
    room_id: Id = DEFAULT_ROOM
    position: Integer = 0


class UpdateCategory(Command[Category], frozen=True):
    """Change some fields of a category; `not-found` for an unknown one.

    Example: {"categoryId": "talk", "updates": {"name": "Talking"}}
    """

    ERRORS = ("not-found",)

    category_id: Id
    updates: CategoryUpdates
    room_id: Id = DEFAULT_ROOM


class DeleteCategory(Command[None], frozen=True):
    """Remove a category; its channels stay, without one. `not-found` for an unknown one.

    Example: {"categoryId": "talk"}
    """

    ERRORS = ("not-found",)

    category_id: Id
    room_id: Id = DEFAULT_ROOM


class ListCategories(Query[list[Category]], frozen=True):
    """The categories of a room by (position, id).

    Example: {}
    """

    room_id: Id = DEFAULT_ROOM
