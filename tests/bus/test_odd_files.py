"""What was once lost without a word: a database that was truncated, and a log that was unlinked."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.messages import save_payload
from tests.support.peers import Peer, log_lines
from tests.support.waiting import wait_until

Start = Callable[..., DaemonProcess]


def test_a_database_truncated_to_nothing_is_refused(start_daemon: Start, tmp_path: Path) -> None:
    """While the daemon was stopped: exit code 4 with what to do, instead of an empty store; nothing is overwritten, so
    the daemon starts with its data once the file is restored.
    """
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("save-message", save_payload(1))["ok"]
    daemon.stop()
    path = tmp_path / "data" / "default.db"
    content = path.read_bytes()
    path.write_bytes(b"")
    words = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(path.parent)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "default.db is empty" in done.stderr
    assert "Restore it from a backup" in done.stderr
    path.write_bytes(content)
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        assert len(peer.ask("get-messages", {"roomId": "r1"})["result"]) == 1


def test_a_wal_unlinked_under_a_running_daemon_loses_nothing(start_daemon: Start, tmp_path: Path) -> None:
    """It is noticed at the next commit and said in the log; all that was acknowledged survives a kill right after."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("save-message", save_payload(1))["ok"]
        (tmp_path / "data" / "default.db-wal").unlink()
        assert peer.ask("save-message", save_payload(2))["ok"]
    wait_until(lambda: log_lines(tmp_path / "daemon.log", "a lost write-ahead log was saved into the database"))
    daemon.kill()
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        assert [each["id"] for each in peer.ask("get-messages", {"roomId": "r1"})["result"]] == ["m1", "m2"]
