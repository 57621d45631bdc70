"""The feed of real daemons: kills, races, restored files, and queries that wait."""

import base64
import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backscroll.bus.dispatch import Dispatcher
from backscroll.bus.recent_commits import RecentCommits, Wanted
from backscroll.bus.waiting import RUNNING_MAX
from backscroll.clients.python.daemon_process import DaemonProcess
from backscroll.schema.limits import WAITING_QUERIES_OF_CLIENT_MAX
from backscroll.schema.wire import DEFAULT_SCOPE
from tests.support.callers import Caller, Ledger, setup
from tests.support.exchanges import exchange, logged, value_of
from tests.support.feed_model import Plain, read_state
from tests.support.followers import Follower, problems_of
from tests.support.local import Local
from tests.support.messages import large_room, save_payload
from tests.support.notes import say
from tests.support.peers import Peer, running, several
from tests.support.requests import CODECS, body
from tests.support.status import status_of
from tests.support.waiting import wait_until

StartDaemon = Callable[..., DaemonProcess]
NEVER = ("--chores-ms", str(10**9))
LONG_MS = 60_000
PROMPT_SECONDS = 10
"""For a reply to a query that could wait six times as long."""
WRITERS = 4
ROOMS = ("r1", "default")
CHOICES: list[Plain] = [
    {},
    {"limit": 1},
    {"limit": 500},
    {"values": False},
    {"values": False, "limit": 3},
    {"rooms": ["r1"]},
    {"rooms": ["default"], "nouns": ["message"], "limit": 7},
    {"rooms": ["r1", "default"], "values": False},
    {"nouns": ["user", "room"]},
    {"nouns": ["message", "room"]},
]
"""What each of ten followers wants."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """That of a daemon in a thread of this process, which starts faster."""
    with running(tmp_path / "data", chores_ms=10**9) as daemon:
        yield daemon.endpoint


# Kills


@contextmanager
def writing(endpoint: str, ledger: Ledger, seed: int) -> Iterator[None]:
    """Callers that send commands during the block, and then until each is acknowledged."""
    callers = [Caller(f"writer-{number}", endpoint, ledger, f"{seed} {number}", 300) for number in range(WRITERS)]
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


def is_past(ledger: Ledger, wanted: int) -> bool:
    """Whether more than `wanted` commands are acknowledged, or something is wrong already."""
    return len(ledger.replies) > wanted or bool(ledger.problems)


@pytest.mark.timeout(1_800)
def test_followers_miss_nothing_over_kills(tmp_path: Path, long: bool) -> None:
    """Ten follow what four write, while the daemon is killed and started again. Each ends with the state that queries
    answer; none is told a change twice, or in another order, and none misses one that is in the log.
    """
    seed = random.SystemRandom().randrange(2**32) if long else 20261130
    say(f"seed {seed}")
    draw, kills = random.Random(seed), 30 if long else 3
    data_dir, endpoint = tmp_path / "d", f"ipc://{tmp_path}/s"
    start = partial(DaemonProcess, data_dir, "--log-level", "error", *NEVER, "--endpoint", endpoint)
    ledger = Ledger(DEFAULT_SCOPE)
    followers = [Follower(endpoint, f"{seed} {number}", **choice) for number, choice in enumerate(CHOICES)]
    with start() as daemon, Peer(endpoint) as peer:
        for request in setup(DEFAULT_SCOPE):
            ledger.sent[value_of(request)["id"]] = request
            assert ledger.note(exchange(peer, request)[0])
        for follower in followers:
            follower.start()
        daemon.kill()
    with writing(endpoint, ledger, seed):
        for _ in range(kills):
            with start() as daemon:
                wanted = len(ledger.replies) + draw.randrange(20, 150)
                wait_until(partial(is_past, ledger, wanted), 60)
                time.sleep(draw.uniform(0, 0.02))  # kill at a random moment, not to synchronise
                daemon.kill()
        last = start()
    with last, Peer(endpoint) as peer:
        assert ledger.problems == []
        entries = logged(peer)
        for follower in followers:
            follower.finish(len(entries))
        for follower in followers:
            follower.join(60)
            assert not follower.is_alive(), "it is never told the last change"
            assert follower.problems == []
        state = read_state(peer.ask, ROOMS)
        assert state[0] == len(entries)
        for follower in followers:
            assert follower.watcher.seq == len(entries)
            assert follower.told
            follower.watcher.compare(*state, now=0)
            assert problems_of(follower, entries)[:5] == [], follower.name
    told = sum(len(follower.told) for follower in followers)
    reconnected = sum(follower.reconnected for follower in followers)
    say(f"{kills} kills, {len(entries)} commands, {told} changes told, {reconnected} connections lost")


# Races


def test_the_first_change_after_a_question_is_never_missed(start_daemon: StartDaemon, long: bool) -> None:
    """Whether a commit comes before the question, while it is evaluated or when it waits: the reply has the change, and
    does not come only when the wait is over.
    """
    draw = random.Random(20261201)
    endpoint = start_daemon(*NEVER).endpoint
    with several(endpoint, 3) as [all_rooms, one_room, writer]:
        watching: dict[Peer, Plain] = {all_rooms: {}, one_room: {"rooms": ["r1"], "values": False}}
        cursors = {peer: ask(peer, after="now")["cursor"] for peer in watching}
        for number in range(10_000 if long else 200):
            steps: list[Callable[[], None]] = [
                partial(peer.request, "get-changes", {"after": cursors[peer], "waitMs": LONG_MS} | where)
                for peer, where in watching.items()
            ]
            steps.insert(
                draw.randrange(3), partial(writer.request, "save-message", save_payload(number), f"save-{number}")
            )
            for step in steps:
                step()
                pass_time(draw.choice([0, 0, draw.uniform(0, 0.0004)]))
            for peer in watching:
                page = peer.reply(PROMPT_SECONDS)["result"]
                assert [change["requestId"] for change in page["changes"]] == [f"save-{number}"]
                assert not page["more"]
                cursors[peer] = page["cursor"]
            assert writer.reply()["ok"]


def pass_time(seconds: float) -> None:
    """Let a fraction of a millisecond pass, so that what follows falls into another moment of the daemon's work."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# Other histories


