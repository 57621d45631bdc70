"""The refusal of a batch lists every command that fails, and nothing of the batch takes effect."""

from typing import Any

import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.inprocess import InProcess
from backscroll.clients.python import Client
from backscroll.handlers.storage import CommandContext, Writes
from backscroll.schema import Batch, DeleteMessage, NotFound, SaveMessage
from backscroll.schema.errors import CallerError, Conflict
from backscroll.schema.limits import BATCH_COMMANDS_MAX, FAILURES_BYTES_MAX, FREE_JSON_BYTES_MAX
from backscroll.schema.operations.batch import refusal
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.handlers import handler_of, replacing
from tests.support.messages import save_message, save_payload
from tests.support.requests import CODECS, answer_all, body, send
from tests.support.status import status_of

Document = dict[str, Any]

BAD: list[tuple[Document, str, str]] = [
    ({"type": "save-message", "payload": save_payload(1, timestamp="x")}, "invalid", ".payload.message.timestamp"),
    ({"type": "save-message", "payload": save_payload("")}, "invalid", ".payload.message.id"),
    ({"type": "save-message", "payload": save_payload("x" * 513)}, "too-large", ".payload.message.id"),
    ({"type": "save-message", "payload": {}}, "invalid", ".payload.message"),
    ({"type": "save-message", "payload": save_payload(1), "id": "x"}, "invalid", ".id"),
    ({"type": 5}, "invalid", ".type"),
    ({"type": "sing"}, "unknown-operation", ".type"),
    ({"type": "list-users"}, "invalid", ".type"),
    ({"type": "clear-all-data"}, "invalid", ".type"),
    ({"type": "batch", "payload": {"commands": []}}, "invalid", ".type"),
    ({"type": "delete-message", "payload": {"messageId": "none"}}, "not-found", ".payload.messageId"),
    ({"type": "create-user", "payload": {"pubkey": "taken"}}, "conflict", ".payload.pubkey"),
    (
        {
            "type": "save-message",
            "payload": save_payload(9, reactions=[{"messageId": "m8", "oderId": "a", "emoji": "x"}]),
        },
        "invalid",
        ".payload.message.reactions[0].messageId",
    ),
]
"""Commands that fail, with their codes and paths: most cannot be decoded, the last are refused when they are tried."""


def batch_of(commands: list[Any], codec: Codec = JSON, **envelope: Any) -> bytes:
    return body("batch", {"commands": commands}, codec, **envelope)


def saves(number: int) -> list[Document]:
    return [{"type": "save-message", "payload": save_payload(each)} for each in range(number)]


def failures(reply: Document) -> list[Document]:
    listed: list[Document] = reply["error"]["details"]["failures"]
    return listed


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_every_command_that_fails_is_listed(transport: InProcess, codec: Codec) -> None:
    """Those that cannot be decoded together with those that are refused when tried, whatever else the batch has; the
    error is that of the first. The rest then succeeds under another id.
    """
    send(transport, body("create-user", {"pubkey": "taken"}, id="taken"))
    good = saves(len(BAD))
    mixed = [command for pair in zip(good, (bad for bad, _, _ in BAD), strict=True) for command in pair]
    reply = send(transport, batch_of(mixed, codec))
    found = [(each["index"], each["code"], each["path"]) for each in failures(reply)]
    assert found == [
        (2 * at + 1, code, f"$.payload.commands[{2 * at + 1}]{path}") for at, (_, code, path) in enumerate(BAD)
    ]
    assert all(each["message"].startswith(f"{each['path']}: ") for each in failures(reply))
    first, error = failures(reply)[0], reply["error"]
    assert (error["code"], error["message"]) == (first["code"], first["message"])
    assert (error["details"]["path"], error["details"]["index"]) == (first["path"], first["index"])
    assert (error["fault"], error["retryable"]) == ("caller", False)
    rest = [command for at, command in enumerate(mixed) if at not in {each["index"] for each in failures(reply)}]
    assert send(transport, batch_of(rest, codec))["seq"] == 2


