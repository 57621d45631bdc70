"""The daemon as a process of its own, asked over ipc: by the Python client, and by a bare socket.

The bare socket sends requests that were encoded beforehand and decodes no reply, so it shows what the daemon alone can
do; the difference to the client is the client's own work, done in the process of the caller.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sockets import TIMEOUT_MS, Dealer
from work import Jobs, Page, Work

from backscroll.clients import Client
from backscroll.clients.calls import DEFAULT_SCOPE, Call, open_reply
from backscroll.clients.process import DaemonProcess
from backscroll.schema import SaveMessage


class ByClient:
    """`Client.execute` and `Client.ask`, or `Client.pipeline` where many are under way."""

    name = "daemon, Client"
    pipelines = True

    def __init__(self, directory: Path) -> None:
        self._daemon = _start(directory)
        self._client = Client(self._daemon.endpoint, timeout_ms=TIMEOUT_MS)

    def jobs(self, work: Work, saves_in_flight: int, reads_in_flight: int) -> Jobs:
        saves = [SaveMessage(message) for message in work.messages]
        return Jobs(lambda: self._send(saves, saves_in_flight), lambda: self._send(work.pages, reads_in_flight))

    def read_back(self, work: Work) -> Sequence[Page]:
        return [msgspec.to_builtins(self._client.ask(page)) for page in work.pages]

    def close(self) -> None:
        self._client.close()
        self._daemon.stop()

    def _send(self, operations: Iterable[Any], in_flight: int) -> None:
        if in_flight == 1:
            for operation in operations:
                self._client.execute(operation)
        else:
            deque(self._client.pipeline(operations, window=in_flight), maxlen=0)


class ByBareSocket:
    """Ready-made requests, replies left as they are."""

    name = "daemon, bare socket"
    pipelines = True

    def __init__(self, directory: Path) -> None:
        self._daemon = _start(directory)
        self._dealer = Dealer(self._daemon.endpoint)

    def jobs(self, work: Work, saves_in_flight: int, reads_in_flight: int) -> Jobs:
        saves = [[body_of(SaveMessage(message))] for message in work.messages]
        reads = [[body_of(page)] for page in work.pages]
        return Jobs(
            lambda: self._dealer.exchange(saves, saves_in_flight), lambda: self._dealer.exchange(reads, reads_in_flight)
        )

    def read_back(self, work: Work) -> Sequence[Page]:
        return [page_in(reply) for reply in self._dealer.exchange([[body_of(page)] for page in work.pages], 1)]

    def close(self) -> None:
        self._dealer.close()
        self._daemon.stop()


def body_of(operation: Any) -> bytes:
    """The request that the client would send, with an id of its own."""
    return Call(operation, scope=DEFAULT_SCOPE, timeout_ms=TIMEOUT_MS).body


def page_in(body: bytes) -> Page:
    """The payloads in the reply to a page's request."""
    reply, codec = open_reply(body)
    return codec.decode(reply.result, Page)


def _start(directory: Path) -> DaemonProcess:
    return DaemonProcess(directory, "--log-level", "warning")
