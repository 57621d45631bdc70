"""`backscroll log` and `backscroll replay`: a log goes to a file and back, and is never another one unnoticed."""

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.clients.command_line.main import main
from backscroll.clients.python import Client
from backscroll.clients.python.compare import state_of
from backscroll.clients.python.daemon_access import Clients
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.clients.python.log_export import Broken, verify_scope
from backscroll.clients.python.log_replay import CHUNK_BYTES, lines_of, replay
from backscroll.schema import (
    Batch,
    CreateChannel,
    CreateMessage,
    CreateSession,
    CreateUser,
    DeleteMessage,
    GetLog,
    GetMessages,
    Message,
    PutMedia,
    PutMediaPart,
    Reaction,
    SaveMessage,
    SaveReaction,
)
from backscroll.schema.log_file import BadLine, LogReader
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.requests import result

StartDaemon = Callable[..., DaemonProcess]
Run = Callable[..., tuple[int, str, str]]
Document = dict[str, Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`backscroll …`: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def said(number: int, content: str = "hello", metadata: Document | None = None) -> Message:
    return Message(id=f"m{number}", room_id="r1", sender_id="ada", content=content, timestamp=number, metadata=metadata)


def converse(client: Client) -> None:
    """A little of everything that a log must carry: ids and tokens of the daemon's, bytes, a batch, a deletion."""
    user = client.execute(CreateUser("key"))
    channel = client.execute(CreateChannel("general"))
    client.execute(CreateMessage(channel.id, user.id, "ünïcödé\n\u2028"))
    client.execute(SaveMessage(said(1)))
    client.execute(SaveMessage(said(2, "a secret")))
    client.execute(SaveReaction(Reaction(message_id="m1", oder_id="bo", emoji="👋")))
    client.execute(Batch.of([SaveMessage(said(3)), SaveMessage(said(4, "another secret"))]))
    client.execute(DeleteMessage("m2"))
    client.execute(DeleteMessage("m4"))
    part = client.execute(PutMediaPart(b"\x00bytes\xff"))
    client.execute(PutMedia([part], "image/png"))
    client.execute(CreateSession(user.id, 10**9))


def write(path: Path, lines: Iterable[Document | str]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def without(header: str, key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(header).items() if name != key})


def save(number: int, content: str = "hello", **fields: Any) -> Document:
    message = {"id": f"m{number}", "roomId": "r1", "senderId": "ada", "content": content, "timestamp": number}
    return {"type": "save-message", "payload": {"message": message}, **fields}


def tamper(directory: Path, change: str) -> None:
    with closing(sqlite3.connect(directory / "default.db")) as database:
        database.create_function("forged", 1, lambda facts: facts.replace(b"m1", b"m9"))
        database.execute(change)
        database.commit()


def contents(daemon: DaemonProcess, scope: str = "default") -> list[str]:
    with Client(daemon.endpoint, scope=scope) as client:
        return [message.content for message in client.ask(GetMessages("r1"))]


@pytest.fixture
def exported(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> Path:
    """The log of a conversation with the daemon that runs in `tmp_path / "data"`."""
    with Client(start_daemon().endpoint) as client:
        converse(client)
    code, out, err = run("log", "export", "--data-dir", tmp_path / "data")
    assert (code, err) == (0, "")
    (tmp_path / "log.jsonl").write_text(out, encoding="utf-8")
    return tmp_path / "log.jsonl"


def test_a_log_replayed_leads_to_the_same_rows(exported: Path, run: Run, tmp_path: Path) -> None:
    """Export and replay give every row again, ids and tokens included, and the log itself, chain and all."""
    code, out, err = run(
        "replay", exported, "--into", tmp_path / "again", "--verify", "--against-data-dir", tmp_path / "data"
    )
    assert (code, out) == (0, ""), err
    assert "12 commands in" in err
    code, out, _ = run("log", "export", "--data-dir", tmp_path / "again")
    assert (code, out) == (0, exported.read_text(encoding="utf-8"))
    assert "secret" not in out


def test_an_exported_file_can_be_verified(exported: Path, run: Run) -> None:
    """A file that is as it was exported ends in the chain that its header says; so does a part of it."""
    code, out, err = run("log", "verify", exported)
    assert (code, err) == (0, "")
    assert "whole up to seq 12" in out
    assert "as its header says" in out


def test_verify_says_how_much_can_be_held_against_digests(
    exported: Path, start_daemon: StartDaemon, run: Run, tmp_path: Path
) -> None:
    """What is redacted is known by a digest of something else, so it is counted: of a file, and of a daemon's log."""
    held = "default: 10 of 12 payloads match their digest, 2 are redacted and cannot be compared"
    for words in ([exported], ["--data-dir", tmp_path / "data"]):
        code, out, _ = run("log", "verify", *words)
        assert (code, out.splitlines()[1:]) == (0, [held])
    again = write(tmp_path / "hand.jsonl", [save(1)])
    assert run("log", "verify", again)[1].splitlines()[1] == ("default: 1 of 1 payloads match their digest")
    with Client(start_daemon("--command-log", "ids-only", data_dir=tmp_path / "ids").endpoint) as client:
        client.execute(SaveMessage(said(1)))
    _, out, _ = run("log", "verify", "--data-dir", tmp_path / "ids")
    assert out.endswith("0 of 1 payloads match their digest, 1 was not kept\n")


def forged(line: str, content: str, **fields: Any) -> str:
    """A line with another content for every message in it, whose digest is as it was."""
    document = json.loads(line)
    commands = document["payload"].get("commands", [document])
    for command in commands:
        command["payload"]["message"]["content"] = content
    return json.dumps(document | fields)


def test_a_forged_line_cannot_call_itself_redacted(exported: Path, run: Run, tmp_path: Path) -> None:
    """A digest is chained: whoever writes something else into a line has to leave that as it was. Then the line is one
    more that calls itself redacted, and what stands in such a line is held against nothing, which is said.
    """
    [endpoint] = json.loads((tmp_path / "data" / "endpoint.json").read_text())["endpoints"]
    with Client(endpoint) as client:
        digests = {entry.seq: entry.digest for entry in client.ask(GetLog()).entries}
    lines = exported.read_text(encoding="utf-8").split("\n")[:-1]
    changes = {
        forged(lines[4], "forged"): "the chain up to seq 12 differs",  # with another digest, then
        forged(lines[4], "forged", digest=digests[4]): "line 5: seq 4: the payload does not match its digest",
        forged(lines[4], "forged", digest=digests[5], redacted=True): "the chain up to seq 12 differs",
        forged(lines[4], "forged", redacted=True): "line 5: $.digest: a redacted command needs the digest",
    }
    for line, named in changes.items():
        code, out, err = run("log", "verify", write(tmp_path / "changed.jsonl", [*lines[:4], line, *lines[5:]]))
        assert (code, out) == (1, "")
        assert named in err
    hollow = [*lines[:4], forged(lines[4], "forged", redacted=True, digest=digests[4]), *lines[5:]]
    code, out, _ = run("log", "verify", write(tmp_path / "hollow.jsonl", hollow))
    assert (code, "9 of 12 payloads" in out, "3 are redacted" in out) == (0, True, True)  # that much must be said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda lines: [*lines[:4], lines[4].replace("hello", "howdy"), *lines[5:]],
            "the chain up to seq 12 differs from the header's",
        ),
        (
            lambda lines: [*lines[:4], lines[4].replace('"at": 1', '"at": 2'), *lines[5:]],
            "the chain up to seq 12 differs from the header's",
        ),
        (lambda lines: [*lines[:4], *lines[5:]], "line 5: $.seq: 5 where 4 is expected"),
        (lambda lines: lines[:-1], "default: the lines end with seq 11; the header says 12"),
        (lambda lines: lines[:1], "default: the lines end with seq 0; the header says 12"),
    ],
)
def test_a_changed_file_is_found_out(
    exported: Path, run: Run, change: Callable[[list[str]], list[str]], named: str
) -> None:
    """What was said, when it was said, a line too few: each is exit 1, and says where."""
    write(exported, change(exported.read_text(encoding="utf-8").split("\n")[:-1]))
    code, out, err = run("log", "verify", exported)
    assert (code, out) == (1, "")
    assert named in err


