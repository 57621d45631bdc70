"""Clearing a room of many messages: nothing of it is read from then on, and it is removed in steps."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.handlers.clearing import AT_ONCE
from backscroll.schema import (
    BackscrollError,
    Batch,
    ClearRoomMessages,
    CompactScope,
    DeleteMessage,
    DeleteRoom,
    GetAllAttachments,
    GetAttachmentsForMessage,
    GetLog,
    GetMessageById,
    GetMessagePage,
    GetMessages,
    GetReactionsForMessage,
    GetRows,
    GetScopeInfo,
    SaveAttachment,
    SaveReaction,
    UpdateMessage,
)
from backscroll.schema.records import Attachment, MessageUpdates, Reaction
from tests.support.messages import save_message

MANY = AT_ONCE + 50


class Paused(InProcess):
    """A transport that removes the messages of cleared rooms only when it is told to."""

    def send(self, body: bytes, _timeout_ms: float = 0, /) -> None:
        self._replies.append(self.dispatcher.answer(body))

    def remove(self) -> None:
        while self.dispatcher.remove_cleared("default"):
            pass


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[Paused]:
    with closing(Paused(tmp_path / "paused")) as transport:
        yield transport


def fill(client: Client, number: int = MANY, room_id: str = "r1") -> None:
    for at in range(number):
        client.execute(save_message(at, f"secret {at}", room_id))
    client.execute(SaveReaction(Reaction(message_id="m1", oder_id="bob", emoji="👍")))
    client.execute(SaveAttachment(Attachment(id="a1", message_id="m1", filename="secret.pdf", size=1, mime="x/y")))


@pytest.mark.parametrize("clears", [ClearRoomMessages, DeleteRoom])
def test_nothing_of_a_cleared_room_is_read(paused: Paused, clears: Callable[[str], Any]) -> None:
    """By no query, from the moment of the reply on, while everything is still in the tables."""
    client = Client(transport=paused)
    fill(client)
    client.execute(save_message("other", room_id="r2"))
    client.execute(clears("r1"))
    assert client.execute(GetScopeInfo()).purging == 1
    assert client.ask(GetMessages("r1", limit=500)) == []
    page = client.ask(GetMessagePage("r1"))
    assert (page.messages, page.has_older, page.has_newer) == ([], False, False)
    assert client.ask(GetMessageById("m1")) is None
    assert client.ask(GetReactionsForMessage("m1")) == []
    assert client.ask(GetAttachmentsForMessage("m1")) == []
    assert client.ask(GetAllAttachments()) == []
    for query in (GetLog(1), GetRows("messages")):
        with pytest.raises(BackscrollError) as refused:
            client.ask(query)
        assert refused.value.code == "busy"
    client.execute(save_message("later", room_id="r2"))
    [entry] = client.ask(GetLog(client.execute(GetScopeInfo()).rows["commands"])).entries
    assert entry.type == "save-message"
    client.execute(DeleteMessage("later"))
    assert [message.id for message in client.ask(GetMessages("r2"))] == ["later", "other"]
    paused.remove()
    info = client.execute(GetScopeInfo())
    assert (info.purging, info.rows["messages"]) == (0, 2)
    assert "secret" not in str(client.ask(GetLog(1, limit=500)))


def test_messages_that_are_saved_after_it_stay(paused: Paused) -> None:
    """Also under ids that were in the room before, in any order of saving, editing and removing."""
    client = Client(transport=paused)
    fill(client)
    client.execute(ClearRoomMessages("r1"))
    client.execute(save_message(3, "new"))
    client.execute(save_message("late", "new"))
    client.execute(UpdateMessage("m3", MessageUpdates(content="newer")))
    client.execute(save_message("moved", room_id="r2"))
    client.execute(UpdateMessage("moved", MessageUpdates(room_id="r1")))
    for expected in range(2):
        if expected:
            paused.remove()
        found = {message.id: message.content for message in client.ask(GetMessages("r1"))}
        assert found == {"m3": "newer", "late": "new", "moved": "hello"}


def test_what_names_a_removed_message_finds_none(paused: Paused) -> None:
    """An edit and a deletion are `not-found`; a reaction waits for a new message, without the old one's text."""
    client = Client(transport=paused)
    fill(client)
    client.execute(ClearRoomMessages("r1"))
    for command in (UpdateMessage("m2", MessageUpdates(content="x")), DeleteMessage("m2")):
        with pytest.raises(BackscrollError) as refused:
            client.execute(command)
        assert refused.value.code == "not-found"
    client.execute(SaveReaction(Reaction(message_id="m1", oder_id="eve", emoji="👎")))
    paused.remove()
    assert [reaction.oder_id for reaction in client.ask(GetReactionsForMessage("m1"))] == ["eve"]
    client.execute(save_message(1, "again"))
    found = client.ask(GetMessageById("m1"))
    assert found is not None
    assert [reaction.oder_id for reaction in found.reactions or ()] == ["eve"]


