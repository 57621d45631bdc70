"""handlers/messages.py: saved with reactions split off, read with them put back; deleted text stays deleted."""

from typing import Any

import pytest

from backscroll.clients.python import Client
from backscroll.schema import (
    DELETED_TEXT,
    Attachment,
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


def message(message_id: str = "m1", **fields: Any) -> Message:
    defaults: dict[str, Any] = {"room_id": "r1", "sender_id": "ada", "content": "hello", "timestamp": 1_000}
    return Message(id=message_id, **(defaults | fields))


def reaction(message_id: str = "m1", oder_id: str = "bob", emoji: str = "👍", **fields: Any) -> Reaction:
    return Reaction(message_id=message_id, oder_id=oder_id, emoji=emoji, **fields)


def stored(client: Client, message_id: str = "m1") -> Message:
    found = client.ask(GetMessageById(message_id))
    assert found is not None
    return found


def test_save_message_replaces_the_whole_row(client: Client) -> None:
    """A second save under the same id leaves nothing of the first one's optional fields."""
    client.execute(SaveMessage(message(sender_name="Ada", metadata={"a": 1}, edited_at=5)))
    client.execute(SaveMessage(message(content="again")))
    assert stored(client) == message(content="again", reactions=[])


def test_save_message_twice_changes_nothing(client: Client) -> None:
    """Saving the same message again gives the same message."""
    twice = message(reactions=[reaction(timestamp=2), reaction(oder_id="eve", timestamp=1)])
    client.execute(SaveMessage(twice))
    once = stored(client)
    client.execute(SaveMessage(twice))
    assert stored(client) == once


def test_save_message_without_reactions_keeps_the_stored_ones(client: Client) -> None:
    """A list that is left out is untouched; an empty one empties; a present one replaces exactly."""
    client.execute(SaveMessage(message(reactions=[reaction(), reaction(oder_id="eve")])))
    client.execute(SaveMessage(message(content="edited")))
    assert [each.oder_id for each in stored(client).reactions or []] == ["bob", "eve"]
    client.execute(SaveMessage(message(reactions=[reaction(emoji="🎉")])))
    assert stored(client).reactions == [reaction(emoji="🎉")]
    client.execute(SaveMessage(message(reactions=[])))
    assert stored(client).reactions == []


def test_save_message_refuses_the_reaction_of_another_message(client: Client) -> None:
    """A reaction inside a message must name that message; the refusal names the field and nothing is saved."""
    with pytest.raises(Invalid) as refused:
        client.execute(SaveMessage(message(reactions=[reaction(), reaction("m2", "eve")])))
    assert refused.value.details == {"path": "$.payload.message.reactions[1].messageId"}
    assert client.ask(GetMessageById("m1")) is None
    assert client.ask(GetReactionsForMessage("m1")) == []


def test_save_message_moves_to_another_room(client: Client) -> None:
    """A message has one room: saved with another, it is no longer in the first."""
    client.execute(SaveMessage(message()))
    client.execute(SaveMessage(message(room_id="r2")))
    assert client.ask(GetMessages("r1")) == []
    assert [each.id for each in client.ask(GetMessages("r2"))] == ["m1"]


def test_get_messages_orders_by_timestamp_then_id(client: Client) -> None:
    """Messages of one millisecond come in the order of their ids, however they were saved."""
    for message_id, timestamp in (("c", 2), ("b", 1), ("a", 2), ("é", 2)):
        client.execute(SaveMessage(message(message_id, timestamp=timestamp)))
    assert [each.id for each in client.ask(GetMessages("r1"))] == ["b", "a", "c", "é"]


def test_get_messages_pages_without_gaps(client: Client) -> None:
    """Offset and limit cut the room's order into pages; the last may be short and the next is empty."""
    for number in range(7):
        client.execute(SaveMessage(message(f"m{number}", timestamp=number)))
    pages = [[each.id for each in client.ask(GetMessages("r1", limit=3, offset=at))] for at in (0, 3, 6, 9)]
    assert pages == [["m0", "m1", "m2"], ["m3", "m4", "m5"], ["m6"], []]


def test_get_message_by_id_of_an_unknown_one_is_null(client: Client) -> None:
    """Asking for what is not there is no error."""
    assert client.ask(GetMessageById("nobody")) is None


def test_update_message_knows_three_states(client: Client) -> None:
    """Absent leaves a field, null clears it, a value sets it."""
    client.execute(SaveMessage(message(sender_name="Ada", reply_to_id="m0", reactions=[reaction()])))
    client.execute(UpdateMessage("m1", MessageUpdates(content="new", reply_to_id=None, edited_at=9)))
    assert stored(client) == message(content="new", sender_name="Ada", edited_at=9, reactions=[reaction()])


def test_update_message_can_replace_reactions(client: Client) -> None:
    """A list among the updates replaces the stored list."""
    client.execute(SaveMessage(message(reactions=[reaction()])))
    client.execute(UpdateMessage("m1", MessageUpdates(reactions=[reaction(emoji="🎉")])))
    assert stored(client).reactions == [reaction(emoji="🎉")]


def test_update_message_refuses_the_reaction_of_another_message(client: Client) -> None:
    """The refusal names the field where it stands in an update."""
    client.execute(SaveMessage(message()))
    with pytest.raises(Invalid, match=r"^\$\.payload\.updates\.reactions\[0\]\.messageId: "):
        client.execute(UpdateMessage("m1", MessageUpdates(reactions=[reaction("m2")])))


def test_update_message_of_an_unknown_one_is_not_found(client: Client) -> None:
    """An update never makes a message."""
    with pytest.raises(NotFound, match=r"^\$\.payload\.messageId: "):
        client.execute(UpdateMessage("m1", MessageUpdates(content="new")))
    assert client.ask(GetMessageById("m1")) is None


def test_update_message_of_a_deleted_one_is_a_conflict(client: Client) -> None:
    """A deleted message cannot be edited."""
    client.execute(SaveMessage(message()))
    client.execute(DeleteMessage("m1"))
    with pytest.raises(Conflict):
        client.execute(UpdateMessage("m1", MessageUpdates(content="back")))
    assert stored(client).content == DELETED_TEXT


def test_delete_message_leaves_a_tombstone_in_its_place(client: Client) -> None:
    """The place and who said it stay; text, free data, reactions and attachments go."""
    for number in range(3):
        client.execute(SaveMessage(message(f"m{number}", timestamp=number, content=f"text {number}")))
    client.execute(SaveMessage(message("m1", timestamp=1, metadata={"a": 1}, link_metadata={"b": 2}, revision=4)))
    client.execute(SaveReaction(reaction()))
    client.execute(SaveAttachment(Attachment(id="a1", message_id="m1", filename="f", size=1, mime="x/y")))
    client.execute(DeleteMessage("m1"))
    listed = client.ask(GetMessages("r1"))
    assert [each.content for each in listed] == ["text 0", DELETED_TEXT, "text 2"]
    assert listed[1] == message(content=DELETED_TEXT, timestamp=1, is_deleted=True, revision=4, reactions=[])
    assert client.ask(GetReactionsForMessage("m1")) == []
    assert client.ask(GetAllAttachments()) == []


def test_delete_message_twice_is_fine_and_of_an_unknown_one_is_not_found(client: Client) -> None:
    """Deleting a tombstone succeeds; deleting what never was does not."""
    client.execute(SaveMessage(message()))
    client.execute(DeleteMessage("m1"))
    client.execute(DeleteMessage("m1"))
    with pytest.raises(NotFound):
        client.execute(DeleteMessage("m2"))


def test_deleted_text_never_comes_back(client: Client) -> None:
    """After a delete, saves of the message, of reactions and of attachments succeed and change nothing."""
    client.execute(SaveMessage(message()))
    client.execute(DeleteMessage("m1"))
    tombstone = stored(client)
    client.execute(SaveMessage(message(content="late copy", timestamp=9, reactions=[reaction()])))
    client.execute(SaveReaction(reaction()))
    client.execute(SaveAttachment(Attachment(id="a1", message_id="m1", filename="f", size=1, mime="x/y")))
    assert stored(client) == tombstone
    assert client.ask(GetReactionsForMessage("m1")) == []
    assert client.ask(GetAllAttachments()) == []


@pytest.mark.parametrize("already_there", [False, True])
def test_a_save_with_is_deleted_deletes(client: Client, already_there: bool) -> None:
    """A message saved as deleted is masked like one that was deleted here, and its text is not kept."""
    if already_there:
        client.execute(SaveMessage(message(reactions=[reaction()])))
    client.execute(SaveMessage(message(is_deleted=True, content="secret", reactions=[reaction()])))
    assert stored(client) == message(content=DELETED_TEXT, is_deleted=True, reactions=[])
    client.execute(SaveMessage(message(content="back")))
    assert stored(client).is_deleted


def test_an_update_with_is_deleted_deletes(client: Client) -> None:
    """`isDeleted` among the updates is a deletion too."""
    client.execute(SaveMessage(message(reactions=[reaction()])))
    client.execute(UpdateMessage("m1", MessageUpdates(is_deleted=True)))
    assert stored(client) == message(content=DELETED_TEXT, is_deleted=True, reactions=[])


def test_clear_room_messages_takes_what_hangs_on_them_and_nothing_else(client: Client) -> None:
    """Messages of the room go with reactions and attachments; another room's stay."""
    for room in ("r1", "r2"):
        client.execute(SaveMessage(message(f"m-{room}", room_id=room, reactions=[reaction(f"m-{room}")])))
        attachment = Attachment(id=f"a-{room}", message_id=f"m-{room}", filename="f", size=1, mime="x/y")
        client.execute(SaveAttachment(attachment))
    client.execute(ClearRoomMessages("r1"))
    client.execute(ClearRoomMessages("never was"))
    assert client.ask(GetMessages("r1")) == []
    assert client.ask(GetReactionsForMessage("m-r1")) == []
    assert [each.id for each in client.ask(GetAllAttachments())] == ["a-r2"]
    assert stored(client, "m-r2").reactions == [reaction("m-r2")]
