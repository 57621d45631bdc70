"""A daemon that is killed again and again, and copies of a database in use: nothing acknowledged is lost or doubled."""

import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from backscroll.bus.inprocess import InProcess
from backscroll.bus.sqlite.scopes import SqliteScopes
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.command_log import CHAIN_START, FORMAT, Facts, LogEntry, chain_after, encode_facts
from backscroll.schema.wire import DEFAULT_SCOPE, MSGPACK
from tests.support.callers import Caller, Ledger, setup
from tests.support.copies import copy_once, copy_until_complete, header_of, wal_of
from tests.support.exchanges import exchange, logged, value_of
from tests.support.maintainers import Maintainer
from tests.support.messages import save_payload
from tests.support.notes import say
from tests.support.peers import Peer
from tests.support.requests import body, send
from tests.support.tables import all_rows
from tests.support.waiting import wait_until

FLAGS = ("--log-level", "error", "--chores-ms", "200")
CALLERS = {DEFAULT_SCOPE: 2, "another": 1}
ACKNOWLEDGED_BETWEEN_KILLS = 150
ENTRIES_AT_ONCE = 250
RESENT_AT_ONCE = 500
RESULT_AT = -2  # among the columns of `commands`

CREATED = {"create-user": ("users", "pubkey"), "create-channel": ("channels", "name")} | {
    "create-category": ("categories", "name"),
    "create-message": ("messages", "content"),
}
"""Where the things lie that carry the id of the command that made them, and in which column."""

StartDaemon = Callable[..., DaemonProcess]


def seed_of(long: bool) -> int:
    """The seed of a run, a random one in the long form; it is shown when the test fails."""
    seed = random.SystemRandom().randrange(2**32) if long else 20260106
    say(f"seed {seed}")
    return seed


def set_up(ledger: Ledger, endpoint: str) -> None:
    """Make what the callers of a scope use."""
    with Peer(endpoint) as peer:
        for request in setup(ledger.scope):
            ledger.sent[value_of(request)["id"]] = request
            assert ledger.note(exchange(peer, request)[0])


@contextmanager
def at_work(endpoint: str, ledgers: list[Ledger], seed: int, bytes_max: int) -> Iterator[None]:
    """Callers that send commands during the block; at its end each waits until everything it sent is acknowledged.

    Every second one numbers its commands.
    """
    callers = [
        Caller(
            *(f"{ledger.scope}-{number}", endpoint, ledger, f"{seed} {ledger.scope} {number}", bytes_max),
            numbered=number % 2 == 0,
        )
        for ledger in ledgers
        for number in range(CALLERS[ledger.scope])
    ]
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        for caller in callers:
            caller.finish()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "a command is never answered"


def acknowledged(ledgers: list[Ledger]) -> int:
    return sum(len(ledger.replies) for ledger in ledgers)


def kill_while_starting(data_dir: Path, flags: tuple[str, ...], after_s: float) -> None:
    """Kill a daemon after a time, whether or not it is ready by then."""
    command = [sys.executable, "-m", "backscroll.bus", "--data-dir", str(data_dir), *flags]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(after_s)  # kill at a random moment, not to synchronise
    process.kill()
    process.wait()


