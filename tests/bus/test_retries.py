"""Retries: the same request sent again gets the stored reply, and nothing is executed twice."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest
from hypothesis import example as drawn_example
from hypothesis import given
from hypothesis import strategies as st

from backscroll.bus.inprocess import InProcess
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema import CreateUser, Message
from backscroll.schema.limits import BATCH_COMMANDS_MAX, MILLIS_MAX, REQUEST_ID_BYTES_MAX
from backscroll.schema.operations import OPERATIONS, Command
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.clocks import Clock
from tests.support.disks import FaultyDisk
from tests.support.exchanges import answer, exchange, logged, value_of
from tests.support.handlers import handler_of, replacing
from tests.support.held_commits import HELD_MS, HeldCommits
from tests.support.messages import message_document, save_payload
from tests.support.peers import Peer, Running, running
from tests.support.requests import answer_all, body, example, in_sensible_order
from tests.support.stopping_daemon import AT_SYNC, StoppingDaemon
from tests.support.stores import in_process as opened
from tests.support.strategies import documents, texts
from tests.support.tables import all_rows, rows_at
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
Commands = list[dict[str, Any]]
QUIET = ("--log-level", "error")
REDACTED_AT = 6  # among the columns of `commands`

COMMANDS = [operation for operation in in_sensible_order() if issubclass(operation, Command)]
OTHER = {JSON: MSGPACK, MSGPACK: JSON}
DEFAULT_ROOM = {
    "room": {
        "id": "default",
        "name": "default",
        "channels": [{"id": "general", "name": "general", "type": "text"}],
        "categories": [{"id": "talk", "name": "Talk"}],
    }
}
"""What the examples of channels and categories are about."""


def create_user(number: int | str, request_id: str | None = None, codec: Codec = JSON, **envelope: Any) -> bytes:
    """A command whose repetition would show: its result and its effect differ each time."""
    return body("create-user", {"pubkey": f"key-{number}"}, codec, id=request_id or f"create-user-{number}", **envelope)


def save(number: int | str, request_id: str, content: str = "hello", **envelope: Any) -> bytes:
    return body("save-message", save_payload(number, content), id=request_id, **envelope)


def batch(commands: Commands, request_id: str, codec: Codec = JSON) -> bytes:
    return body("batch", {"commands": commands}, codec, id=request_id)


def member(operation: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"type": operation, "payload": payload}


def code_of(reply: bytes) -> str:
    """The code of an error reply, or `ok`."""
    value = value_of(reply)
    return "ok" if value["ok"] else str(value["error"]["code"])


def in_process(transport: InProcess, *requests: bytes) -> list[bytes]:
    """The replies to requests of one commit."""
    return answer_all(transport.dispatcher, [transport.dispatcher.receive(request) for request in requests])


class Served(NamedTuple):
    """A daemon in this process, its commits, and a peer."""

    daemon: Running
    commits: HeldCommits
    peer: Peer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    data = tmp_path / "data"
    commits = HeldCommits(data)
    with (
        running(data, vfs=commits.vfs, lock_wait_ms=HELD_MS) as daemon,
        Peer(daemon.endpoint) as peer,
        commits,
    ):
        yield Served(daemon, commits, peer)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A store for all examples of a property."""
    with opened(tmp_path_factory.mktemp("retries") / "data") as transport:
        yield transport


def block_commits(served: Served, plug: bytes) -> None:
    """Begin a commit of one command and block it before it is durable; later commands queue behind it."""
    served.commits.hold()
    served.peer.send(plug)
    served.commits.wait_for_one()


# While the first request is in flight


def test_a_retry_of_a_queued_command_is_executed_once(served: Served) -> None:
    """The first waits behind another commit while its client and two others send it again: one effect, one reply."""
    request = create_user(1)
    with Peer(served.daemon.endpoint) as second, Peer(served.daemon.endpoint) as third:
        block_commits(served, save(0, "plug"))
        clients = [served.peer, served.peer, second, third, served.peer]
        for client in clients:
            client.send(request)
        wait_until(lambda: third.ask("health")["result"]["queues"]["requests"] == 1 + len(clients))
        served.commits.release()
        assert served.peer.reply()["id"] == "plug"
        replies = {client.frames()[-1] for client in clients}
        assert len(replies) == 1
        assert value_of(replies.pop())["seq"] == 2
        assert [entry["id"] for entry in logged(second)] == ["plug", "create-user-1"]
        assert len(second.ask("list-users")["result"]) == 1


def test_a_retry_during_the_commit_is_executed_once(served: Served) -> None:
    """The same request arrives during the sync of its commit."""
    request = create_user(1)
    block_commits(served, request)
    with Peer(served.daemon.endpoint) as second:
        second.send(request)
        served.peer.send(request)
        wait_until(lambda: second.ask("health")["result"]["queues"]["requests"] == 3)
        served.commits.release()
        replies = {served.peer.frames()[-1], served.peer.frames()[-1], second.frames()[-1]}
        assert len(replies) == 1
        assert len(logged(second)) == len(second.ask("list-users")["result"]) == 1


