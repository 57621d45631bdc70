"""Both Python clients number their commands, so that none takes effect after a later one when it is sent again."""

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import AsyncClient, Client
from backscroll.schema import (
    Command,
    CompactScope,
    DeleteMessage,
    GetMessages,
    MessageUpdates,
    NotFound,
    Operation,
    Ping,
    Superseded,
    UpdateMessage,
)
from backscroll.schema.wire import MSGPACK
from tests.support.messages import save_message
from tests.support.peers import Peer, running
from tests.support.waiting import wait_until

Outcomes = list[Any]
PAIRS = 20
LONG_MS = 20_000
FIELDS = ("client", "n")
COMMANDS: list[Command[None]] = [
    command
    for number in range(PAIRS)
    for command in (UpdateMessage(f"m{number}", MessageUpdates(content="old")), save_message(number, "new"))
]

both = pytest.mark.parametrize("client_class", [Client, AsyncClient])


class Relay:
    """Between clients and a daemon. The test decides which requests go on, and what is lost."""

    def __init__(self, endpoint: str, daemon: str, *, keeps_fields: bool) -> None:
        self._endpoint, self._daemon, self._keeps_fields = endpoint, daemon, keeps_fields
        self.bodies: list[bytes] = []
        self._open()

    def _open(self) -> None:
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.linger, self._front.rcvtimeo = 1_000, LONG_MS
        self._front.bind(self._endpoint)
        self._back = Peer(self._daemon)

    def pass_on(self, number: int) -> None:
        """Pass on so many requests; their replies stay in the relay."""
        for _ in range(number):
            self._client, body = self._front.recv_multipart()
            self.bodies.append(body)
            fields = MSGPACK.decode(body, dict[str, Any])
            if not self._keeps_fields:
                fields = {name: value for name, value in fields.items() if name not in FIELDS}
            self._back.send(MSGPACK.encode(fields))

    def pass_back(self, number: int) -> None:
        """Pass on so many replies."""
        for _ in range(number):
            self._front.send_multipart([self._client, *self._back.frames()])

    def cut(self) -> None:
        """Lose all connections, with the replies that were not passed on, and accept new ones."""
        self.close()
        self._open()

    def close(self) -> None:
        self._back.close()
        self._front.close()
        self._context.term()


def pipelined(client_class: Any, endpoint: str) -> Outcomes:
    """The outcomes of all commands, which are sent without waiting; of the synchronous client until the first error."""
    if client_class is Client:
        with Client(endpoint, timeout_ms=LONG_MS) as client:
            outcomes: Outcomes = []
            try:
                outcomes += client.pipeline(COMMANDS, window=len(COMMANDS))
            except Superseded as error:
                outcomes.append(error)
            return outcomes

    async def gather() -> Outcomes:
        async with AsyncClient(endpoint, timeout_ms=LONG_MS) as client:
            calls = (client.execute(command) for command in COMMANDS)
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(gather())


@pytest.fixture
def endpoint() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="backscroll-") as directory:
        yield f"ipc://{directory}/s"


@both
@pytest.mark.parametrize("keeps_fields", [False, True])
def test_a_resent_update_does_not_win(tmp_path: Path, endpoint: str, client_class: Any, *, keeps_fields: bool) -> None:
    """Updates that were refused without the client's knowledge raise `Superseded`, and the later saves stay. Where the
    fields are taken away on the way, each update wins over its save.
    """
    with (
        running(tmp_path / "data") as daemon,
        closing(Relay(endpoint, daemon.endpoint, keeps_fields=keeps_fields)) as relay,
        ThreadPoolExecutor(1) as thread,
        Client(daemon.endpoint) as observer,
    ):
        outcomes = thread.submit(pipelined, client_class, endpoint)
        relay.pass_on(len(COMMANDS))
        wait_until(lambda: len(observer.ask(GetMessages("r1"))) == PAIRS)
        relay.cut()
        relay.pass_on(len(COMMANDS))
        relay.pass_back(len(COMMANDS))
        errors = [error for error in outcomes.result() if error is not None]
        assert all(isinstance(error, Superseded) for error in errors)
        assert len(errors) == (0 if not keeps_fields else 1 if client_class is Client else PAIRS)
        messages = observer.ask(GetMessages("r1"))
        assert [message.content for message in messages] == ["new" if keeps_fields else "old"] * PAIRS


