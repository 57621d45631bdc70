"""Reactions: emoji that users add to messages."""

from backscroll.schema.limits import Id, Millis, PageSize
from backscroll.schema.operations.base import Command, Query
from backscroll.schema.positions import ReactionPosition
from backscroll.schema.records import ERASED_EMOJI, Arrival, Reaction


class SaveReaction(Command[None], frozen=True):
    """Save a reaction, or replace the user's existing one with this emoji. Its message need not be stored yet.

    Where only their number is known, `count` takes the place of `oderId`: it replaces the message's existing count for
    this emoji. If the message was deleted, this succeeds and changes nothing.

    Attributes:
        arrival: `any-order`: the latest of what was saved and removed counts, by `timestamp`.

    Example: {"reaction": {"messageId": "m1", "oderId": "bob", "emoji": "👍", "timestamp": 1767225601000}}
    """

    reaction: Reaction
    arrival: Arrival | None = None


class RemoveReaction(Command[None], frozen=True):
    """Remove one emoji of a user from a message; with `oderId: null` that of unnamed users. Succeeds if there is none.

    Attributes:
        oder_id: Who reacted; null for the `count` of users whom nobody names.
        timestamp: When the reaction was removed; required with `arrival`.
        arrival: `any-order`: it reports a removal, and a reaction of its time or earlier that arrives later is not
            stored.

    Example: {"messageId": "m1", "oderId": "bob", "emoji": "👍"}
    """

    ADDS = False
    REDACTABLE = {"emoji": ERASED_EMOJI}

    message_id: Id
    oder_id: Id | None
    emoji: Id
    timestamp: Millis | None = None
    arrival: Arrival | None = None


class GetReactionsForMessage(Query[list[Reaction]], frozen=True):
    """The reactions to a message, ordered by (timestamp, oderId, emoji).

    Attributes:
        limit: The most items of a page, which has fewer where they are large. Without it the result is the whole list.
        after: Where the page begins: the fields of the order as they are in the last item of the page before, and null
            for one that it lacks. The end is an empty page.

    Example: {"messageId": "m1"}
    """

    READS = ("message",)

    message_id: Id
    limit: PageSize | None = None
    after: ReactionPosition | None = None
