"""`--record`: commands are in the file before their replies are sent, and can be replayed."""

from pathlib import Path

import pytest

from backscroll.bus.failures import BadSettings
from backscroll.bus.inprocess import InProcess
from backscroll.bus.recorder import Recorder
from backscroll.bus.stores import Commit, CommittedCommand
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import AppendLog, GetMessages, Initialize
from backscroll.schema.log_file import LogReader
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.support.messages import save_payload
from tests.support.peers import Peer


def recorded(path: Path) -> list[tuple[str, int, str]]:
    """The scope, number and type of each line."""
    with path.open("rb") as lines:
        return [(line.scope, line.entry.seq, line.entry.type) for line in LogReader().read(lines)]


def test_commands_are_recorded_before_their_replies(tmp_path: Path) -> None:
    """Commands of all scopes are recorded in commit order; refused commands and queries are not."""
    path = tmp_path / "session.jsonl"
    with DaemonProcess(tmp_path / "data", "--record", str(path)) as daemon, Peer(daemon.endpoint) as peer:
        peer.ask("save-message", save_payload(1))
        peer.ask("delete-message", {"messageId": "nobody's"}, request_id="refused")
        peer.ask("set-current-user-id", {"userId": "ada"}, request_id="other", scope="ada")
        peer.ask("get-messages", {"roomId": "r1"}, request_id="query")
        peer.ask("delete-message", {"messageId": "m1"}, request_id="last")
        daemon.kill()
    assert recorded(path) == [
        (DEFAULT_SCOPE, 1, "save-message"),
        ("ada", 1, "set-current-user-id"),
        (DEFAULT_SCOPE, 2, "delete-message"),
    ]


def test_a_recording_replays_to_the_same_messages(tmp_path: Path) -> None:
    """A recording can serve as a bug report."""
    path = tmp_path / "session.jsonl"
    with DaemonProcess(tmp_path / "data", "--record", str(path)) as daemon, Client(daemon.endpoint) as client:
        with Peer(daemon.endpoint) as peer:
            for number in range(20):
                peer.ask("save-message", save_payload(number), request_id=f"s{number}")
        messages = client.ask(GetMessages("r1"))
    with path.open("rb") as lines, InProcess(tmp_path / "again") as transport:
        again = Client(transport=transport)
        again.execute(AppendLog([line.entry for line in LogReader().read(lines)]))
        assert again.ask(GetMessages("r1")) == messages


def test_a_recording_never_overwrites_a_file(tmp_path: Path) -> None:
    """A later run records to a file of its own, beginning with the current state of the scope."""
    for number in (1, 2):
        path = tmp_path / f"{number}.jsonl"
        with (
            DaemonProcess(tmp_path / "data", "--record", str(path)) as daemon,
            Peer(daemon.endpoint) as peer,
        ):
            peer.ask("save-message", save_payload(number), request_id=f"s{number}")
        assert recorded(path) == [(DEFAULT_SCOPE, number, "save-message")]
    with pytest.raises(BadSettings, match="cannot record"):
        Recorder(path)


def test_a_recording_that_cannot_begin_stops_the_start(tmp_path: Path) -> None:
    """The daemon does not start and gives the reason; closing the file after that is no error."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(tmp_path / "session.jsonl")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(BadSettings, match="cannot record into"):
            recorder.begin(0, bytes(32))
        recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failing_recording_does_not_affect_commands(tmp_path: Path) -> None:
    """A full disk, or any other error, ends the recording and fails no command."""
    recorder = Recorder(tmp_path / "session.jsonl")
    with InProcess(tmp_path / "data") as transport:
        recorder.begin(transport.store.seq, transport.store.position.chain)
        recorder.close()
        client = Client(transport=transport)
        client.execute(Initialize())
        command = CommittedCommand(transport.store.seq, 0, "one", "initialize", [])
        commit = Commit(DEFAULT_SCOPE, transport.store.seq, transport.store.position.chain, [command])
        recorder.committed(commit, transport.store)
        recorder.committed(commit, transport.store)
    assert recorded(tmp_path / "session.jsonl") == []
