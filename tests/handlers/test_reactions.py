"""handlers/reactions.py: a person's emoji counts once, and a reaction may be saved before its message."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.clients.python.listing import items_of
from backscroll.schema import (
    Batch,
    GetMessageById,
    GetMessagePage,
    GetReactionsForMessage,
    Invalid,
    Reaction,
    ReactionPosition,
    RemoveReaction,
    SaveMessage,
    SaveReaction,
    TooLarge,
)
from backscroll.schema.limits import PAGE_REACTIONS_BYTES_MAX, REACTION_METADATA_BYTES_MAX
from tests.support.local import REPLAYED, Local, check_replay
from tests.support.memory import limited_memory
from tests.support.messages import message_document, message_record, save_message
from tests.support.requests import body

SECRET = "only-a-reaction-says-this"


def position(reaction: Reaction) -> ReactionPosition:
    return ReactionPosition(timestamp=reaction.timestamp, oder_id=reaction.oder_id, emoji=reaction.emoji)


def test_the_same_reaction_counts_once(client: Client) -> None:
    """A reaction saved again is replaced: the key is (messageId, oderId, emoji)."""
    client.execute(SaveReaction(Reaction(message_id="m", oder_id="a", emoji="👍", id="1", timestamp=1)))
    client.execute(SaveReaction(Reaction(message_id="m", oder_id="a", emoji="👍", id="2")))
    assert client.ask(GetReactionsForMessage("m")) == [Reaction(message_id="m", oder_id="a", emoji="👍", id="2")]


def test_keys_are_never_joined_into_text(client: Client) -> None:
    """Ids and emoji with separators do not collide with others that would be equal when joined."""
    keys = [("m-1", "a", "x"), ("m", "1-a", "x"), ("m", "1", "a-x"), ("m:1", "a", "x"), ("m", "1:a", "x")]
    for message_id, oder_id, emoji in keys:
        client.execute(SaveReaction(Reaction(message_id=message_id, oder_id=oder_id, emoji=emoji)))
    client.execute(RemoveReaction("m", "1-a", "x"))
    left = [
        (each.message_id, each.oder_id, each.emoji)
        for message_id in ("m", "m-1", "m:1")
        for each in client.ask(GetReactionsForMessage(message_id))
    ]
    assert left == [("m", "1", "a-x"), ("m", "1:a", "x"), ("m-1", "a", "x"), ("m:1", "a", "x")]


def test_reactions_are_ordered_by_timestamp_oder_id_emoji(client: Client) -> None:
    """The order is total; a reaction without a timestamp comes first."""
    wanted = [("z", "x", None), ("a", "x", 1), ("b", "w", 2), ("b", "x", 2), ("a", "y", 3)]
    for oder_id, emoji, timestamp in reversed(wanted):
        client.execute(SaveReaction(Reaction(message_id="m", oder_id=oder_id, emoji=emoji, timestamp=timestamp)))
    found = client.ask(GetReactionsForMessage("m"))
    assert [(each.oder_id, each.emoji, each.timestamp) for each in found] == wanted


def test_a_reaction_can_be_saved_before_its_message(client: Client) -> None:
    """It is stored, and shown as soon as the message is there."""
    early = Reaction(message_id="m", oder_id="a", emoji="👍")
    client.execute(SaveReaction(early))
    client.execute(save_message("m", "", "r"))
    message = client.ask(GetMessageById("m"))
    assert message is not None
    assert message.reactions == [early]


def test_removing_a_missing_reaction_succeeds(client: Client) -> None:
    """Removing is idempotent."""
    client.execute(RemoveReaction("m", "a", "👍"))


# Users whom nobody names


def test_unnamed_users_are_counted(client: Client) -> None:
    """An export that has a number but no users: one count for each emoji of a message, which stands before the named
    users of its time, is replaced by a second save, and is removed with `oderId: null`.
    """
    named = Reaction(message_id="m", oder_id="ada", emoji="👍", timestamp=5)
    counts = [Reaction(message_id="m", emoji=emoji, count=3, timestamp=5) for emoji in ("🎉", "👍")]
    for each in (named, counts[1], replace(counts[0], count=2), counts[0]):
        client.execute(SaveReaction(each))
    assert client.ask(GetReactionsForMessage("m")) == [*counts, named]
    assert client.ask(GetReactionsForMessage("m", limit=2, after=position(counts[0]))) == [counts[1], named]
    client.execute(RemoveReaction("m", None, "👍"))
    assert client.ask(GetReactionsForMessage("m")) == [counts[0], named]
    client.execute(RemoveReaction("m", "ada", "👍"))
    assert client.ask(GetReactionsForMessage("m")) == [counts[0]]


def test_counts_are_saved_and_read_with_their_message(client: Client) -> None:
    """In the list of a message they are like other reactions; two for one emoji are `invalid`."""
    count = Reaction(message_id="m", emoji="👍", count=2**53 - 1, metadata={"url": "https://example.org/👍"})
    message = message_record("m", "", reactions=[count])
    client.execute(SaveMessage(message))
    assert client.ask(GetMessageById("m")) == message
    with pytest.raises(Invalid, match=r"reactions\[1\]: duplicate key"):
        client.execute(SaveMessage(replace(message, reactions=[count, replace(count, count=1)])))


@pytest.mark.parametrize("fields", [{}, {"oder_id": "ada", "count": 2}], ids=["neither", "both"])
def test_a_reaction_has_an_oder_id_or_a_count(client: Client, fields: dict[str, Any]) -> None:
    """A reaction whose oderId was forgotten is refused, and so is one that says whose it is and that nobody knows."""
    wrong = Reaction(message_id="m", emoji="👍", **fields)
    with pytest.raises(Invalid, match=re.escape("$.payload.reaction.oderId: give the oderId")):
        client.execute(SaveReaction(wrong))
    with pytest.raises(Invalid, match=re.escape("$.payload.message.reactions[0].oderId: give the oderId")):
        client.execute(SaveMessage(message_record("m", "", reactions=[wrong])))
    with pytest.raises(Invalid, match="count"):
        client.execute(SaveReaction(replace(wrong, oder_id=None, count=0)))
    assert client.ask(GetReactionsForMessage("m")) == []


# Metadata


def test_metadata_of_a_reaction_has_a_limit(client: Client) -> None:
    """It is in bytes of JSON, alone and in the list of a message; the error names the field."""
    metadata = {"a": "é" * ((REACTION_METADATA_BYTES_MAX - len('{"a":""}')) // 2)}
    largest = Reaction(message_id="m", oder_id="a", emoji="👍", metadata=metadata)
    client.execute(SaveReaction(largest))
    assert client.ask(GetReactionsForMessage("m")) == [largest]
    larger = replace(largest, metadata={"a": metadata["a"] + "b"})
    with pytest.raises(TooLarge, match=re.escape("$.payload.reaction.metadata: the metadata has 2049 bytes")):
        client.execute(SaveReaction(larger))
    with pytest.raises(TooLarge, match=re.escape("$.payload.message.reactions[0].metadata: ")):
        client.execute(SaveMessage(message_record("m", "", reactions=[larger])))


def test_the_metadata_of_many_reactions_is_bounded(transport: InProcess, client: Client) -> None:
    """A message with more than fits into a page is `too-large`, without all of it being read; pages of the others are
    shorter, and its reactions have pages of their own.
    """
    number = 2 * PAGE_REACTIONS_BYTES_MAX // REACTION_METADATA_BYTES_MAX
    metadata = {"a": "x" * (REACTION_METADATA_BYTES_MAX - 100)}
    for message_id, count in (("m1", number // 3), ("m2", number // 3), ("m3", number)):
        each = [Reaction(message_id=message_id, oder_id=f"u{at}", emoji="+", metadata=metadata) for at in range(count)]
        client.execute(SaveMessage(message_record(message_id, "", reactions=[])))
        for start in range(0, count, 400):  # the free JSON of a request has a limit
            client.execute(Batch.of([SaveReaction(one) for one in each[start : start + 400]]))
    request = body("get-message-by-id", {"messageId": "m3"})
    with limited_memory(3 * PAGE_REACTIONS_BYTES_MAX):
        assert b"has too many reactions or attachments for a reply" in transport.dispatcher.answer(request)
    cursor = client.ask(GetMessagePage("r1", around="m3", limit=1, child_lists=False)).older_cursor
    page = client.ask(GetMessagePage("r1", limit=2, before=cursor))
    assert [each.id for each in page.messages] == ["m2"]
    assert len(list(items_of(client, GetReactionsForMessage("m3")))) == number


def test_metadata_is_erased_with_the_message(tmp_path: Path) -> None:
    """It is text of people: from the log as well, wherever it was said, and a late copy does not bring it back."""
    with Local(tmp_path / "data") as local:
        reaction = {"messageId": "m1", "emoji": "+", "metadata": {"note": SECRET}}
        named, counted = reaction | {"oderId": "ada"}, reaction | {"count": 7}
        local.result("save-reaction", {"reaction": named})
        local.result("save-message", {"message": message_document("m1", "", reactions=[named, counted])})
        local.result("update-message", {"messageId": "m1", "updates": {"reactions": [named]}})
        local.result("batch", {"commands": [{"type": "save-reaction", "payload": {"reaction": counted}}]})
        assert SECRET in repr(local.entries())
        local.result("delete-message", {"messageId": "m1"})
        local.result("save-reaction", {"reaction": counted})
        assert SECRET not in repr(local.entries()) + repr(local.tables())
        local.replay(local.entries())
        check_replay(local, REPLAYED)
