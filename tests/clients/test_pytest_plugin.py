"""The pytest plugin, in inner test runs: the fixtures that authors of chat applications get with the wheel."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.messages import save_payload

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parents[1] / "example"
SAVED = save_payload(room_id="r")
LOG = "# a hand-written log\n" + json.dumps({"type": "save-message", "payload": SAVED}) + "\n"
USERS = '{"type": "create-user", "payload": {"pubkey": "key"}}\n'
READS = "\n".join(["from backscroll.schema import *", "import pytest", "import os", ""])

Inner = pytest.Pytester


@pytest.fixture
def inner(pytester: Inner) -> Inner:
    """A project with two log files, in whose runs warnings are errors."""
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config")
    for name, text in (("log.jsonl", LOG), ("users.jsonl", USERS)):
        (pytester.path / name).write_text(text, encoding="utf-8")
    return pytester


def run(inner: Inner, test: str, *words: str, **outcomes: int) -> pytest.RunResult:
    """Run one module, and check its outcomes."""
    inner.makepyfile(test_inner=READS + test)
    result = inner.runpytest(*words)
    result.assert_outcomes(**outcomes)
    return result


def test_the_readme_example_passes(pytester: Inner) -> None:
    """The example in `tests/example` runs in a directory of its own, in process and with a real daemon."""
    shutil.copytree(EXAMPLE, pytester.path / "example")
    pytester.runpytest("example").assert_outcomes(passed=1)
    pytester.runpytest("example", "--backscroll-real").assert_outcomes(passed=1)


def test_each_test_has_an_empty_store_in_process(inner: Inner) -> None:
    """The store is empty for each test, and uses no socket and no other process."""
    run(
        inner,
        """
@pytest.mark.parametrize("turn", [1, 2])
def test_one(backscroll_client, turn):
    assert backscroll_client.ask(GetMessages("r")) == []
    assert backscroll_client.ask(Health()).pid == os.getpid()
    backscroll_client.execute(SaveMessage(Message(id="m", room_id="r", sender_id="a", content="", timestamp=1)))
""",
        passed=2,
    )


def test_the_client_can_use_a_real_daemon(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--backscroll-real`, or in a test that also uses the daemon; environment variables do not change its
    settings.
    """
    test = """
def test_client(backscroll_client):
    assert backscroll_client.ask(Health()).pid != os.getpid()
"""
    monkeypatch.setenv("BACKSCROLL_COMMAND_LOG", "ids-only")
    run(inner, test, "--backscroll-real", passed=1)
    run(
        inner,
        """
def test_both(backscroll_daemon, backscroll_client):
    assert backscroll_client.ask(Health()).pid == backscroll_daemon.ready["pid"] != os.getpid()
    backscroll_client.execute(Initialize())
    assert backscroll_client.ask(GetLog()).entries[0].payload == {}
""",
        passed=1,
    )


def test_marked_logs_are_replayed_before_the_test(inner: Inner) -> None:
    """The module's files are replayed before the test's, whether or not the test has the client as an argument."""
    run(
        inner,
        """
from backscroll.clients.python import Client

pytestmark = pytest.mark.backscroll_log("users.jsonl")

@pytest.mark.backscroll_log("log.jsonl")
def test_client(backscroll_client):
    assert [entry.type for entry in backscroll_client.ask(GetLog()).entries] == ["create-user", "save-message"]

def test_daemon(backscroll_daemon):
    with Client(backscroll_daemon.endpoint) as client:
        assert [user.pubkey for user in client.ask(ListUsers())] == ["key"]
""",
        passed=2,
    )


