"""Messages: what was said in a room."""

from backscroll.schema.limits import Count, Id, PageSize
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Message, MessageUpdates


class SaveMessage(Command[None], frozen=True):
    """Save a message with its reactions, or replace the one with the same id.

    Without `reactions` the stored ones stay. A message that was deleted stays deleted: the save succeeds
    and changes nothing. A save with `isDeleted` deletes.

    Example: {"message": {"id": "m1", "roomId": "r1", "senderId": "ada", "content": "hello",
        "timestamp": 1767225600000, "isDeleted": false,
        "reactions": [{"messageId": "m1", "oderId": "bob", "emoji": "👍"}]}}
    """

    message: Message


class UpdateMessage(Command[None], frozen=True):
    """Change some fields of a message; `not-found` for an unknown one, `conflict` for a deleted one.

    Example: {"messageId": "m1", "updates": {"content": "hello, world", "editedAt": 1767225660000}}
    """

    message_id: Id
    updates: MessageUpdates


class DeleteMessage(Command[None], frozen=True):
    """Delete a message: its text, reactions and attachments go, its place stays. `not-found` for an unknown one.

    Example: {"messageId": "m1"}
    """

    message_id: Id


class ClearRoomMessages(Command[None], frozen=True):
    """Remove every message of a room, with reactions and attachments; an empty room is fine.

    Example: {"roomId": "r1"}
    """

    room_id: Id


class GetMessages(Query[list[Message]], frozen=True):
    """Messages of a room by (timestamp, id) ascending, from `offset`, at most `limit`.

    Example: {"roomId": "r1", "limit": 50, "offset": 100}
    """

    room_id: Id
    limit: PageSize = 100
    offset: Count = 0


class GetMessageById(Query[Message | None], frozen=True):
    """One message, or null.

    Example: {"messageId": "m1"}
    """

    message_id: Id