def test_part_of_a_log(exported: Path, run: Run, tmp_path: Path) -> None:
    """`--from` and `--to` give a stretch with the chains at both its ends; from behind the last it is empty."""
    there = ("--data-dir", tmp_path / "data")
    _, out, _ = run("log", "export", *there, "--from", 3, "--to", 5)
    assert [json.loads(line).get("seq") for line in out.splitlines()] == [None, 3, 4, 5]
    part = write(tmp_path / "part.jsonl", out.splitlines())
    assert "whole up to seq 5" in run("log", "verify", part)[1]
    code, out, _ = run("log", "export", *there, "--from", 13)
    assert code == 0
    header = json.loads(out)
    assert (header["from"], header["to"], header["chainStart"]) == (13, 12, header["chainEnd"])
    assert run("log", "verify", write(part, [out.strip()]))[0] == 0
    code, out, err = run("log", "export", *there, "--from", 14)
    assert (code, out) == (1, "")
    assert "ends at seq 12" in err


def test_parts_put_together_are_the_whole(exported: Path, run: Run, tmp_path: Path) -> None:
    """Each header is held against what stands before it: a log can be exported bit by bit and checked as one."""
    there = ("--data-dir", tmp_path / "data")
    parts = [run("log", "export", *there, *words)[1] for words in (("--to", 5), ("--from", 6))]
    whole = write(tmp_path / "whole.jsonl", [part.rstrip("\n") for part in parts])
    assert "whole up to seq 12" in run("log", "verify", whole)[1]
    assert run("replay", whole, "--verify", "--against-data-dir", tmp_path / "data")[0] == 0
    changed = [parts[0].rstrip("\n").replace("hello", "howdy"), parts[1].rstrip("\n")]
    assert run("log", "verify", write(whole, changed))[0] == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda first, second: [*first, second[0]], "default: the lines end with seq 5; the header says 12"),
        (
            lambda first, second: [*first[:-1], *second],
            "line 6: default: the lines end with seq 4; the header says 5",
        ),
        (
            lambda first, second: [first[0], *second],
            "line 2: default: the lines end with seq 0; the header says 5",
        ),
        (
            lambda first, second: [*first, *second, second[0]],
            "line 15: the lines before this header do not lead to its chainStart",
        ),
        (
            lambda first, second: [*first, without(second[0], "to").replace('"from": 6', '"from": 7'), second[1]],
            "line 7: the lines before this header end with seq 5, and it begins with 7",
        ),
        (
            lambda first, second: [*first, without(second[0], "to"), *second[1:-1]],
            "default: the chain up to seq 11 differs from the header's",
        ),
        (
            lambda first, second: [*first, *second, '{"format": "backscroll-log", "scope": "ada", "to": 3}'],
            "ada: the lines end with seq 0; the header says 3",
        ),
    ],
)
def test_parts_of_which_something_is_cut_off_are_found_out(
    exported: Path, run: Run, tmp_path: Path, change: Callable[[list[str], list[str]], list[str]], named: str
) -> None:
    """Every header is held against what stands before it and what follows, be it nothing at all."""
    there = ("--data-dir", tmp_path / "data")
    parts = [run("log", "export", *there, *words)[1].split("\n")[:-1] for words in (("--to", 5), ("--from", 6))]
    code, out, err = run("log", "verify", write(tmp_path / "whole.jsonl", change(*parts)))
    assert (code, out) == (1, "")
    assert named in err


