"""The project grows as CONTRIBUTING.md says: in a copy, an operation and a field are added by the files it names.

The copy's daemon then speaks to this project's client, which knows nothing of what was added.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backscroll.clients.python import Client
from backscroll.schema import (
    DeleteMessage,
    GetLog,
    GetMessages,
)
from backscroll.schema.errors import CallerError
from tests import ROOT
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer

FOLDERS = ("schema", "handlers", "bus", "clients")

OPERATION_CLASS = '''

class JuggleMessage(Command[None], frozen=True):
    """Juggle a message: its metadata says so. `not-found` for an unknown one.

    Example: {"messageId": "m1"}
    """

    ERRORS = ("not-found",)

    message_id: Id
'''
OPERATION_HANDLER = """

@handles(JuggleMessage)
def juggle_message(command: JuggleMessage, db: Writes, context: CommandContext) -> None:
    stored = _stored(command.message_id, db)
    juggled = (stored.metadata or {}) | {"juggled": True}
    save(replace(stored, metadata=juggled), "$.payload", db, context)
"""
OPERATION_TEST = '''"""Juggling messages."""

from pathlib import Path

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import GetMessageById, Message, JuggleMessage, SaveMessage


def test_a_juggled_message_says_so(tmp_path: Path) -> None:
    """The metadata that it had stays."""
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        message = Message(id="m1", room_id="r1", sender_id="ada", content="x", timestamp=1, metadata={"a": 1})
        client.execute(SaveMessage(message))
        client.execute(JuggleMessage("m1"))
        juggled = client.ask(GetMessageById("m1"))
        assert juggled is not None
        assert juggled.metadata == {"a": 1, "juggled": True}
'''
FIELD_USE = """
import tempfile
from pathlib import Path

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.schema import GetMessageById, Message, MessageUpdates, SaveMessage, UpdateMessage

with InProcess(Path(tempfile.mkdtemp()) / "data") as transport, Client(transport=transport) as client:
    client.execute(SaveMessage(Message(id="m1", room_id="r", sender_id="a", content="x", timestamp=1, juggled_at=5)))
    assert client.ask(GetMessageById("m1")).juggled_at == 5
    client.execute(UpdateMessage("m1", MessageUpdates(juggled_at=None)))
    assert client.ask(GetMessageById("m1")).juggled_at is None
