"""handlers/messages.py: messages are stored with reactions in a table of their own; deleted text never returns."""

from typing import Any

import pytest

from backscroll.clients.python import Client
from backscroll.schema import (
    DELETED_TEXT,
    Attachment,
    Batch,
    ClearRoomMessages,
    Conflict,
    DeleteMessage,
    GetAllAttachments,
    GetMessageById,
    GetMessages,
    GetReactionsForMessage,
    Invalid,
    Message,
    MessageUpdates,
    NotFound,
    Reaction,
    SaveAttachment,
    SaveMessage,
    SaveReaction,
    UpdateMessage,
)
from tests.support.messages import message_record, save_message


def reaction(message_id: str = "m1", oder_id: str = "bob", emoji: str = "👍", **fields: Any) -> Reaction:
    return Reaction(message_id=message_id, oder_id=oder_id, emoji=emoji, **fields)


def stored(client: Client, message_id: str = "m1") -> Message:
    found = client.ask(GetMessageById(message_id))
    assert found is not None
    return found


def test_save_message_replaces_the_whole_row(client: Client) -> None:
    """A second save under the same id keeps none of the optional fields of the first."""
    client.execute(save_message(sender_name="Ada", metadata={"a": 1}, edited_at=5))
    client.execute(save_message(content="again"))
    assert stored(client) == message_record(content="again", reactions=[])


def test_save_message_is_idempotent(client: Client) -> None:
    """Saving the same message twice stores the same message."""
    twice = message_record(reactions=[reaction(timestamp=2), reaction(oder_id="eve", timestamp=1)])
    client.execute(SaveMessage(twice))
    once = stored(client)
    client.execute(SaveMessage(twice))
    assert stored(client) == once


def test_save_message_without_reactions_keeps_the_stored_ones(client: Client) -> None:
    """A list that is left out is kept; an empty list removes all reactions; any other list replaces them."""
    client.execute(save_message(reactions=[reaction(), reaction(oder_id="eve")]))
    client.execute(save_message(content="edited"))
    assert [each.oder_id for each in stored(client).reactions or []] == ["bob", "eve"]
    client.execute(save_message(reactions=[reaction(emoji="🎉")]))
    assert stored(client).reactions == [reaction(emoji="🎉")]
    client.execute(save_message(reactions=[]))
    assert stored(client).reactions == []


def test_save_message_refuses_reactions_of_another_message(client: Client) -> None:
    """A reaction in a message must have its messageId; the error names the field and nothing is stored."""
    with pytest.raises(Invalid) as refused:
        client.execute(save_message(reactions=[reaction(), reaction("m2", "eve")]))
    assert refused.value.details == {"path": "$.payload.message.reactions[1].messageId"}
    assert client.ask(GetMessageById("m1")) is None
    assert client.ask(GetReactionsForMessage("m1")) == []


def test_a_message_moves_only_when_its_room_is_updated(client: Client) -> None:
    """An id that is in another room is a `conflict` that names the room, unless it was deleted; an update moves it.

    Chats whose ids are unique in a room only (101 in two groups) do not take over each other's messages.
    """
    client.execute(save_message("101", room_id="groupA", content="of A", reactions=[reaction("101")]))
    client.execute(SaveAttachment(Attachment(id="a1", message_id="101", filename="f", size=1, mime="x/y")))
    with pytest.raises(Conflict, match=r"^\$\.payload\.message\.id: .*'groupA'") as refused:
        client.execute(save_message("101", room_id="groupB", content="of B"))
    assert refused.value.details == {"path": "$.payload.message.id", "roomId": "groupA"}
    with pytest.raises(Conflict) as refused:
        client.execute(Batch.of([save_message("102", room_id="groupB"), save_message("101", room_id="groupB")]))
    assert refused.value.details is not None
    assert refused.value.details["roomId"] == "groupA"
    assert client.ask(GetMessages("groupB")) == []
    client.execute(UpdateMessage("101", MessageUpdates(room_id="groupC")))
    assert client.ask(GetMessages("groupA")) == []
    assert [each.reactions for each in client.ask(GetMessages("groupC"))] == [[reaction("101")]]
    client.execute(DeleteMessage("101"))
    client.execute(save_message("101", room_id="groupB", content="of B"))
    assert client.ask(GetMessages("groupB")) == []
    assert [each.is_deleted for each in client.ask(GetMessages("groupC"))] == [True]


def test_get_messages_orders_by_timestamp_then_id(client: Client) -> None:
    """Messages of the same millisecond are ordered by id, whatever the order of saving."""
    for message_id, timestamp in (("c", 2), ("b", 1), ("a", 2), ("é", 2)):
        client.execute(save_message(message_id, timestamp=timestamp))
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["b", "a", "c", "é"]


def test_get_messages_pages_by_offset_and_limit(client: Client) -> None:
    """The pages cover the room without gaps; the last may be short and the next is empty."""
    for number in range(7):
        client.execute(save_message(f"m{number}", timestamp=number))
    pages = [[each.id for each in client.ask(GetMessages("r1", limit=3, offset=at))] for at in (0, 3, 6, 9)]
    assert pages == [["m0", "m1", "m2"], ["m3", "m4", "m5"], ["m6"], []]


def test_get_message_by_id_of_an_unknown_id_is_null(client: Client) -> None:
    """A missing message is not an error."""
    assert client.ask(GetMessageById("nobody")) is None