def test_the_log_of_a_directory_is_verified_with_and_without_a_daemon(
    start_daemon: StartDaemon, run: Run, tmp_path: Path
) -> None:
    """Through the daemon that is there, else through one of its own, which leaves nothing running."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        converse(client)
        last = client.ask(GetLog(12)).entries[0].chain
    for words in (("--endpoint", daemon.endpoint), ("--data-dir", tmp_path / "data")):
        code, out, err = run("log", "verify", *words)
        assert (code, err) == (0, "")
        assert out.startswith(f"default: the log is whole up to seq 12, chain {last}\n")
    daemon.stop()
    assert run("log", "verify", "--data-dir", tmp_path / "data")[0] == 0
    assert run("log", "verify", "--data-dir", tmp_path / "data")[0] == 0  # the first let go of the lock


def test_the_address_that_a_killed_daemon_left_hangs_nobody(
    start_daemon: StartDaemon, run: Run, tmp_path: Path
) -> None:
    """After `kill -9` its `endpoint.json` is still there; it is tried for a moment, then the directory is opened."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        client.execute(SaveMessage(said(1)))
    daemon.kill()
    assert (tmp_path / "data" / "endpoint.json").exists()
    code, out, _ = run("log", "export", "--data-dir", tmp_path / "data")
    assert (code, len(out.splitlines())) == (0, 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "UPDATE commands SET payload = (SELECT payload FROM commands WHERE seq = 5) WHERE seq = 4",
            "seq 4: the payload",
        ),
        ("UPDATE commands SET at = at + 1 WHERE seq = 4", "seq 4: the entry does not fit"),
        ("UPDATE commands SET salt = zeroblob(16) WHERE seq = 4", "seq 4: the payload"),
        ("UPDATE commands SET facts = forged(facts) WHERE seq = 4", "seq 4: the entry does not fit"),
        ("DELETE FROM commands WHERE seq = 4", "seq 5: number 4 is missing before it"),
        ("DELETE FROM commands WHERE seq = 12", "seq 12: missing; the scope is at 12"),
        ("DELETE FROM commands WHERE seq = 1", "seq 1: missing; the log begins with 2"),
        ("DELETE FROM commands WHERE seq < 12", "seq 1: missing; the log begins with 12"),
        ("UPDATE sequence SET log_from = 2", "seq 2: missing; the log begins with 1"),
        ("DELETE FROM commands", "seq 1: missing; the scope is at 12"),
    ],
)
def test_a_log_that_was_tampered_with_is_found_out(tmp_path: Path, change: str, named: str) -> None:
    """The first entry that is not what it was is named."""
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        converse(client)
    tamper(tmp_path, change)
    with InProcess(tmp_path) as transport, Client(transport=transport) as client, pytest.raises(Broken, match=named):
        verify_scope(client)


