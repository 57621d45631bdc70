"""The daemon as a process: start, stop, exit codes, and peers that misbehave."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
import zmq

from backscroll.bus.__main__ import main
from backscroll.bus.daemon import Daemon
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.store import SqliteStore
from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import GetMessageById, GetMessages, GetRoom, Health, Ping, SaveMessage
from backscroll.schema.limits import BODY_BYTES_MAX, FRAME_BYTES_MAX, ROUTING_FRAMES_MAX
from tests.support.handlers import replacing
from tests.support.messages import save_message, save_payload
from tests.support.peers import Peer, is_alive, resident_bytes, running
from tests.support.requests import body
from tests.support.sql import sql
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
MIB = 2**20
PROMPT_SECONDS = 2  # for a ping of another client while one misbehaves; many times the usual


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to exit by itself."""
    command = [sys.executable, "-m", "backscroll.bus", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def code_of(flags: list[str]) -> int | str | None:
    """The exit code of a daemon with flags that are refused before it starts."""
    try:
        return main(flags)
    except SystemExit as end:
        return end.code


def is_prompt(client: Client) -> bool:
    started = time.monotonic()
    client.ask(Ping())
    return time.monotonic() - started < PROMPT_SECONDS


# Start


def test_endpoint_json_has_the_ready_line_until_the_stop(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Only the owner can read `endpoint.json`, and it is removed when the daemon stops."""
    daemon = start_daemon()
    file = tmp_path / "data" / "endpoint.json"
    assert json.loads(file.read_text()) == daemon.ready
    assert daemon.ready["event"] == "ready"
    assert daemon.ready["pid"] == daemon.process.pid
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert daemon.stop() == 0
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert left == {"default.db", "default.db-wal-lineage", "default.db-last-commit", "lock", "reserve"}


def test_files_in_the_data_directory_are_private(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """No file, socket or directory of the daemon is accessible to other users."""
    start_daemon()
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "data", *(tmp_path / "data").iterdir()]
    }
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_one_daemon_serves_several_endpoints(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """What is saved through one endpoint is read through another."""
    daemon = start_daemon("--endpoint", f"ipc://{tmp_path}/own.sock", "--endpoint", "tcp://127.0.0.1:*")
    by_ipc, by_tcp = daemon.endpoints
    assert by_ipc == f"ipc://{tmp_path}/own.sock"
    assert by_tcp.startswith("tcp://127.0.0.1:")
    with Client(by_ipc) as one, Client(by_tcp, data_dir=tmp_path / "data") as other:
        one.execute(save_message(1))
        assert other.ask(GetMessageById("m1")) is not None


def test_a_data_directory_with_a_long_path_is_served_over_ipc(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A path too long for a socket address is served through a short one, which is removed at the end."""
    directory = tmp_path / ("ü" * 60) / ("long" * 30)
    daemon = start_daemon(data_dir=directory)
    assert daemon.endpoint.startswith("ipc://")
    with Client(data_dir=directory) as client:
        client.execute(save_message(1))
    daemon.stop()
    assert not Path(daemon.endpoint.removeprefix("ipc://")).parent.exists()


def test_ipv6_loopback_is_served_where_there_is_one(start_daemon: StartDaemon) -> None:
    """`tcp://[::1]` is a local address like the others."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    daemon = start_daemon("--endpoint", "tcp://[::1]:*")
    with Client(data_dir=daemon.data_dir) as client:
        assert client.ask(Ping()).pong


# Stop


def sighup_is(handler: signal.Handlers) -> Iterator[None]:
    """What a program that is started meanwhile inherits."""
    before = signal.signal(signal.SIGHUP, handler)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def _sighup_not_ignored() -> Iterator[None]:
    """Also where these tests were started with `nohup`."""
    yield from sighup_is(signal.SIG_DFL)


@pytest.mark.usefixtures("_sighup_not_ignored")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_sigterm_drains_received_requests_and_exits_with_0(start_daemon: StartDaemon, number: signal.Signals) -> None:
    """Every request that was received before the signal is executed and gets its reply."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for at in range(500):
            peer.request("save-message", save_payload(at), request_id=f"save-{at}")
        first = peer.reply()  # it is executing them now
        daemon.process.send_signal(number)
        outcomes = [first]
        while not peer.silent(0) or daemon.process.poll() is None:
            if not peer.silent(10):
                outcomes.append(peer.reply())
    assert daemon.wait() == 0
    assert {reply["error"]["code"] for reply in outcomes if not reply["ok"]} <= {"unavailable"}
    saved = {reply["id"].replace("save-", "m") for reply in outcomes if reply["ok"]}
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        stored = {each.id for each in client.ask(GetMessages("r1", limit=500))}
    assert stored == saved


@pytest.fixture
def _sighup_ignored() -> Iterator[None]:
    """As `nohup` has it."""
    yield from sighup_is(signal.SIG_IGN)


@pytest.mark.usefixtures("_sighup_ignored")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGHUP])
def test_an_ignored_signal_changes_nothing_under_load(start_daemon: StartDaemon, number: signal.Signals) -> None:
    """Each request is answered although the signal arrives again and again: SIGHUP where `nohup` started the daemon."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for at in range(500):
            peer.request("save-message", save_payload(at), request_id=f"save-{at}")
            daemon.process.send_signal(number)
        replies = [peer.reply() for _ in range(500)]
    assert all(reply["ok"] for reply in replies)
    assert daemon.stop() == 0


def test_sigquit_ends_at_once_and_loses_nothing_acknowledged(start_daemon: StartDaemon) -> None:
    """It is the one to end a daemon that hangs, like a kill; the system may write a core file, which takes a while."""
    daemon = start_daemon()
    resource.prlimit(daemon.process.pid, resource.RLIMIT_CORE, (0, 0))
    with Peer(daemon.endpoint) as peer:
        for at in range(500):
            peer.request("save-message", save_payload(at), request_id=f"save-{at}")
        saved = {peer.reply()["id"].replace("save-", "m") for _ in range(100)}
        daemon.process.send_signal(signal.SIGQUIT)
        assert daemon.wait() == -signal.SIGQUIT
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        assert saved <= {each.id for each in client.ask(GetMessages("r1", limit=500))}


def test_a_second_signal_changes_nothing(start_daemon: StartDaemon) -> None:
    """Repeated SIGTERM during the drain still exits with 0."""
    daemon = start_daemon()
    while daemon.process.poll() is None:
        daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_stopping_under_load_keeps_every_acknowledged_message(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """With many clients writing, the daemon stops in time with 0, and acknowledged messages are stored."""
    daemon = start_daemon()
    acknowledged: set[str] = set()

    def write(name: int) -> None:
        with Peer(daemon.endpoint) as peer:
            for at in range(100_000):
                peer.request("save-message", save_payload(f"m{name}-{at}"), request_id=f"m{name}-{at}")
                if at >= 50:
                    if peer.silent(1_000):
                        return
                    reply = peer.reply()
                    if not reply["ok"]:
                        return
                    acknowledged.add(reply["id"])

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(acknowledged) > 1_000)
    assert daemon.stop() == 0
    for writer in writers:
        writer.join()
    with apsw.Connection(str(tmp_path / "data" / "default.db")) as connection:
        stored = {row[0] for row in connection.execute("SELECT id FROM messages")}
    assert acknowledged <= stored


def test_a_stalled_client_does_not_prevent_stopping(start_daemon: StartDaemon) -> None:
    """The drain ends at its time limit, although a client does not read its replies."""
    daemon = start_daemon("--drain-ms", "200")
    with Peer(daemon.endpoint, queue=1) as sleeper, Client(daemon.endpoint) as client:
        client.execute(save_message(1, "x" * 100_000))
        for at in range(3_000):
            sleeper.request("get-message-by-id", {"messageId": "m1"}, request_id=str(at))
        with Peer(daemon.endpoint) as other:
            wait_until(lambda: other.ask("health")["result"]["queues"]["replies"])
        assert daemon.stop() == 0


def test_stopping_interrupts_a_running_query(tmp_path: Path) -> None:
    """SQLite is interrupted at the end of the drain, and all waiting queries are answered `unavailable`."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    started = threading.Event()

    def never_ends(_query: GetRoom, db: Any) -> None:
        started.set()
        db.rows(sql(endless))

    handlers = replacing({GetRoom: never_ends})
    data_dir = tmp_path / "data"
    with Peer(f"ipc://{data_dir}/thread.sock") as peer:
        with running(data_dir, handlers=handlers, drain_ms=50):
            for at in range(100):
                peer.request("get-room", {"roomId": "r1"}, request_id=str(at))
            peer.request("ping")
            assert peer.reply()["result"] == {"pong": True}
            assert started.wait(20)
        codes = [peer.reply()["error"]["code"] for _ in range(100)]
    assert codes == ["unavailable"] * 100


