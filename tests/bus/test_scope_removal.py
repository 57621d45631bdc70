"""`delete-scope`, interrupted anywhere, is done or not done."""

import base64
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.requests import body, send

PARTS = 30
SCOPES = ("default", "ada")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose scopes have messages and media of many parts."""
    directory = tmp_path_factory.mktemp("template") / "data"
    with InProcess(directory) as transport:
        for scope in SCOPES:
            for number in range(20):
                assert send(transport, body("save-message", save_payload(number), scope=scope))["ok"]
            parts = [put(transport, scope, f"part {number}") for number in range(PARTS)]
            assert send(transport, body("put-media", {"parts": parts, "mime": "text/plain"}, scope=scope))["ok"]
    return directory


def put(transport: InProcess, scope: str, text: str) -> str:
    data = base64.b64encode(text.encode()).decode()
    return str(send(transport, body("put-media-part", {"data": data}, scope=scope))["result"])


def check_done_or_not(directory: Path, scope: str, *, acknowledged: bool) -> bool:
    """Either everything is there, or nothing is; whether it was deleted. Other scopes are complete."""
    with InProcess(directory) as transport:
        gone = not is_complete(transport, scope)
        if gone:
            assert scope == "default" or scope not in transport.scopes.names()
            info = send(transport, body("get-scope-info", {}, scope=scope))["result"]
            assert set(info["rows"].values()) == {0}
            assert not list(directory.rglob("*-deleting"))
            media = [path for path in directory.rglob("*.media") if (path.parent == directory) == (scope == "default")]
            assert media == []
        [other] = set(SCOPES) - {scope}
        assert is_complete(transport, other)
    assert gone or not acknowledged
    return gone


def is_complete(transport: InProcess, scope: str) -> bool:
    messages = send(transport, body("get-messages", {"roomId": "r1"}, scope=scope))["result"]
    log = send(transport, body("get-log", {"limit": 500}, scope=scope))["result"]["entries"]
    if not messages:
        assert log == []
        return False
    assert len(messages) == 20
    [media] = [entry for entry in log if entry["type"] == "put-media"]
    media_id = media["generated"]["ids"][0]
    for part in range(PARTS):
        assert send(transport, body("get-media-part", {"mediaId": media_id, "part": part}, scope=scope))["ok"], part
    return True


@pytest.mark.parametrize("scope", SCOPES)
def test_a_killed_removal_is_done_or_not_done(template: Path, tmp_path: Path, scope: str, long: bool) -> None:
    """The daemon is killed at random moments after the request was sent."""
    draw, ends = random.Random(8), []
    for number in range(40 if long else 3):
        directory = tmp_path / f"{number}"
        shutil.copytree(template, directory)
        with DaemonProcess(directory, "--endpoint", f"ipc://{tmp_path}/s") as daemon, Peer(daemon.endpoint) as peer:
            assert peer.ask("get-messages", {"roomId": "r1"}, scope=scope)["ok"]
            peer.request("delete-scope", {}, scope=scope)
            time.sleep(draw.uniform(0.001, 0.02))  # kill at a random moment, not to synchronise
            daemon.kill()
            acknowledged = not peer.silent()
        ends.append(check_done_or_not(directory, scope, acknowledged=acknowledged))
        shutil.rmtree(directory)


class Killed(BaseException):
    """The process is killed at this moment."""


def counted(call: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    """A function that does the same as long as there are numbers left."""

    def do(*arguments: Any, **how: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return call(*arguments, **how)

    return do


@pytest.mark.parametrize("scope", SCOPES)
def test_a_removal_is_done_or_not_done_after_any_step(
    template: Path, tmp_path: Path, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every n, it ends after the removal of n files and directories."""
    ends = []
    for steps in (0, 1, 2, 3, 5, 8, PARTS, 3 * PARTS):
        directory = tmp_path / f"{steps}"
        shutil.copytree(template, directory)
        with InProcess(directory) as transport, monkeypatch.context() as patch:
            left = iter(range(steps))
            patch.setattr(Path, "unlink", counted(Path.unlink, left))
            patch.setattr(shutil, "rmtree", counted(shutil.rmtree, left))
            try:
                acknowledged = send(transport, body("delete-scope", {}, scope=scope))["ok"]
            except Killed:
                acknowledged = False
        ends.append(check_done_or_not(directory, scope, acknowledged=acknowledged))
    assert set(ends) == {True, False} or ends[0]
    assert ends[-1]


def test_a_removal_that_fails_is_finished_before_the_next_use(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk halfway is `storage`; the scope is then not listed, and its next use finds it empty."""
    directory = tmp_path / "data"
    shutil.copytree(template, directory)
    with InProcess(directory) as transport:
        with monkeypatch.context() as patch:

            def fail(*_: object, **__: object) -> None:
                raise OSError(5, "a failing disk")

            patch.setattr(shutil, "rmtree", fail)
            assert send(transport, body("delete-scope", {}, scope="ada"))["error"]["code"] == "storage"
        assert "ada" not in transport.scopes.names()
        assert send(transport, body("get-messages", {"roomId": "r1"}, scope="ada"))["result"] == []
        assert send(transport, body("save-message", save_payload(1), scope="ada"))["seq"] == 1