def test_the_same_id_twice_in_one_commit_is_executed_once(served: Served) -> None:
    """The second finds the first in their common transaction; with another payload it is a conflict, and the other
    commands of the commit succeed.
    """
    block_commits(served, save(0, "plug"))
    requests = [
        save(1, "a"),
        create_user(1, "same"),
        save(2, "b"),
        create_user(1, "same", MSGPACK),
        create_user(2, "same"),
        save(3, "same"),
        save(3, "c"),
        create_user(1, "same"),
    ]
    with Peer(served.daemon.endpoint) as other:
        for request in requests:
            other.send(request)
        wait_until(lambda: served.peer.ask("health")["result"]["queues"]["requests"] == 1 + len(requests))
        served.commits.release()
        replies = [other.frames()[-1] for _ in requests]
        assert [value_of(reply)["id"] for reply in replies] == ["a", "same", "b", *["same"] * 3, "c", "same"]
        assert [code_of(reply) for reply in replies] == ["ok"] * 4 + ["conflict"] * 2 + ["ok"] * 2
        assert replies[1] == replies[7]
        assert value_of(replies[1]) == value_of(replies[3])
        assert [entry["id"] for entry in logged(other)] == ["plug", "a", "same", "b", "c"]
        assert [value_of(reply)["seq"] for reply in replies if code_of(reply) == "ok"] == [2, 3, 4, 3, 5, 3]
        assert [user["pubkey"] for user in other.ask("list-users")["result"]] == ["key-1"]


def test_the_same_id_of_two_clients_is_executed_once(start_daemon: StartDaemon, long: bool) -> None:
    """Both get the same reply, or one of them a conflict if the payloads differ."""
    rounds = 2_000 if long else 200
    daemon = start_daemon(*QUIET)
    with Peer(daemon.endpoint) as one, Peer(daemon.endpoint) as other:
        for number in range(rounds):
            request = create_user(number)
            one.send(request)
            other.send(request)
            assert one.frames()[-1] == other.frames()[-1]
            one.send(save(number, f"rival-{number}", "of one"))
            other.send(save(number, f"rival-{number}", "of the other"))
            outcomes = code_of(one.frames()[-1]), code_of(other.frames()[-1])
            assert sorted(outcomes) == ["conflict", "ok"]
            stored = one.ask("get-message-by-id", {"messageId": f"m{number}"})["result"]
            assert stored["content"] == ("of one" if outcomes[0] == "ok" else "of the other")
        assert [entry["seq"] for entry in logged(one)] == list(range(1, 2 * rounds + 1))
        assert one.ask("get-scope-info")["result"]["rows"]["users"] == rounds


# After a kill in between