def test_commands_not_begun_at_the_drain_limit_are_unavailable(tmp_path: Path) -> None:
    """The commit in flight is finished and acknowledged; the commands behind it have no effect."""
    started = threading.Event()
    running_daemon: list[Daemon] = []

    def until_the_end(_command: SaveMessage, _db: Any, _context: Any) -> None:
        started.set()
        # Private: nothing shows that the writers are stopping before the commit in flight is finished, and
        # this is that commit.
        wait_until(lambda: running_daemon[0]._writers._stopping)

    data_dir = tmp_path / "data"
    handlers = replacing({SaveMessage: until_the_end})
    with Peer(f"ipc://{data_dir}/thread.sock") as peer:
        with running(data_dir, handlers=handlers, drain_ms=50, batch_requests=1) as daemon:
            running_daemon.append(daemon.daemon)
            for at in range(20):
                peer.request("save-message", save_payload(at), request_id=str(at))
            peer.request("ping")
            assert peer.reply()["result"] == {"pong": True}
            assert started.wait(20)
        replies = peer.replies(20)
    assert replies["0"]["ok"]
    assert {replies[str(at)]["error"]["code"] for at in range(1, 20)} == {"unavailable"}


def test_an_unread_stderr_pipe_does_not_block_the_daemon(tmp_path: Path) -> None:
    """Where the parent does not read standard error, log lines are lost, and nothing else."""
    with DaemonProcess(tmp_path / "data", "--log-level", "debug", log=subprocess.PIPE) as daemon:
        with Client(daemon.endpoint) as client:
            for _ in client.pipeline([Ping()] * 3_000):
                pass
        assert daemon.stop() == 0
        assert daemon.process.stderr is not None
        daemon.process.stderr.close()