@pytest.mark.parametrize(
    ("change", "words", "named"),
    [
        ("DELETE FROM commands", [], "seq 1: missing in the log, which has 1 to 12"),
        ("DELETE FROM commands WHERE seq = 12", [], "seq 12: missing in the log, which has 1 to 12"),
        ("DELETE FROM commands WHERE seq = 4", ["--to", "4"], "seq 4: missing in the log, which has 1 to 12"),
        ("DELETE FROM commands WHERE seq = 4", ["--from", "4"], "seq 4: missing in the log, which has 1 to 12"),
    ],
)
def test_a_log_whose_ends_are_missing_is_not_exported(
    run: Run, tmp_path: Path, change: str, words: list[str], named: str
) -> None:
    """A header that says what the file does not hold would be worse than none."""
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        converse(client)
    tamper(tmp_path, change)
    code, out, err = run("log", "export", "--data-dir", tmp_path, *words)
    assert (code, out) == (1, "")
    assert named in err


def test_a_log_that_begins_later_is_exported_and_verified(run: Run, tmp_path: Path) -> None:
    """A file from before there was a log has one from some number on; what is before it is an empty stretch."""
    with InProcess(tmp_path):
        pass
    tamper(tmp_path, "UPDATE sequence SET seq = 49, log_from = 50")
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        assert verify_scope(client).seq == 49
        client.execute(SaveMessage(said(1)))
        assert verify_scope(client).seq == 50
    for words, seqs in ([], [None, 50]), (["--to", 3], [None]), (["--from", 50], [None, 50]):
        code, out, _ = run("log", "export", "--data-dir", tmp_path, *words)
        assert (code, [json.loads(line).get("seq") for line in out.splitlines()]) == (0, seqs)
        assert run("log", "verify", write(tmp_path / "log.jsonl", out.splitlines()))[0] == 0


def test_verify_exits_with_1_where_a_log_was_tampered_with(run: Run, tmp_path: Path) -> None:
    """So a script that makes copies can refuse to."""
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        converse(client)
    tamper(tmp_path, "UPDATE commands SET at = at + 1 WHERE seq = 4")
    code, out, err = run("log", "verify", "--data-dir", tmp_path)
    assert (code, out) == (1, "")
    assert "seq 4: " in err


def test_a_directory_that_another_process_holds_is_left_alone(run: Run, tmp_path: Path) -> None:
    """One without an address to reach it by, as in a test of an application: exit 1, and nothing is touched."""
    with InProcess(tmp_path):
        code, out, err = run("log", "verify", "--data-dir", tmp_path)
    assert (code, out) == (1, "")
    assert "exit code 3" in err


