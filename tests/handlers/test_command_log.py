"""The command log: what it records, what it never records, redaction of deleted text, and compaction."""

import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from msgspec import Raw
from msgspec.structs import replace

from backscroll.clients.python import Client
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers import command_log
from backscroll.handlers.storage import Retention
from backscroll.schema import Command, CompactScope, GetMessages
from backscroll.schema.command_log import (
    CHAIN_START,
    FORMAT,
    Facts,
    LogEntry,
    as_logged,
    canonical,
    chain_after,
    digest_of,
    encode_facts,
)
from backscroll.schema.limits import BODY_BYTES_MAX
from backscroll.schema.operations import OPERATIONS
from backscroll.schema.operations.decoding import decode_operation
from backscroll.schema.tables import CONTENT, InternalColumn
from backscroll.schema.ulid import time_of
from backscroll.schema.wire import Codec
from tests.support.clocks import Clock
from tests.support.disks import FaultyDisk
from tests.support.histories import HistoryRunner, Step, histories, texts_in
from tests.support.local import JSON, MSGPACK, REPLAYED, Local, bytes_in, check_replay, found_in
from tests.support.messages import save_payload
from tests.support.peers import Peer
from tests.support.requests import body, example, in_sensible_order
from tests.support.sql import sql
from tests.support.stopping_daemon import StoppingDaemon

Plain = dict[str, Any]

SECRET = "a text that is deleted"
KEPT = "a text that stays"
HASHES = {"chain": "0" * 64, "digest": "0" * 64}


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Iterator[Local]:
    with Local(tmp_path / "data", clock=clock) as local:
        yield local


def canonical_of(name: str, payload: Any, codec: Codec = MSGPACK) -> bytes:
    """The canonical form in which a payload is stored and hashed, decoded as a daemon decodes it."""
    command = decode_operation(name, Raw(codec.encode(payload)), codec)
    assert isinstance(command, Command)
    return canonical(command)


def check_chain(entries: list[Plain]) -> None:
    """Recompute the hash chain from the entries alone."""
    chain = CHAIN_START
    for plain in entries:
        entry = MSGPACK.decode(MSGPACK.encode(plain), LogEntry)
        assert entry.digest is not None
        facts = Facts(
            FORMAT, entry.principal, bytes.fromhex(entry.digest), entry.changes, entry.generated, entry.sender
        )
        chain = chain_after(chain, entry.seq, entry.at, entry.type, entry.id, encode_facts(facts))
        assert entry.chain == chain.hex()


def check_entries(local: Local, sent: list[tuple[str, str, Plain]], codec: Codec) -> None:
    """Check that the log has exactly the commands that took effect, as sent or without deleted text."""
    entries = local.entries(codec=codec)
    own = [entry for entry in entries if entry["id"].startswith(("history-", "example-"))]
    assert [(entry["id"], entry["type"]) for entry in own] == [(request_id, name) for request_id, name, _ in sent]
    for entry, (_, name, payload) in zip(own, sent, strict=True):
        wanted = canonical_of(name, payload, JSON)
        assert ("salt" in entry) is not entry.get("redacted", False)
        if not entry.get("redacted"):
            assert entry["digest"] == digest_of(bytes.fromhex(entry["salt"]), wanted).hex()
            assert canonical_of(name, entry["payload"], codec) == wanted
    salts = [entry["salt"] for entry in entries if "salt" in entry]
    assert len(set(salts)) == len(salts)
    check_chain(entries)


# Contents


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
def test_commands_are_logged_as_they_were_sent(local: Local, codec: Codec) -> None:
    """A payload in the log is the command that was sent; digest and chain are as the protocol defines them."""
    sent = []
    for number, operation in enumerate(in_sensible_order()):
        if not issubclass(operation, Command):
            continue
        payload, request_id = example(operation), f"example-{number:03}"
        if local.ask(operation.wire_name, payload, request_id)["ok"]:
            sent.append((request_id, operation.wire_name, payload))
    assert len(sent) > 20
    check_entries(local, sent, codec)


def test_the_log_has_exactly_the_executed_commands(long: bool) -> None:
    """For random histories: the log has each command that succeeded, as it was sent or redacted, with the digest of
    what was sent, in a verifiable chain, and no command that was refused.
    """

    def check_history(history: list[Step]) -> None:
        directory = Path(tempfile.mkdtemp(prefix="backscroll-log-"))
        local = Local(directory, clock=(clock := Clock()))
        try:
            runner = HistoryRunner(local, clock)
            for step in history:
                runner.execute(step)
            check_entries(runner.local, runner.accepted, JSON)
            check_entries(runner.local, runner.accepted, MSGPACK)
        finally:
            local.close()
            shutil.rmtree(directory)

    settings(max_examples=1_000 if long else 20)(given(histories(3))(check_history))()