def test_expensive_free_json_is_refused_before_decoding(start_daemon: StartDaemon) -> None:
    """Millions of empty lists in a few megabytes are refused quickly, while other clients are served."""
    daemon = start_daemon()
    much = [b"[]," * 2_000_000, b"[]," * 300_000]
    with Peer(daemon.endpoint) as hostile, Client(daemon.endpoint, timeout_ms=4_000) as other:
        for at, lists in enumerate(much):
            hostile.send(
                b'{"id":"%d","type":"save-message","payload":{"message":{"id":"m","roomId":"r","senderId":"s",'
                b'"content":"","timestamp":1,"metadata":{"k":[%b[]]}}}}' % (at, lists)
            )
        assert other.ask(Ping()).pong
        errors = [hostile.reply()["error"] for _ in much]
    assert [error["code"] for error in errors] == ["too-large", "too-large"]
    assert [error["details"]["path"] for error in errors] == ["$.payload", "$.payload.message.metadata"]
    assert resident_bytes(daemon.ready["pid"]) < 300e6


def test_routing_frames_are_limited_in_bytes(start_daemon: StartDaemon) -> None:
    """Frames that are only echoed cannot be used to fill the daemon's memory."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        peer.send(b"x" * 5_000, b'{"id":"1","type":"ping"}')
        assert peer.reply()["error"]["code"] == "malformed"


@pytest.mark.parametrize("operation", ["save-message", "get-room"])
def test_a_crashed_worker_thread_ends_the_daemon(tmp_path: Path, operation: str) -> None:
    """An error that the dispatcher cannot turn into a reply ends `run()` with that error, instead of blocking
    callers.
    """

    def die(*_: Any) -> None:
        raise SystemExit("a thread that ends before its time")

    handlers = replacing({SaveMessage: die, GetRoom: die})
    caught: list[BaseException] = []
    with running(tmp_path / "data", handlers=handlers) as daemon, Peer(daemon.endpoint) as peer:
        hook, threading.excepthook = threading.excepthook, lambda args: caught.append(args.exc_value or args.exc_type())
        try:
            peer.request(operation, save_payload(1) if operation == "save-message" else {"roomId": "r1"})
            daemon.thread.join(20)
        finally:
            threading.excepthook = hook
        assert not daemon.thread.is_alive()
    assert [str(error) for error in caught] == ["a thread that ends before its time"]


def test_kill_loses_no_acknowledged_message(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """After `kill -9` the next daemon starts with the stale files and has every acknowledged message."""
    acknowledged = 0
    for _ in range(3):
        daemon = start_daemon()
        with Peer(daemon.endpoint) as peer:
            for at in range(acknowledged, acknowledged + 400):
                peer.request("save-message", save_payload(at), request_id=str(at))
            for _ in range(200):
                assert peer.reply()["ok"]
                acknowledged += 1
            daemon.kill()
        left = {path.name for path in (tmp_path / "data").iterdir()}
        assert {"backscroll.sock", "endpoint.json", "pid", "default.db-wal"} <= left
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for at in range(acknowledged):
            peer.request("get-message-by-id", {"messageId": f"m{at}"}, request_id=str(at))
        assert all(reply["result"] for reply in peer.replies(acknowledged).values())


def test_a_closed_stderr_only_loses_log_lines(tmp_path: Path) -> None:
    """The daemon continues, and stops with 0."""
    reading, writing = os.pipe()
    with DaemonProcess(tmp_path / "data", "--log-level", "debug", log=writing) as daemon:
        os.close(writing)
        os.close(reading)
        with Client(daemon.endpoint) as client:
            client.execute(save_message(1))
            assert client.ask(GetMessageById("m1"))
        assert daemon.stop() == 0


# Stopping with the parent process


def test_exit_with_parent_stops_at_the_end_of_stdin(start_daemon: StartDaemon) -> None:
    """Closing the pipe to its standard input stops the daemon, with 0."""
    daemon = start_daemon()
    assert daemon.process.stdin is not None
    daemon.process.stdin.close()
    assert daemon.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal for it")
def test_exit_with_parent_stops_while_another_holds_the_pipe(tmp_path: Path) -> None:
    """A daemon whose parent was killed stops even if another process keeps its standard input open."""
    script = f"""
