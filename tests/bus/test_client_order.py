"""Commands of one client take effect in one order, also where one that was refused is sent again after a cut.

Such commands have `client` and `n` in their envelope. A command with a new id whose `n` is not greater than the
client's greatest that took effect is `superseded`, and has no effect.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.checksums import RESERVED_BYTES
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.handlers import clients
from backscroll.handlers.storage import Retention
from backscroll.schema.limits import CLIENT_BYTES_MAX, INTEGER_MAX, KNOWN_CLIENTS_MAX
from backscroll.schema.wire import JSON, MSGPACK, Codec
from tests.support.clocks import Clock
from tests.support.disks import FaultyDisk
from tests.support.exchanges import exchange, logged, value_of
from tests.support.local import REPLAYED, Local, check_replay
from tests.support.messages import save_payload
from tests.support.peers import Peer, running
from tests.support.requests import CODECS, answer_all, body
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
PAIRS = 20
PAGE_BYTES = 4096


def update(number: int, content: str = "old", **envelope: Any) -> bytes:
    """An update that is refused until its message is saved."""
    return body("update-message", {"messageId": f"m{number}", "updates": {"content": content}}, **envelope)


def save(number: int, content: str = "new", **envelope: Any) -> bytes:
    return body("save-message", save_payload(number, content), **envelope)


def by(client: str, n: int) -> dict[str, Any]:
    return {"client": client, "n": n}


def updates_and_saves(*, with_fields: bool) -> list[bytes]:
    """Updates of messages that do not exist yet, each followed by the save of its message."""
    commands = [make(number) for number in range(PAIRS) for make in (update, save)]
    if not with_fields:
        return commands
    return [JSON.encode(JSON.decode(each, dict[str, Any]) | by("me", n)) for n, each in enumerate(commands, 1)]


def known_at(store: Any) -> dict[str, int]:
    """The greatest `n` of each client that an open store knows."""
    if store.clients is None:  # it reads them when it first writes
        with store.write():
            pass
    known: dict[str, int] = store.clients.greatest_n
    return known


def outcomes(replies: list[bytes]) -> list[str]:
    """The code of each error reply, or `ok`."""
    values = [value_of(reply) for reply in replies]
    return ["ok" if value["ok"] else str(value["error"]["code"]) for value in values]


def contents(peer: Peer) -> list[str]:
    reply = peer.ask("get-messages", {"roomId": "r1", "limit": PAIRS})
    return [str(message["content"]) for message in reply["result"]]


def answers(transport: InProcess | Local, *requests: bytes) -> list[str]:
    """The outcomes of requests that are executed in one commit."""
    dispatcher = transport.dispatcher
    return outcomes(answer_all(dispatcher, [dispatcher.receive(request) for request in requests]))


# A cut


@pytest.mark.parametrize("with_fields", [False, True])
def test_a_resent_update_does_not_win(tmp_path: Path, *, with_fields: bool) -> None:
    """Updates were refused, and their replies never read; sent again over a new connection, they are superseded by the
    later saves. Without the fields each of them wins over its save.
    """
    commands = updates_and_saves(with_fields=with_fields)
    with running(tmp_path / "data") as daemon:
        send_unread(daemon.endpoint, commands)
        check_again(daemon.endpoint, commands, with_fields=with_fields)


def test_a_resent_update_does_not_win_after_a_kill(start_daemon: StartDaemon) -> None:
    """After `kill -9` the new daemon knows the same clients."""
    commands = updates_and_saves(with_fields=True)
    daemon = start_daemon()
    send_unread(daemon.endpoint, commands)
    daemon.kill()
    check_again(start_daemon().endpoint, commands, with_fields=True)


def send_unread(endpoint: str, commands: list[bytes]) -> None:
    """Send commands, and lose the connection after they were executed and before any reply is read."""
    with Peer(endpoint) as lost, Peer(endpoint) as other:
        for command in commands:
            lost.send(command)
        wait_until(lambda: other.ask("ping")["seq"] == PAIRS)
        assert contents(other) == ["new"] * PAIRS


def check_again(endpoint: str, commands: list[bytes], *, with_fields: bool) -> None:
    """Send the commands again over a new connection, and check which of them take effect."""
    with Peer(endpoint) as peer:
        replies = exchange(peer, *commands)
        assert outcomes(replies) == ["superseded" if with_fields else "ok", "ok"] * PAIRS
        assert [value_of(reply)["seq"] for reply in replies[1::2]] == list(range(1, PAIRS + 1))
        assert contents(peer) == ["new" if with_fields else "old"] * PAIRS
        assert len(logged(peer)) == (1 if with_fields else 2) * PAIRS
        if with_fields:
            error = value_of(replies[0])["error"]
            assert (error["fault"], error["retryable"]) == ("caller", False)
            assert error["details"] == {"path": "$.n", "n": 2 * PAIRS}


# The rule


def test_n_must_rise(transport: InProcess) -> None:
    """A new id needs a greater `n` than any that took effect, also in the same commit; another client has its own."""
    assert answers(transport, save(1, **by("a", 5)), save(2, **by("a", 5)), save(3, **by("a", 4))) == [
        *("ok", "superseded", "superseded")
    ]
    assert answers(transport, save(3, **by("a", 5)), save(3, **by("b", 1)), save(4)) == ["superseded", "ok", "ok"]
    assert answers(transport, save(5, **by("a", INTEGER_MAX)), save(6, **by("b", 2))) == ["ok", "ok"]


def test_a_known_id_gets_its_stored_reply(transport: InProcess) -> None:
    """Whatever its `n`, and whether it has one."""
    first = body("create-user", {"pubkey": "key"}, id="first", **by("a", 1))
    reply = transport.dispatcher.answer(first)
    assert answers(transport, save(1, **by("a", 2))) == ["ok"]
    again = [first, *(body("create-user", {"pubkey": "key"}, id="first", **each) for each in ({}, by("b", 9)))]
    assert [transport.dispatcher.answer(each) for each in again] == [reply] * 3
    assert answers(transport, save(2, **by("b", 1))) == ["ok"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_command_without_effect_leaves_n_free(transport: InProcess, *, at_once: bool) -> None:
    """One that is refused does not count, before or after it has written, nor what is no command in the log."""
    requests = [
        update(1, **by("a", 7)),
        body("batch", {"commands": [_member("save-message", save_payload(2)), _missing()]}, **by("a", 8)),
        save(3, **by("a", 3)),
    ]
    if at_once:
        assert answers(transport, *requests) == ["not-found", "not-found", "ok"]
    else:
        assert [answers(transport, each) for each in requests] == [["not-found"], ["not-found"], ["ok"]]
    for no_command in ("compact-scope", "get-current-user", "ping"):
        assert outcomes([transport.dispatcher.answer(body(no_command, {}, **by("a", 9)))]) == ["ok"]
        assert outcomes([transport.dispatcher.answer(body(no_command, {}, **by("a", 1)))]) == ["ok"]
    assert known_at(transport.store) == {"a": 3}


def test_a_batch_has_one_n(transport: InProcess) -> None:
    """It is superseded as a whole, and supersedes."""
    batch = {"commands": [_member("save-message", save_payload(number)) for number in (1, 2)]}
    assert answers(transport, body("batch", batch, **by("a", 2))) == ["ok"]
    assert answers(transport, body("batch", batch, **by("a", 2)), save(3, **by("a", 1))) == ["superseded"] * 2
    assert answers(transport, save(3, **by("a", 3))) == ["ok"]


def test_scopes_know_their_own_clients(transport: InProcess) -> None:
    """The same client may send the same `n` to two scopes; a scope that was deleted knows nobody."""
    assert answers(transport, save(1, **by("a", 2))) == ["ok"]
    assert answers(transport, save(1, scope="other", **by("a", 1))) == ["ok"]
    deleted = transport.dispatcher.answer(body("delete-scope", {}, scope="other"))
    assert outcomes([deleted]) == ["ok"]
    assert answers(transport, save(1, scope="other", **by("a", 1))) == ["ok"]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"client": "a"}, "invalid", "$.n"),
        ({"n": 1}, "invalid", "$.client"),
        (by("", 1), "invalid", "$.client"),
        (by("a", 0), "invalid", "$.n"),
        (by("a", -1), "invalid", "$.n"),
        (by("a", INTEGER_MAX + 1), "invalid", "$.n"),
        ({"client": "a", "n": 1.5}, "invalid", "$.n"),
        ({"client": "a", "n": "1"}, "invalid", "$.n"),
        ({"client": 1, "n": 1}, "invalid", "$.client"),
        (by("a\0", 1), "invalid", "$.client"),
        (by("a" * (CLIENT_BYTES_MAX + 1), 1), "too-large", "$.client"),
        (by("ü" * (CLIENT_BYTES_MAX // 2 + 1), 1), "too-large", "$.client"),
    ],
)
def test_invalid_fields_are_refused(
    transport: InProcess, codec: Codec, fields: dict[str, Any], code: str, path: str
) -> None:
    """The error names the field, and the command has no effect."""
    reply = value_of(transport.dispatcher.answer(body("save-message", save_payload(1), codec, **fields)))
    assert (reply["error"]["code"], reply["error"]["details"]["path"]) == (code, path)
    assert transport.store.seq == 0


def test_valid_fields_at_their_limits(transport: InProcess) -> None:
    """Both may be null, and `n` a float without a fraction."""
    assert answers(transport, save(1, client=None, n=None), save(2, client="ü" * 32, n=2.0)) == ["ok", "ok"]
    assert known_at(transport.store) == {"ü" * 32: 2}


# What is known


def test_the_longest_silent_client_is_forgotten(transport: InProcess) -> None:
    """So many clients are known as the limit says; one that is forgotten is executed like a new one."""
    numbers = range(KNOWN_CLIENTS_MAX)
    assert set(answers(transport, *(save(1, **by(f"c{number}", 9)) for number in numbers))) == {"ok"}
    assert answers(transport, save(1, **by("c0", 10)), save(1, **by("new", 1))) == ["ok", "ok"]
    assert answers(transport, save(1, **by("c0", 1)), save(1, **by("c2", 1))) == ["superseded"] * 2
    assert answers(transport, save(1, **by("c1", 1))) == ["ok"]
    assert len(known_at(transport.store)) == KNOWN_CLIENTS_MAX


def test_opening_reads_only_the_newest_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many rows, and so many bytes of them: clients in earlier ones are not known afterwards."""
    with Local(tmp_path / "data") as local:
        assert answers(local, *(save(1, "x" * 100, **by(f"c{number}", 1)) for number in range(10))) == ["ok"] * 10
        known = known_at(local.store())
    with Local(tmp_path / "data") as local:
        assert known_at(local.store()) == known
        assert list(known_at(local.store())) == list(known)
    monkeypatch.setattr(clients, "ROWS_MAX", 4)
    with Local(tmp_path / "data") as local:
        assert list(known_at(local.store())) == list(known)[-4:]
    monkeypatch.setattr(clients, "ROWS_BYTES_MAX", 300)  # a little more than one has
    with Local(tmp_path / "data") as local:
        assert list(known_at(local.store())) == list(known)[-2:]


