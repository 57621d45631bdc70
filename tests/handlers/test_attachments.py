"""handlers/attachments.py: attachments of messages."""

from typing import Any

from backscroll.clients.python import Client
from backscroll.schema import (
    Attachment,
    DeleteAttachmentsForMessage,
    GetAllAttachments,
    GetAttachmentsForMessage,
    SaveAttachment,
)


def attachment(attachment_id: str, message_id: str = "m1", **fields: Any) -> Attachment:
    defaults: dict[str, Any] = {"filename": "cat.png", "size": 5, "mime": "image/png"}
    return Attachment(id=attachment_id, message_id=message_id, **(defaults | fields))


def test_attachments_are_listed_by_id(client: Client) -> None:
    """Attachments of one message and of all messages are ordered by id, whether or not the message exists."""
    for attachment_id, message_id in (("c", "m1"), ("a", "m2"), ("b", "m1")):
        client.execute(SaveAttachment(attachment(attachment_id, message_id)))
    assert client.ask(GetAttachmentsForMessage("m1")) == [attachment("b"), attachment("c")]
    assert client.ask(GetAllAttachments()) == [attachment("a", "m2"), attachment("b"), attachment("c")]


def test_a_second_save_replaces_the_attachment(client: Client) -> None:
    """The id is the key, even when the attachment moves to another message."""
    client.execute(SaveAttachment(attachment("a", is_image=True, saved_path="/tmp/x")))
    client.execute(SaveAttachment(attachment("a", "m2")))
    assert client.ask(GetAllAttachments()) == [attachment("a", "m2")]


def test_deleting_attachments_of_one_message_keeps_the_others(client: Client) -> None:
    """A message without attachments is no error."""
    client.execute(SaveAttachment(attachment("a", "m1")))
    client.execute(SaveAttachment(attachment("b", "m2")))
    client.execute(DeleteAttachmentsForMessage("m1"))
    client.execute(DeleteAttachmentsForMessage("m1"))
    assert client.ask(GetAllAttachments()) == [attachment("b", "m2")]
