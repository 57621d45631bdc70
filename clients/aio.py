"""The asynchronous client, for asyncio.

async with AsyncClient() as client:
    await client.execute(SaveMessage(message))
    pages = await asyncio.gather(*(client.ask(GetMessages(room)) for room in rooms))
"""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import zmq
import zmq.asyncio

from backscroll.clients.calls import DEFAULT_SCOPE, TIMEOUT_MS, Call, find_endpoint, open_reply
from backscroll.clients.client import Transport
from backscroll.schema.errors import BackscrollError, Invalid, NoReply, Unavailable
from backscroll.schema.operations import Command, Maintenance, Operation, Query
from backscroll.schema.wire import Codec, Reply

R = TypeVar("R")


class AsyncClient:
    """Talks to one daemon in one scope; any number of requests may be under way at once.

    Takes what `Client` takes. Belongs to the event loop that it is first used in.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        data_dir: Path | str | None = None,
        scope: str = DEFAULT_SCOPE,
        timeout_ms: int = TIMEOUT_MS,
        transport: Transport | None = None,
    ) -> None:
        self._carrier = _Inline(transport) if transport else _Socket(find_endpoint(endpoint, data_dir))
        self._scope = scope
        self._timeout_ms = timeout_ms
        self._under_way: dict[str | None, asyncio.Future[tuple[Reply, Codec]]] = {}
        self._listener: asyncio.Task[None] | None = None

    async def execute(self, command: Command[R] | Maintenance[R], *, timeout_ms: int | None = None) -> R:
        """Carry out a command; returns once it is on disk. Raises what `Client.execute` raises."""
        result: R = await self._request(command, timeout_ms)
        return result

    async def ask(self, query: Query[R], *, timeout_ms: int | None = None) -> R:
        """Answer a query. Raises what `Client.ask` raises."""
        result: R = await self._request(query, timeout_ms)
        return result

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        self._fail_all(Unavailable("the client was closed; whether the request took effect is unknown"))
        self._carrier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _request(self, operation: Operation[Any], timeout_ms: int | None) -> Any:
        timeout_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        call = Call(operation, scope=self._scope, timeout_ms=timeout_ms)
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        arrival = self._under_way[call.id] = asyncio.get_running_loop().create_future()
        sent = False
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._carrier.send(call.body)
                sent = True
                reply, codec = await arrival
        except TimeoutError:
            if not sent:
                raise Unavailable("no daemon answers; nothing was sent", retryable=True) from None
            raise NoReply(f"no reply within {timeout_ms} ms: whether the request took effect is unknown") from None
        finally:
            del self._under_way[call.id]
        return call.result(reply, codec)

    async def _listen(self) -> None:
        """Hand each reply to the request that waits for it; one that nobody waits for any more is dropped."""
        while True:
            try:
                reply, codec = open_reply(await self._carrier.receive())
            except BackscrollError as error:
                self._fail_all(error)
                continue
            arrival = self._under_way.get(reply.id)
            if arrival is not None and not arrival.done():
                arrival.set_result((reply, codec))

    def _fail_all(self, error: BackscrollError) -> None:
        """Nobody will get a reply: the client is closed, or what came is no reply, so nobody knows whose it was."""
        for arrival in self._under_way.values():
            if not arrival.done():
                arrival.set_exception(error)


class _Socket:
    """A DEALER socket on the event loop."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise Invalid(f"{endpoint!r} is no address to connect to: {error.strerror}") from error

    async def send(self, body: bytes) -> None:
        await self._socket.send(body)

    async def receive(self) -> bytes:
        return await self._socket.recv()

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class _Inline:
    """A transport that answers while it sends, such as the in-process one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, body: bytes) -> None:
        self._transport.send(body, 0)
        if (reply := self._transport.receive(0)) is not None:
            self._replies.put_nowait(reply)

    async def receive(self) -> bytes:
        return await self._replies.get()

    def close(self) -> None:
        self._transport.close()
