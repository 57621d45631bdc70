"""Messages that are deleted because of their time: retention of a room, and expiry."""

from typing import Any

import pytest

from backscroll.bus.dispatch import EXPIRY_RETRY_MS, Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import (
    DELETED_TEXT,
    Attachment,
    Batch,
    DeleteExpiredMessages,
    DeleteMessagesBefore,
    GetAllAttachments,
    GetLog,
    GetMessageById,
    GetMessagePage,
    GetMessages,
    GetReactionsForMessage,
    GetRows,
    Initialize,
    MessageUpdates,
    Reaction,
    SaveAttachment,
    UpdateMessage,
)
from backscroll.schema.limits import DELETED_MESSAGES_MAX
from backscroll.schema.replies import DeletedMessages
from tests.support.clocks import Clock
from tests.support.local import Local, check_replay, found_in
from tests.support.messages import save_message, save_payload

LIVES_MS = 60_000


def deleted(number: int, *, has_more: bool = False) -> DeletedMessages:
    return DeletedMessages(deleted=number, has_more=has_more)


# Retention


def test_messages_before_a_time_are_removed(client: Client) -> None:
    """Rows, reactions and attachments go, tombstones too; what is at the time, later or in another room stays."""
    for at in range(6):
        client.execute(save_message(at, reactions=[Reaction(message_id=f"m{at}", oder_id="u", emoji="+")]))
        client.execute(SaveAttachment(Attachment(id=f"a{at}", message_id=f"m{at}", filename="f", size=1, mime="x/y")))
        client.execute(save_message(f"other{at}", room_id="r2", timestamp=at))
    assert client.execute(DeleteMessagesBefore("r1", 4)) == deleted(4)
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["m4", "m5"]
    assert [each.id for each in client.ask(GetAllAttachments())] == ["a4", "a5"]
    assert client.ask(GetReactionsForMessage("m0")) == []
    assert len(client.ask(GetMessages("r2"))) == 6
    assert (
        client.execute(DeleteMessagesBefore("r1", 4)) == client.execute(DeleteMessagesBefore("none", 9)) == deleted(0)
    )
    changes = client.ask(GetLog(from_seq=19)).entries[0].changes
    assert [(each.kind, each.id, each.room_id) for each in changes] == [("gone", f"m{at}", "r1") for at in range(4)]


def test_removal_is_bounded_and_says_whether_there_are_more(client: Client) -> None:
    """The oldest go first, and the result tells a caller to go on; so nobody waits long."""
    saves = [save_message(at) for at in range(DELETED_MESSAGES_MAX + 5)]
    for first in range(0, len(saves), 1_000):
        client.execute(Batch.of(saves[first : first + 1_000]))
    assert client.execute(DeleteMessagesBefore("r1", 10**6)) == deleted(DELETED_MESSAGES_MAX, has_more=True)
    assert client.ask(GetMessages("r1", limit=1))[0].timestamp == DELETED_MESSAGES_MAX
    assert client.execute(DeleteMessagesBefore("r1", 10**6)) == deleted(5)


# Expiry


def save_expiring(client: Client, clock: Clock, number: int = 1, **fields: Any) -> None:
    client.execute(save_message(number, f"secret {number}", expires_at=clock.now + LIVES_MS, **fields))


def test_nobody_reads_an_expired_message(client: Client, clock: Clock) -> None:
    """From its `expiresAt` on it is a tombstone, also in a reply that was cached, and in a message saved too late."""
    save_expiring(client, clock)
    client.execute(save_message(2, "stays"))
    client.execute(SaveAttachment(Attachment(id="a", message_id="m1", filename="secret.pdf", size=1, mime="x/y")))

    def texts() -> list[str]:
        return [each.content for each in client.ask(GetMessages("r1"))]

    clock.now += LIVES_MS - 1
    assert texts() == texts() == ["secret 1", "stays"]
    clock.now += 1
    assert texts() == [DELETED_TEXT, "stays"]
    assert client.ask(GetAllAttachments()) == []
    client.execute(save_message(1, "secret late copy", room_id="r1"))
    client.execute(save_message(3, "secret from the past", expires_at=clock.now))
    assert texts() == [DELETED_TEXT, "stays", DELETED_TEXT]
    page = client.ask(GetMessagePage("r1", include_deleted=False))
    assert [each.content for each in page.messages] == ["stays"]
    assert "secret" not in repr(client.ask(GetLog()))


def test_a_tombstone_says_that_it_expired(client: Client, clock: Clock) -> None:
    """`expiresAt` stays, so that a client can tell it from a deleted message and show nothing in its place."""
    save_expiring(client, clock)
    clock.now += LIVES_MS
    found = client.ask(GetMessageById("m1"))
    assert found is not None
    assert found.is_deleted
    assert found.expires_at == clock.now


def test_an_expiry_can_be_changed(client: Client, clock: Clock) -> None:
    """An update moves it, in either direction, or takes it back."""
    for number in (1, 2, 3):
        save_expiring(client, clock, number)
    client.execute(UpdateMessage("m1", MessageUpdates(expires_at=None)))
    client.execute(UpdateMessage("m2", MessageUpdates(expires_at=clock.now + 1)))

    def shown() -> list[bool]:
        return [not each.is_deleted for each in client.ask(GetMessages("r1"))]

    assert shown() == [True, True, True]
    clock.now += 1
    assert shown() == [True, False, True]
    clock.now += LIVES_MS
    assert shown() == [True, False, False]


