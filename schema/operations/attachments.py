"""Attachments of messages."""

from backscroll.schema.limits import Id, PageSize
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import AttachmentPosition
from backscroll.schema.records import Arrival, Attachment


class SaveAttachment(Command[None], frozen=True):
    """Save an attachment, or replace the one with the same id. Its message need not be stored yet.

    If the message was deleted, this succeeds and changes nothing.

    Attributes:
        arrival: `any-order`: copies of one attachment that differ end in the same row in whichever order they arrive.

    Example: {"attachment": {"id": "a1", "messageId": "m1", "filename": "cat.png", "size": 5120,
        "mime": "image/png", "isImage": true}}
    """

    attachment: Attachment
    arrival: Arrival | None = None


class DeleteAttachmentsForMessage(Command[None], frozen=True):
    """Remove all attachments of a message. Succeeds if there are none.

    Example: {"messageId": "m1"}
    """

    ADDS = False
    message_id: Id


class GetAttachmentsForMessage(Query[list[Attachment]], frozen=True):
    """The attachments of a message, ordered by id.

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"messageId": "m1"}
    """

    READS = ("message",)

    message_id: Id
    limit: PageSize | None = None
    after: AttachmentPosition | None = None


class GetAllAttachments(Query[list[Attachment]], frozen=True):
    """All attachments of the scope, ordered by id.

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"limit": 100, "after": {"id": "a0"}}
    """

    READS = ("message",)

    limit: PageSize | None = None
    after: AttachmentPosition | None = None
