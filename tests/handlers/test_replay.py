"""`backscroll log` and `backscroll replay`: exporting, verifying and replaying logs, and detecting changed ones."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
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
    PutMedia,
    PutMediaPart,
    Reaction,
    SaveReaction,
)
from backscroll.schema.log_file import BadLine, LogReader
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.messages import message_record, save_message, save_payload
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
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def converse(client: Client) -> None:
    """A conversation with everything that a log has to carry: ids of the daemon, a session, bytes, a batch, a
    deletion.
    """
    user = client.execute(CreateUser("key"))
    channel = client.execute(CreateChannel("general"))
    client.execute(CreateMessage(channel.id, user.id, "ünïcödé\n\u2028"))
    client.execute(save_message(1))
    client.execute(save_message(2, "a secret"))
    client.execute(SaveReaction(Reaction(message_id="m1", oder_id="bo", emoji="👋")))
    client.execute(Batch.of([save_message(3), save_message(4, "another secret")]))
    client.execute(DeleteMessage("m2"))
    client.execute(DeleteMessage("m4"))
    part = client.execute(PutMediaPart(b"\x00bytes\xff"))
    client.execute(PutMedia([part], "image/png"))
    client.execute(CreateSession.with_new_token(user.id, 10**9))


def write(path: Path, lines: Iterable[Document | str]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def without(header: str, key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(header).items() if name != key})


def save(number: int, content: str = "hello", **fields: Any) -> Document:
    return {"type": "save-message", "payload": save_payload(number, content), **fields}


def with_other_id(*facts: Any) -> Any:
    return facts[0].replace(b"m1", b"m9")


def tamper(directory: Path, change: str) -> None:
    with closing(apsw.Connection(str(directory / "default.db"))) as database:
        database.create_scalar_function("forged", with_other_id, 1)
        database.execute(change)


def contents(daemon: DaemonProcess, scope: str = "default") -> list[str]:
    with Client(daemon.endpoint, scope=scope) as client:
        return [message.content for message in client.ask(GetMessages("r1"))]


@pytest.fixture
def exported(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> Path:
    """The exported log of a conversation with the daemon of `tmp_path / "data"`."""
    with Client(start_daemon().endpoint) as client:
        converse(client)
    code, out, err = run("log", "export", "--data-dir", tmp_path / "data")
    assert (code, err) == (0, "")
    (tmp_path / "log.jsonl").write_text(out, encoding="utf-8")
    return tmp_path / "log.jsonl"


def test_export_and_replay_reproduce_every_row(exported: Path, run: Run, tmp_path: Path) -> None:
    """The rows are equal with their ids and token hashes, and so is the log with its chain."""
    code, out, err = run(
        "replay", exported, "--into", tmp_path / "again", "--verify", "--against-data-dir", tmp_path / "data"
    )
    assert (code, out) == (0, ""), err
    assert "12 commands in" in err
    assert err.endswith("default: the rows of all tables are equal\n")
    code, out, _ = run("log", "export", "--data-dir", tmp_path / "again")
    assert (code, out) == (0, exported.read_text(encoding="utf-8"))
    assert "secret" not in out


def test_an_exported_file_can_be_verified(exported: Path, run: Run) -> None:
    """An unchanged file ends in the chain that its header names; so does an exported part of a log."""
    code, out, err = run("log", "verify", exported)
    assert (code, err) == (0, "")
    assert "whole up to seq 12" in out
    assert "as its header says" in out


def test_verify_counts_entries_checked_by_digest(
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
        client.execute(save_message(1))
    _, out, _ = run("log", "verify", "--data-dir", tmp_path / "ids")
    assert out.endswith("0 of 1 payloads match their digest, 1 was not kept\n")


def forged(line: str, content: str, **fields: Any) -> str:
    """A line with other text in every message of it, and the old digest."""
    document = json.loads(line)
    commands = document["payload"].get("commands", [document])
    for command in commands:
        command["payload"]["message"]["content"] = content
    return json.dumps(document | fields)


def test_a_forged_line_is_detected_or_counted_as_redacted(exported: Path, run: Run, tmp_path: Path) -> None:
    """The digest is part of the chain, so a forged line must keep it, and then be marked as redacted.

    The payload of a redacted line cannot be checked, which is reported in the counts.
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
    emptied = [*lines[:4], forged(lines[4], "forged", redacted=True, digest=digests[4]), *lines[5:]]
    code, out, _ = run("log", "verify", write(tmp_path / "emptied.jsonl", emptied))
    assert (code, "9 of 12 payloads" in out, "3 are redacted" in out) == (
        0,
        True,
        True,
    )  # what cannot be checked is counted


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
        (lambda lines: [*lines[:4], *lines[5:]], "line 5: $.seq: expected 4, got 5"),
        (lambda lines: lines[:-1], "default: the lines end with seq 11; the header says 12"),
        (lambda lines: lines[:1], "default: the lines end with seq 0; the header says 12"),
    ],
)
def test_a_changed_file_fails_verification(
    exported: Path, run: Run, change: Callable[[list[str]], list[str]], named: str
) -> None:
    """A changed text, a changed time and a missing line each exit with 1 and name the place."""
    write(exported, change(exported.read_text(encoding="utf-8").split("\n")[:-1]))
    code, out, err = run("log", "verify", exported)
    assert (code, out) == (1, "")
    assert named in err


