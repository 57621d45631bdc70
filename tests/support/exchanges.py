"""Requests and replies as bytes with a daemon, and its command log."""

from typing import Any

from backscroll.schema.limits import PAGE_ITEMS_MAX
from backscroll.schema.wire import codec_of
from tests.support.peers import Peer, Reply


def value_of(reply: bytes) -> Reply:
    """The value of a reply in either encoding."""
    return codec_of(reply).decode(reply, dict[str, Any])


def exchange(peer: Peer, *requests: bytes) -> list[bytes]:
    """Send requests at once; their replies in the order of the requests."""
    for request in requests:
        peer.send(request)
    replies = [peer.frames()[-1] for _ in requests]
    asked = [value_of(request)["id"] for request in requests]
    assert sorted(asked) == sorted(value_of(reply)["id"] for reply in replies)
    return replies


def answer(peer: Peer, request: bytes) -> Reply:
    """The reply to one request, as plain values."""
    return value_of(exchange(peer, request)[0])


def logged(peer: Peer, **envelope: Any) -> list[dict[str, Any]]:
    """Every entry of the command log, read page by page."""
    entries: list[dict[str, Any]] = []
    while True:
        reply = peer.ask("get-log", {"fromSeq": len(entries) + 1, "limit": PAGE_ITEMS_MAX}, **envelope)
        assert reply["ok"], reply
        entries += reply["result"]["entries"]
        if len(entries) == reply["result"]["lastSeq"]:
            return entries