@both
def test_a_resent_command_has_the_same_fields(tmp_path: Path, endpoint: str, client_class: Any) -> None:
    """`n` counts the client's commands in their order, and a copy that is sent again has the same."""
    with (
        running(tmp_path / "data") as daemon,
        closing(Relay(endpoint, daemon.endpoint, keeps_fields=True)) as relay,
        ThreadPoolExecutor(1) as thread,
    ):
        outcomes = thread.submit(pipelined, client_class, endpoint)
        relay.pass_on(len(COMMANDS))
        relay.cut()
        relay.pass_on(len(COMMANDS))
        relay.pass_back(len(COMMANDS))
        outcomes.result()
    sent = [MSGPACK.decode(body, dict[str, Any]) for body in relay.bodies]
    for fields in sent:
        fields.pop("deadlineMs", None)  # which attempts differ in
    sent[0].pop("level", None)  # of the first request of a client, also when it is sent again
    sent[len(COMMANDS)].pop("level", None)
    assert sent[: len(COMMANDS)] == sent[len(COMMANDS) :]
    assert [fields["n"] for fields in sent] == [*range(1, len(COMMANDS) + 1)] * 2
    assert len({fields["client"] for fields in sent}) == 1


@both
def test_each_client_numbers_its_commands(transport: InProcess, client_class: Any) -> None:
    """Each has an id of its own. Queries and maintenance operations have neither; a command that is refused has both,
    and so has one with an id of the caller's, which may be executed again later under a new number.
    """
    recorder = Recorder(transport)
    operations: list[Operation[Any]] = [save_message(1), Ping(), GetMessages("r1"), CompactScope(), save_message(2)]
    for _ in range(2):
        do_all(client_class, recorder, operations)
    seen = [(fields["type"], fields.get("n")) for fields in recorder.requests]
    assert seen[:5] == [
        *(("save-message", 1), ("ping", None), ("get-messages", None), ("compact-scope", None), ("save-message", 2))
    ]
    assert seen[5:] == seen[:5]
    clients = [fields.get("client") for fields in recorder.requests]
    assert clients[1:4] == clients[6:9] == [None] * 3
    assert clients[0] == clients[4] != clients[5] == clients[9]
    assert len(str(clients[0])) == 26


def test_a_command_is_executed_again_by_its_caller(transport: InProcess) -> None:
    """Under its own id it is a new command for the daemon if it had no effect, and has a new number."""
    client = Client(transport=transport)
    with pytest.raises(NotFound):
        client.execute(DeleteMessage("m1"), request_id="mine")
    client.execute(save_message(1))
    client.execute(DeleteMessage("m1"), request_id="mine")
    assert transport.store.seq == 2


class Recorder:
    """A transport that keeps what is sent."""

    def __init__(self, transport: InProcess) -> None:
        self._transport = transport
        self.requests: list[dict[str, Any]] = []

    def send(self, body: bytes, timeout_ms: float) -> None:
        self.requests.append(MSGPACK.decode(body, dict[str, Any]))
        self._transport.send(body, timeout_ms)

    def receive(self, timeout_ms: float) -> bytes | None:
        return self._transport.receive(timeout_ms)

    def close(self) -> None:
        """It is used by another client afterwards."""


def do_all(client_class: Any, transport: Recorder, operations: list[Operation[Any]]) -> None:
    """Execute or ask all of these, one after the other, with a new client."""
    if client_class is Client:
        with Client(transport=transport) as client:
            assert len(list(client.pipeline(operations))) == len(operations)
        return

    async def each() -> None:
        async with AsyncClient(transport=transport) as client:
            for operation in operations:
                await client._request(operation, None)

    asyncio.run(each())
