"""Every way of losing or mixing files: nothing that is acknowledged afterwards is lost, and no answer is wrong.

`bus/LOSSES.md` is the table of what happens, written with `pytest tests/bus/test_losses.py --store-losses`.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.failures import CannotOpen
from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.last_commit import FILE_BYTES
from backscroll.bus.sqlite.store import RESTART, WAL_PAGES_BEFORE_CHECKPOINT
from backscroll.clients.python.daemon_process import DaemonProcess
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.requests import body, send
from tests.support.sql import sql

pytestmark = pytest.mark.xdist_group("losses")  # in one process, which compares all with the table

TABLE = Path(__file__).parent.parent.parent / "bus" / "LOSSES.md"
SIZES = re.compile(r"\d{6,}")  # of files in bytes, which differ between two runs
OTHER = "other"
DATABASE = "default.db"
ENDS = ("stopped", "killed")
FILES = {"database": "", "`-wal`": "-wal", "`-shm`": "-shm", "note": "-wal-lineage", "last commit": "-last-commit"}
LARGE = "x" * 8_000
EMPTIED = "copied into the database and removed by another program"

Files = dict[str, bytes]
Reply = dict[str, Any]


# The histories that files are taken from


def files_in(directory: Path) -> Files:
    """The files of all scopes, by their paths in the data directory."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.name not in ("lock", "pid"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def put_files(directory: Path, files: Files) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