def ask(peer: Peer, scope: str = DEFAULT_SCOPE, **payload: Any) -> Plain:
    """The result of `get-changes`."""
    reply = peer.ask("get-changes", payload, scope=scope)
    assert reply["ok"], reply
    page: Plain = reply["result"]
    return page


def save(peer: Peer, numbers: range, text: str = "hello", scope: str = DEFAULT_SCOPE) -> None:
    for number in numbers:
        assert peer.ask("save-message", save_payload(number, text), scope=scope)["ok"]


def check_gap(peer: Peer, cursor: str, scope: str = DEFAULT_SCOPE) -> None:
    """There is a gap after a cursor, and none after the cursor that the reply has instead."""
    page = ask(peer, scope, after=cursor)
    assert page.get("gap"), page
    assert page["changes"] == []
    assert not page["more"]
    assert ask(peer, scope, after=page["cursor"]) == {"changes": [], "cursor": page["cursor"], "more": False}


def test_a_restored_copy_is_a_gap_for_those_who_saw_more(tmp_path: Path, start_daemon: StartDaemon) -> None:
    """Files are replaced by an older copy while the daemon is stopped. Whether there are fewer commands than before
    then, or as many, or more: each cursor of what was lost has a gap, and those from before the copy go on.

    Lost is also what a page that was not the last had read: its values may be later than its changes.
    """
    data_dir, copy = tmp_path / "data", tmp_path / "copy"
    lost: dict[str, str] = {}
    with DaemonProcess(data_dir, *NEVER) as daemon, Peer(daemon.endpoint) as peer:
        save(peer, range(1, 4))
        kept = {"now, at 3": ask(peer, after="now")["cursor"], "read until 3": ask(peer)["cursor"]}
        kept["first page, at 3"] = ask(peer, limit=1)["cursor"]
        save(peer, range(4, 6))
        kept["now, at 5"] = ask(peer, after="now")["cursor"]
    shutil.copytree(data_dir, copy)
    with DaemonProcess(data_dir, *NEVER) as daemon, Peer(daemon.endpoint) as peer:
        for number in range(6, 11):
            save(peer, range(number % 3, number % 3 + 1), f"text {number}")
            lost[f"now, at {number}"] = ask(peer, after="now")["cursor"]
            lost[f"read until {number}"] = ask(peer, after=kept["now, at 5"])["cursor"]
            lost[f"first page, at {number}"] = ask(peer, limit=1)["cursor"]
            page = ask(peer, after=kept["first page, at 3"], limit=1)
            assert page["more"]
            lost[f"next page, at {number}"] = page["cursor"]
    shutil.rmtree(data_dir)
    shutil.copytree(copy, data_dir)
    with DaemonProcess(data_dir, *NEVER) as daemon, Peer(daemon.endpoint) as peer:
        for last_seq in (5, 6, 10, 13):
            while ask_seq(peer) < last_seq:
                save(peer, range(ask_seq(peer) + 1, ask_seq(peer) + 2), "other")
            for cursor in lost.values():
                check_gap(peer, cursor)
            for name, cursor in kept.items():
                page = ask(peer, after=cursor)
                assert "gap" not in page, name
                first = {"now, at 3": 4, "read until 3": 4, "first page, at 3": 2, "now, at 5": 6}[name]
                assert [change["seq"] for change in page["changes"]] == list(range(first, last_seq + 1)), name


