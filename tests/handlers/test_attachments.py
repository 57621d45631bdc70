"""handlers/attachments.py: attachments of messages."""

from contextlib import closing
from operator import attrgetter
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from backscroll.bus.inprocess import InProcess
from backscroll.clients.command_line.main import main
from backscroll.clients.python import Client
from backscroll.schema import (
    Attachment,
    DeleteAttachmentsForMessage,
    GetAllAttachments,
    GetAttachmentsForMessage,
    GetReactionsForMessage,
    Reaction,
    SaveAttachment,
)
from backscroll.schema.migrations.sqlite import APPLICATION_ID, migrations
from tests.support.local import REPLAYED, Local, check_replay


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


def test_size_and_type_may_be_unknown(client: Client) -> None:
    """An export that names a file says neither its size nor its type; they can be set later, and unset."""
    unknown = Attachment(id="a", message_id="m1", filename="cat.png")
    known = replace(unknown, size=0, mime="", media_id="not stored")
    for each in (unknown, known, unknown):
        client.execute(SaveAttachment(each))
        assert client.ask(GetAttachmentsForMessage("m1")) == client.ask(GetAllAttachments()) == [each]


def test_names_of_removed_attachments_leave_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that an attachment had before it was saved again, or on another message, and those said in a batch."""
    with Local(tmp_path / "data") as local:
        secret = {
            "id": "a1",
            "messageId": "m1",
            "filename": "secret.pdf",
            "mime": "secret/mime",
            "metadata": {"a": "b"},
        }
        local.result("save-attachment", {"attachment": secret | {"messageId": "m2", "filename": "secret too.pdf"}})
        local.result("save-attachment", {"attachment": secret})
        again = {"type": "save-attachment", "payload": {"attachment": secret | {"filename": "secret again.pdf"}}}
        local.result("batch", {"commands": [again, again]})
        local.result("delete-attachments-for-message", {"messageId": "m1"})
        local.replay(local.entries())
        check_replay(local, REPLAYED)
        assert "secret" not in repr(local.tables()) + repr(local.entries()) + repr(local.entries(REPLAYED))
    assert main(["log", "export", "--data-dir", str(tmp_path / "data")]) == 0
    assert "secret" not in capsys.readouterr().out


def test_a_file_before_migration_4_keeps_its_attachments(tmp_path: Path) -> None:
    """The table is written anew: with its rows, its index, and its command log."""
    attachments = [attachment(name, f"m{at % 2}", is_image=True) for at, name in enumerate("dacb")]
    path = tmp_path / "default.db"
    with closing(apsw.Connection(str(path))) as old:
        old.execute(migrations()[0])
        old.execute("INSERT INTO reactions VALUES ('m1', 'ada', '+', 'x', NULL, 5)")
        for each in attachments:
            row = (each.id, each.message_id, each.filename, each.size, each.mime, 1, "p", "f", "s", "h", '{"a": 1}')
            old.execute(f"INSERT INTO attachments VALUES ({','.join('?' * len(row))})", row)
        old.execute("INSERT INTO scope VALUES (1, 'default')")
        old.execute("UPDATE sequence SET lineage = '1', closed = 1")
        old.pragma("application_id", APPLICATION_ID)
        old.pragma("user_version", 1)
    more = {"uploader_peer_id": "p", "file_path": "f", "saved_path": "s", "sha256": "h", "metadata": {"a": 1}}
    wanted = [replace(each, **more) for each in sorted(attachments, key=attrgetter("id"))]
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        assert client.ask(GetAllAttachments()) == wanted
        assert client.ask(GetAttachmentsForMessage("m1")) == [each for each in wanted if each.message_id == "m1"]
        [reaction] = client.ask(GetReactionsForMessage("m1"))
        assert reaction == Reaction(message_id="m1", oder_id="ada", emoji="+", id="x", timestamp=5)
