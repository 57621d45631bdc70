"""The examples in README.md run as they are printed."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backscroll.clients.command_line.main import COMMANDS, main
from backscroll.clients.python import AsyncClient, Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import (
    Command,
    DeleteMessage,
    DeleteRoom,
    DeleteScope,
    GetLog,
    GetMessages,
    MessageUpdates,
    UpdateMessage,
)
from tests import ROOT
from tests.support.messages import save_message
from tests.support.waiting import wait_until

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of README.md in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_run(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Saved as scripts they store a message with a reaction, and a room with a member, and print them."""
    start_daemon(data_dir=tmp_path / "data")
    script = tmp_path / "example.py"
    for code, printed in zip(blocks("python")[:2], ["ada Hello! ['👋']\n", "Home\nAda\n"], strict=True):
        script.write_text(code, encoding="utf-8")
        command = [sys.executable, "-X", "utf8", str(script)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == printed


def started(code: str, directory: Path, *words: str) -> "subprocess.Popen[str]":
    """A running script with this code, in a directory."""
    script = directory / "example.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-X", "utf8", str(script), *words]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


def test_two_processes_follow_one_another(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Each of the two saves a message when it sees that of the other, until both have seen six."""
    start_daemon(data_dir=tmp_path / "data")
    [code] = [block for block in blocks("python") if "in client.watch" in block and "async" not in block]
    players = [started(code, tmp_path, name) for name in ("ping", "pong")]
    for player in players:
        out, err = player.communicate(timeout=60)
        assert (player.returncode, err, out.splitlines()[-1]) == (0, "", "['pong 5']")
    with Client(data_dir=tmp_path / "data") as client:
        assert [each.sender_id for each in client.ask(GetMessages("court"))] == ["ping", "pong"] * 3


def test_the_index_goes_on_at_its_cursor(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Killed and run again, it has the messages that are stored: also when a room was deleted, and after a gap."""
    start_daemon(data_dir=tmp_path / "data")
    [code] = [block for block in blocks("python") if "client.changes" in block]
    histories: list[list[Command[None] | DeleteScope]] = [
        [save_message(1), save_message(2), save_message(3, room_id="r2"), DeleteRoom("r2")],
        [DeleteRoom("r1"), save_message(4)],
        [DeleteScope(), save_message(5)],
    ]
    with Client(data_dir=tmp_path / "data") as client, closing(sqlite3.connect(tmp_path / "index.db")) as index:
        for history, expected in zip(histories, ["m1 m2", "m4", "m5"], strict=True):
            for command in history:
                client.execute(command)
            follower = started(code, tmp_path)
            wait_until(lambda: indexed(index) == expected)  # noqa: B023
            follower.kill()
            assert follower.communicate() == ("", "")


def indexed(index: sqlite3.Connection) -> str:
    """The ids in the database of the example, in order; nothing before it has made its tables."""
    try:
        return " ".join(id for (id,) in index.execute("SELECT id FROM texts ORDER BY id"))
    except sqlite3.OperationalError:
        return ""


def test_the_asyncio_example_follows(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a line for each result, until its task is cancelled."""
    [code] = [block for block in blocks("python") if "async for" in block]
    names: dict[str, Any] = {"AsyncClient": AsyncClient, "GetMessages": GetMessages}
    exec(code, names)

    async def follow() -> None:
        asynchronous = AsyncClient(transport=client._transport)
        task = asyncio.create_task(names["show"](asynchronous))
        for number in (1, 2):
            client.execute(save_message(number, room_id="court"))
            async with asyncio.timeout(20):
                while f"{number} {number} \n" not in "".join(printed):
                    await asyncio.sleep(0)
                    printed.append(capsys.readouterr().out)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    printed: list[str] = []
    asyncio.run(follow())
    assert "".join(printed).splitlines()[-2:] == ["1 1 ", "2 2 "]


def test_the_javascript_example_is_the_tested_one() -> None:
    """It is the script that the tests of the TypeScript client run, word for word."""
    assert blocks("js") == [(ROOT / "clients" / "typescript" / "core" / "example.mjs").read_text(encoding="utf-8")]


def test_the_example_of_a_page_is_the_tested_one() -> None:
    """It is in the README of the facade too, whose tests run it in a browser."""
    facade = (ROOT / "clients" / "typescript" / "facade" / "README.md").read_text(encoding="utf-8")
    [example] = blocks("ts")
    assert f"```ts\n{example}```" in facade


def test_the_pytest_example_is_the_tested_one() -> None:
    """The log and the test are those in `tests/example`, word for word, which are part of this suite."""
    example = ROOT / "tests" / "example"
    assert blocks("json") == [(example / "conversation.jsonl").read_text(encoding="utf-8")]
    assert (example / "test_my_chat.py").read_text(encoding="utf-8") in blocks("python")


def test_the_record_and_replay_commands_run(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """In a directory with data, each of the printed commands exits with 0."""
    example = ROOT / "tests" / "example" / "conversation.jsonl"
    assert main(["replay", str(example), "--into", str(tmp_path / "data")]) == 0
    start_daemon(data_dir=tmp_path / "data")
    [commands] = [block for block in blocks("sh") if "log export" in block]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-e", "-c", commands]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "default.db").exists()


def test_commands_for_tokens_and_keys_name_the_data_directory() -> None:
    """Without it they would be for the daemon of the default directory, which is not the one that the page starts."""
    shown = [*blocks("sh"), *(command.epilog for command in COMMANDS.values())]
    lines = [line for text in shown for line in text.splitlines() if re.match(" *backscroll (token|keys) ", line)]
    assert len(lines) >= 6
    assert [line for line in lines if "--data-dir ./data" not in line] == []


def test_the_commands_to_try_and_to_test_are_printed() -> None:
    """The demo and the tests each start with a single command."""
    assert "pip install uv && uv run backscroll demo\n" in blocks("sh")
    assert "pip install uv && uv run pytest\n" in blocks("sh")


def test_the_importer_in_the_readme_imports_what_it_can(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """It leaves out what fails and says so; run again it executes nothing twice."""
    [code] = [block for block in blocks("python") if "import_batch" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    commands = [save_message(1), DeleteMessage("none"), save_message(2), UpdateMessage("none", MessageUpdates())]
    for _ in range(2):
        names["import_batch"](client, "file.txt 1", commands)
        assert [message.id for message in client.ask(GetMessages("r1"))] == ["m1", "m2"]
        assert client.ask(GetLog()).last_seq == 1
    assert capsys.readouterr().out.count("left out command 1: not-found at") == 2