def ask_seq(peer: Peer) -> int:
    seq: int = peer.ask("get-changes", {"after": "now"})["seq"]
    return seq


def test_a_deleted_scope_is_a_gap_also_for_who_waits(endpoint: str) -> None:
    """Whoever waits is answered at the deletion; and cursors of it never fit again, however many commands follow."""
    with several(endpoint, 2) as [peer, other]:
        save(other, range(1, 4), scope="ada")
        cursor = ask(peer, "ada")["cursor"]
        wait_for_change(peer, scope="ada", after=cursor)
        assert other.ask("delete-scope", scope="ada")["ok"]
        assert peer.reply(PROMPT_SECONDS)["result"]["gap"]
        for number in range(1, 6):
            check_gap(peer, cursor, "ada")
            save(other, range(number, number + 1), scope="ada")


def test_a_cursor_of_another_scope_is_a_gap(endpoint: str) -> None:
    """Also where both have as many commands, or the same ones."""
    with Peer(endpoint) as peer:
        for scope in ("ada", "bo"):
            save(peer, range(1, 4), scope=scope)
        for cursor in (ask(peer, "ada")["cursor"], ask(peer, "ada", limit=1)["cursor"]):
            check_gap(peer, cursor, "bo")
            check_gap(peer, cursor)


def test_text_that_is_no_cursor_is_invalid(tmp_path: Path) -> None:
    """Any text, a cursor that was cut off anywhere, and one of another version."""
    with Local(tmp_path / "data") as local:
        local.result("save-message", save_payload(1))
        local.result("save-message", save_payload(2))
        texts = ["x", "NOW", "???", "0", "a" * 2_560, "é", " now", base64.urlsafe_b64encode(b"\xc0").decode()]
        for cursor in (local.result("get-changes", {})["cursor"], local.result("get-changes", {"limit": 1})["cursor"]):
            texts += [cursor[:end] for end in range(1, len(cursor))]
            version, *rest = msgspec.msgpack.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            other = msgspec.msgpack.encode([version + 1, *rest])
            texts.append(base64.urlsafe_b64encode(other).decode().rstrip("="))
        for text in texts:
            reply = local.ask("get-changes", {"after": text})
            assert not reply["ok"], text
            assert reply["error"]["code"] == "invalid", reply
            assert reply["error"]["details"]["path"] == "$.payload.after"


# Waiting


def wait_for_change(
    peer: Peer, request_id: str = "", scope: str = DEFAULT_SCOPE, auth: str | None = None, **payload: Any
) -> None:
    """Send a query that waits, and return when it does: what its client sends later is answered."""
    envelope = {"scope": scope} | ({} if auth is None else {"auth": auth})
    peer.request("get-changes", {"waitMs": LONG_MS} | payload, request_id, **envelope)
    peer.request("get-user", {"userId": "nobody"}, "after-it", **envelope)
    assert peer.reply()["id"] == "after-it"