def test_a_deleted_message_stays_deleted(paused: Paused) -> None:
    """A late copy of a message that was deleted before its room was cleared is not shown, also after the removal."""
    client = Client(transport=paused)
    fill(client)
    client.execute(DeleteMessage("m1"))
    client.execute(DeleteMessage("m2"))
    client.execute(ClearRoomMessages("r1"))
    client.execute(save_message(1, "late"))
    paused.remove()
    client.execute(save_message(2, "late"))
    assert client.ask(GetMessages("r1")) == []


def test_a_room_that_is_cleared_again_loses_what_came_between(paused: Paused) -> None:
    """Also if that is little, and the first removal is not done."""
    client = Client(transport=paused)
    fill(client)
    client.execute(ClearRoomMessages("r1"))
    client.execute(save_message("between"))
    client.execute(ClearRoomMessages("r1"))
    assert client.ask(GetMessages("r1")) == []
    fill(client)
    client.execute(ClearRoomMessages("r1"))
    client.execute(save_message("after"))
    assert [message.id for message in client.ask(GetMessages("r1"))] == ["after"]
    paused.remove()
    assert [message.id for message in client.ask(GetMessages("r1"))] == ["after"]
    assert client.execute(GetScopeInfo()).rows["messages"] == 1


def test_a_scope_stays_open_until_all_is_removed(paused: Paused) -> None:
    """Though it is used by nobody any more; afterwards it is closed like others."""
    client = Client(transport=paused, scope="other")
    fill(client)
    client.execute(ClearRoomMessages("r1"))
    paused.scopes.close_idle(-1)
    assert paused.dispatcher.is_clearing("other")
    while paused.dispatcher.remove_cleared("other"):
        pass
    paused.scopes.close_idle(-1)
    assert "other" not in paused.scopes.open_names()


def test_compact_scope_removes_what_is_left(paused: Paused) -> None:
    """So the copy has none of it."""
    client = Client(transport=paused)
    fill(client)
    client.execute(ClearRoomMessages("r1"))
    client.execute(CompactScope())
    info = client.execute(GetScopeInfo())
    assert (info.purging, info.rows["messages"]) == (0, 0)


def test_messages_of_a_batch_are_removed_together(paused: Paused) -> None:
    """Its entry in the log is rewritten once, however small the steps are, and however messages are interleaved."""
    client = Client(transport=paused)
    for batch in range(2):
        client.execute(Batch.of(save_message(2 * at + batch, "secret") for at in range(MANY)))
    client.execute(ClearRoomMessages("r1"))
    left = []
    while paused.dispatcher.is_clearing("default"):
        paused.dispatcher._removed_at_once = 1
        paused.dispatcher.remove_cleared("default")
        left.append(client.execute(GetScopeInfo()).rows["messages"])
    assert left[:2] == [MANY, 0]