import os, subprocess, sys, time
reading, writing = os.pipe()
command = [sys.executable, "-m", "backscroll.bus", "--data-dir", {str(tmp_path / "data")!r}, "--exit-with-parent"]
daemon = subprocess.Popen(command, stdin=reading)
holder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[writing])
print(holder.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = [parent.stdout.readline(), parent.stdout.readline()]
    holder = next(int(line) for line in lines if not line.startswith("{"))
    ready = next(json.loads(line) for line in lines if line.startswith("{"))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not is_alive(ready["pid"]))
    wait_until(lambda: not is_alive(holder))


def test_exit_with_parent_stops_when_the_parent_is_killed(tmp_path: Path) -> None:
    """A daemon started by a client library does not outlive its process, even after `kill -9`."""
    script = f"""
import time
from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.sql import sql
with DaemonProcess({str(tmp_path / "data")!r}) as daemon:
    print(daemon.ready["pid"], flush=True)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    daemon = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not is_alive(daemon))
    wait_until(lambda: not (tmp_path / "data" / "endpoint.json").exists())


def test_a_daemon_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """Only the end of the parent process counts, not that of the thread that started the daemon."""
    daemons: list[DaemonProcess] = []
    thread = threading.Thread(target=lambda: daemons.append(DaemonProcess(tmp_path / "data")))
    thread.start()
    thread.join()
    with daemons[0] as daemon, Client(daemon.endpoint) as client:
        for at in range(20):
            client.execute(save_message(at))
        assert daemon.process.poll() is None


# One daemon for a directory


def test_a_second_daemon_names_the_first_and_exits_with_3(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A data directory has one daemon, also when it is named through a symbolic link; the first one is not
    disturbed.
    """
    daemon = start_daemon()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for name in ("data", "link"):
        second = serve("--data-dir", str(tmp_path / name))
        assert second.returncode == 3
        assert f"process {daemon.process.pid}" in second.stderr
        assert not second.stdout
    with Client(daemon.endpoint) as client:
        assert client.ask(Ping()).pong