def test_update_message_keeps_clears_or_sets_each_field(client: Client) -> None:
    """An absent field is kept, null clears it, a value sets it."""
    client.execute(save_message(sender_name="Ada", reply_to_id="m0", reactions=[reaction()]))
    client.execute(UpdateMessage("m1", MessageUpdates(content="new", reply_to_id=None, edited_at=9)))
    assert stored(client) == message_record(content="new", sender_name="Ada", edited_at=9, reactions=[reaction()])


def test_update_message_can_replace_reactions(client: Client) -> None:
    """A list of reactions in the updates replaces the stored list."""
    client.execute(save_message(reactions=[reaction()]))
    client.execute(UpdateMessage("m1", MessageUpdates(reactions=[reaction(emoji="🎉")])))
    assert stored(client).reactions == [reaction(emoji="🎉")]


def test_update_message_refuses_reactions_of_another_message(client: Client) -> None:
    """The error names the field in the updates."""
    client.execute(save_message())
    with pytest.raises(Invalid, match=r"^\$\.payload\.updates\.reactions\[0\]\.messageId: "):
        client.execute(UpdateMessage("m1", MessageUpdates(reactions=[reaction("m2")])))


def test_updating_an_unknown_message_is_not_found(client: Client) -> None:
    """An update never creates a message."""
    with pytest.raises(NotFound, match=r"^\$\.payload\.messageId: "):
        client.execute(UpdateMessage("m1", MessageUpdates(content="new")))
    assert client.ask(GetMessageById("m1")) is None


def test_updating_a_deleted_message_is_a_conflict(client: Client) -> None:
    """A deleted message cannot be edited."""
    client.execute(save_message())
    client.execute(DeleteMessage("m1"))
    with pytest.raises(Conflict):
        client.execute(UpdateMessage("m1", MessageUpdates(content="back")))
    assert stored(client).content == DELETED_TEXT


def test_delete_message_leaves_a_tombstone(client: Client) -> None:
    """Position and author stay; text, metadata, reactions and attachments are removed."""
    for number in range(3):
        client.execute(save_message(f"m{number}", timestamp=number, content=f"text {number}"))
    client.execute(save_message("m1", timestamp=1, metadata={"a": 1}, link_metadata={"b": 2}, revision=4))
    client.execute(SaveReaction(reaction()))
    client.execute(SaveAttachment(Attachment(id="a1", message_id="m1", filename="f", size=1, mime="x/y")))
    client.execute(DeleteMessage("m1"))
    listed = client.ask(GetMessages("r1"))
    assert [each.content for each in listed] == ["text 0", DELETED_TEXT, "text 2"]
    assert listed[1] == message_record(content=DELETED_TEXT, timestamp=1, is_deleted=True, revision=4, reactions=[])
    assert client.ask(GetReactionsForMessage("m1")) == []
    assert client.ask(GetAllAttachments()) == []


def test_delete_message_is_idempotent_but_needs_a_message(client: Client) -> None:
    """Deleting a tombstone succeeds; deleting an unknown message is not found."""
    client.execute(save_message())
    client.execute(DeleteMessage("m1"))
    client.execute(DeleteMessage("m1"))
    with pytest.raises(NotFound):
        client.execute(DeleteMessage("m2"))


def test_saves_after_a_delete_change_nothing(client: Client) -> None:
    """After a delete, saves of the message, its reactions and its attachments succeed without any effect."""
    client.execute(save_message())
    client.execute(DeleteMessage("m1"))
    tombstone = stored(client)
    client.execute(save_message(content="late copy", timestamp=9, reactions=[reaction()]))
    client.execute(SaveReaction(reaction()))
    client.execute(SaveAttachment(Attachment(id="a1", message_id="m1", filename="f", size=1, mime="x/y")))
    assert stored(client) == tombstone
    assert client.ask(GetReactionsForMessage("m1")) == []
    assert client.ask(GetAllAttachments()) == []


@pytest.mark.parametrize("already_there", [False, True])
def test_saving_with_is_deleted_makes_a_tombstone(client: Client, already_there: bool) -> None:
    """A message saved as deleted is stored without its text."""
    if already_there:
        client.execute(save_message(reactions=[reaction()]))
    client.execute(save_message(is_deleted=True, content="secret", reactions=[reaction()]))
    assert stored(client) == message_record(content=DELETED_TEXT, is_deleted=True, reactions=[])
    client.execute(save_message(content="back"))
    assert stored(client).is_deleted


def test_updating_with_is_deleted_makes_a_tombstone(client: Client) -> None:
    """`isDeleted` in an update deletes the message."""
    client.execute(save_message(reactions=[reaction()]))
    client.execute(UpdateMessage("m1", MessageUpdates(is_deleted=True)))
    assert stored(client) == message_record(content=DELETED_TEXT, is_deleted=True, reactions=[])


def test_clear_room_messages_removes_only_that_room(client: Client) -> None:
    """Messages of the room are removed with their reactions and attachments; those of another room stay."""
    for room in ("r1", "r2"):
        client.execute(save_message(f"m-{room}", room_id=room, reactions=[reaction(f"m-{room}")]))
        attachment = Attachment(id=f"a-{room}", message_id=f"m-{room}", filename="f", size=1, mime="x/y")
        client.execute(SaveAttachment(attachment))
    client.execute(ClearRoomMessages("r1"))
    client.execute(ClearRoomMessages("never was"))
    assert client.ask(GetMessages("r1")) == []
    assert client.ask(GetReactionsForMessage("m-r1")) == []
    assert [each.id for each in client.ask(GetAllAttachments())] == ["a-r2"]
    assert stored(client, "m-r2").reactions == [reaction("m-r2")]
