"""`backscroll watch`: lines of JSON that go on across restarts, and end without a word."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest

from backscroll.clients.command_line import watch
from backscroll.clients.command_line.main import NOUNS, main
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import DeleteScope, SaveRoom
from backscroll.schema.command_log import Noun
from backscroll.schema.records import Room
from tests.support.messages import message_document, save_message

StartDaemon = Callable[..., DaemonProcess]
COMMAND = [sys.executable, "-m", "backscroll.clients.command_line"]
SECONDS = 20


@contextmanager
def watching(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """A running `backscroll watch`, which is killed in the end if it runs on."""
    process = subprocess.Popen(
        [*COMMAND, "watch", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def test_watch_prints_changes_across_restarts_and_gaps(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """One JSON line a change as on the wire, of the rooms and kinds that were named; the last of a page has a cursor.

    It goes on when the daemon was killed, after it said so once, says when the scope has another history, and ends
    quietly when interrupted.
    """
    tcp = ("--endpoint", "tcp://127.0.0.1:*")
    daemon = start_daemon(*tcp)
    where = ("--data-dir", str(tmp_path / "data"), "--scope", "s")
    with Client(data_dir=tmp_path / "data", scope="s") as client:
        client.execute(SaveRoom(Room(id="r1", name="Home")))
        client.execute(save_message(1))
        client.execute(save_message(2, room_id="r2"))
        with watching(*where, "--after", "start", "--room", "r1", "--noun", "message") as process:
            line = next_line(process)
            assert (line["noun"], line["id"], line["roomId"], line["seq"]) == ("message", "m1", "r1", 2)
            assert line["value"] == message_document(1, isDeleted=False, reactions=[], attachments=[])
            assert set(line) == {"seq", "at", "requestId", "noun", "id", "roomId", "value", "cursor"}
            daemon.kill()
            assert process.stderr is not None
            assert process.stderr.readline() == "backscroll: the daemon is gone; waiting for it\n"
            start_daemon(*tcp)
            client.execute(save_message(3), timeout_ms=SECONDS * 1_000)
            line = next_line(process)
            assert line["id"] == "m3"
            client.execute(DeleteScope())
            client.execute(save_message(4))
            gap = next_line(process)
            assert gap == {"gap": True, "cursor": gap["cursor"]}
            client.execute(save_message(5))
            after_gap = next_line(process)["id"]  # m4 was saved before or after the question that found the gap
            assert after_gap in ("m4", "m5")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=SECONDS)
            assert (process.returncode, err) == (130, "")
        with watching(*where, "--after", gap["cursor"], "--no-values") as process:
            line = next_line(process)
            assert (line["id"], "value" in line) == (after_gap, False)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no head")
def test_watch_ends_when_nobody_reads_it(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """`| head -1` ends at once, although nothing changes any more."""
    start_daemon()
    with Client(data_dir=tmp_path / "data") as client:
        client.execute(save_message(1))
    words = " ".join([*COMMAND, "watch", "--after", "start", "--data-dir", str(tmp_path / "data"), "| head -1"])
    done = subprocess.run(["sh", "-c", words], capture_output=True, encoding="utf-8", timeout=SECONDS, check=False)
    assert (json.loads(done.stdout)["id"], done.stderr) == ("m1", "")


def test_watch_needs_a_daemon_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where none runs it says how to start one."""
    assert main(["watch", "--data-dir", str(tmp_path)]) == 1
    assert "start one with `backscroll serve" in capsys.readouterr().err


def test_text_that_is_no_cursor_is_explained(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names what `--after` takes, with the words that only this command knows."""
    monkeypatch.setattr(watch, "Client", lambda *_args, **_options: nullcontext(client))
    assert main(["watch", "--after", "yesterday"]) == 1
    assert capsys.readouterr().err == (
        "backscroll: --after takes a `cursor` that this command printed, `start` or `now`\n"
    )
    assert main(["watch", "--noun", "hat"]) == 1
    assert "nouns" in capsys.readouterr().err


def test_the_help_names_every_noun() -> None:
    """They are written out, so that the help needs no schema."""
    assert re.split(", | or ", NOUNS) == list(get_args(Noun))
