"""Node and a real daemon: what JavaScript saves, Python reads, and the reverse. The scripts are in `node/`.

Needs `node` and `npm`, which fetches two packages once into `node/node_modules`. Without them these tests are skipped,
except where `CI` is set: there they fail.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessageById, GetMessages, Message, SaveMessage
from tests.support.tools import cannot_run, tool_path

NODE = Path(__file__).parent / "node"
PACKAGE, INSTALLED = NODE / "package.json", NODE / "node_modules" / "installed-package.json"
INSTALL_SECONDS, RUN_SECONDS = 240, 60
MANY = 1_000

StartDaemon = Callable[..., DaemonProcess]
ENDPOINTS = {"ipc": (), "tcp": ("--endpoint", "tcp://127.0.0.1:*")}


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node, with the packages of `package.json` installed beside the scripts."""
    found, npm = tool_path("node"), tool_path("npm")
    if not INSTALLED.exists() or INSTALLED.read_bytes() != PACKAGE.read_bytes():
        _install(npm)
    return found


@pytest.mark.parametrize("carrier", ENDPOINTS)
@pytest.mark.parametrize(("script", "many"), [("dealer", MANY), ("req", 0)])
def test_node_and_python_read_the_same_messages(
    node: str, start_daemon: StartDaemon, script: str, many: int, carrier: str
) -> None:
    """A message saved in one language is equal in the other, with emoji, NUL, 2**53 - 1 and free JSON."""
    daemon = start_daemon(*ENDPOINTS[carrier])
    with Client(data_dir=daemon.data_dir) as client:
        ours = _messages("python")
        list(client.pipeline(map(SaveMessage, ours)))
        summary = json.loads(_run(node, f"{script}.mjs", daemon.endpoint, *([daemon.token] if daemon.token else [])))
        assert (summary["read"], summary["saved"]) == (len(ours), len(ours) + many)
        theirs = _messages(script)
        assert list(client.pipeline(GetMessageById(message.id) for message in theirs)) == [
            _as_read(message) for message in theirs
        ]
        assert len(_all_of(script, client)) == len(theirs) + many


@pytest.mark.parametrize(("way", "carrier"), [("argument", "ipc"), ("endpoint.json", "ipc"), ("endpoint.json", "tcp")])
def test_the_example_for_a_zeromq_library_runs(
    node: str, start_daemon: StartDaemon, tmp_path: Path, way: str, carrier: str
) -> None:
    """It runs with an endpoint as its argument, and in a directory with an `endpoint.json`."""
    data_dir = tmp_path / "data"
    daemon = start_daemon(*ENDPOINTS[carrier], data_dir=data_dir)
    if way == "argument":
        printed = _run(node, "example.mjs", daemon.endpoint)
    else:
        printed = _run(node, "example.mjs", directory=data_dir)
    assert "hello from JavaScript 👋" in printed
    with Client(data_dir=data_dir) as client:
        assert [message.content for message in client.ask(GetMessages("r1"))] == ["hello from JavaScript 👋"]


def test_a_log_file_can_be_a_fixture_for_javascript(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed and served by two commands, a conversation is available to tests in any language."""
    monkeypatch.setenv("BACKSCROLL", str(Path(sys.executable).parent / "backscroll"))
    monkeypatch.setenv("LOG", str(Path(__file__).parents[1] / "example" / "conversation.jsonl"))
    printed = _run(node, "replayed.mjs")
    assert re.search(r"pass 2\n", printed), printed
    assert re.search(r"fail 0\n", printed), printed


def _messages(writer: str) -> list[Message]:
    """The messages that `messages.mjs` makes of `messages.json` for a writer, whose room has the same name."""
    made = []
    for template in json.loads((NODE / "messages.json").read_text(encoding="utf-8")):
        message = {**template, "id": f"{writer}: {template['id']}", "roomId": writer, "senderId": writer}
        for reaction in message.get("reactions", []):
            reaction["messageId"] = message["id"]
        made.append(msgspec.convert(message, Message))
    return made


def _as_read(message: Message) -> Message:
    ordered = sorted(message.reactions or [], key=lambda item: (item.timestamp, item.oder_id, item.emoji))
    return msgspec.structs.replace(message, reactions=ordered)


def _all_of(room_id: str, client: Client) -> list[Message]:
    pages = [GetMessages(room_id, limit=500, offset=offset) for offset in range(0, MANY + 501, 500)]
    return [message for page in client.pipeline(pages) for message in page]


def _install(npm: str) -> None:
    """Fetch the packages, and leave a copy of the `package.json` they were fetched for."""
    command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        cannot_run(f"npm cannot install the packages: {done.stderr.strip()[-500:]}")
    shutil.copyfile(PACKAGE, INSTALLED)


def _run(node: str, script: str, *arguments: Any, directory: Path | None = None) -> str:
    """What a script prints; where it fails, its standard error is shown."""
    command = [node, str(NODE / script), *arguments]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, encoding="utf-8", timeout=RUN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