@pytest.mark.timeout(3_600)
def test_acknowledged_commands_take_effect_once_over_kills(tmp_path: Path, long: bool) -> None:
    """Callers send random commands, and resend them until they are acknowledged, while the daemon is killed at random
    moments, also during its start, and started again. At the end each acknowledged command is in the log once under its
    number; the numbers have no gaps and the chain is valid; each command sent again gets the same reply; nothing was
    created twice, or took effect after a later command of a caller who numbers them; and replaying the log gives the
    same rows. Meanwhile scopes are compacted, replayed into and deleted,
    and media are put and deleted: what was acknowledged of that has happened, and nothing else.
    """
    draw = random.Random(seed := seed_of(long))
    kills = 220 if long else 10
    data_dir, endpoint = tmp_path / "d", f"ipc://{tmp_path}/s"
    flags = (*FLAGS, "--endpoint", endpoint)
    ledgers = [Ledger(scope) for scope in CALLERS]
    with DaemonProcess(data_dir, *flags) as daemon:
        for ledger in ledgers:
            set_up(ledger, endpoint)
        daemon.kill()
    maintainer = Maintainer(endpoint, list(CALLERS), f"{seed}")
    maintainer.start()
    with at_work(endpoint, ledgers, seed, bytes_max=3_000):
        for kill in range(kills):
            if kill % 4 == 3:
                kill_while_starting(data_dir, flags, draw.uniform(0.2, 1.2))
                continue
            with DaemonProcess(data_dir, *flags) as daemon:
                wanted = acknowledged(ledgers) + draw.randrange(ACKNOWLEDGED_BETWEEN_KILLS)
                wait_until(partial(is_past, ledgers, wanted), 60)
                time.sleep(draw.uniform(0, 0.02))  # kill at a random moment, not to synchronise
                daemon.kill()
            assert not problems(ledgers), seed
        last = DaemonProcess(data_dir, *flags, "--chores-ms", "3600000")
        maintainer.finish()
        maintainer.join(60)
        assert not maintainer.is_alive()
        assert maintainer.problems == []
    with last, Peer(endpoint) as peer:
        for ledger in ledgers:
            check(ledger, peer, path_of(data_dir, ledger.scope), tmp_path / f"replayed-{ledger.scope}")
    assert acknowledged(ledgers) > kills * 10
    say(f"{kills} kills: 0 lost, 0 twice; meanwhile {maintainer.done}")
    for ledger in ledgers:
        say(
            f"{ledger.scope}: {len(ledger.sent)} commands, {len(ledger.replies)} acknowledged, "
            f"{ledger.refused} refused, {ledger.superseded} superseded, {ledger.resent} sent again, "
            f"{ledger.answered_again} answered again"
        )


def is_past(ledgers: list[Ledger], wanted: int) -> bool:
    """Whether more than `wanted` commands are acknowledged, or something is wrong already."""
    return acknowledged(ledgers) > wanted or bool(problems(ledgers))


def problems(ledgers: list[Ledger]) -> list[str]:
    return [problem for ledger in ledgers for problem in ledger.problems]


def path_of(data_dir: Path, scope: str) -> Path:
    """The path of a scope's database."""
    with closing(SqliteScopes(data_dir)) as scopes:
        return scopes.scope_named(scope).path


def check(ledger: Ledger, peer: Peer, database: Path, replayed: Path) -> None:
    """Compare a scope with the ledger of its callers."""
    assert ledger.problems == []
    entries = logged(peer, scope=ledger.scope, codec=MSGPACK)
    check_log(entries)
    check_acknowledged(ledger, entries)
    check_order(entries)
    before = all_rows(database)
    check_created(before, entries)
    check_resent(ledger, peer, entries)
    assert all_rows(database) == before
    check_replayed(before, entries, replayed)


def check_log(entries: list[dict[str, Any]]) -> None:
    """The numbers have no gaps, each id is there once, and the chain is valid."""
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    twice = [request_id for request_id, count in Counter(entry["id"] for entry in entries).items() if count > 1]
    assert twice == []
    chain = CHAIN_START
    for entry in entries:
        digest, typed = bytes.fromhex(entry["digest"]), msgspec.convert(entry, LogEntry)
        facts = encode_facts(Facts(FORMAT, typed.principal, digest, typed.changes, typed.generated, typed.sender))
        chain = chain_after(chain, entry["seq"], entry["at"], entry["type"], entry["id"], facts)
        assert chain.hex() == entry["chain"], f"the chain breaks at {entry['seq']}"