@pytest.mark.parametrize("payloads", [True, False])
def test_a_replay_knows_the_same_clients(tmp_path: Path, *, payloads: bool) -> None:
    """The entries have both fields, so a replay leads to the same rows, chain and clients. Neither erased text, nor
    compaction, nor a log without payloads takes them away.
    """
    with Local(tmp_path / "data", clock=Clock(), retention=Retention(payloads=payloads)) as local:
        requests = [save(1, **by("a", 3)), save(2), save(3, **by("b", 1)), save(4, **by("a", 4))]
        delete = body("delete-message", {"messageId": "m3"}, **by("c", 7))
        assert answers(local, *requests, update(9, **by("d", 1)), delete) == ["ok"] * 4 + ["not-found", "ok"]
        known = {"b": 1, "a": 4, "c": 7}
        entries = local.entries()
        senders = [(entry.get("client"), entry.get("n")) for entry in entries]
        assert senders == [("a", 3), (None, None), ("b", 1), ("a", 4), ("c", 7)]
        assert ["payload" in entry and entry["payload"] is not None for entry in entries] == [payloads] * 5
        local.result("compact-scope")
        assert known_at(local.store()) == known
        if payloads:
            local.replay(entries, codec=MSGPACK)
            check_replay(local, REPLAYED)
            assert known_at(local.store(REPLAYED)) == known
            assert answers(local, save(5, scope=REPLAYED, **by("a", 4))) == ["superseded"]