@pytest.mark.parametrize("words", [["log", "export"], ["log", "verify"]])
def test_a_directory_without_a_database_is_refused_and_not_made(run: Run, tmp_path: Path, words: list[str]) -> None:
    """A mistyped name is exit 2, and no empty database appears under it."""
    code, out, err = run(*words, "--data-dir", tmp_path / "data")
    assert (code, out) == (2, "")
    assert "holds no database" in err
    assert not (tmp_path / "data").exists()


def test_a_scope_that_is_not_there_is_not_made_either(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Asking would be using, which makes a scope: so the names are asked for first."""
    start_daemon()
    for _ in range(2):
        code, out, err = run("log", "export", "--data-dir", tmp_path / "data", "--scope", "nobody")
        assert (code, out) == (2, "")
        assert "there is no scope 'nobody'; the scopes are: 'default'" in err


def test_a_bad_line_stops_a_replay_and_what_came_before_stays(
    start_daemon: StartDaemon, run: Run, tmp_path: Path
) -> None:
    """Found here or by the daemon, in the middle of a chunk: exit 1 with the line; the commands before it are kept."""
    unknown = {"type": "update-message", "payload": {"messageId": "none", "updates": {}}}
    untyped = {"type": "save-message", "payload": {"message": {"id": "m", "timestamp": "late"}}}
    for name, bad, complaint in (("a", unknown, "none"), ("b", untyped, "$.payload.message.timestamp: ")):
        log = write(tmp_path / "log.jsonl", ["# a comment", save(1), save(2, "there"), bad, save(3)])
        code, out, err = run("replay", log, "--into", tmp_path / name)
        assert (code, out) == (1, "")
        assert "backscroll: line 4: $." in err
        assert complaint in err
        assert contents(start_daemon(data_dir=tmp_path / name)) == ["hello", "there"]


def test_a_replay_stops_where_it_is_told_to(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """After a number or a time; what follows need not be of a kind that can be carried out."""
    gone = {"type": "save-message", "payload": None, "digest": "00" * 32}
    log = write(tmp_path / "log.jsonl", [*(save(number, str(number)) for number in range(1, 5)), gone])
    for words, last in (("--until", 2), 2), (("--at", "2026-01-01T00:00:02Z"), 3), (("--at", 1767225600999), 1):
        directory = tmp_path / "-".join(map(str, words)).replace(":", "")
        assert run("replay", log, "--into", directory, *words)[0] == 0
        assert contents(start_daemon(data_dir=directory)) == [str(number + 1) for number in range(last)]


def test_a_scope_that_begins_later_in_the_file_is_not_left_out(
    start_daemon: StartDaemon, run: Run, tmp_path: Path
) -> None:
    """Each scope comes to the end for itself, wherever its lines stand; one that has ended does not begin again."""
    first, second = [save(number, f"d{number}") for number in range(1, 4)], [save(1, "x1"), save(2, "x2")]
    log = write(tmp_path / "log.jsonl", first + [line | {"scope": "x"} for line in second])
    assert run("replay", log, "--into", tmp_path / "both", "--until", 2)[0] == 0
    daemon = start_daemon(data_dir=tmp_path / "both")
    assert (contents(daemon), contents(daemon, "x")) == (["d1", "d2"], ["x1", "x2"])
    times = [save(1, "a", at=1), save(2, "b", at=9), save(3, "c", at=2), save(1, "x", at=5, scope="x")]
    assert run("replay", write(log, times), "--into", tmp_path / "times", "--at", 5)[0] == 0
    daemon = start_daemon(data_dir=tmp_path / "times")
    assert (contents(daemon), contents(daemon, "x")) == (["a"], ["x"])


def test_a_bad_line_after_the_end_is_found_too(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Whose it is cannot be told, so it is complained of; what was to be carried out is."""
    log = write(tmp_path / "log.jsonl", [save(1, "a"), save(2, "b"), "{"])
    code, _, err = run("replay", log, "--into", tmp_path / "data", "--until", 1)
    assert (code, "line 3: not a JSON object" in err) == (1, True)
    assert contents(start_daemon()) == ["a"]


def test_each_scope_gets_its_lines(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Lines of several scopes go into several scopes; `--scope` picks those of one."""
    log = write(
        tmp_path / "log.jsonl",
        [save(1, "d"), save(1, "a", scope="ada"), save(2, "d", seq=2), save(2, "a", scope="ada")],
    )
    assert run("replay", log, "--into", tmp_path / "both")[0] == 0
    daemon = start_daemon(data_dir=tmp_path / "both")
    assert (contents(daemon), contents(daemon, "ada")) == (["d", "d"], ["a", "a"])
    against = ("--verify", "--against-endpoint", daemon.endpoint)
    assert run("replay", log, *against)[:2] == (0, "")
    code, _, err = run("replay", log, "--scope", "ada", *against)
    assert code == 0
    assert "2 commands in" in err


def test_a_recording_is_a_log_that_can_be_replayed(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """What `serve --record` writes of all scopes leads to the same rows."""
    daemon = start_daemon("--record", str(tmp_path / "recording.jsonl"))
    with closing(Clients(daemon.endpoint)) as clients:
        for scope in ("default", "ada"):
            converse(clients[scope])
    code, out, err = run("replay", tmp_path / "recording.jsonl", "--verify", "--against-endpoint", daemon.endpoint)
    assert (code, out) == (0, ""), err
    assert "24 commands in" in err


def test_differences_are_shown_row_by_row(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """With table, key and column, left the replay and right what it is compared with; at most twenty of a table."""
    with Client(start_daemon().endpoint) as client:
        for number in range(1, 3):
            client.execute(SaveMessage(said(number)))
    there = ("--verify", "--against-data-dir", tmp_path / "data")
    log = write(tmp_path / "log.jsonl", [save(1, "howdy"), save(3)])
    code, out, _ = run("replay", log, *there)
    assert code == 1
    assert out.splitlines() == [
        'default: messages m1: content: "howdy" ≠ "hello"',
        "default: messages m2: missing in the replay",
        "default: messages m3: only in the replay",
    ]
    code, out, err = run("replay", write(log, [save(number) for number in range(3, 103)]), *there)
    assert code == 1
    assert len(out.splitlines()) == 21
    assert out.splitlines()[-1] == "default: messages: and 82 more"
    assert "the replay ends at seq 100, and what it is compared with at 2" in err


def test_a_replay_begins_in_an_empty_place(run: Run, tmp_path: Path) -> None:
    """A directory that holds a database is exit 2, a log whose beginning is missing exit 1; neither leaves anything."""
    log = write(tmp_path / "log.jsonl", [save(1)])
    assert run("replay", log, "--into", tmp_path / "data")[0] == 0
    code, _, err = run("replay", log, "--into", tmp_path / "data")
    assert code == 2
    assert "holds a database already" in err
    code, _, err = run("replay", write(log, [save(1, seq=34)]), "--into", tmp_path / "later")
    assert code == 1
    assert "line 1: the log of the scope 'default' begins at seq 34" in err
    assert not (tmp_path / "later").exists()


def test_commands_whose_payloads_were_not_kept_cannot_be_carried_out(
    start_daemon: StartDaemon, run: Run, tmp_path: Path
) -> None:
    """With `--command-log ids-only` there is a log that can be exported and verified, but not replayed."""
    with Client(start_daemon("--command-log", "ids-only").endpoint) as client:
        client.execute(SaveMessage(said(1, "a secret")))
    assert run("log", "verify", "--data-dir", tmp_path / "data")[0] == 0
    code, out, _ = run("log", "export", "--data-dir", tmp_path / "data")
    assert code == 0
    assert "secret" not in out
    log = write(tmp_path / "log.jsonl", out.splitlines())
    assert run("log", "verify", log)[0] == 0
    code, _, err = run("replay", log)
    assert code == 1
    assert "line 2: $.payload: it was not kept" in err


@pytest.mark.parametrize(
    "words",
    [
        ["log"],
        ["log", "export", "--from", "0"],
        ["log", "export", "--to", "x"],
        ["replay"],
        ["replay", "log.jsonl", "--until", "-1"],
        ["replay", "no-such-file.jsonl"],
        ["replay", "log.jsonl", "--at", "yesterday"],
        ["replay", "log.jsonl", "--against-data-dir", "x"],
        ["log", "verify", "no-such-file.jsonl"],
    ],
)
def test_wrong_words_exit_with_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage, or a message that says what is wrong."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "log.jsonl", [save(1)])
    try:
        code = main(words)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert capsys.readouterr().err


def test_in_a_pipe(exported: Path, tmp_path: Path) -> None:
    """`export | replay -` copies a scope; a reader that has seen enough is no error to be told of."""
    program = "import sys; from backscroll.clients.command_line.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program]
    export = [*command, "log", "export", "--data-dir", str(tmp_path / "data")]
    copy = [*command, "replay", "-", "--into", str(tmp_path / "copy")]
    first = subprocess.run(export, capture_output=True, check=True)
    second = subprocess.run(copy, input=first.stdout, capture_output=True, check=False)
    assert (second.returncode, second.stdout) == (0, b"")
    assert b"12 commands in" in second.stderr
    with subprocess.Popen(export, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_what_is_sent_together_is_bounded(client: Client) -> None:
    """A thousand commands, or half a megabyte of lines; a larger line goes alone. Sent again they change nothing."""
    sizes = [100] * 2_100 + [200_000] * 7 + [900_000, 100]
    lines = [json.dumps(save(number, "x" * size)).encode() + b"\n" for number, size in enumerate(sizes)]
    chunks = list(replay(LogReader().read(lines), lambda _: client))
    assert [len(chunk.lines) for chunk in chunks[:2]] == [1_000, 1_000]
    assert all(chunk.size <= CHUNK_BYTES or len(chunk.lines) == 1 for chunk in chunks)
    assert sum(len(chunk.lines) for chunk in chunks) == len(lines)
    before = state_of(client)
    assert sum(len(chunk.lines) for chunk in replay(LogReader().read(lines), lambda _: client)) == len(lines)
    assert (state_of(client), client.ask(GetLog(limit=1)).last_seq) == (before, len(lines))


def test_many_batches_are_not_sent_together(client: Client) -> None:
    """Their commands count: more than the daemon takes in one piece go in several."""
    batch = {"type": "batch", "payload": {"commands": [{"type": "initialize"}] * 1_000}}
    lines = [json.dumps(batch, separators=(",", ":")).encode()] * 25
    assert len(b"".join(lines[:22])) < CHUNK_BYTES
    assert [len(chunk.lines) for chunk in replay(LogReader().read(lines), lambda _: client)] == [19, 6]


MUCH = {
    MSGPACK: ("save-message", {"message": said(1, metadata={"said": "\x01" * 1_000_000})}),
    JSON: (
        "save-room",
        {
            "room": {
                "id": "r",
                "name": "r",
                "members": [{"oderId": str(number), "metadata": {"said": [0.5] * 48_000}} for number in range(5)],
            }
        },
    ),
}


@pytest.mark.parametrize("codec", MUCH, ids=["taken as MessagePack", "taken as JSON"])
def test_what_was_taken_in_one_encoding_is_replayed_from_the_other(run: Run, tmp_path: Path, codec: Codec) -> None:
    """A command near the limit of free JSON is some times larger as a line or in `append-log`; nothing refuses it."""
    name, payload = MUCH[codec]
    with InProcess(tmp_path / "data") as transport:
        assert len(codec.encode(payload)) <= 2**20
        assert max(len(JSON.encode(payload)), len(MSGPACK.encode(payload))) > 2 * 2**20
        result(transport, name, payload, codec)
    code, out, _ = run("log", "export", "--data-dir", tmp_path / "data")
    log = write(tmp_path / "log.jsonl", out.split("\n")[:-1])
    assert code == 0
    assert run("log", "verify", log)[0] == 0
    assert run("log", "verify", "--data-dir", tmp_path / "data")[0] == 0
    code, out, err = run("replay", log, "--verify", "--against-data-dir", tmp_path / "data")
    assert (code, out) == (0, ""), err


def test_a_line_longer_than_any_request_is_refused_unread() -> None:
    """Whatever file it is that was named, memory stays bounded."""
    file = io.BytesIO(b"12345\n" + b"x" * 100)
    with pytest.raises(BadLine, match="line 2: longer than 6 bytes"):
        list(lines_of(file, bytes_max=6))
    assert file.tell() == 13