def test_what_is_sent_after_a_waiting_query_is_answered_before_it(endpoint: str) -> None:
    """A waiting query is in nobody's way, and is answered with the change that its own client makes as well."""
    with Peer(endpoint) as peer:
        wait_for_change(peer, "waiting", after=ask(peer)["cursor"])
        for operation in ("list-users", "ping", "get-scope-info"):
            peer.request(operation, {}, operation)
            assert peer.reply()["id"] == operation
        peer.request("save-message", save_payload(1), "save")
        replies = peer.replies(2)
        assert replies["save"]["ok"]
        [change] = replies["waiting"]["result"]["changes"]
        assert (change["id"], change["requestId"]) == ("m1", "save")


def test_of_too_many_waiting_queries_the_oldest_is_answered(endpoint: str) -> None:
    """The bound is that of one connection: others wait on."""
    with several(endpoint, 2) as [peer, other]:
        cursor = ask(peer)["cursor"]
        wait_for_change(other, "other", after=cursor)
        for number in range(WAITING_QUERIES_OF_CLIENT_MAX):
            peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS}, f"w{number}")
        peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS}, "one more")
        reply = peer.reply(PROMPT_SECONDS)
        assert reply["id"] == "w0"
        assert reply["result"]["changes"] == []
        assert peer.silent(50)
        assert other.silent()


def test_a_stop_answers_all_waiting_queries(start_daemon: StartDaemon) -> None:
    """With an empty page, after which they can ask the next daemon."""
    daemon = start_daemon(*NEVER)
    with several(daemon.endpoint, 3) as peers:
        cursor = ask(peers[0])["cursor"]
        for peer in peers:
            for number in range(3):
                wait_for_change(peer, f"w{number}", after=cursor)
        assert daemon.stop() == 0
        for peer in peers:
            replies = peer.replies(3)
            assert {each["result"]["cursor"] for each in replies.values()} == {cursor}
            assert [each["result"]["changes"] for each in replies.values()] == [[], [], []]
    with Peer(start_daemon(*NEVER).endpoint) as peer:
        assert ask(peer, after=cursor) == {"changes": [], "cursor": cursor, "more": False}


def test_a_revoked_token_ends_its_waiting_queries(tmp_path: Path, start_daemon: StartDaemon) -> None:
    """They are answered `unauthenticated` at once; those of other callers wait on."""
    daemon = start_daemon(*NEVER, "--endpoint", f"ipc://{tmp_path}/x.sock", "--endpoint", "tcp://127.0.0.1:*")
    by_ipc, by_tcp = daemon.endpoints
    with Peer(by_ipc) as owner, several(by_tcp, 2) as [reader, other]:
        tokens = {"reader": f"reader.{'r' * 43}", "other": f"other.{'o' * 43}"}
        for name, token in tokens.items():
            hashed = hashlib.sha256(token.encode()).hexdigest()
            assert owner.ask("create-token", {"name": name, "tokenHash": hashed, "right": "read"})["ok"]
        cursor = ask(owner)["cursor"]
        for peer, name in ((reader, "reader"), (other, "other")):
            peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS}, "waiting", auth=tokens[name])
            assert peer.ask("list-users", auth=tokens[name])["ok"]
        assert owner.ask("revoke-token", {"name": "reader"})["ok"]
        reply = reader.reply(PROMPT_SECONDS)
        assert (reply["id"], reply["error"]["code"]) == ("waiting", "unauthenticated")
        assert other.silent(50)
        save(owner, range(1, 2))
        assert [change["id"] for change in other.reply(PROMPT_SECONDS)["result"]["changes"]] == ["m1"]


def make_token(owner: Peer, token: str, **fields: Any) -> bool:
    """Create the token `reader`; whether there was none."""
    wanted = {"name": "reader", "tokenHash": hashlib.sha256(token.encode()).hexdigest(), "right": "read"}
    made: bool = owner.ask("create-token", wanted | fields)["ok"]
    return made


OLD_TOKEN, NEW_TOKEN = (f"{letter * 7}.{letter * 43}" for letter in "on")


