"""Messages in rooms and their channels."""

from typing import Annotated

from msgspec import Meta

from backscroll.schema.limits import PAGE_ITEMS_MAX, Count, Cursor, Id, Millis, PageSize, Text
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.operations.channels import DEFAULT_ROOM
from backscroll.schema.records import Arrival, Message, MessageUpdates
from backscroll.schema.replies import DeletedMessages, MessageList, MessagePage

MessageIds = Annotated[list[Id], Meta(max_length=PAGE_ITEMS_MAX)]


class SaveMessage(Command[None], frozen=True):
    """Save a message with its reactions, or replace the one with the same id. `conflict` if that is in another room.

    Without `reactions` the stored ones stay. If the message was deleted, it stays deleted: the save succeeds and
    changes nothing, also after its room was cleared. A save with `isDeleted` deletes the message. The `details` of a
    `conflict` name the `roomId` of the other message; to move a message, update its `roomId`.

    Attributes:
        arrival: `any-order`: it reports the original or a later state of the message, and the newer of what is known is
            kept.

    Example: {"message": {"id": "m1", "roomId": "r1", "senderId": "ada", "content": "hello",
        "timestamp": 1767225600000, "isDeleted": false,
        "reactions": [{"messageId": "m1", "oderId": "bob", "emoji": "👍"}]}}
    """

    ERRORS = ("conflict",)

    message: Message
    arrival: Arrival | None = None


class UpdateMessage(Command[None], frozen=True):
    """Change some fields of a message. `not-found` if it does not exist, `conflict` if it was deleted.

    Attributes:
        arrival: `any-order`: it reports an edit, with the network's `revision` or `editedAt` in `updates`. An older one
            changes nothing, one of a deleted message neither, and one that comes before its message waits for it.

    Example: {"messageId": "m1", "updates": {"content": "hello, world", "editedAt": 1767225660000}}
    """

    ERRORS = ("not-found", "conflict")

    message_id: Id
    updates: MessageUpdates
    arrival: Arrival | None = None


class DeleteMessage(Command[None], frozen=True):
    """Delete a message's text, reactions and attachments; it keeps its place. `not-found` if it does not exist.

    Attributes:
        arrival: `any-order`: it reports a deletion, also of a message that has not arrived: its text is never stored
            then.

    Example: {"messageId": "m1"}
    """

    ADDS = False
    ERRORS = ("not-found",)

    message_id: Id
    arrival: Arrival | None = None


class ClearRoomMessages(Command[None], frozen=True):
    """Remove all messages of a room with their reactions and attachments. Succeeds if there are none.

    A message that was deleted before stays deleted: a late copy of it is not stored. All others may be saved again. The
    reply does not wait until the bytes are removed: see `purging` of `get-scope-info`.

    Example: {"roomId": "r1"}
    """

    ADDS = False
    room_id: Id


class ForgetDeletions(Command[None], frozen=True):
    """Forget which messages of a room were deleted, and remove their places: copies of them may be saved again.

    For whoever joins a room again and loads its history anew. A deletion that came before its message is of no known
    room, and is not forgotten. Succeeds if there are none.

    Example: {"roomId": "r1"}
    """

    ADDS = False
    room_id: Id


class RenameMessage(Command[None], frozen=True):
    """Give a message another id, such as the server's instead of a local one. Each id leads to the message from now on.

    Neither need be stored. If both are, they become one message: the newer content, and all reactions and attachments.
    Replies follow. Doing it again is fine. `conflict` if the message has a third id already, if `newId` was itself
    renamed to this one, or if the two are stored in different rooms.

    Attributes:
        message_id: The id that the message has had so far, such as a local one.
        new_id: The id that replies have from now on.

    Example: {"messageId": "m1", "newId": "m900"}
    """

    ERRORS = ("conflict",)

    message_id: Id
    new_id: Id


class DeleteMessagesBefore(Command[DeletedMessages], frozen=True):
    """Remove the oldest messages of a room, those with a `timestamp` before this one: at most 1,000, rows and all.

    The result says how many, and whether there are more: then send another. Their reactions and attachments are removed
    as well, and their text is erased from the command log.

    Example: {"roomId": "r1", "timestamp": 1767225600000}
    """

    ADDS = False

    room_id: Id
    timestamp: Millis


class DeleteExpiredMessages(Command[DeletedMessages], frozen=True):
    """Delete messages whose `expiresAt` has come, like `delete-message`: at most 1,000. The daemon does this in time.

    Example: {}
    """

    ADDS = False


