"""The command line: words in, JSON out, exit codes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from backscroll.bus.settings import Settings
from backscroll.clients.command_line.main import main
from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.messages import save_payload

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def call(start_daemon: StartDaemon, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`backscroll call …` against a running daemon: exit code, standard output, standard error."""
    daemon = start_daemon()

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["call", *words, "--endpoint", daemon.endpoint])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


Run = Callable[..., tuple[int, str, str]]


def test_call_prints_the_result_as_json(call: Run) -> None:
    """Standard output is the result and nothing else."""
    code, out, err = call("ping")
    assert (code, json.loads(out), err) == (0, {"pong": True}, "")
    code, out, err = call("save-message", json.dumps(save_payload(1)))
    assert (code, out, err) == (0, "null\n", "")
    code, out, err = call("get-message-by-id", '{"messageId": "m1"}')
    assert (code, json.loads(out)["content"], err) == (0, "hello", "")


def test_call_takes_its_payload_from_a_file_or_standard_input(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """`@FILE` and `-` stand for the JSON that lies there, in any script."""
    endpoint = ("--endpoint", start_daemon().endpoint)
    text = json.dumps(save_payload(1, "aus der Datei: ∀ 🍵"), ensure_ascii=False)
    (tmp_path / "payload.json").write_text(text, encoding="utf-8")
    assert backscroll("call", "save-message", f"@{tmp_path / 'payload.json'}", *endpoint).returncode == 0
    end = backscroll("call", "get-message-by-id", "-", *endpoint, input='{"messageId": "m1"}')
    assert (end.returncode, json.loads(end.stdout)["content"]) == (0, "aus der Datei: ∀ 🍵")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["no-such-operation"], "unknown-operation"),
        (["get-messages"], "invalid"),
        (["get-messages", "[]"], "invalid"),
        (["delete-message", '{"messageId": "none"}'], "not-found"),
        (["list-scopes", "--scope", "other"], "forbidden"),
    ],
)
def test_an_error_reply_is_json_on_standard_error_with_exit_1(call: Run, words: list[str], code: str) -> None:
    """Standard output stays empty; standard error is the reply's error, for scripts to read."""
    exit_code, out, err = call(*words)
    assert (exit_code, out) == (1, "")
    error = json.loads(err)
    assert error["code"] == code
    assert error["message"]


def test_call_finds_the_daemon_through_its_data_directory(
    start_daemon: StartDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `--data-dir`, or by `BACKSCROLL_DATA_DIR`, through the `endpoint.json` in it."""
    start_daemon()
    assert main(["call", "ping", "--data-dir", str(tmp_path / "data")]) == 0
    monkeypatch.setenv("BACKSCROLL_DATA_DIR", str(tmp_path / "data"))
    assert main(["call", "ping"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"pong": True}] * 2


def test_without_a_daemon_call_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, and a message that names the directory and the command."""
    assert main(["call", "ping", "--data-dir", str(tmp_path)]) == 1
    error = json.loads(capsys.readouterr().err)
    assert error["code"] == "unavailable"
    assert f"backscroll serve --data-dir {tmp_path}" in error["message"]


def test_a_daemon_that_does_not_answer_is_waited_for_as_long_as_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No reply within `--timeout-ms` is exit 1, and the message says that the outcome is unknown."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.ROUTER) as silent:
        silent.bind(f"ipc://{tmp_path}/silent.sock")
        assert main(["call", "ping", "--endpoint", f"ipc://{tmp_path}/silent.sock", "--timeout-ms", "200"]) == 1
        assert silent.poll(0)
    context.term()
    error = json.loads(capsys.readouterr().err)
    assert error["code"] == "no-reply"
    assert "unknown" in error["message"]


def test_an_address_where_nobody_listens_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 within the time-out, and an error on standard error."""
    assert main(["call", "ping", "--endpoint", f"ipc://{tmp_path}/nobody.sock", "--timeout-ms", "50"]) == 1
    assert json.loads(capsys.readouterr().err)["code"] in ("no-reply", "unavailable")


@pytest.mark.parametrize("payload", ["{", "", "hello", "{'single': 1}", "@/no/such/file"])
def test_a_payload_that_is_no_json_exits_with_2(payload: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found before anything is sent."""
    assert main(["call", "ping", payload]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "JSON" in said.err or "no/such/file" in said.err


@pytest.mark.parametrize("words", [[], ["no-such-command"], ["call"], ["call", "ping", "--no-such-flag"]])
def test_wrong_words_exit_with_2_and_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is shown on standard error."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: backscroll" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints a version and nothing else; `--help` names the commands."""
    for flag in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            main([flag])
        assert caught.value.code == 0
    out = capsys.readouterr().out
    assert re.match(r"\d+\.\d+\.\d+\n", out)
    assert all(command in out for command in ("serve", "call", "demo"))


def backscroll(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The installed command, as a person runs it."""
    command = [str(Path(sys.executable).parent / "backscroll"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_serve_help_shows_every_setting() -> None:
    """Each flag with its description and default, in a text for people."""
    end = backscroll("serve", "--help")
    assert (end.returncode, end.stderr) == (0, "")
    words = " ".join(end.stdout.split())
    assert words.startswith("usage: backscroll serve")
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in words
        assert " ".join((field.description or "").split()) in words


def test_serve_is_the_daemon(tmp_path: Path) -> None:
    """`backscroll serve` takes the daemon's flags and ends with its exit codes."""
    end = backscroll("serve", "--data-dir", str(tmp_path / "data"), "--exit-with-parent", input="")
    assert end.returncode == 0
    assert json.loads(end.stdout)["event"] == "ready"
    end = backscroll("serve", "--readers", "none")
    assert end.returncode == 2
    assert "readers" in end.stderr
    (tmp_path / "data" / "default.db").write_bytes(b"garbage" * 1_000)
    assert backscroll("serve", "--data-dir", str(tmp_path / "data")).returncode == 4


def test_the_demo_shows_the_conversation_and_what_is_stored() -> None:
    """What a newcomer runs first works, leaves nothing behind and shows what it is about."""
    end = backscroll("demo")
    assert (end.returncode, end.stderr) == (0, "")
    for piece in (
        "A daemon is ready at",
        "Good morning!",
        "Then we leave at eleven. (edited)",
        "🍵",
        "[Message deleted]",
    ):
        assert piece in end.stdout
    for table in ("rooms", "channels", "members", "messages", "reactions"):
        assert f"\n  {table} (" in end.stdout
    assert "wrong channel, sorry" not in end.stdout