"""


class Copy:
    """A copy of the project that can be changed and run."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        self._before: dict[Path, str] = {}
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, directory / "backscroll" / folder, ignore=ignored)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file; it must be there."""
        path = self.root / "backscroll" / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, name: str, text: str) -> None:
        path = self.root / "backscroll" / name
        path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + "\n" + text, encoding="utf-8")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run Python with the copy in place of what is installed."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=self.root)


def add_operation(copy: Copy) -> list[str]:
    """The steps of "Add an operation" in CONTRIBUTING.md; the files that were changed."""
    copy.append("schema/operations/messages.py", OPERATION_CLASS)
    copy.edit("handlers/messages.py", "    GetMessages,\n", "    GetMessages,\n    JuggleMessage,\n")
    copy.append("handlers/messages.py", OPERATION_HANDLER)
    (copy.root / "test_juggle_message.py").write_text(OPERATION_TEST, encoding="utf-8")
    return ["schema/operations/messages.py", "handlers/messages.py", "test_juggle_message.py"]


def add_field(copy: Copy) -> list[str]:
    """The steps of "Add a field" in CONTRIBUTING.md; the files that were changed."""
    edited = "    edited_at: Millis | None = None\n"
    copy.edit("schema/records.py", edited, edited + "    juggled_at: Millis | None = None\n")
    updated = "    edited_at: Clearable[Millis] = UNSET\n"
    copy.edit("schema/records.py", updated, updated + "    juggled_at: Clearable[Millis] = UNSET\n")
    column = "    edited_at = Time(null=True)\n"
    copy.edit("schema/tables.py", column, column + "    juggled_at = Time(null=True)\n")
    migrations = copy.root / "backscroll" / "schema" / "migrations" / "sqlite"
    number = len(list(migrations.glob("*.sql"))) + 1
    migration = migrations / f"{number:04}_juggled_at.sql"
    migration.write_text("-- When a message was juggled.\nALTER TABLE messages ADD COLUMN juggled_at INTEGER;\n")
    return ["schema/records.py", "schema/tables.py", f"schema/migrations/sqlite/{migration.name}"]


@pytest.fixture
def grown(tmp_path: Path) -> Copy:
    """A copy with one more operation and one more field."""
    copy = Copy(tmp_path / "copy")
    add_operation(copy)
    add_field(copy)
    return copy


def test_adding_an_operation_touches_three_files(tmp_path: Path) -> None:
    """Its class, its handler and its test; the registry, the exports and the description follow from them."""
    copy = Copy(tmp_path / "copy")
    assert len(add_operation(copy)) == 3
    done = copy.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_juggle_message.py")
    assert done.returncode == 0, done.stdout + done.stderr
    described = copy.run("-c", "from backscroll.schema.description import describe; print(*describe()['operations'])")
    assert "juggle-message" in described.stdout.split()


def test_adding_a_field_touches_record_table_and_migration(tmp_path: Path) -> None:
    """The field can then be saved, read, updated and cleared without any other change."""
    copy = Copy(tmp_path / "copy")
    assert len(add_field(copy)) == 3
    done = copy.run("-c", FIELD_USE)
    assert done.returncode == 0, done.stderr


def test_additions_are_listed_and_compatible_with_the_level(grown: Copy) -> None:
    """The grown copy still keeps what the stored level of this project promises."""
    code = (
        "import json, sys; from backscroll.schema.compatibility import compare; "
        "from backscroll.schema.description import describe; "
        "print(json.dumps(compare(json.load(open(sys.argv[1])), describe())))"
    )
    done = grown.run("-c", code, str(ROOT / "schema" / "levels" / "1.json"))
    breaking, additions = json.loads(done.stdout)
    assert breaking == []
    assert any("juggle-message" in each for each in additions)
    assert any("juggledAt" in each for each in additions)


@pytest.fixture
def future_daemon(grown: Copy, tmp_path: Path) -> Iterator[str]:
    """The endpoint of a daemon that also has a new value of a field and a new error code."""
    grown.edit("schema/command_log.py", 'Noun = Literal["message", ', 'Noun = Literal["message", "stage", ')
    grown.edit("handlers/rooms.py", 'changes.saved(context, "room", ', 'changes.saved(context, "stage", ')
    grown.append(
        "schema/errors.py", '\n\nclass Frozen(CallerError):\n    """The message is frozen."""\n\n    code = "frozen"\n'
    )
    grown.append("schema/errors.py", '\n\nERRORS["frozen"] = Frozen\n')
    grown.edit("handlers/messages.py", "import Conflict, NotFound", "import Conflict, Frozen, NotFound")
    deletion = "    stored = _stored(command.message_id, db)\n    if not stored.is_deleted:\n"
    grown.edit("handlers/messages.py", deletion, '    raise Frozen.at("$.payload.messageId", "no")\n' + deletion)
    environment = {**os.environ, "PYTHONPATH": str(grown.root)}
    command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(tmp_path / "data"), "--exit-with-parent"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=grown.root
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["endpoints"][0]
        process.terminate()


def test_a_client_works_with_a_newer_daemon(future_daemon: str) -> None:
    """It ignores an unknown field, keeps an unknown value as text, and maps an unknown error code to a base class."""
    with Client(future_daemon) as client, Peer(future_daemon) as peer:
        assert peer.ask("save-message", save_payload(1, "x", juggledAt=7))["ok"]
        assert peer.ask("get-messages", {"roomId": "r1"})["result"][0]["juggledAt"] == 7
        [message] = client.ask(GetMessages("r1"))
        assert (message.id, message.content) == ("m1", "x")
        saved = peer.ask("save-room", {"room": {"id": "r1", "name": "r"}})
        [entry] = client.ask(GetLog(from_seq=saved["seq"])).entries
        assert [change.noun for change in entry.changes] == ["stage"]
        with pytest.raises(CallerError) as caught:
            client.execute(DeleteMessage("m1"))
        assert (caught.value.code, type(caught.value)) == ("frozen", CallerError)
        client.execute(save_message(2, ""))
