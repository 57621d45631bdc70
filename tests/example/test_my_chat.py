"""Tests of a chat application, as its author writes them: the fixtures come with backscroll."""

import pytest

from backscroll.clients.python import Client
from backscroll.schema import GetMessages, MessageUpdates, UpdateMessage


def correct_spelling(client: Client, room_id: str) -> None:
    """What is tested: some part of the application."""
    for message in client.ask(GetMessages(room_id)):
        if "elevn" in message.content:
            client.execute(
                UpdateMessage(message.id, MessageUpdates(content=message.content.replace("elevn", "eleven")))
            )


@pytest.mark.backscroll_log("conversation.jsonl")
def test_spelling_is_corrected(backscroll_client, backscroll_snapshot):
    correct_spelling(backscroll_client, "harbour")
    assert backscroll_client.ask(GetMessages("harbour"))[1].content == "Then we leave at eleven."
    backscroll_snapshot()  # and nothing else has changed