class History:
    """The files of one data directory at two moments, each after a kill and after a stop.

    Between the moments the write-ahead log was restarted. `messages` are those acknowledged by each moment, and
    `others` those in another scope.
    """

    def __init__(self, directory: Path) -> None:
        self.killed: list[Files] = []
        self.stopped: list[Files] = []
        self.messages: list[set[str]] = []
        self.count = 0
        for _ in range(2):
            with InProcess(directory) as transport:
                self._save(transport, 30, "")
                self._save(transport, WAL_PAGES_BEFORE_CHECKPOINT // 2, LARGE)  # so that the log is restarted
                self._save(transport, 30, "")
                put_media(transport)
                self.killed.append(files_in(directory))
            self.stopped.append(files_in(directory))
            self.messages.append({f"m{number}" for number in range(self.count)})

    def _save(self, transport: InProcess, number: int, content: str) -> None:
        for _ in range(number):
            for scope in ("default", OTHER):
                transport.send(body("save-message", save_payload(self.count, content or "hello"), scope=scope))
                reply = transport.receive(0)
                assert reply is not None
                assert b'"ok":true' in reply
            self.count += 1


def put_media(transport: InProcess) -> None:
    part = send(transport, body("put-media-part", {"data": "aGVsbG8="}))["result"]
    assert send(transport, body("put-media", {"parts": [part], "mime": "text/plain"}))["ok"]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history") / "data")


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str, str], str]]:
    """What happened in each case. At the end of the module it is compared with the table."""
    found: dict[tuple[str, str, str], str] = {}
    yield found
    if found.keys() != set(CASES):  # only some of the tests were run, or some failed
        return
    text = table_of(found)
    if request.config.getoption("--store-losses"):
        TABLE.write_text(text, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == text, "run pytest tests/bus/test_losses.py --store-losses"


def table_of(found: dict[tuple[str, str, str], str]) -> str:
    lines = [
        "# What happens when files are lost or mixed",
        "",
        "Written by `pytest tests/bus/test_losses.py --store-losses`, which does each of these to a real store and",
        "checks that nothing acknowledged afterwards is lost and that no answer is wrong. “Older” is the same file of",
        "an earlier moment, from before the write-ahead log was restarted.",
        "",
        "| file | what is done to it | when | what happens |",
        "|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(case)} | {SIZES.sub('N', found[case])} |" for case in CASES]
    return "\n".join(lines) + "\n"


# While the daemon is stopped


def scope_file(files: Files, suffix: str) -> bytes | None:
    """This file of the other scope."""
    return next((content for name, content in files.items() if name.endswith(f".db{suffix}") and "/" in name), None)


def is_moment(history: History, messages: set[str]) -> bool:
    return messages in history.messages


STOPPED = [
    (file, how, when)
    for when in ("killed", "stopped")
    for file in FILES
    for how in ("removed", "emptied", "replaced by an older one", "replaced by another scope's")
    if when == "killed" or file in ("database", "note", "last commit")
] + [
    ("`-wal` and `-shm`", "left by a kill, beside an older database", "stopped"),
    ("database and note", "replaced by older ones", "killed"),
    ("`-wal` and `-shm`", "replaced by older ones", "killed"),
    ("`-wal` and note", "replaced by older ones", "killed"),
    ("`-wal`, `-shm` and note", "removed", "killed"),
    ("`-wal`", "damaged at its end", "killed"),
    ("`-wal`", "damaged in the middle", "killed"),
    ("`-wal` and last commit", "damaged at its end", "killed"),
    ("last commit", "damaged at its end", "killed"),
    ("database, `-wal` and note", "replaced by older ones of one moment", "killed"),
    ("database and note", "replaced by older ones", "stopped"),
    ("database and note", "removed", "stopped"),
    ("database", "shortened", "stopped"),
    ("database", "shortened", "killed"),
    ("media", "removed", "stopped"),
    ("database and media", "removed, with the note", "stopped"),
    ("`-wal`", EMPTIED, "killed"),
]


def changed(history: History, file: str, how: str, when: str) -> Files:
    """The files of the later moment, one or some of them lost or mixed."""
    now, before = (history.killed, history.stopped)[when == "stopped"][::-1]
    files, suffixes = dict(now), [FILES[each] for each in FILES if each in file]
    if "beside an older database" in how:
        return history.killed[1] | {DATABASE: history.stopped[0][DATABASE]}
    if how == EMPTIED:
        return emptied(files)
    if file.endswith("media"):
        suffixes += ["-wal-lineage", "-last-commit"] if "note" in how else []
        files = {name: content for name, content in files.items() if ".media/" not in name}
    for suffix in suffixes:
        name = f"{DATABASE}{suffix}"
        if how.startswith("removed"):
            files.pop(name, None)
        elif how == "emptied":
            files[name] = b""
        elif how.startswith("damaged"):
            files[name] = damaged(files[name], len(used_part(files[name])) // (2 if "middle" in how else 1) - 1)
        elif how == "shortened":
            files[name] = files[name][: len(files[name]) // 2]
        elif "another scope's" in how:
            files[name] = scope_file(now, suffix) or b""
        else:
            files[name] = before[name]
    return files


def used_part(content: bytes) -> bytes:
    """A file, and of a write-ahead log what belongs to it since it was restarted."""
    salt, frame = content[16:24], 24 + 4096
    at = 32
    while len(content) > FILE_BYTES and content[at + 8 : at + 16] == salt:
        at += frame
    return content[:at] if at > 32 else content


def damaged(content: bytes, at: int) -> bytes:
    """The content with one bit changed."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def emptied(files: Files) -> Files:
    """The files after a program such as `sqlite3` has opened the database, read from it and closed it."""
    with tempfile.TemporaryDirectory() as place:
        put_files(Path(place), files)
        with closing(apsw.Connection(str(Path(place) / DATABASE))) as connection:
            connection.execute("SELECT count(*) FROM messages").fetchall()
        return files_in(Path(place))


def test_a_log_emptied_by_another_program_is_given_up(history: History, tmp_path: Path) -> None:
    """The refusal names the case and the file to create; with it the start is complete."""
    put_files(tmp_path, emptied(history.killed[1]))
    assert not (tmp_path / f"{DATABASE}-wal").exists()
    with pytest.raises(CannotOpen, match=r"another program opened default\.db since then and emptied the log, nothing"):
        InProcess(tmp_path)
    (tmp_path / f"{DATABASE}-wal-lost").touch()
    with InProcess(tmp_path) as transport:
        assert check_served(transport, history) == "started, complete"


@pytest.mark.parametrize(("file", "how", "when"), STOPPED)
def test_files_lost_while_stopped(
    history: History, rows: dict[tuple[str, str, str], str], tmp_path: Path, file: str, how: str, when: str
) -> None:
    """The start is refused with words and changes no file, or the store is that of one moment and complete."""
    put_files(tmp_path, changed(history, file, how, when))
    before = files_in(tmp_path)
    try:
        transport = InProcess(tmp_path)
    except CannotOpen as error:
        assert files_in(tmp_path) == before
        end = f"not started: {words(str(error), tmp_path)}"
    else:
        with transport:
            end = check_served(transport, history)
    rows[file, how, f"while it was {when}"] = end


def check_served(transport: InProcess, history: History) -> str:
    """Every answer must be that of one moment; what happens, in words."""
    messages = {row[0] for row in all_messages(transport)}
    assert is_moment(history, messages)
    assert transport.store.seq >= len(messages)
    before = transport.store.seq
    assert send(transport, body("save-message", save_payload(10**6)))["seq"] == before + 1
    if not read_part(transport)["ok"]:
        return "started; a part of media that is missing is answered `storage`"
    return "started, complete" if messages == history.messages[1] else "started, as it was at the earlier moment"


def read_part(transport: InProcess) -> Reply:
    """The reply to a query for a part of media; `storage` if it is missing."""
    [media] = {row[0] for row in select(transport, "SELECT id FROM media ORDER BY id LIMIT 1")}
    reply = send(transport, body("get-media-part", {"mediaId": media}))
    assert reply["ok"] or reply["error"]["code"] == "storage"
    return reply


def select(transport: InProcess, text: str) -> list[Any]:
    with transport.store.read() as snapshot:
        rows: list[Any] = snapshot.rows(sql(text))
    return rows


def all_messages(transport: InProcess) -> list[Any]:
    return select(transport, "SELECT id FROM messages")


def words(message: str, directory: Path) -> str:
    """The first sentence of an error, without the directory."""
    text = message.replace(f"{directory}/", "")
    return text.partition(". ")[0]


# While the daemon runs


Do = Callable[[Path, Files], None]


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def replace_with(path: Path, content: bytes | None) -> None:
    """As `mv` and most programs that restore a file do."""
    other = path.with_name("restored")
    other.write_bytes(content or b"")
    other.replace(path)


def lose(path: Path, how: str, history: History) -> None:
    suffix = path.name.removeprefix(DATABASE)
    if how == "removed" and path.is_dir():
        shutil.rmtree(path)
    elif how == "removed":
        remove(path)
    elif how == "emptied":
        empty(path)
    elif how == "replaced by an older one":
        replace_with(path, history.killed[0][path.name])
    elif how == "replaced by another scope's":
        replace_with(path, scope_file(history.killed[1], suffix))
    elif how == "removed and made anew":
        shutil.rmtree(path)
        path.mkdir()
    elif how == "moved away":
        path.rename(path.with_name("moved"))


RUNNING = [
    (file, how)
    for file in FILES
    for how in ("removed", "emptied", "replaced by an older one", "replaced by another scope's")
    if (file, how) != ("`-shm`", "emptied")  # SQLite has it mapped: the system ends a process that reads behind its end
] + [
    ("directory", "removed"),
    ("directory", "removed and made anew"),
    ("directory", "moved away"),
    ("`lock`", "removed"),
    ("media", "removed"),
]


CASES = [(file, how, f"while it was {when}") for file, how, when in STOPPED]
CASES += [(file, how, f"while it ran, then {end}") for file, how in RUNNING for end in ENDS]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("file", "how"), RUNNING)
def test_files_lost_while_running(
    history: History, rows: dict[tuple[str, str, str], str], tmp_path: Path, file: str, how: str, end: str
) -> None:
    """Every command that is acknowledged afterwards is there at the next start, or that start is refused with words;
    every query is answered rightly or gets `storage`; `health` says that the daemon is not ready, and why.
    """
    directory = tmp_path / "data"
    put_files(directory, history.killed[1])
    with (
        (tmp_path / "log").open("w") as log,
        DaemonProcess(directory, "--endpoint", f"ipc://{tmp_path}/s", log=log) as daemon,
    ):
        with Peer(daemon.endpoint) as peer:
            acknowledged = history.messages[1] | saved(peer, range(10**6, 10**6 + 5))
            path = {"directory": directory, "`lock`": directory / "lock", "media": directory / "default.media"}.get(
                file, directory / f"{DATABASE}{FILES.get(file, '')}"
            )
            lose(path, how, history)
            later = saved(peer, range(2 * 10**6, 2 * 10**6 + 20))
            health = peer.ask("health")["result"]
            check_answers(peer, acknowledged, later)
            assert health["ready"] is (len(later) == 20)
            assert (health["storage"]["state"] == "ok") is health["ready"]
        daemon.stop() if end == "stopped" else daemon.kill()
    what = (
        "goes on"
        if later
        else f"commands are answered `storage`, not ready: {words(health['storage']['state'], directory)}"
    )
    if directory.exists() and (directory / DATABASE).exists():
        start = check_start(directory, later)
        what = f"{what}; next start: {start}"
    rows[file, how, f"while it ran, then {end}"] = what


def test_a_lost_directory_is_to_be_restored_before_a_restart(tmp_path: Path) -> None:
    """`health`, commands and scopes that are opened later all say it: a restart alone would begin with empty files."""
    directory = tmp_path / "data"
    with (
        (tmp_path / "log").open("w") as log,
        DaemonProcess(directory, "--endpoint", f"ipc://{tmp_path}/s", log=log) as daemon,
        Peer(daemon.endpoint) as peer,
    ):
        assert saved(peer, range(1))
        shutil.rmtree(directory)
        said = [
            peer.ask("health")["result"]["storage"]["state"],
            peer.ask("save-message", save_payload(1))["error"]["message"],
            peer.ask("save-message", save_payload(1), scope=OTHER)["error"]["message"],
        ]
    assert [each for each in said if not each.endswith(RESTART)] == []
    assert "restore the files" in RESTART


def saved(peer: Peer, numbers: range) -> set[str]:
    """Save messages, each in a commit of its own; those that were acknowledged. The others get `storage`."""
    done = set()
    for number in numbers:
        reply = peer.ask("save-message", save_payload(number))
        if reply["ok"]:
            done.add(f"m{number}")
        else:
            assert reply["error"]["code"] == "storage", reply
    assert len(done) in (0, len(numbers))
    return done


def check_answers(peer: Peer, acknowledged: set[str], later: set[str]) -> None:
    """What was acknowledged is there, or the query is refused. A refused command may be visible."""
    for number in [0, 100, 10**6, 10**6 + 4, *(int(each[1:]) for each in sorted(later))]:
        reply = peer.ask("get-message-by-id", {"messageId": f"m{number}"})
        assert reply["result"] if reply["ok"] else reply["error"]["code"] == "storage", (number, reply)
    page = peer.ask("get-message-page", {"roomId": "r1", "limit": 200})
    if page["ok"]:
        found = {message["id"] for message in page["result"]["messages"]}
        assert found >= {f"m{number}" for number in range(10**6, 10**6 + 5)} | later


def check_start(directory: Path, later: set[str]) -> str:
    """Start again: refused with words, or everything acknowledged after the loss is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(directory / "restored")
    try:
        transport = InProcess(directory)
    except CannotOpen as error:
        return f"refused: {words(str(error), directory)}"
    with transport:
        messages = {row[0] for row in all_messages(transport)}
        part = read_part(transport)
    assert messages >= later
    if not part["ok"]:
        return "complete but for the parts of media, which are answered `storage`"
    return "complete" if later else "without the commands that were refused"
