"""A wall clock that is wrong for a while, and logs of such machines: what is stamped and what is removed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backscroll.bus.clock_watch import JUMP_MS, SUSPENDED_SECONDS, ClockWatch
from backscroll.clients.python import Client
from backscroll.schema import (
    CreateChannel,
    CreateMessage,
    CreateSession,
    CreateUser,
    GetSession,
    ListMessages,
    PutMedia,
    PutMediaPart,
)
from backscroll.schema.limits import FUTURE_MS_MAX, MILLIS_MAX
from backscroll.schema.operations.media import PutMediaPart as Part
from backscroll.schema.ulid import time_of, ulid_after
from tests.support.clocks import Clock
from tests.support.local import Local, check_replay
from tests.support.shifted_daemon import DAY_MS, ShiftedDaemon
from tests.support.waiting import wait_until

AHEAD_MS = 400 * DAY_MS
NEAR_MS = 60_000
GREATEST = "7" + "Z" * 25


def is_now(time_ms: int) -> bool:
    return abs(time_ms - time.time_ns() // 1_000_000) < NEAR_MS


def test_a_clock_that_was_wrong_once_stamps_nothing_afterwards(tmp_path: Path) -> None:
    """What is made after it is right again has the right time, also over a restart; only ids stay ahead, in order."""
    with ShiftedDaemon(tmp_path / "data") as daemon, Client(daemon.endpoint) as client:
        user, channel = client.execute(CreateUser("key")), client.execute(CreateChannel("general"))
        daemon.ahead_ms(AHEAD_MS)
        wrong = client.execute(CreateMessage(channel.id, user.id, "too early"))
        assert is_now(wrong.timestamp - AHEAD_MS)
        daemon.ahead_ms(0)
        made = [client.execute(CreateMessage(channel.id, user.id, "at once"))]
    with ShiftedDaemon(tmp_path / "data") as daemon, Client(daemon.endpoint) as client:
        made.append(client.execute(CreateMessage(channel.id, user.id, "restarted")))
        assert all(is_now(each.timestamp) for each in made)
        assert [each.id for each in (wrong, *made)] == sorted(each.id for each in (wrong, *made))
        other = client.execute(CreateUser("other"))
        assert other.created_at is not None
        assert is_now(other.created_at)
        session = client.execute(CreateSession.with_new_token(user.id, DAY_MS))
        assert is_now(session.created_at)
        assert is_now(session.expires_at - DAY_MS)
        media = client.execute(PutMedia([client.execute(PutMediaPart(b"x"))], "x/y"))
        assert is_now(media.created_at)
        assert len(client.ask(ListMessages(channel.id)).messages) == 3


def test_nothing_is_removed_after_the_clock_jumped_forward(tmp_path: Path) -> None:
    """Sessions, parts of an upload and kept results stay; when the clock is right again all of them are valid."""
    flags = ("--chores-ms", "50", "--kept-results", "0", "--kept-results-ms", str(DAY_MS))
    with ShiftedDaemon(tmp_path / "data", *flags) as daemon, Client(daemon.endpoint) as client:
        user = client.execute(CreateUser("key"), request_id="user")
        command = CreateSession.with_new_token(user.id, DAY_MS)
        session = client.execute(command)
        assert command.token is not None
        sha256 = client.execute(PutMediaPart(b"part of an upload"))
        daemon.ahead_ms(AHEAD_MS)
        wait_until(lambda: "the clock jumped forward" in daemon.log.read_text(encoding="utf-8"))
        ended = time.monotonic() + 0.5  # ten more runs of the chores
        while time.monotonic() < ended:
            assert client.ask(GetSession(command.token)) is None, "it has expired by this clock"
        daemon.ahead_ms(0)
        assert client.ask(GetSession(command.token)) == session
        assert client.execute(Part(sha256=sha256)) == sha256
        assert client.execute(CreateUser("key"), request_id="user") == user
        assert "chores done" not in daemon.log.read_text(encoding="utf-8")


def test_removals_are_suspended_for_an_hour_after_a_jump() -> None:
    """A forward jump suspends them, each further one anew; drift, a clock set back, and a sleep do not."""
    now_ms, seconds = 1_000_000_000_000, 50.0
    watch = ClockWatch(now_ms, lambda: seconds)

    def after(elapsed: float, jump_ms: int = 0) -> bool:
        nonlocal now_ms, seconds
        seconds += elapsed
        now_ms += round(elapsed * 1000) + jump_ms
        return watch.trusts(now_ms)

    assert all(after(60, jump_ms=500) for _ in range(1_000))
    assert after(60, jump_ms=JUMP_MS - 1)
    assert after(60, jump_ms=-DAY_MS)
    assert not after(60, jump_ms=JUMP_MS + 1)
    assert not after(SUSPENDED_SECONDS - 1, jump_ms=-JUMP_MS)
    assert after(1)
    assert not after(1, jump_ms=DAY_MS)
    assert not after(SUSPENDED_SECONDS - 1, jump_ms=DAY_MS)
    assert not after(SUSPENDED_SECONDS - 1)
    assert after(1)


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Iterator[Local]:
    with Local(tmp_path / "data", clock=clock) as local:
        yield local


def entry(at: int, *ids: str, **fields: Any) -> dict[str, Any]:
    made = {"generated": {"ids": list(ids)}} if ids else {}
    return {"seq": 1, "at": at, "id": "one", "type": "create-user", "payload": {"pubkey": "k"}} | made | fields


@pytest.mark.parametrize("allowed", [False, True])
def test_entries_from_the_future_are_refused(local: Local, clock: Clock, allowed: bool) -> None:
    """More than a day ahead is `invalid` without `allowFuture`; ids later than their command always are."""
    latest = clock.now + FUTURE_MS_MAX
    bad: list[tuple[dict[str, Any], str]] = [
        (entry(clock.now, GREATEST), "$.payload.entries[0].generated.ids[0]"),
        (entry(clock.now, ulid_after("", clock.now + 1, 0)), "$.payload.entries[0].generated.ids[0]"),
        (
            entry(clock.now, ulid_after("", clock.now, 0), GREATEST, redacted=True, digest="0" * 64, payload=None),
            "$.payload.entries[0].generated.ids[1]",
        ),
    ]
    if not allowed:
        bad += [(entry(each), "$.payload.entries[0].at") for each in (latest + 1, MILLIS_MAX)]
    for each, path in bad:
        reply = local.ask("append-log", {"entries": [each], "allowFuture": allowed})
        assert (reply["error"]["code"], reply["error"]["details"]["path"]) == ("invalid", path)
    assert local.entries() == []
    local.result("append-log", {"entries": [entry(MILLIS_MAX if allowed else latest)], "allowFuture": allowed})
    made = local.result("create-user", {"pubkey": "another"})
    assert made["createdAt"] == clock.now, "an entry does not change the time of what follows"


def test_a_log_of_a_clock_that_was_ahead_can_be_replayed(local: Local, clock: Clock) -> None:
    """With `allowFuture`, row by row: also the entries after the clock was right again, whose ids are ahead."""
    local.result("create-user", {"pubkey": "before"})
    clock.now += AHEAD_MS
    local.result("create-user", {"pubkey": "ahead"})
    clock.now -= AHEAD_MS
    made = local.result("create-user", {"pubkey": "after"})
    assert time_of(made["id"]) > clock.now + FUTURE_MS_MAX
    entries = local.entries()
    assert local.code("append-log", {"entries": entries}, scope="refused") == "invalid"
    local.result("append-log", {"entries": entries, "allowFuture": True}, scope="replayed")
    check_replay(local, "replayed")


def test_the_greatest_id_is_an_error_and_not_the_end(local: Local) -> None:
    """A damaged file can contain it; then commands that need an id fail, and all others work."""
    with local.store().write() as db:
        db.position = db.position._replace(last_id=GREATEST)
    reply = local.ask("create-user", {"pubkey": "k"})
    assert reply["error"]["code"] == "storage"
    assert "greatest possible id" in reply["error"]["message"]
    assert local.result("save-room", {"room": {"id": "r1", "name": "r"}}) is None