class CreateMessage(Command[Message], frozen=True):
    """Post a message by a stored user to a stored channel. The daemon sets the time, and an id that sorts last.

    It sorts after all messages of the room with this time: where an imported one has an `ordinal` or a greater id, it
    gets an `ordinal` too.

    Attributes:
        author_id: The sender: the `oderId`, or else the `id`, of a stored user.
        reply_to_id: The message that this one answers; it need not be stored.

    Example: {"channelId": "general", "authorId": "ada", "content": "hello"}
    """

    ERRORS = ("not-found",)

    REDACTABLE = {"content": ""}

    channel_id: Id
    author_id: Id
    content: Text
    room_id: Id = DEFAULT_ROOM
    reply_to_id: Id | None = None


class ListMessages(Query[MessageList], frozen=True):
    """The messages of a channel, newest first, without deleted ones. `before` is the id of the last message seen.

    Attributes:
        before: Without it the page has the newest messages.
        limit: The most messages; fewer where they are large, but at least one.
        child_lists: Whether the messages have their `reactions`.

    Example: {"channelId": "general", "limit": 20}
    """

    READS = ("message",)

    REPLACED_BY = "get-message-page"

    ERRORS = ("not-found",)

    channel_id: Id
    room_id: Id = DEFAULT_ROOM
    before: Id | None = None
    limit: PageSize = 50
    child_lists: bool = True


class GetMessagePage(Query[MessagePage], frozen=True):
    """A page of `limit` messages of a room, channel or thread, oldest first; fewer at an end, or if large.

    Without a cursor these are the newest messages; only one of `before`, `after`, `around` and `aroundTime` may be
    given. Cursors stay valid when messages are saved, edited or deleted.

    Attributes:
        channel_id: Only the messages of this channel.
        before: The messages before a cursor: `olderCursor` of an earlier page.
        after: The messages after a cursor: `newerCursor` of an earlier page.
        around: The messages around the one with this id, which may be deleted.
        include_deleted: Whether deleted messages are shown in their places.
        child_lists: Whether the messages have their `reactions`.
        thread_id: Only the messages that have this `threadId`; not together with `channelId` or `pinned`.
        around_time: The messages around this time.
        pinned: Whether to return only pinned messages.
        attachments: Whether the messages have their `attachments`.

    Example: {"roomId": "r1", "channelId": "general", "limit": 20, "includeDeleted": false}
    """

    READS = ("message",)

    ERRORS = ("not-found",)

    room_id: Id
    channel_id: Id | None = None
    before: Cursor | None = None
    after: Cursor | None = None
    around: Id | None = None
    limit: PageSize = 50
    include_deleted: bool = True
    child_lists: bool = True
    thread_id: Id | None = None
    around_time: Millis | None = None
    pinned: bool = False
    attachments: bool = False


class GetMessages(Query[list[Message]], frozen=True):
    """Messages of a room, ordered by (timestamp, ordinal, id): at most `limit`, starting at `offset`.

    `too-large` if they do not fit into a reply: a shorter page could not be told from the end.

    Attributes:
        offset: How many messages of the room to skip.
        child_lists: Whether the messages have their `reactions`.

    Example: {"roomId": "r1", "limit": 50, "offset": 100}
    """

    READS = ("message",)

    REPLACED_BY = "get-message-page"

    room_id: Id
    limit: PageSize = 100
    offset: Count = 0
    child_lists: bool = True


class GetMessageById(Query[Message | None], frozen=True):
    """The message with this id, or null. With `childLists: false` without its reactions.

    Attributes:
        attachments: Whether the message has its `attachments`.

    Example: {"messageId": "m1"}
    """

    READS = ("message",)

    message_id: Id
    child_lists: bool = True
    attachments: bool = False


class GetMessagesByIds(Query[list[Message]], frozen=True):
    """The messages with these ids, at most 500, in the order of the ids, each once and under the id that it has now.

    Those that are not stored are left out.

    `too-large` if they do not fit into a reply: ask for fewer.

    Attributes:
        child_lists: Whether the messages have their `reactions`.
        attachments: Whether the messages have their `attachments`.

    Example: {"messageIds": ["m1", "m2"]}
    """

    READS = ("message",)

    message_ids: MessageIds
    child_lists: bool = True
    attachments: bool = False
