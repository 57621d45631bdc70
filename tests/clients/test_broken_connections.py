"""Pipelines of many commands, refusals among them, over connections that break: complete, once each and in order."""

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import BackscrollError, Command, DeleteMessage, GetLog, NotFound, Ping
from backscroll.schema.errors import Superseded
from tests import ROOT
from tests.support.messages import save_message
from tests.support.proxy import Proxy

StartDaemon = Callable[..., DaemonProcess]
Before = Callable[[int], None]
"""Called with the number of each command before it is sent."""

COMMANDS, COMMANDS_LONG = 300, 10_000
SEEDS, SEEDS_LONG = 2, 100
COMMANDS_IN_PROXY = 300
REFUSED_EVERY = 7
IN_FLIGHT, IN_FLIGHT_LONG = 100, 1_000
LONG_MS = 60_000

CLIENTS: list[Any] = [Client, AsyncClient]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that the tests of this module share."""
    directory = tmp_path_factory.mktemp("daemon")
    with (directory / "log").open("w") as log, DaemonProcess(directory / "data", log=log) as daemon:
        yield daemon


def commands(number: int, before: Before) -> Iterator[Command[Any]]:
    """Saves, and every seventh is a deletion that is refused whenever it is executed."""
    for each in range(number):
        before(each)
        yield DeleteMessage(f"no{each}") if each % REFUSED_EVERY == 0 else save_message(each)


def pipelined(client_class: Any, number: int, window: int, before: Before, **options: Any) -> list[Any]:
    """The outcome of each command of a pipeline: its result or its error."""
    if client_class is Client:
        with Client(timeout_ms=LONG_MS, **options) as client:
            return list(client.pipeline(commands(number, before), window=window, return_errors=True))
    return asyncio.run(_pipelined(number, window, before, **options))


async def _pipelined(number: int, window: int, before: Before, **options: Any) -> list[Any]:
    room = asyncio.Semaphore(window)

    async def execute(client: AsyncClient, command: Command[Any]) -> Any:
        try:
            return await client.execute(command)
        except BackscrollError as error:
            return error
        finally:
            room.release()

    outcomes: list[asyncio.Task[Any]] = []
    async with AsyncClient(timeout_ms=LONG_MS, **options) as client:
        for command in commands(number, before):
            await room.acquire()
            outcomes.append(asyncio.create_task(execute(client, command)))
        return await asyncio.gather(*outcomes)


def saved(client: Client) -> list[str]:
    """The ids of the messages that the command log says were saved, in its order."""
    ids: list[str] = []
    while True:
        page = client.ask(GetLog(from_seq=len(ids) + 1, limit=500))
        ids += [entry.payload["message"]["id"] for entry in page.entries]
        if len(ids) == page.last_seq:
            return ids


def assert_complete(outcomes: list[Any], number: int, client: Client) -> None:
    """Each command has its outcome, and each save is in the log once, in the order of the pipeline.

    A refused command whose reply was lost may be superseded when it is sent again.
    """
    assert len(outcomes) == number
    for each, outcome in enumerate(outcomes):
        refused = each % REFUSED_EVERY == 0
        assert isinstance(outcome, NotFound | Superseded) if refused else outcome is None, (each, outcome)
    assert saved(client) == [f"m{each}" for each in range(number) if each % REFUSED_EVERY]


def test_pipelines_survive_three_kills(start_daemon: StartDaemon, tmp_path: Path, long: bool) -> None:
    """Of both clients at once. Each time many commands of each are in flight: executed or not, with replies that nobody
    has read.
    """
    number, window = (COMMANDS_LONG, IN_FLIGHT_LONG) if long else (COMMANDS, IN_FLIGHT)
    daemons = [start_daemon()]

    def restart() -> None:
        daemons[-1].kill()
        daemons.append(start_daemon())

    together = threading.Barrier(len(CLIENTS), action=restart, timeout=LONG_MS / 1000)

    def restart_sometimes(each: int) -> None:
        if each in (number // 4, number // 2, number * 3 // 4):
            together.wait()

    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        running = [
            threads.submit(
                pipelined, each, number, window, restart_sometimes, data_dir=tmp_path / "data", scope=each.__name__
            )
            for each in CLIENTS
        ]
    assert len(daemons) == 4
    for each, outcomes in zip(CLIENTS, running, strict=True):
        with Client(data_dir=tmp_path / "data", scope=each.__name__) as client:
            assert_complete(outcomes.result(), number, client)


@pytest.mark.parametrize("client_class", CLIENTS)
def test_a_pipeline_survives_a_bad_connection(client_class: Any, served: DaemonProcess, long: bool) -> None:
    """Connections are cut at any byte, delayed, and swallowed by black holes; the daemon runs on."""
    happened = 0
    with tempfile.TemporaryDirectory(prefix="backscroll-") as directory:
        for seed in range(SEEDS_LONG if long else SEEDS):
            print(f"seed {seed}")  # noqa: T201  # shown when it fails
            scope = f"{client_class.__name__}-{seed}"
            with Proxy(f"ipc://{directory}/{seed}", served.endpoint, seed=seed) as proxy:
                outcomes = pipelined(
                    client_class, COMMANDS_IN_PROXY, IN_FLIGHT, lambda _: None, endpoint=proxy.endpoint, scope=scope
                )
            happened += proxy.happened.total()
            with Client(served.endpoint, scope=scope) as client:
                assert_complete(outcomes, COMMANDS_IN_PROXY, client)
    assert happened > 0


def test_a_pipeline_can_return_errors(client: Client) -> None:
    """With `return_errors` a refusal has its place among the results; without, it is raised there."""
    outcomes = list(client.pipeline(commands(9, lambda _: None), return_errors=True))
    assert [isinstance(each, NotFound) for each in outcomes] == [each % REFUSED_EVERY == 0 for each in range(9)]
    results = client.pipeline([save_message(20), DeleteMessage("no"), save_message(21)])
    assert next(results) is None
    with pytest.raises(NotFound):
        next(results)


# --- the proxy itself ---


def test_the_proxy_forwards_a_beginning_of_what_was_sent(tmp_path: Path) -> None:
    """With any seed, and after its last fault everything."""
    sent = bytes(range(256)) * 400
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        received: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    received.append(_read_all(connection))

        thread = threading.Thread(target=serve)
        thread.start()
        with Proxy("tcp://127.0.0.1:0", target, seed=5, faults=6) as proxy:
            host, _, port = proxy.endpoint.removeprefix("tcp://").rpartition(":")
            for _ in range(15):
                with socket.create_connection((host, int(port))) as connection:
                    try:
                        connection.sendall(sent)
                        connection.shutdown(socket.SHUT_WR)
                        connection.recv(1)
                    except OSError:
                        pass
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert all(sent.startswith(each) for each in received)
    assert received[-1] == sent
    assert any(len(each) < len(sent) for each in received)
    assert proxy.happened.total() == 6


def _read_all(connection: Any) -> bytes:
    found = b""
    try:
        while data := connection.recv(65_536):
            found += data
    except ConnectionResetError:
        pass
    return found


def test_the_proxy_is_a_program(served: DaemonProcess) -> None:
    """It prints its endpoint, forwards until its standard input ends, and then says what it did."""
    with tempfile.TemporaryDirectory(prefix="backscroll-") as directory:
        words = [sys.executable, "-m", "tests.support.proxy", f"ipc://{directory}/p", served.endpoint]
        flags = ["--seed", "1", "--faults", "0"]
        with subprocess.Popen([*words, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as program:
            assert program.stdout is not None
            endpoint = json.loads(program.stdout.readline())["endpoint"]
            with Client(endpoint) as client:
                assert client.ask(Ping()).pong
            rest, _ = program.communicate(b"")
    assert (program.returncode, json.loads(rest)) == (0, {"faults": {}})