def test_refused_commands_are_not_logged(local: Local) -> None:
    """Refused alone, in a batch or by its encoding, a command has no row and no number."""
    local.result("save-message", save_payload(1))
    for operation, payload in (
        ("delete-message", {"messageId": "none"}),
        ("save-message", {"message": {"id": "m2"}}),
        ("batch", {"commands": [{"type": "save-message", "payload": save_payload(2)}, {"type": "ping"}]}),
        (
            "batch",
            {
                "commands": [
                    {"type": "save-message", "payload": save_payload(2)},
                    {"type": "delete-message", "payload": {"messageId": "no"}},
                ]
            },
        ),
    ):
        local.code(operation, payload)
    assert [entry["type"] for entry in local.entries()] == ["save-message"]
    assert local.rows("messages")[0]["id"] == "m1"
    assert len(local.rows("messages")) == 1


def test_session_tokens_are_never_written_to_disk(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """Tokens, made alone or in a batch, deleted or not, are in no file of the data directory."""
    daemon = start_daemon()
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("save-user", {"user": {"oderId": "ada", "id": "u1", "username": "ada"}})["ok"]
        tokens = [f"the secret token number {number}" for number in range(6)]
        begin = [{"userId": "ada", "durationMs": 3_600_000, "token": token} for token in tokens]
        assert all(peer.ask("create-session", each)["ok"] for each in begin[:3])
        batch = [{"type": "create-session", "payload": each} for each in begin[3:]]
        assert peer.ask("batch", {"commands": batch})["ok"]
        assert peer.ask("delete-session", {"token": tokens[0]})["ok"]
        ending = {"commands": [{"type": "delete-session", "payload": {"token": tokens[3]}}]}
        assert peer.ask("batch", ending)["ok"]
        assert peer.ask("get-session", {"token": tokens[0]})["result"] is None
        assert peer.ask("get-session", {"token": tokens[1]})["result"]["userId"] == "ada"
        assert found_in(tmp_path / "data", *tokens) == {}
        log_text = repr(peer.ask("get-log", {}))
        assert not [token for token in tokens if token in log_text]
        assert hashlib.sha256(tokens[0].encode()).hexdigest() in log_text
    daemon.stop()
    assert found_in(tmp_path / "data", *tokens) == {}


PASSWORD = "open sesame 4711"


def test_passwords_of_rooms_are_kept_only_in_the_room(tmp_path: Path) -> None:
    """A reader of the room gets the password; no entry, log file or snapshot has it, and a replay does without."""
    room = {"id": "r1", "name": "Home", "hasPassword": True, "password": PASSWORD}
    updates = {"password": f"{PASSWORD} updated", "topic": "tea"}
    members = [
        {"type": "save-room", "payload": {"room": room | {"id": "r2"}}},
        {"type": "update-room", "payload": {"roomId": "r2", "updates": updates}},
    ]
    with Local(tmp_path / "data") as local:
        local.result("save-room", {"room": room}, "saved")
        local.result("update-room", {"roomId": "r1", "updates": updates})
        local.result("batch", {"commands": members})
        assert local.result("save-room", {"room": room | {"password": "another"}}, "saved") is None, "a retry"
        assert [local.result("get-room", {"roomId": each})["password"] for each in ("r1", "r2")] == [
            updates["password"]
        ] * 2
        assert PASSWORD not in repr(local.entries())
        assert PASSWORD not in repr(local.tables()["commands"])
        local.replay(local.entries())
        check_replay(local, REPLAYED)
        again = local.result("get-room", {"roomId": "r2"}, scope=REPLAYED)
        assert ("password" in again, again["hasPassword"], again["topic"]) == (False, True, "tea")
        local.result("compact-scope", scope=REPLAYED)
        assert all("scopes" not in name for name in found_in(local.directory, PASSWORD)[PASSWORD])


def secret_fields() -> list[tuple[type[Command[Any]], str, str]]:
    """The commands with a record that has secrets: the command, the name of the record, and of the secret."""
    commands = [each for each in OPERATIONS.values() if issubclass(each, Command)]
    hints = [(command, name, hint) for command in commands for name, hint in get_type_hints(command).items()]
    return [(command, name, secret) for command, name, hint in hints for secret in getattr(hint, "SECRET", ())]


@pytest.mark.parametrize(("command", "name", "secret"), secret_fields())
def test_a_field_marked_secret_is_not_logged(command: type[Command[Any]], name: str, secret: str) -> None:
    """The log has the command without it, whichever record of the payload it is in."""
    made = msgspec.convert(example(command), command)
    made = replace(made, **{name: replace(getattr(made, name), **{secret: PASSWORD})})
    assert PASSWORD.encode() in JSON.encode(made)
    assert PASSWORD.encode() not in JSON.encode(as_logged(made))
    assert PASSWORD.encode() not in canonical(made)


# Redaction


def write_about_message(local: Local, *, text: str = SECRET, batched: bool = False) -> None:
    """Write a text about message m1 with every kind of command."""
    reaction = {"messageId": "m1", "oderId": "ada", "emoji": text}
    attachment = {"id": "a1", "messageId": "m1", "filename": text, "size": 1, "mime": "a/b", "metadata": {"a": text}}
    free: dict[str, Any] = {"metadata": {text: [text]}, "linkMetadata": {"a": {"b": text}}}
    commands = [
        ("save-message", save_payload(1, text, reactions=[reaction], **free)),
        ("update-message", {"messageId": "m1", "updates": {"content": text, "reactions": [reaction], **free}}),
        ("save-reaction", {"reaction": reaction}),
        ("remove-reaction", reaction),
        ("save-reaction", {"reaction": reaction}),
        ("save-attachment", {"attachment": attachment}),
    ]
    if batched:
        local.result("batch", {"commands": [{"type": name, "payload": payload} for name, payload in commands]})
        return
    for name, payload in commands:
        local.result(name, payload)


DELETIONS: dict[str, tuple[str, Plain]] = {
    "delete-message": ("delete-message", {"messageId": "m1"}),
    "save-deleted": ("save-message", save_payload(1, SECRET, isDeleted=True)),
    "update-deleted": ("update-message", {"messageId": "m1", "updates": {"isDeleted": True, "content": SECRET}}),
    "clear-room-messages": ("clear-room-messages", {"roomId": "r1"}),
    "delete-room": ("delete-room", {"roomId": "r1"}),
    "delete-channel": ("delete-channel", {"channelId": "c1", "roomId": "r1", "cascade": True}),
    "clear-all-data": ("clear-all-data", {}),
}


def with_channel(local: Local) -> None:
    channels = [{"id": "c1", "name": "c", "type": "text"}]
    local.result("save-room", {"room": {"id": "r1", "name": "r", "channels": channels}})


@pytest.mark.parametrize("batched", [False, True], ids=["alone", "batched"])
@pytest.mark.parametrize("way", DELETIONS)
def test_deleted_text_is_redacted_in_every_command(local: Local, way: str, batched: bool) -> None:
    """However a message is deleted, its text is removed from every row, and the text of other messages stays; rows,
    digests and chain stay valid, and the redacted log still replays to the same rows.
    """
    with_channel(local)
    local.result("save-message", save_payload(2, KEPT, room_id="other"))
    write_about_message(local, batched=batched)
    local.result("update-message", {"messageId": "m1", "updates": {"channelId": "c1"}})
    before = local.entries()
    assert SECRET in repr(before)
    operation, payload = DELETIONS[way]
    if batched and operation != "clear-all-data":
        local.result("batch", {"commands": [{"type": operation, "payload": payload}]})
    else:
        local.result(operation, payload)
    if "-deleted" in way or way == "delete-message":
        write_about_deleted_message(local)
    after = local.entries()
    assert SECRET not in repr(local.tables())
    assert (KEPT in repr(after)) == (operation != "clear-all-data")
    hidden = {"payload": None, "redacted": None, "salt": None}
    assert [entry | hidden for entry in after[: len(before)]] == [entry | hidden for entry in before]
    check_chain(after)
    local.replay(after)
    check_replay(local, "replayed")


def write_about_deleted_message(local: Local) -> None:
    """Write the text about a message that was deleted; these late commands have no effect."""
    reaction = {"messageId": "m1", "oderId": "ada", "emoji": SECRET}
    attachment = {"id": "a1", "messageId": "m1", "filename": SECRET, "size": 1, "mime": "a/b"}
    local.result("save-message", save_payload(1, SECRET, reactions=[reaction]))
    local.result("save-reaction", {"reaction": reaction})
    local.result("remove-reaction", reaction)
    local.result("save-attachment", {"attachment": attachment})
    assert local.code("update-message", {"messageId": "m1", "updates": {"content": SECRET}}) == "conflict"


def test_text_a_batch_writes_and_deletes_is_not_logged(local: Local) -> None:
    """A batch that creates a message and clears its room keeps neither the text nor the result that contained it."""
    with_channel(local)
    local.result("save-user", {"user": {"oderId": "ada", "id": "u1", "username": "ada"}})
    fields = {"channelId": "c1", "roomId": "r1", "authorId": "ada", "content": SECRET}
    commands = [
        {"type": "create-message", "payload": fields},
        {"type": "save-message", "payload": save_payload(3, SECRET)},
        {"type": "clear-room-messages", "payload": {"roomId": "r1"}},
        {"type": "save-message", "payload": save_payload(4, KEPT)},
    ]
    made = local.result("batch", {"commands": commands}, "batch-1")
    assert made[0]["content"] == SECRET
    assert SECRET not in repr(local.tables())
    assert KEPT in repr(local.entries())
    assert local.code("batch", {"commands": commands}, "batch-1") == "conflict"
    local.replay(local.entries())
    check_replay(local, "replayed")


def test_a_moved_attachment_is_redacted_with_its_last_message(local: Local) -> None:
    """Deleting the message that it is on now redacts every command that named the attachment."""
    for number in (1, 2):
        local.result("save-message", save_payload(number, KEPT))
        attachment = {"id": "a1", "messageId": f"m{number}", "filename": SECRET, "size": 1, "mime": "a/b"}
        local.result("save-attachment", {"attachment": attachment})
    local.result("delete-message", {"messageId": "m2"})
    assert local.rows("attachments") == []
    assert SECRET not in repr(local.tables())


def test_payloads_larger_in_the_log_than_as_sent_can_be_deleted(local: Local) -> None:
    """Free JSON within the limit of a request may exceed it as MessagePack; it can be deleted, and the redacted log
    still replays to the same rows.
    """
    many = [0.5] * 45_000  # of four bytes each in JSON, and nine in MessagePack
    room = {"id": "r1", "name": SECRET, "roles": many, "roleAssignments": many, "channelPermissions": many}
    local.result("save-room", {"room": room | {"permissions": {"a": many}}})
    local.replay(local.entries(codec=JSON), "as-sent", codec=JSON)
    assert local.state("as-sent") == local.state()
    local.result("delete-room", {"roomId": "r1"})
    assert SECRET not in repr(local.tables())
    local.replay(local.entries())
    check_replay(local, "replayed")


def test_deleted_media_are_redacted_with_their_bytes(local: Local) -> None:
    """Their commands stay in the log without payload, with numbers and ids; put again they are new media."""
    part = local.result("put-media-part", {"data": "c2VjcmV0"})
    first = local.result("put-media", {"parts": [part], "mime": SECRET})
    assert local.result("put-media", {"parts": [part], "mime": SECRET})["id"] == first["id"]
    local.result("delete-media", {"mediaId": first["id"]})
    entries = local.entries()
    assert [("payload" in entry, entry.get("redacted", False)) for entry in entries] == [
        *((False, True), (False, True), (False, True), (True, False))
    ]
    assert SECRET not in repr(local.tables())
    local.result("put-media-part", {"data": "c2VjcmV0"})
    second = local.result("put-media", {"parts": [part], "mime": KEPT})
    assert second["id"] > first["id"]
    local.replay(local.entries())
    check_replay(local, "replayed")
    assert found_in(local.directory, SECRET).keys() <= {SECRET}


def test_results_with_deleted_text_are_dropped(local: Local) -> None:
    """A retry of a command whose result had deleted text is a conflict with its `seq`; a null result is repeated."""
    with_channel(local)
    local.result("save-user", {"user": {"oderId": "ada", "id": "u1", "username": "ada"}})
    fields = {"channelId": "c1", "roomId": "r1", "authorId": "ada", "content": SECRET}
    made = local.ask("create-message", fields, "made-1")
    assert local.ask("create-message", fields, "made-1") == made
    saved = local.ask("save-message", save_payload(1, SECRET), "saved-1")
    local.result("clear-room-messages", {"roomId": "r1"})
    retried = local.ask("create-message", fields, "made-1")["error"]
    assert (retried["code"], retried["details"]["seq"]) == ("conflict", made["seq"])
    assert local.ask("save-message", save_payload(1, SECRET), "saved-1") == saved
    assert local.rows("messages") == []


def test_deleted_text_cannot_be_confirmed_by_guessing(local: Local) -> None:
    """A retry is compared with the whole payload while its text exists, and later only by id and type; the salt that
    would be needed to check the digest of a guess is erased.
    """
    saved = local.ask("save-message", save_payload(1, SECRET), "saved-1")
    assert local.ask("save-message", save_payload(1, SECRET), "saved-1") == saved
    assert local.code("save-message", save_payload(1, "a guess"), "saved-1") == "conflict"
    [entry] = local.entries()
    local.result("delete-message", {"messageId": "m1"})
    for text in (SECRET, "a guess"):
        assert local.ask("save-message", save_payload(1, text), "saved-1") == saved
    assert local.code("delete-message", {"messageId": "m1"}, "saved-1") == "conflict"
    redacted = local.entries()[0]
    salt = bytes.fromhex(entry["salt"])
    wanted = digest_of(salt, canonical_of("save-message", save_payload(1, SECRET))).hex()
    assert redacted["digest"] == entry["digest"] == wanted
    assert "salt" not in redacted
    assert salt not in b"".join(
        value for row in local.tables()["commands"] for value in row if isinstance(value, bytes)
    )


# Retention


def test_results_expire_by_number_and_age(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result is dropped once it is both old and many commands back; null results never expire."""
    monkeypatch.setattr(command_log, "DROP_RESULTS_MAX", 3)
    keys = [{"pubkey": f"k{number}"} for number in range(10)]
    with Local(tmp_path / "data", clock=clock, retention=Retention(results=4, results_ms=100)) as local:
        first = [local.ask("create-user", key, f"user-{number}") for number, key in enumerate(keys[:6])]
        nothing = local.ask("set-current-user-id", {"userId": "ada"}, "nothing-1")

        def answered() -> int:
            replies = [local.ask("create-user", key, f"user-{number}") for number, key in enumerate(keys)]
            for number, reply in enumerate(replies[:6]):
                if not reply["ok"]:
                    assert reply["error"]["details"]["seq"] == number + 1
                    assert reply["error"]["code"] == "conflict"
                else:
                    assert reply == first[number]
            return sum(reply["ok"] for reply in replies)

        local.dispatcher.run_chores("default")
        clock.now += 99
        assert answered() == 10  # the last four are made by `answered`
        local.dispatcher.run_chores("default")
        assert answered() == 10  # seven commands back and more, but young
        clock.now += 1
        local.dispatcher.run_chores("default")
        assert answered() == 7  # three at a time
        local.dispatcher.run_chores("default")
        assert answered() == 4
        local.dispatcher.run_chores("default")
        local.dispatcher.run_chores("default")
        assert answered() == 4
        clock.now += 1_000_000
        for _ in range(5):
            local.dispatcher.run_chores("default")
        assert answered() == 4  # the last four are kept at any age
        assert local.ask("set-current-user-id", {"userId": "ada"}, "nothing-1") == nothing
        assert len(local.entries()) == 11


def test_a_log_of_ids_has_no_payloads(tmp_path: Path, clock: Clock) -> None:
    """Without payloads in the log none is in any file; retries still work and other payloads are conflicts, but nothing
    replays.
    """
    with Local(tmp_path / "data", clock=clock, retention=Retention(payloads=False)) as local:
        made = local.ask("create-user", {"pubkey": "k1", "displayName": KEPT}, "user-1")
        assert local.ask("create-user", {"pubkey": "k1", "displayName": KEPT}, "user-1") == made
        assert local.code("create-user", {"pubkey": "k1", "displayName": "other"}, "user-1") == "conflict"
        local.result("save-message", save_payload(1, SECRET))
        local.result("batch", {"commands": [{"type": "save-message", "payload": save_payload(1, KEPT)}]})
        entries = local.entries()
        assert [entry.get("payload") for entry in entries] == [None] * 3
        check_chain(entries)
        assert local.code("append-log", {"entries": entries}, scope="other") == "invalid"
        local.result("delete-message", {"messageId": "m1"})
        local.result("compact-scope")
        assert SECRET not in repr(local.tables())
        assert SECRET not in found_in(local.directory, SECRET)


# Compaction


def fill_and_delete(local: Local) -> Plain:
    """Fill a scope with texts of which some are deleted; its rows."""
    for number in range(40):
        local.result("save-message", save_payload(number, f"{SECRET} {number} " * 20))
        local.result("save-message", save_payload(number + 100, f"{KEPT} {number} " * 20))
    for number in range(40):
        local.result("delete-message", {"messageId": f"m{number}"})
    return dict(local.tables())


def check_compacted(directory: Path) -> None:
    assert list(found_in(directory, SECRET, KEPT)) == [KEPT]
    assert not [name for name in bytes_in(directory) if "compacted" in name]


def test_compaction_leaves_no_byte_of_deleted_text(tmp_path: Path, clock: Clock) -> None:
    """`compact-scope` leaves deleted texts in no file, and all rows, the log and the retries as they were."""
    with Local(tmp_path / "data", clock=clock) as local:
        before = fill_and_delete(local)
        seq = local.store().seq
        local.result("compact-scope")
        check_compacted(local.directory)
        assert local.tables() == before
        assert local.ask("save-message", save_payload(500))["seq"] == seq + 1
        local.result("compact-scope")
        check_compacted(local.directory)
    check_compacted(tmp_path / "data")
    with Local(tmp_path / "data", clock=clock) as local:
        assert local.store().seq == seq + 1
        check_chain(local.entries())


def test_compaction_waits_for_running_queries(local: Local) -> None:
    """A query reads the old file to its end, and only then the files are exchanged."""
    before = fill_and_delete(local)
    replies: list[Plain] = []
    with local.scopes.use("default") as store, store.read() as snapshot:
        rows = snapshot.rows(sql("SELECT * FROM commands"))
        thread = threading.Thread(target=lambda: replies.append(local.ask("compact-scope")))
        thread.start()
        assert snapshot.rows(sql("SELECT * FROM commands")) == rows
    thread.join()
    assert replies[0]["ok"]
    check_compacted(local.directory)
    assert local.tables() == before


HOLDER = """
import sys
from contextlib import closing
import apsw
with closing(apsw.Connection(sys.argv[1])) as database:
    database.execute("BEGIN").execute("SELECT count(*) FROM messages").fetchall()
    print("open", flush=True)
    sys.stdin.read()
"""
"""Another process: reads the file and keeps it open until its standard input ends."""


def test_compaction_is_busy_while_another_process_has_the_file(local: Local) -> None:
    """It is `busy` and retryable, nothing is lost, and it succeeds later."""
    before = fill_and_delete(local)
    command = [sys.executable, "-c", HOLDER, str(local.store().path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        error = local.ask("compact-scope")["error"]
        assert (error["code"], error["retryable"]) == ("busy", True)
        assert local.tables() == before
        local.result("save-message", save_payload(500, KEPT))
        other.communicate()
    local.result("compact-scope")
    check_compacted(local.directory)
    assert len(local.tables()["messages"]) == 81


def test_compaction_on_a_full_disk_loses_nothing(tmp_path: Path, clock: Clock) -> None:
    """Wherever the disk fills up, compaction either fails as a whole or is complete, and leaves no partial file."""
    disk = FaultyDisk()
    with Local(tmp_path / "data", clock=clock, vfs=disk.name) as local:
        before = fill_and_delete(local)
        outcomes = []
        for writes in [*range(0, 24, 3), *range(30, 200, 25)]:
            disk.writes_until_full = writes
            reply = local.ask("compact-scope")
            disk.writes_until_full, disk.full = None, False
            outcomes.append(reply["ok"])
            if not reply["ok"]:
                assert reply["error"]["code"] in ("storage", "busy")  # busy: a checkpoint was not possible
                assert reply["error"]["retryable"]
            assert local.tables() == before
            assert not list(local.directory.glob("*compacted*"))
        assert outcomes[0] is False
        assert local.ask("compact-scope")["ok"]
        check_compacted(local.directory)
        assert local.tables() == before


def test_a_kill_during_compaction_loses_nothing(tmp_path: Path, long: bool) -> None:
    """Killed at any write or sync, a compaction is complete or has no effect, and a later one cleans up."""
    data, draw = tmp_path / "data", random.Random(20260103)
    with Local(data) as local:
        before = fill_and_delete(local)
    for write in [0, 1, *draw.sample(range(2, 30), 20 if long else 1)]:
        daemon = StoppingDaemon(data)
        try:
            with Peer(daemon.endpoint) as peer:
                assert len(peer.ask("get-messages", {"roomId": "r1"})["result"]) == 80
                daemon.stop_at(write)
                peer.request("compact-scope")
                daemon.wait_until_stopped()
        finally:
            daemon.kill()
        with Local(data) as local:
            assert local.tables() == before
            check_chain(local.entries())
    with Local(data) as local:
        local.result("compact-scope")
        check_compacted(data)
        assert local.tables() == before


def test_deleting_a_scope_removes_files_of_a_killed_compaction(tmp_path: Path) -> None:
    """Nothing of the scope is left on disk."""
    with Local(tmp_path / "data") as local:
        local.result("save-message", save_payload(1, SECRET), scope="ada")
        local.scopes.scope_named("ada").path.with_suffix(".db-compacted").write_text(SECRET)
        local.result("delete-scope", scope="ada")
        assert found_in(local.directory, SECRET) == {}


def test_commands_and_queries_continue_during_compactions(start_daemon: Callable[..., DaemonProcess]) -> None:
    """While clients write, read and compact, every request gets a reply and every acknowledged command is there."""
    daemon = start_daemon("--log-level", "warning")
    with Client(daemon.endpoint) as client:
        stopped = threading.Event()
        compacted: list[None] = []

        def compact() -> None:
            with Client(daemon.endpoint) as other:
                while not stopped.is_set():
                    compacted.append(other.execute(CompactScope()))

        threads = [threading.Thread(target=compact) for _ in range(2)]
        for thread in threads:
            thread.start()
        with Peer(daemon.endpoint) as peer:
            for number in range(60):
                assert peer.ask("save-message", save_payload(number))["seq"] == number + 1
                assert len(client.ask(GetMessages("r1", limit=500))) == number + 1
        stopped.set()
        for thread in threads:
            thread.join()
        assert len(compacted) >= 2


# Pages


def test_log_pages_are_limited_in_bytes(local: Local) -> None:
    """However many entries are requested, a page has at most a few megabytes, and the pages together have
    every entry.
    """
    for number in range(12):
        local.result("save-message", save_payload(number, "x" * 900_000))
        local.result("put-media-part", {"data": bytes([number]) * 2**20}, codec=MSGPACK)
    request = body("get-log", {"limit": 500}, MSGPACK)
    reply = local.answer(request)
    assert 0 < len(reply) < 9 * 2**20
    assert len(local.entries()) == 24
    assert [entry["seq"] for entry in local.entries(limit=1)] == list(range(1, 25))


@pytest.mark.parametrize("from_seq", [2, 3, 2**31, 2**53 - 1])
def test_a_log_page_beyond_the_end_is_empty(local: Local, from_seq: int) -> None:
    """Its chain is that of the last entry."""
    local.result("initialize")
    page = local.result("get-log", {"fromSeq": from_seq})
    assert page | {"entries": [], "chainStart": local.entries()[0]["chain"], "lastSeq": 1} == page


@pytest.mark.parametrize("from_seq", [0, -1, 2**53, 2**63 - 1, 2**63, 2**64 - 1])
def test_get_log_from_an_invalid_number_is_invalid(local: Local, from_seq: int) -> None:
    """Numbers are from 1 to 2**53 - 1."""
    assert local.code("get-log", {"fromSeq": from_seq}) == "invalid"


@pytest.mark.parametrize("limit", [1, 3, 16, 17, 500])
def test_get_rows_returns_every_row_once_in_key_order(local: Local, limit: int) -> None:
    """Pages of any size cover every row of every table, without the daemon's internal columns."""
    fill(local, 40)
    wanted = local.tables()
    for table in CONTENT:
        meta: Any = table._meta
        names = [name for name, field in meta.fields.items() if not isinstance(field, InternalColumn)]
        rows = local.rows(meta.table_name, limit=limit)
        assert len(rows) == len(wanted[meta.table_name]) > 0
        assert all(list(row) == names for row in rows)
        key = meta.primary_key.field_names if meta.composite_key else [meta.primary_key.name]
        keys = [tuple(row[name] for name in key) for row in rows]
        assert keys == sorted(set(keys), key=lambda each: [v.encode() if isinstance(v, str) else v for v in each])


def fill(local: Local, number: int) -> None:
    """A number of rows in every table, some of whose keys have a common prefix."""
    odd = ["a", "a\x01", "a\x01b", "é", "z", "\ue000", "\U00010000"]
    ids = [f"{odd[at % len(odd)]}{at // len(odd)}" for at in range(number)]
    local.result("set-current-user-id", {"userId": "ada"})
    children = [{"id": each, "name": "c"} for each in ids]
    room = {"id": "r1", "name": "r", "categories": children, "members": [{"oderId": each} for each in ids]}
    local.result("save-room", {"room": room | {"channels": [each | {"type": "text"} for each in children]}})
    commands: list[tuple[str, Plain]] = []
    for each in ids:
        reaction = {"messageId": each, "oderId": each, "emoji": each}
        removal = reaction | {"emoji": "-", "timestamp": 1, "arrival": "any-order"}
        waiting = {"messageId": f"{each}-waiting", "updates": {"content": ""}, "arrival": "any-order"}
        attachment = {"id": each, "messageId": each, "filename": "f", "size": 1, "mime": "a/b"}
        commands += [
            ("save-message", save_payload(each, "", reactions=[reaction], metadata={"a": 1})),
            ("save-attachment", {"attachment": attachment}),
            ("remove-reaction", removal),
            ("update-message", waiting),
            ("rename-message", {"messageId": f"{each}-local", "newId": each}),
            ("save-user", {"user": {"oderId": each, "id": each, "username": "u"}}),
            ("save-room", {"room": {"id": each, "name": "r"}}),
            ("save-ban", {"ban": {"roomId": "r1", "oderId": each, "timestamp": 1}}),
            ("create-session", {"userId": each, "durationMs": 1, "token": f"token {each}".ljust(22)}),
        ]
    local.result("batch", {"commands": [{"type": name, "payload": payload} for name, payload in commands]})
    part = local.result("put-media-part", {"data": "aGVsbG8="})
    for count in range(1, number // 4):
        local.result("put-media", {"parts": [part] * count, "mime": "a/b"})


def test_row_pages_are_limited_in_bytes(local: Local) -> None:
    """A page of rows of many megabytes each has few of them, and at least one."""
    text = "x" * 2**20
    fields = ("username", "displayName", "description", "avatarUrl", "avatarHash")
    for number in range(9):
        user = {"oderId": f"u{number}", "id": "u"} | dict.fromkeys(fields, text)
        local.result("save-user", {"user": user}, codec=MSGPACK)
    assert [row["oder_id"] for row in local.rows("users")] == [f"u{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("table", "after"),
    [
        *(("messages", after) for after in ([], ["a", "b"], [1], [True], [None], [1.5], [["a"]], [2**63])),
        *(
            ("media_parts", after)
            for after in (["a"], ["a", "0"], ["a", 2**63], ["a", -(2**63)], [0, "a"], ["a", True])
        ),
    ],
)
def test_get_rows_refuses_an_invalid_key(local: Local, table: str, after: list[Any]) -> None:
    """`after` must have as many values as the key of the table, of the types of its columns."""
    assert local.code("get-rows", {"table": table, "after": after}) == "invalid"


@pytest.mark.parametrize("table", ["commands", "log_references", "sequence", "scope", "sqlite_schema", "Messages", ""])
def test_get_rows_shows_content_tables_only(local: Local, table: str) -> None:
    """Internal tables and unknown ones are `not-found`."""
    assert local.code("get-rows", {"table": table}) == "not-found"


# Replay


def entry_of(seq: int, name: str = "initialize", payload: Any = None, **fields: Any) -> Plain:
    return {"seq": seq, "at": 1, "id": f"line-{seq}", "type": name, "payload": payload or {}, **fields}


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (entry_of(4), "conflict"),
        (entry_of(2), "conflict"),  # there by then, and with another id
        (entry_of(3, id="line-1"), "conflict"),
        (entry_of(3, digest="0" * 64), "invalid"),
        (entry_of(3, digest="zz"), "invalid"),
        (entry_of(3, payload=None) | {"payload": None}, "invalid"),
        (entry_of(3, redacted=True), "invalid"),
        (entry_of(3, "ping"), "invalid"),
        (entry_of(3, "get-log"), "invalid"),
        (entry_of(3, "append-log", {"entries": [entry_of(1)]}), "invalid"),
        (entry_of(3, "nonsense"), "unknown-operation"),
        (entry_of(3, "delete-message", {"messageId": "none"}), "not-found"),
        (entry_of(3, "create-user", {"pubkey": "k"}, generated={"ids": []}), "invalid"),
        (entry_of(3, "create-user", {"pubkey": "k"}, generated={"ids": ["none"]}), "invalid"),
        (entry_of(3, "initialize", generated={"ids": ["01KDVDNA00MBHX6K6QJCA9AVSS"]}), "invalid"),
        (entry_of(3, "create-user", {"pubkey": "k"}, generated={"ids": ["0" * 26]}), "invalid"),
        (entry_of(3, redacted=True, digest="0" * 64, generated={"ids": ["0" * 26]}) | {"payload": None}, "invalid"),
    ],
)
def test_an_invalid_entry_fails_the_whole_append(local: Local, bad: Plain, code: str) -> None:
    """The error names the first entry that cannot follow, and none of the others has an effect."""
    user = {"user": {"oderId": "ada", "id": "u1", "username": "ada"}}
    local.result("append-log", {"entries": [entry_of(1, "create-user", {"pubkey": "k1"})]})
    before = local.tables()
    second = entry_of(2, "save-user", user) | ({"id": "other"} if bad["seq"] == 2 else {})
    error = local.ask("append-log", {"entries": [second, bad]})["error"]
    assert error["code"] == code
    assert error["details"]["path"].startswith("$.payload.entries[1]")
    assert local.tables() == before
    local.result("append-log", {"entries": [second]})


def test_append_log_is_idempotent(local: Local) -> None:
    """Entries that are in the log are skipped, alone or before new ones; they are compared by id only."""
    entries = [entry_of(number, "save-message", save_payload(number)) for number in range(1, 8)]
    local.result("append-log", {"entries": entries[:5]})
    before = local.tables()
    local.result("append-log", {"entries": entries[:5]})
    local.result("append-log", {"entries": entries[2:4]})
    assert local.tables() == before
    local.result("append-log", {"entries": entries[3:]})
    assert [entry["id"] for entry in local.entries()] == [f"line-{number}" for number in range(1, 8)]


def test_an_entry_without_payload_only_takes_its_place(local: Local) -> None:
    """It takes its number, id, generated ids and place in the chain; a retry of it is a conflict."""
    made = "01KDVDNA00MBHX6K6QJCA9AVSS"
    about = {"seq": 1, "at": time_of(made), "id": "gone-1", "type": "create-user"}
    without_payload = about | {"redacted": True, "digest": "1" * 64}
    local.result("append-log", {"entries": [without_payload | {"generated": {"ids": [made]}}]})
    [entry] = local.entries()
    check_chain([entry])
    assert (entry["digest"], entry["generated"], entry["redacted"]) == ("1" * 64, {"ids": [made]}, True)
    assert local.rows("users") == []
    assert local.code("create-user", {"pubkey": "k"}, "gone-1") == "conflict"
    assert local.result("create-user", {"pubkey": "k"})["id"] > made


def test_a_full_disk_fails_an_append_as_a_whole(tmp_path: Path, clock: Clock) -> None:
    """On a full disk `append-log` is `storage`, retryable, and has no effect."""
    disk = FaultyDisk()
    with Local(tmp_path / "data", clock=clock, vfs=disk.name) as local:
        entries = [entry_of(number, "save-message", save_payload(number, "x" * 900_000)) for number in range(1, 30)]
        disk.full = True
        try:
            for entry in (entries[:1], entries[:10]):
                error = local.ask("append-log", {"entries": entry}, codec=MSGPACK)["error"]
                assert (error["code"], error["retryable"]) == ("storage", True)
        finally:
            disk.full = False
        assert local.tables()["messages"] == []
        local.result("append-log", {"entries": entries[:10]}, codec=MSGPACK)


def test_the_largest_command_can_be_replayed(local: Local) -> None:
    """The largest command that fits a request body can be replayed from its log entry."""

    def batch(last: int) -> bytes:
        texts = ["x" * 2**20] * (BODY_BYTES_MAX // 2**20 - 1) + ["y" * last]
        users = [{"oderId": "u", "id": "u", "username": text} for text in texts]
        commands = [{"type": "save-user", "payload": {"user": user}} for user in users]
        return body("batch", {"commands": commands}, MSGPACK, id="largest-1")

    request = batch(2**20 - len(batch(2**20)) + BODY_BYTES_MAX)
    assert len(request) == BODY_BYTES_MAX
    assert MSGPACK.decode(local.answer(request), Plain)["ok"]
    local.replay(local.entries())
    check_replay(local, "replayed")


def test_the_search_for_texts_covers_every_type() -> None:
    """The helper of these tests finds texts in text, in bytes and in JSON documents."""
    assert list(texts_in([("text-1.", b"\x00text-2.\xff", '{"a": "text-m1-0."}', None, 3)])) == [
        *("text-1.", "text-2.", "text-m1-0.")
    ]
