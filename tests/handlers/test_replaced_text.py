"""Text that edits replace: it stays in the command log until its item is deleted, or leaves it at once if so set."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers.storage import Retention
from tests.support.clocks import Clock
from tests.support.local import REPLAYED, Local, check_replay
from tests.support.messages import message_document, save_payload
from tests.support.peers import Peer
from tests.support.random_commands import RandomCommands

Plain = dict[str, Any]
OLD, NEW = "what it said before", "what it says now"
COMMANDS, COMMANDS_LONG = 1_000, 20_000
REPLACEABLE_AT, CONTENT_BIT = 5, 1
TEXT = re.compile(r"text \d+")
COVERED = {"save-message", "update-message", "create-message", "save-reaction", "remove-reaction", "save-attachment"}


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Iterator[Local]:
    """A store whose log does not keep replaced text."""
    with Local(tmp_path / "data", clock=clock, retention=Retention(redact_replaced=True)) as local:
        yield local


def execute(local: Local, commands: list[tuple[str, Plain]], *, batched: bool = False) -> None:
    """Execute commands, alone or together."""
    if batched:
        local.result("batch", {"commands": [{"type": name, "payload": payload} for name, payload in commands]})
        return
    for name, payload in commands:
        local.result(name, payload)


def saved(content: str, **fields: Any) -> tuple[str, Plain]:
    return "save-message", save_payload("m1", content, **fields)


def updated(**updates: Any) -> tuple[str, Plain]:
    return "update-message", {"messageId": "m1", "updates": updates}


def reaction(note: str | None, emoji: str = "+") -> Plain:
    metadata = {} if note is None else {"metadata": {"note": note}}
    return {"messageId": "m1", "oderId": "ada", "emoji": emoji} | metadata


def reacted(note: str | None, emoji: str = "+") -> tuple[str, Plain]:
    return "save-reaction", {"reaction": reaction(note, emoji)}


def attached(filename: str, message_id: str = "m1") -> tuple[str, Plain]:
    return "save-attachment", {"attachment": {"id": "a1", "messageId": message_id, "filename": filename}}


def any_order(command: tuple[str, Plain]) -> tuple[str, Plain]:
    """The same as an event that may come in any order."""
    return command[0], command[1] | {"arrival": "any-order"}


def reacted_at(timestamp: int, note: str) -> tuple[str, Plain]:
    return any_order(("save-reaction", {"reaction": reaction(note) | {"timestamp": timestamp}}))


RENAMED = ("rename-message", {"messageId": "m1", "newId": "m2"})
HISTORIES: dict[str, list[tuple[str, Plain]]] = {
    "update": [saved(OLD), updated(content=NEW)],
    "update again": [saved(OLD), updated(content=OLD), updated(content=OLD), updated(content=NEW)],
    "save over it": [saved(OLD, metadata={"a": OLD}, linkMetadata={"a": OLD}), saved(NEW)],
    "save over an update": [saved(OLD), updated(content=OLD, metadata={"a": OLD}), saved(NEW)],
    "only the metadata": [saved(NEW, metadata={"a": OLD}), updated(metadata={"a": NEW})],
    "metadata is cleared": [saved(NEW, metadata={"a": OLD}), updated(metadata=None)],
    "the metadata stays": [saved(OLD, metadata={"a": NEW}), updated(content=NEW), updated(content=NEW)],
    "where it came from": [saved(NEW, forwardedFrom={"chat": OLD}), updated(forwardedFrom={"chat": NEW})],
    "who is mentioned": [saved(NEW, mentions=[OLD, NEW]), updated(mentions=[OLD]), updated(mentions=[NEW])],
    "nobody is mentioned": [saved(NEW, mentions=[OLD], forwardedFrom={"chat": OLD}), saved(NEW)],
    "all stays but the content": [
        *(saved(OLD, mentions=[NEW], forwardedFrom={"chat": NEW}, metadata={"a": NEW}), updated(content=NEW)),
        updated(pinnedAt=1, threadId="t", ordinal=2, senderId=None),
    ],
    "moved to another room": [saved(OLD), updated(roomId="r2"), saved(NEW, room_id="r2"), updated(roomId="r1")],
    "moved and edited": [saved(OLD), updated(roomId="r2", content=OLD), updated(roomId="r1", content=NEW)],
    "metadata of a reaction": [saved(NEW), reacted(OLD), reacted(NEW)],
    "metadata of a reaction is unset": [saved(NEW), reacted(OLD), reacted(None)],
    "a reaction is removed": [saved(NEW), reacted(OLD), ("remove-reaction", reaction(None))],
    "another reaction stays": [saved(NEW), reacted(NEW, "-"), reacted(OLD), reacted(None)],
    "reactions in a list": [
        *(saved(OLD, reactions=[reaction(OLD), reaction(NEW, "-")]), reacted(OLD), reacted(NEW)),
        updated(content=NEW),
    ],
    "another list of reactions": [
        *(saved(NEW, metadata={"a": NEW}, reactions=[reaction(OLD)]), reacted(OLD, "-")),
        updated(reactions=[reaction(NEW)]),
    ],
    "a reaction of a message that is not stored": [reacted(OLD), reacted(NEW)],
    "attachment": [attached(OLD), attached(OLD), attached(NEW)],
    "attachment moves": [attached(OLD), attached(NEW, "m2")],
    "a newer edit comes later": [any_order(saved(OLD)), any_order(updated(content=NEW, revision=1))],
    "an older edit comes later": [
        any_order(saved(NEW, revision=2)),
        any_order(updated(content=OLD, metadata={"a": NEW}, revision=1)),
    ],
    "edits wait": [
        any_order(updated(content=OLD, revision=1)),
        any_order(updated(content=NEW, metadata={"a": OLD}, revision=2)),
        any_order(updated(metadata={"a": NEW}, revision=3)),
        any_order(saved(OLD)),
    ],
    "an edit waits for a plain save": [any_order(updated(content=NEW, revision=1)), saved(OLD)],
    "a newer reaction comes later": [reacted_at(1, OLD), reacted_at(2, NEW)],
    "an older reaction comes later": [reacted_at(2, NEW), reacted_at(1, OLD)],
    "an equal reaction comes later": [reacted_at(1, OLD), reacted_at(1, OLD), reacted_at(2, NEW)],
    "a removal goes before a reaction": [
        any_order(saved(NEW)),
        any_order(("remove-reaction", reaction(None) | {"timestamp": 2})),
        reacted_at(1, OLD),
    ],
    "an older list of reactions comes later": [
        reacted_at(1, NEW),
        any_order(saved(NEW, reactions=[reaction(OLD), reaction(NEW, "-")])),
    ],
    "a greater attachment comes later": [any_order(attached(OLD)), any_order(attached(NEW))],
    "a smaller attachment comes later": [any_order(attached(NEW)), any_order(attached(OLD))],
    "two messages become one": [
        saved(OLD, reactions=[reaction(OLD)]),
        ("save-message", save_payload("m2", NEW, revision=1)),
        ("save-reaction", {"reaction": reaction(NEW) | {"messageId": "m2", "timestamp": 1}}),
        RENAMED,
    ],
    "under a former id": [RENAMED, saved(OLD), reacted(OLD), reacted(NEW), updated(content=NEW)],
    "before it was renamed": [saved(OLD), reacted(OLD), updated(content=OLD), RENAMED, reacted(NEW), saved(NEW)],
}


@pytest.mark.parametrize("batched", [False, True], ids=["alone", "batched"])
@pytest.mark.parametrize("commands", HISTORIES.values(), ids=HISTORIES)
def test_replaced_text_leaves_the_log_at_once(local: Local, commands: list[tuple[str, Plain]], batched: bool) -> None:
    """In the same commit, and nothing else does: the log still has what is stored, and replays to the same rows."""
    execute(local, commands, batched=batched)
    assert OLD not in repr(local.tables())
    log = repr(local.entries())
    assert OLD not in log
    assert (NEW in log) == (NEW in repr([local.rows(each) for each in ("messages", "reactions", "attachments")]))
    local.replay(local.entries())
    check_replay(local, REPLAYED)


@pytest.mark.parametrize("commands", HISTORIES.values(), ids=HISTORIES)
def test_replaced_text_stays_in_the_log_by_default(tmp_path: Path, commands: list[tuple[str, Plain]]) -> None:
    """Until the message is deleted, so that every earlier state can be replayed; then all of it goes."""
    with Local(tmp_path / "data") as local:
        execute(local, commands)
        assert OLD in repr(local.entries())
        for message_id in ("m1", "m2"):
            execute(
                local, [("save-message", save_payload(message_id, "")), ("delete-message", {"messageId": message_id})]
            )
        assert {OLD, NEW} & set(re.findall(f"{OLD}|{NEW}", repr(local.tables()))) == set()


def test_later_text_is_replaced_in_logs_that_kept_it(tmp_path: Path, clock: Clock) -> None:
    """Where the setting is turned on later, the next edit erases all text before it."""
    with Local(tmp_path / "data", clock=clock) as local:
        execute(local, [saved(OLD), updated(content=OLD), attached(OLD), attached(OLD)])
    with Local(tmp_path / "data", clock=clock, retention=Retention(redact_replaced=True)) as local:
        assert repr(local.entries()).count(OLD) == 4
        for number, (name, payload) in enumerate([updated(content=NEW), attached(NEW)]):
            local.result(name, payload, f"later-{number}")
        assert OLD not in repr(local.tables())


def test_a_retry_of_what_was_replaced_has_no_effect(local: Local) -> None:
    """It is recognised by its id and type, as after a deletion; a result with the text is no longer kept."""
    room = {"id": "r1", "name": "r", "channels": [{"id": "c1", "name": "c", "type": "text"}]}
    local.result("save-room", {"room": room})
    local.result("save-user", {"user": {"oderId": "ada", "id": "u1", "username": "ada"}})
    fields = {"channelId": "c1", "roomId": "r1", "authorId": "ada", "content": OLD}
    made = local.ask("create-message", fields, "made")
    first = local.ask("save-message", save_payload("m1", OLD), "saved")
    local.result("update-message", {"messageId": made["result"]["id"], "updates": {"metadata": {"a": NEW}}})
    assert local.ask("create-message", fields, "made") == made  # it had nothing of what was replaced
    local.result("update-message", {"messageId": made["result"]["id"], "updates": {"content": NEW}})
    execute(local, [updated(content=NEW)])
    assert local.code("create-message", fields, "made") == "conflict"
    assert local.ask("save-message", save_payload("m1", OLD), "saved") == first
    assert OLD not in repr(local.tables())


def test_many_edits_do_not_rewrite_the_log_again_and_again(local: Local) -> None:
    """Each command is rewritten when its text is replaced, and not by the edits after that; reactions never are."""
    execute(local, [saved(OLD, metadata={"a": NEW}), *(reacted(NEW, f"{number}") for number in range(20))])
    for _ in range(30):
        execute(local, [updated(content=OLD)])
    references = local.tables()["log_references"]
    assert len(references) == 51
    assert sum(1 for row in references if row[REPLACEABLE_AT] & CONTENT_BIT) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_log_has_only_text_that_is_stored(local: Local, seed: int, long: bool) -> None:
    """Of messages, reactions and attachments, whatever happened to them; and it replays to the same rows."""
    commands = RandomCommands(seed)
    for _ in range(COMMANDS_LONG if long else COMMANDS):
        name, payload = commands.next()
        reply = local.ask(name, payload)
        if reply["ok"]:
            commands.learn(name, payload, reply["result"])
    entries = local.entries()
    stored = repr([local.rows(each) for each in ("messages", "waiting_edits", "reactions", "attachments")])
    logged = repr([list(covered(entry["type"], entry.get("payload"))) for entry in entries])
    assert set(TEXT.findall(logged)) == set(TEXT.findall(stored))
    local.replay(entries)
    check_replay(local, REPLAYED)


def covered(name: str, payload: Any) -> Iterator[Any]:
    """The payloads of commands about messages, reactions and attachments."""
    if name == "batch" and payload is not None:
        for member in payload["commands"]:
            yield from covered(member["type"], member["payload"])
    elif name in COVERED:
        yield payload


def test_the_setting_is_a_flag_of_the_daemon(start_daemon: Callable[..., DaemonProcess]) -> None:
    """`--redact-replaced-text`, and the daemon serves the same messages as without it."""
    daemon = start_daemon("--log-level", "error", "--redact-replaced-text")
    with Peer(daemon.endpoint) as peer:
        assert peer.ask("save-message", {"message": message_document("m1", OLD)})["ok"]
        assert peer.ask("update-message", {"messageId": "m1", "updates": {"content": NEW}})["ok"]
        assert peer.ask("get-message-by-id", {"messageId": "m1"})["result"]["content"] == NEW
        assert OLD not in repr(peer.ask("get-log"))