def check_acknowledged(ledger: Ledger, entries: list[dict[str, Any]]) -> None:
    """Each acknowledged command is in the log under its number; every other entry was sent too, or is of the setup."""
    seqs = {entry["id"]: entry["seq"] for entry in entries}
    lost = [request_id for request_id, seq in ledger.seqs.items() if seqs.get(request_id) != seq]
    assert lost == []
    own = {entry["type"] for entry in entries if entry["id"] not in ledger.sent}
    assert own <= {"delete-expired-sessions"}


def check_order(entries: list[dict[str, Any]]) -> None:
    """The commands of a caller that numbers them took effect in the order in which it made them."""
    numbers = defaultdict[str, list[int]](list)
    for entry in entries:
        if "client" in entry:
            numbers[entry["client"]].append(entry["n"])
    assert numbers
    assert all(each == sorted(each) for each in numbers.values())


def check_created(rows: dict[str, list[tuple[object, ...]]], entries: list[dict[str, Any]]) -> None:
    """Everything that commands in the log created is there exactly once, and nothing else."""
    made: dict[str, Counter[object]] = {operation: Counter() for operation in CREATED}
    for entry in entries:
        for single in entry["payload"]["commands"] if entry["type"] == "batch" else [entry]:
            if single["type"] in CREATED:
                _, column = CREATED[single["type"]]
                made[single["type"]][single["payload"][column]] += 1
    for operation, (table, _) in CREATED.items():
        assert all(count == 1 for count in made[operation].values())
        found = [value for row in rows[table] for value in row if value in made[operation]]
        assert Counter(found) == made[operation], operation


def check_resent(ledger: Ledger, peer: Peer, entries: list[dict[str, Any]]) -> None:
    """Every command that took effect is acknowledged with its number when it is sent again, and with the same bytes if
    it was acknowledged before. Where its text was deleted since, the reply has only the number.
    """
    entries = [entry for entry in entries if entry["id"] in ledger.sent]
    for at in range(0, len(entries), RESENT_AT_ONCE):
        asked = entries[at : at + RESENT_AT_ONCE]
        replies = exchange(peer, *(ledger.sent[entry["id"]] for entry in asked))
        for entry, reply in zip(asked, replies, strict=True):
            value = value_of(reply)
            if value["ok"]:
                assert value["seq"] == entry["seq"]
                assert reply == ledger.replies.get(entry["id"], reply)
            else:
                assert entry.get("redacted"), (reply, ledger.replies.get(entry["id"]))
                assert value["error"]["details"] == {"path": "$.id", "seq": entry["seq"]}


def check_replayed(rows: dict[str, list[tuple[object, ...]]], entries: list[dict[str, Any]], data_dir: Path) -> None:
    """Replaying the log gives the same rows in every table, except those the log keeps for retries."""
    with InProcess(data_dir) as transport:
        for at in range(0, len(entries), ENTRIES_AT_ONCE):
            reply = send(transport, body("append-log", {"entries": entries[at : at + ENTRIES_AT_ONCE]}, MSGPACK))
            assert reply["ok"], reply
        again = all_rows(transport.store.path)
    assert _without_results(again) == _without_results(rows)


def _without_results(rows: dict[str, list[tuple[object, ...]]]) -> dict[str, list[tuple[object, ...]]]:
    commands = [(*row[:RESULT_AT], *row[RESULT_AT + 1 :]) for row in rows["commands"]]
    return {name: sorted(table, key=repr) for name, table in (rows | {"commands": commands}).items()}


# Copies