def test_an_entry_has_both_fields_or_neither(tmp_path: Path) -> None:
    """Half a sender is refused; and the fields are part of the chain."""
    with Local(tmp_path / "data") as local:
        assert answers(local, save(1, **by("a", 3))) == ["ok"]
        [entry] = local.entries()
        del entry["n"]
        reply = local.ask("append-log", {"entries": [entry]}, scope=REPLAYED)
        assert reply["error"]["details"]["path"] == "$.payload.entries[0].n"
        local.replay([entry | {"n": 4}])
        assert local.entries(REPLAYED)[0]["chain"] != entry["chain"]


def test_a_damaged_newest_row_does_not_prevent_opening(tmp_path: Path) -> None:
    """Its client is not known, and everything else works as before."""
    with Local(tmp_path / "data") as local:
        assert answers(local, save(1, **by("a", 3)), save(2, **by("b", 3))) == ["ok", "ok"]
    with closing(apsw.Connection(str(tmp_path / "data" / "default.db"))) as database:
        database.execute("UPDATE commands SET facts = x'c1' WHERE seq = 2")
    with Local(tmp_path / "data") as local:
        assert known_at(local.store()) == {"a": 3}
        assert answers(local, save(3, **by("b", 1)), save(4, **by("a", 3))) == ["ok", "superseded"]


