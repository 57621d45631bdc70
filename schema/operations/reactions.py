"""Reactions: one person's emoji on one message."""

from backscroll.schema.limits import Id
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.records import Reaction


class SaveReaction(Command[None], frozen=True):
    """Save a reaction, or replace the same person's same emoji. It may come before its message.

    On a deleted message it succeeds and changes nothing.

    Example: {"reaction": {"messageId": "m1", "oderId": "bob", "emoji": "👍", "timestamp": 1767225601000}}
    """

    reaction: Reaction


class RemoveReaction(Command[None], frozen=True):
    """Remove one person's one emoji from a message, if it is there.

    Example: {"messageId": "m1", "oderId": "bob", "emoji": "👍"}
    """

    NOUN = "reaction"
    REDACTABLE = {"emoji": "-"}

    message_id: Id
    oder_id: Id
    emoji: Id


class GetReactionsForMessage(Query[list[Reaction]], frozen=True):
    """The reactions on a message by (timestamp, oderId, emoji).

    Example: {"messageId": "m1"}
    """

    message_id: Id