def test_a_lone_surrogate_in_a_batch_is_listed_with_its_index(transport: InProcess) -> None:
    """Each command that has one is listed, with the path of its first; all others are decoded and tried, too."""
    commands = saves(1_000)
    commands[600] = {"type": "save-message", "payload": save_payload(600, timestamp=-1)}
    commands[700] = {"type": "delete-message", "payload": {"messageId": "none"}}
    sent = batch_of(commands, id="lone")
    for number in (3, 500, 999):
        sent = sent.replace(b'"m%d"' % number, rb'"m%d \ud83d"' % number).replace(
            b'"hello","timestamp":%d}' % number, rb'"\ude00 hello","timestamp":%d}' % number
        )
    reply = send(transport, sent)
    assert reply["id"] == "lone"
    assert [(each["index"], each["code"]) for each in failures(reply)] == [
        (3, "invalid"),
        (500, "invalid"),
        (600, "invalid"),
        (700, "not-found"),
        (999, "invalid"),
    ]
    assert failures(reply)[0]["path"] == "$.payload.commands[3].payload.message.id"
    assert "unpaired surrogate" in failures(reply)[0]["message"]
    assert transport.store.seq == 0


@pytest.mark.parametrize("lone", [b'"traceparent":"\\ud83d",', b'"deadlineMs":-1,'])
def test_a_bad_envelope_is_not_about_a_command(transport: InProcess, lone: bytes) -> None:
    """An error outside the commands is the error of the request, also beside bad text in a command."""
    sent = batch_of(saves(2)).replace(b'"m1"', rb'"m1 \ud83d"').replace(b'"type":"batch",', b'"type":"batch",' + lone)
    reply = send(transport, sent)
    assert reply["error"]["code"] == "invalid"
    assert "failures" not in reply["error"]["details"]


def test_too_many_lone_surrogates_are_not_listed(transport: InProcess) -> None:
    """Beyond a number only the first one is named, because looking for them all would take long."""
    sent = batch_of(saves(2)).replace(b'"hello"', b'"' + rb"\ud83d" * 10_001 + b'"')
    reply = send(transport, sent)
    assert reply["error"]["details"] == {"path": "$.payload.commands[0].payload.message.content", "index": 0}


def test_one_that_fails_because_of_an_earlier_one_is_listed(transport: InProcess) -> None:
    """A command is tried after those before it that succeed: a deletion of what was not saved fails as well."""
    commands = [
        {"type": "save-message", "payload": save_payload(1, timestamp="x")},
        {"type": "delete-message", "payload": {"messageId": "m1"}},
        {"type": "save-message", "payload": save_payload(2)},
        {"type": "delete-message", "payload": {"messageId": "m2"}},
    ]
    reply = send(transport, batch_of(commands))
    assert [(each["index"], each["code"]) for each in failures(reply)] == [(0, "invalid"), (1, "not-found")]


def test_what_a_command_wrote_before_it_failed_is_undone(transport: InProcess) -> None:
    """Neither those tried after it nor anybody later sees it; commands that share the commit take effect."""

    def save_and_fail(command: SaveMessage, db: Writes, context: CommandContext) -> None:
        handler_of(SaveMessage)(command, db, context)
        if command.message.content == "fail":
            raise Conflict.at("$.payload.message", "it must not be saved")

    status = status_of(transport.scopes)
    dispatcher = Dispatcher(transport.scopes, status, replacing({SaveMessage: save_and_fail}))
    batch = [
        {"type": "save-message", "payload": save_payload(1)},
        {"type": "save-message", "payload": save_payload(2, "fail")},
        {"type": "delete-message", "payload": {"messageId": "m1"}},
        {"type": "delete-message", "payload": {"messageId": "m2"}},
    ]
    bodies = [
        body("save-message", save_payload(7)),
        batch_of(batch),
        batch_of([*batch, {"type": "sing"}]),
        body("save-message", save_payload(8)),
    ]
    answers = answer_all(dispatcher, [dispatcher.receive(each) for each in bodies])
    replies = [JSON.decode(each, Document) for each in answers]
    assert [reply["ok"] for reply in replies] == [True, False, False, True]
    assert [each["index"] for each in failures(replies[1])] == [1, 3]
    assert [each["index"] for each in failures(replies[2])] == [1, 3, 4]
    messages = send(transport, body("get-messages", {"roomId": "r1"}))["result"]
    assert [message["id"] for message in messages] == ["m7", "m8"]
    assert transport.store.seq == 2


def test_a_flawed_batch_creates_no_scope(transport: InProcess) -> None:
    """In a scope that is not stored only the commands that cannot be decoded are listed: there is nothing to try on."""
    commands = [{"type": "sing"}, {"type": "delete-message", "payload": {"messageId": "none"}}]
    reply = send(transport, batch_of(commands, scope="new"))
    assert [each["index"] for each in failures(reply)] == [0]
    assert transport.scopes.names() == ["default"]


