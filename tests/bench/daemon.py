"""The daemon as a process of its own, used over ipc by the Python client and by a bare socket.

The bare socket sends requests that were encoded beforehand and does not decode replies, so it shows what the daemon
alone can do; the difference to the client is the client's own work in the caller's process.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import DEFAULT_SCOPE, Call, open_reply
from backscroll.schema import GetMessagePage, GetMessages, SaveMessage
from tests.bench.measuring import seconds
from tests.bench.sockets import TIMEOUT_MS, Dealer
from tests.bench.work import ONE, PAGE, Page, Way, Work

QUIET = ("--log-level", "warning")
CACHE_OFF: tuple[str, ...] = ("--query-cache-bytes", "0")
"""The flags that leave out what makes pages faster that are asked for again."""


class ByClient:
    """`Client.execute` and `Client.ask`, or `Client.pipeline` with many requests in flight; a thread for each
    caller.
    """

    name = "daemon"

    def __init__(self, directory: Path, *flags: str) -> None:
        self.process = DaemonProcess(directory, *QUIET, *flags)
        self.file = directory / "default.db"
        self._client = Client(self.process.endpoint, timeout_ms=TIMEOUT_MS)

    def save(self, work: Work, way: Way) -> float:
        commands = [SaveMessage(message) for message in work.messages]
        if way.callers == 1:
            return seconds(lambda: _send(self._client, commands, way.in_flight))
        with ExitStack() as stack:
            clients = [stack.enter_context(self._another_client()) for _ in range(way.callers)]
            threads = stack.enter_context(ThreadPoolExecutor(way.callers))
            shares = [commands[place :: way.callers] for place in range(way.callers)]
            return seconds(lambda: list(threads.map(_send, clients, shares, [way.in_flight] * way.callers)))

    def read(self, work: Work, way: Way, operation: str) -> float:
        queries = queries_of(work, operation)
        return seconds(lambda: _send(self._client, queries, way.in_flight))

    def read_back(self, work: Work) -> list[Page]:
        """Read by both operations, which must agree."""
        pages = [self._client.ask(newest(work, room, "get-messages")) for room in work.rooms]
        assert pages == [self._client.ask(newest(work, room, "get-message-page")).messages for room in work.rooms]
        return [msgspec.to_builtins(page) for page in pages]

    def close(self) -> None:
        self._client.close()
        self.process.stop()

    def _another_client(self) -> Client:
        return Client(self.process.endpoint, timeout_ms=TIMEOUT_MS)


class ByBareSocket:
    """Prepared requests, and replies that are not decoded."""

    name = "daemon, bare socket"

    def __init__(self, directory: Path, *flags: str) -> None:
        self.process = DaemonProcess(directory, *QUIET, *flags)
        self.file = directory / "default.db"
        self._dealer = Dealer(self.process.endpoint)

    def save(self, work: Work, way: Way) -> float:
        assert way.callers == 1
        return self._timed([[body_of(SaveMessage(message))] for message in work.messages], way)

    def read(self, work: Work, way: Way, operation: str) -> float:
        return self._timed([[body_of(query)] for query in queries_of(work, operation)], way)

    def read_back(self, work: Work) -> list[Page]:
        return [page_in(self._dealer.ask(body_of(newest(work, room, "get-messages")))) for room in work.rooms]

    def close(self) -> None:
        self._dealer.close()
        self.process.stop()

    def _timed(self, messages: list[list[bytes]], way: Way) -> float:
        replies: list[bytes] = []
        took = seconds(lambda: replies.extend(self._dealer.exchange(messages, way.in_flight)))
        check_all_ok(replies)
        return took


class Uncached(ByClient):
    """The same daemon without its query cache."""

    name = "daemon without its cache"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, *CACHE_OFF)


def newest(work: Work, room: str, operation: str) -> Any:
    """The query of a room's newest page."""
    if operation == "get-messages":
        return GetMessages(room, limit=PAGE, offset=work.offset(room))
    return GetMessagePage(room, limit=PAGE)


def queries_of(work: Work, operation: str) -> list[Any]:
    """The queries of all visits."""
    by_room = {room: newest(work, room, operation) for room in work.rooms}
    return [by_room[room] for room in work.visits]


def body_of(operation: Any) -> bytes:
    """The request that the client would send, with a new id."""
    return Call(operation, scope=DEFAULT_SCOPE, timeout_ms=TIMEOUT_MS).body


def check_all_ok(replies: Iterable[bytes]) -> None:
    """End the benchmark if a request failed, because errors are quick."""
    for body in replies:
        reply, _ = open_reply(body)
        assert reply.ok, reply.error


def page_in(body: bytes) -> Page:
    """The payloads in the reply to the request of a page."""
    reply, codec = open_reply(body)
    assert reply.ok, reply.error
    return codec.decode(reply.result, Page)


def _send(client: Client, operations: Sequence[Any], in_flight: int = ONE.in_flight) -> None:
    if in_flight == 1:
        for operation in operations:
            client.execute(operation)
    else:
        deque(client.pipeline(operations, window=in_flight), maxlen=0)
