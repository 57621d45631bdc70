"""Forks of a process that has a client: the child gets an error at once, and the parent is not disturbed."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.pending_calls import FORKED
from backscroll.schema import GetMessages, Ping
from tests.support.messages import save_message

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

SECONDS_MAX = 10


def in_child(work: Callable[[], object]) -> str:
    """What `work` printed into its pipe in a forked child: the message of its error, or `done`."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS_MAX)  # ends a child that hangs
        try:
            work()
            said = "done"
        except BaseException as error:  # noqa: BLE001  # no error of the child may return into pytest
            said = f"{type(error).__name__}: {error}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child hung"
    return said


def texts(client: Client) -> int:
    return len(client.ask(GetMessages("r1", limit=500)))


def test_a_forked_child_cannot_use_the_client_of_its_parent(start_daemon: Callable[..., DaemonProcess]) -> None:
    """Every method raises `Invalid` at once, `close` does nothing, and a new client works; the parent goes on."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        client.execute(save_message(1))
        begun = client.pipeline([Ping()] * 3, window=1)
        next(begun)
        uses: list[Callable[[], object]] = [
            lambda: client.ask(Ping()),
            lambda: client.execute(save_message(2)),
            lambda: list(client.pipeline([Ping()])),
            lambda: list(begun),
        ]
        started = time.monotonic()
        for use in uses:
            assert in_child(use) == f"Invalid: {FORKED}"
        assert in_child(client.close) == "done"
        assert time.monotonic() - started < SECONDS_MAX / 2
        assert [each.pong for each in begun] == [True, True]

        def save_with_another() -> None:
            with Client(daemon.endpoint) as own:
                own.execute(save_message(3))

        assert in_child(save_with_another) == "done"
        client.execute(save_message(4))
        assert texts(client) == 3


def test_a_child_is_refused_while_another_thread_uses_the_client(start_daemon: Callable[..., DaemonProcess]) -> None:
    """The lock that the thread held when the process was forked is never released in the child."""
    daemon = start_daemon()
    ended = threading.Event()
    with Client(daemon.endpoint) as client:

        def ask() -> None:
            while not ended.is_set():
                client.ask(Ping())

        asking = threading.Thread(target=ask)
        asking.start()
        said = {in_child(lambda: client.ask(Ping())) for _ in range(10)} | {in_child(client.close)}
        ended.set()
        asking.join()
        assert said == {f"Invalid: {FORKED}", "done"}
        assert client.ask(Ping()).pong


def test_a_forked_child_cannot_use_an_asyncio_client(start_daemon: Callable[..., DaemonProcess]) -> None:
    """Nor in an event loop of its own; the parent's requests in flight get their replies."""
    daemon = start_daemon()

    async def converse() -> None:
        async with AsyncClient(daemon.endpoint) as client:
            await client.execute(save_message(1))
            in_flight = [asyncio.ensure_future(client.ask(Ping())) for _ in range(100)]
            await asyncio.sleep(0)  # so that they are sent

            def ask() -> None:
                asyncio.events._set_running_loop(None)  # as in a child that does not continue its parent's loop
                asyncio.new_event_loop().run_until_complete(client.ask(Ping()))

            def close() -> None:
                asyncio.events._set_running_loop(None)
                asyncio.new_event_loop().run_until_complete(client.close())

            assert in_child(ask) == f"Invalid: {FORKED}"
            assert in_child(close) == "done"
            assert all(each.pong for each in await asyncio.gather(*in_flight))

    asyncio.run(converse())


def test_a_forked_child_leaves_a_store_in_its_parent_alone(tmp_path: Path) -> None:
    """The client of the pytest plugin is such a one: the child cannot use it, and closing it there closes no file."""
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        client.execute(save_message(1))
        wal = tmp_path / "data" / "default.db-wal"
        size = wal.stat().st_size
        assert in_child(lambda: client.execute(save_message(2))) == f"Invalid: {FORKED}"
        assert in_child(client.close) == "done"
        assert in_child(transport.close) == "done"
        assert wal.stat().st_size == size > 0
        client.execute(save_message(3))
        assert texts(client) == 2
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        assert texts(client) == 2


def test_requests_of_parent_and_child_have_different_ids(start_daemon: Callable[..., DaemonProcess]) -> None:
    """Both save at once with clients of their own; a repeated id would be a conflict, or taken for a retry."""
    daemon = start_daemon()

    def save(first: int) -> None:
        with Client(daemon.endpoint) as own:
            for _ in own.pipeline(save_message(at) for at in range(first, first + 200)):
                pass

    child = threading.Thread(target=lambda: said.append(in_child(lambda: save(1_000))))
    said: list[str] = []
    child.start()
    save(2_000)
    child.join()
    assert said == ["done"]
    with Client(daemon.endpoint) as client:
        assert texts(client) == 400