def test_a_part_of_a_log_can_be_exported(exported: Path, run: Run, tmp_path: Path) -> None:
    """`--from` and `--to` select a range, with the chain at both ends; a range after the last entry is empty."""
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


def test_concatenated_parts_verify_as_a_whole(exported: Path, run: Run, tmp_path: Path) -> None:
    """Each header is compared with what stands before it, so that a log can be exported incrementally."""
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
            "line 7: the lines before this header end with seq 5, but it begins with 7",
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
def test_truncated_parts_fail_verification(
    exported: Path, run: Run, tmp_path: Path, change: Callable[[list[str], list[str]], list[str]], named: str
) -> None:
    """Each header is compared with what stands before it and what follows, even if that is nothing."""
    there = ("--data-dir", tmp_path / "data")
    parts = [run("log", "export", *there, *words)[1].split("\n")[:-1] for words in (("--to", 5), ("--from", 6))]
    code, out, err = run("log", "verify", write(tmp_path / "whole.jsonl", change(*parts)))
    assert (code, out) == (1, "")
    assert named in err


def test_verify_uses_a_running_daemon_or_its_own(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Without a running daemon it starts one of its own and stops it again."""
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
    assert run("log", "verify", "--data-dir", tmp_path / "data")[0] == 0  # the first has released the lock


def test_a_stale_endpoint_file_does_not_block_verify(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """The endpoint that a killed daemon left is tried for a moment, and then the directory is opened."""
    daemon = start_daemon()
    with Client(daemon.endpoint) as client:
        client.execute(save_message(1))
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
        ("DELETE FROM commands WHERE seq = 4", "seq 5: seq 4 is missing before it"),
    ],
)
def test_verify_names_the_first_changed_entry(tmp_path: Path, change: str, named: str) -> None:
    """A row that was changed in the database breaks the chain."""
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        converse(client)
    tamper(tmp_path, change)
    with InProcess(tmp_path) as transport, Client(transport=transport) as client, pytest.raises(Broken, match=named):
        verify_scope(client)


@pytest.mark.parametrize(
    ("change", "words", "named"),
    [
        ("DELETE FROM commands", [], "the daemon ended with exit code 4"),
        ("DELETE FROM commands WHERE seq = 12", [], "the daemon ended with exit code 4"),
        ("DELETE FROM commands WHERE seq = 4", ["--to", "4"], "seq 4: missing in the log, which has 1 to 12"),
        ("DELETE FROM commands WHERE seq = 4", ["--from", "4"], "seq 4: missing in the log, which has 1 to 12"),
    ],
)
def test_a_log_whose_ends_are_missing_is_not_exported(
    run: Run, tmp_path: Path, change: str, words: list[str], named: str
) -> None:
    """Nothing is written whose header would promise entries that are not there."""
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        converse(client)
    tamper(tmp_path, change)
    code, out, err = run("log", "export", "--data-dir", tmp_path, *words)
    assert (code, out) == (1, "")
    assert named in err


def test_a_log_that_does_not_begin_at_1_can_be_exported(run: Run, tmp_path: Path) -> None:
    """A file from before there was a log has entries from some number on; the range before it is empty."""
    with InProcess(tmp_path):
        pass
    tamper(tmp_path, "UPDATE sequence SET seq = 49, log_from = 50")
    (tmp_path / "default.db-last-commit").unlink()  # there was none then either
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        assert verify_scope(client).seq == 49
        client.execute(save_message(1))
        assert verify_scope(client).seq == 50
    for words, seqs in ([], [None, 50]), (["--to", 3], [None]), (["--from", 50], [None, 50]):
        code, out, _ = run("log", "export", "--data-dir", tmp_path, *words)
        assert (code, [json.loads(line).get("seq") for line in out.splitlines()]) == (0, seqs)
        assert run("log", "verify", write(tmp_path / "log.jsonl", out.splitlines()))[0] == 0


def test_verify_of_a_changed_log_exits_with_1(run: Run, tmp_path: Path) -> None:
    """Scripts that make backups can rely on the exit code."""
    with InProcess(tmp_path) as transport, Client(transport=transport) as client:
        converse(client)
    tamper(tmp_path, "UPDATE commands SET at = at + 1 WHERE seq = 4")
    code, out, err = run("log", "verify", "--data-dir", tmp_path)
    assert (code, out) == (1, "")
    assert "seq 4: " in err


def test_a_locked_directory_without_endpoint_exits_with_1(run: Run, tmp_path: Path) -> None:
    """A directory that is in use in another process, as in a test of an application, is not touched."""
    with InProcess(tmp_path):
        code, out, err = run("log", "verify", "--data-dir", tmp_path)
    assert (code, out) == (1, "")
    assert "exit code 3" in err


@pytest.mark.parametrize("words", [["log", "export"], ["log", "verify"]])
def test_a_directory_without_a_database_is_not_created(run: Run, tmp_path: Path, words: list[str]) -> None:
    """A mistyped name exits with 2, and no database is created."""
    code, out, err = run(*words, "--data-dir", tmp_path / "data")
    assert (code, out) == (2, "")
    assert "holds no database" in err
    assert not (tmp_path / "data").exists()


def test_an_unknown_scope_is_not_created(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """A scope without files is said not to exist, and is not created by that."""
    start_daemon()
    for _ in range(2):
        code, out, err = run("log", "export", "--data-dir", tmp_path / "data", "--scope", "nobody")
        assert (code, out) == (2, "")
        assert "there is no scope 'nobody'; `backscroll call list-scopes`" in err


def test_an_invalid_line_stops_a_replay(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """The exit code is 1 and the line is named; the commands before it are kept."""
    unknown = {"type": "update-message", "payload": {"messageId": "none", "updates": {}}}
    untyped = {"type": "save-message", "payload": {"message": {"id": "m", "timestamp": "late"}}}
    for name, bad, complaint in (("a", unknown, "none"), ("b", untyped, "$.payload.message.timestamp: ")):
        log = write(tmp_path / "log.jsonl", ["# a comment", save(1), save(2, "there"), bad, save(3)])
        code, out, err = run("replay", log, "--into", tmp_path / name)
        assert (code, out) == (1, "")
        assert "backscroll: line 4: $." in err
        assert complaint in err
        assert contents(start_daemon(data_dir=tmp_path / name)) == ["hello", "there"]


def test_a_replay_can_end_at_a_number_or_time(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Lines after that need not be replayable."""
    gone = {"type": "save-message", "payload": None, "digest": "00" * 32}
    log = write(tmp_path / "log.jsonl", [*(save(number, str(number)) for number in range(1, 5)), gone])
    for words, last in (("--until", 2), 2), (("--at", "2026-01-01T00:00:02Z"), 3), (("--at", 1767225600999), 1):
        directory = tmp_path / "-".join(map(str, words)).replace(":", "")
        assert run("replay", log, "--into", directory, *words)[0] == 0
        assert contents(start_daemon(data_dir=directory)) == [str(number + 1) for number in range(last)]


def test_the_end_of_a_replay_applies_to_each_scope(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Each scope reaches the end separately, wherever its lines are; a scope that has ended does not begin again."""
    first, second = [save(number, f"d{number}") for number in range(1, 4)], [save(1, "x1"), save(2, "x2")]
    log = write(tmp_path / "log.jsonl", first + [line | {"scope": "x"} for line in second])
    assert run("replay", log, "--into", tmp_path / "both", "--until", 2)[0] == 0
    daemon = start_daemon(data_dir=tmp_path / "both")
    assert (contents(daemon), contents(daemon, "x")) == (["d1", "d2"], ["x1", "x2"])
    times = [save(1, "a", at=1), save(2, "b", at=9), save(3, "c", at=2), save(1, "x", at=5, scope="x")]
    assert run("replay", write(log, times), "--into", tmp_path / "times", "--at", 5)[0] == 0
    daemon = start_daemon(data_dir=tmp_path / "times")
    assert (contents(daemon), contents(daemon, "x")) == (["a"], ["x"])


def test_an_invalid_line_after_the_end_is_reported(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Its scope cannot be known, so it is an error; the commands before the end are executed."""
    log = write(tmp_path / "log.jsonl", [save(1, "a"), save(2, "b"), "{"])
    code, _, err = run("replay", log, "--into", tmp_path / "data", "--until", 1)
    assert (code, "line 3: not a JSON object" in err) == (1, True)
    assert contents(start_daemon()) == ["a"]


def test_replay_writes_each_line_to_its_scope(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """`--scope` selects the lines of one scope."""
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


def test_a_recording_can_be_replayed(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """What `serve --record` writes of all scopes replays to the same rows."""
    daemon = start_daemon("--record", str(tmp_path / "recording.jsonl"))
    with closing(Clients(daemon.endpoint)) as clients:
        for scope in ("default", "ada"):
            converse(clients[scope])
    code, out, err = run("replay", tmp_path / "recording.jsonl", "--verify", "--against-endpoint", daemon.endpoint)
    assert (code, out) == (0, ""), err
    assert "24 commands in" in err


def test_differences_are_shown_row_by_row(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """Each with table, key and column, the replay on the left; at most twenty of a table."""
    with Client(start_daemon().endpoint) as client:
        for number in range(1, 3):
            client.execute(save_message(number))
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


def test_a_replay_needs_an_empty_directory_and_a_whole_log(run: Run, tmp_path: Path) -> None:
    """A directory with a database exits with 2, a log without its beginning with 1, and neither changes anything."""
    log = write(tmp_path / "log.jsonl", [save(1)])
    assert run("replay", log, "--into", tmp_path / "data")[0] == 0
    code, _, err = run("replay", log, "--into", tmp_path / "data")
    assert code == 2
    assert "holds a database already" in err
    code, _, err = run("replay", write(log, [save(1, seq=34)]), "--into", tmp_path / "later")
    assert code == 1
    assert "line 1: the log of the scope 'default' begins at seq 34" in err
    assert not (tmp_path / "later").exists()


def test_a_log_of_ids_cannot_be_replayed(start_daemon: StartDaemon, run: Run, tmp_path: Path) -> None:
    """With `--command-log ids-only` a log can be exported and verified, but not replayed."""
    with Client(start_daemon("--command-log", "ids-only").endpoint) as client:
        client.execute(save_message(1, "a secret"))
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
def test_wrong_arguments_exit_with_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the usage, or with a message that names the mistake."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "log.jsonl", [save(1)])
    try:
        code = main(words)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert capsys.readouterr().err


def test_export_and_replay_work_in_a_pipe(exported: Path, tmp_path: Path) -> None:
    """`export | replay -` copies a scope; a closed pipe is not reported as an error."""
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


def test_replay_requests_are_limited_in_size(client: Client) -> None:
    """A request has at most a thousand commands or half a megabyte of lines; repeating them changes nothing."""
    sizes = [100] * 2_100 + [200_000] * 7 + [900_000, 100]
    lines = [json.dumps(save(number, "x" * size)).encode() + b"\n" for number, size in enumerate(sizes)]
    chunks = list(replay(LogReader().read(lines), lambda _: client))
    assert [len(chunk.lines) for chunk in chunks[:2]] == [1_000, 1_000]
    assert all(chunk.size <= CHUNK_BYTES or len(chunk.lines) == 1 for chunk in chunks)
    assert sum(len(chunk.lines) for chunk in chunks) == len(lines)
    before = state_of(client)
    assert sum(len(chunk.lines) for chunk in replay(LogReader().read(lines), lambda _: client)) == len(lines)
    assert (state_of(client), client.ask(GetLog(limit=1)).last_seq) == (before, len(lines))


def test_commands_in_batches_count_for_the_size_of_a_request(client: Client) -> None:
    """Batches with more commands than the daemon accepts at once are sent in several requests."""
    batch = {"type": "batch", "payload": {"commands": [{"type": "initialize"}] * 1_000}}
    lines = [json.dumps(batch, separators=(",", ":")).encode()] * 25
    assert len(b"".join(lines[:22])) < CHUNK_BYTES
    assert [len(chunk.lines) for chunk in replay(LogReader().read(lines), lambda _: client)] == [19, 6]


MUCH = {
    MSGPACK: ("save-message", {"message": message_record(1, metadata={"said": "\x01" * 1_000_000})}),
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
def test_a_command_accepted_in_one_encoding_replays_in_the_other(run: Run, tmp_path: Path, codec: Codec) -> None:
    """A command near the limit of free JSON is several times larger as a line or in `append-log`, and still
    accepted.
    """
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


def test_an_oversized_line_is_refused_without_reading_it() -> None:
    """Whatever file is given, memory stays bounded."""
    file = io.BytesIO(b"12345\n" + b"x" * 100)
    with pytest.raises(BadLine, match="line 2: the line is longer than 6 bytes"):
        list(lines_of(file, bytes_max=6))
    assert file.tell() == 13