def test_copies_under_load_have_all_acknowledged_commands(
    start_daemon: StartDaemon, tmp_path: Path, long: bool
) -> None:
    """The database and then its WAL, copied at any moment under load and copied again where the header of the WAL shows
    that it was reset meanwhile: the copy is intact, has every command acknowledged before, and repeats their replies.
    """
    seed = seed_of(long)
    draw = random.Random(seed)
    daemon = start_daemon(*FLAGS)
    database = tmp_path / "data" / "default.db"
    ledger, attempts, beginnings = Ledger(DEFAULT_SCOPE), Counter[int](), set()
    set_up(ledger, daemon.endpoint)
    with at_work(daemon.endpoint, [ledger], seed, bytes_max=40_000):
        for number in range(300 if long else 8):
            wanted = len(ledger.replies) + draw.randrange(100)
            wait_until(partial(is_past, [ledger], wanted))
            before = dict(ledger.replies)
            beginnings.add(header_of(wal_of(database)))
            copy = tmp_path / f"copy-{number}"
            attempts[copy_until_complete(database, copy)] += 1
            check_copy(copy, before, ledger, draw)
            shutil.rmtree(copy)
    assert ledger.problems == []
    say(f"{attempts.total()} copies, {len(beginnings)} beginnings of the log; attempts: {dict(attempts)}")


def check_copy(copy: Path, acknowledged_before: dict[str, bytes], ledger: Ledger, draw: random.Random) -> None:
    """Compare a copied database with the commands acknowledged before the copy."""
    with InProcess(copy) as transport:
        last_seq = transport.store.seq
        for request_id in draw.sample(list(acknowledged_before), 20):
            reply = transport.dispatcher.answer(ledger.sent[request_id])
            if value_of(reply)["ok"]:
                assert reply == acknowledged_before[request_id]
            else:  # its text was deleted since
                assert value_of(reply)["error"]["details"]["seq"] == ledger.seqs[request_id]
        assert transport.store.seq == last_seq
    with closing(apsw.Connection(str(copy / "default.db"))) as connection:
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        rows: list[Any] = connection.execute("SELECT seq, id FROM commands ORDER BY seq").fetchall()
    assert [seq for seq, _ in rows] == list(range(1, last_seq + 1))
    lost = acknowledged_before.keys() - {request_id for _, request_id in rows}
    assert lost == set()


def filled(transport: InProcess, numbers: range) -> None:
    """Save a number of messages of two pages each, with the checkpoints that become due."""
    for number in numbers:
        request = body("save-message", save_payload(number, "x" * 8_000), id=f"save-{number}")
        transport.send(request)
        reply = transport.receive(0)
        assert reply is not None
        assert value_of(reply)["ok"]


def ids_in(database: Path) -> list[str]:
    with closing(apsw.Connection(str(database))) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM commands ORDER BY seq")]


def test_a_copy_is_complete_despite_a_checkpoint_in_between(tmp_path: Path) -> None:
    """Commands that commit meanwhile do no harm either: what the copied file lacks is in the copied WAL."""
    database = tmp_path / "data" / "default.db"
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(20))

        def meanwhile() -> None:
            filled(transport, range(20, 40))
            assert run_checkpoint(database)

        assert copy_once(database, tmp_path / "copy", meanwhile)
        assert ids_in(tmp_path / "copy" / "default.db") == [f"save-{number}" for number in range(40)]


def run_checkpoint(database: Path) -> bool:
    """Checkpoint from another connection; whether it was complete."""
    with closing(apsw.Connection(str(database))) as connection:
        connection.pragma("user_version")  # so that it is open
        pages, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return pages == copied > 0


def test_a_wal_reset_between_the_copies_is_detected(tmp_path: Path) -> None:
    """Commands may then be in neither of the two copies. The header of the WAL shows it, and the next copy is
    complete.
    """
    database = tmp_path / "data" / "default.db"
    with InProcess(tmp_path / "data") as transport:
        filled(transport, range(20))

        def meanwhile() -> None:
            assert run_checkpoint(database)
            filled(transport, range(20, 25))

        assert not copy_once(database, tmp_path / "copy", meanwhile)
        everything = [f"save-{number}" for number in range(25)]
        with suppress(apsw.CorruptError):
            assert ids_in(tmp_path / "copy" / "default.db") != everything
        assert copy_until_complete(database, tmp_path / "again") == 1
        assert ids_in(tmp_path / "again" / "default.db") == everything