def test_unreadable_rows_do_not_prevent_opening(tmp_path: Path) -> None:
    """Where a page of the newest rows is damaged no client is known, and commands are executed as before."""
    with Local(tmp_path / "data") as local:
        assert answers(local, save(1, "x" * 20_000, **by("a", 3)), save(2, **by("b", 3))) == ["ok", "ok"]
    database = tmp_path / "data" / "default.db"
    pages = bytearray(database.read_bytes())
    for at in range(0, len(pages), PAGE_BYTES):
        if pages[at + 4 : at + PAGE_BYTES - RESERVED_BYTES] == b"x" * (PAGE_BYTES - 4 - RESERVED_BYTES):
            pages[at : at + 4] = b"\xff" * 4  # the number of the page that follows
    database.write_bytes(pages)
    with Local(tmp_path / "data") as local:
        assert known_at(local.store()) == {}
        assert answers(local, save(3, **by("b", 1))) == ["ok"]


def test_a_commit_that_fails_leaves_n_free(tmp_path: Path) -> None:
    """What is known is what is on the disk."""
    disk = FaultyDisk()
    with Local(tmp_path / "data", vfs=disk.name) as local:
        assert answers(local, save(1, **by("a", 1))) == ["ok"]
        disk.full = True
        assert answers(local, save(2, **by("a", 2))) == ["storage"]
        disk.full = False
        assert known_at(local.store()) == {"a": 1}
        assert answers(local, save(2, **by("a", 2))) == ["ok"]


def _member(operation: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"type": operation, "payload": payload}


def _missing() -> dict[str, Any]:
    return _member("update-message", {"messageId": "missing", "updates": {"content": "x"}})