def test_logs_are_replayed_in_order(inner: Inner) -> None:
    """Paths are relative to the test's file, and lines without a number continue after what is there."""
    run(
        inner,
        """
def test_parts(backscroll_client, replay_log):
    assert replay_log("users.jsonl") == 1
    backscroll_client.execute(Initialize())
    assert replay_log("log.jsonl") == 1
    entries = backscroll_client.ask(GetLog()).entries
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert entries[0].id == "line-1"
    assert [message.content for message in backscroll_client.ask(GetMessages("r"))] == ["hello"]
""",
        passed=1,
    )


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("bad.jsonl", '{"type": "initialize"}\n{"type": "nonsense"}\n', "*bad.jsonl: line 2: $.type: there is no op*"),
        ("gone.jsonl", '{"type": "delete-message", "payload": {"messageId": "m"}}\n', "*gone.jsonl: line 1: *"),
        ("two.jsonl", '{"type": "initialize"}\n{"type": "initialize", "scope": "b"}\n', "*line 2: of the scope 'b'*"),
        ("none.jsonl", None, "*none.jsonl: *No such file*"),
    ],
)
def test_an_invalid_log_fails_the_test_and_names_the_line(
    inner: Inner, name: str, text: str | None, complaint: str
) -> None:
    """In a single message, without a traceback through backscroll."""
    if text is not None:
        (inner.path / name).write_text(text, encoding="utf-8")
    result = run(inner, f"def test_it(replay_log):\n    replay_log({name!r})\n", failed=1)
    result.stdout.fnmatch_lines([complaint])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


SNAPSHOT = """
@pytest.mark.backscroll_log("log.jsonl")
def test_state(backscroll_client, backscroll_snapshot):
    backscroll_client.execute(UpdateMessage("m1", MessageUpdates(content=os.environ["CONTENT"])))
    backscroll_snapshot()
"""


def test_a_snapshot_is_compared_row_by_row(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--backscroll-update` writes it, without it a missing snapshot fails, and differing rows are shown."""
    monkeypatch.setenv("CONTENT", "Grüße")
    missing = run(inner, SNAPSHOT, failed=1)
    missing.stdout.fnmatch_lines(["*there is no snapshot *test_state.json*", "*pytest --backscroll-update*"])
    written = inner.path / "__snapshots__" / "test_inner" / "test_state.json"
    assert not written.exists()
    run(inner, SNAPSHOT, "--backscroll-update", passed=1)
    assert '"content": "Grüße"' in written.read_text(encoding="utf-8")
    run(inner, SNAPSHOT, passed=1)
    run(inner, SNAPSHOT, "--backscroll-real", passed=1)
    monkeypatch.setenv("CONTENT", "howdy")
    different = run(inner, SNAPSHOT, failed=1)
    different.stdout.fnmatch_lines(
        [
            "the scope differs from the snapshot *test_state.json",
            "--- snapshot",
            "+++ now",
            '-*"content": "Grüße",',
            '+*"content": "howdy",',
            "to accept the difference: pytest --backscroll-update",
        ]
    )
    different.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_snapshot_names_are_unique(inner: Inner) -> None:
    """They are named by class, test, parameters and the given name; a second one without a name is refused."""
    test = """
class TestRoom:
    @pytest.mark.parametrize("text", ["a/b", "a:b", "plain"])
    def test_it(self, backscroll_snapshot, text):
        backscroll_snapshot()
        backscroll_snapshot("after")
"""
    run(inner, test, "--backscroll-update", passed=3)
    names = sorted(path.name for path in (inner.path / "__snapshots__" / "test_inner").iterdir())
    assert len(names) == 6
    assert {"TestRoom.test_it[plain].json", "TestRoom.test_it[plain].after.json"} <= {*names}
    assert all(set(name).isdisjoint('/\\:*?"<>|') for name in names)
    twice = "def test_it(backscroll_snapshot):\n    backscroll_snapshot()\n    backscroll_snapshot()\n"
    run(inner, twice, "--backscroll-update", failed=1).stdout.fnmatch_lines(["*second snapshot needs a name*"])


def test_the_plugin_can_be_disabled(inner: Inner) -> None:
    """It can be switched off like any other plugin."""
    run(inner, "def test_it():\n    pass\n", "-p", "no:backscroll", passed=1)