def test_expired_messages_are_deleted_in_parts(client: Client, clock: Clock) -> None:
    """A command deletes at most a thousand, those that expired first; a query waits for all of them."""
    number = DELETED_MESSAGES_MAX + 3
    saves = [save_message(at, "secret", expires_at=number - at) for at in range(number)]
    for first in range(0, number, 1_000):
        client.execute(Batch.of(saves[first : first + 1_000]))
    assert client.execute(DeleteExpiredMessages()) == deleted(DELETED_MESSAGES_MAX, has_more=True)
    rows = client.ask(GetRows("messages", limit=3)).rows
    assert sorted(each["id"] for each in rows if not each["is_deleted"]) == ["m0", "m1"]
    assert {each.content for each in client.ask(GetMessages("r1", limit=500, offset=number - 500))} == {DELETED_TEXT}
    assert client.execute(DeleteExpiredMessages()) == deleted(0)
    assert "secret" not in repr(client.ask(GetLog()))


def test_expiry_is_a_logged_command(tmp_path: Any, clock: Clock) -> None:
    """A replay leads to the same rows; its text is nowhere after `compact-scope`."""
    with Local(tmp_path / "data", clock=clock) as local:
        for number in range(3):
            local.result(
                "save-message", save_payload(number, f"secret {number}", expiresAt=clock.now + number * LIVES_MS)
            )
        local.result("save-message", save_payload(9, "stays"))
        clock.now += LIVES_MS
        assert [each["content"] for each in local.result("get-messages", {"roomId": "r1"})][2:] == ["secret 2", "stays"]
        entries = local.entries()
        assert entries[-1]["type"] == "delete-expired-messages"
        assert {each["id"] for each in entries[-1]["changes"]} == {"m0", "m1"}
        local.replay(entries)
        check_replay(local, "replayed")
        local.result("compact-scope")
        local.result("compact-scope", scope="replayed")
        found = found_in(tmp_path / "data", "secret 0", "secret 1", "secret 2")
        assert list(found) == ["secret 2"]


def test_a_scope_is_read_only_after_what_expired_while_it_was_closed(tmp_path: Any, clock: Clock) -> None:
    """The first query after an opening waits for the deletion. Admins see what is stored, and change nothing."""
    data = tmp_path / "data"
    with InProcess(data, clock=clock) as transport:
        save_expiring(Client(transport=transport), clock)
        save_expiring(Client(transport=transport, scope="ada"), clock)
    clock.now += LIVES_MS
    with InProcess(data, clock=clock) as transport:
        for client in (Client(transport=transport), Client(transport=transport, scope="ada")):
            assert client.ask(GetRows("messages")).rows[0]["content"] == "secret 1"
            assert client.ask(GetLog()).last_seq == 1
            assert client.ask(GetMessages("r1"))[0].content == DELETED_TEXT
            assert client.ask(GetLog()).last_seq == 2


def test_a_log_is_replayed_whatever_has_expired_since(tmp_path: Any, clock: Clock) -> None:
    """Between its parts the daemon executes no commands of its own, so that the numbers go on as in the log."""
    with Local(tmp_path / "data", clock=clock) as local:
        for number in range(6):
            local.result("save-message", save_payload(number, "secret", expiresAt=clock.now + LIVES_MS))
        entries = local.entries()
        clock.now += LIVES_MS
        for first in (0, 2, 4):
            local.replay(entries[first : first + 2])
            local.dispatcher.run_chores("replayed")
            assert not local.dispatcher.expire("replayed", awaited=False)
        assert len(local.entries("replayed")) == 6
        assert {each["content"] for each in local.result("get-messages", {"roomId": "r1"}, scope="replayed")} == {
            DELETED_TEXT
        }


def test_a_clock_that_is_not_trusted_deletes_nothing(transport: InProcess, clock: Clock) -> None:
    """Then queries go on, and show what may not have expired; it is tried again a minute later."""
    trusted = False
    dispatcher = Dispatcher(transport.scopes, transport.dispatcher._status, trusts_time=lambda _: trusted)
    transport.dispatcher = dispatcher
    client = Client(transport=transport)
    save_expiring(client, clock)
    clock.now += LIVES_MS
    assert client.ask(GetMessages("r1"))[0].content == "secret 1"
    trusted = True
    clock.now += EXPIRY_RETRY_MS
    client.execute(Initialize())
    assert client.ask(GetMessages("r1"))[0].content == DELETED_TEXT


@pytest.mark.parametrize("field", ["content", "metadata"])
def test_a_deletion_by_time_is_as_thorough_as_any(client: Client, clock: Clock, field: str) -> None:
    """Text of later updates, of batches and of reactions is erased from the log as well."""
    secret: dict[str, Any] = {field: "secret" if field == "content" else {"a": "secret"}}
    client.execute(Batch.of([save_message(1, expires_at=clock.now), save_message(2, "other", timestamp=10**6)]))
    client.execute(UpdateMessage("m1", MessageUpdates(**secret)))
    client.execute(save_message(3, **({"content": "x"} | secret)))
    assert "secret" in repr(client.ask(GetLog()))
    client.execute(DeleteExpiredMessages())
    client.execute(DeleteMessagesBefore("r1", 10))
    log = repr(client.ask(GetLog()))
    assert "secret" not in log
    assert "other" in log