def test_of_daemons_started_at_once_exactly_one_serves(tmp_path: Path) -> None:
    """The others exit with 3 and name its process id."""
    command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(tmp_path / "data")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    daemons = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        wait_until(lambda: sum(daemon.poll() is not None for daemon in daemons) == 3)
        [winner] = [daemon for daemon in daemons if daemon.poll() is None]
        losers = [daemon for daemon in daemons if daemon is not winner]
        assert {loser.returncode for loser in losers} == {3}
        assert all(f"process {winner.pid}" in loser.communicate()[1] for loser in losers)
        wait_until((tmp_path / "data" / "endpoint.json").exists)
        with Client(data_dir=tmp_path / "data") as client:
            assert client.ask(Ping()).pong
        winner.terminate()
        winner.communicate(timeout=20)
        assert winner.returncode == 0
    finally:
        for daemon in daemons:
            if daemon.poll() is None:
                daemon.kill()
                daemon.communicate()


def test_an_ipc_path_in_use_is_not_taken_over(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon with the address of another exits with 2, and the other is still reached there."""
    first = start_daemon()
    second = serve("--data-dir", str(tmp_path / "other"), "--endpoint", first.endpoint)
    assert second.returncode == 2
    assert "another process listens" in second.stderr
    with Client(first.endpoint) as client:
        assert client.ask(Ping()).pong


def test_an_ipc_path_that_is_a_file_is_not_removed(tmp_path: Path) -> None:
    """An address where an ordinary file is exits with 2, and the file stays."""
    (tmp_path / "diary.txt").write_text("dear diary")
    end = serve("--data-dir", str(tmp_path / "data"), "--endpoint", f"ipc://{tmp_path}/diary.txt")
    assert end.returncode == 2
    assert (tmp_path / "diary.txt").read_text() == "dear diary"


# Exit codes


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--endpoint", "udp://127.0.0.1:1"], "neither ipc://"),
        (["--endpoint", "tcp://0.0.0.0:5555"], "127.0.0.1"),
        (["--endpoint", "tcp://192.0.2.1:5555"], "127.0.0.1"),
        (["--endpoint", "tcp://127.0.0.1.example.org:5555"], "127.0.0.1"),
        (["--endpoint", "ipc://relative.sock"], "absolute"),
        (["--endpoint", "ipc://*"], "absolute"),
        (["--endpoint", "tcp://127.0.0.1:999999"], "port"),
        (["--endpoint", "tcp://127.0.0.1:"], "port"),
        (["--endpoint", "tcp://[::1]:http"], "port"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--readers", "0"], "--readers"),
        (["--readers", "many"], "--readers"),
        (["--log-level", "loud"], "--log-level"),
    ],
)
def test_invalid_settings_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    """The message names the invalid setting, and nothing is started."""
    assert code_of(["--data-dir", str(tmp_path / "data"), *flags]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert says in captured.err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("endpoint", ["ipc:///no/such/directory/x.sock", f"ipc:///tmp/{'x' * 120}"])
def test_an_endpoint_that_cannot_be_bound_exits_with_2(tmp_path: Path, endpoint: str) -> None:
    """The message names the address that the system refuses."""
    end = serve("--data-dir", str(tmp_path / "data"), "--endpoint", endpoint)
    assert (end.returncode, end.stdout) == (2, "")
    assert f"cannot bind {endpoint}" in end.stderr
    assert "Traceback" not in end.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [("readers = ", "Invalid value"), ("raeders = 3", "raeders"), ('readers = "x"', "readers"), (None, "no such file")],
)
def test_an_invalid_settings_file_exits_with_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    says: str,
) -> None:
    """A file that is not TOML, has unknown keys or invalid values, or is named and missing, is refused."""
    file = tmp_path / "backscroll.toml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("BACKSCROLL_CONFIG", str(file))
    assert code_of(["--data-dir", str(tmp_path / "data")]) == 2
    assert says in capsys.readouterr().err


def from_the_future(path: Path) -> None:
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", 99)


def of_another_program(path: Path) -> None:
    """In a directory that has never been used, so that nothing says which file is missing."""
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    with apsw.Connection(str(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, but it is long enough to look like one" * 100)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096 * 3)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def with_a_foreign_wal(path: Path) -> None:
    """A WAL left over from another database, in place of this one's."""
    other = path.parent.parent / "other"
    other.mkdir()
    store = SqliteStore(other / "default.db")
    with store.write() as transaction:
        transaction.run(sql("DELETE FROM meta"))
    (path.parent / "default.db-wal").write_bytes((other / "default.db-wal").read_bytes())
    store.close()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (from_the_future, "newer backscroll"),
        (of_another_program, "another data directory"),
        (garbage, "`backscroll repair`"),
        (truncated, "`backscroll repair`"),
        (a_directory, "Is it a file"),
        (with_a_foreign_wal, "belongs to another database"),
    ],
)
def test_an_unusable_database_exits_with_4_and_is_unchanged(
    tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    """A file of another program, of a later version or damaged is refused with advice on what to do."""
    with InProcess(tmp_path / "data") as transport, Client(transport=transport) as client:
        for at in range(50):
            client.execute(save_message(at, "x" * 1_000))
    path = tmp_path / "data" / "default.db"
    harm(path)
    before = path.read_bytes() if path.is_file() else None
    end = serve("--data-dir", str(tmp_path / "data"))
    assert (end.returncode, end.stdout) == (4, "")
    assert says in end.stderr
    assert str(tmp_path / "data") in end.stderr
    assert "Traceback" not in end.stderr
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_database_locked_by_another_process_exits_with_4(tmp_path: Path) -> None:
    """It is refused after the wait, with advice on what to do."""
    InProcess(tmp_path / "data").close()
    other = apsw.Connection(str(tmp_path / "data" / "default.db"))
    other.execute("BEGIN IMMEDIATE")
    end = serve("--data-dir", str(tmp_path / "data"), "--lock-wait-ms", "100")
    other.close()
    assert end.returncode == 4
    assert "locked by another process" in end.stderr


def test_a_data_directory_that_is_a_file_exits_with_4(tmp_path: Path) -> None:
    """The message names what cannot be a data directory."""
    (tmp_path / "data").write_text("")
    end = serve("--data-dir", str(tmp_path / "data"))
    assert end.returncode == 4
    assert str(tmp_path / "data") in end.stderr


# Peers of all kinds


def test_a_req_socket_with_plain_json_is_served(start_daemon: StartDaemon) -> None:
    """A REQ socket and JSON are enough for a client."""
    daemon = start_daemon()
    with Peer(daemon.endpoint, zmq.REQ) as peer:
        for at in range(10):
            peer.send(json.dumps({"id": str(at), "type": "save-message", "payload": save_payload(at)}).encode())
            assert peer.reply() == {"id": str(at), "ok": True, "result": None, "seq": at + 1}


def test_routing_frames_are_echoed(start_daemon: StartDaemon) -> None:
    """All frames before the body are sent before the reply: delimiters, hops of proxies, empty frames."""
    daemon = start_daemon()
    requests = [
        body("ping"),
        body("save-message", save_payload(1)),
        body("get-messages", {"roomId": "r1"}),
        body("x"),
        b"",
    ]
    with Peer(daemon.endpoint) as peer:
        for number in (0, 1, 2, ROUTING_FRAMES_MAX - 1):
            frames = [b"" if at % 2 else bytes([at]) * at for at in range(number)]
            for request in requests:
                peer.send(*frames, request)
                assert peer.frames()[:-1] == frames


def test_too_many_routing_frames_are_malformed(start_daemon: StartDaemon) -> None:
    """A message of thousands of frames gets one error, with the id of its request."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for number in (ROUTING_FRAMES_MAX, 10_000):
            peer.send(*[b"frame"] * number, body("ping", id="request-1"))
            reply = peer.reply()
            assert (reply["id"], reply["error"]["code"]) == ("request-1", "malformed")
            assert peer.ask("ping")["ok"]


def test_a_request_without_a_body_is_malformed(start_daemon: StartDaemon) -> None:
    """A message without a body gets an error with the id null."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        for frames in ([b""], [b"", b""], [b"\x00"], [b"\xff"], [b"{"], [b"[]"], [b"null"]):
            peer.send(*frames)
            reply = peer.reply()
            assert (reply["id"], reply["error"]["code"]) == (None, "malformed")


def test_oversized_bodies_are_refused_and_others_are_served(
    start_daemon: StartDaemon,
) -> None:
    """A body above its limit is `too-large`, with its id; above the limit of a frame the connection is closed."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer, Client(daemon.endpoint) as other:
        peer.send(b'{"id": "1", "type": "ping", "x": "' + b"x" * BODY_BYTES_MAX + b'"}')
        reply = peer.reply()
        assert (reply["id"], reply["error"]["code"]) == ("1", "too-large")
        assert other.ask(Ping()).pong
        peer.send(b"x" * FRAME_BYTES_MAX)
        assert peer.reply()["error"]["code"] == "too-large"
        peer.send(b"x" * (FRAME_BYTES_MAX + 1))
        assert is_prompt(other)
        other.execute(save_message(1))
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("get-message-by-id", {"messageId": "m1"})["result"]["id"] == "m1"
    wait_until(lambda: resident_bytes(daemon.process.pid) < 300 * MIB)


def test_a_body_of_exactly_the_limit_is_accepted(start_daemon: StartDaemon) -> None:
    """The limit on bodies is inclusive."""
    daemon = start_daemon()
    request = body("ping")
    with Peer(daemon.endpoint) as peer:
        peer.send(request + b" " * (BODY_BYTES_MAX - len(request)))
        assert peer.reply()["ok"]
        peer.send(request + b" " * (BODY_BYTES_MAX - len(request) + 1))
        assert peer.reply()["error"]["code"] == "too-large"


def test_clients_that_vanish_before_their_reply_leave_nothing(start_daemon: StartDaemon) -> None:
    """Their replies are dropped, and nothing of them is kept."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as other:
        for number in range(50):
            peer = Peer(daemon.endpoint)
            peer.socket.setsockopt(zmq.LINGER, 1_000)
            for at in range(20):
                peer.request("save-message", save_payload(number * 100 + at), request_id=str(at))
            peer.close()
        other.execute(save_message(1_000_000))
        wait_until(lambda: not any(other.ask(Health()).queues.values()))


def test_garbage_on_a_tcp_endpoint_is_ignored(start_daemon: StartDaemon) -> None:
    """HTTP, port scans and random bytes have no effect, and other clients are served meanwhile."""
    daemon = start_daemon("--endpoint", "tcp://127.0.0.1:*")
    port = int(daemon.endpoint.rpartition(":")[2])
    greetings = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff" * 1_000,
        os.urandom(10_000),
        b"",
        b"\xff\0\0\0\0\0\0\0\1\x7f",
    ]
    with Client(data_dir=daemon.data_dir) as client:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for at, connection in enumerate(connections):
            with contextlib.suppress(ConnectionError):
                connection.sendall(greetings[at % len(greetings)])
        client.execute(save_message(1))
        assert is_prompt(client)
        for connection in connections:
            connection.close()
        assert client.ask(GetMessageById("m1"))


@pytest.mark.parametrize("wakes_up", [True, False])
def test_a_client_that_never_reads_costs_bounded_memory(start_daemon: StartDaemon, wakes_up: bool, long: bool) -> None:
    """With thousands of unread replies memory stays bounded and others are served promptly, until the client reads or
    vanishes.
    """
    daemon = start_daemon("--client-requests", "2000")
    pid = daemon.process.pid
    number = 100_000 if long else 20_000
    with Client(daemon.endpoint, timeout_ms=20_000) as other:
        other.execute(save_message(1, "x" * 30_000))
        sleeper = Peer(daemon.endpoint, queue=1)
        for at in range(number):
            sleeper.request("get-message-by-id", {"messageId": "m1"}, request_id=str(at))
            if at % 2_000 == 0:
                assert is_prompt(other)
        wait_until(lambda: other.ask(Health()).queues["replies"])
        for at in range(2, 52):
            other.execute(save_message(at))
            assert other.ask(GetMessageById(f"m{at}")) is not None
        # 1000 replies in libzmq's pipe and a run of 64 in ours make 32 MB; keeping all of them would take hundreds.
        assert resident_bytes(pid) < 200 * MIB
        assert other.ask(Health()).queues["replies"] <= 64
        if wakes_up:
            answered = {}
            while not sleeper.silent(1_000):
                reply = sleeper.reply()
                answered[reply["id"]] = reply
            assert all(reply["ok"] or reply["error"]["code"] == "busy" for reply in answered.values())
            assert len(answered) >= 2_000
            assert sleeper.ask("ping")["ok"]
        sleeper.close()
        wait_until(lambda: not any(other.ask(Health()).queues.values()))


def test_replies_of_a_stalled_client_are_dropped(start_daemon: StartDaemon) -> None:
    """After `--stall-ms` its replies and its waiting requests are dropped."""
    daemon = start_daemon("--stall-ms", "300")
    with Peer(daemon.endpoint, queue=1) as sleeper, Client(daemon.endpoint) as other:
        other.execute(save_message(1, "x" * 100_000))
        for at in range(3_000):
            sleeper.request("get-message-by-id", {"messageId": "m1"}, request_id=str(at))
        wait_until(lambda: other.ask(Health()).queues["replies"])
        wait_until(lambda: not any(other.ask(Health()).queues.values()))


def test_an_idle_daemon_uses_no_processor_time(start_daemon: StartDaemon) -> None:
    """Also after clients have connected and disconnected."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        client.execute(save_message(1))
        client.ask(GetMessageById("m1"))

    def processor_ticks() -> int:
        fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    samples = [processor_ticks()]

    def is_still() -> bool:
        samples.append(processor_ticks())
        return len(samples) > 100 and samples[-1] - samples[-100] <= 1

    wait_until(is_still)