def test_a_limit_on_the_whole_batch_is_not_about_a_command(transport: InProcess) -> None:
    """It has neither an index nor a list, also where a command of the batch cannot be decoded."""
    half = {"x": "x" * (FREE_JSON_BYTES_MAX // 2)}
    large = [{"type": "save-message", "payload": save_payload(each, metadata=half)} for each in range(3)]
    for commands in (large, [*large, {"type": 5}], [{"type": "sing"}, *large]):
        error = send(transport, batch_of(commands))["error"]
        assert (error["code"], error["details"]) == ("too-large", {"path": "$.payload"})
    error = send(transport, batch_of([{"type": "sing"}] * (BATCH_COMMANDS_MAX + 1)))["error"]
    assert error["details"] == {"path": "$.payload.commands"}


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_the_list_of_failures_is_bounded(transport: InProcess, codec: Codec) -> None:
    """All indexes are listed, and after a megabyte of messages only they and the codes."""
    long = "\x01" * 500 + "é" * 1_500
    commands = [{"type": "initialize", "payload": {f"{long}{number}": 1}} for number in range(BATCH_COMMANDS_MAX)]
    reply = transport.dispatcher.answer(batch_of(commands, codec))
    assert len(reply) < FAILURES_BYTES_MAX + 100_000
    listed = failures(codec.decode(reply, Document))
    assert [each["index"] for each in listed] == list(range(BATCH_COMMANDS_MAX))
    assert set(listed[0]) == {"index", "code", "message", "path"}
    assert listed[-1] == {"index": BATCH_COMMANDS_MAX - 1, "code": "invalid"}


def test_what_else_an_error_says_is_listed(transport: InProcess) -> None:
    """In `details` of the failure, without what is the same for all."""
    error = refusal({3: Conflict.at("$", "taken", seq=7, index=3), 5: CallerError("no", code="frozen")})
    assert (error.details or {})["failures"] == [
        {"index": 3, "code": "conflict", "message": "$: taken", "path": "$", "details": {"seq": 7}},
        {"index": 5, "code": "frozen", "message": "no", "path": ""},
    ]
    [failure] = failures(send(transport, batch_of([{"type": "sing"}])))
    assert "details" not in failure


def test_the_python_client_shows_all_failures(client: Client) -> None:
    """`failures` has them as data, and the text of the error has the first ones, a line each."""
    commands = [save_message(1), *(DeleteMessage(f"none {number}") for number in range(15))]
    with pytest.raises(NotFound) as refused:
        client.execute(Batch.of(commands))
    assert [each.index for each in refused.value.failures] == list(range(1, 16))
    assert refused.value.failures[1].path == "$.payload.commands[2].payload.messageId"
    lines = str(refused.value).splitlines()
    assert lines[0] == "$.payload.commands[1].payload.messageId: there is no message 'none 0'"
    assert lines[1] == "  not-found at $.payload.commands[2].payload.messageId: there is no message 'none 1'"
    assert (len(lines), lines[-1]) == (12, "  … and 4 more")


@pytest.mark.parametrize("listed", ["x", {"index": 1}, [3, {"index": "1"}, {}]])
def test_a_list_of_failures_of_the_future_is_no_error(listed: Any) -> None:
    """A client ignores what it does not understand in the list."""
    error = CallerError("no", details={"failures": listed})
    assert (error.failures, str(error)) == ([], "no")
    later = CallerError("no", details={"failures": [{"index": 1, "code": "frozen", "hint": "thaw"}]})
    assert [(each.index, each.code, each.message) for each in later.failures] == [(1, "frozen", "")]


def test_a_replayed_batch_that_fails_names_its_entry(transport: InProcess) -> None:
    """Entries of a log are replayed as they are, so the first error says enough."""
    commands = [{"type": "delete-message", "payload": {"messageId": "a"}}, {"type": "sing"}]
    for inner in (commands, commands[:1]):
        entry = {"seq": 1, "at": 1, "id": "x", "type": "batch", "payload": {"commands": inner}}
        reply = send(transport, body("append-log", {"entries": [entry]}, MSGPACK))
        assert reply["error"]["details"]["path"].startswith("$.payload.entries[0].payload.commands[")
        assert "failures" not in reply["error"]["details"]
