"""A client that is older than its daemon: what it does not know in a reply harms nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import CallerError, DaemonError, GetMessagePage, GetMessages
from backscroll.schema.errors import BackscrollError
from backscroll.schema.wire import codec_of
from tests.support.messages import save_message

Reply = dict[str, Any]


class FutureDaemon:
    """A transport to a daemon whose replies a later version has changed."""

    def __init__(self, transport: InProcess, change: Callable[[Reply], None]) -> None:
        self._transport = transport
        self._change = change
        self.sent = 0

    def send(self, body: bytes, timeout_ms: float = 0, /) -> None:
        self.sent += 1
        self._transport.send(body, timeout_ms)

    def receive(self, timeout_ms: float) -> bytes | None:
        body = self._transport.receive(timeout_ms)
        if body is None:
            return None
        codec = codec_of(body)
        reply = codec.decode(body, Reply)
        self._change(reply)
        return codec.encode(reply)

    def close(self) -> None:
        self._transport.close()


def test_a_reply_field_of_the_future_is_ignored(transport: InProcess, client: Client) -> None:
    """In the envelope, in the result, and in each message of a page; the rest is read."""

    def add(reply: Reply) -> None:
        reply["hint"] = {"x": 1}
        if isinstance(reply["result"], dict):
            reply["result"]["summary"] = "new"
            reply = {"result": reply["result"]["messages"]}
        for message in reply["result"]:
            message["juggledAt"] = 7

    client.execute(save_message(1))
    later = Client(transport=FutureDaemon(transport, add))
    assert [message.id for message in later.ask(GetMessages("r1"))] == ["m1"]
    assert [message.content for message in later.ask(GetMessagePage("r1")).messages] == ["hello"]


@pytest.mark.parametrize(("fault", "error_class"), [("caller", CallerError), ("daemon", DaemonError)])
def test_an_error_code_of_the_future_is_raised_by_its_fault(
    transport: InProcess, fault: str, error_class: type[BackscrollError]
) -> None:
    """The code is kept, whether it may be retried too, and the request is not sent again."""

    def refuse(reply: Reply) -> None:
        error = {"code": "frozen", "message": "the room is frozen", "fault": fault, "retryable": False, "until": 7}
        reply.pop("result", None)
        reply |= {"ok": False, "error": error}

    daemon = FutureDaemon(transport, refuse)
    with pytest.raises(BackscrollError) as raised:
        Client(transport=daemon).execute(save_message(1))
    assert (type(raised.value), raised.value.code, str(raised.value)) == (error_class, "frozen", "the room is frozen")
    assert not raised.value.retryable
    assert daemon.sent == 1