def test_a_retry_after_a_kill_gets_the_committed_reply(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """`kill -9` between commit and reply: the next daemon sends the reply with the ids that were made the
    first time.
    """
    requests = [create_user(number) for number in range(5)]
    with StoppingDaemon(tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        assert answer(peer, save(0, "earlier"))["ok"]
        daemon.stop_at(AT_SYNC)
        for request in requests:  # the first alone, or several: as many as one commit takes
            peer.send(request)
        daemon.wait_until_stopped()
        assert peer.silent()
        daemon.kill()
    with start_daemon(*QUIET) as again, Peer(again.endpoint) as peer:
        kept = logged(peer)
        done = len(kept) - 1
        assert done
        replies = exchange(peer, *requests)
        assert logged(peer)[: len(kept)] == kept
        assert [value_of(reply)["seq"] for reply in replies] == list(range(2, 7))
        made = [value_of(reply)["result"]["oderId"] for reply in replies]
        assert made[:done] == [entry["generated"]["ids"][0] for entry in kept[1:]]
        assert exchange(peer, *requests) == replies
        assert sorted(user["oderId"] for user in peer.ask("list-users")["result"]) == sorted(made)


def test_unread_replies_are_repeated_after_a_kill(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Commands sent again after a kill get the same bytes as the unread replies in the first client's socket."""
    daemon = start_daemon(*QUIET)
    requests = [create_user(number) for number in range(300)] + [save(number, f"save-{number}") for number in range(50)]
    with Peer(daemon.endpoint) as silent, Peer(daemon.endpoint) as other:
        for request in requests:
            silent.send(request)
        wait_until(lambda: other.ask("get-log", {"fromSeq": 1, "limit": 1})["result"]["lastSeq"] == len(requests))
        before = logged(other)
        daemon.kill()
        unread = {}
        while not silent.silent():
            reply = silent.frames()[-1]
            unread[value_of(reply)["id"]] = reply
    assert unread
    again = start_daemon(*QUIET)
    with Peer(again.endpoint) as peer:
        rows = rows_at(tmp_path / "data")
        replies = exchange(peer, *requests)
        assert {value_of(reply)["id"]: reply for reply in replies} | unread == {
            value_of(reply)["id"]: reply for reply in replies
        }
        assert [value_of(reply)["seq"] for reply in replies] == list(range(1, len(requests) + 1))
        assert logged(peer) == before
        assert rows_at(tmp_path / "data") == rows


def test_a_kill_at_any_write_of_a_commit_is_atomic(tmp_path: Path, long: bool) -> None:
    """Either the whole commit is there afterwards or nothing; sent again, each command is there once."""
    writes = range(1, 40) if long else (1, 9, 16)
    kept = []
    for write in writes:
        data_dir = tmp_path / f"killed-{write}"
        request = batch([member("create-user", {"pubkey": "k"}), member("save-message", save_payload(1))], "the-batch")
        with StoppingDaemon(data_dir) as daemon, Peer(daemon.endpoint) as peer:
            assert answer(peer, save(0, "earlier"))["ok"]
            daemon.stop_at(write)
            peer.send(request)
            if not _stops(daemon, peer):
                break
            daemon.kill()
        with running(data_dir) as again, Peer(again.endpoint) as peer:
            log = [entry["id"] for entry in logged(peer)]
            users, rows = peer.ask("list-users")["result"], peer.ask("get-scope-info")["result"]["rows"]
            kept.append(log == ["earlier", "the-batch"])
            assert log in (["earlier"], ["earlier", "the-batch"])
            assert (len(users), rows["messages"]) == ((1, 2) if kept[-1] else (0, 1))
            first, second = exchange(peer, request, request)
            assert first == second
            assert value_of(first)["seq"] == 2
            assert peer.ask("list-users")["result"] == [value_of(first)["result"][0]]
            assert [entry["id"] for entry in logged(peer)] == ["earlier", "the-batch"]
    assert kept[:2] == [False] * 2


def _stops(daemon: StoppingDaemon, peer: Peer) -> bool:
    """Whether the daemon blocks before it replies."""
    wait_until(lambda: daemon.has_stopped() or not peer.silent())
    return peer.silent()


# Equal replies


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_a_retry_of_every_command_gets_the_same_reply(start_daemon: StartDaemon, tmp_path: Path, codec: Codec) -> None:
    """All examples, each sent twice in one encoding and once in the other: no row of any table changes. After a kill
    they get the same replies again, unless what they created was deleted since.
    """
    data = tmp_path / "data"
    daemon = start_daemon(*QUIET)
    requests: dict[str, bytes] = {}
    replies: dict[str, bytes] = {}
    results: dict[str, Any] = {}
    with Peer(daemon.endpoint) as peer:
        assert answer(peer, body("save-room", DEFAULT_ROOM, id="default-room"))["ok"]
        for operation in COMMANDS[:-1]:
            name = operation.wire_name
            payload = _with_real_ids(example(operation), results, codec)
            requests[name] = body(name, payload, codec, id=f"example-{name}")
            [replies[name]] = exchange(peer, requests[name])
            assert code_of(replies[name]) == "ok", replies[name]
            results[name] = value_of(replies[name])["result"]
            before = rows_at(data)
            assert len(before["commands"]) == 1 + len(requests)
            payload = _with_real_ids(example(operation), results | {name: None}, OTHER[codec])
            again = body(name, payload, OTHER[codec], id=f"example-{name}")
            assert exchange(peer, requests[name]) == [replies[name]]
            assert answer(peer, again) == value_of(replies[name])
            assert rows_at(data) == before, name
    daemon.kill()
    daemon = start_daemon(*QUIET)
    with Peer(daemon.endpoint) as peer:
        gone = set()
        for name, request in requests.items():
            [reply] = exchange(peer, request)
            if reply != replies[name]:
                assert value_of(reply)["error"]["details"] == {"path": "$.id", "seq": value_of(replies[name])["seq"]}
                gone.add(name)
        assert rows_at(data) == before
        deleted = {"create-message", "put-media", "update-channel", "update-category"}
        assert deleted <= gone <= {*deleted, "batch"}
        clear = body("clear-all-data", {}, id="example-clear-all-data")
        assert [code_of(reply) for reply in exchange(peer, clear)] == ["ok"]
        before = rows_at(data)
        assert [code_of(reply) for reply in exchange(peer, clear, *requests.values())].count("ok") > len(requests) / 2
        assert rows_at(data) == before
        assert sum(map(len, before.values())) == len(before["commands"]) == len(requests) + 2


def _with_real_ids(payload: dict[str, Any], results: dict[str, Any], codec: Codec) -> dict[str, Any]:
    """An example with ids that the daemon made, and bytes as the encoding has them."""
    made: dict[str, Any] = {}
    if "mediaId" in payload:
        made["mediaId"] = results["put-media"]["id"]
    if "data" in payload and codec is MSGPACK:
        made["data"] = b"hello"
    return payload | made


IN_ONE_ROOM = documents(Message).map(lambda document: document | {"roomId": "r1"})  # where an id may be saved again


@given(IN_ONE_ROOM, st.sampled_from([JSON, MSGPACK]), texts(1, REQUEST_ID_BYTES_MAX // 4 - 4))
@drawn_example(message_document("m", ""), JSON, "\U00010000")
def test_a_retry_of_any_message_gets_the_same_reply(
    shared: InProcess, document: dict[str, Any], codec: Codec, request_id: str
) -> None:
    """Whatever payload and id: the same bytes, an equal value in the other encoding, and one row in the log. With any
    other text it is another command.
    """
    request_id += str(shared.store.seq)  # another one for each example
    request = body("save-message", {"message": document}, codec, id=request_id)
    [reply] = in_process(shared, request)
    before = all_rows(shared.store)
    assert code_of(reply) == "ok"
    assert in_process(shared, request) == [reply]
    other = body("save-message", {"message": document}, OTHER[codec], id=request_id)
    assert value_of(in_process(shared, other)[0]) == value_of(reply)
    changed = document | {"content": document["content"] + "!"}
    rival = body("save-message", {"message": changed}, codec, id=request_id)
    erased = max(before["commands"], key=itemgetter(0))[REDACTED_AT]
    assert [code_of(each) for each in in_process(shared, rival, request)] == ["ok" if erased else "conflict", "ok"]
    assert [code_of(each) for each in in_process(shared, create_user(1, request_id))] == ["conflict"]
    assert all_rows(shared.store) == before


def test_request_ids_need_no_order(transport: InProcess, long: bool) -> None:
    """Ids are found whether they sort before or after all others, in SQLite and in Python."""
    seed = random.randrange(2**32) if long else 20260105
    sys.stdout.write(f"seed {seed}\n")
    draw = random.Random(seed)
    alphabet = ["a", "Z", "0", "\x01", "\uffff", "\ue000", "\U00010000", "\U0010ffff", "é", " ", "~", "\x7f"]
    ids: list[str] = []
    for number in range(2_000 if long else 300):
        ids.append("".join(draw.choices(alphabet, k=draw.randrange(1, 8))) + str(number))
        [first] = in_process(transport, create_user(number, ids[-1]))
        assert code_of(first) == "ok", (seed, ids[-1])
        earlier = draw.randrange(len(ids))
        [again] = in_process(transport, create_user(earlier, ids[earlier]))
        assert value_of(again)["seq"] == earlier + 1, (seed, ids[earlier])
        assert [code_of(each) for each in in_process(transport, create_user("new", ids[earlier]))] == ["conflict"]
    assert transport.store.seq == len(ids)


def test_equivalent_payloads_are_the_same_command(transport: InProcess) -> None:
    """Null and absent fields, white space, the order of fields and the envelope make no difference."""
    terse = b'{"id":"a","type":"create-channel","payload":{"name":"x"}}'
    wordy = b""" { "payload": {"topic": null, "categoryId": null, "name": "\\u0078"}, "traceparent": "t",
        "deadlineMs": 5000, "scope": "default", "type": "create-channel", "id": "a"} """
    [first] = in_process(transport, terse)
    assert in_process(transport, wordy) == [first]
    assert transport.store.seq == 1


def test_payloads_are_compared_in_canonical_form(transport: InProcess) -> None:
    """Defaults, the order of keys at any depth, and integers written as floats make no difference; another
    value does.
    """
    terse = b"""{"id":"a","type":"batch","payload":{"commands":[{"type":"create-category","payload":{"name":"x"}},
        {"type":"save-message","payload":{"message":{"id":"m","roomId":"r","senderId":"s","content":"","timestamp":1000,
        "metadata":{"a":1,"b":{"c":2,"d":[]}}}}}]}}"""
    wordy = b"""{"id":"a","type":"batch","payload":{"commands":[
        {"type":"create-category","payload":{"roomId":"default","name":"x"}},
        {"type":"save-message","payload":{"message":{"metadata":{"b":{"d":[],"c":2},"a":1},"isDeleted":false,
        "timestamp":1000.0,"content":"","senderId":"s","roomId":"r","id":"m"}}}]}}"""
    [room, first] = in_process(transport, body("save-room", DEFAULT_ROOM), terse)
    assert [code_of(room), code_of(first)] == ["ok", "ok"]
    assert in_process(transport, wordy) == [first]
    [conflict] = in_process(transport, wordy.replace(b'"c":2', b'"c":3'))
    assert code_of(conflict) == "conflict"
    assert transport.store.seq == 2


# Requests that are not retries


def test_another_payload_or_type_under_the_same_id_is_a_conflict(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """It is a `conflict` at `$.id` without effect; a retry of the first command still gets its reply, also after a
    kill.
    """
    daemon = start_daemon(*QUIET)
    request = create_user(1, "taken")
    rivals = [
        create_user(2, "taken"),
        body("create-user", {"pubkey": "key-1", "displayName": "Ada"}, id="taken"),
        save(1, "taken"),
        body("initialize", {}, id="taken"),
        batch([member("create-user", {"pubkey": "key-1"})], "taken"),
    ]
    with Peer(daemon.endpoint) as peer:
        [reply] = exchange(peer, request)
        rows = rows_at(tmp_path / "data")
        _all_conflict(peer, rivals)
        assert exchange(peer, request) == [reply]
    daemon.kill()
    daemon = start_daemon(*QUIET)
    with Peer(daemon.endpoint) as peer:
        _all_conflict(peer, rivals)
        assert exchange(peer, request) == [reply]
        assert rows_at(tmp_path / "data") == rows
        assert peer.ask("ping")["seq"] == 1


def test_a_redacted_command_is_compared_by_id_and_type_only(transport: InProcess) -> None:
    """Once its text is erased, any payload of that type gets the stored reply, or the error that the result is no
    longer stored: comparing payloads would reveal whether a guess of the deleted text is right. Another type is a
    conflict.
    """
    [_, saved, created] = in_process(
        transport,
        body("save-room", DEFAULT_ROOM),
        save(1, "saved", "secret"),
        body("create-category", {"name": "secret"}, id="created"),
    )
    category = value_of(created)["result"]["id"]
    in_process(transport, body("delete-message", {"messageId": "m1"}))
    in_process(transport, body("delete-category", {"categoryId": category}))
    rows = all_rows(transport.store)
    for guess in ("secret", "another"):
        assert in_process(transport, save(1, "saved", guess)) == [saved]
        [reply] = in_process(transport, body("create-category", {"name": guess}, id="created"))
        assert value_of(reply)["error"]["details"] == {"path": "$.id", "seq": value_of(created)["seq"]}
    for request_id in ("saved", "created"):
        [reply] = in_process(transport, create_user(1, request_id))
        assert value_of(reply)["error"]["details"] == {"path": "$.id"}
    assert all_rows(transport.store) == rows


def _all_conflict(peer: Peer, requests: list[bytes]) -> None:
    for request in requests:
        error = answer(peer, request)["error"]
        assert (error["code"], error["retryable"], error["details"]) == ("conflict", False, {"path": "$.id"})


def test_only_commands_claim_their_request_id(served: Served) -> None:
    """Queries, built-ins and maintenance can reuse an id, and a command can use it after them."""
    with Peer(served.daemon.endpoint) as peer:
        for name in ("ping", "list-users", "get-scope-info", "ping", "list-users", "compact-scope"):
            assert answer(peer, body(name, {}, id="again"))["ok"]
        assert answer(peer, create_user(1, "again"))["seq"] == 1
        for name in ("list-users", "get-scope-info", "compact-scope"):
            assert answer(peer, body(name, {}, id="again"))["ok"]
        assert answer(peer, create_user(1, "again"))["seq"] == 1


def test_request_ids_are_separate_for_each_scope(served: Served) -> None:
    """The same request in two scopes is two commands, each with its own reply."""
    with Peer(served.daemon.endpoint) as peer:
        assert answer(peer, save(0, "earlier"))["ok"]
        requests = [create_user(1, "same"), create_user(1, "same", scope="other")]
        replies = exchange(peer, *requests)
        assert [value_of(reply)["seq"] for reply in replies] == [2, 1]
        assert exchange(peer, *requests) == replies
        assert answer(peer, body("delete-scope", {}, id="delete", scope="other"))["ok"]
        fresh, first = exchange(peer, requests[1], requests[0])
        assert first == replies[0]
        assert value_of(fresh)["seq"] == 1  # the scope starts empty, without known ids
        assert len(logged(peer, scope="other")) == 1


def test_a_refused_command_can_be_sent_again(served: Served) -> None:
    """Errors of the caller take no number and leave no row; the same request can succeed later."""
    update = body("update-message", {"messageId": "m1", "updates": {"content": "new"}}, id="update")
    taken = body("create-user", {"pubkey": "key-1"}, id="taken")
    with Peer(served.daemon.endpoint) as peer:
        assert answer(peer, update)["error"]["code"] == "not-found"
        assert answer(peer, update)["error"]["code"] == "not-found"
        assert answer(peer, body("save-message", {"message": 1}, id="save"))["error"]["code"] == "invalid"
        assert answer(peer, save(1, "save"))["seq"] == 1
        assert answer(peer, update)["seq"] == 2
        assert answer(peer, create_user(1))["seq"] == 3
        assert answer(peer, taken)["error"]["code"] == "conflict"
        new_key = {"userId": answer(peer, create_user(1))["result"]["oderId"], "updates": {"pubkey": "another"}}
        assert answer(peer, body("update-user", new_key, id="update-user"))["seq"] == 4
        first, second = exchange(peer, taken, taken)
        assert first == second
        assert value_of(first)["seq"] == 5
        assert [entry["id"] for entry in logged(peer)] == ["save", "update", "create-user-1", "update-user", "taken"]


def test_errors_of_the_daemon_are_not_stored(tmp_path: Path) -> None:
    """After `storage`, `internal` or `deadline-exceeded` the same request is executed."""
    disk, bugs = FaultyDisk(), ["a bug"]

    def create(command: CreateUser, db: Any, context: Any) -> Any:
        user = handler_of(CreateUser)(command, db, context)
        assert not bugs
        return user

    with (
        running(tmp_path / "data", vfs=disk.name, handlers=replacing({CreateUser: create})) as daemon,
        Peer(daemon.endpoint) as peer,
    ):
        request = create_user(1)
        outcomes = []
        for harm in ({}, {"failing_syncs": 2}, {"full": True}):
            vars(disk).update(harm)
            outcomes.append(code_of(exchange(peer, request if harm else create_user(1, deadlineMs=0))[0]))
            vars(disk).update({"failing_syncs": 0, "full": False})
            if harm == {}:
                outcomes.append(code_of(exchange(peer, request)[0]))
                bugs.clear()
        assert outcomes == ["deadline-exceeded", "internal", "storage", "storage"]
        assert (logged(peer), peer.ask("list-users")["result"]) == ([], [])
        first, second = exchange(peer, request, request)
        assert first == second
        assert value_of(first)["seq"] == 1


def test_busy_and_unavailable_are_not_stored(tmp_path: Path) -> None:
    """A request that met a full queue or a stopping daemon had no effect, and is executed when it is sent again."""
    commits = HeldCommits(tmp_path / "data")
    requests = [create_user(number) for number in range(4)]
    with (
        running(tmp_path / "data", vfs=commits.vfs, client_requests=2, lock_wait_ms=HELD_MS) as daemon,
        Peer(daemon.endpoint) as peer,
        Peer(daemon.endpoint) as other,
        commits,
    ):
        commits.hold()
        for request in requests:
            peer.send(request)
        assert {peer.reply()["error"]["code"], peer.reply()["error"]["code"]} == {"busy"}
        commits.release()
        done = [peer.frames()[-1], peer.frames()[-1]]
        assert [code_of(reply) for reply in exchange(peer, *requests[2:])] == ["ok", "ok"]
        assert exchange(peer, *requests[:2]) == done
        commits.hold()
        peer.send(save(0, "plug"))
        commits.wait_for_one()
        daemon.daemon.stop()
        wait_until(lambda: _is_refused(other))
        peer.send(create_user(9))
        refused = peer.reply()
        assert (refused["id"], refused["error"]["code"]) == ("create-user-9", "unavailable")
        commits.release()
        daemon.thread.join()
    with running(tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        assert answer(peer, create_user(9))["seq"] == 6


def _is_refused(peer: Peer) -> bool:
    """Whether the daemon has begun to stop; the request has no effect."""
    peer.send(body("list-users", {}, id="asked"))
    reply = peer.reply()
    return not reply["ok"]


def test_a_retry_after_the_deadline_gets_the_stored_reply(served: Served) -> None:
    """The deadline limits the start of a command: one that was executed is answered at any time, and one that was not
    is not started.
    """
    with Peer(served.daemon.endpoint) as peer:
        [reply] = exchange(peer, create_user(1, deadlineMs=60_000))
        assert exchange(peer, create_user(1, deadlineMs=0)) == [reply]
        assert exchange(peer, create_user(1)) == [reply]
        assert answer(peer, create_user(2, deadlineMs=0))["error"]["code"] == "deadline-exceeded"
        assert answer(peer, create_user(2))["seq"] == 2


# Results that are no longer stored


def test_a_logged_create_session_sent_again_returns_no_secret(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A retry gets the same reply; whoever sends what the log shows, by id and hash, gets that reply and no token."""
    user = {"user": {"oderId": "ada", "id": "u1", "username": "ada"}}
    tokens = [f"a token of session number {number}" for number in range(5)]
    sessions = [{"userId": "ada", "durationMs": MILLIS_MAX // 2, "token": token} for token in tokens]
    requests = [
        body("create-session", sessions[0], id="one"),
        body("create-session", sessions[1], MSGPACK, id="two"),
        batch([member("create-session", each) for each in sessions[2:]], "three"),
    ]
    daemon = start_daemon(*QUIET)
    with Peer(daemon.endpoint) as peer:
        assert answer(peer, body("save-user", user, id="ada"))["ok"]
        replies = exchange(peer, *requests)
        assert exchange(peer, *requests) == replies
        _, *entries = logged(peer)
        again = [body(entry["type"], entry["payload"], id=entry["id"]) for entry in entries]
        assert [answer(peer, each) for each in again] == [value_of(reply) for reply in replies]
        assert not [token for token in tokens for seen in (*replies, repr(entries).encode()) if token.encode() in seen]
        new = body("create-session", entries[0]["payload"], id="stolen")
        assert answer(peer, new)["error"]["code"] == "conflict", "there is a session with this token"
        other = sessions[0] | {"token": "another token of this user"}
        assert answer(peer, body("create-session", other, id="one"))["error"]["code"] == "conflict"
    daemon.kill()
    with running(tmp_path / "data") as restarted, Peer(restarted.endpoint) as peer:
        assert exchange(peer, *requests) == replies
        assert all(peer.ask("get-session", {"token": token})["result"]["userId"] == "ada" for token in tokens)


def test_a_retry_of_an_expired_result_is_a_conflict(start_daemon: StartDaemon) -> None:
    """The error has the number of the command; commands with a null result still get their reply, and another payload
    is still distinguished.
    """
    daemon = start_daemon(*QUIET, "--kept-results", "2", "--kept-results-ms", "0", "--chores-ms", "50")
    with Peer(daemon.endpoint) as peer:
        plain = save(0, "plain")
        requests = [create_user(number) for number in range(5)]
        [saved, *replies] = exchange(peer, plain, *requests)
        wait_until(lambda: code_of(exchange(peer, requests[2])[0]) == "conflict")
        again = exchange(peer, *requests)
        assert [code_of(reply) for reply in again] == ["conflict"] * 3 + ["ok"] * 2
        assert again[3:] == replies[3:]
        assert [value_of(reply)["error"]["details"]["seq"] for reply in again[:3]] == [2, 3, 4]
        assert exchange(peer, plain) == [saved]
        _all_conflict(peer, [save(0, "plain", "other"), create_user(7, "create-user-0")])
        assert peer.ask("ping")["seq"] == 6
        assert len(logged(peer)) == 6


def test_results_are_kept_by_age_or_by_number(transport: InProcess, clock: Clock) -> None:
    """By default the results of a week and those of the last million commands are kept, whichever is more."""
    request = create_user(1)
    [reply] = in_process(transport, request)
    clock.now += 365 * 24 * 3_600_000
    transport.dispatcher.run_chores("default")
    assert in_process(transport, request) == [reply]


def test_retries_work_with_a_log_of_ids(start_daemon: StartDaemon) -> None:
    """With `--command-log ids-only` payloads are not stored, and a retry is still told from another command."""
    daemon = start_daemon(*QUIET, "--command-log", "ids-only")
    request = create_user(1, "one")
    with Peer(daemon.endpoint) as peer:
        [reply] = exchange(peer, request)
        assert exchange(peer, request) == [reply]
        _all_conflict(peer, [create_user(2, "one"), save(1, "one")])
        assert [entry.get("payload") for entry in logged(peer)] == [None]


def test_retries_work_after_compaction(served: Served) -> None:
    """Compaction keeps the log."""
    requests = [
        create_user(1),
        body("save-user", {"user": {"oderId": "a", "id": "a", "username": "a"}}, id="a"),
        body("create-session", {"userId": "a", "durationMs": 60_000, "token": "x" * 22}, id="session"),
    ]
    with Peer(served.daemon.endpoint) as peer:
        replies = exchange(peer, *requests)
        assert answer(peer, body("compact-scope", {}, id="compact"))["ok"]
        assert exchange(peer, *requests) == replies


# Batches


def test_a_batch_is_executed_once_as_a_whole(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """It has one id, one seq and one log entry; a retry in either encoding, or after a kill, gets the same reply."""
    commands = [
        member("create-user", {"pubkey": "a"}),
        member("save-message", save_payload(1)),
        member("initialize", {}),
    ]
    request = batch(commands, "batch")
    daemon = start_daemon(*QUIET)
    with Peer(daemon.endpoint) as peer:
        [reply] = exchange(peer, request)
        [user, *rest] = value_of(reply)["result"]
        assert (user["pubkey"], rest, value_of(reply)["seq"]) == ("a", [None, None], 1)
        assert exchange(peer, request) == [reply]
        assert answer(peer, batch(commands, "batch", MSGPACK)) == value_of(reply)
    daemon.kill()
    daemon = start_daemon(*QUIET)
    with Peer(daemon.endpoint) as peer:
        rows = rows_at(tmp_path / "data")
        assert exchange(peer, request) == [reply]
        assert rows_at(tmp_path / "data") == rows
        [entry] = logged(peer)
        assert (entry["seq"], entry["id"], entry["type"]) == (1, "batch", "batch")
        assert [each["type"] for each in entry["payload"]["commands"]] == [each["type"] for each in commands]


def test_a_changed_batch_under_the_same_id_is_a_conflict(transport: InProcess) -> None:
    """Also with a command left out, added, moved, or of another type; the original batch still gets its reply."""
    commands = [member("save-message", save_payload(number)) for number in range(3)]
    commands += [member("create-user", {"pubkey": "a"})]
    [reply] = in_process(transport, batch(commands, "batch"))
    rows = all_rows(transport.store)
    changed = [
        [*commands[:-1], member("create-user", {"pubkey": "b"})],
        [member("save-message", save_payload(0, "other")), *commands[1:]],
        commands[:-1],
        [*commands, member("initialize", {})],
        commands[::-1],
        [*commands[:2], member("delete-message", {"messageId": "m2"}), commands[3]],
    ]
    for each in changed:
        [conflict] = in_process(transport, batch(each, "batch"))
        assert value_of(conflict)["error"]["details"] == {"path": "$.id"}, each
        assert code_of(conflict) == "conflict"
    assert in_process(transport, batch(commands, "batch")) == [reply]
    assert all_rows(transport.store) == rows


def test_the_order_of_fields_in_a_batch_makes_no_difference(transport: InProcess) -> None:
    """Batches are compared in canonical form, like all commands."""
    terse = b'{"id":"b","type":"batch","payload":{"commands":[{"type":"create-user","payload":{"pubkey":"a"}}]}}'
    wordy = b"""{"type": "batch", "id": "b", "payload": {"commands": [
        {"payload": {"displayName": null, "pubkey": "a"}, "type": "create-user"}]}}"""
    [reply] = in_process(transport, terse)
    assert in_process(transport, wordy) == [reply]


BAD_MEMBERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown message": (member("delete-message", {"messageId": "none"}), "not-found", ".payload.messageId"),
    "taken key": (member("create-user", {"pubkey": "taken"}), "conflict", ".payload.pubkey"),
    "wrong type of field": (member("save-ban", {"ban": {"roomId": 1}}), "invalid", ".payload.ban.roomId"),
    "missing field": (member("delete-message", {}), "invalid", ".payload.messageId"),
    "unknown field": (member("initialize", {"x": 1}), "invalid", ".payload.x"),
    "text too long": (member("create-user", {"pubkey": "x" * 1_100_000}), "too-large", ".payload.pubkey"),
    "found by the handler": (
        member("save-message", save_payload(9, reactions=[{"messageId": "m8", "oderId": "a", "emoji": "x"}])),
        "invalid",
        ".payload.message.reactions[0].messageId",
    ),
    "unknown operation": (member("sing", {}), "unknown-operation", ".type"),
    "nested batch": (member("batch", {"commands": [member("initialize", {})]}), "invalid", ".type"),
    "query": (member("list-users", {}), "invalid", ".type"),
    "built-in": (member("ping", {}), "invalid", ".type"),
    "maintenance": (member("compact-scope", {}), "invalid", ".type"),
    "append-log": (
        member("append-log", {"entries": [{"seq": 1, "at": 1, "id": "x", "type": "initialize", "payload": {}}]}),
        "invalid",
        ".type",
    ),
    "clear-all-data": (member("clear-all-data", {}), "invalid", ".type"),
    "put-media-part": (member("put-media-part", {"data": "aGVsbG8="}), "invalid", ".type"),
    "put-media": (member("put-media", {"parts": ["0" * 64], "mime": "x"}), "invalid", ".type"),
    "unknown field beside the payload": (member("initialize", {}) | {"id": "own"}, "malformed", ""),
}


@pytest.mark.parametrize("where", [0, 3, 6])
@pytest.mark.parametrize("bad", BAD_MEMBERS)
def test_an_invalid_command_fails_its_batch(transport: InProcess, bad: str, where: int) -> None:
    """Path and index name the command and the field, no row changes, and the id can be used for the corrected batch."""
    offender, code, path = BAD_MEMBERS[bad]
    good = [member("save-message", save_payload(number)) for number in range(3)]
    good += [member("create-user", {"pubkey": f"k{number}"}) for number in range(3)]
    in_process(transport, create_user("", "other"), body("create-user", {"pubkey": "taken"}, id="taken"))
    rows = all_rows(transport.store)
    request = batch([*good[:where], offender, *good[where:]], "batch")
    reply = value_of(transport.dispatcher.answer(request))
    if code == "malformed":  # an operation that is not a command fails the decoding of the batch
        assert reply["error"]["code"] == "invalid"
        assert reply["error"]["details"]["path"].startswith("$.payload.commands[")
    else:
        assert reply["error"]["code"] == code, reply
        assert reply["error"]["details"]["path"] == f"$.payload.commands[{where}]{path}"
        assert reply["error"]["details"]["index"] == where
        assert reply["error"]["message"].startswith(reply["error"]["details"]["path"] + ": ")
    assert all_rows(transport.store) == rows
    assert transport.store.seq == 2
    [mended] = in_process(transport, batch(good, "batch"))
    assert (code_of(mended), value_of(mended)["seq"]) == ("ok", 3)


def test_a_batch_has_1_to_1000_commands(served: Served) -> None:
    """None, or more, are refused at `$.payload.commands`."""
    commands = [member("create-user", {"pubkey": f"{number}"}) for number in range(BATCH_COMMANDS_MAX + 1)]
    assert len(commands) == 1_001
    with Peer(served.daemon.endpoint) as peer:
        for wrong in ([], commands):
            error = answer(peer, batch(wrong, "batch"))["error"]
            assert error["code"] in ("invalid", "too-large")
            assert error["details"]["path"] == "$.payload.commands"
        [reply] = exchange(peer, batch(commands[:-1], "batch"))
        assert exchange(peer, batch(commands[:-1], "batch")) == [reply]
        assert value_of(reply)["seq"] == 1
        ids = [user["oderId"] for user in value_of(reply)["result"]]
        assert ids == sorted(set(ids))
        [entry] = logged(peer)
        assert entry["generated"]["ids"] == ids
        error = answer(peer, batch([*commands[:-2], commands[0]], "second"))["error"]
        assert (error["details"]["index"], error["code"]) == (0, "conflict")
        assert peer.ask("get-scope-info")["result"]["rows"]["users"] == BATCH_COMMANDS_MAX


def test_a_batch_sees_its_own_commands(transport: InProcess) -> None:
    """Each command sees the effects of those before it, and one that fails undoes all."""
    room = member("save-room", {"room": {"id": "r1", "name": "r"}})
    channel = member("create-channel", {"roomId": "r1", "name": "c"})
    refused, done = in_process(transport, batch([channel, room], "batch"), batch([room, channel], "batch"))
    details = value_of(refused)["error"]["details"]
    assert (details["path"], details["index"]) == ("$.payload.commands[0].payload.roomId", 0)
    assert value_of(done)["seq"] == 1
    twice = [member("create-user", {"pubkey": "a"})] * 2
    [conflict] = in_process(transport, batch(twice, "twice"))
    details = value_of(conflict)["error"]["details"]
    assert (details["path"], details["index"]) == ("$.payload.commands[1].payload.pubkey", 1)
    assert all_rows(transport.store)["users"] == []


def test_retries_work_in_a_file_without_an_older_log(tmp_path: Path) -> None:
    """A file from before the log begins one at its next command, whose number follows those counted before."""
    InProcess(tmp_path / "data").close()
    with closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as connection:
        connection.execute("UPDATE sequence SET seq = 7, log_from = 8")
    (tmp_path / "data" / "default.db-last-commit").unlink()  # there was none then either
    with running(tmp_path / "data") as daemon, Peer(daemon.endpoint) as peer:
        seq = peer.ask("get-scope-info")["seq"]
        assert seq == 7
        [reply] = exchange(peer, create_user(1))
        assert value_of(reply)["seq"] == seq + 1
        assert exchange(peer, create_user(1)) == [reply]


def test_every_command_is_covered() -> None:
    """The loop over all commands leaves none out, and ends with those that delete everything."""
    assert {each.wire_name for each in COMMANDS} == {
        name for name, each in OPERATIONS.items() if issubclass(each, Command)
    }
    assert COMMANDS[-1].wire_name == "clear-all-data"