def test_a_token_of_the_same_name_is_another_token(tmp_path: Path) -> None:
    """A token expires while its query waits, and another one gets its name: the query is answered `unauthenticated`,
    and one with the new token waits on.
    """
    with (
        running(tmp_path / "data", chores_ms=10**9, tcp=True) as daemon,
        Peer(daemon.endpoint) as owner,
        several(daemon.tcp_endpoint, 2) as [reader, other],
    ):
        cursor = ask(owner)["cursor"]
        assert make_token(owner, OLD_TOKEN, expiresAt=time.time_ns() // 10**6 + 800)
        wait_for_change(reader, "old", after=cursor, auth=OLD_TOKEN)
        wait_until(partial(make_token, owner, NEW_TOKEN))
        reply = reader.reply(PROMPT_SECONDS)
        assert (reply["id"], reply["error"]["code"]) == ("old", "unauthenticated")
        wait_for_change(other, "new", after=cursor, auth=NEW_TOKEN)
        save(owner, range(1, 2))
        assert [change["id"] for change in other.reply(PROMPT_SECONDS)["result"]["changes"]] == ["m1"]
        assert reader.silent()


def test_a_token_revoked_before_its_query_waits(tmp_path: Path) -> None:
    """The query was accepted and had to wait for its scope. It is told nothing, although its token's name is another
    token's when it begins to wait for a change.
    """
    with (
        running(tmp_path / "data", chores_ms=10**9, tcp=True) as daemon,
        Peer(daemon.endpoint) as owner,
        Peer(daemon.tcp_endpoint) as reader,
    ):
        save(owner, range(1, 2), scope="ada")
        cursor = ask(owner, "ada")["cursor"]
        assert make_token(owner, OLD_TOKEN)
        with daemon.scopes.exclusive("ada"):
            reader.request("get-changes", {"after": cursor, "waitMs": LONG_MS}, scope="ada", auth=OLD_TOKEN)
            wait_until(lambda: owner.ask("health")["result"]["queues"]["requests"])
            assert owner.ask("revoke-token", {"name": "reader"})["ok"]
            assert make_token(owner, NEW_TOKEN)
        wait_until(lambda: owner.ask("health")["result"]["queues"]["waiting"])
        save(owner, range(2, 3), scope="ada")
        assert reader.reply(PROMPT_SECONDS)["error"]["code"] == "unauthenticated"


def test_a_daemon_tells_of_what_is_larger_than_a_reply(endpoint: str) -> None:
    """Also those that wait, in both encodings; the value is left out, and the daemon lives."""
    with several(endpoint, len(CODECS) + 1) as [writer, *peers]:
        [*commands, last] = large_room()
        for command in commands:
            assert writer.ask(command["type"], command["payload"])["ok"]
        cursor = ask(writer, after="now")["cursor"]
        for peer, codec in zip(peers, CODECS, strict=True):
            peer.send(body("get-changes", {"after": cursor, "waitMs": LONG_MS}, codec))
            peer.send(body("get-user", {"userId": "nobody"}, codec, id="after-it"))
            assert peer.reply()["id"] == "after-it"
        assert writer.ask(last["type"], last["payload"])["ok"]
        for peer in peers:
            [change] = peer.reply(PROMPT_SECONDS)["result"]["changes"]
            assert (change["noun"], change["id"]) == ("room", "large")
            assert "value" not in change
        assert len(ask(writer, after=cursor)["changes"]) == 1


def test_a_closed_scope_holds_up_only_who_watches_it(tmp_path: Path) -> None:
    """A file is being compacted or replaced. Those who watch another scope are told meanwhile, and those who watch
    this one afterwards.
    """
    with running(tmp_path / "data", chores_ms=10**9) as daemon, several(daemon.endpoint, 3) as [closed, other, writer]:
        for scope in ("closed", "open"):
            save(writer, range(1, 2), scope=scope)
        before = ask(closed, "closed")["cursor"]
        for number in range(RUNNING_MAX + 2):
            wait_for_change(closed, f"w{number}", scope="closed", after=before, limit=number + 1)
        cursor = ask(other, "open")["cursor"]
        with daemon.scopes.exclusive("closed"):
            closed.request("get-changes", {"after": before, "waitMs": LONG_MS}, "asks again", scope="closed")
            wait_for_change(other, "open", "open", after=cursor)
            save(writer, range(2, 3), scope="open")
            assert [change["id"] for change in other.reply(PROMPT_SECONDS)["result"]["changes"]] == ["m2"]
            assert closed.silent()
        save(writer, range(2, 3), scope="closed")
        replies = closed.replies(RUNNING_MAX + 3)
        assert {each["result"]["changes"][0]["id"] for each in replies.values()} == {"m2"}


def test_a_commit_while_a_query_is_parked_wakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes after the query was compared with the last commits, and before it counts as one that sleeps: the loop
    does not wait then.
    """
    with running(tmp_path / "data", chores_ms=10**9) as daemon, several(daemon.endpoint, 2) as [peer, writer]:
        wait_for_change(peer, after=ask(peer)["cursor"])
        save(writer, range(1, 2))
        cursor = peer.reply()["result"]["cursor"]
        compared: list[int] = []
        may_have_news = RecentCommits.may_have_news

        def and_then_commit(recent: RecentCommits, seq: int, wanted: Wanted) -> bool:
            may = may_have_news(recent, seq, wanted)
            compared.append(seq)
            if len(compared) == 2:
                assert not may
                dispatcher = Dispatcher(daemon.scopes, status_of(daemon.scopes, daemon.daemon.gate))
                dispatcher.answer(body("save-message", save_payload(2)))
            return may

        monkeypatch.setattr(RecentCommits, "may_have_news", and_then_commit)
        peer.request("get-changes", {"after": cursor, "waitMs": LONG_MS})
        assert [change["id"] for change in peer.reply(PROMPT_SECONDS)["result"]["changes"]] == ["m2"]
        assert compared[:2] == [1, 1]


def test_what_is_new_is_told_however_short_the_wait(endpoint: str) -> None:
    """A wait of a millisecond is over before a reader has answered."""
    with Peer(endpoint) as peer:
        cursor = ask(peer, after="now")["cursor"]
        saves = [{"type": "save-message", "payload": save_payload(number, "x" * 2_000)} for number in range(300)]
        assert peer.ask("batch", {"commands": saves})["ok"]
        for wait_ms in (1, 2, 5):
            for _ in range(5):
                assert len(ask(peer, after=cursor, limit=500, waitMs=wait_ms)["changes"]) == 300


def test_what_the_filter_leaves_out_does_not_wake(endpoint: str) -> None:
    """The reply comes after `waitMs`. Its cursor is past all that, so that nobody has to look at it again."""
    with several(endpoint, 2) as [peer, writer]:
        cursor = ask(peer, after="now")["cursor"]
        filters: Plain = {"rooms": ["quiet"], "nouns": ["message"]}
        started = time.monotonic()
        wait_for_change(peer, "waiting", after=cursor, waitMs=800, **filters)
        saves = [{"type": "save-message", "payload": save_payload(number)} for number in range(50)]
        for _ in range(3):
            assert writer.ask("batch", {"commands": saves})["ok"]
        assert writer.ask("save-room", {"room": {"id": "quiet", "name": "q"}})["ok"]
        reply = peer.reply(PROMPT_SECONDS)
        assert time.monotonic() - started >= 0.8
        assert (reply["id"], reply["seq"]) == ("waiting", 4)
        assert reply["result"] == {"changes": [], "cursor": ask(peer, after="now")["cursor"], "more": False}
        save(writer, range(1, 2))
        writer.ask("save-message", save_payload("wanted", room_id="quiet"))
        page = ask(peer, after=reply["result"]["cursor"], **filters)
        assert [change["id"] for change in page["changes"]] == ["wanted"]


def test_a_deadline_ends_the_wait(endpoint: str) -> None:
    """A query that waits is answered when its caller's time is over, if that is earlier than `waitMs`."""
    with Peer(endpoint) as peer:
        cursor, started = ask(peer)["cursor"], time.monotonic()
        reply = peer.ask("get-changes", {"after": cursor, "waitMs": LONG_MS}, deadlineMs=400)
        assert reply["result"] == {"changes": [], "cursor": cursor, "more": False}
        assert 0.35 < time.monotonic() - started < PROMPT_SECONDS
