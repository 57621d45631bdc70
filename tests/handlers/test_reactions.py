"""handlers/reactions.py: a person's emoji counts once, and a reaction may be saved before its message."""

from backscroll.clients.python import Client
from backscroll.schema import (
    GetMessageById,
    GetReactionsForMessage,
    Reaction,
    RemoveReaction,
    SaveReaction,
)
from tests.support.messages import save_message


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
